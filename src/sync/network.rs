//! Changes of this machine's links, addresses and routes, as the kernel reports them on a `NETLINK_ROUTE` socket.
//!
//! Owns the socket and the last known state. Reports only that something has changed; the engine decides what to do about it.

mod messages;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};

use self::messages::KnownRoutes;

/// Multicast groups for links, addresses and routes of both families (`RTMGRP_*` of rtnetlink(7)).
const GROUPS: u32 = LINK | IPV4_ADDRESS | IPV4_ROUTE | IPV6_ADDRESS | IPV6_ROUTE;
const LINK: u32 = 0x1;
const IPV4_ADDRESS: u32 = 0x10;
const IPV4_ROUTE: u32 = 0x40;
const IPV6_ADDRESS: u32 = 0x100;
const IPV6_ROUTE: u32 = 0x400;
/// Size of the read buffer, in bytes, longer than the kernel's messages. Of a longer datagram the complete messages at its
/// beginning are read, the rest is lost.
const BUFFER_BYTES: usize = 32 << 10;
/// Maximum number of reads in one iteration of the thread.
const READS_A_TURN: usize = 64;

/// Netlink socket and last known state; see the module documentation.
#[derive(Debug)]
pub(super) struct Network {
    socket: OwnedFd,
    known: KnownRoutes,
    buffer: Vec<u8>,
}

impl Network {
    /// Opens the socket and registers it under `token`.
    pub(super) fn watch(registry: &Registry, token: Token) -> io::Result<Network> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        registry.register(&mut SourceFd(&socket.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Network { socket, known: KnownRoutes::default(), buffer: vec![0; BUFFER_BYTES] })
    }

    /// Reads pending messages. Returns whether something has changed, and whether more may be pending.
    pub(super) fn read(&mut self) -> (bool, bool) {
        let mut changed = false;
        for _ in 0..READS_A_TURN {
            match rustix::io::read(&self.socket, &mut self.buffer[..]) {
                Ok(length) => changed |= self.known.note(&self.buffer[..length]),
                // The kernel dropped messages, so something did change.
                Err(Errno::NOBUFS) => changed = true,
                Err(Errno::INTR) => {}
                Err(_) => return (changed, false),
            }
        }
        (changed, true)
    }
}

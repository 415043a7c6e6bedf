//! UDP socket with its poll and waker, created before its thread starts so that other threads can wake it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Interest, Poll, Token, Waker};

/// Token of the socket's events.
pub(crate) const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Socket owned by the thread that polls it.
#[derive(Debug)]
pub struct Socket {
    pub(crate) poll: Poll,
    pub(crate) socket: UdpSocket,
    waker: Arc<Waker>,
}

impl Socket {
    /// Binds the socket. Requests `buffer_bytes` of kernel buffer in each direction; the kernel may grant less.
    ///
    /// # Errors
    /// The address is in use or not one of this machine.
    pub fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<Socket> {
        let poll = Poll::new()?;
        let mut socket = UdpSocket::bind(address)?;
        // Larger buffers absorb a burst; a smaller grant is acceptable.
        _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, buffer_bytes);
        _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, buffer_bytes);
        poll.registry().register(&mut socket, SOCKET, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Socket { poll, socket, waker })
    }

    /// Returns the bound address; if port 0 was requested, with the port assigned.
    ///
    /// # Errors
    /// The socket failed.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Registers or removes interest in room to send. It is removed when not needed: the kernel would wake the thread for every
    /// datagram that has left.
    pub(crate) fn wait_for_room(&mut self, wanted: bool) -> io::Result<()> {
        let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.poll.registry().reregister(&mut self.socket, SOCKET, interest)
    }

    /// Returns the waker of the thread.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }
}

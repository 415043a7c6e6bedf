//! The relay thread: moves datagrams between its socket and the relay.
//!
//! Ends when nobody is left to give it orders.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use mio::net::UdpSocket;
use mio::{Events, Waker};

use super::Relay;
use super::wire::{HEADER_BYTES, RelayKey};
use crate::clock::shell::now;
use crate::limits::RELAYED_BYTES;
use crate::pulse::Pulse;
use crate::udp::Socket;

/// Datagrams taken before anything else is looked at.
const RECEIVED_A_TURN: usize = 256;
/// What the kernel may hold for us in each direction, bytes; it gives what it allows.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// What the thread is told.
#[derive(Debug)]
pub enum Order {
    /// False: radio silence. Nothing leaves any more, and every allocation ends.
    Active(bool),
    /// Another key counts.
    Key(RelayKey),
}

/// Everything the thread is wired to.
#[derive(Debug)]
pub struct Wiring {
    /// From whoever decides.
    pub orders: Receiver<Order>,
    /// Told once nothing leaves any more.
    pub silent: Sender<()>,
    /// Wakes whoever waits for that.
    pub waiting: Option<Arc<Waker>>,
    /// Stamped at each turn.
    pub pulse: Arc<Pulse>,
}

/// Runs the relay thread; `active`: not in radio silence.
///
/// # Errors
/// The poll failed; nothing works without it.
pub fn run(mut relay: Relay, mut socket: Socket, wiring: &Wiring, mut active: bool) -> io::Result<()> {
    let mut events = Events::with_capacity(4);
    // One byte more than is forwarded, so that what is too long shows.
    let mut buffer = [0; HEADER_BYTES + RELAYED_BYTES + 1];
    loop {
        match obey(&mut relay, wiring, active) {
            Some(now_active) => active = now_active,
            None => return Ok(()),
        }
        let idle = turn(&mut relay, &socket.socket, &mut buffer, active);
        let now = now();
        wiring.pulse.stamp(now.mono);
        if relay.poll_deadline().is_some_and(|at| now.reached(at)) {
            relay.handle_timeout(now);
        }
        let until = relay.poll_deadline().map(|at| at.saturating_duration_since(now.mono));
        let timeout = if idle { until } else { Some(Duration::ZERO) };
        match socket.poll.poll(&mut events, wiring.pulse.shorten(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
    }
}

/// Takes orders; whether datagrams may leave, `None` once nobody gives any.
fn obey(relay: &mut Relay, wiring: &Wiring, mut active: bool) -> Option<bool> {
    loop {
        match wiring.orders.try_recv() {
            Ok(Order::Key(key)) => relay.set_key(key),
            Ok(Order::Active(wanted)) => {
                active = wanted;
                if !active {
                    relay.forget_all();
                    // Whoever asked takes this without ever waiting for us.
                    wiring.silent.send(()).ok()?;
                    wiring.waiting.iter().for_each(|waker| {
                        if let Err(error) = waker.wake() {
                            log::error!("waking the sync thread: {error}");
                        }
                    });
                }
            }
            Err(TryRecvError::Empty) => return Some(active),
            Err(TryRecvError::Disconnected) => return None,
        }
    }
}

/// Takes and sends what there is; true when nothing is left to take. Under radio silence what arrives is dropped unread.
fn turn(relay: &mut Relay, socket: &UdpSocket, buffer: &mut [u8], active: bool) -> bool {
    let now = now();
    for _ in 0..RECEIVED_A_TURN {
        match socket.recv_from(buffer) {
            Ok((length, from)) if active => {
                relay.handle_datagram(now, from, &buffer[..length]);
                transmit(relay, socket);
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            // Linux reports what became of an earlier datagram here (an ICMP error).
            Err(error) => log::debug!("a forwarded datagram was lost: {error}"),
        }
    }
    false
}

/// A datagram there is no room for is lost, as in any router.
fn transmit(relay: &mut Relay, socket: &UdpSocket) {
    while let Some((to, datagram)) = relay.poll_transmit() {
        if let Err(error) = socket.send_to(&datagram, to) {
            log::debug!("a datagram to {to} is lost: {error}");
        }
    }
}

//! Relay thread: moves datagrams between its socket and the relay.
//!
//! Ends when the sender of its orders is gone.

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
use crate::thread_watchdog::ThreadWatchdog;
use crate::udp::Socket;

/// Maximum number of datagrams received in one iteration, before orders are read again.
const RECEIVED_A_TURN: usize = 256;
/// Requested size of the kernel's socket buffer in each direction, in bytes; the kernel may grant less.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;

/// Orders to the thread.
#[derive(Debug)]
pub enum RelayControl {
    /// Leaves or, if false, enters radio silence: nothing is sent, and every allocation ends.
    Active(bool),
    /// Replaces the key.
    Key(RelayKey),
}

/// Channels and wakers that connect the thread to the others.
#[derive(Debug)]
pub struct Wiring {
    /// Orders from the sync thread; its end ends this thread.
    pub orders: Receiver<RelayControl>,
    /// Confirmations of radio silence, sent once nothing leaves any more.
    pub silent: Sender<()>,
    /// Wakes the thread that waits for a confirmation.
    pub waiting: Option<Arc<Waker>>,
    /// Watchdog stamp of this thread, set in each iteration.
    pub pulse: Arc<ThreadWatchdog>,
}

/// Runs the relay thread; with `active` false it begins in radio silence.
///
/// # Errors
/// The poll failed; no work is possible without it.
pub fn run(mut relay: Relay, mut socket: Socket, wiring: &Wiring, mut active: bool) -> io::Result<()> {
    let mut events = Events::with_capacity(4);
    // One byte more than is forwarded, so that a datagram that is too long is noticed.
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

/// Carries out orders; returns whether datagrams may leave, or `None` once the sender is gone.
fn obey(relay: &mut Relay, wiring: &Wiring, mut active: bool) -> Option<bool> {
    loop {
        match wiring.orders.try_recv() {
            Ok(RelayControl::Key(key)) => relay.set_key(key),
            Ok(RelayControl::Active(wanted)) => {
                active = wanted;
                if !active {
                    relay.forget_all();
                    // Does not block: the requester always drains this channel.
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

/// Receives and forwards pending datagrams; returns true when none is left. Under radio silence they are dropped unread.
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
            // Linux reports the fate of an earlier datagram here (an ICMP error).
            Err(error) => log::debug!("a forwarded datagram was lost: {error}"),
        }
    }
    false
}

/// Sends what is ready. A datagram for which there is no room is lost, as in any router.
fn transmit(relay: &mut Relay, socket: &UdpSocket) {
    while let Some((to, datagram)) = relay.poll_transmit() {
        if let Err(error) = socket.send_to(&datagram, to) {
            log::debug!("a datagram to {to} is lost: {error}");
        }
    }
}

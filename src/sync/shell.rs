//! Sync thread: moves datagrams, replies and requests between the engine and the system.
//!
//! Ends when every sender of [`Wiring::asked`] is gone, after notifying the peers.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use crossbeam_channel::{Receiver, Sender, TryRecvError, TrySendError};
use mio::{Events, Token, Waker};

use crate::clock::shell::now;
use crate::relay::shell::RelayControl;
use crate::store::Envelope;
use crate::store::shell::{ReplyReceiver, SharedTip};
use crate::sync::network::Network;
use crate::sync::resolver::Resolved;
use crate::sync::{ControlRequest, Engine, Event, Reloaded};
use crate::thread_watchdog::ThreadWatchdog;
use crate::udp::{SOCKET, Socket};

const NETWORK: Token = Token(2);
/// Maximum number of datagrams received in one iteration, so that sending is not starved.
const RECEIVED_A_TURN: usize = 64;
/// Maximum number of datagrams sent in one iteration, so that receiving is not starved.
const SENT_A_TURN: usize = 64;
/// Size of the receive buffer, in bytes; no UDP payload is longer.
const DATAGRAM_BYTES: usize = 1 << 16;
/// Requested size of the kernel's socket buffer in each direction, in bytes; the kernel may grant less.
pub const SOCKET_BUFFER_BYTES: usize = 2 << 20;
/// Minimum interval between log lines about the same kind of send error.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Channels and wakers that connect the thread to the others.
#[derive(Debug)]
pub struct Wiring {
    /// Requests to the store thread.
    pub requests: Sender<Envelope>,
    /// Replies from the store thread.
    pub inlet: ReplyReceiver,
    /// Newest visible and newest durable sequence number of the store.
    pub tip: Arc<SharedTip>,
    /// Requests from the api thread.
    pub asked: Receiver<ControlRequest>,
    /// Events to the api thread. Has room for one answer per unanswered request; a status waits in the engine while it is full.
    pub events: Sender<Event>,
    /// Wakes the api thread.
    pub api: Arc<Waker>,
    /// Names to the resolver.
    pub names: Sender<String>,
    /// Addresses from the resolver.
    pub resolved: Receiver<Resolved>,
    /// Watchdog stamp of this thread, set in each iteration.
    pub pulse: Arc<ThreadWatchdog>,
    /// Reloaded settings.
    pub reloads: Receiver<Reloaded>,
    /// This node's own relay, if it runs one.
    pub relay: Option<OwnRelay>,
}

/// Connection to the thread of this node's own relay.
#[derive(Debug)]
pub struct OwnRelay {
    /// Orders to the relay; while the channel is full they wait in the engine.
    pub orders: Sender<RelayControl>,
    /// Wakes the relay thread, which ends once it is woken after the sender of its orders is gone.
    pub waker: Arc<Waker>,
    /// Confirmations that the relay has fallen silent.
    pub silenced: Receiver<()>,
}

/// Runs the sync thread.
///
/// # Errors
/// The poll failed; no work is possible without it.
pub fn run(engine: Engine, socket: Socket, wiring: Wiring) -> io::Result<()> {
    let network = Network::watch(socket.poll.registry(), NETWORK);
    let network = network.map_err(|cause| {
        log::warn!("changes of this machine's network are not seen, redials keep to their backoff: {cause}");
    });
    Shell {
        engine,
        socket,
        network: network.ok(),
        network_news: false,
        wiring,
        held: None,
        unsent: None,
        readable: true,
        buffer: vec![0; DATAGRAM_BYTES],
        logged: BTreeMap::new(),
    }
    .run()
}

struct Shell {
    engine: Engine,
    socket: Socket,
    network: Option<Network>,
    /// True if the netlink socket may have more to read.
    network_news: bool,
    wiring: Wiring,
    /// Request for which the store's queue had no room.
    held: Option<Envelope>,
    /// Datagram for which the socket had no room.
    unsent: Option<(SocketAddr, Vec<u8>)>,
    readable: bool,
    buffer: Vec<u8>,
    logged: BTreeMap<io::ErrorKind, Instant>,
}

impl Shell {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(4);
        loop {
            let asked_open = self.take_channels();
            self.look_at_network();
            self.receive();
            if !asked_open {
                self.say_goodbye();
                return Ok(());
            }
            let idle = self.drain();
            self.sleep(&mut events, idle)?;
        }
    }

    fn sleep(&mut self, events: &mut Events, idle: bool) -> io::Result<()> {
        let now = now();
        self.wiring.pulse.stamp(now.mono);
        // Does not sleep while input may be pending or output is left.
        let timeout = match self.engine.poll_deadline(now) {
            _ if self.readable || self.network_news || !idle => Some(Duration::ZERO),
            Some((at, reason)) => {
                log::trace!("sleeping until {reason:?}");
                Some(at.saturating_duration_since(now.mono))
            }
            None => None,
        };
        match self.socket.poll.poll(events, self.wiring.pulse.shorten(timeout)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => result?,
        }
        self.readable |= events.iter().any(|event| event.token() == SOCKET && event.is_readable());
        self.network_news |= events.iter().any(|event| event.token() == NETWORK);
        let now = self::now();
        self.wiring.pulse.woke(now.mono);
        if self.engine.poll_deadline(now).is_some_and(|(at, _)| now.reached(at)) {
            self.engine.handle_timeout(now);
        }
        Ok(())
    }

    /// Passes everything the other threads sent to the engine. Returns false once the api thread is gone.
    fn take_channels(&mut self) -> bool {
        let now = now();
        // Before the readers: the store hands out a new reader before the tip of its new run.
        let tip = self.wiring.tip.get();
        for reply in self.wiring.inlet.replies.try_iter().collect::<Vec<_>>() {
            self.engine.handle_reply(now, reply);
        }
        for reader in self.wiring.inlet.readers.try_iter().collect::<Vec<_>>() {
            self.engine.handle_reader(now, reader);
        }
        self.engine.handle_tip(now, tip);
        if let Ok(reloaded) = self.wiring.reloads.try_recv() {
            self.engine.handle_reloaded(now, reloaded);
        }
        for () in self.wiring.relay.iter().flat_map(|relay| relay.silenced.try_iter()).collect::<Vec<_>>() {
            self.engine.handle_relay_silent();
        }
        for answer in self.wiring.resolved.try_iter().collect::<Vec<_>>() {
            self.engine.handle_resolved(now, &answer.name, answer.result.as_deref());
        }
        loop {
            match self.wiring.asked.try_recv() {
                Ok(asked) => self.engine.handle_asked(now, asked),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn look_at_network(&mut self) {
        let Some(network) = self.network.as_mut().filter(|_| self.network_news) else { return };
        let (changed, more) = network.read();
        self.network_news = more;
        if changed {
            self.engine.handle_network_changed(now());
        }
    }

    fn receive(&mut self) {
        for _ in 0..RECEIVED_A_TURN {
            if !self.readable {
                return;
            }
            match self.socket.socket.recv_from(&mut self.buffer) {
                Ok((length, from)) => {
                    let data = BytesMut::from(&self.buffer[..length]);
                    self.engine.handle_datagram(now(), from, data);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                // Linux reports the fate of an earlier datagram here (an ICMP error); QUIC has its own timers.
                Err(error) => self.complain(&error),
            }
        }
    }

    /// Delivers the output of the engine; returns true when nothing is left that could be delivered now.
    fn drain(&mut self) -> bool {
        self.pass_requests();
        self.pass_orders();
        self.pass_events();
        while let Some(name) = self.engine.poll_resolve() {
            if self.wiring.names.try_send(name).is_err() {
                log::error!("the resolver's queue is full");
            }
        }
        self.transmit()
    }

    fn pass_requests(&mut self) {
        while let Some(request) = self.held.take().or_else(|| self.engine.poll_store()) {
            match self.wiring.requests.try_send(request) {
                Ok(()) => {}
                Err(TrySendError::Full(request)) => {
                    // The next commit of the store wakes this thread again.
                    self.held = Some(request);
                    return;
                }
                Err(TrySendError::Disconnected(_)) => return,
            }
        }
    }

    fn pass_orders(&mut self) {
        let Some(relay) = &self.wiring.relay else { return };
        let mut any = false;
        while !relay.orders.is_full() {
            let Some(order) = self.engine.poll_relay() else { break };
            any |= relay.orders.try_send(order).is_ok();
        }
        if any && let Err(error) = relay.waker.wake() {
            log::error!("waking the relay thread: {error}");
        }
    }

    fn pass_events(&mut self) {
        let mut any = false;
        while !self.wiring.events.is_full() {
            let Some(event) = self.engine.poll_event() else { break };
            any |= self.wiring.events.try_send(event).is_ok();
        }
        if any && let Err(error) = self.wiring.api.wake() {
            log::error!("waking the api thread: {error}");
        }
    }

    fn transmit(&mut self) -> bool {
        for _ in 0..SENT_A_TURN {
            let mut datagram = Vec::new();
            let held = self.unsent.take();
            let was_held = held.is_some();
            let next = held.or_else(|| {
                let to = self.engine.poll_transmit(now(), &mut datagram)?;
                Some((to, datagram))
            });
            let Some((to, datagram)) = next else { return true };
            match self.socket.socket.send_to(&datagram, to) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.unsent = Some((to, datagram));
                    self.wait_for_room(true);
                    return true;
                }
                // A datagram that cannot be sent counts as lost.
                Err(error) => self.complain(&error),
                Ok(_) => {}
            }
            if was_held {
                self.wait_for_room(false);
            }
        }
        false
    }

    fn wait_for_room(&mut self, wanted: bool) {
        if let Err(error) = self.socket.wait_for_room(wanted) {
            self.complain(&error);
        }
    }

    fn complain(&mut self, error: &io::Error) {
        let at = now().mono;
        let recently = self.logged.get(&error.kind()).is_some_and(|last| at - *last < LOG_INTERVAL);
        if !recently {
            self.logged.insert(error.kind(), at);
            log::info!("a datagram is lost: {error}");
        }
    }

    fn say_goodbye(&mut self) {
        self.engine.handle_shutdown(now());
        while !self.transmit() {}
        if let Some(OwnRelay { orders, waker, .. }) = self.wiring.relay.take() {
            drop(orders);
            if let Err(error) = waker.wake() {
                log::error!("waking the relay thread: {error}");
            }
        }
    }
}

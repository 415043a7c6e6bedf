//! Sync engine: input in, actions out, without I/O.
//!
//! Owns the links, the sessions and the table of peers. After every `handle_*` call drain, in this order,
//! [`Engine::poll_store`], `poll_relay`, [`Engine::poll_event`], [`Engine::poll_resolve`] and [`Engine::poll_transmit`], each
//! until `None`; then wait for input or for [`Engine::poll_deadline`]. Reads documents through the [`Reader`] it was given and
//! requests every write from the store.

mod admission;
mod controls;
mod dial;
mod endings;
mod presence;
mod relays;
mod reload;
mod roaming;
mod sessions;

pub use dial::LOOKUP_DEADLINE;
pub use reload::Reloaded;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use roaming::Roaming;

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::log_limit::LogLimit;
use crate::random::Random;
use crate::relay::shell::RelayControl;
use crate::relay::wire::RelayKey;
use crate::store::{self, Envelope, PeerSetting, Reader, Reply, SavedPeer, StoreRequest, Ticket, Tip};
use crate::sync::control::{ControlRequest, Event, Stats, Status};
use crate::sync::copied::Copied;
use crate::sync::durability_waiters::DurabilityWaiters;
use crate::sync::engine::relays::is_quic;
use crate::sync::held::HeldBack;
use crate::sync::link::{CloseCode, LinkEvent, LinkId, LinkRates, Links, canonical};
use crate::sync::peers::{Address, Peers};
use crate::sync::presence::PresenceGossip;
use crate::sync::proof::FormationKey;
use crate::sync::relays::Relays;
use crate::sync::session::{LocalNode, Session, SessionError};

/// Maximum number of unanswered requests to the store.
pub const STORE_OUTSTANDING: usize = 64;

/// Peer named in the configuration.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PeerSpec {
    /// Endpoint id of the peer; admits it without a proof.
    pub id: EndpointId,
    /// Addresses to dial; if there are none, the peer dials this node.
    pub addresses: Vec<Address>,
}

/// Configuration of the engine.
#[derive(Debug)]
pub struct SyncConfig {
    /// Node id, shown to peers.
    pub node_id: String,
    /// Application id; nodes of another application are not admitted.
    pub app_id: String,
    /// Formation key, which admits every node that proves it.
    pub formation_key: Option<FormationKey>,
    /// Key for relays, if it is not the formation key.
    pub relay_key: Option<FormationKey>,
    /// True if this node also runs a relay, on a separate thread.
    pub is_relay: bool,
    /// Configured peers.
    pub peers: Vec<PeerSpec>,
    /// Rates at which links may send.
    pub link_rates: LinkRates,
    /// Collections of `latest` documents on this node.
    pub latest_collections: BTreeSet<String>,
    /// False to begin in radio silence.
    pub active: bool,
    /// True to remember StartSync and StopSync across restarts.
    pub persist_sync: bool,
}

/// Reason for which the engine is to be woken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wake {
    /// More can be sent at once.
    More,
    /// A QUIC timer expires.
    Link,
    /// A peer is due to be dialled, or an attempt times out.
    Dial,
    /// A silent link is to be pinged or closed.
    Silence,
    /// A stall is to be reported.
    Stall,
    /// A session timer expires.
    Session,
    /// A change of the network is to be handled, or a link has not answered since one.
    Network,
    /// A request to a relay is due.
    Relay,
}

/// Unanswered request to the store.
#[derive(Debug)]
pub(super) enum Pending {
    Apply(LinkId),
    Save {
        call: Option<u64>,
    },
    /// Saves whether sync is on, for the next start.
    SaveSync,
}

/// Sync engine; see the module documentation.
#[derive(Debug)]
pub struct Engine {
    pub(super) ours: LocalNode,
    formation_key: Option<FormationKey>,
    /// True if relays use their own key, so that reloading the formation key does not affect them.
    own_relay_key: bool,
    pub(super) relays: Relays,
    /// Orders for this node's own relay; `None` if it does not run one.
    relay_orders: Option<VecDeque<RelayControl>>,
    /// Number of confirmations of silence that the own relay owes.
    relay_owes: u32,
    /// Peers of the configuration.
    named: Vec<PeerSpec>,
    persist_sync: bool,
    pub(super) reader: Reader,
    tip: Tip,
    pub(super) random: Box<dyn Random>,
    pub(super) links: Links,
    pub(super) peers: Peers,
    pub(super) sessions: BTreeMap<LinkId, Session>,
    pub(super) active: bool,
    store_out: VecDeque<Envelope>,
    pending: BTreeMap<u64, Pending>,
    next_ticket: u64,
    pub(super) events: VecDeque<Event>,
    pub(super) lookups: VecDeque<String>,
    /// Names being resolved, with the time of the request.
    pub(super) looking_up: BTreeMap<String, Instant>,
    pub(super) waits: DurabilityWaiters,
    pub(super) held: HeldBack,
    pub(super) flood: PresenceGossip,
    pub(super) copied: Copied,
    /// True if a peer showed that the database is a restored backup.
    pub(super) went_back: bool,
    /// Present nodes to be reported to the api engine.
    pub(super) present: BTreeSet<EndpointId>,
    /// Number of sync settings not on disk yet.
    pub(super) saving_sync: usize,
    /// ConnectPeer calls that wait for their peers.
    arrivals: Vec<controls::Arrival>,
    /// StopSync calls to answer once no look-up is in flight and the setting is on disk.
    pub(super) falling_silent: Vec<u64>,
    status: Status,
    /// Number of all documents, as last counted for metrics, and the time of the count.
    pub(super) everything: Option<(Instant, u64)>,
    bytes_sent: u64,
    bytes_received: u64,
    roaming: Roaming,
    pub(super) dirty: BTreeSet<LinkId>,
    pub(super) log: LogLimit,
    scratch: Vec<u8>,
}

impl Engine {
    /// Creates the engine of a node, ready to dial.
    ///
    /// # Errors
    /// The store could not be read, or a peer named in `config` is this node.
    pub fn new(
        config: SyncConfig,
        identity: &Identity,
        reader: Reader,
        mut random: Box<dyn Random>,
        now: Now,
    ) -> Result<Engine, store::Error> {
        let snapshot = reader.snapshot()?;
        let saved = snapshot.sync_setting()?.filter(|_| config.persist_sync);
        let mut links = Links::new(identity, &mut *random, now);
        links.set_rates(config.link_rates);
        let relay_key = config.relay_key.as_ref().or(config.formation_key.as_ref()).map(RelayKey::new);
        let SyncConfig { node_id, app_id, latest_collections: latest, .. } = config;
        let mut engine = Engine {
            ours: LocalNode { id: identity.id(), node_id, app_id, latest },
            own_relay_key: config.relay_key.is_some(),
            relays: Relays::new(identity.duplicate(), relay_key),
            relay_orders: config.is_relay.then(VecDeque::new),
            relay_owes: 0,
            formation_key: config.formation_key,
            named: config.peers,
            persist_sync: config.persist_sync,
            tip: Tip { visible: snapshot.visible(), durable: 0 },
            reader,
            random,
            links,
            peers: Peers::default(),
            sessions: BTreeMap::new(),
            active: saved.unwrap_or(config.active),
            store_out: VecDeque::new(),
            pending: BTreeMap::new(),
            next_ticket: 0,
            events: VecDeque::new(),
            lookups: VecDeque::new(),
            looking_up: BTreeMap::new(),
            waits: DurabilityWaiters::default(),
            held: HeldBack::default(),
            flood: PresenceGossip::default(),
            copied: Copied::default(),
            went_back: false,
            present: BTreeSet::new(),
            saving_sync: 0,
            arrivals: Vec::new(),
            falling_silent: Vec::new(),
            status: Status::default(),
            everything: None,
            bytes_sent: 0,
            bytes_received: 0,
            roaming: Roaming::default(),
            dirty: BTreeSet::new(),
            log: LogLimit::default(),
            scratch: Vec::new(),
        };
        engine.know_peers(snapshot.links()?);
        engine.note_unreachable();
        engine.know_relays(now);
        engine.settle(now);
        Ok(engine)
    }

    fn know_peers(&mut self, saved: Vec<SavedPeer>) {
        for spec in &self.named {
            if let Some(peer) = self.peers.entry(spec.id) {
                peer.pinned = true;
                peer.addresses.clone_from(&spec.addresses);
            }
        }
        for link in saved {
            let Some(peer) = self.peers.entry(link.peer) else { continue };
            match link.wish {
                PeerSetting::Refuse(addresses) => {
                    peer.refused = true;
                    let parsed = addresses.iter().filter_map(|address| Address::parse(address));
                    let new: Vec<Address> = parsed.filter(|address| !peer.addresses.contains(address)).collect();
                    peer.addresses.extend(new);
                }
                PeerSetting::Seen(address) => {
                    let place = address.parse().ok().filter(|_| peer.pinned || self.formation_key.is_some());
                    (peer.contact, peer.seen_at, peer.saved_place) = (place, place, place);
                }
                PeerSetting::Connect(addresses) => {
                    peer.pinned = true;
                    let parsed = addresses.iter().filter_map(|address| Address::parse(address));
                    let new: Vec<Address> = parsed.filter(|address| !peer.addresses.contains(address)).collect();
                    peer.addresses.extend(new);
                }
            }
        }
    }

    /// Logs a warning for each peer configured by its id alone: one of the two nodes has to know the other's address.
    fn note_unreachable(&self) {
        let unreachable = |peer: &super::peers::Peer| peer.pinned && !peer.refused && peer.addresses.is_empty();
        for (id, _) in self.peers.iter().filter(|(_, peer)| unreachable(peer) && peer.contact.is_none()) {
            log::warn!("{id}: {}", controls::NO_ADDRESS);
        }
    }

    // Input.

    /// Handles a datagram. Under radio silence it is dropped unread.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, data: BytesMut) {
        if !self.active {
            return;
        }
        self.bytes_received += data.len() as u64;
        if is_quic(&data) {
            self.links.handle_datagram(now, from, data);
        } else {
            self.on_other(now, canonical(from), data);
        }
        self.settle(now);
    }

    /// Handles a reply of the store.
    pub fn handle_reply(&mut self, now: Now, reply: Reply) {
        let Ticket::Sync(ticket) = reply.ticket else { return };
        match self.pending.remove(&ticket) {
            Some(Pending::Apply(link)) => self.on_applied(now, link, reply.result),
            Some(Pending::Save { call: Some(call) }) => self.on_saved(call, reply.result.err()),
            Some(Pending::SaveSync) => self.on_sync_saved(reply.result.err()),
            Some(Pending::Save { call: None }) | None => {}
        }
        self.settle(now);
    }

    /// Handles a commit of the store.
    pub fn handle_tip(&mut self, now: Now, tip: Tip) {
        if tip != self.tip {
            self.tip = tip;
            self.dirty.extend(self.sessions.iter().filter(|(_, session)| session.is_live()).map(|(link, _)| *link));
            self.settle(now);
        }
    }

    /// Handles the reopening of the store after an error. Unflushed commits are lost, so every session is closed and starts
    /// over.
    pub fn handle_reader(&mut self, now: Now, reader: Reader) {
        self.reader = reader;
        for link in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.end(now, link, &SessionError::new(CloseCode::Restarting, "the store was reopened"));
        }
        self.settle(now);
    }

    /// Handles a confirmation that this node's own relay is silent.
    pub fn handle_relay_silent(&mut self) {
        self.relay_owes = self.relay_owes.saturating_sub(1);
        self.answer_silence();
    }

    /// Handles a request of the api engine.
    pub fn handle_asked(&mut self, now: Now, asked: ControlRequest) {
        self.on_control(now, asked);
        self.settle(now);
    }

    /// Handles the end of a look-up requested by [`Engine::poll_resolve`].
    pub fn handle_resolved(&mut self, now: Now, name: &str, result: Result<&[SocketAddr], &String>) {
        self.on_resolved(now, name, result);
        self.settle(now);
    }

    /// Handles a change of a link, an address or a route of this machine.
    pub fn handle_network_changed(&mut self, now: Now) {
        if self.active {
            self.roaming.news(now);
            self.check_network(now);
        }
        self.settle(now);
    }

    /// Handles the expiry of [`Engine::poll_deadline`].
    pub fn handle_timeout(&mut self, now: Now) {
        if self.active {
            self.links.handle_timeout(now);
            self.check_network(now);
            self.check_silence(now);
            self.check_stalls(now);
            self.check_dials(now);
            self.wake_sessions(now);
        }
        self.settle(now);
    }

    /// Closes every session because the node stops. Drain [`Engine::poll_transmit`] once more afterwards.
    pub fn handle_shutdown(&mut self, now: Now) {
        for link in self.sessions.keys().copied().collect::<Vec<_>>() {
            self.links.close(now, link, CloseCode::Restarting, "the node is shutting down");
        }
        self.sessions.clear();
    }

    // Output.

    /// Returns a request for the store.
    #[must_use]
    pub fn poll_store(&mut self) -> Option<Envelope> {
        self.store_out.pop_front()
    }

    /// Returns an event for the api engine.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.present.pop_first().map(Event::Presence))
    }

    /// Returns a `HOST:PORT` to look up; [`Engine::handle_resolved`] takes the result.
    #[must_use]
    pub fn poll_resolve(&mut self) -> Option<String> {
        self.lookups.pop_front()
    }

    /// Writes one datagram to `out` (cleared first) and returns its destination.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Now, out: &mut Vec<u8>) -> Option<SocketAddr> {
        if !self.active {
            return None;
        }
        let to = self.next_datagram(now, out)?;
        self.bytes_sent += out.len() as u64;
        Some(to)
    }

    /// Returns an order for this node's own relay.
    #[must_use]
    pub fn poll_relay(&mut self) -> Option<RelayControl> {
        self.relay_orders.as_mut()?.pop_front()
    }

    /// Returns false under radio silence.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.active
    }

    /// Returns the latest time at which to call [`Engine::handle_timeout`], and the reason.
    #[must_use]
    pub fn poll_deadline(&mut self, now: Now) -> Option<(Instant, Wake)> {
        let arrival = self.arrivals.iter().map(|arrival| (arrival.until, Wake::Dial)).min();
        if !self.active {
            return arrival;
        }
        let more = (!self.dirty.is_empty()).then_some((now.mono, Wake::More));
        let link = self.links.poll_deadline().map(|at| (at, Wake::Link));
        let dial = self.dial_deadline(now).map(|at| (at, Wake::Dial));
        let silence = self.silence_deadline().map(|at| (at, Wake::Silence));
        let session = self.sessions.values().filter_map(Session::deadline).min().map(|at| (at, Wake::Session));
        let network = self.roaming.deadline().map(|at| (at, Wake::Network));
        let relay = self.relays.deadline().map(|at| (at, Wake::Relay));
        let stall = self.stall_deadline().map(|at| (at, Wake::Stall));
        [more, link, dial, silence, stall, session, network, relay, arrival].into_iter().flatten().min()
    }

    /// Returns the bytes buffered for each connected peer, without QUIC's own buffers.
    pub fn buffered(&self) -> impl Iterator<Item = (EndpointId, usize)> {
        self.sessions.values().map(|session| (session.peer, session.held()))
    }

    /// Returns the values shown by status calls.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Returns the counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats {
            active: self.active,
            connected_peers: self.status.connected_peers,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
        }
    }

    // Between input and output.

    pub(super) fn submit(&mut self, request: StoreRequest, pending: Pending) {
        self.next_ticket += 1;
        self.pending.insert(self.next_ticket, pending);
        self.store_out.push_back(Envelope { ticket: Ticket::Sync(self.next_ticket), request });
    }

    pub(super) fn save_sync(&mut self, active: bool) {
        if self.persist_sync {
            self.saving_sync += 1;
            self.submit(StoreRequest::SaveSync(active), Pending::SaveSync);
        }
    }

    fn settle(&mut self, now: Now) {
        if self.active {
            self.take_link_events(now);
            self.look_up_relays(now);
            self.dial_due(now);
            for link in std::mem::take(&mut self.dirty) {
                self.run_session(now, link);
            }
            // Running sessions can cause further events of links.
            self.take_link_events(now);
        }
        self.check_arrivals(now);
        self.publish_status(now);
    }

    fn take_link_events(&mut self, now: Now) {
        while let Some(event) = self.links.poll_event() {
            match event {
                LinkEvent::Up { link, peer, dialled } => self.on_up(now, link, peer, dialled),
                LinkEvent::Readable { link, lane } => {
                    if let Some(session) = self.sessions.get_mut(&link) {
                        session.mark_readable(lane);
                        self.dirty.insert(link);
                    }
                }
                LinkEvent::Writable { link, .. } => {
                    self.dirty.insert(link);
                }
                LinkEvent::Down { link, reason } => self.on_down(now, link, &reason.to_string()),
            }
        }
    }

    fn publish_status(&mut self, now: Now) {
        self.copied.forget(now);
        let live = self.sessions.values().filter(|session| session.is_live());
        let (mut connected, mut catching_up) = (0, false);
        for session in live {
            connected += 1;
            catching_up |= !session.is_caught_up();
        }
        let reached = connected > 0 && !catching_up;
        let tried = self.status.tried || !self.active || reached || self.peers.are_tried();
        let (copied, copied_nodes) = self.copied.summary(self.ours.id);
        let active = self.active;
        // Compares all peers, so only after one has come or gone.
        let namesakes = if connected == self.status.connected_peers {
            self.status.namesakes
        } else {
            self.peers.namesakes(self.ours.id, &self.ours.node_id)
        };
        let status = Status { active, connected_peers: connected, catching_up, tried, copied, copied_nodes, namesakes };
        if status != self.status {
            self.status = status;
            self.events.push_back(Event::Status(status));
        }
        let stalled = self.sessions.values().filter_map(|session| Some((session.peer, session.stalled()?)));
        self.held.set_stalled(stalled.collect());
        self.events.extend(self.held.take_notices().map(Event::Notices));
    }
}

//! Links to other nodes: authenticated, encrypted lanes of bytes over QUIC, without I/O.
//!
//! Owns the QUIC endpoint, its connections and the addresses they are reached by. Knows nothing of documents, formation
//! keys or who may talk: whoever holds a key of its own gets a link up, and the user decides what to make of it. Must
//! never answer more than it was sent by somebody who has not shown that he can be reached.
//!
//! After any call that takes `&mut self`, drain [`Links::poll_event`], then [`Links::poll_transmit`], until both return
//! `None`; then sleep until [`Links::poll_deadline`] or the next datagram.
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | links begin, are used, and end |
//! | `traffic.rs` | datagrams and time in, datagrams and events out |
//! | `connection.rs` | one link |
//! | `lanes.rs` | its streams |
//! | `route.rs` | the addresses of a dial |
//! | `shares.rs` | places before admission, by network |
//! | `pace.rs` | how fast a link may send |
//! | `way.rs`, `probe.rs` | direct or through a relay, and when that changes |
//! | `tls.rs` | keys as credentials |
//! | `keys.rs` | random bytes and connection ids |
//! | `config.rs` | windows and timers |

mod config;
mod connection;
mod keys;
mod lanes;
mod pace;
pub mod probe;
mod route;
mod shares;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;
mod types;
mod way;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn_proto::{ClientConfig, Connection, ConnectionHandle, Endpoint, EndpointEvent, ServerConfig, VarInt};

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::limits::{BATCH_BYTES, LINKS, PEERS};
use crate::random::{Random, RandomExt};
use config::{Clock, LINK_WINDOW_BYTES, Setup};
use connection::{Dial, Link, Phase};
use keys::{Cids, Generator};
pub use pace::LinkRates;
use pace::Rate;
pub(crate) use route::canonical;
pub use route::{RelayNumber, relay_of, relayed};
use route::{Residents, Route, virtual_address};
use shares::Unproven;
pub use types::{CloseCode, DownReason, Lane, LinkError, LinkEvent, LinkId, PerLane};
pub use way::Reason;

/// The smallest batches a narrow link is given.
const BATCH_BYTES_MIN: usize = 2 << 10;
/// Round trips that take this long are remembered for the next dial.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(100);
/// What is assumed of the next dial at most.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(3);
const EXPORT_LABEL: &[u8] = b"EXPORTER-peat-formation-v1";

struct Ready {
    link: Option<LinkId>,
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// All links of this node.
pub struct Links {
    us: EndpointId,
    started: Instant,
    endpoint: Endpoint,
    client: ClientConfig,
    server: Arc<ServerConfig>,
    rates: LinkRates,
    /// Round trips that take long, by peer, for the next dial's patience.
    round_trips: BTreeMap<EndpointId, Duration>,
    cids: Arc<Cids>,
    clock: Arc<Clock>,
    links: BTreeMap<LinkId, Link>,
    /// quinn-proto's numbers of the links.
    handles: BTreeMap<usize, LinkId>,
    next: u64,
    /// Accepted links the user has not admitted, those closing included.
    unproven: Unproven,
    deadlines: BTreeSet<(Instant, LinkId)>,
    events: VecDeque<LinkEvent>,
    /// Links that may have something to send, each once, taking turns.
    senders: VecDeque<LinkId>,
    residents: Residents,
    /// What messages about ways call the links.
    subjects: BTreeMap<[u8; 8], LinkId>,
    /// Relays there is a place at.
    relays: Vec<RelayNumber>,
    /// A link that has not been answered may go through one of them.
    doubt: bool,
    /// Finished datagrams: answers on behalf of no link, and copies for the further candidates of a dial.
    ready: VecDeque<Ready>,
    sent_bytes: u64,
    received_bytes: u64,
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Links({} of {})", self.links.len(), self.us)
    }
}

impl Links {
    /// An endpoint without links. Everything random about them follows from what `random` gives now, but for the keys
    /// agreed with peers, which show in no size and no timing.
    #[must_use]
    pub fn new(identity: &Identity, random: &mut dyn Random, now: Now) -> Links {
        // rustls wants its random source for ever. A node makes one in its life.
        let generator: &'static Generator = Box::leak(Box::new(Generator::new(&random.array())));
        let cids = Cids::new(&identity.derive("peat-quic-cid-v1"), generator);
        let clock = Clock::new(now.mono);
        let setup = Setup::new(identity, generator, &cids, &clock);
        let server = Arc::new(setup.server);
        Links {
            us: identity.id(),
            started: now.mono,
            endpoint: Endpoint::new(Arc::new(setup.endpoint), Some(Arc::clone(&server)), true, None),
            client: setup.client,
            server,
            rates: LinkRates::default(),
            round_trips: BTreeMap::new(),
            cids,
            clock,
            links: BTreeMap::new(),
            handles: BTreeMap::new(),
            next: 1,
            unproven: Unproven::default(),
            deadlines: BTreeSet::new(),
            events: VecDeque::new(),
            senders: VecDeque::new(),
            residents: Residents::default(),
            subjects: BTreeMap::new(),
            relays: Vec::new(),
            doubt: false,
            ready: VecDeque::new(),
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// How fast links may send: those to come, and those that are up.
    pub fn set_rates(&mut self, rates: LinkRates) {
        self.rates = rates;
        for link in self.links.values() {
            if let Some(peer) = link.peer() {
                link.rate.set(self.rates.of(&peer));
            }
        }
    }

    // Beginning and ending links.

    /// Starts to dial `peer`. Datagrams go to all candidates (the first [`crate::limits::CANDIDATES`] of them) until one
    /// answers.
    ///
    /// # Errors
    /// Nothing can be dialled; no event will come.
    pub fn dial(&mut self, now: Now, peer: EndpointId, candidates: &[SocketAddr]) -> Result<LinkId, LinkError> {
        if peer == self.us {
            return Err(LinkError::Ourselves);
        }
        if candidates.is_empty() {
            return Err(LinkError::NoAddress);
        }
        let id = self.vacant().ok_or(LinkError::TooMany)?;
        let route = Route::new(now.mono, &self.residents.likely(now.mono, peer, candidates));
        self.cids.issue_for(Some(id));
        let rate = Rate::default();
        rate.set(self.rates.of(&peer));
        let client = self.client_config(&peer, &rate);
        let dialled = self.endpoint.connect(now.mono, client, virtual_address(id), "peat");
        // Only exhausted connection ids can be the reason, and there are 2^32 of them.
        let (handle, conn) = dialled.map_err(|_| LinkError::TooMany)?;
        self.insert(now, id, (handle, conn, rate), Some(Dial { peer, route, first: Vec::new() }));
        Ok(id)
    }

    /// Adds addresses at which the peer may be reached, through relays or not. While none has answered the dial goes there
    /// too; later they are what is tried when the one in use does not answer, or when a direct one may be used again.
    pub fn add_candidates(&mut self, now: Now, link: LinkId, candidates: &[SocketAddr]) {
        let Some(known) = self.links.get_mut(&link) else { return };
        let Some(dial) = &mut known.dial else { return known.way.know(now.mono, candidates) };
        let (added, datagram) = (dial.route.add(candidates), dial.first.clone());
        for path in added {
            self.send_ready(Some(link), path, datagram.clone());
        }
    }

    /// The same for ways through relays, to a link whichever side dialled it.
    pub fn add_ways(&mut self, now: Now, link: LinkId, ways: &[SocketAddr]) {
        if self.links.get(&link).is_some_and(|known| known.dial.is_some()) {
            self.add_candidates(now, link, ways);
        }
    }

    /// The user talks to this peer from now on: the link no longer counts as unproven and gets its full window.
    pub fn admitted(&mut self, link: LinkId) {
        self.unproven.remove(link);
        if let Some(link) = self.links.get_mut(&link) {
            link.conn.set_receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
        }
        self.reschedule(link);
    }

    /// Ends a link and tells the other side, if there is one. No event follows.
    pub fn close(&mut self, now: Now, link: LinkId, code: CloseCode, reason: &str) {
        self.events.retain(|event| event.link() != link);
        let Some(known) = self.links.get_mut(&link) else { return };
        if known.heard.is_none() {
            return self.forget(link);
        }
        known.close(now.mono, code, reason);
        known.phase = Phase::Closing;
        self.drive(now, link);
    }

    /// Ends a link without a single datagram, now or later. No event follows.
    pub fn forget(&mut self, link: LinkId) {
        self.events.retain(|event| event.link() != link);
        self.ready.retain(|ready| ready.link != Some(link));
        if let Some(known) = self.links.get(&link) {
            self.endpoint.handle_event(known.handle, EndpointEvent::drained());
            self.remove(link);
        }
    }

    /// Ends every link, those still closing included, and drops every answer, without a single datagram.
    pub fn forget_all(&mut self) {
        for link in self.links.keys().copied().collect::<Vec<_>>() {
            self.forget(link);
        }
        self.ready.clear();
    }

    fn vacant(&mut self) -> Option<LinkId> {
        let id = LinkId(self.next);
        if self.links.len() >= LINKS {
            return None;
        }
        self.next += 1;
        Some(id)
    }

    fn insert(&mut self, now: Now, id: LinkId, begun: (ConnectionHandle, Connection, Rate), dial: Option<Dial>) {
        let (handle, conn, rate) = begun;
        self.handles.insert(handle.0, id);
        self.links.insert(id, Link::new(id, (handle, conn, rate), dial, now.mono));
        self.drive(now, id);
    }

    fn remove(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            self.remember(&link);
            self.handles.remove(&link.handle.0);
            if let Some(deadline) = link.deadline {
                self.deadlines.remove(&(deadline, id));
            }
            link.way.subject().map(|subject| self.subjects.remove(&subject));
        }
        self.unproven.remove(id);
        self.cids.forget(id);
    }

    /// How long round trips to a peer took.
    fn remember(&mut self, link: &Link) {
        let Some(peer) = link.peer() else { return };
        let rtt = link.conn.rtt();
        if rtt < LONG_ROUND_TRIP {
            self.round_trips.remove(&peer);
        } else if self.round_trips.len() < PEERS || self.round_trips.contains_key(&peer) {
            self.round_trips.insert(peer, rtt.min(LONGEST_ROUND_TRIP));
        }
    }

    fn client_config(&self, peer: &EndpointId, rate: &Rate) -> ClientConfig {
        let mut client = self.client.clone();
        let rtt = self.round_trips.get(peer).copied();
        if rtt.is_some() || rate.get().is_some() {
            client.transport_config(Arc::new(config::transport(0, rate, rtt)));
        }
        client
    }

    /// For an accepted connection, whose peer is not known yet.
    fn server_config(&self, rate: &Rate) -> Option<Arc<ServerConfig>> {
        if self.rates.is_empty() {
            return None;
        }
        let mut server = ServerConfig::clone(&self.server);
        server.transport_config(Arc::new(config::transport(1, rate, None)));
        Some(Arc::new(server))
    }

    // Using a link.

    /// Appends to a lane; returns how many bytes were taken. Less than all: [`LinkEvent::Writable`] comes once there is
    /// room again. A link that is not up takes nothing.
    pub fn write(&mut self, _now: Now, link: LinkId, lane: Lane, bytes: &[u8]) -> usize {
        let Some(known) = self.links.get_mut(&link) else { return 0 };
        let written = known.write(lane, bytes);
        self.reschedule(link);
        written
    }

    /// Appends at most `max` bytes that arrived on a lane to `into`. True: there may be more, and no event will tell.
    pub fn read(&mut self, now: Now, link: LinkId, lane: Lane, into: &mut Vec<u8>, max: usize) -> bool {
        let Some(known) = self.links.get_mut(&link) else { return false };
        match known.read(lane, into, max) {
            Ok(more) => {
                self.reschedule(link);
                more
            }
            Err(broken) => {
                known.break_off(now.mono, broken.to_string(), &mut self.events);
                self.drive(now, link);
                false
            }
        }
    }

    /// Bytes only the two ends of this very connection know, the same at both (RFC 8446, section 7.5). Zeros, which prove
    /// nothing, for a link that is not up.
    #[must_use]
    pub fn export(&self, link: LinkId) -> [u8; 32] {
        let mut bytes = [0; 32];
        if let Some(link) = self.links.get(&link).filter(|link| link.phase == Phase::Up) {
            let exported = link.conn.crypto_session().export_keying_material(&mut bytes, EXPORT_LABEL, b"");
            exported.expect("the handshake of a link that is up is complete, and 32 bytes are not too many");
        }
        bytes
    }

    /// Document bytes one batch should have, so that what comes after it does not wait for more than half a second.
    #[must_use]
    pub fn batch_bytes(&self, link: LinkId) -> usize {
        let rate = self.links.get(&link).and_then(|link| link.rate.get());
        let half = rate.map_or(BATCH_BYTES as u64, |rate| rate / 2);
        usize::try_from(half).unwrap_or(BATCH_BYTES).clamp(BATCH_BYTES_MIN, BATCH_BYTES)
    }

    /// Whether anything was ever heard on a link.
    #[must_use]
    pub fn was_heard(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.heard.is_some())
    }

    /// Asks the peer for a sign of life.
    pub fn ping(&mut self, now: Now, link: LinkId) {
        if let Some(known) = self.links.get_mut(&link) {
            known.conn.ping();
            known.pinged = Some(now.mono);
        }
        self.reschedule(link);
    }

    /// The network under this node may have changed: asks the peer for a sign of life, on a dialled link by way of the address
    /// this node has now, under an id of the peer's that nobody has seen with the old one (RFC 9000, section 9.5).
    pub fn probe(&mut self, now: Now, link: LinkId) {
        match self.links.get_mut(&link) {
            Some(known) if known.dial.is_some() => {
                known.conn.local_address_changed();
                known.pinged = Some(now.mono);
                known.network_changed(now.mono);
                self.drive(now, link);
            }
            _ => self.ping(now, link),
        }
    }

    /// When [`Links::ping`] was last called.
    #[must_use]
    pub fn last_pinged(&self, link: LinkId) -> Option<Instant> {
        self.links.get(&link).and_then(|link| link.pinged)
    }

    /// When a datagram last arrived on this link; the start of the node for one that is unknown or has heard nothing.
    #[must_use]
    pub fn last_heard(&self, link: LinkId) -> Instant {
        self.links.get(&link).and_then(|link| link.heard).map_or(self.started, |(at, _)| at)
    }

    /// Smoothed round-trip time; zero for an unknown link.
    #[must_use]
    pub fn rtt(&self, link: LinkId) -> Duration {
        self.links.get(&link).map_or(Duration::ZERO, |link| link.conn.rtt())
    }

    /// The address in use, or the first candidate while none has answered.
    #[must_use]
    pub fn remote(&self, link: LinkId) -> Option<SocketAddr> {
        self.links.get(&link).and_then(Link::remote)
    }

    /// UDP payload bytes (sent, received) on a link.
    #[must_use]
    pub fn bytes(&self, link: LinkId) -> (u64, u64) {
        self.links.get(&link).map_or((0, 0), |link| (link.sent_bytes, link.received_bytes))
    }

    /// UDP payload bytes (sent, received) since the start, datagrams of no link included.
    #[must_use]
    pub fn total_bytes(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }
}

//! Links to other nodes: authenticated, encrypted lanes of bytes over QUIC, without I/O.
//!
//! Owns the QUIC endpoint, its connections and the addresses they are reached by. Knows nothing of documents, formation keys or
//! admission: any holder of a key gets a link, and the caller decides about it. Never sends an unvalidated address more than
//! three times the bytes it received from it (anti-amplification, RFC 9000 section 8.1).
//!
//! After any call that takes `&mut self`, drain [`Links::poll_event`], then [`Links::poll_transmit`], until both return `None`;
//! then wait for [`Links::poll_deadline`] or the next datagram.
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | links begin, are used, and end |
//! | `traffic.rs` | datagrams and time in, datagrams and events out |
//! | `connection.rs` | one link |
//! | `lanes.rs` | its streams |
//! | `candidates.rs` | the candidate paths of a dial |
//! | `shares.rs` | limits before admission, by network |
//! | `pace.rs` | configured rates |
//! | `path.rs`, `probe.rs` | path failover: direct or through a relay |
//! | `tls.rs` | keys as credentials |
//! | `keys.rs` | random bytes and connection ids |
//! | `config.rs` | windows and timers |

mod candidates;
mod config;
mod connection;
mod keys;
mod lanes;
mod pace;
mod path;
pub mod probe;
mod shares;
#[cfg(test)]
mod tests;
mod tls;
mod traffic;
mod types;

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
pub(crate) use candidates::canonical;
pub use candidates::{RelayNumber, relay_of, relayed};
use candidates::{Route, WrongPeerCache, virtual_address};
use config::{Clock, LINK_WINDOW_BYTES, Setup};
use connection::{Dial, Link, Phase};
use keys::{Cids, Generator};
pub use pace::LinkRates;
use pace::Rate;
pub use path::Reason;
use shares::Unproven;
pub use types::{CloseCode, DownReason, Lane, LinkError, LinkEvent, LinkId, PerLane};

/// Smallest batch size for a link with a low rate, in bytes.
const BATCH_BYTES_MIN: usize = 2 << 10;
/// Round-trip time from which it is remembered for the next dial.
const LONG_ROUND_TRIP: Duration = Duration::from_millis(100);
/// Maximum round-trip time assumed for the next dial.
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
    /// Long round-trip times by peer, which set the timers of the next dial.
    round_trips: BTreeMap<EndpointId, Duration>,
    cids: Arc<Cids>,
    clock: Arc<Clock>,
    links: BTreeMap<LinkId, Link>,
    /// Links by the handles of quinn-proto.
    handles: BTreeMap<usize, LinkId>,
    next: u64,
    /// Accepted links that the caller has not admitted, closing ones included.
    unproven: Unproven,
    deadlines: BTreeSet<(Instant, LinkId)>,
    events: VecDeque<LinkEvent>,
    /// Links that may have a datagram to send, each once, served round robin.
    senders: VecDeque<LinkId>,
    residents: WrongPeerCache,
    /// Links by the subject of their path messages.
    subjects: BTreeMap<[u8; 8], LinkId>,
    /// Relays at which this node has an allocation.
    relays: Vec<RelayNumber>,
    /// True if a link was unanswered, so that an allocation may be lost.
    doubt: bool,
    /// Finished datagrams: responses without a link, and copies for the further candidates of a dial.
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
    /// Creates an endpoint without links. Everything random about it derives from the output of `random` now, except the keys
    /// agreed with peers, which affect no size and no timing.
    #[must_use]
    pub fn new(identity: &Identity, random: &mut dyn Random, now: Now) -> Links {
        // rustls requires a static random source. A node creates one in its life.
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
            residents: WrongPeerCache::default(),
            subjects: BTreeMap::new(),
            relays: Vec::new(),
            doubt: false,
            ready: VecDeque::new(),
            sent_bytes: 0,
            received_bytes: 0,
        }
    }

    /// Sets the rates of new and existing links.
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
    /// The dial cannot begin; no event follows.
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
        // The only cause can be exhausted connection ids, of which there are 2^32.
        let (handle, conn) = dialled.map_err(|_| LinkError::TooMany)?;
        self.insert(now, id, (handle, conn, rate), Some(Dial { peer, route, first: Vec::new() }));
        Ok(id)
    }

    /// Adds addresses of the peer, direct or through relays. Until a candidate has answered the dial includes them; later they
    /// are alternatives for when the current path fails, or for a return to a direct one.
    pub fn add_candidates(&mut self, now: Now, link: LinkId, candidates: &[SocketAddr]) {
        let Some(known) = self.links.get_mut(&link) else { return };
        let Some(dial) = &mut known.dial else { return known.way.know(now.mono, candidates) };
        let (added, datagram) = (dial.route.add(candidates), dial.first.clone());
        for path in added {
            self.send_ready(Some(link), path, datagram.clone());
        }
    }

    /// Adds paths through relays to a link that this node dialled; ignored for an accepted link: the peer selects its path.
    pub fn add_ways(&mut self, now: Now, link: LinkId, ways: &[SocketAddr]) {
        if self.links.get(&link).is_some_and(|known| known.dial.is_some()) {
            self.add_candidates(now, link, ways);
        }
    }

    /// Admits the peer: the link no longer counts as unproven and gets its full window.
    pub fn admitted(&mut self, link: LinkId) {
        self.unproven.remove(link);
        if let Some(link) = self.links.get_mut(&link) {
            link.conn.set_receive_window(VarInt::from_u32(LINK_WINDOW_BYTES));
        }
        self.reschedule(link);
    }

    /// Closes a link and notifies the peer, if there is one. No event follows.
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

    /// Removes a link without sending a datagram, now or later. No event follows.
    pub fn forget(&mut self, link: LinkId) {
        self.events.retain(|event| event.link() != link);
        self.ready.retain(|ready| ready.link != Some(link));
        if let Some(known) = self.links.get(&link) {
            self.endpoint.handle_event(known.handle, EndpointEvent::drained());
            self.remove(link);
        }
    }

    /// Removes every link, closing ones included, and drops every response, without sending a datagram.
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

    /// Remembers a long round-trip time to a peer.
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

    /// Returns the configuration of an accepted connection with its rate, before its peer is known; `None` if no rate is
    /// configured.
    fn server_config(&self, rate: &Rate) -> Option<Arc<ServerConfig>> {
        if self.rates.is_empty() {
            return None;
        }
        let mut server = ServerConfig::clone(&self.server);
        server.transport_config(Arc::new(config::transport(1, rate, None)));
        Some(Arc::new(server))
    }

    // Using a link.

    /// Appends to a lane; returns the number of bytes taken. If that is not all, [`LinkEvent::Writable`] follows once there is
    /// room. A link that is not up takes none.
    pub fn write(&mut self, _now: Now, link: LinkId, lane: Lane, bytes: &[u8]) -> usize {
        let Some(known) = self.links.get_mut(&link) else { return 0 };
        let written = known.write(lane, bytes);
        self.reschedule(link);
        written
    }

    /// Appends at most `max` bytes that arrived on a lane to `into`. Returns true if there may be more, for which no event
    /// follows.
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

    /// Returns bytes known only to the two ends of this connection, equal at both (RFC 8446, section 7.5). Returns zeros, which
    /// prove nothing, for a link that is not up.
    #[must_use]
    pub fn export(&self, link: LinkId) -> [u8; 32] {
        let mut bytes = [0; 32];
        if let Some(link) = self.links.get(&link).filter(|link| link.phase == Phase::Up) {
            let exported = link.conn.crypto_session().export_keying_material(&mut bytes, EXPORT_LABEL, b"");
            exported.expect("the handshake of a link that is up is complete, and 32 bytes are not too many");
        }
        bytes
    }

    /// Returns the number of document bytes per batch, such that the next batch waits for at most half a second.
    #[must_use]
    pub fn batch_bytes(&self, link: LinkId) -> usize {
        let rate = self.links.get(&link).and_then(|link| link.rate.get());
        let half = rate.map_or(BATCH_BYTES as u64, |rate| rate / 2);
        usize::try_from(half).unwrap_or(BATCH_BYTES).clamp(BATCH_BYTES_MIN, BATCH_BYTES)
    }

    /// Returns true if a datagram ever arrived on a link.
    #[must_use]
    pub fn was_heard(&self, link: LinkId) -> bool {
        self.links.get(&link).is_some_and(|link| link.heard.is_some())
    }

    /// Pings the peer.
    pub fn ping(&mut self, now: Now, link: LinkId) {
        if let Some(known) = self.links.get_mut(&link) {
            known.conn.ping();
            known.pinged = Some(now.mono);
        }
        self.reschedule(link);
    }

    /// Pings the peer after a change of this machine's network. A dialled link does so from the current address, with a
    /// connection id of the peer that was not used on the old path (RFC 9000, section 9.5).
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

    /// Returns the time of the last [`Links::ping`].
    #[must_use]
    pub fn last_pinged(&self, link: LinkId) -> Option<Instant> {
        self.links.get(&link).and_then(|link| link.pinged)
    }

    /// Returns the time at which a datagram last arrived on this link; the start of the node for an unknown link or one without
    /// any.
    #[must_use]
    pub fn last_heard(&self, link: LinkId) -> Instant {
        self.links.get(&link).and_then(|link| link.heard).map_or(self.started, |(at, _)| at)
    }

    /// Returns the smoothed round-trip time; zero for an unknown link.
    #[must_use]
    pub fn rtt(&self, link: LinkId) -> Duration {
        self.links.get(&link).map_or(Duration::ZERO, |link| link.conn.rtt())
    }

    /// Returns the address in use, or the first candidate while none has answered.
    #[must_use]
    pub fn remote(&self, link: LinkId) -> Option<SocketAddr> {
        self.links.get(&link).and_then(Link::remote)
    }

    /// Returns the UDP payload bytes (sent, received) on a link.
    #[must_use]
    pub fn bytes(&self, link: LinkId) -> (u64, u64) {
        self.links.get(&link).map_or((0, 0), |link| (link.sent_bytes, link.received_bytes))
    }

    /// Returns the UDP payload bytes (sent, received) since the start, including datagrams without a link.
    #[must_use]
    pub fn total_bytes(&self) -> (u64, u64) {
        (self.sent_bytes, self.received_bytes)
    }
}

//! Paths of a dialled link. QUIC knows one virtual address per dial; below it, the candidate paths are tried in parallel until
//! one answers, and replaced when the selected one no longer does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::identity::EndpointId;
use crate::limits::CANDIDATES;
use crate::relay::wire::Handle;
use crate::sync::link::LinkId;

/// Time for which an address is remembered to belong to another node.
const RESIDENCE: Duration = Duration::from_secs(60);
/// Maximum number of addresses remembered.
const RESIDENTS: usize = 256;
/// Delay before relays are tried while no direct address has answered.
const RELAY_AFTER: Duration = Duration::from_millis(300);

/// Number of a relay that this node uses.
pub type RelayNumber = u16;

/// Candidate paths of one dial.
#[derive(Debug)]
pub(super) struct Route {
    /// Candidates, direct ones first.
    candidates: Vec<SocketAddr>,
    chosen: Option<SocketAddr>,
    /// True once the handshake is complete: from then on only datagrams from known candidates are accepted.
    settled: bool,
    /// Time at which relays join the dial; `None` if they already have, or there is no need to wait.
    relays_from: Option<Instant>,
}

impl Route {
    pub(super) fn new(now: Instant, candidates: &[SocketAddr]) -> Route {
        let mut route = Route { candidates: Vec::new(), chosen: None, settled: false, relays_from: None };
        route.insert(candidates);
        let (direct, relays) = (route.direct().next().is_some(), route.has_relay());
        route.relays_from = (direct && relays).then(|| now + RELAY_AFTER);
        route
    }

    /// Adds candidates, at most [`CANDIDATES`] direct ones and as many through relays; returns those to which the first
    /// datagrams have to be sent as well.
    pub(super) fn add(&mut self, candidates: &[SocketAddr]) -> Vec<SocketAddr> {
        let new = self.insert(candidates);
        if self.chosen.is_some() {
            return Vec::new();
        }
        new.into_iter().filter(|at| self.relays_from.is_none() || !is_relayed(*at)).collect()
    }

    fn insert(&mut self, candidates: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut new = Vec::new();
        for at in candidates.iter().map(|at| canonical(*at)) {
            let alike = self.candidates.iter().filter(|known| is_relayed(**known) == is_relayed(at)).count();
            if alike < CANDIDATES && !self.candidates.contains(&at) {
                self.candidates.push(at);
                new.push(at);
            }
        }
        self.candidates.sort_by_key(|at| is_relayed(*at));
        new
    }

    /// Returns the time at which relays join the dial.
    pub(super) fn relays_from(&self) -> Option<Instant> {
        self.relays_from.filter(|_| self.chosen.is_none())
    }

    /// Lets relays join the dial and returns the paths through them.
    pub(super) fn join_relays(&mut self) -> Vec<SocketAddr> {
        self.relays_from = None;
        self.candidates.iter().copied().filter(|at| is_relayed(*at)).collect()
    }

    /// Returns true if a datagram for this dial may come from this address; the first candidate to answer is selected. A host
    /// with several addresses may answer from one that was not dialled, so any source is accepted before the handshake is
    /// complete: it knew the connection id.
    pub(super) fn accepts(&mut self, from: SocketAddr) -> bool {
        let known = self.candidates.contains(&from);
        if self.chosen.is_none() && known {
            self.chosen = Some(from);
        }
        !self.settled || known
    }

    /// Records that the handshake completed with a datagram from this address.
    pub(super) fn settle(&mut self, from: SocketAddr) {
        self.settled = true;
        let chosen = *self.chosen.get_or_insert(from);
        self.learn(chosen);
    }

    /// Adds an address from which the peer was heard; returns true if it is new.
    pub(super) fn learn(&mut self, from: SocketAddr) -> bool {
        !self.insert(&[from]).is_empty()
    }

    /// Selects this path.
    pub(super) fn choose(&mut self, way: SocketAddr) {
        self.learn(way);
        self.chosen = Some(way);
    }

    /// Returns the path to try when the selected one does not answer: after a direct one the first relay, otherwise the next
    /// candidate.
    pub(super) fn alternative(&self) -> Option<SocketAddr> {
        let chosen = self.chosen?;
        let relay = self.candidates.iter().find(|at| is_relayed(**at)).filter(|_| !is_relayed(chosen));
        // Candidates are sorted with direct ones first, so the next one leads through all relays before it wraps.
        let place = self.candidates.iter().position(|at| *at == chosen)?;
        let next = self.candidates[(place + 1) % self.candidates.len()];
        Some(relay.copied().unwrap_or(next)).filter(|at| *at != chosen)
    }

    /// Returns the direct candidates.
    pub(super) fn direct(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().copied().filter(|at| !is_relayed(*at))
    }

    fn has_relay(&self) -> bool {
        self.candidates.iter().any(|at| is_relayed(*at))
    }

    /// Returns the destinations of the next datagram: all candidates until one has answered.
    pub(super) fn targets(&self) -> &[SocketAddr] {
        let waiting = if self.relays_from.is_some() { self.direct().count() } else { self.candidates.len() };
        self.chosen.as_ref().map_or(&self.candidates[..waiting], std::slice::from_ref)
    }

    /// Returns the selected address, or the first candidate.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.targets().first().copied()
    }

    /// Returns true if this address is the selected one.
    pub(super) fn is_chosen(&self, address: SocketAddr) -> bool {
        self.chosen == Some(address)
    }
}

/// Nodes found at addresses where another was dialled. The first address that answers decides a dial; without this memory a
/// fast stranger at one address could keep a node from ever reaching its peer at another.
#[derive(Debug, Default)]
pub(super) struct WrongPeerCache(BTreeMap<SocketAddr, (EndpointId, Instant)>);

impl WrongPeerCache {
    pub(super) fn note(&mut self, now: Instant, at: SocketAddr, found: EndpointId) {
        self.0.retain(|_, (_, since)| now < *since + RESIDENCE);
        if self.0.len() < RESIDENTS {
            self.0.insert(at, (found, now));
        }
    }

    /// Returns the candidates not known to belong to another node, or all of them if none is left.
    pub(super) fn likely(&self, now: Instant, peer: EndpointId, candidates: &[SocketAddr]) -> Vec<SocketAddr> {
        let strange = |address: &SocketAddr| {
            let met = self.0.get(&canonical(*address));
            met.is_some_and(|(resident, since)| *resident != peer && now < *since + RESIDENCE)
        };
        let likely: Vec<SocketAddr> = candidates.iter().copied().filter(|address| !strange(address)).collect();
        if likely.is_empty() { candidates.to_vec() } else { likely }
    }
}

/// Prefix of the virtual addresses of dials, in the unique local address space (RFC 4193); no interface uses it.
const DIALS: [u16; 3] = [0xfd70, 0x6561, 0x7400];
/// Prefix of the virtual addresses of paths through relays.
const RELAYED: [u16; 2] = [0xfd72, 0x656c];

/// Returns the address by which QUIC knows a dial.
pub(super) fn virtual_address(link: LinkId) -> SocketAddr {
    let [a, b, c, d] = [48, 32, 16, 0].map(|shift| u16::try_from(link.0 >> shift & 0xffff).expect("16 bits"));
    let [x, y, z] = DIALS;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(x, y, z, 0, a, b, c, d)), 1)
}

/// Returns the virtual address of the path to a node through a relay.
#[must_use]
pub fn relayed(relay: RelayNumber, node: Handle) -> SocketAddr {
    let mut octets = [0; 16];
    let [x, y] = RELAYED.map(u16::to_be_bytes);
    octets[..2].copy_from_slice(&x);
    octets[2..4].copy_from_slice(&y);
    octets[4..6].copy_from_slice(&relay.to_be_bytes());
    octets[6..].copy_from_slice(&node.0);
    SocketAddr::new(IpAddr::V6(Ipv6Addr::from(octets)), 1)
}

/// Returns the relay and the node of such an address.
#[must_use]
pub fn relay_of(address: SocketAddr) -> Option<(RelayNumber, Handle)> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let [x, y, relay, ..] = ip.segments();
    let (_, handle) = ip.octets().split_last_chunk().map(|(prefix, handle)| (prefix.len(), *handle))?;
    ([x, y] == RELAYED).then_some((relay, Handle(handle)))
}

/// Returns true if an address stands for a path through a relay.
pub(super) fn is_relayed(address: SocketAddr) -> bool {
    relay_of(address).is_some()
}

/// Returns the one form of an address: IPv4 never as an IPv6-mapped address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

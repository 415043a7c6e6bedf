//! Where a dialled link's datagrams go. QUIC is told one virtual address per dial; the ways underneath are tried side by side
//! until one answers, and changed when the one in use no longer does.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::identity::EndpointId;
use crate::limits::CANDIDATES;
use crate::relay::wire::Handle;
use crate::sync::link::LinkId;

/// For so long an address is remembered to be another node's.
const RESIDENCE: Duration = Duration::from_secs(60);
/// Addresses remembered at most.
const RESIDENTS: usize = 256;
/// Relays are tried when no direct address has answered by then.
const RELAY_AFTER: Duration = Duration::from_millis(300);

/// A relay this node uses.
pub type RelayNumber = u16;

/// The ways of one dial.
#[derive(Debug)]
pub(super) struct Route {
    /// Direct ones first.
    candidates: Vec<SocketAddr>,
    chosen: Option<SocketAddr>,
    /// Once the peer has shown its key, nothing but what is known to lead to it counts.
    settled: bool,
    /// Relays wait until then.
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

    /// Adds candidates, [`CANDIDATES`] at most and as many through relays; returns those that the first datagrams are to go to
    /// as well.
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

    /// When the relays' turn comes.
    pub(super) fn relays_from(&self) -> Option<Instant> {
        self.relays_from.filter(|_| self.chosen.is_none())
    }

    /// The relays' turn has come: the ways through them.
    pub(super) fn join_relays(&mut self) -> Vec<SocketAddr> {
        self.relays_from = None;
        self.candidates.iter().copied().filter(|at| is_relayed(*at)).collect()
    }

    /// Whether a datagram for this dial may come from there; the first that does decides the way. A host with several
    /// addresses may answer from one that was not asked, so before the handshake is complete any source will do: it knew
    /// the connection id.
    pub(super) fn accepts(&mut self, from: SocketAddr) -> bool {
        let known = self.candidates.contains(&from);
        if self.chosen.is_none() && known {
            self.chosen = Some(from);
        }
        !self.settled || known
    }

    /// The handshake is complete; it ended with a datagram from there.
    pub(super) fn settle(&mut self, from: SocketAddr) {
        self.settled = true;
        let chosen = *self.chosen.get_or_insert(from);
        self.learn(chosen);
    }

    /// The peer was heard from there; whether that is news.
    pub(super) fn learn(&mut self, from: SocketAddr) -> bool {
        !self.insert(&[from]).is_empty()
    }

    /// From now on this one is used.
    pub(super) fn choose(&mut self, way: SocketAddr) {
        self.learn(way);
        self.chosen = Some(way);
    }

    /// The one to try when the one in use does not answer: from a direct one the first relay, otherwise the next of all.
    pub(super) fn alternative(&self) -> Option<SocketAddr> {
        let chosen = self.chosen?;
        let relay = self.candidates.iter().find(|at| is_relayed(**at)).filter(|_| !is_relayed(chosen));
        let place = self.candidates.iter().position(|at| *at == chosen)?;
        let next = self.candidates[(place + 1) % self.candidates.len()];
        Some(relay.copied().unwrap_or(next)).filter(|at| *at != chosen)
    }

    /// The direct addresses.
    pub(super) fn direct(&self) -> impl Iterator<Item = SocketAddr> {
        self.candidates.iter().copied().filter(|at| !is_relayed(*at))
    }

    fn has_relay(&self) -> bool {
        self.candidates.iter().any(|at| is_relayed(*at))
    }

    /// Where the next datagram goes: everywhere until something answered.
    pub(super) fn targets(&self) -> &[SocketAddr] {
        let waiting = if self.relays_from.is_some() { self.direct().count() } else { self.candidates.len() };
        self.chosen.as_ref().map_or(&self.candidates[..waiting], std::slice::from_ref)
    }

    /// The address in use, or the first candidate.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.targets().first().copied()
    }

    /// Whether this address is the one in use.
    pub(super) fn is_chosen(&self, address: SocketAddr) -> bool {
        self.chosen == Some(address)
    }
}

/// Nodes met at addresses where another was wanted. The first address that answers decides a dial; without this memory a
/// fast stranger at one address would keep a node from ever reaching its peer at another.
#[derive(Debug, Default)]
pub(super) struct Residents(BTreeMap<SocketAddr, (EndpointId, Instant)>);

impl Residents {
    pub(super) fn note(&mut self, now: Instant, at: SocketAddr, found: EndpointId) {
        self.0.retain(|_, (_, since)| now < *since + RESIDENCE);
        if self.0.len() < RESIDENTS {
            self.0.insert(at, (found, now));
        }
    }

    /// The candidates that are not known to be another node's; all of them if there is no such.
    pub(super) fn likely(&self, now: Instant, peer: EndpointId, candidates: &[SocketAddr]) -> Vec<SocketAddr> {
        let strange = |address: &SocketAddr| {
            let met = self.0.get(&canonical(*address));
            met.is_some_and(|(resident, since)| *resident != peer && now < *since + RESIDENCE)
        };
        let likely: Vec<SocketAddr> = candidates.iter().copied().filter(|address| !strange(address)).collect();
        if likely.is_empty() { candidates.to_vec() } else { likely }
    }
}

/// Prefixes in the space of unique local addresses (RFC 4193) that no interface has: of dials, and of paths through relays.
const DIALS: [u16; 3] = [0xfd70, 0x6561, 0x7400];
const RELAYED: [u16; 2] = [0xfd72, 0x656c];

/// The address QUIC knows a dial by.
pub(super) fn virtual_address(link: LinkId) -> SocketAddr {
    let [a, b, c, d] = [48, 32, 16, 0].map(|shift| u16::try_from(link.0 >> shift & 0xffff).expect("16 bits"));
    let [x, y, z] = DIALS;
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(x, y, z, 0, a, b, c, d)), 1)
}

/// The address of the way to a node through a relay.
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

/// The relay and the node of such an address.
#[must_use]
pub fn relay_of(address: SocketAddr) -> Option<(RelayNumber, Handle)> {
    let IpAddr::V6(ip) = address.ip() else { return None };
    let [x, y, relay, ..] = ip.segments();
    let (_, handle) = ip.octets().split_last_chunk().map(|(prefix, handle)| (prefix.len(), *handle))?;
    ([x, y] == RELAYED).then_some((relay, Handle(handle)))
}

/// Whether an address stands for a way through a relay.
pub(super) fn is_relayed(address: SocketAddr) -> bool {
    relay_of(address).is_some()
}

/// One spelling per address: IPv4 never as an IPv6-mapped address.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

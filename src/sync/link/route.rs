//! Where a dialled link's datagrams go. QUIC is told one virtual address per dial and believes the path never changes;
//! the real addresses underneath are tried side by side until one answers.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::identity::EndpointId;
use crate::limits::CANDIDATES;
use crate::sync::link::LinkId;

/// For so long an address is remembered to be another node's.
const RESIDENCE: Duration = Duration::from_secs(60);
/// Addresses remembered at most.
const RESIDENTS: usize = 256;

/// A way to reach a peer. A relay would be another one: an address and an allocation's header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Path {
    /// Straight to the peer's socket.
    Direct(SocketAddr),
}

impl Path {
    pub(super) fn address(self) -> SocketAddr {
        match self {
            Path::Direct(address) => address,
        }
    }
}

/// The paths of one dial.
#[derive(Debug)]
pub(super) struct Route {
    candidates: Vec<Path>,
    chosen: Option<Path>,
    /// Once the peer has shown its key, nothing but the chosen path counts.
    settled: bool,
}

impl Route {
    pub(super) fn new(candidates: &[SocketAddr]) -> Route {
        let mut route = Route { candidates: Vec::new(), chosen: None, settled: false };
        route.add(candidates);
        route
    }

    /// Adds candidates up to [`CANDIDATES`], while none has answered; returns those that are new.
    pub(super) fn add(&mut self, candidates: &[SocketAddr]) -> Vec<Path> {
        let before = self.candidates.len();
        for path in candidates.iter().map(|address| Path::Direct(canonical(*address))) {
            if self.chosen.is_none() && self.candidates.len() < CANDIDATES && !self.candidates.contains(&path) {
                self.candidates.push(path);
            }
        }
        self.candidates[before..].to_vec()
    }

    /// Whether a datagram for this dial may come from there; the first that does decides the path. A host with several
    /// addresses may answer from one that was not asked, so before the handshake is complete any source will do: it knew
    /// the connection id.
    pub(super) fn accepts(&mut self, from: SocketAddr) -> bool {
        let from = Path::Direct(from);
        if self.chosen.is_none() && self.candidates.contains(&from) {
            self.chosen = Some(from);
        }
        !self.settled || self.chosen == Some(from)
    }

    /// The handshake is complete; it ended with a datagram from there.
    pub(super) fn settle(&mut self, from: SocketAddr) {
        self.chosen.get_or_insert(Path::Direct(from));
        self.settled = true;
    }

    /// Where the next datagram goes: everywhere until something answered.
    pub(super) fn targets(&self) -> &[Path] {
        self.chosen.as_ref().map_or(&self.candidates, std::slice::from_ref)
    }

    /// The address in use, or the first candidate.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.targets().first().map(|path| path.address())
    }

    /// Whether this address is the one in use.
    pub(super) fn is_chosen(&self, address: SocketAddr) -> bool {
        self.chosen == Some(Path::Direct(address))
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

/// The address QUIC knows a dial by. In a unique local network of our own, so nothing real has it.
pub(super) fn virtual_address(link: LinkId) -> SocketAddr {
    let [a, b, c, d] = [48, 32, 16, 0].map(|shift| u16::try_from(link.0 >> shift & 0xffff).expect("16 bits"));
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0xfd70, 0x6561, 0x7400, 0, a, b, c, d)), 1)
}

/// One spelling per address: IPv4 never as an IPv6-mapped address.
pub(super) fn canonical(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddr::new(IpAddr::V4(v4), v6.port()),
            None => address,
        },
        SocketAddr::V4(_) => address,
    }
}

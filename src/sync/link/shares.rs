//! Limits of connections that are not admitted yet: one network has at most [`UNPROVEN_SHARE`] of them, and when all are taken,
//! the network with most of them gives up its oldest one to a network with fewer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use crate::limits::{UNPROVEN_CONNECTIONS, UNPROVEN_SHARE};
use crate::sync::link::LinkId;

/// Network with a common share: IPv4 /24 or IPv6 /48. A relay counts as a network: [`super::relayed`] puts its number into the
/// first 48 bits.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Network {
    V4([u8; 3]),
    V6([u8; 6]),
}

impl Network {
    fn of(at: SocketAddr) -> Network {
        match at.ip() {
            IpAddr::V4(ip) => {
                let [a, b, c, _] = ip.octets();
                Network::V4([a, b, c])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// Decision about a new connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    /// There is room.
    Free,
    /// There is room once this link is removed.
    After(LinkId),
    /// Its network has its share, or no network has more than it would have.
    None,
}

/// Connections that are not admitted; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Unproven {
    links: BTreeMap<LinkId, Network>,
}

impl Unproven {
    pub(super) fn len(&self) -> usize {
        self.links.len()
    }

    pub(super) fn insert(&mut self, link: LinkId, from: SocketAddr) {
        self.links.insert(link, Network::of(from));
    }

    pub(super) fn remove(&mut self, link: LinkId) {
        self.links.remove(&link);
    }

    pub(super) fn place_for(&self, from: SocketAddr) -> Place {
        let mut counts: BTreeMap<Network, usize> = BTreeMap::new();
        for network in self.links.values() {
            *counts.entry(*network).or_default() += 1;
        }
        let own = counts.get(&Network::of(from)).copied().unwrap_or(0);
        if own >= UNPROVEN_SHARE {
            return Place::None;
        }
        if self.len() < UNPROVEN_CONNECTIONS {
            return Place::Free;
        }
        let largest = counts.iter().max_by_key(|(_, count)| **count).filter(|(_, count)| **count > own + 1);
        let oldest = largest.and_then(|(network, _)| self.links.iter().find(|(_, of)| *of == network));
        oldest.map_or(Place::None, |(link, _)| Place::After(*link))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(network: u8, host: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, network, host], 7))
    }

    /// Returns a table with this number of links for each of these networks.
    fn filled(networks: &[(u8, usize)]) -> Unproven {
        let mut unproven = Unproven::default();
        for (network, count) in networks {
            for _ in 0..*count {
                unproven.insert(LinkId(unproven.len() as u64), at(*network, 1));
            }
        }
        unproven
    }

    #[test]
    fn one_network_has_a_share_of_the_places_before_admission() {
        let unproven = filled(&[(1, UNPROVEN_SHARE)]);
        assert_eq!(unproven.place_for(at(1, 200)), Place::None);
        assert_eq!(unproven.place_for(at(2, 1)), Place::Free);
    }

    #[test]
    fn when_all_places_are_taken_the_largest_network_gives_way_to_smaller_ones() {
        let most = UNPROVEN_SHARE;
        let unproven = filled(&[(1, most - 1), (2, most), (3, most), (4, most), (5, 1)]);
        assert_eq!(unproven.len(), UNPROVEN_CONNECTIONS);
        let Place::After(evicted) = unproven.place_for(at(6, 1)) else { panic!("a newcomer finds no place") };
        assert_ne!(unproven.links[&evicted], Network::of(at(5, 1)));
        assert_eq!(unproven.place_for(at(1, 9)), Place::None, "it would have as many as the largest");
    }

    #[test]
    fn nodes_behind_one_relay_are_one_network() {
        let relayed = |node: u8| crate::sync::link::relayed(3, crate::relay::wire::Handle([node; 10]));
        assert_eq!(Network::of(relayed(1)), Network::of(relayed(2)));
    }
}

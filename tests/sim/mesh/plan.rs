//! The layout that a seed decides at the start: the number of nodes, the edges between them, and their keys.

use std::collections::{BTreeMap, BTreeSet};

use peat_node::sync::Address;

use crate::net::address;
use crate::prng::Prng;

/// Mutual admission of nodes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Both sides are configured with each other's id.
    Pinned,
    /// The dialler knows the acceptor's id; the acceptor requires a proof.
    Formation,
}

/// Paths between the two nodes of an edge.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ways {
    /// Direct only.
    Direct,
    /// Through the relay only.
    Relay,
    /// Direct or through the relay.
    Both,
}

/// The layout of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub shape: &'static str,
    /// Edges, each from dialler to acceptor.
    pub edges: BTreeSet<(usize, usize)>,
    /// Paths of pairs that are not reached directly, with the smaller number first.
    relayed: BTreeMap<(usize, usize), Ways>,
    pub admission: Admission,
    /// True if nodes are dialled by name instead of by address.
    pub names: bool,
    /// Number of documents written before anything else happens.
    pub population: u64,
    /// Rates of nodes with throttled links, in bytes per second.
    pub link_rates: BTreeMap<usize, u64>,
    /// Number of ids per collection that clients write to.
    pub ids: u64,
    /// Nodes on which [`MIXED`](crate::mesh::odd::MIXED) is `latest`.
    pub mixed_latest: BTreeSet<usize>,
    /// True if a document gets fields with long keys.
    pub long_keys: bool,
}

impl Plan {
    pub fn new(random: &mut Prng) -> Plan {
        let nodes = usize::try_from(random.between(2, 5)).expect("few nodes");
        let shape = *random.pick(&["line", "ring", "star", "mesh"]);
        let mut edges = BTreeSet::new();
        for (one, other) in shape_edges(shape, nodes) {
            let (from, to) = if random.chance(500) { (one, other) } else { (other, one) };
            edges.insert((from, to));
            if random.chance(300) {
                edges.insert((to, from));
            }
        }
        let admission = if random.chance(500) { Admission::Pinned } else { Admission::Formation };
        let population = *random.pick(&[0, 0, 20, 300]);
        let rated: Vec<usize> = (0..nodes).filter(|_| random.chance(200)).collect();
        let link_rates: BTreeMap<usize, u64> =
            rated.into_iter().map(|node| (node, random.between(8_000, 100_000))).collect();
        let (names, ids) = (random.chance(300), random.between(1, 4));
        let relayed = if random.chance(500) { relayed(random, &edges) } else { BTreeMap::new() };
        let is_mixed = random.chance(300);
        let mixed_latest = (0..nodes).filter(|_| is_mixed && random.chance(500)).collect();
        // Each version repeats the keys, which would take minutes on a narrow link.
        let long_keys = link_rates.is_empty() && random.chance(200);
        Plan { nodes, shape, edges, relayed, admission, names, population, link_rates, ids, mixed_latest, long_keys }
    }

    /// Returns true if some collection is `latest` on some nodes and merged on others.
    pub fn is_mixed(&self) -> bool {
        !self.mixed_latest.is_empty() && self.mixed_latest.len() < self.nodes
    }

    /// Returns true if there is a relay.
    pub fn has_relay(&self) -> bool {
        !self.relayed.is_empty()
    }

    /// Returns the relay's number in the network.
    pub fn relay(&self) -> usize {
        self.nodes
    }

    /// Returns the paths between two nodes.
    pub fn ways(&self, one: usize, other: usize) -> Ways {
        let pair = (one.min(other), one.max(other));
        self.relayed.get(&pair).copied().unwrap_or(Ways::Direct)
    }

    /// Returns the pairs that are reached both directly and through the relay.
    pub fn with_both(&self) -> Vec<(usize, usize)> {
        self.relayed.iter().filter(|(_, ways)| **ways == Ways::Both).map(|(pair, _)| *pair).collect()
    }

    /// Returns true if one of two nodes dials the other.
    pub fn are_linked(&self, one: usize, other: usize) -> bool {
        self.edges.contains(&(one, other)) || self.edges.contains(&(other, one))
    }

    /// Returns true if the nodes without `lost` are more than one and still connected.
    pub fn connects_without(&self, lost: usize) -> bool {
        let others: BTreeSet<usize> = (0..self.nodes).filter(|node| *node != lost).collect();
        let mut reached: BTreeSet<usize> = others.first().copied().into_iter().collect();
        for _ in 0..self.nodes {
            let linked =
                |node: &usize| reached.contains(node) || reached.iter().any(|held| self.are_linked(*held, *node));
            reached = others.iter().copied().filter(linked).collect();
        }
        reached.len() > 1 && reached == others
    }

    /// Returns the addresses at which `from` dials `to`.
    pub fn addresses_of(&self, from: usize, to: usize) -> Vec<Address> {
        let ways = self.ways(from, to);
        let direct = (ways != Ways::Relay).then(|| self.address_of(to));
        direct.into_iter().chain((ways != Ways::Direct).then(|| self.relay_address())).collect()
    }

    /// Returns the address of `to` in its configured form.
    fn address_of(&self, to: usize) -> Address {
        let text = if self.names { format!("node{to}.sim:4242") } else { address(to).to_string() };
        Address::parse(&text).expect("a valid address")
    }

    /// Returns the address of the relay in its configured form.
    pub fn relay_address(&self) -> Address {
        let relay = self.relay();
        let text = if self.names { format!("node{relay}.sim:4242") } else { address(relay).to_string() };
        Address::Relay(text)
    }
}

/// Draws the pairs that use a relay, some of them exclusively.
fn relayed(random: &mut Prng, edges: &BTreeSet<(usize, usize)>) -> BTreeMap<(usize, usize), Ways> {
    let pairs: BTreeSet<(usize, usize)> = edges.iter().map(|(from, to)| (*from.min(to), *from.max(to))).collect();
    let chosen = pairs.into_iter().filter_map(|pair| match random.below(10) {
        0..4 => Some((pair, Ways::Both)),
        4..7 => Some((pair, Ways::Relay)),
        _ => None,
    });
    chosen.collect()
}

fn shape_edges(shape: &str, nodes: usize) -> Vec<(usize, usize)> {
    let line = (1..nodes).map(|node| (node - 1, node));
    match shape {
        "line" => line.collect(),
        "ring" if nodes > 2 => line.chain([(nodes - 1, 0)]).collect(),
        "ring" => line.collect(),
        "star" => (1..nodes).map(|node| (0, node)).collect(),
        _ => (0..nodes).flat_map(|one| (one + 1..nodes).map(move |other| (one, other))).collect(),
    }
}

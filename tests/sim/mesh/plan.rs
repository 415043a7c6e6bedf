//! What a seed decides before anything happens: how many nodes, who dials whom, with what key.

use std::collections::{BTreeMap, BTreeSet};

use peat_node::sync::Address;

use crate::net::address;
use crate::prng::Prng;

/// How nodes admit each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Admission {
    /// Both sides name each other.
    Pinned,
    /// The dialler names the acceptor; the acceptor asks for a proof.
    Formation,
}

/// The layout of one world.
#[derive(Clone, Debug)]
pub struct Plan {
    pub nodes: usize,
    pub shape: &'static str,
    /// Who dials whom.
    pub edges: BTreeSet<(usize, usize)>,
    pub admission: Admission,
    /// Dial by name instead of by address.
    pub names: bool,
    /// Documents written before anything else happens.
    pub population: u64,
    /// Nodes whose links have a rate, bytes a second.
    pub link_rates: BTreeMap<usize, u64>,
    /// Ids per collection that clients fight over.
    pub ids: u64,
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
        let link_rates = rated.into_iter().map(|node| (node, random.between(8_000, 100_000))).collect();
        Plan {
            nodes,
            shape,
            edges,
            admission,
            names: random.chance(300),
            population,
            link_rates,
            ids: random.between(1, 4),
        }
    }

    /// Whether two nodes have a link of their own, whoever dials.
    pub fn are_linked(&self, one: usize, other: usize) -> bool {
        self.edges.contains(&(one, other)) || self.edges.contains(&(other, one))
    }

    /// Whether the nodes without `lost` still reach each other, and are more than one.
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

    /// How `to` is written where it is dialled.
    pub fn address_of(&self, to: usize) -> Address {
        let text = if self.names { format!("node{to}.sim:4242") } else { address(to).to_string() };
        Address::parse(&text).expect("a valid address")
    }
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

//! Whole nodes over a simulated network: store and sync engines, the hand-offs between their threads, clients, faults.
//!
//! [`node`] is one machine, [`world`] the loop over all of them, [`plan`] what a seed decides at the start, [`trouble`] what
//! breaks and heals, [`load`] what comes on top in some of them, [`clients`] who asks, [`links`] who is attached, [`work`] what they run, [`errands`] who commands,
//! [`relay`] what is between nodes that cannot reach each other.

pub mod callers;
pub mod clients;
pub mod errands;
pub mod links;
pub mod load;
pub mod node;
pub mod odd;
pub mod plan;
pub mod relay;
pub mod scenario;
pub mod trouble;
pub mod watcher;
pub mod wire;
pub mod work;
pub mod world;

use std::net::SocketAddr;

use peat_node::store::{Reader, Reply, Submitted, Tip};
use peat_node::sync::{Asked, Event as SyncEvent};

/// A thread of a node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Api,
    Store,
    Sync,
    Resolver,
}

/// What one thread hands to another.
#[derive(Debug)]
pub enum Mail {
    Submitted(Submitted),
    Reply(Reply),
    Reader(Reader),
    Tip(Tip),
    Asked(Asked),
    Event(SyncEvent),
    Resolve(String),
    Resolved(String, Result<Vec<SocketAddr>, String>),
}

/// What happens in the world. `life` is the node's life it belongs to; what outlives it is dropped.
#[derive(Debug)]
pub enum Event {
    /// A datagram arrives.
    Arrives { to: usize, from: SocketAddr, data: Vec<u8> },
    /// A thread receives what another sent.
    Delivered { node: usize, life: u64, from: Role, to: Role, mail: Mail },
    /// A thread's deadline comes.
    Due { node: usize, life: u64, role: Role },
    /// The store's commit ends.
    Committed { node: usize, life: u64, mail: Vec<(Role, Mail)> },
    /// A machine that is off is switched on.
    Start { node: usize },
    /// A relay that is off is started.
    StartRelay,
    /// A client acts.
    Client,
    /// A client writes on one node at once.
    Hurry { node: usize },
    /// A subscriber takes what there is for it.
    Watch { node: usize },
    /// An agent on a stream beats, hangs, comes back, or moves.
    Beat { agent: usize },
    /// What a node shows of the agents is looked at.
    Look { node: usize },
    /// Something breaks or heals.
    Trouble,
    /// A client edits the hot document, so many times more.
    Hot { node: usize, edits: u64, pause_micros: u64 },
    /// A node is stopped for a while.
    Stop,
    /// A link comes or goes, so many times more.
    Flap { one: usize, other: usize, left: u64 },
}

impl Event {
    /// The node whose process has to run for it.
    pub fn node(&self) -> Option<usize> {
        match self {
            Event::Arrives { to: node, .. }
            | Event::Delivered { node, .. }
            | Event::Due { node, .. }
            | Event::Committed { node, .. }
            | Event::Hurry { node }
            | Event::Watch { node }
            | Event::Look { node } => Some(*node),
            _ => None,
        }
    }
}

//! Whole nodes over a simulated network: store and sync engines, the messages between their threads, clients, faults.
//!
//! | file | contents |
//! |---|---|
//! | [`node`], [`world`] | one machine; the loop over all of them |
//! | [`plan`], `scenario` | the layout a seed decides; the phases of a run and the final checks |
//! | [`trouble`], [`load`] | faults and healing; rare workloads |
//! | [`clients`], `callers`, `watcher` | clients of the engines, of the IPC; subscribers |
//! | [`links`], [`work`], [`errands`] | agents on streams; their work; commands |
//! | [`relay`], `odd`, `wire` | the relay; unusual documents; one connection |

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

use peat_node::store::{Envelope, Reader, Reply, Tip};
use peat_node::sync::{ControlRequest, Event as SyncEvent};

/// A thread of a node.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Role {
    Api,
    Store,
    Sync,
    Resolver,
}

/// A message between threads.
#[derive(Debug)]
pub enum Mail {
    Submitted(Envelope),
    Reply(Reply),
    Reader(Reader),
    Tip(Tip),
    Asked(ControlRequest),
    Event(SyncEvent),
    Resolve(String),
    Resolved(String, Result<Vec<SocketAddr>, String>),
}

/// An event of the world. `life` is the life of the node it belongs to; an event that outlives it is dropped.
#[derive(Debug)]
pub enum Event {
    /// A datagram arrives.
    Arrives { to: usize, from: SocketAddr, data: Vec<u8> },
    /// A thread receives a message of another.
    Delivered { node: usize, life: u64, from: Role, to: Role, mail: Mail },
    /// A thread's deadline is due.
    Due { node: usize, life: u64, role: Role },
    /// The store's commit ends.
    Committed { node: usize, life: u64, mail: Vec<(Role, Mail)> },
    /// A machine that is off is switched on.
    Start { node: usize },
    /// A relay that is off is started.
    StartRelay,
    /// A client acts.
    Client,
    /// A client writes to one node immediately.
    Hurry { node: usize },
    /// A subscriber reads what is available.
    Watch { node: usize },
    /// An agent on a stream sends a heartbeat, hangs, returns, or moves.
    Beat { agent: usize },
    /// The agents that a node lists are checked.
    Look { node: usize },
    /// A fault is injected or healed.
    Trouble,
    /// A client edits the hot document; `edits` more follow.
    Hot { node: usize, edits: u64, pause_micros: u64 },
    /// A node is suspended for a while.
    Stop,
    /// A link goes down or up; `left` more changes follow.
    Flap { one: usize, other: usize, left: u64 },
}

impl Event {
    /// Returns the node that must be running for the event.
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

//! Replication with other nodes: links, sessions, comparison and gossip.
//!
//! Owns the QUIC endpoint and one session per peer. Must never write a document itself: received documents go to the store, and
//! sent documents are read from a snapshot of it.
//!
//! | file | idea |
//! |---|---|
//! | [`Engine`] `engine/` | input, output, and the sessions in between |
//! | `peers.rs` | the peers to dial, and the time of the next dial |
//! | `relays.rs` | the relays at which this node has an allocation |
//! | `session/` | the exchange over one connection |
//! | `outbox.rs`, `outbox/` | the documents a peer lacks: positions, batches, refusals |
//! | `inbox.rs` | the documents a peer sent |
//! | `reconcile/` | comparison: the documents that differ |
//! | `convert.rs`, `frame.rs` | records to messages to bytes |
//! | `link/` | QUIC |
//! | `proof.rs` | proof of the formation key, which admits a peer |
//! | `held.rs` | documents that do not cross a link, with the reason |
//! | `presence.rs` | gossip of the nodes that have agents |
//! | `network.rs` | changes of links, addresses and routes, as the kernel reports them |
//! | `shell.rs`, `resolver.rs` | the threads |

mod control;
mod convert;
pub(crate) mod copied;
mod durability_waiters;
mod engine;
pub mod frame;
mod held;
mod inbox;
pub mod link;
mod network;
mod outbox;
mod peers;
mod presence;
pub mod proof;
pub mod reconcile;
mod relays;
pub mod resolver;
mod session;
pub mod shell;

#[cfg(test)]
mod tests;

pub use control::{
    Answer, ByteCounts, Control, ControlError, ControlRequest, Event, Measured, Peer, Stats, Status, Traffic,
};
pub use engine::{Engine, LOOKUP_DEADLINE, PeerSpec, Reloaded, STORE_OUTSTANDING, SyncConfig, Wake};
pub use link::LinkRates;
pub use peers::Address;

pub use crate::mesh;

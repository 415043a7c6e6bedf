//! Links to other nodes and what travels over them.
//!
//! Owns the QUIC endpoint and one session per peer. Must never write a document itself: what arrives goes to the store,
//! and what leaves is read from a snapshot of it.
//!
//! | file | idea |
//! |---|---|
//! | [`Engine`] `engine/` | input, output, and the sessions in between |
//! | `peers.rs` | whom to dial, and when |
//! | `relays.rs` | the relays it has a place at |
//! | `session/` | one connection's conversation |
//! | `outbox.rs`, `outbox/` | what a peer lacks: positions, batches, refusals |
//! | `inbox.rs` | what a peer sent |
//! | `reconcile/` | which documents differ |
//! | `convert.rs`, `frame.rs` | records to messages to bytes |
//! | `link/` | QUIC |
//! | `proof.rs` | who may come in |
//! | `held.rs` | which documents do not cross a link, and why |
//! | `presence.rs` | which nodes with agents are there |
//! | `network.rs` | what the kernel says of links, addresses and routes |
//! | `shell.rs`, `resolver.rs` | the threads |

mod control;
mod convert;
pub(crate) mod copied;
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
mod waits;

#[cfg(test)]
mod tests;

pub use control::{Answer, Asked, ByteCounts, Control, ControlError, Event, Measured, Peer, Stats, Status, Traffic};
pub use engine::{Config, Engine, LOOKUP_DEADLINE, PeerSpec, Reloaded, STORE_OUTSTANDING, Wake};
pub use link::LinkRates;
pub use peers::Address;

pub use crate::mesh;

//! A sidecar that keeps an edge fleet's documents as CRDTs on local disk and carries them to other nodes.
//!
//! # Threads
//!
//! | thread | owns | loop |
//! |---|---|---|
//! | main | configuration, signals, the service manager | [`node`] |
//! | api | client sockets, calls, subscriptions, agents | [`api::shell`] |
//! | store | documents, the only writer of the database | [`store::shell`] |
//! | sync | the UDP socket, QUIC, sessions with peers | [`sync::shell`] |
//! | relay | a UDP socket of its own, places of nodes that cannot reach each other | [`relay::shell`] |
//! | watcher | questions to an agent that knows nothing of us | [`watcher::shell`] |
//! | resolver | name look-ups with a deadline | [`sync::resolver`] |
//!
//! # Engines
//!
//! All logic is in engines that never read a clock, a socket, a file or a random source: [`store::Store`],
//! [`sync::Engine`], [`relay::Relay`], [`api::Engine`] with [`fleet::Fleet`] inside, and [`watcher::Watcher`]. They take what happened
//! (`handle_*(now, ..)`) and are asked what to do next
//! (`poll_*`). The threads above are thin shells that move bytes; the simulator in `tests/sim` is another shell over the
//! same engines. Four things are injected: the clock ([`clock::Now`]), randomness ([`random::Random`]), datagrams and
//! storage ([`store::Disk`]). Names resolve outside too; their answers are a fifth input.

// Both panic when their reader has gone; see `stderr` and `cli::output`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod api;
pub mod cli;
pub mod clock;
pub mod config;
pub mod contain;
pub mod error;
mod files;
pub mod fleet;
pub mod identity;
pub mod limits;
mod log_limit;
pub mod metrics;
pub mod node;
#[cfg(feature = "http")]
mod pipe;
pub mod pulse;
pub mod random;
pub mod relay;
pub mod schema;
mod stderr;
pub mod store;
pub mod sync;
pub mod udp;
pub mod watcher;

/// What nodes say to each other: `peat.mesh.v1`.
pub mod mesh {
    #![allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/peat.mesh.v1.rs"));
}

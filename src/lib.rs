//! A sidecar that stores an edge fleet's JSON documents as CRDTs on local disk and replicates them to other nodes.
//!
//! # The system
//!
//! * An **agent** (a client in any language) connects over a unix socket, puts JSON documents and heartbeats, reads the state of
//!   the whole fleet, and receives commands. `proto/sidecar.proto` and `proto/agent.proto` are the interface; frames, Connect,
//!   gRPC and REST lead to the same methods.
//! * Each node stores every document in one file, `documents.redb`. A *merged* document is an Automerge history, a *latest*
//!   document is a register of which the highest stamp wins, a *command* is a signed body with statuses that only advance.
//! * The store appends each commit to an index ordered by sequence number. A subscriber and a peer are cursors into that index.
//!   Memory therefore does not grow with slow consumers.
//! * Two nodes that connect exchange proofs of the formation key, then cursors; where cursors do not suffice they compare their
//!   records, and then send each other the documents that differ, over one QUIC connection with five lanes.
//! * Nodes gossip which nodes are present, and store what their agents are and run. Each node thus decides locally whether an
//!   agent anywhere is LIVE, STALE or DEAD, and routes commands to it.
//!
//! `docs/architecture.md` follows one document, one heartbeat and one command through the files.
//!
//! # Glossary
//!
//! | word | meaning | where |
//! |---|---|---|
//! | agent, attachment | a client that receives commands; the stream, poll or watcher by which it does | [`fleet`] |
//! | batch | documents in one message of a lane, with the cursors they complete; also the writes of one commit | [`sync`], [`store`] |
//! | cursor | up to which sequence number a peer has received an index, by kind | [`store::Cursor`] |
//! | dot | the identity of one creation of a document: writer and incarnation | [`store::Dot`] |
//! | covered | the dots that deletions and compactions have seen and removed | [`store::Covered`] |
//! | endpoint id | the public key of a node, which names it to peers | [`identity::EndpointId`] |
//! | formation | the nodes that share a key and replicate with each other | `sync::proof` |
//! | incarnation | the number of a creation of a document, one more than any that its writer knew | [`store::Lineage`] |
//! | kind | how versions of a record combine: command, merged, latest | [`store::Kind`] |
//! | lane | one QUIC stream in each direction for one class of messages | `sync::link` |
//! | lineage | the dots a record descends from and those it covers | [`store::Lineage`] |
//! | link | a QUIC connection to a peer, directly or through a relay | `sync::link` |
//! | record | what the store holds of one key: a document, a tombstone, a command, a result | [`store::Record`] |
//! | run | one start of a node over its database, 16 random bytes | [`store::RunId`] |
//! | sequence | the number of a commit; orders the index | [`store::Tip`] |
//! | session | the exchange with one peer over one link, from proof to close | `sync::session` |
//! | stamp | counter, node and run: orders versions of a *latest* document | [`store::Stamp`] |
//! | tip | the newest sequence number that is visible, and the newest that is on disk | [`store::Tip`] |
//! | token | run and sequence number: a position that a subscriber resumes from | [`store::Token`] |
//! | tombstone | the record of a deleted document | [`store::Content`] |
//! | version | what a client names as the base of a put | [`store::Version`] |
//!
//! # Threads
//!
//! | thread | owns | loop |
//! |---|---|---|
//! | main | configuration, signals, the service manager | [`node`] |
//! | api | client sockets, calls, subscriptions, agents | [`api::shell`] |
//! | store | documents, as the only writer of the database | [`store::shell`] |
//! | merge | merges of large documents, one at a time | [`store::shell`] |
//! | sync | the UDP socket, QUIC, sessions with peers | [`sync::shell`] |
//! | relay | a second UDP socket, allocations of nodes that cannot reach each other | [`relay::shell`] |
//! | watcher | HTTP to an agent that does not use this interface | [`watcher::shell`] |
//! | resolver | name look-ups with a deadline | [`sync::resolver`] |
//!
//! Threads share no locks. Requests and replies travel over bounded channels, which `node/wiring.rs` lists; other shared data is
//! an immutable snapshot ([`store::Reader`]) or a number.
//!
//! # Engines and the order of calls
//!
//! All logic is in engines: [`store::Store`], [`sync::Engine`], [`relay::Relay`], [`api::Engine`] with [`fleet::Fleet`] inside, and
//! [`watcher::Watcher`]. An engine reads no clock, no socket and no random source, and, except for the disk given to the store, no
//! file. Injected are the time ([`clock::Now`]), randomness ([`random::Random`]), datagrams, storage ([`store::Disk`]) and the
//! addresses of names.
//!
//! 1. Report one event: `handle_*(now, ..)`.
//! 2. Drain every `poll_*` until it returns `None` and carry out what it returns. The module of each engine states the order.
//! 3. Wait for the next event or for `poll_deadline`.
//!
//! The threads are thin shells that do this with real sockets; the simulator in `tests/sim` is another shell over the same
//! engines. [`api`] shows the loop as compiled code.
//!
//! # Modules, from the top down
//!
//! | module | owns |
//! |---|---|
//! | [`cli`] | subcommands, output, exit codes |
//! | [`node`] | the process: data directory, signals, threads, channels |
//! | [`config`] | flags, environment and settings file, resolved into values |
//! | [`api`] | clients: connections, methods, streams, HTTP |
//! | [`watcher`] | the watched agent and the documents made of its answers |
//! | [`fleet`] | agents, their liveness and owners, commands |
//! | [`sync`] | peers: links, sessions, comparison, gossip |
//! | [`relay`] | allocations and forwarding |
//! | [`store`] | records, the index, commits, snapshots |
//! | [`schema`] | messages as tables: JSON and cost in memory |
//! | [`metrics`], [`thread_watchdog`], [`limits`], [`error`], [`contain`] | counters, the watchdog of threads, every limit, blame, contained panics |
//! | [`clock`], [`random`], [`identity`], [`udp`] | the seams to the machine |

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
pub mod random;
pub mod relay;
pub mod schema;
mod stderr;
pub mod store;
pub mod sync;
pub mod thread_watchdog;
pub mod udp;
pub mod watcher;

/// Messages between nodes: `peat.mesh.v1`.
pub mod mesh {
    #![allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/peat.mesh.v1.rs"));
}

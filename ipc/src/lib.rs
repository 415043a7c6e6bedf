//! A client for a peat-node: framing, generated messages and blocking calls over a unix socket or TCP.
//!
//! The crate starts no threads, except those of an `Agent`, and needs no async runtime. A unary call is one write and one
//! read; [`Client::start`] and [`Client::finish`] keep many calls in flight on one connection; [`Client::subscribe`] returns an
//! iterator of changes.
//!
//! ```no_run
//! use peat_ipc::{Client, sidecar::GetDocumentRequest};
//!
//! let mut client = Client::connect(&"unix:///run/peat-node/peat-node.sock".parse()?)?;
//! let request = GetDocumentRequest { collection: "platforms".into(), doc_id: "a1".into() };
//! match client.get_document(&request)?.json_data {
//!     Some(json) => println!("{json}"),
//!     None => println!("not found"),
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! `docs/wire.md` specifies the bytes. The node uses [`frame`] and [`method`] as well.

pub use prost;

// Generated code refers to messages of other packages by these module paths.
mod generated {
    #![allow(missing_debug_implementations, unreachable_pub, clippy::all, clippy::pedantic)]
    pub mod sidecar {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/peat.sidecar.v1.rs"));
        }
    }
    pub mod agent {
        pub mod v1 {
            include!(concat!(env!("OUT_DIR"), "/peat.agent.v1.rs"));
        }
    }
}

/// Messages between an agent and its node, `peat.agent.v1`.
pub use generated::agent::v1 as agent;
/// Messages of the public API, `peat.sidecar.v1`.
pub use generated::sidecar::v1 as sidecar;

/// Envelope of the native IPC, `peat.ipc.v1`.
pub mod envelope {
    #![allow(missing_debug_implementations, clippy::all, clippy::pedantic)]
    include!(concat!(env!("OUT_DIR"), "/peat.ipc.v1.rs"));
}

pub mod agents;
pub mod client;
pub mod code;
mod duplex;
mod error;
mod fleet;
mod following;
pub mod frame;
pub mod method;
mod stream;
mod subscription;
mod target;

pub use agents::{Agent, Outcome, Work};
pub use client::{CallOptions, Client, Pending};
pub use code::Code;
pub use error::{CallError, Error};
pub use fleet::Deployment;
pub use following::{Followed, Following};
pub use method::{Method, Rpc};
pub use subscription::Subscription;
pub use target::{Target, TargetError};

/// First bytes that a client sends: `00 70 65 61 74 2f 31 0a`, a zero byte, `peat/1` and a line feed.
pub const PREFACE: [u8; 8] = *b"\0peat/1\n";

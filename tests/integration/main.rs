//! Real processes: the released program, started, used through its command line, and killed.
//!
//! One module per topic, one test per statement that must hold. Tests never sleep for a fixed time: they wait for a condition
//! with a deadline.

#![allow(unreachable_pub, reason = "a test binary has no outside")]

mod agent_client;
mod agents;
#[path = "../hostile/mod.rs"]
mod attacks;
mod client_wire;
mod clients;
mod command_line;
mod commands;
mod data_directory;
mod far;
mod forwarder;
#[cfg(feature = "http")]
mod http;
mod life;
mod malformed;
mod memory;
mod mesh;
mod networks;
mod node;
mod readme;
mod relay;
mod relays;
mod security;
mod shells;
mod sockets;
mod streams;
mod supervision;
mod usage;
mod watcher;
mod wire;

//! Clients: their sockets, calls and subscriptions.
//!
//! Owns every client connection. Must never write a document itself: writes go to the store thread, and reads are answered from a
//! snapshot of the store without asking another thread.
//!
//! # The order of calls
//!
//! [`Engine`] is sans I/O. Report each event with `handle_*`, then drain the engine in this order, each until `None`:
//! [`Engine::poll_store`], [`Engine::poll_asked`], [`Engine::poll_output`] and, after writing the bytes that [`Engine::output`]
//! returns for each connection, [`Engine::poll_shut`] and [`Engine::poll_close`]. Then wait for input or for
//! [`Engine::poll_deadline`].
//!
//! ```
//! use peat_node::api::{ConnectionId, Engine};
//! use peat_node::clock::Now;
//!
//! /// Drains the engine after an input, as a shell does; returns true while the connection is open.
//! fn drain(engine: &mut Engine, now: Now, client: ConnectionId, socket: &mut Vec<u8>) -> bool {
//!     // 1. Requests to the store thread.
//!     while let Some(submitted) = engine.poll_store() {
//!         println!("to the store: {submitted:?}");
//!     }
//!     // 2. Control requests to the sync thread.
//!     while let Some(asked) = engine.poll_asked() {
//!         println!("to sync: {asked:?}");
//!     }
//!     // 3. Bytes to clients, as many as their sockets take.
//!     while let Some(id) = engine.poll_output() {
//!         let bytes = engine.output(id);
//!         socket.extend_from_slice(bytes);
//!         let written = bytes.len();
//!         engine.handle_written(now, id, written);
//!     }
//!     // 4. Connections to shut for writing; the client closes them.
//!     while let Some(id) = engine.poll_shut() {
//!         println!("shutdown(SHUT_WR) of {id:?}");
//!     }
//!     // 5. Connections the engine has closed.
//!     while let Some(closed) = engine.poll_close() {
//!         if closed.connection == client {
//!             return false;
//!         }
//!     }
//!     // 6. Then wait, until engine.poll_deadline() at the latest, and call engine.handle_timeout(now).
//!     true
//! }
//! # let _ = drain;
//! ```
//!
//! The parts: `engine.rs` and its submodules order the work; `connection.rs` holds the bytes of one client; `dispatch.rs` carries
//! out each method, independently of the codec; `typed.rs` maps platforms, cells, tracks and commands to documents; `feed.rs`
//! holds subscriptions; `link.rs` and `watch.rs` hold the streams of agents and of clients that watch agents, `agents.rs` the
//! rest of the agent methods; `caller.rs` decides rights; `http` is the second codec; [`shell`] is the thread.

mod agents;
mod call;
mod caller;
mod command_list;
mod commands;
mod connection;
mod dispatch;
mod engine;
mod feed;
#[cfg(feature = "http")]
mod http;
mod link;
pub mod shell;
#[cfg(test)]
mod tests;
mod timers;
mod typed;
mod view;
mod watch;

pub use caller::{Caller, Policy, Role};
pub use connection::ConnectionId;
pub use engine::{ApiConfig, Closed, Engine, Refused, Reloaded, SYNC_OUTSTANDING};
pub use timers::Wake;

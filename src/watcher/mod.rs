//! Watches an agent on this machine that does not use this interface: queries its state and turns it into documents.
//!
//! Owns the schedule of the polls, the interpretation of the agent's three answers, and the writes that follow from them. Must
//! never write a document directly: it is a client of the api thread like any other, so that all writes take one path. Must never
//! trust an answer: an invalid one costs at most that poll.
//!
//! | request | documents |
//! |---|---|
//! | `GET /status` | `platforms/{agent}` |
//! | `POST /zarfapi.v1.ZarfAPIService/ListPackages` | `deployments/{agent}:{name}` |
//! | `POST /registryapi.v1.RegistryService/ListPulledPackages` | `packages/{agent}:{reference}-{arch}` |
//!
//! A document is written only when a key other than `last_seen` changed, and the platform in addition once per heartbeat
//! interval, as the agent's sign of life. Documents that the agent no longer lists are deleted. If the agent does not answer,
//! nothing is written, and the fleet derives STALE and DEAD from the missing signs of life as for every agent. While the agent
//! pushes by itself, the node rejects the watcher's writes (`api`), and the poll ends.
//!
//! # The order of calls
//!
//! [`Watcher`] is sans I/O. At [`Watcher::poll_deadline`] call [`Watcher::handle_timeout`]; then carry out each
//! [`Watcher::poll_task`] and report its result, until there is none; then log the lines of [`Watcher::poll_note`].
//!
//! ```
//! use peat_node::clock::Now;
//! use peat_node::watcher::{Failure, StoredDocuments, Task, Watcher};
//!
//! /// One poll of an agent that cannot be reached, by a node that holds nothing of it.
//! fn poll(watcher: &mut Watcher, now: Now) {
//!     watcher.handle_timeout(now);
//!     while let Some(task) = watcher.poll_task() {
//!         match task {
//!             Task::Read(_) => watcher.handle_held(Ok(StoredDocuments::default())),
//!             Task::Ask(question) => watcher.handle_answer(now, question, Err(Failure::TimedOut)),
//!             Task::Write(_) => watcher.handle_written(now, Ok(Vec::new())),
//!         }
//!     }
//!     while let Some(note) = watcher.poll_note() {
//!         println!("{note}");
//!     }
//!     // Then wait until watcher.poll_deadline().
//! }
//! # let _ = poll;
//! ```
//!
//! Files: `engine.rs` the schedule and the writes after an answer; `answer.rs` the answers as documents; `json.rs` protobuf's
//! JSON in all its spellings; `held.rs` the documents of the node and the changes to them; `failure.rs` the failures; [`shell`]
//! the thread, with the requests to the agent in `shell/agent.rs` and the calls to the node in `shell/node.rs`.

mod answer;
mod engine;
mod failure;
#[cfg(feature = "http")]
mod grpc;
mod held;
mod json;
pub mod shell;
#[cfg(test)]
mod tests;

pub use answer::Question;
pub use engine::{Note, Task, Watcher, WatcherConfig};
pub use failure::{Failure, NotWritten};
pub use held::{Read, StoredDocuments, WatchedWrite};

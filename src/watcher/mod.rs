//! An agent on this machine that knows nothing of peat-node: asked for its state, which becomes documents.
//!
//! Owns the schedule of the polls, what the agent's three answers mean, and which documents must change for them. Must never
//! write a document itself: it is a client of the api thread like any other, so that there is one way in for writes. Must
//! never trust an answer: whatever an agent sends costs at most that poll.
//!
//! | asked | becomes |
//! |---|---|
//! | `GET /status` | `platforms/{agent}` |
//! | `POST /zarfapi.v1.ZarfAPIService/ListPackages` | `deployments/{agent}:{name}` |
//! | `POST /registryapi.v1.RegistryService/ListPulledPackages` | `packages/{agent}:{reference}-{arch}` |
//!
//! A document is written only when something besides `last_seen` changed, and the platform once every heartbeat period: that
//! is the agent's sign of life. What the agent no longer lists is deleted. An agent that does not answer is left as it is: the
//! fleet finds it STALE and DEAD for want of signs of life, as it does with every other. While the agent pushes by itself
//! the node refuses the watcher's writes (`api`), and the poll ends.
//!
//! # The order of calls
//!
//! [`Watcher`] is sans I/O. When [`Watcher::poll_deadline`] comes call [`Watcher::handle_timeout`]; then carry out each
//! [`Watcher::poll_task`] and tell how it went, until there is none; then log what [`Watcher::poll_note`] has.
//!
//! ```
//! use peat_node::clock::Now;
//! use peat_node::watcher::{Failure, Held, Task, Watcher};
//!
//! /// One poll of an agent that cannot be reached, by a node that holds nothing of it.
//! fn poll(watcher: &mut Watcher, now: Now) {
//!     watcher.handle_timeout(now);
//!     while let Some(task) = watcher.poll_task() {
//!         match task {
//!             Task::Read(_) => watcher.handle_held(Ok(Held::default())),
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
//! Where things are: `engine.rs` the schedule and what follows an answer; `answer.rs` the answers as documents; `json.rs`
//! protobuf's JSON in all its spellings; `held.rs` what the node holds and what must change; `failure.rs` what can go wrong;
//! [`shell`] the thread, with the agent's end in `shell/agent.rs` and the node's in `shell/node.rs`.

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
pub use engine::{Config, Note, Task, Watcher};
pub use failure::{Failure, NotWritten};
pub use held::{Held, Read, Write};

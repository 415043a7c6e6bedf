//! Documents on disk: the engine, its thread, and the snapshots other threads read.
//!
//! Owns every record and the index of newest versions. Must never wait for another thread, and never answers a write before it
//! is as durable as the answer says.
//!
//! | file | holds |
//! |---|---|
//! | `engine.rs`, `batch.rs`, `stage.rs` | [`Store`]: batches of requests, and the records they stage |
//! | `write.rs`, `apply.rs`, `join.rs`, `foreign.rs` | puts, patches, deletions; versions from peers; which version wins; documents of another kind |
//! | `job.rs`, `deferred.rs` | merges that run on the merge thread, and the requests that wait for them |
//! | `commit.rs`, `journal.rs`, `journalled_transaction.rs` | commits, and the journal that makes them durable with one sync |
//! | `database.rs`, `opening.rs`, `tables.rs`, `backend.rs`, `disk.rs` | the redb file, its tables, and the seam to the disk |
//! | `reader.rs`, `token.rs` | snapshots for other threads, and positions in the index |
//! | `record.rs`, `key.rs`, `version.rs`, `lineage.rs`, `history.rs`, `codec.rs` | records and their bytes |
//! | `merged.rs`, `chunk.rs`, `json.rs` | Automerge documents, their chunks, and JSON |
//! | `command.rs` | commands and results |
//! | `cache.rs`, `copies.rs` | loaded documents; nodes with the same identity |
//! | `fingerprint.rs`, `store_metrics.rs`, `database_clock.rs` | the digest of all records, metrics, the database's own clock |
//! | `request.rs`, `config.rs`, `error.rs`, `shell.rs` | requests, settings, errors, the thread |
//! | `verify.rs`, `overlay.rs` | `peat-node verify`, over a read-only file |

mod apply;
mod backend;
mod batch;
mod cache;
pub mod chunk;
mod codec;
mod command;
mod commit;
mod config;
mod copies;
mod database;
mod database_clock;
mod deferred;
mod disk;
mod engine;
mod error;
pub(crate) mod fingerprint;
mod foreign;
mod history;
mod job;
mod join;
mod journal;
mod journalled_transaction;
pub mod json;
mod key;
mod lineage;
pub mod merged;
mod opening;
mod overlay;
mod reader;
mod record;
mod request;
pub mod shell;
mod stage;
mod store_metrics;
mod tables;
mod token;
mod verify;
mod version;
mod write;

pub use command::{
    COMMANDS, Command, CommandChange, CommandError, CommandResult, CommandView, CommandWrite, Deadline, Progress, Rank,
    Report, Signed,
};
pub(crate) use command::{check_body, is_long_past, same_time};
pub use config::{InjectedBug, StoreConfig};
pub(crate) use disk::BALLAST_BYTES;
pub use disk::{Disk, FileDisk};
pub use engine::Store;
pub use error::Error;
pub use history::{History, Part};
pub use job::{Finished, Job};
pub use key::{Key, KeyError, KeyHash};
pub use lineage::{COVERED_DOTS, Covered, Dot, Dots, LIVE_DOTS, Lineage, SIBLINGS, Sibling};
pub(crate) use opening::room_problem;
pub use reader::{Counts, Document, IndexEntry, Reader, Snapshot};
pub use record::{Content, Record};
pub use request::{
    Applied, Apply, Body, Cursor, DocumentWrite, Envelope, Incoming, IncomingCommand, Merged, Outcome, PeerRun,
    PeerSetting, Put, Reply, SavedPeer, StoreRequest, Ticket, Tip,
};
pub use store_metrics::StoreMetrics;
pub use token::Token;
pub use verify::{Verified, verify};
pub use version::{Kind, Origin, PerKind, RunId, Stamp, Version, VersionHash};

#[cfg(test)]
mod tests;

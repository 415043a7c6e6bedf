//! What the store has done since the start, for metrics. Counted by the writer, read by whoever has a [`super::Reader`].

use crate::metrics::Figure;

/// See the module.
#[derive(Debug, Default)]
pub struct Figures {
    /// Transactions, those that reached the disk included.
    pub commits: Figure,
    /// Transactions that reached the disk, and what was before them with them.
    pub flushes: Figure,
    /// Records written, and their bytes.
    pub documents: Figure,
    /// See `documents`.
    pub bytes: Figure,
    /// Errors of the disk.
    pub failures: Figure,
    /// Documents whose edits were made again over a compaction that had not seen them.
    pub rebased: Figure,
    /// Changes of merged documents that were dropped because their document was deleted and made again on another node.
    pub dropped_changes: Figure,
    /// What the next write needs on the disk and does not find there; 0 while there is room.
    pub lacking_bytes: Figure,
    /// What was free then.
    pub free_bytes: Figure,
    /// 1 while the database was opened for reading only, because the disk had no room for what a start writes.
    pub read_only: Figure,
    /// Loaded Automerge documents, their bytes, and how many there may be.
    pub cached: Figure,
    /// See `cached`.
    pub cache_bytes: Figure,
    /// See `cached`.
    pub cache_limit_bytes: Figure,
}

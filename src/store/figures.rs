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
    /// Loaded Automerge documents, their bytes, and how many there may be.
    pub cached: Figure,
    /// See `cached`.
    pub cache_bytes: Figure,
    /// See `cached`.
    pub cache_limit_bytes: Figure,
}

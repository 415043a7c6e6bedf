//! Counts of the store's work since the start, for metrics. The writer counts; any thread with a [`super::Reader`] reads.

use crate::metrics::Figure;

/// Metrics of the store; see the module documentation.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Number of transactions, with or without a flush.
    pub commits: Figure,
    /// Number of transactions that were flushed, together with those before them.
    pub flushes: Figure,
    /// Number of records written.
    pub documents: Figure,
    /// Bytes of the records written.
    pub bytes: Figure,
    /// Number of disk errors.
    pub failures: Figure,
    /// Number of documents with edits that were made again over a compaction that had not seen them.
    pub rebased: Figure,
    /// Number of changes of merged documents that were dropped because the document was deleted and created again on another
    /// node.
    pub dropped_changes: Figure,
    /// Bytes that the next write needs and the disk does not have; 0 while there is room.
    pub lacking_bytes: Figure,
    /// Bytes that were free at that time.
    pub free_bytes: Figure,
    /// 1 while the database is open read-only, because the disk has no room for the writes of a start.
    pub read_only: Figure,
    /// Number of loaded Automerge documents.
    pub cached: Figure,
    /// Bytes of the loaded documents.
    pub cache_bytes: Figure,
    /// Limit of `cache_bytes`.
    pub cache_limit_bytes: Figure,
}

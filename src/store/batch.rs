//! The content of one commit: records staged over the database, settings, and the answers owed for them.

use std::collections::BTreeMap;

use crate::identity::EndpointId;
use crate::store::database_clock::PersistedClock;
use crate::store::merged::Doc;
use crate::store::{Cursor, Error, Key, KeyHash, Kind, Part, PeerSetting, Record, RunId, Ticket, Version};

/// A document in the batch. Several writes to it become one record.
#[derive(Debug)]
pub(super) struct StagedDocument {
    /// Committed record, if there is one.
    pub(super) before: Option<Previous>,
    /// Record after the commit; equal to the committed one while `changed` is `None`.
    pub(super) record: Option<Record>,
    /// Loaded document of a `merged` record, exactly at the version of `record`.
    pub(super) doc: Option<Doc>,
    /// Number of the batch's change that wrote it last; orders the sequence numbers.
    pub(super) changed: Option<u64>,
    /// Number of the source that delivered exactly this version; 0 for none.
    pub(super) from: u32,
    /// True if a client was promised that the committed version is on disk. A later change in the same batch is then flushed
    /// too, because the client receives its number.
    pub(super) awaited: bool,
}

/// Committed record that a staged one replaces.
#[derive(Clone, Debug)]
pub(super) struct Previous {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    /// Name, if the record is live.
    pub(super) name: Option<Key>,
    /// Chunks, if the record is `merged`.
    pub(super) chunks: Vec<Part>,
}

impl StagedDocument {
    pub(super) fn new(record: Option<Record>) -> StagedDocument {
        let before = record.as_ref().map(|record| Previous {
            kind: record.kind,
            sequence: record.sequence,
            name: record.name.clone(),
            chunks: record.history().map_or_else(Vec::new, |history| history.parts().to_vec()),
        });
        StagedDocument { before, record, doc: None, changed: None, from: 0, awaited: false }
    }
}

/// An answer that waits for the commit.
#[derive(Debug)]
pub(super) enum Pending {
    /// A client's write: the document, its version, the bytes of history it dropped and, if nothing had to change, the
    /// sequence number of the version in place, which later writes of the batch do not affect.
    Written { hash: KeyHash, version: Version, dropped_bytes: u64, in_place: Option<u64> },
    /// A deletion of a document that does not exist.
    Absent,
    /// A batch of documents from a peer.
    Applied { missing: Vec<(KeyHash, Vec<[u8; 32]>)>, refused: Vec<(KeyHash, String)>, copied: Vec<EndpointId> },
    /// A setting or a flush.
    Done,
    /// A refused request; its answer does not depend on the commit.
    Failed(Error),
}

/// A batch under construction; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) staged: BTreeMap<KeyHash, StagedDocument>,
    pub(super) cursors: BTreeMap<(EndpointId, Kind), Cursor>,
    pub(super) links: BTreeMap<EndpointId, PeerSetting>,
    pub(super) sources: BTreeMap<EndpointId, (u32, RunId)>,
    pub(super) sync: Option<bool>,
    /// Database age to note. It is written with other changes, and causes no commit.
    pub(super) age: Option<PersistedClock>,
    /// True if the commit must reach the disk before its answers are sent.
    pub(super) flush: bool,
    pub(super) answers: Vec<(Ticket, Pending)>,
    /// Number of changes of merged documents that were dropped because the document was deleted and created again.
    pub(super) dropped_changes: u64,
    /// Number of documents with edits that were made again over a compaction.
    pub(super) rebased: u64,
    /// Number of source numbers assigned.
    new_sources: u32,
    /// Number of changes.
    changes: u64,
    /// Bytes of the staged records.
    bytes: usize,
}

impl Batch {
    /// Returns a batch that only asks for a flush.
    pub(super) fn flush() -> Batch {
        Batch { flush: true, ..Batch::default() }
    }

    /// Assigns the next source number, after `given` and those of this batch.
    pub(super) fn next_source(&mut self, given: u32) -> u32 {
        self.new_sources += 1;
        given.saturating_add(self.new_sources)
    }

    /// Returns the number of source numbers that the batch assigns.
    pub(super) fn given_sources(&self) -> u32 {
        self.new_sources
    }

    /// Returns true if the commit would write nothing but the age.
    pub(super) fn is_empty(&self) -> bool {
        self.changes == 0
            && self.cursors.is_empty()
            && self.links.is_empty()
            && self.sources.is_empty()
            && self.sync.is_none()
    }

    /// Returns true if the batch must be committed before more is staged.
    pub(super) fn is_full(&self, limit_bytes: u64) -> bool {
        self.staged.len() >= crate::limits::BATCH_DOCUMENTS || self.bytes as u64 >= limit_bytes
    }

    /// Returns the bytes of the records staged so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Stages `record` for `hash`, which must be staged already.
    pub(super) fn change(&mut self, hash: KeyHash, record: Record, doc: Option<Doc>, from: u32) {
        let staged = self.staged.get_mut(&hash).expect("a document is staged before it is changed");
        self.bytes += record.size();
        self.flush |= staged.awaited;
        staged.record = Some(record);
        (staged.doc, staged.changed, staged.from) = (doc, Some(self.changes), from);
        self.changes += 1;
    }

    /// Returns the documents to write, in the order of their last change.
    pub(super) fn changed(&mut self) -> Vec<(KeyHash, &mut StagedDocument)> {
        let mut changed: Vec<_> = self.staged.iter_mut().filter(|(_, staged)| staged.changed.is_some()).collect();
        changed.sort_by_key(|(_, staged)| staged.changed);
        changed.into_iter().map(|(hash, staged)| (*hash, staged)).collect()
    }
}

//! What one commit will write: records staged over the database, settings, and the answers owed for them.

use std::collections::BTreeMap;

use crate::identity::EndpointId;
use crate::store::age::Noted;
use crate::store::merged::Doc;
use crate::store::{Cursor, Error, Key, KeyHash, Kind, LinkWish, Part, Record, RunId, Ticket, Version};

/// A document in the batch. Several writes to it become one record.
#[derive(Debug)]
pub(super) struct Staged {
    /// What the database holds.
    pub(super) before: Option<Before>,
    /// What it will hold; equal to what it holds while `changed` is `None`.
    pub(super) record: Option<Record>,
    /// The loaded document of a `merged` record, exactly at `record`'s version.
    pub(super) doc: Option<Doc>,
    /// Which change of the batch wrote it last: the order of sequence numbers.
    pub(super) changed: Option<u64>,
    /// The source that delivered exactly this version.
    pub(super) from: u32,
    /// Somebody was promised that what is held is on disk: a change in the same batch is flushed too, for they get its number.
    pub(super) awaited: bool,
}

/// The committed record a staged one replaces.
#[derive(Clone, Debug)]
pub(super) struct Before {
    pub(super) kind: Kind,
    pub(super) sequence: u64,
    /// Its name if it is live.
    pub(super) name: Option<Key>,
    /// Its chunks, if it is `merged`.
    pub(super) chunks: Vec<Part>,
}

impl Staged {
    pub(super) fn new(record: Option<Record>) -> Staged {
        let before = record.as_ref().map(|record| Before {
            kind: record.kind,
            sequence: record.sequence,
            name: record.name.clone(),
            chunks: record.history().map_or_else(Vec::new, |history| history.parts().to_vec()),
        });
        Staged { before, record, doc: None, changed: None, from: 0, awaited: false }
    }
}

/// An answer that waits for the commit.
#[derive(Debug)]
pub(super) enum Pending {
    /// A client's write: the document, its version then, bytes of history dropped, and, when nothing had to change, the
    /// sequence number of what is in place, whatever later writes of the batch make of the document.
    Written { hash: KeyHash, version: Version, dropped_bytes: u64, in_place: Option<u64> },
    /// Nothing was there to delete.
    Absent,
    /// A peer's documents.
    Applied { missing: Vec<(KeyHash, Vec<[u8; 32]>)>, refused: Vec<(KeyHash, String)>, copied: Vec<EndpointId> },
    /// A setting or a flush.
    Done,
    /// Refused, whatever becomes of the batch.
    Failed(Error),
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) staged: BTreeMap<KeyHash, Staged>,
    pub(super) cursors: BTreeMap<(EndpointId, Kind), Cursor>,
    pub(super) links: BTreeMap<EndpointId, LinkWish>,
    pub(super) sources: BTreeMap<EndpointId, (u32, RunId)>,
    pub(super) sync: Option<bool>,
    /// Written along with whatever else is.
    pub(super) age: Option<Noted>,
    /// The commit must reach the disk before the answers go out.
    pub(super) flush: bool,
    pub(super) answers: Vec<(Ticket, Pending)>,
    /// Changes of merged documents that nothing could be made of any more, and those made again over a compaction.
    pub(super) dropped_changes: u64,
    /// See `dropped_changes`.
    pub(super) rebased: u64,
    /// Source numbers given out.
    new_sources: u32,
    /// Changes so far.
    changes: u64,
    /// Bytes of the records staged.
    bytes: usize,
}

impl Batch {
    /// A batch that only asks for a flush.
    pub(super) fn flush() -> Batch {
        Batch { flush: true, ..Batch::default() }
    }

    /// The next source number after `given` and those of this batch.
    pub(super) fn next_source(&mut self, given: u32) -> u32 {
        self.new_sources += 1;
        given.saturating_add(self.new_sources)
    }

    /// How many source numbers the batch gives out.
    pub(super) fn given_sources(&self) -> u32 {
        self.new_sources
    }

    /// Whether the commit would write anything.
    pub(super) fn is_empty(&self) -> bool {
        self.changes == 0
            && self.cursors.is_empty()
            && self.links.is_empty()
            && self.sources.is_empty()
            && self.sync.is_none()
    }

    /// Whether to commit before staging more.
    pub(super) fn is_full(&self, limit_bytes: u64) -> bool {
        self.staged.len() >= crate::limits::BATCH_DOCUMENTS || self.bytes as u64 >= limit_bytes
    }

    /// Bytes of records staged so far.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Makes `record` what the commit will write for `hash`, which must be staged.
    pub(super) fn change(&mut self, hash: KeyHash, record: Record, doc: Option<Doc>, from: u32) {
        let staged = self.staged.get_mut(&hash).expect("a document is staged before it is changed");
        self.bytes += record.size();
        self.flush |= staged.awaited;
        staged.record = Some(record);
        (staged.doc, staged.changed, staged.from) = (doc, Some(self.changes), from);
        self.changes += 1;
    }

    /// The documents to write, in the order of their last change.
    pub(super) fn changed(&mut self) -> Vec<(KeyHash, &mut Staged)> {
        let mut changed: Vec<_> = self.staged.iter_mut().filter(|(_, staged)| staged.changed.is_some()).collect();
        changed.sort_by_key(|(_, staged)| staged.changed);
        changed.into_iter().map(|(hash, staged)| (*hash, staged)).collect()
    }
}

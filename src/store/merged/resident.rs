//! Memory of a loaded document.
//!
//! Automerge loads the values of a document chunk as one block of bytes and cuts it where operations are inserted. The front of
//! a cut keeps the room of the block it was cut from, so that each operation may hold as many bytes as the whole block until the
//! document is copied: a copy has no room to spare. Owns when that is done, and how much memory a document is said to take.

use automerge::{Automerge, AutomergeError, Change, ReadDoc, Stats};
use serde_json::{Map, Value};

/// Spare room that one call may gather before the document is copied.
const SLACK_BYTES: usize = 4 << 20;
/// Operations after which changes are taken in: until then each takes half a kilobyte, afterwards a tenth of that.
const OPERATIONS_AT_ONCE: usize = 1 << 16;
/// With each copy the largest block left is taken to be smaller by one part in this many.
const DECAY_PARTS: usize = 16;
/// Blocks up to this are not cut but filled (hexane's own bound for a block of values).
const BLOCK_BYTES: usize = 4 << 10;

/// Memory of an empty document, of an operation beyond its value, of a change: measured with Automerge 0.12.
const BASE_BYTES: usize = 18 << 10;
const OPERATION_BYTES: usize = 14;
const CHANGE_BYTES: usize = 152;
/// Room of a node of a map's tree, its entries included, and how many entries it has on average.
const NODE_BYTES: usize = 640;
const NODE_ENTRIES: usize = 8;
/// What the allocator adds to a string.
const STRING_BYTES: usize = 16;

/// Room that a document's blocks hold beyond their bytes, at most.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slack {
    /// Bytes of the largest block, at most.
    block: usize,
    /// Bytes held in vain since the last copy, at most.
    spare: usize,
}

impl Slack {
    /// That of a document loaded from a chunk of so many bytes.
    pub(super) fn of_loaded(chunk_bytes: usize) -> Slack {
        Slack { block: chunk_bytes, spare: 0 }
    }

    /// Takes in changes, a few at a time.
    pub(super) fn apply(&mut self, document: &mut Automerge, changes: Vec<Change>) -> Result<(), AutomergeError> {
        let mut changes = changes.into_iter().peekable();
        while changes.peek().is_some() {
            let (mut spare, mut operations) = (self.spare, 0);
            let mut some = Vec::new();
            while spare < SLACK_BYTES
                && operations < OPERATIONS_AT_ONCE
                && let Some(change) = changes.next()
            {
                operations += change.len();
                spare = spare.saturating_add(self.block.saturating_mul(change.len()));
                some.push(change);
            }
            document.apply_changes(some)?;
            self.spare = spare;
            self.give_back(document, SLACK_BYTES);
        }
        self.give_back(document, self.block);
        Ok(())
    }

    /// The document gained operations, one by one.
    pub(super) fn grew(&mut self, document: &mut Automerge, operations: u64) {
        let operations = usize::try_from(operations).unwrap_or(usize::MAX);
        self.spare = self.spare.saturating_add(self.block.saturating_mul(operations));
        let stats = document.stats();
        self.give_back(document, SLACK_BYTES.max(of_document(&stats, self.block)));
    }

    /// Copies a document that may hold more than `limit` in vain.
    fn give_back(&mut self, document: &mut Automerge, limit: usize) {
        if self.block == 0 || self.spare < limit {
            return;
        }
        *document = document.clone();
        self.spare = 0;
        self.block -= self.block.div_ceil(DECAY_PARTS);
        if self.block <= BLOCK_BYTES {
            self.block = 0;
        }
    }
}

/// About how much memory an Automerge document takes whose chunks have this size.
pub(super) fn of_document(stats: &Stats, history_bytes: usize) -> usize {
    let times = |number: u64, bytes: usize| usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(bytes);
    let operations = times(stats.num_ops, OPERATION_BYTES);
    let changes = times(stats.num_changes, CHANGE_BYTES);
    [operations, changes, history_bytes].into_iter().fold(BASE_BYTES, usize::saturating_add)
}

/// About how much memory an object takes.
pub(super) fn of_object(object: &Map<String, Value>) -> usize {
    let fields = object.iter().map(|(key, value)| STRING_BYTES + key.len() + beyond(value));
    object.len().div_ceil(NODE_ENTRIES) * NODE_BYTES + fields.sum::<usize>()
}

/// Memory of a value beyond its place in an object or array.
fn beyond(value: &Value) -> usize {
    match value {
        Value::Object(object) => of_object(object),
        Value::Array(array) => array.iter().map(|value| size_of::<Value>() + beyond(value)).sum(),
        Value::String(text) => STRING_BYTES + text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

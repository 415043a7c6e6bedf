//! Memory of a loaded document.
//!
//! Automerge loads the values of a document chunk as one block of bytes, and splits it where operations are inserted. The
//! front part of a split keeps the capacity of the whole block, so that each operation may retain as many bytes as the block
//! had, until the document is copied: a copy has no spare capacity. Owns the time of that copy, and the estimate of a
//! document's memory.

use automerge::{Automerge, AutomergeError, Change, ReadDoc, Stats};
use serde_json::{Map, Value};

/// Spare capacity that one call may accumulate before the document is copied, in bytes.
const SLACK_BYTES: usize = 4 << 20;
/// Maximum number of operations applied at once. Until they are applied, each takes half a kilobyte, and afterwards a tenth of
/// that.
const OPERATIONS_AT_ONCE: usize = 1 << 16;
/// Divisor by which each copy lowers the estimate of the largest block.
const DECAY_PARTS: usize = 16;
/// Size up to which blocks are filled rather than split, in bytes (hexane's own limit for a block of values).
const BLOCK_BYTES: usize = 4 << 10;

/// Memory of an empty document, of an operation without its value, and of a change, in bytes: measured with Automerge 0.12.
const BASE_BYTES: usize = 18 << 10;
const OPERATION_BYTES: usize = 14;
const CHANGE_BYTES: usize = 152;
/// Memory of a node in a map's tree with its entries, in bytes, and the average number of entries.
const NODE_BYTES: usize = 640;
const NODE_ENTRIES: usize = 8;
/// Overhead of the allocator for a string, in bytes.
const STRING_BYTES: usize = 16;

/// Upper bounds of the capacity that a document's blocks hold beyond their bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slack {
    /// Upper bound of the largest block, in bytes.
    block: usize,
    /// Upper bound of the spare capacity since the last copy, in bytes.
    spare: usize,
}

impl Slack {
    /// Returns the slack of a document loaded from a chunk of this length.
    pub(super) fn of_loaded(chunk_bytes: usize) -> Slack {
        Slack { block: chunk_bytes, spare: 0 }
    }

    /// Applies changes in portions, and copies the document between them as needed.
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

    /// Accounts for operations that the document gained one by one.
    pub(super) fn grew(&mut self, document: &mut Automerge, operations: u64) {
        let operations = usize::try_from(operations).unwrap_or(usize::MAX);
        self.spare = self.spare.saturating_add(self.block.saturating_mul(operations));
        let stats = document.stats();
        self.give_back(document, SLACK_BYTES.max(of_document(&stats, self.block)));
    }

    /// Copies a document that may hold more than `limit` of spare capacity.
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

/// Returns the approximate memory of an Automerge document with chunks of this length, in bytes.
pub(super) fn of_document(stats: &Stats, history_bytes: usize) -> usize {
    let times = |number: u64, bytes: usize| usize::try_from(number).unwrap_or(usize::MAX).saturating_mul(bytes);
    let operations = times(stats.num_ops, OPERATION_BYTES);
    let changes = times(stats.num_changes, CHANGE_BYTES);
    [operations, changes, history_bytes].into_iter().fold(BASE_BYTES, usize::saturating_add)
}

/// Returns the approximate memory of an object, in bytes.
pub(super) fn of_object(object: &Map<String, Value>) -> usize {
    let fields = object.iter().map(|(key, value)| STRING_BYTES + key.len() + beyond(value));
    object.len().div_ceil(NODE_ENTRIES) * NODE_BYTES + fields.sum::<usize>()
}

/// Returns the memory of a value beyond its slot in an object or array, in bytes.
fn beyond(value: &Value) -> usize {
    match value {
        Value::Object(object) => of_object(object),
        Value::Array(array) => array.iter().map(|value| size_of::<Value>() + beyond(value)).sum(),
        Value::String(text) => STRING_BYTES + text.len(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

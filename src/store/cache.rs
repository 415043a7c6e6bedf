//! Loaded Automerge documents, the least recently used dropped first, bounded in bytes.
//!
//! A document is taken out to be changed and put back once the change is committed, so a failed commit leaves nothing of
//! itself behind.

use std::collections::BTreeMap;

use crate::store::KeyHash;
use crate::store::merged::Doc;

#[derive(Debug)]
struct Cached {
    doc: Doc,
    incarnation: u64,
    bytes: usize,
    used: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Cache {
    docs: BTreeMap<KeyHash, Cached>,
    /// By last use, oldest first.
    uses: BTreeMap<u64, KeyHash>,
    bytes: usize,
    limit_bytes: usize,
    clock: u64,
}

impl Cache {
    pub(super) fn new(limit_bytes: usize) -> Cache {
        Cache { docs: BTreeMap::new(), uses: BTreeMap::new(), bytes: 0, limit_bytes, clock: 0 }
    }

    /// The document if it is here and exactly at this version. One at another version is dropped.
    pub(super) fn take(&mut self, hash: KeyHash, incarnation: u64, heads: &[[u8; 32]]) -> Option<Doc> {
        let cached = self.docs.remove(&hash)?;
        self.uses.remove(&cached.used);
        self.bytes -= cached.bytes;
        (cached.incarnation == incarnation && cached.doc.heads() == heads).then_some(cached.doc)
    }

    pub(super) fn insert(&mut self, hash: KeyHash, incarnation: u64, doc: Doc) {
        let (bytes, used) = (doc.resident_bytes(), self.clock);
        self.clock += 1;
        if let Some(previous) = self.docs.insert(hash, Cached { doc, incarnation, bytes, used }) {
            self.uses.remove(&previous.used);
            self.bytes -= previous.bytes;
        }
        self.uses.insert(used, hash);
        self.bytes += bytes;
        self.shrink();
    }

    /// Documents, their bytes, and how many there may be.
    pub(super) fn size(&self) -> [usize; 3] {
        [self.docs.len(), self.bytes, self.limit_bytes]
    }

    pub(super) fn clear(&mut self) {
        *self = Cache::new(self.limit_bytes);
    }

    fn shrink(&mut self) {
        while self.bytes > self.limit_bytes {
            let Some((_, oldest)) = self.uses.pop_first() else { return };
            if let Some(dropped) = self.docs.remove(&oldest) {
                self.bytes -= dropped.bytes;
            }
        }
    }
}

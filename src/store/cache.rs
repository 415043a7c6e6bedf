//! Loaded Automerge documents: a least-recently-used cache, bounded in bytes.
//!
//! A document is taken out to be changed and put back after its commit, so a failed commit leaves no trace. One document
//! larger than half the bound, the last used, is kept in addition to the others: loading it again for each write would cost
//! more than its memory.

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

/// The cached documents, in order of last use; see the module documentation.
#[derive(Debug)]
pub(super) struct Cache {
    docs: BTreeMap<KeyHash, Cached>,
    /// Documents by last use, the oldest first; without the large one.
    uses: BTreeMap<u64, KeyHash>,
    /// Document larger than half the bound.
    large: Option<KeyHash>,
    /// Bytes of all documents but the large one.
    bytes: usize,
    limit_bytes: usize,
    clock: u64,
}

impl Cache {
    pub(super) fn new(limit_bytes: usize) -> Cache {
        Cache { docs: BTreeMap::new(), uses: BTreeMap::new(), large: None, bytes: 0, limit_bytes, clock: 0 }
    }

    /// Takes the document if it is cached at exactly this version. Another version is dropped.
    pub(super) fn take(&mut self, hash: KeyHash, incarnation: u64, heads: &[[u8; 32]]) -> Option<Doc> {
        let cached = self.remove(&hash)?;
        (cached.incarnation == incarnation && cached.doc.heads() == heads).then_some(cached.doc)
    }

    /// Caches a document with a history of `history_bytes`.
    pub(super) fn insert(&mut self, hash: KeyHash, incarnation: u64, doc: Doc, history_bytes: usize) {
        let bytes = doc.resident_bytes(history_bytes);
        self.keep(hash, Cached { doc, incarnation, bytes, used: 0 });
    }

    fn keep(&mut self, hash: KeyHash, cached: Cached) {
        self.remove(&hash);
        let (bytes, used) = (cached.bytes, self.clock);
        self.clock += 1;
        if bytes > self.limit_bytes / 2 {
            // Kept in addition to the others, in place of the previous large one.
            if let Some(previous) = self.large.replace(hash) {
                self.docs.remove(&previous);
            }
        } else {
            self.uses.insert(used, hash);
            self.bytes += bytes;
        }
        self.docs.insert(hash, Cached { used, ..cached });
        self.shrink();
    }

    /// Returns true if any version of the document is cached.
    pub(super) fn holds(&self, hash: &KeyHash) -> bool {
        self.docs.contains_key(hash)
    }

    /// Moves these documents to a new cache.
    pub(super) fn lend(&mut self, hashes: impl Iterator<Item = KeyHash>) -> Cache {
        let mut lent = Cache::new(usize::MAX);
        for hash in hashes {
            if let Some(cached) = self.remove(&hash) {
                lent.keep(hash, cached);
            }
        }
        lent
    }

    /// Returns the remaining documents of a lent cache.
    pub(super) fn take_back(&mut self, lent: Cache) {
        lent.docs.into_iter().for_each(|(hash, cached)| self.keep(hash, cached));
    }

    /// Returns the number of documents, their bytes, and the limit of bytes, which the large document does not count against.
    pub(super) fn size(&self) -> [usize; 3] {
        let large = self.large.and_then(|large| self.docs.get(&large)).map_or(0, |large| large.bytes);
        [self.docs.len(), self.bytes + large, self.limit_bytes]
    }

    pub(super) fn clear(&mut self) {
        *self = Cache::new(self.limit_bytes);
    }

    fn remove(&mut self, hash: &KeyHash) -> Option<Cached> {
        let cached = self.docs.remove(hash)?;
        if self.large == Some(*hash) {
            self.large = None;
        } else {
            self.uses.remove(&cached.used);
            self.bytes -= cached.bytes;
        }
        Some(cached)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns a document with a text of `bytes`, and the bytes of its history.
    fn doc(bytes: usize) -> (Doc, usize) {
        let mut doc = Doc::new([1; 16]);
        doc.put(None, json!({"text": "x".repeat(bytes)}).as_object().unwrap()).unwrap();
        let history_bytes = doc.save().len();
        (doc, history_bytes)
    }

    fn insert(cache: &mut Cache, name: u8, bytes: usize) {
        let (doc, history_bytes) = doc(bytes);
        cache.insert(KeyHash([name; 16]), 1, doc, history_bytes);
    }

    fn holds(cache: &Cache, name: u8) -> bool {
        cache.docs.contains_key(&KeyHash([name; 16]))
    }

    #[test]
    fn the_least_recently_used_go_first_and_the_bound_holds() {
        let mut cache = Cache::new(1 << 20);
        for name in 0..100 {
            insert(&mut cache, name, 50_000);
            assert!(cache.size()[1] <= 1 << 20);
        }
        assert!(holds(&cache, 99) && !holds(&cache, 0));
    }

    #[test]
    fn a_document_over_the_bound_stays_while_it_is_the_last_such_one() {
        let mut cache = Cache::new(1 << 20);
        insert(&mut cache, 1, 2 << 20);
        (2..50).for_each(|name| insert(&mut cache, name, 50_000));
        assert!(holds(&cache, 1), "small ones do not drop it");
        insert(&mut cache, 50, 3 << 20);
        assert!(holds(&cache, 50) && !holds(&cache, 1) && holds(&cache, 49));
        let heads = doc(3 << 20).0.heads();
        assert!(cache.take(KeyHash([50; 16]), 1, &heads).is_some());
        assert!(cache.size()[1] <= 1 << 20);
    }

    #[test]
    fn what_was_taken_and_grew_is_counted_once() {
        let mut cache = Cache::new(1 << 20);
        insert(&mut cache, 1, 10_000);
        insert(&mut cache, 1, 2 << 20);
        insert(&mut cache, 1, 10_000);
        assert_eq!((cache.size()[0], cache.bytes), (1, cache.docs[&KeyHash([1; 16])].bytes));
        assert_eq!(cache.large, None);
    }
}

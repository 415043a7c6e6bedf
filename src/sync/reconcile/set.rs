//! Sorted items of one side, indexed so that the fingerprint of any range of them costs a few hashes.
//!
//! Immutable once built, and cheap to clone, so that several exchanges share one.

use std::ops::Range;
use std::sync::Arc;

use super::wire::Span;
use crate::store::fingerprint::{Fingerprint, fingerprint, summand};
use crate::store::{KeyHash, VersionHash};

/// One record: its key and the version held.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Item {
    /// Key of the record; unique within a set.
    pub hash: KeyHash,
    /// Hash of its version; equal on two nodes exactly when their records are.
    pub version: VersionHash,
}

impl Item {
    pub(super) fn key(&self) -> u128 {
        u128::from_be_bytes(self.hash.0)
    }

    fn summand(&self) -> u128 {
        summand(&self.hash, &self.version)
    }
}

/// Number of items between two stored prefix sums. A fingerprint hashes up to this many items again at each of its ends.
const STRIDE: usize = 8;

/// Items of one side; 34 bytes each.
#[derive(Clone, Debug)]
pub struct Set(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Ascending by key.
    items: Box<[Item]>,
    /// `sums[n]` is the sum modulo 2^128 of the summands of the first `n * STRIDE` items.
    sums: Box<[u128]>,
}

impl Set {
    /// Sorts and indexes the items. Of several with one key, an arbitrary one is kept.
    #[must_use]
    pub fn build(mut items: Vec<Item>) -> Set {
        items.sort_unstable_by_key(|item| item.hash);
        items.dedup_by_key(|item| item.hash);
        let mut sums = Vec::with_capacity(items.len() / STRIDE + 1);
        let mut sum = 0u128;
        sums.push(sum);
        for block in items.chunks_exact(STRIDE) {
            sum = block.iter().fold(sum, |sum, item| sum.wrapping_add(item.summand()));
            sums.push(sum);
        }
        Set(Arc::new(Inner { items: items.into_boxed_slice(), sums: sums.into_boxed_slice() }))
    }

    /// Returns the number of items.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.items.len()
    }

    /// Returns true if there are no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.items.is_empty()
    }

    #[cfg(test)]
    pub(super) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.0.items) + size_of_val(&*self.0.sums)
    }

    pub(super) fn item(&self, index: usize) -> &Item {
        &self.0.items[index]
    }

    pub(super) fn items(&self, range: Range<usize>) -> &[Item] {
        &self.0.items[range]
    }

    /// Returns the indices of the items with keys in `span`.
    pub(super) fn within(&self, span: Span) -> Range<usize> {
        let start = self.0.items.partition_point(|item| item.key() < span.first);
        let length = self.0.items[start..].partition_point(|item| item.key() <= span.last);
        start..start + length
    }

    /// Returns the key with the most trailing zero bytes above item `index - 1` and not above item `index`: short to send.
    pub(super) fn bound_before(&self, index: usize) -> u128 {
        let (below, above) = (self.item(index - 1).key(), self.item(index).key());
        // Keeps the bytes up to the first one in which the keys differ, and clears the rest.
        let shared_bytes = (below ^ above).leading_zeros() / 8;
        above & !(u128::MAX.checked_shr(8 * (shared_bytes + 1)).unwrap_or(0))
    }

    pub(super) fn fingerprint(&self, range: Range<usize>) -> Fingerprint {
        let sum = self.prefix_sum(range.end).wrapping_sub(self.prefix_sum(range.start));
        fingerprint(range.len() as u64, sum)
    }

    fn prefix_sum(&self, end: usize) -> u128 {
        let block = end / STRIDE;
        let rest = &self.0.items[block * STRIDE..end];
        rest.iter().fold(self.0.sums[block], |sum, item| sum.wrapping_add(item.summand()))
    }
}

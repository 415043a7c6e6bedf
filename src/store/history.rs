//! Which commits added which Automerge chunks of one `merged` record.
//!
//! Owns when the chunks are folded into one. Never looks into them, and holds only those that no commit has written yet: the
//! others are rows of their own (docs/storage.md, "Chunks"), so that a put writes what it adds.

use crate::store::codec::{Bytes, put_varint};

/// The label of what a commit adds that has no sequence number yet.
const UNCOMMITTED: u64 = u64::MAX;
/// What was added is folded into one whole document when it outgrows the whole one that it was added to, and this.
const FOLD_BYTES: usize = 1024;
/// It is folded too when it takes more commits than this: a fold removes a row for each, and loading reads them.
const FOLD_PARTS: usize = 128;

/// Uncompressed chunks: a whole document, then the changes since, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    parts: Vec<Part>,
    /// The bytes of the part that is to be committed.
    added: Vec<u8>,
}

/// What one commit added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    /// The sequence number of the commit.
    pub label: u64,
    /// Bytes.
    pub length: usize,
}

impl Part {
    /// Whether a commit has written it.
    pub(super) fn is_committed(&self) -> bool {
        self.label != UNCOMMITTED
    }
}

impl History {
    /// A whole document, to be committed.
    pub(super) fn whole(bytes: Vec<u8>) -> History {
        History { parts: vec![Part { label: UNCOMMITTED, length: bytes.len() }], added: bytes }
    }

    /// Adds changes, to be committed. No changes add no part: a commit writes no chunk for it.
    pub(super) fn add(&mut self, changes: &[u8]) {
        if changes.is_empty() {
            return;
        }
        match self.parts.last_mut() {
            Some(last) if !last.is_committed() => last.length += changes.len(),
            _ => self.parts.push(Part { label: UNCOMMITTED, length: changes.len() }),
        }
        self.added.extend_from_slice(changes);
    }

    /// Whether one whole document would be better by now.
    pub(super) fn is_long(&self) -> bool {
        let whole = self.parts.first().map_or(0, |part| part.length);
        self.size() - whole > whole.max(FOLD_BYTES) || self.parts.len() > FOLD_PARTS
    }

    /// Gives what a commit adds its sequence number.
    pub(super) fn number(&mut self, sequence: u64) {
        self.parts.iter_mut().filter(|part| !part.is_committed()).for_each(|part| part.label = sequence);
    }

    /// What the commit adds; empty when all of it was written before.
    pub(super) fn added(&self) -> &[u8] {
        &self.added
    }

    /// Bytes of all parts.
    #[must_use]
    pub fn size(&self) -> usize {
        self.parts.iter().map(|part| part.length).sum()
    }

    /// All parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// What a node lacks that holds everything up to the commit `sequence`; all of it when that is not known to be less.
    #[must_use]
    pub fn after(&self, sequence: u64) -> &[Part] {
        let newer = self.parts.iter().position(|part| part.label > sequence);
        &self.parts[newer.unwrap_or(0)..]
    }

    /// The list of parts as a record holds it.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.parts.len() as u64);
        for part in &self.parts {
            put_varint(out, part.label);
            put_varint(out, part.length as u64);
        }
    }

    /// The inverse of [`History::encode`].
    pub(super) fn parse(rest: &mut Bytes) -> Option<History> {
        let count = usize::try_from(rest.varint()?).ok()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(Part { label: rest.varint()?, length: usize::try_from(rest.varint()?).ok()? });
        }
        parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.length))?;
        Some(History { parts, added: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(label: u64, length: usize) -> Part {
        Part { label, length }
    }

    #[test]
    fn who_holds_a_commit_lacks_what_later_ones_added() {
        let mut history = History::whole(vec![1; 40]);
        history.number(8);
        history.add(&[2; 5]);
        history.number(300);
        assert_eq!(history.parts(), [part(8, 40), part(300, 5)]);
        assert_eq!(history.after(8), [part(300, 5)]);
        assert_eq!(history.after(299), [part(300, 5)]);
        assert_eq!(history.after(7), history.parts());
        assert_eq!(history.after(300), history.parts());
    }

    #[test]
    fn what_one_commit_adds_is_one_part() {
        let mut history = History::whole(vec![1; 40]);
        history.add(&[2; 5]);
        assert_eq!((history.parts().len(), history.added().len(), history.size()), (1, 45, 45));
        history.number(8);
        assert_eq!(history.parts(), [part(8, 45)]);
    }

    #[test]
    fn a_commit_that_adds_no_changes_adds_no_part() {
        let mut history = History::whole(vec![1; 40]);
        history.number(8);
        history.add(&[]);
        assert_eq!((history.parts(), history.added().len()), (&[part(8, 40)][..], 40));
    }

    #[test]
    fn what_was_added_is_folded_once_it_outgrows_the_whole_and_a_kilobyte() {
        let mut short = History::whole(vec![0; 10]);
        short.number(1);
        short.add(&[0; 1024]);
        assert!(!short.is_long());
        short.add(&[0]);
        assert!(short.is_long());
        let mut long = History::whole(vec![0; 5000]);
        long.number(1);
        long.add(&[0; 5000]);
        assert!(!long.is_long());
        long.add(&[0]);
        assert!(long.is_long());
    }

    #[test]
    fn what_was_added_is_folded_after_so_many_commits() {
        let mut history = History::whole(vec![0; 5000]);
        for commit in 1..=128 {
            history.number(commit);
            assert!(!history.is_long());
            history.add(&[0]);
        }
        assert!(history.is_long());
    }
}

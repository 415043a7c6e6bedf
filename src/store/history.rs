//! The commits that added the Automerge chunks of one `merged` record.
//!
//! Owns the decision to fold the chunks into one. Never looks into them, and holds only those that no commit has written yet:
//! the others are separate rows (docs/storage.md, "Chunks"), so that a put writes only what it adds.

use crate::store::codec::{Bytes, put_varint};

/// Label of the part that the next commit writes, until it has a sequence number.
const UNCOMMITTED: u64 = u64::MAX;
/// Minimum size of the added parts before a fold, in bytes. They must also outgrow the whole document that they were added to.
const FOLD_BYTES: usize = 1024;
/// Number of parts above which they are folded in any case: a fold removes a row for each, and loading reads each.
const FOLD_PARTS: usize = 128;

/// Uncompressed chunks: a whole document, followed by the changes since, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    parts: Vec<Part>,
    /// Bytes of the part that the next commit writes.
    added: Vec<u8>,
}

/// The chunks that one commit added.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Part {
    /// Sequence number of the commit.
    pub label: u64,
    /// Length in bytes.
    pub length: usize,
}

impl Part {
    /// Returns true if a commit has written the part.
    pub(super) fn is_committed(&self) -> bool {
        self.label != UNCOMMITTED
    }
}

impl History {
    /// Returns the history of a whole document, to be committed.
    pub(super) fn whole(bytes: Vec<u8>) -> History {
        History { parts: vec![Part { label: UNCOMMITTED, length: bytes.len() }], added: bytes }
    }

    /// Adds changes, to be committed. Without changes there is no new part, because the commit would write no chunk for it.
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

    /// Returns true if the parts should be folded into one whole document.
    pub(super) fn is_long(&self) -> bool {
        let whole = self.parts.first().map_or(0, |part| part.length);
        self.size() - whole > whole.max(FOLD_BYTES) || self.parts.len() > FOLD_PARTS
    }

    /// Assigns the sequence number of the commit to the part that it adds.
    pub(super) fn number(&mut self, sequence: u64) {
        self.parts.iter_mut().filter(|part| !part.is_committed()).for_each(|part| part.label = sequence);
    }

    /// Returns the bytes that the commit adds; empty if all of them were written before.
    pub(super) fn added(&self) -> &[u8] {
        &self.added
    }

    /// Returns the length of all parts, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.parts.iter().map(|part| part.length).sum()
    }

    /// Returns all parts, in order.
    #[must_use]
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns the parts that a node lacks which holds everything up to the commit `sequence`, or all parts if that cannot be
    /// determined.
    #[must_use]
    pub fn after(&self, sequence: u64) -> &[Part] {
        let newer = self.parts.iter().position(|part| part.label > sequence);
        &self.parts[newer.unwrap_or(0)..]
    }

    /// Encodes the list of parts within a record.
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.parts.len() as u64);
        for part in &self.parts {
            put_varint(out, part.label);
            put_varint(out, part.length as u64);
        }
    }

    /// Parses the list of parts, the inverse of [`History::encode`].
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

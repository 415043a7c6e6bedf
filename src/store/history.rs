//! The Automerge chunks of one `merged` record, and which commit added which of them.
//!
//! Owns when they are folded into one. Never looks into the chunks.

use crate::store::codec::{Bytes, put_varint};

/// The label of what a commit adds that has no sequence number yet.
const UNCOMMITTED: u64 = u64::MAX;
/// What was added is folded into one whole document when it outgrows the whole one that it was added to, and this.
const FOLD_BYTES: usize = 1024;

/// Uncompressed chunks: a whole document, then the changes since, in order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct History {
    /// The sequence number of each commit and how many bytes it added.
    parts: Vec<(u64, usize)>,
    bytes: Vec<u8>,
}

impl History {
    /// A whole document, to be committed.
    pub(super) fn whole(bytes: Vec<u8>) -> History {
        History { parts: vec![(UNCOMMITTED, bytes.len())], bytes }
    }

    /// Adds changes, to be committed.
    pub(super) fn add(&mut self, changes: &[u8]) {
        self.parts.push((UNCOMMITTED, changes.len()));
        self.bytes.extend_from_slice(changes);
    }

    /// Whether one whole document would be shorter by now.
    pub(super) fn is_long(&self) -> bool {
        let whole = self.parts.first().map_or(0, |(_, length)| *length);
        self.bytes.len() - whole > whole.max(FOLD_BYTES)
    }

    /// Gives what a commit adds its sequence number.
    pub(super) fn number(&mut self, sequence: u64) {
        self.parts.iter_mut().filter(|(label, _)| *label == UNCOMMITTED).for_each(|(label, _)| *label = sequence);
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What a node lacks that holds everything up to the commit `sequence`; all of it when that is not known to be less.
    #[must_use]
    pub fn after(&self, sequence: u64) -> &[u8] {
        let Some(newer) = self.parts.iter().position(|(label, _)| *label > sequence) else { return &self.bytes };
        let held: usize = self.parts[..newer].iter().map(|(_, length)| length).sum();
        &self.bytes[held..]
    }

    /// The sequence number of each commit and how many bytes it added.
    #[must_use]
    pub fn parts(&self) -> &[(u64, usize)] {
        &self.parts
    }

    /// The list of parts as a record holds it; the chunks follow apart.
    pub(super) fn encode_parts(&self, out: &mut Vec<u8>) {
        put_varint(out, self.parts.len() as u64);
        for (label, length) in &self.parts {
            put_varint(out, *label);
            put_varint(out, *length as u64);
        }
    }
}

/// A history over borrowed bytes.
#[derive(Clone, Debug)]
pub(super) struct HistoryRef<'a> {
    parts: Vec<(u64, usize)>,
    pub(super) bytes: &'a [u8],
}

impl<'a> HistoryRef<'a> {
    /// The inverse of [`History::encode_parts`].
    pub(super) fn parse_parts(rest: &mut Bytes<'a>) -> Option<HistoryRef<'a>> {
        let count = usize::try_from(rest.varint()?).ok()?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push((rest.varint()?, usize::try_from(rest.varint()?).ok()?));
        }
        Some(HistoryRef { parts, bytes: &[] })
    }

    /// Takes the chunks, as many bytes as the parts say.
    pub(super) fn take_bytes(&mut self, rest: &mut Bytes<'a>) -> Option<()> {
        let mut lengths = self.parts.iter().map(|(_, length)| *length);
        self.bytes = rest.take(lengths.try_fold(0_usize, usize::checked_add)?)?;
        Some(())
    }

    /// A copy.
    pub(super) fn to_history(&self) -> History {
        History { parts: self.parts.clone(), bytes: self.bytes.to_vec() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_holds_a_commit_lacks_what_later_ones_added() {
        let mut history = History::whole(vec![1; 40]);
        history.number(8);
        history.add(&[2; 5]);
        history.number(300);
        assert_eq!(history.parts(), [(8, 40), (300, 5)]);
        assert_eq!(history.after(8), [2; 5]);
        assert_eq!(history.after(299), [2; 5]);
        assert_eq!(history.after(7).len(), 45);
        assert_eq!(history.after(300).len(), 45);
    }

    #[test]
    fn what_was_added_is_folded_once_it_outgrows_the_whole_and_a_kilobyte() {
        let mut short = History::whole(vec![0; 10]);
        short.add(&[0; 1024]);
        assert!(!short.is_long());
        short.add(&[0]);
        assert!(short.is_long());
        let mut long = History::whole(vec![0; 5000]);
        long.add(&[0; 5000]);
        assert!(!long.is_long());
        long.add(&[0]);
        assert!(long.is_long());
    }
}

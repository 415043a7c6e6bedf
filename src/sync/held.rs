//! Documents that do not cross a link, and links that have stalled, with the reasons: for the log, `health`, metrics and the
//! list of peers.
//!
//! Owns one entry for each document, peer and direction, in memory only. An entry ends once the peer has the document, or this
//! node has the peer's version. Never decides to hold a document back.

use std::collections::BTreeMap;

use crate::identity::EndpointId;
use crate::limits::{HELD_BACK, NAMED_HELD_BACK};
use crate::store::KeyHash;
use crate::sync::session::Awaited;

/// Direction in which a document does not cross.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Direction {
    /// To the peer.
    Out,
    /// From the peer.
    In,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct HeldBackDocument {
    /// Notice that names the document, the peer, the limit and the remedy.
    sentence: String,
    /// Incarnation of the document: limits apply to each incarnation separately.
    incarnation: u64,
}

/// Table of held documents and stalled links; see the module documentation.
#[derive(Debug, Default)]
pub(crate) struct HeldBack {
    entries: BTreeMap<(EndpointId, KeyHash, Direction), HeldBackDocument>,
    /// Connected peers with a stalled link, and the answer that each link waits for.
    stalled: BTreeMap<EndpointId, Awaited>,
    /// Number of notes dropped because the table was full.
    unlisted: u64,
    changed: bool,
}

impl HeldBack {
    /// Adds an entry, or replaces the reason of an existing one.
    pub(crate) fn note(&mut self, peer: EndpointId, hash: KeyHash, way: Direction, incarnation: u64, sentence: String) {
        let (key, entry) = ((peer, hash, way), HeldBackDocument { sentence, incarnation });
        if self.entries.len() >= HELD_BACK && !self.entries.contains_key(&key) {
            self.changed |= self.unlisted == 0;
            self.unlisted += 1;
            return;
        }
        let before = self.entries.insert(key, entry);
        self.changed |=
            before.as_ref().map(|entry| &entry.sentence) != self.entries.get(&key).map(|entry| &entry.sentence);
    }

    /// Returns the incarnation of a document that does not cross.
    pub(crate) fn incarnation(&self, peer: EndpointId, hash: KeyHash, way: Direction) -> Option<u64> {
        self.entries.get(&(peer, hash, way)).map(|entry| entry.incarnation)
    }

    /// Removes an entry: the document crosses again.
    pub(crate) fn release(&mut self, peer: EndpointId, hash: KeyHash, way: Direction) {
        self.changed |= self.entries.remove(&(peer, hash, way)).is_some();
        if self.entries.is_empty() {
            self.unlisted = 0;
        }
    }

    /// Removes all entries of a peer that this node no longer links with.
    pub(crate) fn forget(&mut self, peer: EndpointId) {
        let before = self.entries.len();
        self.entries.retain(|(of, ..), _| *of != peer);
        self.changed |= self.entries.len() != before;
    }

    /// Replaces the set of stalled links.
    pub(crate) fn set_stalled(&mut self, stalled: BTreeMap<EndpointId, Awaited>) {
        self.changed |= self.stalled != stalled;
        self.stalled = stalled;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns the number of documents that do not go to this peer, and of those that do not come from it.
    pub(crate) fn counts(&self, peer: EndpointId) -> [u64; 2] {
        self.of_peer(peer).fold([0, 0], |[out, inward], (_, way)| match way {
            Direction::Out => [out + 1, inward],
            Direction::In => [out, inward + 1],
        })
    }

    /// Returns the documents that do not cross the link with this peer.
    pub(crate) fn of_peer(&self, peer: EndpointId) -> impl Iterator<Item = (KeyHash, Direction)> + '_ {
        let first = (peer, KeyHash([0; 16]), Direction::Out);
        let of_peer = self.entries.range(first..).take_while(move |((of, ..), _)| *of == peer);
        of_peer.map(|((_, hash, way), _)| (*hash, *way))
    }

    /// Returns the notices if they have changed since the last call: those of links first, then at most [`NAMED_HELD_BACK`] of
    /// documents, and one that counts the others.
    pub(crate) fn take_notices(&mut self) -> Option<Vec<String>> {
        if !std::mem::take(&mut self.changed) {
            return None;
        }
        let stalled = self.stalled.iter().map(|(peer, awaited)| {
            format!("{peer}: nothing moves: {awaited} has not come for a minute or more; see the health and the log of that peer")
        });
        let named = self.entries.values().take(NAMED_HELD_BACK).map(|entry| entry.sentence.clone());
        let others = self.entries.len().saturating_sub(NAMED_HELD_BACK) as u64 + self.unlisted;
        let mut notices: Vec<String> = stalled.chain(named).collect();
        if others > 0 {
            notices.push(format!("{others} more documents are held back; the log names them"));
        }
        Some(notices)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u8) -> EndpointId {
        EndpointId([number; 32])
    }

    fn hash(number: u16) -> KeyHash {
        let mut hash = [0; 16];
        hash[..2].copy_from_slice(&number.to_be_bytes());
        KeyHash(hash)
    }

    #[test]
    fn what_crosses_again_is_not_named_any_more() {
        let mut held = HeldBack::default();
        assert_eq!(held.take_notices(), None);
        held.note(peer(1), hash(1), Direction::Out, 1, "one".into());
        held.note(peer(2), hash(1), Direction::In, 1, "two".into());
        assert_eq!(held.take_notices(), Some(vec!["one".to_owned(), "two".to_owned()]));
        held.note(peer(1), hash(1), Direction::Out, 1, "one".into());
        assert_eq!(held.take_notices(), None, "nothing is new");
        assert_eq!((held.counts(peer(1)), held.counts(peer(2))), ([1, 0], [0, 1]));
        held.release(peer(1), hash(1), Direction::In);
        assert_eq!(held.take_notices(), None, "the other direction");
        held.release(peer(1), hash(1), Direction::Out);
        assert_eq!(held.take_notices(), Some(vec!["two".to_owned()]));
        held.forget(peer(2));
        assert!(held.is_empty());
        assert_eq!(held.take_notices(), Some(Vec::new()));
    }

    #[test]
    fn a_link_on_which_nothing_moves_is_named_until_it_moves() {
        let mut held = HeldBack::default();
        held.set_stalled(BTreeMap::new());
        assert_eq!(held.take_notices(), None);
        held.set_stalled(BTreeMap::from([(peer(1), Awaited::Answer)]));
        let notices = held.take_notices().unwrap();
        assert!(notices[0].contains("the answer to a document offered on the merged lane has not come"), "{notices:?}");
        held.set_stalled(BTreeMap::from([(peer(1), Awaited::Answer)]));
        assert_eq!(held.take_notices(), None, "nothing is new");
        held.set_stalled(BTreeMap::new());
        assert_eq!(held.take_notices(), Some(Vec::new()));
    }

    #[test]
    fn the_table_is_bounded_and_says_how_many_are_not_named() {
        let mut held = HeldBack::default();
        for number in 0..u16::try_from(HELD_BACK).unwrap() + 7 {
            held.note(peer(1), hash(number), Direction::Out, 1, number.to_string());
        }
        let notices = held.take_notices().unwrap();
        assert_eq!(notices.len(), NAMED_HELD_BACK + 1);
        let others = HELD_BACK + 7 - NAMED_HELD_BACK;
        assert!(notices.last().unwrap().starts_with(&format!("{others} more")), "{notices:?}");
    }
}

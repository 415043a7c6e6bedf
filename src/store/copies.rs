//! Detects two machines that write under the same identity: a data directory was copied, and both copies run.
//!
//! Each start of a node is a new run, and no earlier run writes again. In the versions of one `latest` document, the run of a
//! node therefore changes once for each start. Two copies that receive each other's versions change it back and forth: each
//! finds a version under its own identity in a run it does not know, takes it for a forgotten past, and overwrites it, for
//! ever.
//!
//! A node that lost its disk causes a few such changes too, because peers may hold several versions of the forgotten past.
//! Changes back therefore count from a number that such a past does not reach in one document. Must never hold more than
//! [`DOCUMENTS`] entries.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::{KeyHash, RunId, Stamp};

/// Number of changes back after which two machines are reported.
const REPORTED: u32 = 4;
/// Number of changes back after which a node no longer overwrites what the other run wrote.
const STOPPED: u32 = 8;
/// Maximum number of watched documents. Further ones are not watched until there is room.
const DOCUMENTS: usize = 1_024;
/// Time after which a document that has not changed back is no longer watched.
const FORGET: Duration = Duration::from_secs(600);
/// Maximum number of remembered runs of other machines under this node's identity.
const RUNS: usize = 16;

/// Changes of run in the versions of one document.
#[derive(Debug)]
struct Alternations {
    /// Run that was replaced last, and the run that replaced it.
    last: (RunId, RunId),
    back: u32,
    at: Instant,
}

/// The watched documents, and the runs and nodes found; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Copies {
    documents: BTreeMap<KeyHash, Alternations>,
    /// Runs under this node's identity that other machines write in.
    others: VecDeque<RunId>,
    found: BTreeSet<EndpointId>,
}

impl Copies {
    /// Records that a version of `hash` replaces another one.
    pub(super) fn note(&mut self, now: Now, hash: KeyHash, before: &Stamp, after: &Stamp) {
        if before.node != after.node || before.run == after.run || !self.has_room(now, &hash) {
            return;
        }
        let turn = (before.run, after.run);
        let turns = match self.documents.entry(hash) {
            Entry::Vacant(vacant) => vacant.insert(Alternations { last: turn, back: 0, at: now.mono }),
            Entry::Occupied(occupied) => {
                let turns = occupied.into_mut();
                // Only a change back to the run before counts; a third run is a restart.
                turns.back = match turns.last {
                    _ if now.reached(turns.at + FORGET) => 0,
                    last if last == (after.run, before.run) => turns.back + 1,
                    last if last == turn => turns.back,
                    _ => 0,
                };
                (turns.last, turns.at) = (turn, now.mono);
                turns
            }
        };
        if turns.back >= REPORTED {
            self.found.insert(after.node);
        }
    }

    /// Returns true if `run`, which this node overwrote in `hash`, keeps writing, so that it belongs to another machine.
    pub(super) fn goes_on(&mut self, hash: &KeyHash, run: RunId) -> bool {
        if self.others.contains(&run) {
            return true;
        }
        let turns = self.documents.get(hash).filter(|turns| turns.last.0 == run || turns.last.1 == run);
        let goes_on = turns.is_some_and(|turns| turns.back >= STOPPED);
        if goes_on {
            self.others.truncate(RUNS - 1);
            self.others.push_front(run);
        }
        goes_on
    }

    /// Takes the nodes found since the last call.
    pub(super) fn take_found(&mut self) -> Vec<EndpointId> {
        std::mem::take(&mut self.found).into_iter().collect()
    }

    fn has_room(&mut self, now: Now, hash: &KeyHash) -> bool {
        if self.documents.len() < DOCUMENTS || self.documents.contains_key(hash) {
            return true;
        }
        self.documents.retain(|_, turns| !now.reached(turns.at + FORGET));
        self.documents.len() < DOCUMENTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: KeyHash = KeyHash([1; 16]);

    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn start() -> Now {
        Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
    }

    fn stamp(node: u8, run: u8) -> Stamp {
        Stamp { counter: 1, node: EndpointId([node; 32]), run: RunId([run; 16]) }
    }

    #[test]
    fn restarts_are_no_copies() {
        let (mut copies, now) = (Copies::default(), start());
        for run in 0..100 {
            copies.note(now, HASH, &stamp(1, run), &stamp(1, run + 1));
        }
        assert_eq!(copies.take_found(), []);
    }

    #[test]
    fn two_nodes_that_write_one_document_in_turn_are_no_copies() {
        let (mut copies, now) = (Copies::default(), start());
        for _ in 0..100 {
            copies.note(now, HASH, &stamp(1, 1), &stamp(2, 2));
            copies.note(now, HASH, &stamp(2, 2), &stamp(1, 1));
        }
        assert_eq!(copies.take_found(), []);
    }

    #[test]
    fn runs_that_go_back_and_forth_are_reported_and_then_left_alone() {
        let (mut copies, now) = (Copies::default(), start());
        let mut rounds = 0;
        while !copies.goes_on(&HASH, RunId([2; 16])) {
            copies.note(now, HASH, &stamp(1, 1), &stamp(1, 2));
            copies.note(now, HASH, &stamp(1, 2), &stamp(1, 1));
            rounds += 1;
        }
        assert!((3..=8).contains(&rounds), "{rounds}");
        assert_eq!(copies.take_found(), [EndpointId([1; 32])]);
        assert!(copies.goes_on(&KeyHash([2; 16]), RunId([2; 16])), "known for every document");
    }

    #[test]
    fn what_is_watched_is_bounded_and_forgotten() {
        let (mut copies, now) = (Copies::default(), start());
        let hash = |number: usize| {
            let mut hash = [0; 16];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            KeyHash(hash)
        };
        for number in 0..2 * DOCUMENTS {
            copies.note(now, hash(number), &stamp(1, 1), &stamp(1, 2));
        }
        assert_eq!(copies.documents.len(), DOCUMENTS);
        let later = Now { mono: now.after(FORGET), ..now };
        copies.note(later, HASH, &stamp(1, 1), &stamp(1, 2));
        assert_eq!(copies.documents.len(), 1);
    }
}

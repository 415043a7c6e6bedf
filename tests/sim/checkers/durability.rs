//! What was acknowledged as durable survives any crash; what was not may be lost, but never turns into something else.
//!
//! One ledger per database. It is told each state of each document as soon as a reader shows it, and what the store claims
//! to be on disk; after a crash it compares.

use std::collections::BTreeMap;

use peat_node::store::{Error, Key, Snapshot, Tip};

use crate::seeds::Violation;

/// One state of one document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// The commit that wrote it; 0 when there never was a record.
    pub sequence: u64,
    pub incarnation: u64,
    /// Absent for a tombstone.
    pub json: Option<String>,
}

#[derive(Debug, Default)]
struct History {
    /// Oldest first; the first is the one known to be durable, if any is.
    states: Vec<State>,
    /// States up to this sequence number were claimed to be on disk.
    durable: u64,
    /// A state was on disk that nobody saw, before what is there now was written over it.
    unsure: bool,
}

/// The ledger of one database.
#[derive(Debug, Default)]
pub struct Ledger {
    documents: BTreeMap<Key, History>,
    /// Requests were being worked on that nobody was answered for.
    unanswered: bool,
    /// The database was opened and nobody could look at it yet.
    reopened: bool,
    /// Nothing is known of what is there.
    blank: bool,
    /// Something happened that could not be looked at.
    missed: bool,
}

/// Documents as a snapshot shows them.
pub type States = Vec<(Key, State)>;

/// The states of all documents in a snapshot.
pub fn states(snapshot: &Snapshot, keys: &[Key]) -> Result<States, Error> {
    keys.iter().map(|key| Ok((key.clone(), state(snapshot, key)?))).collect()
}

fn state(snapshot: &Snapshot, key: &Key) -> Result<State, Error> {
    let absent = State { sequence: 0, incarnation: 0, json: None };
    let Some(record) = snapshot.record(&key.hash())? else { return Ok(absent) };
    let json = snapshot.document(key)?.map(|document| document.json);
    Ok(State { sequence: record.sequence, incarnation: record.incarnation, json })
}

fn violation(key: &Key, what: &str, actual: &State, history: &History) -> Violation {
    let History { states, durable, .. } = history;
    Violation::new("durability", format!("{key} {what}: it is {actual:?}; durable up to {durable}; known {states:?}"))
}

impl Ledger {
    /// The database was opened after a crash, or reopened after an error, which may lose as much.
    pub fn reopened(&mut self) {
        self.reopened = true;
    }

    /// Another database is in its place.
    pub fn replaced(&mut self) {
        *self = Ledger { blank: true, reopened: true, ..Ledger::default() };
    }

    /// Requests are being worked on: until [`Ledger::answered`], states nobody saw may appear.
    pub fn working(&mut self) {
        self.unanswered = true;
    }

    /// Every request has been answered.
    pub fn answered(&mut self) {
        self.unanswered = self.reopened;
    }

    /// The store answered that this write is on disk.
    pub fn acknowledged(&mut self, key: &Key, sequence: u64) {
        if !self.reopened {
            self.documents.entry(key.clone()).or_default().claim(sequence);
        }
    }

    /// Readers could show nothing, though something may have changed.
    pub fn missed(&mut self) {
        self.missed = true;
    }

    /// Readers show `states`, and everything up to `tip.durable` is claimed to be on disk.
    pub fn observe(&mut self, states: States, tip: Tip) -> Result<(), Violation> {
        let (reopened, blank) = (std::mem::take(&mut self.reopened), std::mem::take(&mut self.blank));
        for (key, actual) in states {
            let history = self.documents.entry(key.clone()).or_default();
            match (blank, reopened) {
                (true, _) => history.rebase(actual, tip.durable),
                (false, true) => {
                    // What was committed since the reopening is news.
                    let news = actual.sequence > tip.durable;
                    history.judge(&key, &actual, news || self.unanswered || self.missed)?;
                    history.rebase(actual, tip.durable);
                }
                (false, false) => history.follow(&key, actual)?,
            }
            history.claim(tip.durable);
        }
        self.unanswered &= !reopened;
        self.missed = false;
        Ok(())
    }
}

impl History {
    /// Starts over from what is there after a crash: it is on disk, unless it was written since.
    fn rebase(&mut self, actual: State, durable: u64) {
        self.unsure = actual.sequence > durable;
        self.durable = actual.sequence.min(durable);
        if self.unsure {
            self.states.retain(|state| state.sequence <= durable);
        } else {
            self.states.clear();
        }
        self.states.push(actual);
    }

    /// Without a crash, a document only moves on.
    fn follow(&mut self, key: &Key, actual: State) -> Result<(), Violation> {
        let Some(last) = self.states.last().filter(|last| **last != actual) else {
            if self.states.is_empty() {
                self.states.push(actual);
            }
            return Ok(());
        };
        if actual.sequence <= last.sequence {
            return Err(violation(key, "changed without a new sequence number or a crash", &actual, self));
        }
        self.states.push(actual);
        Ok(())
    }

    fn claim(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        let superseded = self.states.iter().skip(1).take_while(|state| state.sequence <= self.durable).count();
        self.states.drain(..superseded);
        self.unsure &= self.states.last().is_some_and(|state| state.sequence > self.durable);
    }

    fn judge(&self, key: &Key, actual: &State, unanswered: bool) -> Result<(), Violation> {
        let floor =
            self.states.first().filter(|state| state.sequence <= self.durable).map_or(0, |state| state.sequence);
        let newest = self.states.last().map_or(0, |state| state.sequence);
        if actual.sequence < floor {
            return Err(violation(key, "lost an acknowledged durable state", actual, self));
        }
        if actual.sequence == floor && floor > 0 && self.states.first() != Some(actual) {
            return Err(violation(key, "is another at the same place", actual, self));
        }
        let unanswered = unanswered || self.unsure;
        if actual.sequence > newest {
            return if unanswered { Ok(()) } else { Err(violation(key, "has a state nobody wrote", actual, self)) };
        }
        if actual.sequence > 0 && !unanswered && !self.states.contains(actual) {
            return Err(violation(key, "has a state nobody wrote", actual, self));
        }
        Ok(())
    }
}

//! Durability: a write acknowledged as durable survives any crash; any other may be lost but never turns into something else.
//!
//! One ledger per database. It records each state of each document as soon as a reader shows it, and the sequence number up to
//! which the store claims durability; after a crash it compares.

use std::collections::BTreeMap;

use peat_node::store::{Error, Key, Snapshot, Tip};

use crate::seeds::Violation;

/// One state of one document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct State {
    /// Sequence number of the commit that wrote it; 0 if there was never a record.
    pub sequence: u64,
    pub incarnation: u64,
    /// `None` for a tombstone.
    pub json: Option<String>,
}

#[derive(Debug, Default)]
struct History {
    /// Known states, oldest first. The first is the one known to be durable, if there is one.
    states: Vec<State>,
    /// Sequence number up to which states were claimed to be durable.
    durable: u64,
    /// True if a state may have reached the disk unobserved before the current one replaced it.
    unsure: bool,
}

/// Observed and acknowledged states of one database.
#[derive(Debug, Default)]
pub struct Ledger {
    documents: BTreeMap<Key, History>,
    /// True while requests are in progress that have not been answered.
    unanswered: bool,
    /// True if the database was opened and has not been observed since.
    reopened: bool,
    /// True if the content is unknown, after the database was replaced.
    blank: bool,
    /// True if something happened that readers could not observe.
    missed: bool,
}

/// The states of documents in a snapshot.
pub type States = Vec<(Key, State)>;

/// Reads the states of all documents in a snapshot.
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
    /// Notes that the database was opened after a crash, or reopened after an error, which may lose as much.
    pub fn reopened(&mut self) {
        self.reopened = true;
    }

    /// Notes that a different database has taken its place.
    pub fn replaced(&mut self) {
        *self = Ledger { blank: true, reopened: true, ..Ledger::default() };
    }

    /// Notes that requests are in progress: until [`Ledger::answered`], unobserved states may appear.
    pub fn working(&mut self) {
        self.unanswered = true;
    }

    /// Notes that every request has been answered.
    pub fn answered(&mut self) {
        self.unanswered = self.reopened;
    }

    /// Notes that the store acknowledged this write as durable.
    pub fn acknowledged(&mut self, key: &Key, sequence: u64) {
        if !self.reopened {
            self.documents.entry(key.clone()).or_default().claim(sequence);
        }
    }

    /// Notes that readers failed although something may have changed.
    pub fn missed(&mut self) {
        self.missed = true;
    }

    /// Checks the `states` that readers show, with everything up to `tip.durable` claimed to be durable.
    pub fn observe(&mut self, states: States, tip: Tip) -> Result<(), Violation> {
        let (reopened, blank) = (std::mem::take(&mut self.reopened), std::mem::take(&mut self.blank));
        for (key, actual) in states {
            let history = self.documents.entry(key.clone()).or_default();
            match (blank, reopened) {
                (true, _) => history.rebase(actual, tip.durable),
                (false, true) => {
                    // Commits since the reopening are allowed to be unknown.
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
    /// Restarts the history from the state after a crash: it is durable, unless it was written since.
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

    /// Checks that without a crash a document only advances.
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
        // The newest durable state becomes the first; older ones can no longer reappear.
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

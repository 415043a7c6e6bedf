//! The change feed: the changes a follower has seen, plus those it receives after resuming, equal the store's content.

use std::collections::BTreeMap;

use peat_node::store::{Error, Key, Kind, RunId, Snapshot, Token};

use crate::seeds::Violation;

/// A follower that reads the index as a subscription does, a few changes at a time.
#[derive(Clone, Debug, Default)]
pub struct Follower {
    token: Option<Token>,
    documents: BTreeMap<Key, String>,
}

impl Follower {
    /// Takes at most `most` changes from `snapshot`, which was taken in `run`. Once caught up, its state must equal the
    /// snapshot.
    pub fn follow(&mut self, snapshot: &Snapshot, run: RunId, keys: &[Key], most: usize) -> Result<(), Violation> {
        let broken = |error: Error| Violation::new("feed", error.to_string());
        let complete = match self.resumable(snapshot).map_err(broken)? {
            Some(after) => self.changes(snapshot, run, after, most).map_err(broken)?,
            None => self.start_over(snapshot, keys).map(|()| true).map_err(broken)?,
        };
        if complete {
            self.token = Some(snapshot.token(run, snapshot.visible()));
            self.compare(snapshot, keys)?;
        }
        Ok(())
    }

    fn resumable(&self, snapshot: &Snapshot) -> Result<Option<u64>, Error> {
        let Some(token) = self.token else { return Ok(None) };
        let known = snapshot.knows(&token)? && token.sequence >= snapshot.deleted_floor();
        Ok(known.then_some(token.sequence))
    }

    /// Takes changes after a sequence number; returns true once caught up.
    fn changes(&mut self, snapshot: &Snapshot, run: RunId, after: u64, most: usize) -> Result<bool, Error> {
        let mut entries = Vec::new();
        for kind in Kind::ALL {
            entries.extend(snapshot.entries(kind, after)?.collect::<Result<Vec<_>, _>>()?);
        }
        entries.sort_by_key(|entry| entry.sequence);
        for entry in entries.iter().take(most) {
            match snapshot.record(&entry.hash)?.and_then(|record| record.name) {
                Some(name) => self.upsert(snapshot, name)?,
                None => drop(snapshot.deleted_name(entry.sequence)?.map(|name| self.documents.remove(&name))),
            }
            self.token = Some(snapshot.token(run, entry.sequence));
        }
        Ok(entries.len() <= most)
    }

    fn upsert(&mut self, snapshot: &Snapshot, key: Key) -> Result<(), Error> {
        if let Some(document) = snapshot.document(&key)? {
            self.documents.insert(key, document.json);
        }
        Ok(())
    }

    fn start_over(&mut self, snapshot: &Snapshot, keys: &[Key]) -> Result<(), Error> {
        self.documents.clear();
        keys.iter().try_for_each(|key| self.upsert(snapshot, key.clone()))
    }

    fn compare(&self, snapshot: &Snapshot, keys: &[Key]) -> Result<(), Violation> {
        for key in keys {
            let there = snapshot.document(key).map_err(|error| Violation::new("feed", error.to_string()))?;
            let (there, seen) = (there.map(|document| document.json), self.documents.get(key));
            if there.as_ref() != seen {
                let token = self.token;
                return Err(Violation::new("feed", format!("{key}: seen {seen:?}, there is {there:?}, at {token:?}")));
            }
        }
        Ok(())
    }
}

//! Documents that the peer cannot take, and documents withheld from it.

use super::{LACKING, Outbox, Owed};
use crate::limits::EXCEPTIONS;
use crate::store::{KeyHash, Record};

impl Outbox {
    /// Records that the peer cannot take a document it was offered or sent. `held` returns the sequence number and incarnation
    /// stored here now. Returns true if this is new: each version in flight is refused once.
    ///
    /// # Errors
    /// The peer was neither offered nor sent the document.
    pub(crate) fn decline(
        &mut self,
        hash: KeyHash,
        held: impl FnOnce() -> Option<(u64, u64)>,
    ) -> Result<bool, &'static str> {
        if let Some(exception) = self.exceptions.get_mut(&hash)
            && let Owed::Offered { passed, incarnation } = exception.owed
        {
            self.answers += 1;
            if passed {
                exception.owed = Owed::Newer(0);
                self.due[exception.kind].push_back(hash);
            } else {
                self.exceptions.remove(&hash);
            }
            self.note_declined(hash, incarnation);
            return Ok(true);
        }
        let on_way = self.on_way.get_mut(&hash).ok_or("refuses a document it was not sent")?;
        if on_way.refused >= on_way.versions.len() {
            return Ok(false);
        }
        on_way.refused += 1;
        let newest = on_way.newest();
        if let Some((sequence, incarnation)) = held()
            && Some(sequence) == newest
        {
            self.note_declined(hash, incarnation);
        }
        Ok(true)
    }

    fn note_declined(&mut self, hash: KeyHash, incarnation: u64) {
        if self.declined.len() < LACKING || self.declined.contains_key(&hash) {
            self.declined.insert(hash, incarnation);
        }
        if self.lacking.len() < LACKING {
            self.lacking.insert(hash);
        }
    }

    /// Records that the peer sent its own version: it may be able to take the document now.
    pub(crate) fn heard_of(&mut self, hash: &KeyHash) {
        self.declined.remove(hash);
    }

    /// Notes that a version was passed over because the peer cannot take it.
    pub(super) fn withhold(&mut self, record: &Record, hash: KeyHash, reason: String) {
        self.note_declined(hash, record.incarnation);
        if self.withheld.len() < EXCEPTIONS {
            self.withheld.push((hash, reason));
        }
    }

    /// Returns the documents withheld since the last call, each with the reason.
    pub(crate) fn take_withheld(&mut self) -> Vec<(KeyHash, String)> {
        std::mem::take(&mut self.withheld)
    }
}

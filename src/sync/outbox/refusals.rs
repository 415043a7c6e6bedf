//! Documents that the peer cannot take, or that are not sent to it.

use super::{LACKING, Outbox, Owed};
use crate::limits::EXCEPTIONS;
use crate::store::{KeyHash, Record};

impl Outbox {
    /// The peer cannot take what it was offered, or was sent, of a document. `held`: sequence number and incarnation of what is held
    /// here now. Whether this is news: each version on its way is refused once.
    ///
    /// # Errors
    /// It was offered and sent nothing of it.
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

    /// The peer sent a version of its own, so what it could not take before it may take now.
    pub(crate) fn heard_of(&mut self, hash: &KeyHash) {
        self.declined.remove(hash);
    }

    /// Passes over a version that the peer cannot have.
    pub(super) fn withhold(&mut self, record: &Record, hash: KeyHash, reason: String) {
        self.note_declined(hash, record.incarnation);
        if self.withheld.len() < EXCEPTIONS {
            self.withheld.push((hash, reason));
        }
    }

    /// Documents that were not sent since the last call, with the reason.
    pub(crate) fn take_withheld(&mut self) -> Vec<(KeyHash, String)> {
        std::mem::take(&mut self.withheld)
    }
}

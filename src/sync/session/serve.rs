//! Filling the lanes: acknowledgements and requests first, then the documents a peer lacks.

use super::{Outbox, Report, Session, SessionError};
use crate::clock::Now;
use crate::store::{self, KeyHash, Snapshot};
use crate::sync::inbox::Inbox;
use crate::sync::link::Lane;
use crate::sync::mesh::{self, message::Body};

/// Delay of a batch that only moves cursors past skipped versions, so that another batch can carry them.
const MOVE_DELAY: std::time::Duration = std::time::Duration::from_secs(5);
/// Maximum number of keys in one message.
const REFUSED_A_MESSAGE: usize = 1_024;
/// Maximum number of documents requested while earlier requests wait to be sent.
const WANTS_A_TURN: usize = 256;
/// Maximum number of batches per lane in one call, before other sessions are run.
const BATCHES_A_TURN: usize = 8;

impl Session {
    /// Fills every lane that has room with the documents the peer lacks, acknowledgements first. Returns true if more could
    /// follow at once.
    ///
    /// # Errors
    /// The store could not be read.
    pub(crate) fn fill(
        &mut self,
        now: Now,
        durable: u64,
        urgent: bool,
        snapshot: &Snapshot,
        mut write: impl FnMut(Lane, &[u8]) -> usize,
    ) -> Result<bool, SessionError> {
        self.flush(&mut write);
        if !self.is_live() {
            return Ok(false);
        }
        self.answer(durable, snapshot).map_err(|error| SessionError::store(&error))?;
        let mut more = self.gather().map_err(|error| SessionError::store(&error))?;
        self.continue_comparison()?;
        more |= self.fill_lanes(now, snapshot, urgent, &mut write).map_err(|error| SessionError::store(&error))?;
        self.move_cursors(now, urgent);
        let withheld = self.outbox.as_mut().map(Outbox::take_withheld).unwrap_or_default();
        self.reports.extend(withheld.into_iter().map(|(hash, reason)| Report::Withheld(hash, reason)));
        self.flush(&mut write);
        self.look(now);
        Ok(more || (self.is_clear(Lane::Control) && self.inbox.as_ref().is_some_and(Inbox::has_unasked)))
    }

    /// Sends the results of what the peer sent: refusals, then requests, and only then acknowledgements. None of it waits for
    /// the peer.
    fn answer(&mut self, durable: u64, snapshot: &Snapshot) -> Result<(), store::Error> {
        if !self.is_clear(Lane::Control) {
            return Ok(());
        }
        let refused = std::mem::take(&mut self.refused);
        for keys in refused.chunks(REFUSED_A_MESSAGE) {
            self.say(Lane::Control, Body::Refused(mesh::Refused { keys: bytes_of(keys) }));
        }
        self.offers = 0;
        for want in std::mem::take(&mut self.wants) {
            self.say(Lane::Control, Body::Want(want));
        }
        let Some(inbox) = &mut self.inbox else { return Ok(()) };
        let mut wants = Vec::new();
        while wants.len() < WANTS_A_TURN
            && let Some((hash, have)) = inbox.poll_gap()
        {
            wants.push((hash, have.map_or_else(|| snapshot.sample(&hash), Ok)?));
        }
        let acks = inbox.poll_acks(durable);
        for (hash, have) in wants {
            let have = have.iter().map(|change| change.to_vec().into()).collect();
            self.say(Lane::Control, Body::Want(mesh::Want { key: hash.0.to_vec().into(), have, satisfied: false }));
        }
        for (lane, number, lacking) in acks {
            self.say(Lane::Control, Body::Ack(mesh::Ack { lane: lane as u32, number, lacking: bytes_of(&lacking) }));
        }
        Ok(())
    }

    /// Builds a batch for each lane that has none waiting, as long as the link takes them.
    fn fill_lanes(
        &mut self,
        now: Now,
        snapshot: &Snapshot,
        urgent: bool,
        write: &mut impl FnMut(Lane, &[u8]) -> usize,
    ) -> Result<bool, store::Error> {
        for _ in 0..BATCHES_A_TURN {
            let (mut filled, mut owes) = (false, false);
            for lane in [Lane::Command, Lane::Merged, Lane::Latest, Lane::Bulk] {
                if !self.is_clear(lane) {
                    continue;
                }
                let Some(outbox) = &mut self.outbox else { return Ok(false) };
                match outbox.fill(now, lane, snapshot, (urgent, self.batch_bytes))? {
                    Some(batch) => {
                        self.say(lane, Body::Batch(batch));
                        filled = true;
                    }
                    None => owes |= outbox.owes(lane, snapshot),
                }
            }
            self.flush(&mut *write);
            if !filled {
                return Ok(owes);
            }
        }
        Ok(true)
    }

    /// Sends a batch that only moves cursors, once it is due. With `urgent` a call waits for a confirmation that such a batch
    /// alone may bring, of the peer's own versions for example.
    fn move_cursors(&mut self, now: Now, urgent: bool) {
        let Some(outbox) = &mut self.outbox else { return };
        if !outbox.can_move() {
            self.move_at = None;
            return;
        }
        let at = *self.move_at.get_or_insert(now.after(MOVE_DELAY));
        if (urgent || now.reached(at)) && self.lanes[Lane::Bulk].out.is_empty() {
            self.move_at = None;
            if let Some(batch) = outbox.move_cursors(urgent) {
                self.say(Lane::Bulk, Body::Batch(batch));
            }
        }
    }
}

fn bytes_of(keys: &[KeyHash]) -> Vec<bytes::Bytes> {
    keys.iter().map(|hash| hash.0.to_vec().into()).collect()
}

//! Filling the lanes: acknowledgements and requests first, then what the peer lacks.

use super::{Fault, Session};
use crate::clock::Now;
use crate::store::{self, Snapshot};
use crate::sync::link::Lane;
use crate::sync::mesh::{self, message::Body};

/// Progress over skipped versions alone is told this much later, so that it rides with something else if it can.
const MOVE_DELAY: std::time::Duration = std::time::Duration::from_secs(5);
/// Keys in one message.
const REFUSED_A_MESSAGE: usize = 1_024;
/// Batches made for each lane before other sessions have their turn.
const BATCHES_A_TURN: usize = 8;

impl Session {
    /// Fills every lane that has room with what the peer lacks, acknowledgements first. Returns whether more could follow
    /// at once.
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
    ) -> Result<bool, Fault> {
        self.flush(&mut write);
        if !self.is_live() {
            return Ok(false);
        }
        self.answer(durable);
        let mut more = self.gather().map_err(|error| Fault::store(&error))?;
        self.continue_comparison()?;
        more |= self.fill_lanes(now, snapshot, urgent, &mut write).map_err(|error| Fault::store(&error))?;
        self.move_cursors(now);
        self.flush(&mut write);
        Ok(more)
    }

    fn answer(&mut self, durable: u64) {
        if let Some(inbox) = &mut self.inbox {
            for (lane, number) in inbox.poll_acks(durable) {
                self.acks[lane as usize] = number;
            }
        }
        if !self.is_clear(Lane::Control) {
            return;
        }
        let refused = std::mem::take(&mut self.refused);
        for keys in refused.chunks(REFUSED_A_MESSAGE) {
            let keys = keys.iter().map(|hash| hash.0.to_vec().into()).collect();
            self.say(Lane::Control, Body::Refused(mesh::Refused { keys }));
        }
        for lane in Lane::ALL {
            let number = std::mem::take(&mut self.acks[lane as usize]);
            if number > 0 {
                self.say(Lane::Control, Body::Ack(mesh::Ack { lane: lane as u32, number }));
            }
        }
        for want in std::mem::take(&mut self.wants) {
            self.say(Lane::Control, Body::Want(want));
        }
    }

    /// Makes a batch for each lane that has none waiting, as long as the link takes them.
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

    fn move_cursors(&mut self, now: Now) {
        let Some(outbox) = &mut self.outbox else { return };
        if !outbox.can_move() {
            self.move_at = None;
            return;
        }
        let at = *self.move_at.get_or_insert(now.after(MOVE_DELAY));
        if now.reached(at) && self.lanes[Lane::Bulk as usize].out.is_empty() {
            self.move_at = None;
            if let Some(batch) = outbox.move_cursors() {
                self.say(Lane::Bulk, Body::Batch(batch));
            }
        }
    }
}

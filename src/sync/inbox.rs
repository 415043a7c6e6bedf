//! What one peer sent, on its way through the store.
//!
//! Owns received batches until the store has them on disk. At most one [`Apply`] is outstanding; what arrives meanwhile is
//! collected into the next one, so a fast peer is served in few large transactions. A batch is acknowledged only once
//! everything it brought is durable, and nothing on its lane before it is missing.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use prost::Message as _;

use crate::clock::Now;
use crate::limits::BATCH_BYTES;
use crate::store::{Applied, Apply, Cursor, Incoming, Key, KeyHash, PeerRun, RunId};
use crate::sync::convert;
use crate::sync::link::Lane;
use crate::sync::mesh::{Batch, Document, document};

/// Received bytes past which the peer's lanes are no longer read.
const WAITING_BYTES: usize = 8 * BATCH_BYTES;
/// Documents whose base is missing, per lane.
const GAPS: usize = 1_024;
/// After the store refused a batch (a full disk), it is offered again this much later.
const RETRY: Duration = Duration::from_secs(1);

/// A received batch the store does not have yet.
#[derive(Debug)]
struct Received {
    lane: Lane,
    batch: Batch,
    bytes: usize,
    /// Boot time.
    arrived: u64,
}

#[derive(Debug, Default)]
struct LaneIn {
    last_number: u64,
    /// Batch numbers not acknowledged, each with the sequence number that must be durable first.
    unacked: VecDeque<(u64, Option<u64>)>,
    /// Documents whose base is missing; asked for.
    gaps: BTreeSet<KeyHash>,
    /// Cursors that wait for the gaps to close.
    deferred: Vec<Cursor>,
    acked: u64,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Inbox {
    peer: PeerRun,
    /// Our store's run when the session began.
    into: RunId,
    /// The peer's database id and the digest of what does not sync, for the cursors.
    database: [u8; 16],
    excluded: (BTreeSet<String>, u64),
    lanes: [LaneIn; 5],
    waiting: Vec<Received>,
    waiting_bytes: usize,
    /// How many of `waiting` are with the store; their deferred cursors, by lane, too.
    submitted: Option<Submitted>,
    retry_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct Submitted {
    batches: usize,
    cursors: Vec<(Lane, Cursor)>,
    hashes: Vec<(Lane, KeyHash)>,
}

/// A document whose base is missing, to be asked for.
pub(crate) type Gap = (KeyHash, Vec<[u8; 32]>);

impl Inbox {
    pub(crate) fn new(peer: PeerRun, into: RunId, database: [u8; 16], excluded: (BTreeSet<String>, u64)) -> Inbox {
        Inbox {
            peer,
            into,
            database,
            excluded,
            lanes: Default::default(),
            waiting: Vec::new(),
            waiting_bytes: 0,
            submitted: None,
            retry_at: None,
        }
    }

    /// Takes a batch; hands back the offers in it, which concern no store.
    ///
    /// # Errors
    /// The batch is out of order.
    pub(crate) fn receive(&mut self, now: Now, lane: Lane, mut batch: Batch) -> Result<Vec<Document>, &'static str> {
        let state = &mut self.lanes[lane as usize];
        if batch.number != state.last_number + 1 {
            return Err("a batch out of order");
        }
        state.last_number = batch.number;
        state.unacked.push_back((batch.number, None));
        let is_offer = |document: &Document| matches!(document.body, Some(document::Body::Offer(_)));
        let (offers, documents) = std::mem::take(&mut batch.documents).into_iter().partition(is_offer);
        batch.documents = documents;
        let bytes = batch.encoded_len();
        self.waiting_bytes += bytes;
        self.waiting.push(Received { lane, batch, bytes, arrived: now.boot_ms });
        Ok(offers)
    }

    /// Whether the peer's lanes should be left unread for now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES
    }

    /// What the store should do next, if it is idle for this peer.
    ///
    /// # Errors
    /// What is malformed in a received document.
    pub(crate) fn poll_apply(&mut self, now: Now) -> Result<Option<Apply>, &'static str> {
        let resting = self.retry_at.is_some_and(|at| !now.reached(at));
        if self.submitted.is_some() || resting || !self.has_work() {
            return Ok(None);
        }
        self.retry_at = None;
        let mut submitted = Submitted { batches: self.waiting.len(), ..Submitted::default() };
        let mut documents = Vec::new();
        for received in &self.waiting {
            for document in &received.batch.documents {
                if let Some(incoming) = self.accept(document, received.arrived)? {
                    submitted.hashes.push((received.lane, incoming.hash));
                    documents.push(incoming);
                }
            }
            for moved in &received.batch.moved {
                submitted.cursors.push((received.lane, self.cursor(moved.kind, moved.sequence)?));
            }
        }
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane as usize];
            if state.gaps.is_empty() {
                let earlier = std::mem::take(&mut state.deferred);
                submitted.cursors.splice(0..0, earlier.into_iter().map(|cursor| (lane, cursor)));
            }
        }
        let cursors = self.releasable(&submitted);
        let flush = self.waiting.iter().any(|received| received.batch.flush);
        self.submitted = Some(submitted);
        Ok(Some(Apply { from: self.peer, into: self.into, documents, cursors, flush }))
    }

    /// Cursors of lanes without gaps.
    fn releasable(&self, submitted: &Submitted) -> Vec<Cursor> {
        let whole = |lane: &Lane| self.lanes[*lane as usize].gaps.is_empty();
        submitted.cursors.iter().filter(|(lane, _)| whole(lane)).map(|(_, cursor)| *cursor).collect()
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.lanes.iter().any(|lane| lane.gaps.is_empty() && !lane.deferred.is_empty())
    }

    fn accept(&self, document: &Document, arrived: u64) -> Result<Option<Incoming>, &'static str> {
        let incoming = convert::incoming(document.clone(), arrived)?;
        let collection = incoming.name.as_ref().map(Key::collection);
        Ok(if collection.is_some_and(|name| self.excluded.0.contains(name)) { None } else { Some(incoming) })
    }

    fn cursor(&self, kind: u32, sequence: u64) -> Result<Cursor, &'static str> {
        let kind = convert::kind(kind)?;
        Ok(Cursor { kind, database: self.database, run: self.peer.run, sequence, excluded: self.excluded.1 })
    }

    /// The store applied what [`Inbox::poll_apply`] gave it. Returns the documents to ask for.
    ///
    /// # Errors
    /// The peer builds on too much that is missing.
    pub(crate) fn applied(&mut self, applied: Applied) -> Result<Vec<Gap>, &'static str> {
        let Some(submitted) = self.submitted.take() else { return Ok(Vec::new()) };
        for received in self.waiting.drain(..submitted.batches) {
            self.waiting_bytes -= received.bytes;
            let unacked = &mut self.lanes[received.lane as usize].unacked;
            if let Some(entry) = unacked.iter_mut().find(|(number, _)| *number == received.batch.number) {
                entry.1 = Some(applied.sequence);
            }
        }
        let incomplete: Vec<Lane> = self.lanes_with_gaps();
        self.note_gaps(&submitted, &applied);
        for (lane, cursor) in submitted.cursors {
            let written = applied.missing.is_empty() && !incomplete.contains(&lane);
            if !written {
                self.lanes[lane as usize].deferred.push(cursor);
            }
        }
        if self.lanes.iter().any(|lane| lane.gaps.len() > GAPS) {
            return Err("builds on more documents than it ever sent");
        }
        Ok(applied.missing)
    }

    fn lanes_with_gaps(&self) -> Vec<Lane> {
        Lane::ALL.into_iter().filter(|lane| !self.lanes[*lane as usize].gaps.is_empty()).collect()
    }

    fn note_gaps(&mut self, submitted: &Submitted, applied: &Applied) {
        let missing: BTreeSet<KeyHash> = applied.missing.iter().map(|(hash, _)| *hash).collect();
        for (lane, hash) in &submitted.hashes {
            if missing.contains(hash) {
                self.lanes[*lane as usize].gaps.insert(*hash);
            } else {
                self.lanes.iter_mut().for_each(|lane| _ = lane.gaps.remove(hash));
            }
        }
    }

    /// The store refused for a reason of this machine; the same is offered again later.
    pub(crate) fn refused(&mut self, now: Now) {
        if let Some(submitted) = self.submitted.take() {
            let again = submitted.cursors.into_iter().filter(|(_, cursor)| !self.is_waiting(cursor));
            for (lane, cursor) in again.collect::<Vec<_>>() {
                self.lanes[lane as usize].deferred.push(cursor);
            }
            self.retry_at = Some(now.after(RETRY));
        }
    }

    /// Whether a waiting batch still carries this cursor.
    fn is_waiting(&self, cursor: &Cursor) -> bool {
        let same = |kind: u32, sequence: u64| kind == u32::from(cursor.kind as u8) && sequence == cursor.sequence;
        self.waiting.iter().any(|received| received.batch.moved.iter().any(|moved| same(moved.kind, moved.sequence)))
    }

    /// When a refused batch is offered again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Acknowledgements that have become due, now that everything up to `durable` is on disk.
    pub(crate) fn poll_acks(&mut self, durable: u64) -> Vec<(Lane, u64)> {
        let mut acks = Vec::new();
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane as usize];
            if !state.gaps.is_empty() || !state.deferred.is_empty() {
                continue;
            }
            let before = state.acked;
            while let Some((number, Some(needed))) = state.unacked.front().copied() {
                if needed > durable {
                    break;
                }
                state.acked = number;
                state.unacked.pop_front();
            }
            if state.acked > before {
                acks.push((lane, state.acked));
            }
        }
        acks
    }

    /// Bytes held for this peer.
    pub(crate) fn held(&self) -> usize {
        self.waiting_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::EndpointId;
    use crate::store::RunId;
    use crate::sync::mesh;

    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn start() -> Now {
        Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
    }

    fn inbox() -> Inbox {
        let peer = PeerRun { node: EndpointId([1; 32]), run: RunId([2; 16]) };
        Inbox::new(peer, RunId([5; 16]), [3; 16], (BTreeSet::new(), 0))
    }

    fn tombstone(key: u8) -> Document {
        Document {
            key: vec![key; 16].into(),
            kind: 1,
            incarnation: 1,
            body: Some(document::Body::Tombstone(mesh::Tombstone {})),
            ..Document::default()
        }
    }

    fn batch(number: u64, key: u8, moved: u64) -> Batch {
        let moved = vec![mesh::Cursor { kind: 1, sequence: moved, ..mesh::Cursor::default() }];
        Batch { number, documents: vec![tombstone(key)], moved, flush: false }
    }

    fn applied(sequence: u64, missing: &[u8]) -> Applied {
        let missing = missing.iter().map(|key| (KeyHash([*key; 16]), Vec::new())).collect();
        Applied { sequence, missing, refused: Vec::new() }
    }

    #[test]
    fn a_batch_is_acknowledged_only_once_it_is_durable() {
        let (now, mut inbox) = (start(), inbox());
        inbox.receive(now, Lane::Merged, batch(1, 1, 5)).expect("in order");
        let apply = inbox.poll_apply(now).expect("well-formed").expect("work");
        assert_eq!(apply.cursors.len(), 1);
        assert!(inbox.poll_acks(u64::MAX).is_empty(), "the store has not answered");
        inbox.applied(applied(9, &[])).expect("no gap");
        assert!(inbox.poll_acks(8).is_empty(), "not on disk yet");
        assert_eq!(inbox.poll_acks(9), vec![(Lane::Merged, 1)]);
    }

    #[test]
    fn a_missing_base_holds_back_every_later_cursor_and_acknowledgement_of_its_lane() {
        let (now, mut inbox) = (start(), inbox());
        inbox.receive(now, Lane::Merged, batch(1, 1, 5)).expect("in order");
        inbox.poll_apply(now).expect("well-formed").expect("work");
        assert_eq!(inbox.applied(applied(9, &[1])).expect("few").len(), 1);
        inbox.receive(now, Lane::Merged, batch(2, 2, 6)).expect("in order");
        assert!(inbox.poll_apply(now).expect("well-formed").expect("work").cursors.is_empty());
        inbox.applied(applied(10, &[])).expect("no new gap");
        assert!(inbox.poll_acks(u64::MAX).is_empty(), "the gap is open");

        inbox.receive(now, Lane::Merged, batch(3, 1, 7)).expect("in order");
        inbox.poll_apply(now).expect("well-formed").expect("work");
        inbox.applied(applied(11, &[])).expect("closed");
        assert!(inbox.poll_acks(u64::MAX).is_empty(), "the cursors are not written");
        let cursors = inbox.poll_apply(now).expect("well-formed").expect("deferred cursors").cursors;
        assert_eq!(cursors.iter().map(|cursor| cursor.sequence).collect::<Vec<_>>(), [5, 6, 7]);
        inbox.applied(applied(11, &[])).expect("closed");
        assert_eq!(inbox.poll_acks(u64::MAX), vec![(Lane::Merged, 3)]);
    }

    #[test]
    fn what_a_full_disk_refused_is_offered_again() {
        let (now, mut inbox) = (start(), inbox());
        inbox.receive(now, Lane::Latest, batch(1, 1, 5)).expect("in order");
        inbox.poll_apply(now).expect("well-formed").expect("work");
        inbox.refused(now);
        assert!(inbox.poll_apply(now).expect("well-formed").is_none(), "resting");
        let later = Now { mono: inbox.retry_at().expect("set"), ..now };
        let again = inbox.poll_apply(later).expect("well-formed").expect("the same batch");
        assert_eq!((again.documents.len(), again.cursors.len()), (1, 1));
    }

    #[test]
    fn a_batch_out_of_order_is_an_error() {
        assert!(inbox().receive(start(), Lane::Latest, batch(2, 1, 5)).is_err());
    }
}

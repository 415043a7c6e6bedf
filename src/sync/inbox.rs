//! Inbox of one peer: received batches on their way through the store, and the cursors they complete.
//!
//! Owns received batches until the store has them on disk. Must never acknowledge a document that is not durable, nor write a
//! cursor past a document that is missing.
//!
//! # The problem
//!
//! Batches arrive on four lanes at the same time, faster than a disk flushes. Each carries documents, and the cursors that hold
//! once it is applied. A cursor that is written too early loses documents for good: after a restart the peer resumes after
//! them. A document may arrive as a delta without its base here (a **gap**), because the sender counted on a version that this
//! node refused or lost.
//!
//! One transaction per batch costs one flush per 64 KiB. To stop reading at a gap is worse: the answer to the gap comes on a
//! lane that waits for acknowledgements, so both ends would wait for each other.
//!
//! # The algorithm
//!
//! 1. At most one [`Apply`] is outstanding. Batches that arrive meanwhile are collected into the next one, so a fast peer is
//!    served in few large transactions.
//! 2. An `Apply` contains the documents of all waiting batches and the furthest cursor of each kind. The store writes both in
//!    one transaction: a cursor is on disk if and only if its documents are.
//! 3. A gap is requested from the peer once, and holds back the cursor of merged documents alone. Such cursors are deferred,
//!    and only the furthest of each kind is kept; it is written with the first `Apply` after the last gap has closed.
//! 4. A gap closes when the peer answers, with the document or without it. A document still missing after the answer will not
//!    come, and no longer holds the cursor back: its sender records it as lacking.
//! 5. Batches of a lane are acknowledged in order, each once the sequence number of its transaction is durable and no request
//!    for a gap is unsent. The acknowledgement names the documents that were not kept as they were last sent.
//! 6. After an error of this machine, a full disk for example, the same batches are submitted again after `RETRY`.
//!
//! # Progress
//!
//! An acknowledgement waits for this node's store, its disk and room on the control lane, and for nothing the peer has yet to
//! send. The peer always answers for a gap: see [`outbox`](crate::sync::outbox).
//!
//! # Bounds
//!
//! A lane has at most `LANE_BATCHES` unacknowledged batches, a batch at most `BATCH_DOCUMENTS` documents; more are a protocol
//! error. Lanes are left unread from `WAITING_BYTES` on, which bounds the memory of waiting batches, apart from messages
//! already read. `GAPS` bounds the missing documents, `SAMPLES` those for which change hashes are kept.
//!
//! # Tests
//!
//! Below, each rule alone; `sync/tests/progress.rs` and `sync/tests/large.rs` two nodes; `tests/sim` crashes and full disks
//! under random load.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::limits::{BATCH_BYTES, BATCH_DOCUMENTS, LANE_BATCHES};
use crate::store::{Applied, Apply, Cursor, KeyHash, Kind, PeerRun, RunId};
use crate::sync::convert;
use crate::sync::link::{Lane, PerLane};
use crate::sync::mesh::{self, Batch, Document, document};

/// Memory of received batches, in bytes, from which the peer's lanes are no longer read. Small documents take several times
/// their encoded size.
const WAITING_BYTES: usize = 32 * BATCH_BYTES;
/// Maximum number of gaps: the number of documents in the windows of the two lanes that carry merged documents.
const GAPS: usize = 2 * LANE_BATCHES * BATCH_DOCUMENTS;
/// Number of gaps for which the changes held here are kept until the request is sent; for others the heads are read at that
/// time.
const SAMPLES: usize = 1_024;
/// Delay before a batch that the store refused (a full disk) is submitted again.
const RETRY: Duration = Duration::from_secs(1);

/// Received batch that the store does not have yet.
#[derive(Debug)]
struct Received {
    lane: Lane,
    batch: Batch,
    bytes: usize,
    /// Boot time of its arrival, in milliseconds.
    arrived: u64,
}

#[derive(Debug, Default)]
struct LaneIn {
    last_number: u64,
    /// Unacknowledged batch numbers, each with the sequence number that must be durable first; `None` until the store has
    /// applied it.
    unacked: VecDeque<(u64, Option<u64>)>,
    /// Documents in unacknowledged batches that were not kept as last sent, with the number of that batch.
    lacking: BTreeMap<KeyHash, u64>,
    acked: u64,
}

/// State of what one peer sent; see the module documentation.
#[derive(Debug)]
pub(crate) struct Inbox {
    peer: PeerRun,
    /// Run of this node's store at the start of the session.
    into: RunId,
    /// The peer's database id, which cursors name.
    database: [u8; 16],
    /// Collections that do not sync, and their digest, which cursors name.
    excluded: (BTreeSet<String>, u64),
    lanes: PerLane<LaneIn>,
    waiting: Vec<Received>,
    waiting_bytes: usize,
    /// Documents with a missing base for which the peer has not answered.
    gaps: BTreeSet<KeyHash>,
    /// Gaps yet to be requested from the peer, with the changes held here, if these were kept.
    unasked: VecDeque<(KeyHash, Option<Vec<[u8; 32]>>)>,
    /// Cursors not written yet: they wait for the gaps to close.
    deferred: BTreeMap<Kind, Cursor>,
    /// Number of gaps for which the peer has answered.
    answers: u64,
    /// The outstanding [`Apply`].
    submitted: Option<InStore>,
    retry_at: Option<Instant>,
}

#[derive(Debug, Default)]
struct InStore {
    /// Number of batches, counted from the front of `waiting`.
    batches: usize,
    /// Cursors written with them; deferred ones are not included.
    cursors: Vec<Cursor>,
    /// Each document with its batch, in order.
    documents: Vec<(Lane, u64, KeyHash)>,
}

/// Document with a missing base, and the changes of it held here; with `None` the request names its heads.
pub(crate) type Gap = (KeyHash, Option<Vec<[u8; 32]>>);

/// Lane, the number up to which its batches are acknowledged, and the documents of these that were not kept.
pub(crate) type Acked = (Lane, u64, Vec<KeyHash>);

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
            gaps: BTreeSet::new(),
            unasked: VecDeque::new(),
            deferred: BTreeMap::new(),
            answers: 0,
            submitted: None,
            retry_at: None,
        }
    }

    /// Takes a batch and its size in memory; returns the offers in it, which do not concern the store.
    ///
    /// # Errors
    /// The batch is out of order, has too many documents, or exceeds the window of its lane.
    pub(crate) fn receive(
        &mut self,
        now: Now,
        lane: Lane,
        (mut batch, bytes): (Batch, usize),
    ) -> Result<Vec<Document>, &'static str> {
        if batch.documents.len() > BATCH_DOCUMENTS {
            return Err("a batch of more than 1,024 documents");
        }
        let state = &mut self.lanes[lane];
        if batch.number != state.last_number + 1 {
            return Err("a batch out of order");
        }
        if state.unacked.len() >= LANE_BATCHES {
            return Err("more batches of a lane than may be without an acknowledgement");
        }
        state.last_number = batch.number;
        state.unacked.push_back((batch.number, None));
        let is_offer = |document: &Document| matches!(document.body, Some(document::Body::Offer(_)));
        let (offers, documents) = std::mem::take(&mut batch.documents).into_iter().partition(is_offer);
        batch.documents = documents;
        self.waiting_bytes += bytes;
        self.waiting.push(Received { lane, batch, bytes, arrived: now.boot_ms });
        Ok(offers)
    }

    /// Returns true if the peer's lanes should be left unread for now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= WAITING_BYTES
    }

    /// Returns the next request to the store, if none is outstanding for this peer.
    ///
    /// # Errors
    /// A received document is malformed; says in which way.
    pub(crate) fn poll_apply(&mut self, now: Now) -> Result<Option<Apply>, &'static str> {
        let resting = self.retry_at.is_some_and(|at| !now.reached(at));
        if self.submitted.is_some() || resting || !self.has_work() {
            return Ok(None);
        }
        self.retry_at = None;
        let mut submitted = InStore { batches: self.waiting.len(), ..InStore::default() };
        let mut documents = Vec::new();
        let mut cursors = self.deferred.clone();
        for received in &self.waiting {
            for document in &received.batch.documents {
                let incoming = convert::incoming(document.clone(), received.arrived)?;
                submitted.documents.push((received.lane, received.batch.number, incoming.hash));
                documents.push(incoming);
            }
            for moved in &received.batch.moved {
                let cursor = self.cursor(moved)?;
                further(&mut cursors, cursor);
            }
        }
        // Merged cursors stay deferred while a gap is open.
        submitted.cursors = cursors.into_values().filter(|cursor| self.may_move(cursor.kind)).collect();
        let cursors = submitted.cursors.clone();
        let flush = self.waiting.iter().any(|received| received.batch.flush);
        self.submitted = Some(submitted);
        let excluded = self.excluded.0.clone();
        Ok(Some(Apply { from: self.peer, into: self.into, documents, cursors, flush, excluded }))
    }

    /// Returns true if no document of `kind` is missing.
    fn may_move(&self, kind: Kind) -> bool {
        kind != Kind::Merged || self.gaps.is_empty()
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.deferred.keys().any(|kind| self.may_move(*kind))
    }

    fn cursor(&self, moved: &mesh::Cursor) -> Result<Cursor, &'static str> {
        let (kind, database, excluded) = (convert::kind(moved.kind)?, self.database, self.excluded.1);
        let (sequence, horizon) = (moved.sequence, moved.horizon);
        Ok(Cursor { kind, database, run: self.peer.run, sequence, horizon, excluded })
    }

    /// Handles the store's result of the [`Apply`] from [`Inbox::poll_apply`].
    ///
    /// # Errors
    /// The peer builds on too many missing documents, or an answer is malformed.
    pub(crate) fn applied(&mut self, applied: Applied) -> Result<(), &'static str> {
        let Some(submitted) = self.submitted.take() else { return Ok(()) };
        let mut answered = BTreeSet::new();
        for received in self.waiting.drain(..submitted.batches).collect::<Vec<_>>() {
            self.waiting_bytes -= received.bytes;
            let unacked = &mut self.lanes[received.lane].unacked;
            // Batch numbers are consecutive, so the distance from the oldest is the index.
            let first = unacked.front().map_or(0, |(number, _)| *number);
            let at = received.batch.number.checked_sub(first).and_then(|at| usize::try_from(at).ok());
            if let Some(entry) = at.and_then(|at| unacked.get_mut(at)) {
                entry.1 = Some(applied.sequence);
            }
            for key in &received.batch.answered {
                answered.insert(convert::key_hash(key)?);
            }
            for moved in &received.batch.moved {
                let cursor = self.cursor(moved)?;
                further(&mut self.deferred, cursor);
            }
        }
        // A cursor is written unless these documents revealed a gap; a later one may have been deferred meanwhile.
        for cursor in submitted.cursors {
            let written = cursor.kind != Kind::Merged || applied.missing.is_empty();
            if written && self.deferred.get(&cursor.kind).is_some_and(|later| later.sequence <= cursor.sequence) {
                self.deferred.remove(&cursor.kind);
            }
        }
        self.note_lacking(&submitted.documents, &applied);
        self.answers += answered.len() as u64;
        self.gaps.retain(|hash| !answered.contains(hash));
        for (hash, have) in applied.missing {
            // A document still missing after the peer has answered will not come.
            if !answered.contains(&hash) && self.gaps.insert(hash) {
                self.unasked.push_back((hash, (self.unasked.len() < SAMPLES).then_some(have)));
            }
        }
        if self.gaps.len() > GAPS {
            return Err("builds on more documents than it ever sent");
        }
        Ok(())
    }

    fn note_lacking(&mut self, documents: &[(Lane, u64, KeyHash)], applied: &Applied) {
        let missing = applied.missing.iter().map(|(hash, _)| *hash);
        let lacking: BTreeSet<KeyHash> = missing.chain(applied.refused.iter().map(|(hash, _)| *hash)).collect();
        for (lane, number, hash) in documents {
            let state = &mut self.lanes[*lane];
            if lacking.contains(hash) {
                state.lacking.insert(*hash, *number);
            } else {
                state.lacking.remove(hash);
            }
        }
    }

    /// Returns the documents in the outstanding [`Apply`].
    pub(crate) fn submitted(&self) -> impl Iterator<Item = KeyHash> + '_ {
        self.submitted.iter().flat_map(|submitted| &submitted.documents).map(|(_, _, hash)| *hash)
    }

    /// Handles a refusal by the store for a reason of this machine: the same batches are submitted again after `RETRY`.
    pub(crate) fn refused(&mut self, now: Now) {
        if self.submitted.take().is_some() {
            self.retry_at = Some(now.after(RETRY));
        }
    }

    /// Returns a document to request from the peer, skipping those answered meanwhile.
    pub(crate) fn poll_gap(&mut self) -> Option<Gap> {
        let gaps = &self.gaps;
        std::iter::from_fn(|| self.unasked.pop_front()).find(|(hash, _)| gaps.contains(hash))
    }

    /// Returns the time at which refused batches are submitted again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Returns the number of gaps answered so far while one is unanswered. Returns `None` while batches wait for the store: one
    /// of them may be the answer.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        (!self.gaps.is_empty() && self.waiting.is_empty()).then_some(self.answers)
    }

    /// Returns true if [`Inbox::poll_gap`] may return a document.
    pub(crate) fn has_unasked(&self) -> bool {
        !self.unasked.is_empty()
    }

    /// Returns the acknowledgements due now that everything up to `durable` is on disk. Returns none while a gap is
    /// unrequested: until the peer receives the request it assumes that this node holds what was sent.
    pub(crate) fn poll_acks(&mut self, durable: u64) -> Vec<Acked> {
        let mut acks = Vec::new();
        if self.has_unasked() {
            return acks;
        }
        for lane in Lane::ALL {
            let state = &mut self.lanes[lane];
            let before = state.acked;
            // In order: the first batch that is not durable stops the lane.
            while let Some((number, Some(needed))) = state.unacked.front().copied() {
                if needed > durable {
                    break;
                }
                state.acked = number;
                state.unacked.pop_front();
            }
            if state.acked > before {
                let of_acked = |(hash, number): (&KeyHash, &u64)| (*number <= state.acked).then_some(*hash);
                let lacking: Vec<KeyHash> = state.lacking.iter().filter_map(of_acked).collect();
                state.lacking.retain(|_, number| *number > state.acked);
                acks.push((lane, state.acked, lacking));
            }
        }
        acks
    }

    /// Returns the number of bytes buffered for this peer.
    pub(crate) fn held(&self) -> usize {
        self.waiting_bytes
    }
}

/// Keeps the furthest cursor of each kind.
fn further(cursors: &mut BTreeMap<Kind, Cursor>, cursor: Cursor) {
    let known = cursors.entry(cursor.kind).or_insert(cursor);
    if cursor.sequence > known.sequence {
        *known = cursor;
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
        Batch { number, documents: vec![tombstone(key)], moved, ..Batch::default() }
    }

    fn applied(sequence: u64, missing: &[u8]) -> Applied {
        let missing = missing.iter().map(|key| (KeyHash([*key; 16]), Vec::new())).collect();
        Applied { sequence, missing, refused: Vec::new(), copied: Vec::new() }
    }

    #[test]
    fn a_batch_is_acknowledged_only_once_it_is_durable() {
        let (now, mut inbox) = (start(), inbox());
        inbox.receive(now, Lane::Merged, (batch(1, 1, 5), 1)).expect("in order");
        let apply = inbox.poll_apply(now).expect("well-formed").expect("work");
        assert_eq!(apply.cursors.len(), 1);
        assert!(inbox.poll_acks(u64::MAX).is_empty(), "the store has not answered");
        inbox.applied(applied(9, &[])).expect("no gap");
        assert!(inbox.poll_acks(8).is_empty(), "not on disk yet");
        assert_eq!(inbox.poll_acks(9), [(Lane::Merged, 1, vec![])]);
    }

    const NO_CURSOR: [u64; 0] = [];

    /// Receives a batch and has the store apply it; returns the sequence numbers of the cursors written with it.
    fn apply(inbox: &mut Inbox, now: Now, batch: Batch, missing: &[u8]) -> Vec<u64> {
        inbox.receive(now, Lane::Merged, (batch, 1)).expect("in order");
        let cursors = inbox.poll_apply(now).expect("well-formed").expect("work").cursors;
        inbox.applied(applied(9, missing)).expect("few gaps");
        cursors.iter().filter(|_| missing.is_empty()).map(|cursor| cursor.sequence).collect()
    }

    #[test]
    fn a_missing_base_holds_back_the_cursor_until_the_peer_has_answered_and_no_acknowledgement() {
        let (now, mut inbox) = (start(), inbox());
        assert_eq!(apply(&mut inbox, now, batch(1, 1, 5), &[1]), NO_CURSOR);
        assert!(inbox.poll_acks(u64::MAX).is_empty(), "the peer is not asked yet");
        assert_eq!(inbox.poll_gap(), Some((KeyHash([1; 16]), Some(Vec::new()))));
        assert_eq!(inbox.poll_acks(u64::MAX), [(Lane::Merged, 1, vec![KeyHash([1; 16])])]);

        assert_eq!(apply(&mut inbox, now, batch(2, 2, 6), &[]), NO_CURSOR);
        assert_eq!(inbox.poll_acks(u64::MAX), [(Lane::Merged, 2, vec![])]);
        let answer = Batch { answered: vec![vec![1; 16].into()], ..batch(3, 1, 7) };
        assert_eq!(apply(&mut inbox, now, answer, &[]), NO_CURSOR, "open until the answer is stored");
        let cursors = inbox.poll_apply(now).expect("well-formed").expect("the cursor held back").cursors;
        assert_eq!(cursors.iter().map(|cursor| cursor.sequence).collect::<Vec<_>>(), [7]);
        inbox.applied(applied(11, &[])).expect("closed");
        assert_eq!(inbox.poll_acks(u64::MAX), [(Lane::Merged, 3, vec![])]);
        assert!(inbox.poll_apply(now).expect("well-formed").is_none(), "nothing is left");
    }

    #[test]
    fn a_peer_that_cannot_send_what_is_missing_is_waited_for_no_longer() {
        for brings in [vec![], vec![tombstone(1)]] {
            let (now, mut inbox) = (start(), inbox());
            apply(&mut inbox, now, batch(1, 1, 5), &[1]);
            inbox.poll_gap().expect("asked for");
            let missing: &[u8] = if brings.is_empty() { &[] } else { &[1] };
            let answer = Batch { number: 2, documents: brings, answered: vec![vec![1; 16].into()], ..Batch::default() };
            apply(&mut inbox, now, answer, missing);
            assert_eq!(inbox.poll_gap(), None, "it is not asked again");
            let cursors = inbox.poll_apply(now).expect("well-formed").expect("the cursor held back").cursors;
            assert_eq!(cursors.len(), 1);
        }
    }

    #[test]
    fn gaps_do_not_hold_back_the_cursors_of_other_kinds() {
        let (now, mut inbox) = (start(), inbox());
        apply(&mut inbox, now, batch(1, 1, 5), &[1]);
        let moved = vec![mesh::Cursor { kind: 2, sequence: 8, ..mesh::Cursor::default() }];
        let cursors = apply(&mut inbox, now, Batch { number: 2, moved, ..Batch::default() }, &[]);
        assert_eq!(cursors, [8]);
    }

    #[test]
    fn what_a_full_disk_refused_is_offered_again() {
        let (now, mut inbox) = (start(), inbox());
        inbox.receive(now, Lane::Latest, (batch(1, 1, 5), 1)).expect("in order");
        inbox.poll_apply(now).expect("well-formed").expect("work");
        inbox.refused(now);
        assert!(inbox.poll_apply(now).expect("well-formed").is_none(), "resting");
        let later = Now { mono: inbox.retry_at().expect("set"), ..now };
        let again = inbox.poll_apply(later).expect("well-formed").expect("the same batch");
        assert_eq!((again.documents.len(), again.cursors.len()), (1, 1));
    }

    #[test]
    fn a_batch_out_of_order_is_an_error() {
        assert!(inbox().receive(start(), Lane::Latest, (batch(2, 1, 5), 1)).is_err());
    }

    #[test]
    fn a_peer_may_not_send_on_without_acknowledgements() {
        let (now, mut inbox) = (start(), inbox());
        let empty = |number| (Batch { number, ..Batch::default() }, 1);
        let sent = (1..=LANE_BATCHES as u64).map(|number| inbox.receive(now, Lane::Latest, empty(number)));
        assert!(sent.collect::<Vec<_>>().iter().all(Result::is_ok));
        inbox.poll_apply(now).expect("well-formed").expect("work");
        inbox.applied(applied(9, &[])).expect("no gap");
        let next = LANE_BATCHES as u64 + 1;
        assert!(inbox.receive(now, Lane::Latest, empty(next)).is_err(), "stored is not acknowledged");
        assert_eq!(inbox.poll_acks(9), [(Lane::Latest, LANE_BATCHES as u64, vec![])]);
        inbox.receive(now, Lane::Latest, empty(next)).expect("its window is open");
    }

    #[test]
    fn a_batch_of_too_many_documents_is_an_error_and_what_waits_is_counted_as_memory() {
        let documents = vec![tombstone(1); BATCH_DOCUMENTS + 1];
        let mut inbox = inbox();
        assert!(inbox.receive(start(), Lane::Latest, (Batch { documents, ..batch(1, 1, 5) }, 1)).is_err());
        inbox.receive(start(), Lane::Latest, (batch(1, 1, 5), WAITING_BYTES)).expect("in order");
        assert!(inbox.is_full(), "though it has few bytes on the wire");
    }
}

//! What one peer lacks: positions in the index of newest versions, never a queue of messages.
//!
//! Owns, for one session, how far the peer has been served and what it has acknowledged. Reads documents from the
//! snapshot it is handed, and must never hold more than [`EXCEPTIONS`] documents out of order.
//!
//! Three sources feed the lanes, in this order: documents the peer asked for, the live index past the session's start,
//! and the backlog (the index before the start, or what reconciliation found). A **cursor** moves only over what the
//! peer will have once the batch that carries it is applied; the batch says so in `moved`.
//!
//! # Progress
//!
//! Nothing here waits for something that waits for it:
//!
//! 1. The window of a lane opens when the peer acknowledges. An [`Ack`](crate::sync::mesh::Ack) waits for the peer's store and
//!    disk alone, never for a document that is missing: it names those that are (`lacking`).
//! 2. A [`Want`](crate::sync::mesh::Want) is answered as soon as the merged lane's window is open, before anything else on that
//!    lane, and always: a batch names it in `answered` whether or not the document can be sent.
//! 3. An offer is answered by a `Want` on the control lane, which no window closes. Until then nothing else of that document
//!    is sent: the answer brings its newest version.
//! 4. A document that is edited faster than the peer confirms has at most `VERSIONS` versions on their way. What comes on top is
//!    not sent but due, and once the peer has confirmed half of them its newest version is sent, before other documents.
//! 5. Only new documents wait until fewer than [`EXCEPTIONS`] are owed out of order. Answers do not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::Now;
use crate::limits::{
    BATCH_BYTES, BATCH_DOCUMENTS, CHUNK_ROWS, EXCEPTIONS, LACKING_KEYS, LANE_BATCHES, OFFER_BYTES, RECORD_BYTES,
};
use crate::store::{Content, Entry, Error, KeyHash, Kind, PeerRun, Record, Snapshot, chunk};
use crate::sync::convert::{self, SendClock};
use crate::sync::link::Lane;
use crate::sync::mesh::{Batch, Cursor, Document};
use crate::sync::reconcile::Theirs;

/// Batches in flight past which the peer is asked to flush, so that relaxed acknowledgements do not stall the lane.
const FLUSH_AT: usize = LANE_BATCHES / 4;
/// Versions of one document on their way at once.
const VERSIONS: usize = 8;
/// Chunks this short expand to nothing that a peer would refuse to load: a change of a few bytes for each of its writers' edits.
const UNCHECKED_BYTES: usize = 1 << 10;
/// Index entries looked at for one batch; skipped ones count.
const SCAN_ENTRIES: usize = 4_096;
/// Documents remembered that the peer did not keep. With as many, only acknowledged documents count as held.
const LACKING: usize = LACKING_KEYS;
const NONE: u64 = u64::MAX;

/// One value per [`Kind`], in the order of [`Kind::ALL`].
type PerKind<T> = [T; 3];

fn slot(kind: Kind) -> usize {
    Kind::ALL.iter().position(|k| *k == kind).expect("ALL lists every kind")
}

/// How far one kind has been served.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// The live index has been looked through up to here.
    scanned: u64,
    /// The newest entry passed, sent or skipped.
    passed: u64,
    /// The backlog: passed up to the first, owed up to the second.
    backlog: Option<(u64, u64)>,
    /// No cursor beyond these while the live scan, or the backlog's, has not reached its end: [`Snapshot::settled`] when
    /// it was interrupted.
    settled_live: Option<u64>,
    settled_backlog: Option<u64>,
    /// The newest cursor sent in a batch, and the newest acknowledged.
    moved: u64,
    acked: u64,
}

/// A document owed out of order. Its sequence number holds the cursor back.
#[derive(Debug)]
struct Exception {
    kind: Kind,
    sequence: u64,
    owed: Owed,
}

/// What is to become of an [`Exception`].
#[derive(Debug)]
enum Owed {
    /// It is offered, in this incarnation; the peer answers. Whether a newer version has been passed since.
    Offered { passed: bool, incarnation: u64 },
    /// The peer asks for what it lacks; it has these changes.
    Wanted(Vec<[u8; 32]>),
    /// Versions up to this sequence number are on their way, as many as may be; the rest follows once the peer confirms them.
    Crowded(u64),
    /// The peer has what was written up to this sequence number, and lacks what came since.
    Newer(u64),
}

/// A batch on its way.
#[derive(Debug)]
struct Sent {
    number: u64,
    documents: Vec<(KeyHash, u64)>,
    lowest: PerKind<u64>,
    moved: Vec<(Kind, u64)>,
}

#[derive(Debug, Default)]
struct LaneOut {
    last_number: u64,
    /// Something in flight was sent without asking for a flush.
    relaxed: bool,
    in_flight: VecDeque<Sent>,
}

/// Where a peer's backlog begins, by kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// After these positions.
    After(PerKind<u64>),
    /// At the end: reconciliation says what is missing.
    Compare,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct Outbox {
    peer: PeerRun,
    /// What the index calls (peer, run); versions marked so are there already.
    source: Option<u32>,
    /// The peer began empty: nothing need be offered.
    lacks_all: bool,
    excluded: BTreeSet<String>,
    positions: PerKind<Position>,
    /// The newest flushed sequence number of the snapshots that batches were filled from: what cursors count on.
    horizon: u64,
    /// Reconciliation is still comparing.
    comparing: bool,
    /// Found by reconciliation, not yet sent.
    found: Vec<(KeyHash, Theirs)>,
    exceptions: BTreeMap<KeyHash, Exception>,
    /// The exceptions that can be sent at once: all but the offered and the crowded.
    due: PerKind<VecDeque<KeyHash>>,
    /// Documents on their way, with the sequence numbers of the versions: about [`VERSIONS`] of each at most.
    on_way: BTreeMap<KeyHash, Vec<u64>>,
    /// Offers that were answered.
    answers: u64,
    /// Documents of which the peer did not keep what it was last sent.
    lacking: BTreeSet<KeyHash>,
    /// Merged documents that the peer cannot take, each with the incarnation: within one they only grow, so nothing of that one
    /// is sent again in this session.
    declined: BTreeMap<KeyHash, u64>,
    /// Documents that were not sent since the last [`Outbox::take_withheld`], with the reason.
    withheld: Vec<(KeyHash, String)>,
    lanes: [LaneOut; 5],
}

/// A batch being filled.
#[derive(Debug)]
struct Filling {
    documents: Vec<Document>,
    keys: Vec<(KeyHash, u64)>,
    answered: Vec<KeyHash>,
    lowest: PerKind<u64>,
    bytes: usize,
    most: usize,
    clock: SendClock,
}

impl Filling {
    fn new(clock: SendClock, most: usize) -> Filling {
        let (documents, keys, answered) = (Vec::new(), Vec::new(), Vec::new());
        Filling { documents, keys, answered, lowest: [NONE; 3], bytes: 0, most, clock }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.most || self.documents.len() >= BATCH_DOCUMENTS
    }

    fn push_offer(&mut self, offer: Document) {
        self.documents.push(offer);
        self.bytes += OFFER_BYTES / 16;
    }

    fn answer(&mut self, hash: KeyHash) {
        self.bytes += hash.0.len();
        self.answered.push(hash);
    }

    fn push(&mut self, record: &Record, hash: KeyHash, document: Document) {
        self.bytes += convert::size(&document);
        self.documents.push(document);
        self.keys.push((hash, record.sequence));
        let lowest = &mut self.lowest[slot(record.kind)];
        *lowest = record.sequence.min(*lowest);
    }
}

impl Outbox {
    /// For a session whose snapshot at its start showed sequence numbers up to `visible`.
    pub(crate) fn new(
        peer: PeerRun,
        start: Start,
        visible: u64,
        lacks_all: bool,
        excluded: BTreeSet<String>,
    ) -> Outbox {
        let position = |after: Option<u64>| Position {
            scanned: visible,
            passed: after.unwrap_or(0),
            settled_live: None,
            settled_backlog: None,
            backlog: after.filter(|after| *after < visible).map(|after| (after, visible)),
            moved: after.unwrap_or(0),
            acked: after.unwrap_or(0),
        };
        let (positions, comparing) = match start {
            Start::After(after) => (after.map(|after| position(Some(after))), false),
            Start::Compare => ([position(None); 3], true),
        };
        Outbox {
            peer,
            source: None,
            lacks_all,
            excluded,
            positions,
            horizon: 0,
            comparing,
            found: Vec::new(),
            exceptions: BTreeMap::new(),
            due: Default::default(),
            on_way: BTreeMap::new(),
            answers: 0,
            lacking: BTreeSet::new(),
            declined: BTreeMap::new(),
            withheld: Vec::new(),
            lanes: Default::default(),
        }
    }

    /// Reconciliation found these to be owed.
    pub(crate) fn found(&mut self, found: impl IntoIterator<Item = (KeyHash, Theirs)>) {
        self.found.extend(found);
    }

    /// Reconciliation is over: everything up to `visible` is there once what was found has been sent.
    pub(crate) fn compared(&mut self, visible: u64) {
        self.comparing = false;
        for position in &mut self.positions {
            position.passed = position.passed.max(visible);
        }
    }

    /// Whether more found documents may be added without passing the bound on what is owed out of order.
    pub(crate) fn takes_found(&self) -> bool {
        self.found.len() < EXCEPTIONS
    }

    /// Whether the backlog is served and acknowledged.
    pub(crate) fn is_caught_up(&self) -> bool {
        let bulk_idle = self.lanes[Lane::Bulk as usize].in_flight.is_empty();
        let served = self.positions.iter().all(|position| position.backlog.is_none());
        !self.comparing && self.found.is_empty() && self.exceptions.is_empty() && served && bulk_idle
    }

    /// Whether the peer acknowledged everything of `kind` up to `sequence` and kept what it was sent of `hash`.
    pub(crate) fn has(&self, hash: &KeyHash, kind: Kind, sequence: u64) -> bool {
        self.acked(kind) >= sequence && !self.lacking.contains(hash) && self.lacking.len() < LACKING
    }

    /// The peer cannot take what it was offered, or was sent, of a document. `held`: sequence number and incarnation of what is held
    /// here now.
    ///
    /// # Errors
    /// It was offered and sent nothing of it.
    pub(crate) fn decline(&mut self, hash: KeyHash, held: Option<(u64, u64)>) -> Result<(), &'static str> {
        if let Some(exception) = self.exceptions.get_mut(&hash)
            && let Owed::Offered { passed, incarnation } = exception.owed
        {
            self.answers += 1;
            if passed {
                exception.owed = Owed::Newer(0);
                self.due[slot(exception.kind)].push_back(hash);
            } else {
                self.exceptions.remove(&hash);
            }
            self.note_declined(hash, incarnation);
            return Ok(());
        }
        let sent = self.newest_on_way(&hash).ok_or("refuses a document it was not sent")?;
        if let Some((sequence, incarnation)) = held
            && sequence == sent
        {
            self.note_declined(hash, incarnation);
        }
        Ok(())
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
    fn withhold(&mut self, record: &Record, hash: KeyHash, reason: String) {
        self.note_declined(hash, record.incarnation);
        if self.withheld.len() < EXCEPTIONS {
            self.withheld.push((hash, reason));
        }
    }

    /// Documents that were not sent since the last call, with the reason.
    pub(crate) fn take_withheld(&mut self) -> Vec<(KeyHash, String)> {
        std::mem::take(&mut self.withheld)
    }

    /// The newest version of a document on its way.
    fn newest_on_way(&self, hash: &KeyHash) -> Option<u64> {
        self.on_way.get(hash)?.iter().max().copied()
    }

    /// The oldest version of a document on its way.
    fn oldest_on_way(&self, hash: &KeyHash) -> Option<u64> {
        self.on_way.get(hash)?.iter().min().copied()
    }

    /// Whether an acknowledgement is outstanding.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.in_flight.is_empty())
    }

    /// The oldest batch of a lane without an acknowledgement.
    pub(crate) fn unacked(&self, lane: Lane) -> Option<u64> {
        self.lanes[lane as usize].in_flight.front().map(|sent| sent.number)
    }

    /// How many offers were answered so far, while one is not.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let offers = self.exceptions.values().any(|exception| matches!(exception.owed, Owed::Offered { .. }));
        offers.then_some(self.answers)
    }

    /// The peer confirmed that it holds everything of `kind` up to this.
    pub(crate) fn acked(&self, kind: Kind) -> u64 {
        self.positions[slot(kind)].acked
    }

    /// The index's name for this peer and run, once something of it was stored.
    pub(crate) fn source(&self) -> Option<u32> {
        self.source
    }

    /// The peer asks for a document: it lacks it, or the base of a delta.
    ///
    /// # Errors
    /// It asks for more than it was offered or sent.
    pub(crate) fn want(&mut self, hash: KeyHash, have: Vec<[u8; 32]>) -> Result<(), &'static str> {
        let owed = Owed::Wanted(have);
        if let Some(exception) = self.exceptions.get_mut(&hash) {
            self.answers += u64::from(matches!(exception.owed, Owed::Offered { .. }));
            if matches!(exception.owed, Owed::Offered { .. } | Owed::Crowded(_)) {
                self.due[slot(exception.kind)].push_back(hash);
            }
            exception.owed = owed;
            return Ok(());
        }
        let sent = self.oldest_on_way(&hash);
        if sent.is_none() && self.exceptions.len() >= 2 * EXCEPTIONS {
            return Err("asks for too many documents that it was not sent");
        }
        // Of a document that is not on its way no sequence number is known; 1 holds the cursor back until it is sent.
        let sequence = sent.unwrap_or(1);
        self.exceptions.insert(hash, Exception { kind: Kind::Merged, sequence, owed });
        self.due[slot(Kind::Merged)].push_back(hash);
        Ok(())
    }

    /// The peer has what was offered, or something newer.
    pub(crate) fn satisfied(&mut self, hash: &KeyHash) {
        let Some(exception) = self.exceptions.get_mut(hash) else { return };
        self.answers += 1;
        match exception.owed {
            Owed::Offered { passed: true, .. } => {
                exception.owed = Owed::Newer(exception.sequence);
                self.due[slot(exception.kind)].push_back(*hash);
            }
            Owed::Offered { passed: false, .. } => _ = self.exceptions.remove(hash),
            Owed::Wanted(_) | Owed::Crowded(_) | Owed::Newer(_) => {}
        }
    }

    /// The peer acknowledged every batch of `lane` up to `number`, and did not keep the documents that it is `lacking`; hands each
    /// (document, sequence) it has to `each`.
    ///
    /// # Errors
    /// It acknowledges what was never sent.
    pub(crate) fn ack(
        &mut self,
        lane: Lane,
        number: u64,
        lacking: &BTreeSet<KeyHash>,
        mut each: impl FnMut(KeyHash, u64),
    ) -> Result<(), &'static str> {
        let out = &mut self.lanes[lane as usize];
        if number > out.last_number {
            return Err("acknowledges a batch that was never sent");
        }
        while out.in_flight.front().is_some_and(|sent| sent.number <= number) {
            let sent = out.in_flight.pop_front().expect("just seen");
            for (hash, sequence) in sent.documents {
                arrived(&mut self.on_way, hash, sequence);
                if !lacking.contains(&hash) {
                    self.lacking.remove(&hash);
                    self.declined.remove(&hash);
                    each(hash, sequence);
                } else if self.lacking.len() < LACKING {
                    self.lacking.insert(hash);
                }
            }
            for (kind, sequence) in sent.moved {
                let acked = &mut self.positions[slot(kind)].acked;
                *acked = sequence.max(*acked);
            }
        }
        self.release_crowded();
        Ok(())
    }

    /// Makes documents due of which enough has arrived.
    fn release_crowded(&mut self) {
        for (hash, exception) in &mut self.exceptions {
            let Owed::Crowded(held) = exception.owed else { continue };
            if self.on_way.get(hash).is_none_or(|versions| versions.len() <= VERSIONS / 2) {
                exception.owed = Owed::Newer(if self.lacking.contains(hash) { 0 } else { held });
                self.due[slot(exception.kind)].push_back(*hash);
            }
        }
    }

    /// The next batch for `lane`, or `None` when nothing is owed on it or too much is in flight. `urgent`: somebody waits
    /// for an acknowledgement, so the peer is asked to flush, with an empty batch if need be. `most`: document bytes after which
    /// the batch is closed.
    ///
    /// # Errors
    /// The store could not be read; the outbox is as before.
    pub(crate) fn fill(
        &mut self,
        now: Now,
        lane: Lane,
        snapshot: &Snapshot,
        (urgent, most): (bool, usize),
    ) -> Result<Option<Batch>, Error> {
        if self.lanes[lane as usize].in_flight.len() >= LANE_BATCHES {
            return Ok(None);
        }
        if self.source.is_none() {
            self.source = snapshot.source(self.peer)?;
        }
        self.horizon = self.horizon.max(snapshot.flushed());
        let mut filling = Filling::new(SendClock { boot: snapshot.boot(), boot_ms: now.boot_ms }, most);
        match lane {
            Lane::Control => return Ok(None),
            Lane::Bulk => self.fill_backlog(snapshot, &mut filling)?,
            Lane::Command => self.fill_kind(Kind::Command, snapshot, &mut filling)?,
            Lane::Merged => self.fill_kind(Kind::Merged, snapshot, &mut filling)?,
            Lane::Latest => self.fill_kind(Kind::Latest, snapshot, &mut filling)?,
        }
        let nudge = urgent && self.lanes[lane as usize].relaxed;
        debug_assert!(self.is_consistent(), "each exception is due, or waits for the peer");
        let nothing = filling.documents.is_empty() && filling.answered.is_empty() && !nudge;
        Ok(if nothing { None } else { Some(self.close(lane, filling, urgent)) })
    }

    fn fill_kind(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        self.fill_due(kind, snapshot, filling)?;
        debug_assert!(self.due[slot(kind)].is_empty() || filling.is_full(), "an answer waits for a document");
        self.fill_live(kind, snapshot, filling)
    }

    /// A batch that only moves cursors, when there is a cursor to move and nothing else will carry it.
    pub(crate) fn move_cursors(&mut self, urgent: bool) -> Option<Batch> {
        let blocked = self.lanes[Lane::Bulk as usize].in_flight.len() >= LANE_BATCHES;
        let nothing = || Filling::new(SendClock::default(), BATCH_BYTES);
        (!blocked && self.can_move()).then(|| self.close(Lane::Bulk, nothing(), urgent))
    }

    /// Whether [`Outbox::move_cursors`] would have something to say.
    pub(crate) fn can_move(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.reach(kind, Lane::Bulk) > self.positions[slot(kind)].moved)
    }

    fn close(&mut self, lane: Lane, filling: Filling, urgent: bool) -> Batch {
        let moved: Vec<(Kind, u64)> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, self.reach(kind, lane)))
            .filter(|(kind, reach)| *reach > self.positions[slot(*kind)].moved)
            .collect();
        for (kind, reach) in &moved {
            self.positions[slot(*kind)].moved = *reach;
        }
        let mut crowded = false;
        for (hash, sequence) in &filling.keys {
            let versions = self.on_way.entry(*hash).or_default();
            versions.push(*sequence);
            crowded |= versions.len() >= VERSIONS / 2;
        }
        let out = &mut self.lanes[lane as usize];
        out.last_number += 1;
        let flush = urgent || crowded || (out.relaxed && out.in_flight.len() >= FLUSH_AT);
        out.relaxed = !flush;
        let batch = Batch {
            number: out.last_number,
            documents: filling.documents,
            moved: moved.iter().map(|(kind, sequence)| cursor(*kind, *sequence, self.horizon)).collect(),
            flush,
            answered: filling.answered.iter().map(|hash| hash.0.to_vec().into()).collect(),
        };
        let sent = Sent { number: out.last_number, documents: filling.keys, lowest: filling.lowest, moved };
        out.in_flight.push_back(sent);
        batch
    }

    /// How far the cursor of `kind` may move in a batch on `lane`: everything before it is on that same lane earlier,
    /// or acknowledged, or was never owed.
    fn reach(&self, kind: Kind, lane: Lane) -> u64 {
        if self.comparing || !self.found.is_empty() {
            return 0;
        }
        let position = &self.positions[slot(kind)];
        let served = position.backlog.map_or(position.passed, |(passed, _)| passed);
        let settled = position.settled_live.into_iter().chain(position.settled_backlog).min().unwrap_or(NONE);
        let excepted = self.exceptions.values().filter(|exception| exception.kind == kind).map(|e| e.sequence);
        let elsewhere = Lane::ALL.into_iter().filter(|other| *other != lane);
        let in_flight = elsewhere.flat_map(|other| self.lanes[other as usize].in_flight.iter());
        let owed = excepted.chain(in_flight.map(|sent| sent.lowest[slot(kind)])).min().unwrap_or(NONE);
        served.min(owed - 1).min(settled)
    }

    /// Whether another batch could be filled for `lane` right away.
    pub(crate) fn owes(&self, lane: Lane, snapshot: &Snapshot) -> bool {
        let full = self.lanes[lane as usize].in_flight.len() >= LANE_BATCHES;
        let due = |kind: Kind| !self.due[slot(kind)].is_empty();
        let answers = match lane {
            Lane::Control | Lane::Bulk => false,
            Lane::Command => due(Kind::Command),
            Lane::Merged => due(Kind::Merged),
            Lane::Latest => due(Kind::Latest),
        };
        let live = |kind: Kind| self.positions[slot(kind)].scanned < snapshot.visible();
        let new = self.exceptions.len() < EXCEPTIONS
            && match lane {
                Lane::Control => false,
                Lane::Bulk => !self.found.is_empty() || self.positions.iter().any(|p| p.backlog.is_some()),
                Lane::Command => live(Kind::Command),
                Lane::Merged => live(Kind::Merged),
                Lane::Latest => live(Kind::Latest),
            };
        !full && (answers || new)
    }

    fn is_consistent(&self) -> bool {
        let waits = |exception: &&Exception| matches!(exception.owed, Owed::Offered { .. } | Owed::Crowded(_));
        let waiting = self.exceptions.values().filter(waits).count();
        let due: usize = self.due.iter().map(VecDeque::len).sum();
        waiting <= EXCEPTIONS && waiting + due == self.exceptions.len()
    }

    /// Sends what the peer asks for, or that it cannot be sent, and what came since what it has.
    fn fill_due(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        while !filling.is_full() {
            let Some(hash) = self.due[slot(kind)].front().copied() else { break };
            let record = self.readable(hash, snapshot.record(&hash))?;
            let record = match record {
                Some(record) if self.travels(&record, snapshot)? => Some(record),
                _ => None,
            };
            match (self.exceptions.get(&hash).map(|exception| &exception.owed), record) {
                (Some(Owed::Wanted(have)), record) => {
                    let lacked = record.as_ref().map(|it| lacked(it, hash, have, snapshot, filling.clock));
                    let lacked = self.readable(hash, lacked.transpose().map(Option::flatten))?;
                    match (record, lacked) {
                        (Some(record), Some(Lacked::Document(document))) => filling.push(&record, hash, *document),
                        (Some(record), Some(Lacked::Withheld(reason))) => {
                            let size = history_bytes(&record);
                            filling.push_offer(convert::offer(&record, hash, size, reason.clone()));
                            self.withhold(&record, hash, reason);
                        }
                        _ => {}
                    }
                    filling.answer(hash);
                    self.exceptions.remove(&hash);
                }
                (Some(Owed::Newer(held)), Some(record)) => {
                    let held = *held;
                    let offered = self.send(&record, (hash, held, false), snapshot, filling)?;
                    if !offered {
                        self.exceptions.remove(&hash);
                    }
                }
                (Some(_), None) | (None, _) => _ = self.exceptions.remove(&hash),
                (Some(Owed::Offered { .. } | Owed::Crowded(_)), _) => {}
            }
            self.due[slot(kind)].pop_front();
        }
        Ok(())
    }

    fn fill_live(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        let start = self.positions[slot(kind)];
        if start.scanned >= snapshot.visible() {
            return Ok(());
        }
        let mut entries = snapshot.entries(kind, start.scanned)?;
        let held = |scanned: u64| start.backlog.map_or(scanned, |(passed, _)| passed);
        for _ in 0..SCAN_ENTRIES {
            if filling.is_full() || self.exceptions.len() >= EXCEPTIONS {
                return Ok(());
            }
            let Some(entry) = entries.next().transpose()? else {
                self.positions[slot(kind)].scanned = snapshot.visible();
                self.positions[slot(kind)].settled_live = None;
                return Ok(());
            };
            let held = held(self.positions[slot(kind)].scanned);
            self.pass((&entry, kind), snapshot, held, filling)?;
            let position = &mut self.positions[slot(kind)];
            position.scanned = entry.sequence;
            position.passed = entry.sequence;
            position.settled_live = Some(snapshot.settled());
        }
        Ok(())
    }

    fn fill_backlog(&mut self, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        self.fill_found(snapshot, filling)?;
        for kind in Kind::ALL {
            self.fill_range(kind, snapshot, filling)?;
        }
        Ok(())
    }

    fn fill_found(&mut self, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        while !filling.is_full() && self.exceptions.len() < EXCEPTIONS {
            let Some((hash, theirs)) = self.found.last().copied() else { break };
            if let Some(record) = self.readable(hash, snapshot.record(&hash))?
                && !self.leave_to_answer(&hash, record.kind)
                && self.travels(&record, snapshot)?
            {
                self.send(&record, (hash, 0, theirs == Theirs::Lacks), snapshot, filling)?;
            }
            self.found.pop();
        }
        Ok(())
    }

    fn fill_range(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        let Some((mut passed, end)) = self.positions[slot(kind)].backlog else { return Ok(()) };
        let mut entries = snapshot.entries(kind, passed)?;
        for _ in 0..SCAN_ENTRIES {
            if filling.is_full() || self.exceptions.len() >= EXCEPTIONS {
                break;
            }
            let next = entries.next().transpose()?.filter(|entry| entry.sequence <= end);
            let Some(entry) = next else {
                let position = &mut self.positions[slot(kind)];
                position.backlog = None;
                position.settled_backlog = None;
                position.passed = position.passed.max(passed);
                return Ok(());
            };
            self.pass((&entry, kind), snapshot, passed, filling)?;
            passed = entry.sequence;
            let position = &mut self.positions[slot(kind)];
            position.backlog = Some((passed, end));
            position.settled_backlog = Some(snapshot.settled());
        }
        Ok(())
    }

    /// Sends the version at `entry`, or passes over it when the peer has it.
    fn pass(
        &mut self,
        (entry, kind): (&Entry, Kind),
        snapshot: &Snapshot,
        held: u64,
        filling: &mut Filling,
    ) -> Result<(), Error> {
        if (entry.from != 0 && Some(entry.from) == self.source) || self.leave_to_answer(&entry.hash, kind) {
            return Ok(());
        }
        if self.on_way.get(&entry.hash).is_some_and(|versions| versions.len() >= VERSIONS)
            && let Some(newest) = self.newest_on_way(&entry.hash)
        {
            let owed = Owed::Crowded(newest);
            self.exceptions.insert(entry.hash, Exception { kind, sequence: entry.sequence, owed });
            return Ok(());
        }
        let Some(record) = self.readable(entry.hash, snapshot.record_at(entry))? else { return Ok(()) };
        if self.travels(&record, snapshot)? {
            // Nothing can be built on what the peer did not keep.
            let held = if self.lacking.contains(&entry.hash) { 0 } else { held };
            let lacks = self.lacks_all && held == 0;
            self.send(&record, (entry.hash, held, lacks), snapshot, filling)?;
        }
        Ok(())
    }

    /// Whether a document's collection syncs with the peer. A tombstone's name is kept apart, of the newest ones; a peer refuses what
    /// passes here without one and does not fit.
    pub(crate) fn travels(&self, record: &Record, snapshot: &Snapshot) -> Result<bool, Error> {
        if self.excluded.is_empty() {
            return Ok(true);
        }
        let deleted = if record.is_live() { None } else { snapshot.deleted_name(record.sequence)? };
        Ok(!record.name.iter().chain(&deleted).any(|name| self.excluded.contains(name.collection())))
    }

    /// What was read of a document, and nothing of one that is damaged: that costs the document, not the link. The peer lacks
    /// it then.
    fn readable<T>(&mut self, hash: KeyHash, read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
        match read {
            Err(cause @ (Error::Damaged(_) | Error::History { .. })) => {
                let name = hash.0.map(|byte| format!("{byte:02x}")).concat();
                log::warn!("the document with key hash {name} is not sent: {cause}");
                if self.lacking.len() < LACKING {
                    self.lacking.insert(hash);
                }
                Ok(None)
            }
            read => read,
        }
    }

    /// Whether a document is owed out of order: what is sent then is its newest version, whatever was passed of it.
    fn leave_to_answer(&mut self, hash: &KeyHash, kind: Kind) -> bool {
        let Some(exception) = self.exceptions.get_mut(hash).filter(|exception| exception.kind == kind) else {
            return false;
        };
        if let Owed::Offered { passed, .. } = &mut exception.owed {
            *passed = true;
        }
        true
    }

    /// Adds a record to the batch: whole, as the changes after `held`, or, when large, as an offer. Whether as an offer.
    fn send(
        &mut self,
        record: &Record,
        (hash, held, lacks): (KeyHash, u64, bool),
        snapshot: &Snapshot,
        filling: &mut Filling,
    ) -> Result<bool, Error> {
        let mut chunks = Vec::new();
        if let Content::Merged { history, .. } = &record.content {
            if self.declined.get(&hash) == Some(&record.incarnation) {
                self.withhold(record, hash, "it has not kept an earlier version".into());
                return Ok(false);
            }
            let newer = history.after(held);
            let too_large = newer.iter().map(|part| part.length).sum::<usize>() > RECORD_BYTES;
            if (newer == history.parts() && history.size() > OFFER_BYTES && !lacks) || too_large {
                let owed = Owed::Offered { passed: false, incarnation: record.incarnation };
                self.exceptions.insert(hash, Exception { kind: record.kind, sequence: record.sequence, owed });
                filling.push_offer(convert::offer(record, hash, history.size(), String::new()));
                return Ok(true);
            }
            let Some(newer) = self.readable(hash, snapshot.chunks(newer).map(Some))? else { return Ok(false) };
            if let Some(reason) = withholds(&newer) {
                filling.push_offer(convert::offer(record, hash, history.size(), reason.clone()));
                self.withhold(record, hash, reason);
                return Ok(false);
            }
            chunks = newer;
        }
        filling.push(record, hash, convert::document(record, hash, chunks, filling.clock));
        Ok(false)
    }
}

/// What is sent to a peer that has asked for a document.
enum Lacked {
    Document(Box<Document>),
    /// It is not sent, for this reason.
    Withheld(String),
}

/// Bytes of a merged record's chunks.
fn history_bytes(record: &Record) -> usize {
    match &record.content {
        Content::Merged { history, .. } => history.size(),
        _ => 0,
    }
}

/// Why a peer would not take these chunks.
fn withholds(chunks: &[u8]) -> Option<String> {
    match chunks.len() {
        ..=UNCHECKED_BYTES => None,
        bytes @ ..=RECORD_BYTES => {
            chunk::check(chunks, CHUNK_ROWS).err().map(|cause| format!("of its {bytes} bytes of history {cause}"))
        }
        bytes => Some(format!("it takes {bytes} bytes to send; the limit is {RECORD_BYTES}")),
    }
}

/// What a peer that has these changes lacks: only that, or the whole document where that is more to take than the whole.
fn lacking(snapshot: &Snapshot, hash: &KeyHash, have: &[[u8; 32]]) -> Result<Option<Vec<u8>>, Error> {
    let changes = snapshot.changes_since(hash, have)?;
    if have.is_empty() || changes.as_deref().and_then(withholds).is_none() {
        return Ok(changes);
    }
    let whole = snapshot.changes_since(hash, &[])?;
    Ok(if whole.as_deref().and_then(withholds).is_none() { whole } else { changes })
}

/// What a peer lacks of a document that has these changes of it; `None` if there is no such document. Without changes, too: what the
/// record covers may be what the peer lacks.
fn lacked(
    record: &Record,
    hash: KeyHash,
    have: &[[u8; 32]],
    snapshot: &Snapshot,
    clock: SendClock,
) -> Result<Option<Lacked>, Error> {
    let changes = match &record.content {
        Content::Merged { .. } => lacking(snapshot, &hash, have)?,
        _ => Some(Vec::new()),
    };
    Ok(changes.map(|changes| match withholds(&changes) {
        Some(reason) => Lacked::Withheld(reason),
        None => Lacked::Document(Box::new(convert::document(record, hash, changes, clock))),
    }))
}

fn cursor(kind: Kind, sequence: u64, horizon: u64) -> Cursor {
    let horizon = if horizon > sequence { horizon } else { 0 };
    Cursor { kind: u32::from(kind as u8), sequence, horizon, ..Cursor::default() }
}

/// One version of a document has arrived.
fn arrived(on_way: &mut BTreeMap<KeyHash, Vec<u64>>, hash: KeyHash, sequence: u64) {
    let Some(versions) = on_way.get_mut(&hash) else { return };
    if let Some(at) = versions.iter().position(|version| *version == sequence) {
        versions.swap_remove(at);
    }
    if versions.is_empty() {
        on_way.remove(&hash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::EndpointId;
    use crate::store::RunId;

    const GOOD: KeyHash = KeyHash([1; 16]);
    const BAD: KeyHash = KeyHash([2; 16]);

    fn outbox() -> Outbox {
        let peer = PeerRun { node: EndpointId([3; 32]), run: RunId([4; 16]) };
        Outbox::new(peer, Start::After([0; 3]), 0, false, BTreeSet::new())
    }

    /// Pretends that a batch with these documents has left.
    fn send(outbox: &mut Outbox, documents: &[(KeyHash, u64)]) -> u64 {
        let lane = &mut outbox.lanes[Lane::Latest as usize];
        lane.last_number += 1;
        let moved = documents.iter().map(|(_, sequence)| (Kind::Latest, *sequence)).collect();
        let sent = Sent { number: lane.last_number, documents: documents.to_vec(), lowest: [NONE; 3], moved };
        lane.in_flight.push_back(sent);
        let number = lane.last_number;
        documents.iter().for_each(|(hash, sequence)| outbox.on_way.entry(*hash).or_default().push(*sequence));
        number
    }

    fn acked(outbox: &mut Outbox, number: u64, lacking: &[KeyHash]) -> Vec<(KeyHash, u64)> {
        let mut acked = Vec::new();
        let lacking = lacking.iter().copied().collect();
        outbox.ack(Lane::Latest, number, &lacking, |hash, sequence| acked.push((hash, sequence))).expect("it was sent");
        acked
    }

    #[test]
    fn a_document_the_peer_refused_does_not_count_as_held_until_it_keeps_a_newer_version() {
        let mut outbox = outbox();
        let first = send(&mut outbox, &[(BAD, 5), (GOOD, 6)]);
        assert_eq!(acked(&mut outbox, first, &[BAD]), [(GOOD, 6)]);
        assert!(outbox.has(&GOOD, Kind::Latest, 6) && !outbox.has(&BAD, Kind::Latest, 5));
        let second = send(&mut outbox, &[(BAD, 7)]);
        assert_eq!(acked(&mut outbox, second, &[]), [(BAD, 7)]);
        assert!(outbox.has(&BAD, Kind::Latest, 7));
    }

    #[test]
    fn nothing_of_an_offered_document_is_sent_until_the_peer_has_answered() {
        let mut outbox = outbox();
        let offered =
            Exception { kind: Kind::Merged, sequence: 5, owed: Owed::Offered { passed: false, incarnation: 1 } };
        outbox.exceptions.insert(GOOD, offered);
        assert!(outbox.leave_to_answer(&GOOD, Kind::Merged) && !outbox.leave_to_answer(&BAD, Kind::Merged));
        outbox.satisfied(&GOOD);
        assert!(matches!(outbox.exceptions[&GOOD].owed, Owed::Newer(5)), "{:?}", outbox.exceptions);
        assert_eq!(outbox.due[slot(Kind::Merged)], [GOOD]);
        outbox.want(GOOD, Vec::new()).expect("it may ask");
        assert!(outbox.is_consistent() && outbox.due[slot(Kind::Merged)] == [GOOD], "due once: {:?}", outbox.due);
    }

    #[test]
    fn a_cursor_says_how_far_the_node_was_flushed_when_that_is_further() {
        assert_eq!(cursor(Kind::Latest, 5, 9), Cursor { kind: 2, sequence: 5, horizon: 9, ..Cursor::default() });
        assert_eq!(cursor(Kind::Latest, 9, 9), Cursor { kind: 2, sequence: 9, ..Cursor::default() });
    }

    #[test]
    fn a_declined_offer_is_not_owed_any_more_and_what_passed_since_is() {
        let mut outbox = outbox();
        for (hash, passed) in [(GOOD, false), (BAD, true)] {
            let owed = Owed::Offered { passed, incarnation: 1 };
            outbox.exceptions.insert(hash, Exception { kind: Kind::Merged, sequence: 5, owed });
            outbox.decline(hash, None).expect("it was offered");
        }
        assert!(
            !outbox.exceptions.contains_key(&GOOD) && outbox.due[slot(Kind::Merged)] == [BAD] && outbox.is_consistent()
        );
        assert_eq!(outbox.declined.len(), 2);
        assert!(!outbox.has(&GOOD, Kind::Merged, 0), "it lacks what it declined");
        assert!(outbox.decline(GOOD, None).is_err(), "it was not offered again");
    }

    #[test]
    fn a_peer_that_asks_for_what_it_was_never_sent_is_bounded() {
        let mut outbox = outbox();
        let key = |n: usize| KeyHash((n as u128).to_be_bytes());
        let asked = (0..=2 * EXCEPTIONS).map(|n| outbox.want(key(n), Vec::new()));
        assert_eq!(asked.filter(Result::is_err).count(), 1);
        send(&mut outbox, &[(GOOD, 9)]);
        assert_eq!(outbox.want(GOOD, Vec::new()), Ok(()), "it was sent this one");
        assert_eq!(outbox.exceptions[&GOOD].sequence, 9);
    }

    #[test]
    fn a_document_edited_faster_than_the_peer_confirms_is_due_once_half_has_arrived() {
        let mut outbox = outbox();
        for version in 1..=VERSIONS as u64 {
            send(&mut outbox, &[(GOOD, version)]);
        }
        let crowded = Exception { kind: Kind::Latest, sequence: 9, owed: Owed::Crowded(8) };
        outbox.exceptions.insert(GOOD, crowded);
        acked(&mut outbox, 3, &[]);
        assert!(outbox.due[slot(Kind::Latest)].is_empty(), "five are on their way");
        acked(&mut outbox, 4, &[]);
        assert_eq!(outbox.due[slot(Kind::Latest)], [GOOD]);
        assert!(matches!(outbox.exceptions[&GOOD].owed, Owed::Newer(8)) && outbox.is_consistent());
    }
}

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

mod fill;
mod lacked;
mod refusals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{BATCH_BYTES, EXCEPTIONS, LACKING_KEYS, LANE_BATCHES};
use crate::store::{KeyHash, Kind, PeerRun, PerKind, Snapshot};
use crate::sync::convert::SendClock;
use crate::sync::link::{Lane, PerLane};
use crate::sync::mesh::{Batch, Cursor};
use crate::sync::reconcile::Theirs;
use fill::Filling;

/// Batches in flight past which the peer is asked to flush, so that relaxed acknowledgements do not stall the lane.
const FLUSH_AT: usize = LANE_BATCHES / 4;
/// Versions of one document on their way at once.
const VERSIONS: usize = 8;
/// Change hashes kept of what peers that ask for documents have. Past them a document is answered whole.
const HAVE_HASHES: usize = 65_536;
/// Documents remembered that the peer did not keep. With as many, only acknowledged documents count as held.
const LACKING: usize = LACKING_KEYS;
const NONE: u64 = u64::MAX;

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

/// A document on its way.
#[derive(Debug, Default)]
struct OnWay {
    /// The sequence numbers of its versions: about [`VERSIONS`] at most.
    versions: Vec<u64>,
    /// How many of these the peer has refused.
    refused: usize,
}

impl OnWay {
    fn oldest(&self) -> Option<u64> {
        self.versions.iter().min().copied()
    }

    fn newest(&self) -> Option<u64> {
        self.versions.iter().max().copied()
    }
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
    on_way: BTreeMap<KeyHash, OnWay>,
    /// Change hashes in [`Owed::Wanted`].
    have_hashes: usize,
    /// Offers that were answered.
    answers: u64,
    /// Documents of which the peer did not keep what it was last sent.
    lacking: BTreeSet<KeyHash>,
    /// Merged documents that the peer cannot take, each with the incarnation: within one they only grow, so nothing of that one
    /// is sent again in this session.
    declined: BTreeMap<KeyHash, u64>,
    /// Documents that were not sent since the last [`Outbox::take_withheld`], with the reason.
    withheld: Vec<(KeyHash, String)>,
    lanes: PerLane<LaneOut>,
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
            Start::Compare => (PerKind::filled(position(None)), true),
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
            have_hashes: 0,
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
        for (_, position) in self.positions.iter_mut() {
            position.passed = position.passed.max(visible);
        }
    }

    /// Whether more found documents may be added without passing the bound on what is owed out of order.
    pub(crate) fn takes_found(&self) -> bool {
        self.found.len() < EXCEPTIONS
    }

    /// Whether the backlog is served and acknowledged.
    pub(crate) fn is_caught_up(&self) -> bool {
        let bulk_idle = self.lanes[Lane::Bulk].in_flight.is_empty();
        let served = self.positions.iter().all(|(_, position)| position.backlog.is_none());
        !self.comparing && self.found.is_empty() && self.exceptions.is_empty() && served && bulk_idle
    }

    /// Whether the peer acknowledged everything of `kind` up to `sequence` and kept what it was sent of `hash`.
    pub(crate) fn has(&self, hash: &KeyHash, kind: Kind, sequence: u64) -> bool {
        self.acked(kind) >= sequence && !self.lacking.contains(hash) && self.lacking.len() < LACKING
    }

    /// Whether an acknowledgement is outstanding.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.lanes.iter().any(|(_, lane)| !lane.in_flight.is_empty())
    }

    /// The oldest batch of a lane without an acknowledgement.
    pub(crate) fn unacked(&self, lane: Lane) -> Option<u64> {
        self.lanes[lane].in_flight.front().map(|sent| sent.number)
    }

    /// How many offers were answered so far, while one is not.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let offers = self.exceptions.values().any(|exception| matches!(exception.owed, Owed::Offered { .. }));
        offers.then_some(self.answers)
    }

    /// The peer confirmed that it holds everything of `kind` up to this.
    pub(crate) fn acked(&self, kind: Kind) -> u64 {
        self.positions[kind].acked
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
        let have = if self.have_hashes + have.len() > HAVE_HASHES { Vec::new() } else { have };
        let more = have.len();
        let owed = Owed::Wanted(have);
        if let Some(exception) = self.exceptions.get_mut(&hash) {
            let fewer = if let Owed::Wanted(before) = &exception.owed { before.len() } else { 0 };
            self.have_hashes = self.have_hashes - fewer + more;
            self.answers += u64::from(matches!(exception.owed, Owed::Offered { .. }));
            if matches!(exception.owed, Owed::Offered { .. } | Owed::Crowded(_)) {
                self.due[exception.kind].push_back(hash);
            }
            exception.owed = owed;
            return Ok(());
        }
        let sent = self.on_way.get(&hash).and_then(OnWay::oldest);
        if sent.is_none() && self.exceptions.len() >= 2 * EXCEPTIONS {
            return Err("asks for too many documents that it was not sent");
        }
        // Of a document that is not on its way no sequence number is known; 1 holds the cursor back until it is sent.
        let sequence = sent.unwrap_or(1);
        self.have_hashes += more;
        self.exceptions.insert(hash, Exception { kind: Kind::Merged, sequence, owed });
        self.due[Kind::Merged].push_back(hash);
        Ok(())
    }

    /// The peer has what was offered, or something newer.
    pub(crate) fn satisfied(&mut self, hash: &KeyHash) {
        let Some(exception) = self.exceptions.get_mut(hash) else { return };
        self.answers += 1;
        match exception.owed {
            Owed::Offered { passed: true, .. } => {
                exception.owed = Owed::Newer(exception.sequence);
                self.due[exception.kind].push_back(*hash);
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
        let out = &mut self.lanes[lane];
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
                let acked = &mut self.positions[kind].acked;
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
            if self.on_way.get(hash).is_none_or(|it| it.versions.len() <= VERSIONS / 2) {
                exception.owed = Owed::Newer(if self.lacking.contains(hash) { 0 } else { held });
                self.due[exception.kind].push_back(*hash);
            }
        }
    }

    /// A batch that only moves cursors, when there is a cursor to move and nothing else will carry it.
    pub(crate) fn move_cursors(&mut self, urgent: bool) -> Option<Batch> {
        let blocked = self.lanes[Lane::Bulk].in_flight.len() >= LANE_BATCHES;
        let nothing = || Filling::new(SendClock::default(), BATCH_BYTES);
        (!blocked && self.can_move()).then(|| self.close(Lane::Bulk, nothing(), urgent))
    }

    /// Whether [`Outbox::move_cursors`] would have something to say.
    pub(crate) fn can_move(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.reach(kind, Lane::Bulk) > self.positions[kind].moved)
    }

    fn close(&mut self, lane: Lane, filling: Filling, urgent: bool) -> Batch {
        let moved: Vec<(Kind, u64)> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, self.reach(kind, lane)))
            .filter(|(kind, reach)| *reach > self.positions[*kind].moved)
            .collect();
        for (kind, reach) in &moved {
            self.positions[*kind].moved = *reach;
        }
        let mut crowded = false;
        for (hash, sequence) in &filling.keys {
            let versions = &mut self.on_way.entry(*hash).or_default().versions;
            versions.push(*sequence);
            crowded |= versions.len() >= VERSIONS / 2;
        }
        let out = &mut self.lanes[lane];
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
        let position = &self.positions[kind];
        let served = position.backlog.map_or(position.passed, |(passed, _)| passed);
        let settled = position.settled_live.into_iter().chain(position.settled_backlog).min().unwrap_or(NONE);
        let excepted = self.exceptions.values().filter(|exception| exception.kind == kind).map(|e| e.sequence);
        let elsewhere = Lane::ALL.into_iter().filter(|other| *other != lane);
        let in_flight = elsewhere.flat_map(|other| self.lanes[other].in_flight.iter());
        let owed = excepted.chain(in_flight.map(|sent| sent.lowest[kind])).min().unwrap_or(NONE);
        served.min(owed - 1).min(settled)
    }

    /// Whether another batch could be filled for `lane` right away.
    pub(crate) fn owes(&self, lane: Lane, snapshot: &Snapshot) -> bool {
        let full = self.lanes[lane].in_flight.len() >= LANE_BATCHES;
        let due = |kind: Kind| !self.due[kind].is_empty();
        let answers = match lane {
            Lane::Control | Lane::Bulk => false,
            Lane::Command => due(Kind::Command),
            Lane::Merged => due(Kind::Merged),
            Lane::Latest => due(Kind::Latest),
        };
        let live = |kind: Kind| self.positions[kind].scanned < snapshot.visible();
        let new = self.exceptions.len() < EXCEPTIONS
            && match lane {
                Lane::Control => false,
                Lane::Bulk => {
                    !self.found.is_empty() || self.positions.iter().any(|(_, position)| position.backlog.is_some())
                }
                Lane::Command => live(Kind::Command),
                Lane::Merged => live(Kind::Merged),
                Lane::Latest => live(Kind::Latest),
            };
        !full && (answers || new)
    }

    fn is_consistent(&self) -> bool {
        let waits = |exception: &&Exception| matches!(exception.owed, Owed::Offered { .. } | Owed::Crowded(_));
        let waiting = self.exceptions.values().filter(waits).count();
        let due: usize = self.due.iter().map(|(_, due)| due.len()).sum();
        let have = |exception: &Exception| if let Owed::Wanted(have) = &exception.owed { have.len() } else { 0 };
        let kept = self.exceptions.values().map(have).sum::<usize>() == self.have_hashes;
        kept && waiting <= EXCEPTIONS && waiting + due == self.exceptions.len()
    }
}

fn cursor(kind: Kind, sequence: u64, horizon: u64) -> Cursor {
    let horizon = if horizon > sequence { horizon } else { 0 };
    Cursor { kind: u32::from(kind as u8), sequence, horizon, ..Cursor::default() }
}

/// One version of a document has arrived.
fn arrived(on_way: &mut BTreeMap<KeyHash, OnWay>, hash: KeyHash, sequence: u64) {
    let Some(it) = on_way.get_mut(&hash) else { return };
    if let Some(at) = it.versions.iter().position(|version| *version == sequence) {
        it.versions.swap_remove(at);
    }
    it.refused = it.refused.saturating_sub(1);
    if it.versions.is_empty() {
        on_way.remove(&hash);
    }
}

#[cfg(test)]
mod tests;

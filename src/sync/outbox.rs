//! Outbox of one peer: cursors into the index of newest versions, never a queue of messages.
//!
//! Owns, for one session, how far the peer has been served and what it has acknowledged. Reads documents from the snapshot it
//! is handed, and must never hold more than [`EXCEPTIONS`] new documents out of order.
//!
//! # The problem
//!
//! A peer that was away for a week has to receive everything it lacks, in memory that does not depend on how much that is.
//! Meanwhile a command must not wait behind a catch-up, one document of many megabytes must not stop a lane, and after a crash
//! at either end the session must resume without a gap.
//!
//! A queue of messages per peer grows with the slowest peer, and sends versions that have been replaced since. A single cursor
//! over the index is bounded, but serves new documents last, stops at the first document that the peer has yet to answer for,
//! and cannot describe documents that travel on several lanes at once.
//!
//! # The cursors
//!
//! The index holds the newest version of each document, ordered by the sequence number of its commit. For each kind:
//!
//! * The **live scan** starts at the newest sequence number visible at the start of the session and follows new commits, on the
//!   lane of the kind.
//! * The **backlog** is the index from the peer's cursor up to that start, on the bulk lane. A session that begins with a
//!   comparison has no backlog; the documents that the comparison finds are sent in its place.
//! * An **exception** is a document owed out of order: it was offered, requested, or edited faster than the peer confirms. Its
//!   sequence number holds the cursor back until it is sent.
//!
//! A lane is served in this order: exceptions that are due, then the live scan; on the bulk lane the findings of the
//! comparison, then the backlog.
//!
//! Each batch states in `moved` the cursors that hold once it, and all batches before it on its lane, are durable at the peer.
//! The cursor of a kind in a batch on lane L is the smallest of:
//!
//! 1. the last entry passed by the backlog, or by the live scan once no backlog is left;
//! 2. one less than the oldest exception, and than the oldest document of that kind in flight on a lane other than L: lanes are
//!    not ordered among each other, while what precedes on L arrives first;
//! 3. [`Snapshot::settled`] of the snapshots read, as long as a scan has not reached its end: a crash of this node may bring
//!    back index entries that the scan has not seen.
//!
//! It is 0 while a comparison runs or one of its findings is unsent. A cursor also carries a horizon, the newest flushed
//! sequence number it relies on, from which this node recognises after a crash that the cursor counts on commits it has lost.
//!
//! # Progress
//!
//! No two conditions here wait for each other:
//!
//! 1. The window of a lane opens when the peer acknowledges. An [`Ack`](crate::sync::mesh::Ack) waits for the peer's store and
//!    disk alone, never for a missing document: it names those (`lacking`).
//! 2. A [`Want`](crate::sync::mesh::Want) is answered as soon as the merged lane's window is open, before anything else on that
//!    lane, and always: a batch names it in `answered` whether or not the document can be sent.
//! 3. An offer is answered by a `Want` on the control lane, which no window closes. Until then nothing else of that document is
//!    sent: the answer brings its newest version.
//! 4. A document that is edited faster than the peer confirms has at most `VERSIONS` versions in flight. Later ones become one
//!    exception, and once the peer has confirmed half of those in flight the newest version is sent, before other documents.
//! 5. Only new documents wait until fewer than [`EXCEPTIONS`] are owed out of order. Answers do not.
//!
//! # Bounds
//!
//! Memory per peer is bounded by `LANE_BATCHES` batches in flight per lane, each with the hashes of its documents, by twice
//! [`EXCEPTIONS`] exceptions besides those of documents in flight, and by `HAVE_HASHES` and `LACKING`. A peer that requests more
//! is disconnected. A batch costs at most `SCAN_ENTRIES` index entries per scan.
//!
//! # Tests
//!
//! `outbox/tests.rs` covers each rule alone; `sync/tests/progress.rs` the rules of progress, `sync/tests/documents.rs` and
//! `sync/tests/large.rs` two nodes; `tests/sim` crashes and partitions under random load.

mod fill;
mod lacked;
mod refusals;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::limits::{BATCH_BYTES, EXCEPTIONS, LACKING_KEYS, LANE_BATCHES};
use crate::store::{KeyHash, Kind, PeerRun, PerKind, Snapshot};
use crate::sync::convert::SendClock;
use crate::sync::link::{Lane, PerLane};
use crate::sync::mesh::{Batch, Cursor};
use crate::sync::reconcile::RemoteHas;
use fill::BatchBuilder;

/// Number of batches in flight from which a batch asks the peer to flush if the one before did not, so that deferred
/// acknowledgements do not stall the lane.
const FLUSH_AT: usize = LANE_BATCHES / 4;
/// Maximum number of versions of one document in flight.
const VERSIONS: usize = 8;
/// Maximum number of change hashes kept from the requests of a peer (2 MiB). A request beyond them is answered with the whole
/// document.
const HAVE_HASHES: usize = 65_536;
/// Maximum number of documents remembered that the peer did not keep. Once there are this many, no document counts as held.
const LACKING: usize = LACKING_KEYS;
const NONE: u64 = u64::MAX;

/// Progress of one kind.
#[derive(Clone, Copy, Debug, Default)]
struct Position {
    /// Sequence number up to which the live index has been scanned.
    scanned: u64,
    /// Newest entry passed, sent or skipped.
    passed: u64,
    /// The backlog: entries up to the first number are passed, those up to the second are owed.
    backlog: Option<(u64, u64)>,
    /// Upper bound of the cursor while the live scan has not reached its end: [`Snapshot::settled`] when it was interrupted.
    settled_live: Option<u64>,
    /// The same for the scan of the backlog.
    settled_backlog: Option<u64>,
    /// Newest cursor sent in a batch.
    moved: u64,
    /// Newest cursor acknowledged.
    acked: u64,
}

/// Document owed out of order. Its sequence number holds the cursor back.
#[derive(Debug)]
struct OutOfOrder {
    kind: Kind,
    sequence: u64,
    owed: Owed,
}

/// Next step for an [`OutOfOrder`].
#[derive(Debug)]
enum Owed {
    /// This incarnation was offered, and the peer has yet to answer; `passed` if a scan has passed a newer version since.
    Offered { passed: bool, incarnation: u64 },
    /// The peer requested the changes it lacks; it has these.
    Wanted(Vec<[u8; 32]>),
    /// As many versions as permitted are in flight, the newest with this sequence number; the newest version follows once the
    /// peer has confirmed enough of them.
    Crowded(u64),
    /// The peer has everything written up to this sequence number, and lacks the later changes.
    Newer(u64),
}

/// Document in flight.
#[derive(Debug, Default)]
struct OnWay {
    /// Sequence numbers of its versions: about [`VERSIONS`] at most.
    versions: Vec<u64>,
    /// Number of these that the peer has refused.
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

/// Batch in flight.
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
    /// True if the newest batch did not ask the peer to flush.
    relaxed: bool,
    in_flight: VecDeque<Sent>,
}

/// Start of a peer's backlog, by kind.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Start {
    /// After these positions.
    After(PerKind<u64>),
    /// No backlog: a comparison finds the missing documents.
    Compare,
}

/// State of what one peer lacks; see the module documentation.
#[derive(Debug)]
pub(crate) struct Outbox {
    peer: PeerRun,
    /// Number of (peer, run) in the index; the peer already has versions with this source.
    source: Option<u32>,
    /// True if the peer began empty: nothing need be offered.
    lacks_all: bool,
    excluded: BTreeSet<String>,
    positions: PerKind<Position>,
    /// Newest flushed sequence number of the snapshots that batches were filled from, on which cursors rely.
    horizon: u64,
    /// True while the comparison runs.
    comparing: bool,
    /// Documents found by the comparison and not yet sent.
    found: Vec<(KeyHash, RemoteHas)>,
    exceptions: BTreeMap<KeyHash, OutOfOrder>,
    /// Exceptions that can be sent at once: all except the offered and the crowded.
    due: PerKind<VecDeque<KeyHash>>,
    on_way: BTreeMap<KeyHash, OnWay>,
    /// Number of change hashes in [`Owed::Wanted`].
    have_hashes: usize,
    /// Number of offers answered.
    answers: u64,
    /// Documents of which the peer did not keep the version last sent.
    lacking: BTreeSet<KeyHash>,
    /// Merged documents that the peer cannot take, each with its incarnation. A document only grows within an incarnation, so
    /// no more of that one is sent in this session.
    declined: BTreeMap<KeyHash, u64>,
    /// Documents withheld since the last [`Outbox::take_withheld`], with the reason.
    withheld: Vec<(KeyHash, String)>,
    lanes: PerLane<LaneOut>,
}

impl Outbox {
    /// Creates the outbox of a session; its first snapshot showed sequence numbers up to `visible`.
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

    /// Adds documents that the comparison found to be owed.
    pub(crate) fn found(&mut self, found: impl IntoIterator<Item = (KeyHash, RemoteHas)>) {
        self.found.extend(found);
    }

    /// Ends the comparison: once its findings are sent, the peer has everything up to `visible`.
    pub(crate) fn compared(&mut self, visible: u64) {
        self.comparing = false;
        for (_, position) in self.positions.iter_mut() {
            position.passed = position.passed.max(visible);
        }
    }

    /// Returns true if more findings fit within the bound on documents owed out of order.
    pub(crate) fn takes_found(&self) -> bool {
        self.found.len() < EXCEPTIONS
    }

    /// Returns true if the backlog is served and acknowledged.
    pub(crate) fn is_caught_up(&self) -> bool {
        let bulk_idle = self.lanes[Lane::Bulk].in_flight.is_empty();
        let served = self.positions.iter().all(|(_, position)| position.backlog.is_none());
        !self.comparing && self.found.is_empty() && self.exceptions.is_empty() && served && bulk_idle
    }

    /// Returns true if the peer acknowledged everything of `kind` up to `sequence` and kept the version of `hash` last sent.
    pub(crate) fn has(&self, hash: &KeyHash, kind: Kind, sequence: u64) -> bool {
        self.acked(kind) >= sequence && !self.lacking.contains(hash) && self.lacking.len() < LACKING
    }

    /// Returns true if an acknowledgement is outstanding.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.lanes.iter().any(|(_, lane)| !lane.in_flight.is_empty())
    }

    /// Returns the number of the oldest unacknowledged batch of a lane.
    pub(crate) fn unacked(&self, lane: Lane) -> Option<u64> {
        self.lanes[lane].in_flight.front().map(|sent| sent.number)
    }

    /// Returns the number of offers answered so far, or `None` if no offer is unanswered.
    pub(crate) fn unanswered(&self) -> Option<u64> {
        let offers = self.exceptions.values().any(|exception| matches!(exception.owed, Owed::Offered { .. }));
        offers.then_some(self.answers)
    }

    /// Returns the sequence number up to which the peer confirmed that it holds everything of `kind`.
    pub(crate) fn acked(&self, kind: Kind) -> u64 {
        self.positions[kind].acked
    }

    /// Returns the number of this peer and run in the index, once the store has a version from it.
    pub(crate) fn source(&self) -> Option<u32> {
        self.source
    }

    /// Records that the peer requests a document: it lacks the document, or the base of a delta.
    ///
    /// # Errors
    /// The peer requests more than it was offered or sent.
    pub(crate) fn want(&mut self, hash: KeyHash, have: Vec<[u8; 32]>) -> Result<(), &'static str> {
        // Past the bound the changes that the peer has are dropped, so the answer is the whole document.
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
        // The sequence number of a document that is not in flight is unknown; 1 holds the cursor back until it is sent.
        let sequence = sent.unwrap_or(1);
        self.have_hashes += more;
        self.exceptions.insert(hash, OutOfOrder { kind: Kind::Merged, sequence, owed });
        self.due[Kind::Merged].push_back(hash);
        Ok(())
    }

    /// Records that the peer has the version offered, or a newer one.
    pub(crate) fn satisfied(&mut self, hash: &KeyHash) {
        let Some(exception) = self.exceptions.get_mut(hash) else { return };
        self.answers += 1;
        match exception.owed {
            Owed::Offered { passed: true, .. } => {
                // A scan passed a newer version while the offer was open: the changes since are owed.
                exception.owed = Owed::Newer(exception.sequence);
                self.due[exception.kind].push_back(*hash);
            }
            Owed::Offered { passed: false, .. } => _ = self.exceptions.remove(hash),
            Owed::Wanted(_) | Owed::Crowded(_) | Owed::Newer(_) => {}
        }
    }

    /// Records that the peer acknowledged every batch of `lane` up to `number` without keeping the documents in `lacking`;
    /// passes each (document, sequence) that it kept to `each`.
    ///
    /// # Errors
    /// The peer acknowledges a batch that was never sent.
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

    /// Makes crowded documents due once half of their versions in flight have arrived.
    fn release_crowded(&mut self) {
        for (hash, exception) in &mut self.exceptions {
            let Owed::Crowded(held) = exception.owed else { continue };
            if self.on_way.get(hash).is_none_or(|it| it.versions.len() <= VERSIONS / 2) {
                // The peer cannot apply a delta to a version it refused, so everything is sent then.
                exception.owed = Owed::Newer(if self.lacking.contains(hash) { 0 } else { held });
                self.due[exception.kind].push_back(*hash);
            }
        }
    }

    /// Returns a batch that only moves cursors, if a cursor can move and the bulk lane has room.
    pub(crate) fn move_cursors(&mut self, urgent: bool) -> Option<Batch> {
        let blocked = self.lanes[Lane::Bulk].in_flight.len() >= LANE_BATCHES;
        let nothing = || BatchBuilder::new(SendClock::default(), BATCH_BYTES);
        (!blocked && self.can_move()).then(|| self.close(Lane::Bulk, nothing(), urgent))
    }

    /// Returns true if [`Outbox::move_cursors`] has a cursor to move.
    pub(crate) fn can_move(&self) -> bool {
        Kind::ALL.into_iter().any(|kind| self.reach(kind, Lane::Bulk) > self.positions[kind].moved)
    }

    fn close(&mut self, lane: Lane, filling: BatchBuilder, urgent: bool) -> Batch {
        let moved: Vec<(Kind, u64)> = Kind::ALL
            .into_iter()
            .map(|kind| (kind, self.reach(kind, lane)))
            .filter(|(kind, reach)| *reach > self.positions[*kind].moved)
            .collect();
        for (kind, reach) in &moved {
            self.positions[*kind].moved = *reach;
        }
        // A document near its limit of versions asks for a flush, so that its acknowledgement comes soon.
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

    /// Returns the sequence number up to which a batch on `lane` may move the cursor of `kind`: everything before it was sent
    /// earlier on that same lane, or is acknowledged, or was never owed.
    fn reach(&self, kind: Kind, lane: Lane) -> u64 {
        if self.comparing || !self.found.is_empty() {
            return 0;
        }
        let position = &self.positions[kind];
        let served = position.backlog.map_or(position.passed, |(passed, _)| passed);
        let settled = position.settled_live.into_iter().chain(position.settled_backlog).min().unwrap_or(NONE);
        // The oldest debt of the kind: its exceptions, and its documents on lanes that are not ordered with this one.
        let excepted = self.exceptions.values().filter(|exception| exception.kind == kind).map(|e| e.sequence);
        let elsewhere = Lane::ALL.into_iter().filter(|other| *other != lane);
        let in_flight = elsewhere.flat_map(|other| self.lanes[other].in_flight.iter());
        let owed = excepted.chain(in_flight.map(|sent| sent.lowest[kind])).min().unwrap_or(NONE);
        served.min(owed - 1).min(settled)
    }

    /// Returns true if another batch can be filled for `lane` at once.
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
        let waits = |exception: &&OutOfOrder| matches!(exception.owed, Owed::Offered { .. } | Owed::Crowded(_));
        let waiting = self.exceptions.values().filter(waits).count();
        let due: usize = self.due.iter().map(|(_, due)| due.len()).sum();
        let have = |exception: &OutOfOrder| if let Owed::Wanted(have) = &exception.owed { have.len() } else { 0 };
        let kept = self.exceptions.values().map(have).sum::<usize>() == self.have_hashes;
        kept && waiting <= EXCEPTIONS && waiting + due == self.exceptions.len()
    }
}

fn cursor(kind: Kind, sequence: u64, horizon: u64) -> Cursor {
    let horizon = if horizon > sequence { horizon } else { 0 };
    Cursor { kind: u32::from(kind as u8), sequence, horizon, ..Cursor::default() }
}

/// Removes one version of a document from those in flight.
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

//! What one peer lacks: positions in the index of newest versions, never a queue of messages.
//!
//! Owns, for one session, how far the peer has been served and what it has acknowledged. Reads documents from the
//! snapshot it is handed, and must never hold more than [`EXCEPTIONS`] documents out of order.
//!
//! Three sources feed the lanes, in this order: documents the peer asked for, the live index past the session's start,
//! and the backlog (the index before the start, or what reconciliation found). A **cursor** moves only over what the
//! peer will have once the batch that carries it is applied; the batch says so in `moved`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::clock::Now;
use crate::limits::{BATCH_BYTES, EXCEPTIONS, LANE_BATCHES, OFFER_BYTES};
use crate::store::{Content, Entry, Error, KeyHash, Kind, PeerRun, Record, Snapshot};
use crate::sync::convert::{self, SendClock};
use crate::sync::link::Lane;
use crate::sync::mesh::{Batch, Cursor, Document};
use crate::sync::reconcile::Theirs;

/// Batches in flight past which the peer is asked to flush, so that relaxed acknowledgements do not stall the lane.
const FLUSH_AT: usize = LANE_BATCHES / 4;
/// Index entries looked at for one batch; skipped ones count.
const SCAN_ENTRIES: usize = 4_096;
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
    /// What the peer said it has; `None` while an offer is unanswered.
    have: Option<Vec<[u8; 32]>>,
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
    /// Reconciliation is still comparing.
    comparing: bool,
    /// Found by reconciliation, not yet sent.
    found: Vec<(KeyHash, Theirs)>,
    exceptions: BTreeMap<KeyHash, Exception>,
    wanted: VecDeque<KeyHash>,
    /// Documents the peer did not keep, with the newest sequence number it was sent of each.
    refused: BTreeMap<KeyHash, u64>,
    lanes: [LaneOut; 5],
}

/// A batch being filled.
#[derive(Debug)]
struct Filling {
    documents: Vec<Document>,
    keys: Vec<(KeyHash, u64)>,
    lowest: PerKind<u64>,
    bytes: usize,
    most: usize,
    clock: SendClock,
}

impl Filling {
    fn new(clock: SendClock, most: usize) -> Filling {
        Filling { documents: Vec::new(), keys: Vec::new(), lowest: [NONE; 3], bytes: 0, most, clock }
    }

    fn is_full(&self) -> bool {
        self.bytes >= self.most
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
            comparing,
            found: Vec::new(),
            exceptions: BTreeMap::new(),
            wanted: VecDeque::new(),
            refused: BTreeMap::new(),
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
        self.acked(kind) >= sequence && self.refused.get(hash).is_none_or(|refused| *refused < sequence)
    }

    /// The peer does not keep what it was just sent of a document.
    ///
    /// # Errors
    /// It was sent nothing of it.
    pub(crate) fn refused(&mut self, hash: KeyHash) -> Result<(), &'static str> {
        let in_flight = self.lanes.iter().flat_map(|lane| &lane.in_flight).flat_map(|sent| &sent.documents);
        let newest = in_flight.filter(|(key, _)| *key == hash).map(|(_, sequence)| *sequence).max();
        let newest = newest.ok_or("refuses a document it was not sent")?;
        if self.refused.len() < EXCEPTIONS || self.refused.contains_key(&hash) {
            self.refused.insert(hash, newest);
        }
        Ok(())
    }

    /// Whether an acknowledgement is outstanding.
    pub(crate) fn awaits_ack(&self) -> bool {
        self.lanes.iter().any(|lane| !lane.in_flight.is_empty())
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
    /// It asks for more than may be owed out of order.
    pub(crate) fn want(&mut self, hash: KeyHash, have: Vec<[u8; 32]>) -> Result<(), &'static str> {
        if self.exceptions.len() >= 2 * EXCEPTIONS && !self.exceptions.contains_key(&hash) {
            return Err("asks for too many documents at once");
        }
        // A document that was not offered has no known sequence number yet; 1 holds the cursor back until it is sent.
        let unknown = || Exception { kind: Kind::Merged, sequence: 1, have: None };
        let exception = self.exceptions.entry(hash).or_insert_with(unknown);
        if exception.have.replace(have).is_none() {
            self.wanted.push_back(hash);
        }
        Ok(())
    }

    /// The peer has what was offered, or something newer.
    pub(crate) fn satisfied(&mut self, hash: &KeyHash) {
        if self.exceptions.get(hash).is_some_and(|exception| exception.have.is_none()) {
            self.exceptions.remove(hash);
        }
    }

    /// The peer acknowledged every batch of `lane` up to `number`; hands each (document, sequence) it has to `each`.
    ///
    /// # Errors
    /// It acknowledges what was never sent.
    pub(crate) fn ack(
        &mut self,
        lane: Lane,
        number: u64,
        mut each: impl FnMut(KeyHash, u64),
    ) -> Result<(), &'static str> {
        let out = &mut self.lanes[lane as usize];
        if number > out.last_number {
            return Err("acknowledges a batch that was never sent");
        }
        while out.in_flight.front().is_some_and(|sent| sent.number <= number) {
            let sent = out.in_flight.pop_front().expect("just seen");
            for (hash, sequence) in sent.documents {
                match self.refused.get(&hash) {
                    Some(refused) if *refused >= sequence => {}
                    Some(_) => {
                        self.refused.remove(&hash);
                        each(hash, sequence);
                    }
                    None => each(hash, sequence),
                }
            }
            for (kind, sequence) in sent.moved {
                let acked = &mut self.positions[slot(kind)].acked;
                *acked = sequence.max(*acked);
            }
        }
        Ok(())
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
        let mut filling = Filling::new(SendClock { boot: snapshot.boot(), boot_ms: now.boot_ms }, most);
        match lane {
            Lane::Control => return Ok(None),
            Lane::Bulk => self.fill_backlog(snapshot, &mut filling)?,
            Lane::Command => self.fill_live(Kind::Command, snapshot, &mut filling)?,
            Lane::Merged => {
                self.fill_wanted(snapshot, &mut filling)?;
                self.fill_live(Kind::Merged, snapshot, &mut filling)?;
            }
            Lane::Latest => self.fill_live(Kind::Latest, snapshot, &mut filling)?,
        }
        let nudge = urgent && self.lanes[lane as usize].relaxed;
        let nothing = filling.documents.is_empty() && !nudge;
        Ok(if nothing { None } else { Some(self.close(lane, filling, urgent)) })
    }

    /// A batch that only moves cursors, when there is a cursor to move and nothing else will carry it.
    pub(crate) fn move_cursors(&mut self) -> Option<Batch> {
        self.can_move().then(|| self.close(Lane::Bulk, Filling::new(SendClock::default(), BATCH_BYTES), false))
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
        let out = &mut self.lanes[lane as usize];
        out.last_number += 1;
        let flush = urgent || (out.relaxed && out.in_flight.len() >= FLUSH_AT);
        out.relaxed = !flush;
        let batch = Batch {
            number: out.last_number,
            documents: filling.documents,
            moved: moved.iter().map(|(kind, sequence)| cursor(*kind, *sequence)).collect(),
            flush,
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
        let blocked = self.lanes[lane as usize].in_flight.len() >= LANE_BATCHES || self.exceptions.len() >= EXCEPTIONS;
        let live = |kind: Kind| self.positions[slot(kind)].scanned < snapshot.visible();
        !blocked
            && match lane {
                Lane::Control => false,
                Lane::Bulk => !self.found.is_empty() || self.positions.iter().any(|p| p.backlog.is_some()),
                Lane::Command => live(Kind::Command),
                Lane::Merged => live(Kind::Merged) || !self.wanted.is_empty(),
                Lane::Latest => live(Kind::Latest),
            }
    }

    fn fill_wanted(&mut self, snapshot: &Snapshot, filling: &mut Filling) -> Result<(), Error> {
        while !filling.is_full() {
            let Some(hash) = self.wanted.front().copied() else { break };
            let have = self.exceptions.get(&hash).and_then(|exception| exception.have.as_deref()).unwrap_or(&[]);
            if let Some(record) = readable(hash, snapshot.record(&hash))? {
                let document = match &record.content {
                    Content::Merged { .. } => {
                        // Without changes too: what the record covers may be what the peer lacks.
                        let changes = readable(hash, snapshot.changes_since(&hash, have))?;
                        changes.map(|changes| convert::document(&record, hash, changes, filling.clock))
                    }
                    _ => Some(convert::document(&record, hash, Vec::new(), filling.clock)),
                };
                if let Some(document) = document {
                    filling.push(&record, hash, document);
                }
            }
            self.wanted.pop_front();
            self.exceptions.remove(&hash);
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
            self.pass(&entry, snapshot, held, filling)?;
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
            if let Some(record) = readable(hash, snapshot.record(&hash))? {
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
            self.pass(&entry, snapshot, passed, filling)?;
            passed = entry.sequence;
            let position = &mut self.positions[slot(kind)];
            position.backlog = Some((passed, end));
            position.settled_backlog = Some(snapshot.settled());
        }
        Ok(())
    }

    /// Sends the version at `entry`, or passes over it when the peer has it.
    fn pass(&mut self, entry: &Entry, snapshot: &Snapshot, held: u64, filling: &mut Filling) -> Result<(), Error> {
        if entry.from != 0 && Some(entry.from) == self.source {
            return Ok(());
        }
        let Some(record) = readable(entry.hash, snapshot.record_at(entry))? else { return Ok(()) };
        let is_excluded = record.name.as_ref().is_some_and(|name| self.excluded.contains(name.collection()));
        if !is_excluded {
            let lacks = self.lacks_all && held == 0;
            self.send(&record, (entry.hash, held, lacks), snapshot, filling)?;
        }
        Ok(())
    }

    /// Adds a record to the batch: whole, as the changes after `held`, or, when large, as an offer.
    fn send(
        &mut self,
        record: &Record,
        (hash, held, lacks): (KeyHash, u64, bool),
        snapshot: &Snapshot,
        filling: &mut Filling,
    ) -> Result<(), Error> {
        let mut chunks = Vec::new();
        if let Content::Merged { history, .. } = &record.content {
            let newer = history.after(held);
            if newer == history.parts() && history.size() > OFFER_BYTES && !lacks {
                let exception = Exception { kind: record.kind, sequence: record.sequence, have: None };
                self.exceptions.insert(hash, exception);
                filling.documents.push(convert::offer(record, hash, history.size()));
                filling.bytes += OFFER_BYTES / 16;
                return Ok(());
            }
            let Some(newer) = readable(hash, snapshot.chunks(newer).map(Some))? else { return Ok(()) };
            chunks = newer;
        }
        filling.push(record, hash, convert::document(record, hash, chunks, filling.clock));
        Ok(())
    }
}

/// What was read of a document, and nothing of one that is damaged: that costs the document, not the link.
fn readable<T>(hash: KeyHash, read: Result<Option<T>, Error>) -> Result<Option<T>, Error> {
    match read {
        Err(cause @ (Error::Damaged(_) | Error::History { .. })) => {
            let hash = hash.0.map(|byte| format!("{byte:02x}")).concat();
            log::warn!("the document with key hash {hash} is not sent: {cause}");
            Ok(None)
        }
        read => read,
    }
}

fn cursor(kind: Kind, sequence: u64) -> Cursor {
    Cursor { kind: u32::from(kind as u8), sequence, ..Cursor::default() }
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
        lane.last_number
    }

    fn acked(outbox: &mut Outbox, number: u64) -> Vec<(KeyHash, u64)> {
        let mut acked = Vec::new();
        outbox.ack(Lane::Latest, number, |hash, sequence| acked.push((hash, sequence))).expect("it was sent");
        acked
    }

    #[test]
    fn a_document_the_peer_refused_does_not_count_as_held_until_it_keeps_a_newer_version() {
        let mut outbox = outbox();
        let first = send(&mut outbox, &[(BAD, 5), (GOOD, 6)]);
        outbox.refused(BAD).expect("it was sent");
        assert_eq!(acked(&mut outbox, first), [(GOOD, 6)]);
        assert!(outbox.has(&GOOD, Kind::Latest, 6) && !outbox.has(&BAD, Kind::Latest, 5));
        let second = send(&mut outbox, &[(BAD, 7)]);
        assert_eq!(acked(&mut outbox, second), [(BAD, 7)]);
        assert!(outbox.has(&BAD, Kind::Latest, 7));
    }

    #[test]
    fn a_peer_that_refuses_what_it_was_not_sent_breaks_the_protocol() {
        assert!(outbox().refused(BAD).is_err());
    }
}

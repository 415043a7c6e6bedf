//! Fills batches from a snapshot: documents that are due, the live index, the backlog.

use super::lacked::{self, Lacked};
use super::{LACKING, NONE, OutOfOrder, Outbox, Owed, VERSIONS};
use crate::clock::Now;
use crate::limits::{BATCH_DOCUMENTS, EXCEPTIONS, LANE_BATCHES, OFFER_BYTES, RECORD_BYTES};
use crate::store::{Content, Error, IndexEntry, KeyHash, Kind, PerKind, Record, Snapshot};
use crate::sync::convert::{self, SendClock};
use crate::sync::link::Lane;
use crate::sync::mesh::{Batch, Document};
use crate::sync::reconcile::RemoteHas;

/// Maximum number of index entries examined by one scan of a batch, skipped ones included; bounds the time of a call.
const SCAN_ENTRIES: usize = 4_096;

/// Batch under construction.
#[derive(Debug)]
pub(super) struct BatchBuilder {
    pub(super) documents: Vec<Document>,
    pub(super) keys: Vec<(KeyHash, u64)>,
    pub(super) answered: Vec<KeyHash>,
    pub(super) lowest: PerKind<u64>,
    bytes: usize,
    most: usize,
    clock: SendClock,
}

impl BatchBuilder {
    pub(super) fn new(clock: SendClock, most: usize) -> BatchBuilder {
        let (documents, keys, answered) = (Vec::new(), Vec::new(), Vec::new());
        BatchBuilder { documents, keys, answered, lowest: PerKind::filled(NONE), bytes: 0, most, clock }
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
        let lowest = &mut self.lowest[record.kind];
        *lowest = record.sequence.min(*lowest);
    }
}

impl Outbox {
    /// Returns the next batch for `lane`, or `None` if nothing is owed on it or its window is full. With `urgent` a caller
    /// waits for an acknowledgement, so the peer is asked to flush, by an empty batch if necessary. The batch is closed after
    /// `most` bytes of documents.
    ///
    /// # Errors
    /// The store could not be read; the outbox is unchanged.
    pub(crate) fn fill(
        &mut self,
        now: Now,
        lane: Lane,
        snapshot: &Snapshot,
        (urgent, most): (bool, usize),
    ) -> Result<Option<Batch>, Error> {
        if self.lanes[lane].in_flight.len() >= LANE_BATCHES {
            return Ok(None);
        }
        if self.source.is_none() {
            self.source = snapshot.source(self.peer)?;
        }
        self.horizon = self.horizon.max(snapshot.flushed());
        let mut filling = BatchBuilder::new(SendClock { boot: snapshot.boot(), boot_ms: now.boot_ms }, most);
        match lane {
            Lane::Control => return Ok(None),
            Lane::Bulk => self.fill_backlog(snapshot, &mut filling)?,
            Lane::Command => self.fill_kind(Kind::Command, snapshot, &mut filling)?,
            Lane::Merged => self.fill_kind(Kind::Merged, snapshot, &mut filling)?,
            Lane::Latest => self.fill_kind(Kind::Latest, snapshot, &mut filling)?,
        }
        // An empty batch carries the request to flush that a caller waits for.
        let nudge = urgent && self.lanes[lane].relaxed;
        debug_assert!(self.is_consistent(), "each exception is due, or waits for the peer");
        let nothing = filling.documents.is_empty() && filling.answered.is_empty() && !nudge;
        Ok(if nothing { None } else { Some(self.close(lane, filling, urgent)) })
    }

    fn fill_kind(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        self.fill_due(kind, snapshot, filling)?;
        debug_assert!(self.due[kind].is_empty() || filling.is_full(), "an answer waits for a document");
        self.fill_live(kind, snapshot, filling)
    }

    /// Sends requested documents, or an answer that they cannot be sent, and the changes since the version a peer has.
    fn fill_due(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        while !filling.is_full() {
            let Some(hash) = self.due[kind].front().copied() else { break };
            let record = self.readable(hash, snapshot.record(&hash))?;
            let record = match record {
                Some(record) if self.travels(&record, snapshot)? => Some(record),
                _ => None,
            };
            match (self.exceptions.get(&hash).map(|exception| &exception.owed), record) {
                (Some(Owed::Wanted(have)), record) => {
                    let count = have.len();
                    let lacked = record.as_ref().map(|it| lacked::lacked(it, hash, have, snapshot, filling.clock));
                    let lacked = self.readable(hash, lacked.transpose().map(Option::flatten))?;
                    match (record, lacked) {
                        (Some(record), Some(Lacked::Document(document))) => filling.push(&record, hash, *document),
                        (Some(record), Some(Lacked::Withheld(reason))) => {
                            let size = lacked::history_bytes(&record);
                            filling.push_offer(convert::offer(&record, hash, size, reason.clone()));
                            self.withhold(&record, hash, reason);
                        }
                        _ => {}
                    }
                    filling.answer(hash);
                    self.have_hashes -= count;
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
            // Removed last, so that an error above leaves the document due.
            self.due[kind].pop_front();
        }
        Ok(())
    }

    fn fill_live(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        let start = self.positions[kind];
        if start.scanned >= snapshot.visible() {
            return Ok(());
        }
        let mut entries = snapshot.entries(kind, start.scanned)?;
        // While a backlog is left, the peer is only certain to have the versions that the backlog has passed.
        let held = |scanned: u64| start.backlog.map_or(scanned, |(passed, _)| passed);
        for _ in 0..SCAN_ENTRIES {
            if filling.is_full() || self.exceptions.len() >= EXCEPTIONS {
                return Ok(());
            }
            let Some(entry) = entries.next().transpose()? else {
                self.positions[kind].scanned = snapshot.visible();
                self.positions[kind].settled_live = None;
                return Ok(());
            };
            let held = held(self.positions[kind].scanned);
            self.pass((&entry, kind), snapshot, held, filling)?;
            let position = &mut self.positions[kind];
            position.scanned = entry.sequence;
            position.passed = entry.sequence;
            position.settled_live = Some(snapshot.settled());
        }
        Ok(())
    }

    fn fill_backlog(&mut self, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        self.fill_found(snapshot, filling)?;
        for kind in Kind::ALL {
            self.fill_range(kind, snapshot, filling)?;
        }
        Ok(())
    }

    fn fill_found(&mut self, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        while !filling.is_full() && self.exceptions.len() < EXCEPTIONS {
            let Some((hash, theirs)) = self.found.last().copied() else { break };
            if let Some(record) = self.readable(hash, snapshot.record(&hash))?
                && !self.leave_to_answer(&hash, record.kind)
                && self.travels(&record, snapshot)?
            {
                self.send(&record, (hash, 0, theirs == RemoteHas::Lacks), snapshot, filling)?;
            }
            self.found.pop();
        }
        Ok(())
    }

    fn fill_range(&mut self, kind: Kind, snapshot: &Snapshot, filling: &mut BatchBuilder) -> Result<(), Error> {
        let Some((mut passed, end)) = self.positions[kind].backlog else { return Ok(()) };
        let mut entries = snapshot.entries(kind, passed)?;
        for _ in 0..SCAN_ENTRIES {
            if filling.is_full() || self.exceptions.len() >= EXCEPTIONS {
                break;
            }
            let next = entries.next().transpose()?.filter(|entry| entry.sequence <= end);
            let Some(entry) = next else {
                let position = &mut self.positions[kind];
                position.backlog = None;
                position.settled_backlog = None;
                position.passed = position.passed.max(passed);
                return Ok(());
            };
            self.pass((&entry, kind), snapshot, passed, filling)?;
            passed = entry.sequence;
            let position = &mut self.positions[kind];
            position.backlog = Some((passed, end));
            position.settled_backlog = Some(snapshot.settled());
        }
        Ok(())
    }

    /// Sends the version at `entry`, or skips it if the peer has it.
    fn pass(
        &mut self,
        (entry, kind): (&IndexEntry, Kind),
        snapshot: &Snapshot,
        held: u64,
        filling: &mut BatchBuilder,
    ) -> Result<(), Error> {
        // It came from this peer, or an exception will send the newest version.
        if (entry.from != 0 && Some(entry.from) == self.source) || self.leave_to_answer(&entry.hash, kind) {
            return Ok(());
        }
        if let Some(on_way) = self.on_way.get(&entry.hash).filter(|it| it.versions.len() >= VERSIONS)
            && let Some(newest) = on_way.newest()
        {
            let owed = Owed::Crowded(newest);
            self.exceptions.insert(entry.hash, OutOfOrder { kind, sequence: entry.sequence, owed });
            return Ok(());
        }
        let Some(record) = self.readable(entry.hash, snapshot.record_at(entry))? else { return Ok(()) };
        if self.travels(&record, snapshot)? {
            // The peer cannot apply a delta to a version it did not keep.
            let held = if self.lacking.contains(&entry.hash) { 0 } else { held };
            let lacks = self.lacks_all && held == 0;
            self.send(&record, (entry.hash, held, lacks), snapshot, filling)?;
        }
        Ok(())
    }

    /// Returns true if the document's collection syncs with the peer. Names of tombstones are stored apart, for the newest ones
    /// only; a tombstone without a name passes here, and a peer that excludes its collection refuses it.
    pub(crate) fn travels(&self, record: &Record, snapshot: &Snapshot) -> Result<bool, Error> {
        if self.excluded.is_empty() {
            return Ok(true);
        }
        let deleted = if record.is_live() { None } else { snapshot.deleted_name(record.sequence)? };
        Ok(!record.name.iter().chain(&deleted).any(|name| self.excluded.contains(name.collection())))
    }

    /// Returns what was read of a document, or `None` if the record is damaged: damage costs the document, not the link. The
    /// peer is then noted as lacking the document.
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

    /// Returns true if a document is owed out of order: its newest version is sent then, regardless of the versions passed
    /// here.
    pub(super) fn leave_to_answer(&mut self, hash: &KeyHash, kind: Kind) -> bool {
        let Some(exception) = self.exceptions.get_mut(hash).filter(|exception| exception.kind == kind) else {
            return false;
        };
        if let Owed::Offered { passed, .. } = &mut exception.owed {
            *passed = true;
        }
        true
    }

    /// Adds a record to the batch: whole, as the changes after `held`, or, if large, as an offer. Returns true if it was
    /// offered.
    fn send(
        &mut self,
        record: &Record,
        (hash, held, lacks): (KeyHash, u64, bool),
        snapshot: &Snapshot,
        filling: &mut BatchBuilder,
    ) -> Result<bool, Error> {
        let mut chunks = Vec::new();
        if let Content::Merged { history, .. } = &record.content {
            if self.declined.get(&hash) == Some(&record.incarnation) {
                self.withhold(record, hash, "it has not kept an earlier version".into());
                return Ok(false);
            }
            let newer = history.after(held);
            let too_large = newer.iter().map(|part| part.length).sum::<usize>() > RECORD_BYTES;
            // Offered first: the peer may have most of a large document, and a difference may fit where the whole does not.
            if (newer == history.parts() && history.size() > OFFER_BYTES && !lacks) || too_large {
                let owed = Owed::Offered { passed: false, incarnation: record.incarnation };
                self.exceptions.insert(hash, OutOfOrder { kind: record.kind, sequence: record.sequence, owed });
                filling.push_offer(convert::offer(record, hash, history.size(), String::new()));
                return Ok(true);
            }
            let Some(newer) = self.readable(hash, snapshot.chunks(newer).map(Some))? else { return Ok(false) };
            if let Some(reason) = lacked::withholds(&newer) {
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

//! Reads without the store thread: snapshots of the committed database.
//!
//! Must never write, and never waits for a commit in progress.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{AccessGuard, ReadTransaction, ReadableDatabase, ReadableTable};

use crate::clock::BootId;
use crate::contain::contain;
use crate::identity::EndpointId;
use crate::store::backend::FailedFlag;
use crate::store::database_clock::DatabaseClock;
use crate::store::fingerprint::{self, Fingerprint};
use crate::store::merged::Doc;
use crate::store::record::RecordRef;
use crate::store::tables::{
    self, CHUNKS, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_SYNC, NAMES, RECORDS, RUNS, SOURCES, State,
};
use crate::store::{
    COMMANDS, CommandResult, CommandView, Content, Cursor, Error, Key, KeyHash, Kind, Origin, Part, PeerRun, Record,
    RunId, SavedPeer, StoreMetrics, Version, VersionHash,
};

/// Takes snapshots. Cheap to clone and to send. [`crate::store::Store::poll_reopened`] replaces it after a storage error.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) database: Arc<redb::Database>,
    /// Size of the database file in bytes, updated by the engine after every commit.
    pub(super) size: Arc<AtomicU64>,
    /// Shut once this opening of the database has failed.
    pub(super) gate: FailedFlag,
    pub(super) id: [u8; 16],
    pub(super) run: RunId,
    pub(super) node: EndpointId,
    pub(super) clocks: DatabaseClock,
    pub(super) figures: Arc<StoreMetrics>,
}

impl Reader {
    /// Returns the newest committed state, including unflushed commits.
    ///
    /// # Errors
    /// The disk failed.
    pub fn snapshot(&self) -> Result<Snapshot, Error> {
        self.gate.pass()?;
        let transaction = self.database.begin_read()?;
        let state = State::of(&transaction.open_table(RECORDS)?)?;
        let file_bytes = self.size.load(Ordering::Relaxed);
        Ok(Snapshot { transaction, state, file_bytes, clocks: self.clocks })
    }

    /// Returns the id of this run. A store that was opened again after a storage error is in a new run, and its unflushed
    /// commits are lost.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Returns the id of the database, which was drawn when it was created.
    #[must_use]
    pub fn database(&self) -> [u8; 16] {
        self.id
    }

    /// Returns the metrics of the store.
    #[must_use]
    pub fn figures(&self) -> &StoreMetrics {
        &self.figures
    }

    /// Returns the endpoint id of this node.
    #[must_use]
    pub fn node(&self) -> EndpointId {
        self.node
    }
}

/// One consistent state of the database. Hold it briefly: pages freed since it was taken cannot be reused.
pub struct Snapshot {
    transaction: ReadTransaction,
    pub(super) state: State,
    file_bytes: u64,
    clocks: DatabaseClock,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("visible", &self.state.sequence).finish_non_exhaustive()
    }
}

/// A live document, for clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Document {
    /// JSON text, with sorted keys and no white space.
    pub json: String,
    /// Version to return as `base`.
    pub version: Version,
    /// Sequence number of the commit that wrote it here.
    pub sequence: u64,
    /// Node that wrote this version.
    pub origin: Origin,
    /// Incarnation, which grows with each creation after a deletion.
    pub incarnation: u64,
}

/// One entry of the index of newest versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndexEntry {
    /// Sequence number of the commit that wrote the record.
    pub sequence: u64,
    /// Key hash of the record.
    pub hash: KeyHash,
    /// Version hash of the record.
    pub version: VersionHash,
    /// Number ([`Snapshot::source`]) of the peer and run that delivered exactly this version; 0 if none did.
    pub from: u32,
}

/// Amount of stored data.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Number of live documents.
    pub live: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Size of the database file, in bytes.
    pub file_bytes: u64,
}

impl Snapshot {
    /// Returns a live document; `None` if it does not exist or was deleted.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn document(&self, key: &Key) -> Result<Option<Document>, Error> {
        let hash = key.hash();
        let Some(bytes) = self.record_bytes(&hash)? else { return Ok(None) };
        let record = RecordRef::decode(bytes.value())?;
        Ok(record.body.as_ref().map(|body| Document {
            json: body.json.to_owned(),
            version: record.version(&hash),
            sequence: record.sequence,
            origin: body.origin,
            incarnation: record.incarnation,
        }))
    }

    /// Returns the ids of a collection's live documents, sorted by their bytes.
    ///
    /// # Errors
    /// The disk failed.
    pub fn list(&self, collection: &str) -> Result<Vec<String>, Error> {
        let names = self.transaction.open_table(NAMES)?;
        let (start, end) = tables::name_range(collection);
        let mut ids = Vec::new();
        for row in names.range(start.as_slice()..end.as_slice())? {
            let (name, _) = row?;
            let id = String::from_utf8(name.value()[start.len()..].to_vec());
            ids.push(id.map_err(|_| Error::Damaged("a name is not UTF-8".into()))?);
        }
        Ok(ids)
    }

    /// Returns the ids of [`Snapshot::list`] that begin with `prefix`.
    ///
    /// # Errors
    /// The disk failed.
    pub fn list_from(&self, collection: &str, prefix: &str) -> Result<Vec<String>, Error> {
        let names = self.transaction.open_table(NAMES)?;
        let (start, end) = tables::name_range(collection);
        let first = [start.as_slice(), prefix.as_bytes()].concat();
        let mut ids = Vec::new();
        for row in names.range(first.as_slice()..end.as_slice())? {
            let (name, _) = row?;
            if !name.value().starts_with(&first) {
                break;
            }
            let id = String::from_utf8(name.value()[start.len()..].to_vec());
            ids.push(id.map_err(|_| Error::Damaged("a name is not UTF-8".into()))?);
        }
        Ok(ids)
    }

    /// Returns the name of an index entry's document, at less cost than [`Snapshot::record`]. `None` for a tombstone with a
    /// name that was forgotten.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn name(&self, entry: &IndexEntry) -> Result<Option<Key>, Error> {
        let Some(bytes) = self.bytes_at(&tables::number_key(entry.sequence))? else { return Ok(None) };
        match RecordRef::decode(bytes.value())?.body {
            Some(body) => body.name().map(Some),
            None => self.deleted_name(entry.sequence),
        }
    }

    /// Returns the newest sequence number in this snapshot.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.state.sequence
    }

    /// Returns the limit of a cursor or token for a scan that has not reached [`Snapshot::visible`]. A crash takes unflushed
    /// commits back, and restores the index entries that they removed: from this number on, a scan may have passed the place
    /// of a record that will return. The scan also counts on everything up to [`Snapshot::flushed`].
    #[must_use]
    pub fn settled(&self) -> u64 {
        match self.state.unsettled {
            0 => self.state.sequence,
            lowest => lowest - 1,
        }
    }

    /// Returns the newest sequence number in this snapshot that a crash cannot take back.
    #[must_use]
    pub fn flushed(&self) -> u64 {
        self.state.flushed
    }

    /// Iterates over the records of one kind with sequence numbers above `after`, including tombstones, oldest first. There is
    /// exactly one entry for each record.
    ///
    /// # Errors
    /// The disk failed.
    pub fn entries(
        &self,
        kind: Kind,
        after: u64,
    ) -> Result<impl Iterator<Item = Result<IndexEntry, Error>> + use<>, Error> {
        let index = self.transaction.open_table(INDEX)?;
        let start = tables::index_key(kind, after.saturating_add(1));
        let end = tables::index_key(kind, u64::MAX);
        let rows = index.range(start.as_slice()..end.as_slice())?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            tables::index_entry(key.value(), value.value())
        }))
    }

    /// Returns the bytes of a record, by its key hash.
    fn record_bytes(&self, hash: &KeyHash) -> Result<Option<AccessGuard<'static, &'static [u8]>>, Error> {
        let keys = self.transaction.open_table(KEYS)?;
        let Some(sequence) = keys.get(hash.0.as_slice())? else { return Ok(None) };
        self.bytes_at(sequence.value())
    }

    /// Returns the number of records, keys and chunks.
    #[cfg(test)]
    pub(super) fn rows(&self) -> [u64; 3] {
        use redb::ReadableTableMetadata;
        let length = |table| self.transaction.open_table(table).unwrap().len().unwrap();
        [length(RECORDS) - 1, length(KEYS), length(CHUNKS)]
    }

    fn bytes_at(&self, sequence: &[u8]) -> Result<Option<AccessGuard<'static, &'static [u8]>>, Error> {
        Ok(self.transaction.open_table(RECORDS)?.get(sequence)?)
    }

    /// Returns a record, live or deleted.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn record(&self, hash: &KeyHash) -> Result<Option<Record>, Error> {
        self.decode(self.record_bytes(hash)?)
    }

    /// Returns the record of an index entry of this snapshot, with one look-up less than by its key.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn record_at(&self, entry: &IndexEntry) -> Result<Option<Record>, Error> {
        self.decode(self.bytes_at(&tables::number_key(entry.sequence))?)
    }

    fn decode(&self, bytes: Option<AccessGuard<'static, &'static [u8]>>) -> Result<Option<Record>, Error> {
        let Some(bytes) = bytes else { return Ok(None) };
        let mut record = RecordRef::decode(bytes.value())?.to_record()?;
        if !record.is_live()
            && let Some((origin, _)) = self.deleted(record.sequence)?
        {
            record.origin = origin;
        }
        Ok(Some(record))
    }

    /// Returns a command, or `None` if there is none with this id.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn command(&self, id: &str) -> Result<Option<CommandView>, Error> {
        let Ok(key) = Key::new(COMMANDS, id) else { return Ok(None) };
        Ok(self.record(&key.hash())?.and_then(|record| self.view(&record)))
    }

    /// Returns the command in a record, if it is one.
    #[must_use]
    pub fn view(&self, record: &Record) -> Option<CommandView> {
        CommandView::of(record, self.clocks)
    }

    /// Returns the result or progress of one target of a command, if there is one.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn command_result(&self, id: &str, agent: &str) -> Result<Option<CommandResult>, Error> {
        let Ok(key) = Key::new(COMMANDS, format!("{id}:{agent}")) else { return Ok(None) };
        Ok(match self.record(&key.hash())?.map(|record| record.content) {
            Some(Content::Result(result)) => Some(*result),
            _ => None,
        })
    }

    /// Returns the id of this boot of the machine.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.clocks.boot
    }

    /// Returns the name of the document that the commit `sequence` deleted, if it existed here before and its name is still
    /// stored. `None` for a tombstone that no subscriber here needs to see.
    ///
    /// # Errors
    /// The disk failed.
    pub fn deleted_name(&self, sequence: u64) -> Result<Option<Key>, Error> {
        Ok(self.deleted(sequence)?.map(|(_, name)| name))
    }

    /// Returns the same as [`Snapshot::deleted_name`], with the node that deleted the document.
    pub(super) fn deleted(&self, sequence: u64) -> Result<Option<(Origin, Key)>, Error> {
        let deleted = self.transaction.open_table(DELETED)?;
        let row = deleted.get(tables::number_key(sequence).as_slice())?;
        row.map(|row| tables::deleted_entry(row.value())).transpose()
    }

    /// Returns the sequence number from which the feed is complete: the names of earlier deletions were dropped.
    #[must_use]
    pub fn deleted_floor(&self) -> u64 {
        self.state.deleted_floor
    }

    /// Returns true if everything up to `sequence` of `run` is part of this database's history.
    ///
    /// # Errors
    /// The disk failed.
    pub fn token_is_known(&self, run: RunId, sequence: u64) -> Result<bool, Error> {
        let runs = self.runs()?;
        let Some(at) = runs.iter().position(|(known, _)| *known == run) else { return Ok(false) };
        // A run ended where the next one began.
        let ended = runs.get(at + 1).map_or(self.state.sequence, |(_, start)| start - 1);
        Ok(sequence <= ended)
    }

    /// Returns the cursors into the indexes of `peer`, at most one for each kind.
    ///
    /// # Errors
    /// The disk failed.
    pub fn cursors(&self, peer: &EndpointId) -> Result<Vec<Cursor>, Error> {
        let cursors = self.transaction.open_table(CURSORS)?;
        let mut found = Vec::new();
        for kind in Kind::ALL {
            let row = cursors.get(tables::cursor_key(peer, kind).as_slice())?;
            found.extend(row.map(|row| tables::cursor(kind, row.value())).transpose()?);
        }
        Ok(found)
    }

    /// Returns the number that stands for this peer and run in [`IndexEntry::from`]; `None` if it has not delivered anything.
    ///
    /// # Errors
    /// The disk failed.
    pub fn source(&self, peer: PeerRun) -> Result<Option<u32>, Error> {
        let sources = self.transaction.open_table(SOURCES)?;
        let row = sources.get(peer.node.0.as_slice())?.map(|row| tables::source_entry(row.value())).transpose()?;
        Ok(row.and_then(|(number, run)| (run == peer.run).then_some(number)))
    }

    /// Returns the stored runs, oldest first, each with the first sequence number that it could write.
    ///
    /// # Errors
    /// The disk failed.
    pub fn runs(&self) -> Result<Vec<(RunId, u64)>, Error> {
        let runs = self.transaction.open_table(RUNS)?;
        runs.iter()?.map(|row| tables::run_entry(row?.1.value())).collect()
    }

    /// Returns the operator's settings for peers, made over the API.
    ///
    /// # Errors
    /// The disk failed.
    pub fn links(&self) -> Result<Vec<SavedPeer>, Error> {
        let links = self.transaction.open_table(LINKS)?;
        let rows = links.iter()?.map(|row| {
            let (peer, wish) = row?;
            tables::link(peer.value(), wish.value())
        });
        rows.collect()
    }

    /// Returns the saved setting of sync; `None` if it was never saved.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync_setting(&self) -> Result<Option<bool>, Error> {
        Ok(self.transaction.open_table(META)?.get(META_SYNC)?.map(|byte| byte.value() == [1]))
    }

    /// Returns the amount of stored data.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let State { live, tombstones, .. } = self.state;
        Counts { live, tombstones, file_bytes: self.file_bytes }
    }

    /// Returns the fingerprint of all records.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        fingerprint::fingerprint(self.state.live + self.state.tombstones, self.state.sum)
    }

    /// Returns uncompressed Automerge chunks of the changes to a `merged` document that a node with the change hashes `have`
    /// lacks (unknown hashes are ignored); `None` if there is no such live document. Loads the document.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn changes_since(&self, hash: &KeyHash, have: &[[u8; 32]]) -> Result<Option<Vec<u8>>, Error> {
        let Some(bytes) = self.record_bytes(hash)? else { return Ok(None) };
        let record = RecordRef::decode(bytes.value())?;
        let Some((body, history)) = record.body.as_ref().and_then(|body| Some((body, body.history()?))) else {
            return Ok(None);
        };
        let chunks = self.chunks(history.parts())?;
        // The actor is unused, because nothing is written.
        let changes = contain(|| Doc::load(&chunks, [0; 16]).map(|document| document.changes_after(have)));
        match changes.map_err(|panic| panic.to_string()).map(|changes| changes.map_err(|cause| cause.to_string())) {
            Ok(Ok(changes)) => Ok(Some(changes)),
            Ok(Err(reason)) | Err(reason) => Err(Error::History { key: body.name()?, reason }),
        }
    }

    /// Returns some of the chunks of a `merged` record of this snapshot, concatenated.
    ///
    /// # Errors
    /// The disk failed or a chunk is missing.
    pub fn chunks(&self, parts: &[Part]) -> Result<Vec<u8>, Error> {
        let rows = self.transaction.open_table(CHUNKS)?;
        let mut chunks = Vec::new();
        for part in parts {
            let row = rows.get(tables::number_key(part.label).as_slice())?;
            let row = row.filter(|row| row.value().len() == part.length);
            let damaged = || Error::Damaged(format!("the chunk of commit {} is missing", part.label));
            chunks.extend_from_slice(row.ok_or_else(damaged)?.value());
        }
        Ok(chunks)
    }

    /// Returns hashes of changes to a `merged` document, its heads, for a peer to build on. Empty if there is no such live
    /// document.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn sample(&self, hash: &KeyHash) -> Result<Vec<[u8; 32]>, Error> {
        Ok(match self.record(hash)?.map(|record| record.content) {
            Some(Content::Merged { heads, .. }) => heads,
            _ => Vec::new(),
        })
    }
}

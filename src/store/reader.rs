//! Reading without the store thread: snapshots of the committed database.
//!
//! Must never write, and never waits for a commit in progress.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{AccessGuard, ReadTransaction, ReadableDatabase, ReadableTable};

use crate::clock::BootId;
use crate::contain::contain;
use crate::identity::EndpointId;
use crate::store::age::Clocks;
use crate::store::backend::Gate;
use crate::store::fingerprint::{self, Fingerprint};
use crate::store::merged::Doc;
use crate::store::record::RecordRef;
use crate::store::tables::{
    self, CHUNKS, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_SYNC, NAMES, RECORDS, RUNS, SOURCES, State,
};
use crate::store::{
    COMMANDS, CommandResult, CommandView, Content, Cursor, Error, Figures, Key, KeyHash, Kind, Link, Origin, Part,
    PeerRun, Record, RunId, Version, VersionHash,
};

/// Opens snapshots. Cheap to clone and to send; replaced by [`crate::store::Store::poll_reopened`] after a storage error.
#[derive(Clone, Debug)]
pub struct Reader {
    pub(super) database: Arc<redb::Database>,
    /// Bytes of the database file; the engine updates it after every commit.
    pub(super) size: Arc<AtomicU64>,
    /// Shut once this opening of the database has failed.
    pub(super) gate: Gate,
    pub(super) id: [u8; 16],
    pub(super) run: RunId,
    pub(super) node: EndpointId,
    pub(super) clocks: Clocks,
    pub(super) figures: Arc<Figures>,
}

impl Reader {
    /// The newest committed state, unflushed commits included.
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

    /// This run. A store that was reopened after a storage error is in a new run: what was not flushed is gone.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.run
    }

    /// Made once with the database.
    #[must_use]
    pub fn database(&self) -> [u8; 16] {
        self.id
    }

    /// What the store has done.
    #[must_use]
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// This node.
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
    clocks: Clocks,
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot").field("visible", &self.state.sequence).finish_non_exhaustive()
    }
}

/// A live document, for clients.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Document {
    /// Keys sorted, no white space.
    pub json: String,
    /// Give it back as `base`.
    pub version: Version,
    /// The commit that wrote it here.
    pub sequence: u64,
    /// Who wrote this version.
    pub origin: Origin,
    /// Starts over after every delete.
    pub incarnation: u64,
}

/// One line of the index of newest versions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry {
    /// The commit that wrote the record.
    pub sequence: u64,
    /// Which record.
    pub hash: KeyHash,
    /// Which version of it.
    pub version: VersionHash,
    /// The number ([`Snapshot::source`]) of the peer and run that delivered exactly this version; 0: nobody did.
    pub from: u32,
}

/// How much is stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counts {
    /// Live documents.
    pub live: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// The database file.
    pub file_bytes: u64,
}

impl Snapshot {
    /// A live document; `None` for one that does not exist or was deleted.
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

    /// The ids of a collection's live documents, sorted by their bytes.
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

    /// The ids among [`Snapshot::list`] that begin with `prefix`.
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

    /// What the document of an index entry is called: cheaper than [`Snapshot::record`]. `None` for a tombstone whose name
    /// was forgotten.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn name(&self, entry: &Entry) -> Result<Option<Key>, Error> {
        let Some(bytes) = self.bytes_at(&tables::number_key(entry.sequence))? else { return Ok(None) };
        match RecordRef::decode(bytes.value())?.body {
            Some(body) => body.name().map(Some),
            None => self.deleted_name(entry.sequence),
        }
    }

    /// The newest sequence number in this snapshot.
    #[must_use]
    pub fn visible(&self) -> u64 {
        self.state.sequence
    }

    /// How far a cursor or a token may claim that was earned by a scan which has not reached [`Snapshot::visible`]. A crash
    /// takes unflushed commits back, and puts the index entries they removed where they were: at or above this, a scan may
    /// have passed by the place of a record that will be there again. It counts on everything up to [`Snapshot::flushed`].
    #[must_use]
    pub fn settled(&self) -> u64 {
        match self.state.unsettled {
            0 => self.state.sequence,
            lowest => lowest - 1,
        }
    }

    /// The newest sequence number that a crash cannot take back from this snapshot.
    #[must_use]
    pub fn flushed(&self) -> u64 {
        self.state.flushed
    }

    /// The records of one kind whose sequence number is above `after`, tombstones included, oldest first. Exactly one
    /// entry per record.
    ///
    /// # Errors
    /// The disk failed.
    pub fn entries(&self, kind: Kind, after: u64) -> Result<impl Iterator<Item = Result<Entry, Error>> + use<>, Error> {
        let index = self.transaction.open_table(INDEX)?;
        let start = tables::index_key(kind, after.saturating_add(1));
        let end = tables::index_key(kind, u64::MAX);
        let rows = index.range(start.as_slice()..end.as_slice())?;
        Ok(rows.map(|row| {
            let (key, value) = row?;
            tables::index_entry(key.value(), value.value())
        }))
    }

    /// A record as it is stored, by its key.
    fn record_bytes(&self, hash: &KeyHash) -> Result<Option<AccessGuard<'static, &'static [u8]>>, Error> {
        let keys = self.transaction.open_table(KEYS)?;
        let Some(sequence) = keys.get(hash.0.as_slice())? else { return Ok(None) };
        self.bytes_at(sequence.value())
    }

    /// How many records, keys and chunks there are.
    #[cfg(test)]
    pub(super) fn rows(&self) -> [u64; 3] {
        use redb::ReadableTableMetadata;
        let length = |table| self.transaction.open_table(table).unwrap().len().unwrap();
        [length(RECORDS) - 1, length(KEYS), length(CHUNKS)]
    }

    fn bytes_at(&self, sequence: &[u8]) -> Result<Option<AccessGuard<'static, &'static [u8]>>, Error> {
        Ok(self.transaction.open_table(RECORDS)?.get(sequence)?)
    }

    /// One record, whatever its state.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn record(&self, hash: &KeyHash) -> Result<Option<Record>, Error> {
        self.decode(self.record_bytes(hash)?)
    }

    /// The record of an index entry of this snapshot: one look-up less.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn record_at(&self, entry: &Entry) -> Result<Option<Record>, Error> {
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

    /// A command; `None` when there is none of this id.
    ///
    /// # Errors
    /// The disk failed or the record is damaged.
    pub fn command(&self, id: &str) -> Result<Option<CommandView>, Error> {
        let Ok(key) = Key::new(COMMANDS, id) else { return Ok(None) };
        Ok(self.record(&key.hash())?.and_then(|record| self.view(&record)))
    }

    /// A record's command, if it holds one.
    #[must_use]
    pub fn view(&self, record: &Record) -> Option<CommandView> {
        CommandView::of(record, self.clocks)
    }

    /// The result of one of a command's targets, if it gave any.
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

    /// This start of the machine.
    #[must_use]
    pub fn boot(&self) -> BootId {
        self.clocks.boot
    }

    /// The name of the document whose deletion was committed as `sequence`, if it existed here before and the name is
    /// still kept. `None` for a tombstone nobody here needs to hear of.
    ///
    /// # Errors
    /// The disk failed.
    pub fn deleted_name(&self, sequence: u64) -> Result<Option<Key>, Error> {
        Ok(self.deleted(sequence)?.map(|(_, name)| name))
    }

    /// Like [`Snapshot::deleted_name`], with who deleted it.
    pub(super) fn deleted(&self, sequence: u64) -> Result<Option<(Origin, Key)>, Error> {
        let deleted = self.transaction.open_table(DELETED)?;
        let row = deleted.get(tables::number_key(sequence).as_slice())?;
        row.map(|row| tables::deleted_entry(row.value())).transpose()
    }

    /// The feed is complete from tokens at or above this; names of deletions before it were dropped.
    #[must_use]
    pub fn deleted_floor(&self) -> u64 {
        self.state.deleted_floor
    }

    /// Whether everything up to `sequence` of `run` happened in this database's history.
    ///
    /// # Errors
    /// The disk failed.
    pub fn token_is_known(&self, run: RunId, sequence: u64) -> Result<bool, Error> {
        let runs = self.runs()?;
        let Some(at) = runs.iter().position(|(known, _)| *known == run) else { return Ok(false) };
        let ended = runs.get(at + 1).map_or(self.state.sequence, |(_, start)| start - 1);
        Ok(sequence <= ended)
    }

    /// What this node has of `peer`'s changes, at most one cursor per kind.
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

    /// The number under which [`Entry::from`] names this peer in this run; `None` when it delivered nothing yet.
    ///
    /// # Errors
    /// The disk failed.
    pub fn source(&self, peer: PeerRun) -> Result<Option<u32>, Error> {
        let sources = self.transaction.open_table(SOURCES)?;
        let row = sources.get(peer.node.0.as_slice())?.map(|row| tables::source_entry(row.value())).transpose()?;
        Ok(row.and_then(|(number, run)| (run == peer.run).then_some(number)))
    }

    /// The runs remembered, oldest first, each with the first sequence number it could write.
    ///
    /// # Errors
    /// The disk failed.
    pub fn runs(&self) -> Result<Vec<(RunId, u64)>, Error> {
        let runs = self.transaction.open_table(RUNS)?;
        runs.iter()?.map(|row| tables::run_entry(row?.1.value())).collect()
    }

    /// What the operator said of peers over the API.
    ///
    /// # Errors
    /// The disk failed.
    pub fn links(&self) -> Result<Vec<Link>, Error> {
        let links = self.transaction.open_table(LINKS)?;
        let rows = links.iter()?.map(|row| {
            let (peer, wish) = row?;
            tables::link(peer.value(), wish.value())
        });
        rows.collect()
    }

    /// Whether sync was on when last saved; `None` when it never was.
    ///
    /// # Errors
    /// The disk failed.
    pub fn sync_setting(&self) -> Result<Option<bool>, Error> {
        Ok(self.transaction.open_table(META)?.get(META_SYNC)?.map(|byte| byte.value() == [1]))
    }

    /// How much is stored.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let State { live, tombstones, .. } = self.state;
        Counts { live, tombstones, file_bytes: self.file_bytes }
    }

    /// Of all records.
    #[must_use]
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        fingerprint::fingerprint(self.state.live + self.state.tombstones, self.state.sum)
    }

    /// Uncompressed Automerge chunks of what the owner of the change hashes `have` lacks of a `merged` document (hashes
    /// not known here are ignored); `None` when there is no such live document. Loads the document.
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
        // Nothing is written with this actor.
        let changes = contain(|| Doc::load(&chunks, [0; 16]).map(|document| document.changes_after(have)));
        match changes.map_err(|panic| panic.to_string()).map(|changes| changes.map_err(|cause| cause.to_string())) {
            Ok(Ok(changes)) => Ok(Some(changes)),
            Ok(Err(reason)) | Err(reason) => Err(Error::History { key: body.name()?, reason }),
        }
    }

    /// Some of the chunks of a `merged` record of this snapshot, one after the other.
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

    /// Change hashes this node has of a `merged` document, for a peer to build on: its heads. Empty when there is no such
    /// live document.
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

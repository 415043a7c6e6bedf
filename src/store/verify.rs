//! Reads a whole database that no node has open, and reports its damage.
//!
//! Owns the order of the checks: redb's own of its pages, then every record, then the rows of other tables about records. Must
//! never change the file: repairs by redb on opening stay in memory ([`super::overlay`]).

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Builder, Database, ReadTransaction, ReadableDatabase, ReadableTableMetadata};

use crate::contain::contain;
use crate::store::backend::{self, Backend, FailedFlag, Found};
use crate::store::disk::DATABASE;
use crate::store::fingerprint::summand;
use crate::store::journal;
use crate::store::overlay::Overlay;
use crate::store::record::RecordRef;
use crate::store::tables::{self, CHUNKS, INDEX, KEYS, NAMES, RECORDS, STATE, State};
use crate::store::{Error, History, IndexEntry, Record};

/// Maximum number of complaints kept as text; further ones are only counted.
const COMPLAINTS: usize = 100;
/// Memory for redb's pages during the check, in bytes.
const CACHE_BYTES: usize = 8 << 20;

/// Result of the check.
#[derive(Debug, Default)]
pub struct Verified {
    /// Number of live documents.
    pub live: u64,
    /// Number of tombstones.
    pub tombstones: u64,
    /// Descriptions of the damage; the first hundred complaints.
    pub damaged: Vec<String>,
    /// Number of complaints.
    pub complaints: u64,
}

impl Verified {
    fn complain(&mut self, words: String) {
        self.complaints += 1;
        if self.damaged.len() < COMPLAINTS {
            self.damaged.push(words);
        }
    }
}

/// Verifies the database of a data directory, which the caller has locked. Returns `None` if there is no database yet.
///
/// # Errors
/// The file cannot be read or opened at all: it is of a newer format, foreign, or damaged in its first pages.
pub fn verify(directory: &Path) -> Result<Option<Verified>, Error> {
    let Some(file) = open(directory)? else { return Ok(None) };
    let disk = Arc::new(Overlay::over(file, usize::MAX)?);
    let looked = contain(|| look(&disk));
    looked.unwrap_or_else(|panic| Err(Error::Damaged(format!("a page of the file: {panic}"))))
}

/// Opens the database file of a data directory for reading; `None` if there is none.
fn open(directory: &Path) -> Result<Option<File>, Error> {
    let path = directory.join(DATABASE);
    match File::open(&path) {
        Ok(file) => Ok(Some(file)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::NotOurs { path: path.display().to_string(), reason: cause.to_string() }),
    }
}

fn look(disk: &Arc<Overlay<File>>) -> Result<Option<Verified>, Error> {
    if backend::look(disk.as_ref())? == Found::Nothing {
        return Ok(None);
    }
    let backend = Backend::new(disk.clone(), FailedFlag::default())?;
    let mut database = Builder::new().set_cache_size(CACHE_BYTES).create_with_backend(backend)?;
    let mut verified = Verified::default();
    check_pages(&mut database, &mut verified)?;
    // The journal belongs to the database: apply it, in memory only.
    let transaction = database.begin_write()?;
    journal::replay(disk.as_ref(), &transaction)?;
    transaction.commit()?;
    let transaction = database.begin_read()?;
    let sums = Records::open(&transaction)?.walk(&mut verified)?;
    check_counts(&transaction, &sums, &mut verified)?;
    Ok(Some(verified))
}

fn check_pages(database: &mut Database, verified: &mut Verified) -> Result<(), Error> {
    let whole =
        database.check_integrity().map_err(|cause| Error::Damaged(format!("the pages of the file: {cause}")))?;
    if !whole {
        verified.complain("pages of the file do not match their checksums".to_owned());
    }
    Ok(())
}

type Table = redb::ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The records, and the tables that refer to them.
struct Records {
    records: Table,
    index: Table,
    keys: Table,
    names: Table,
    chunks: Table,
}

/// Totals of all records.
#[derive(Default)]
struct Sums {
    /// Sum of the summands of their fingerprint.
    summands: u128,
    /// Number of chunks that they refer to.
    chunks: u64,
}

impl Records {
    fn open(transaction: &ReadTransaction) -> Result<Records, Error> {
        let open = |table| transaction.open_table(table);
        let [records, index, keys, names] = [open(RECORDS)?, open(INDEX)?, open(KEYS)?, open(NAMES)?];
        Ok(Records { records, index, keys, names, chunks: open(CHUNKS)? })
    }

    /// Checks every record.
    fn walk(&self, verified: &mut Verified) -> Result<Sums, Error> {
        let mut sums = Sums::default();
        for row in self.records.range(..STATE.as_slice())? {
            let (key, bytes) = row?;
            let sequence = tables::number(key.value())?;
            match self.check(sequence, bytes.value()) {
                Ok((record, summand)) => {
                    *if record.is_live() { &mut verified.live } else { &mut verified.tombstones } += 1;
                    sums.summands = sums.summands.wrapping_add(summand);
                    sums.chunks += record.history().map_or(0, |history| history.parts().len() as u64);
                }
                Err(Error::Damaged(words)) => verified.complain(format!("record {sequence}: {words}")),
                Err(error) => return Err(error),
            }
        }
        Ok(sums)
    }

    /// Returns the record, if it passes the checks, and what it adds to the sum of all.
    fn check(&self, sequence: u64, bytes: &[u8]) -> Result<(Record, u128), Error> {
        let record = RecordRef::decode(bytes)?.to_record()?;
        let wrong = |words: &str| {
            let name = record.name.as_ref().map_or_else(|| "a tombstone".to_owned(), ToString::to_string);
            Error::Damaged(format!("{name}: {words}"))
        };
        if record.sequence != sequence {
            return Err(wrong("it says that it is another"));
        }
        let entry = self.entry(&record)?.ok_or_else(|| wrong("the index does not list it"))?;
        if entry.version != record.version_hash() {
            return Err(wrong("it is not the version that the index lists"));
        }
        let at = self.keys.get(entry.hash.0.as_slice())?;
        if at.is_none_or(|at| at.value() != tables::number_key(sequence)) {
            return Err(wrong("its key leads elsewhere"));
        }
        if let Some(name) = &record.name {
            let listed = self.names.get(tables::name_key(name).as_slice())?;
            if name.hash() != entry.hash || listed.is_none_or(|hash| hash.value() != entry.hash.0) {
                return Err(wrong("its name leads elsewhere"));
            }
        }
        for part in record.history().map_or(&[][..], History::parts) {
            let chunk = self.chunks.get(tables::number_key(part.label).as_slice())?;
            if chunk.is_none_or(|chunk| chunk.value().len() != part.length) {
                return Err(wrong(&format!("its chunk of commit {} is missing or of another length", part.label)));
            }
        }
        Ok((record, summand(&entry.hash, &entry.version)))
    }

    fn entry(&self, record: &Record) -> Result<Option<IndexEntry>, Error> {
        let key = tables::index_key(record.kind, record.sequence);
        let value = self.index.get(key.as_slice())?;
        value.map(|value| tables::index_entry(&key, value.value())).transpose()
    }
}

/// Checks for rows without a record, and for wrong counters.
fn check_counts(transaction: &ReadTransaction, sums: &Sums, verified: &mut Verified) -> Result<(), Error> {
    let length = |table| Ok::<u64, Error>(transaction.open_table(table)?.len()?);
    let [records, index, keys, names] = [length(RECORDS)?, length(INDEX)?, length(KEYS)?, length(NAMES)?];
    // The counters are a row, too.
    let records = records.saturating_sub(1);
    if [index, keys] != [records; 2] {
        verified.complain(format!("there are {records} records, {index} entries of the index and {keys} keys"));
    }
    let state = State::of(&transaction.open_table(RECORDS)?)?;
    if verified.complaints == 0
        && (state.live, state.tombstones, names) != (verified.live, verified.tombstones, verified.live)
    {
        let (live, tombstones) = (verified.live, verified.tombstones);
        verified.complain(format!(
            "there are {live} documents, {tombstones} tombstones and {names} names; the counters say {} and {}",
            state.live, state.tombstones
        ));
    }
    let chunks = length(CHUNKS)?;
    if verified.complaints == 0 && chunks != sums.chunks {
        verified.complain(format!("there are {chunks} chunks; the records have {}", sums.chunks));
    }
    if verified.complaints == 0 && state.sum != sums.summands {
        verified.complain("the sum of all records is wrong: comparisons with other nodes would mislead".to_owned());
    }
    Ok(())
}

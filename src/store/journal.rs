//! The journal: a short log in front of redb's pages, with the changes that the newest commits made to the tables.
//!
//! Owns a fixed range of the file, and what the commits since the last flush did. Must never hold a commit that redb has not
//! taken. The bytes are in docs/storage.md, "The journal".
//!
//! # The problem
//!
//! A durable put waits for one flush, and redb flushes a commit as about ten pages in as many places of the file, even for a
//! single small record: the leaf and the branches of each table, its own allocator and its header. A record of 100 bytes costs
//! 40 KiB of flash. redb can also commit in memory only (`Durability::None`), which costs nothing and survives nothing.
//!
//! # Why not a log file
//!
//! A log of requests, replayed through the engine, would depend on the engine's version and on the clock. A log of pages would
//! be as large as the pages. A second file has its own metadata to sync, and can be lost or restored separately from the
//! first. So the journal holds rows, as they were put and removed in the tables, and lies in the database file itself.
//!
//! # The algorithm
//!
//! 1. While a commit writes to the tables, `Journal::put` and `Journal::remove` note each row. The notes of several
//!    commits with no flush between them add up.
//! 2. To flush, the notes become one entry: a checksum, the run, the commit before the first one and the last one, and the
//!    rows. It is written behind the previous entry and synced. The commits are then durable, although redb holds their pages
//!    in memory.
//! 3. Where the notes are too long (`CHANGES_BYTES`) or the range is full, the same commit is flushed by redb
//!    (`Durability::Immediate`), and the journal restarts at its first page. The old entries are left where they are: their
//!    commits are no longer newer than redb's, so they are ignored.
//! 4. On opening, `replay` starts with the tables as redb has them, and applies those entries of the newest run that end
//!    with a later commit, each only if it begins at the commit that was reached. Then a new run begins, flushed to redb's
//!    pages.
//!
//! # Torn entries
//!
//! An entry begins at a new page, so writing it cannot damage an older one. If the power fails meanwhile, its checksum does
//! not match, and opening stops there: it was never acknowledged. Entries are synced one after another, so an entry of this
//! run that is whole *behind* an invalid page proves that the invalid one was once whole and acknowledged. That is damage, and
//! the database is not opened. In the last entry, a flipped bit cannot be told from an interrupted write.
//!
//! The search for entries behind must not take the content of a document for one. Each further page of an entry therefore
//! begins with 40 zeros, where an entry has its head: rows are never at the start of a page.
//!
//! # Bounds
//!
//! The range is `JOURNAL_BYTES`: eight entries of one page, fewer longer ones. An entry has about 16 KiB of rows at most. A
//! flush is one write and one sync; opening reads the range once and applies each entry at most once.
//!
//! # Tests
//!
//! In `store/tests`, `journal.rs` has the number of writes, a crash after each number of commits, torn entries, entries of an
//! earlier run, and documents that imitate entries; `format.rs` compares the example of docs/storage.md; `faults.rs` fails the
//! disk at each write and sync.

use std::io;

use redb::{ReadableTable, TableHandle, WriteTransaction};

use crate::store::backend::{JOURNAL_AT, JOURNAL_BYTES};
use crate::store::codec::{Bytes, checksum, put_bytes};
use crate::store::tables::{self, RECORDS, RUNS, State, Table};
use crate::store::{Disk, Error, RunId};

/// Alignment of entries, in bytes: writing an entry never touches a page that holds an older one.
const PAGE: usize = 4096;
/// Maximum length of the changes in one entry, in bytes. redb writes them to its pages later too, so long changes are better
/// written once.
const CHANGES_BYTES: usize = 4 * PAGE;
/// Length of the head of an entry, in bytes: checksum, run, two commits, length. Further pages of an entry begin with as many
/// zeros, so that the content of a document never appears where an entry could begin.
const HEAD_BYTES: usize = 40;
/// Bit that marks a removed row in the number of its table.
const REMOVED: u8 = 0x80;

/// Changes noted since the last flush, and the position of the next entry. See the module documentation.
#[derive(Debug)]
pub(super) struct Journal {
    run: RunId,
    /// Newest commit on disk, in an entry or in redb's pages.
    flushed: u64,
    /// Offset of the next entry within the journal.
    at: u64,
    /// Encoded rows that the commits since `flushed` put and removed.
    changes: Vec<u8>,
    /// True if those commits changed more than one entry holds; `changes` is then incomplete.
    is_long: bool,
}

impl Journal {
    /// Returns the empty journal of a run that begins with all of `commits` in redb's pages.
    pub(super) fn new(run: RunId, commits: u64) -> Journal {
        Journal { run, flushed: commits, at: 0, changes: Vec::new(), is_long: false }
    }

    /// Notes that a row was put.
    pub(super) fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        if self.takes(key.len() + value.len()) {
            self.changes.push(number(table));
            put_bytes(&mut self.changes, key);
            put_bytes(&mut self.changes, value);
        }
    }

    /// Notes that a row was removed.
    pub(super) fn remove(&mut self, table: Table, key: &[u8]) {
        if self.takes(key.len()) {
            self.changes.push(number(table) | REMOVED);
            put_bytes(&mut self.changes, key);
        }
    }

    /// Returns true if a row of this size still fits. Once one did not, the notes are incomplete and none is taken until the
    /// next restart.
    fn takes(&mut self, bytes: usize) -> bool {
        self.is_long |= self.changes.len() + bytes > CHANGES_BYTES;
        !self.is_long
    }

    /// Returns true if the noted changes can be flushed to the journal.
    pub(super) fn has_room(&self) -> bool {
        !self.is_long && self.at + padded(self.changes.len()) as u64 <= JOURNAL_BYTES
    }

    /// Writes and syncs the noted changes, which lead up to `commit`.
    ///
    /// # Errors
    /// The disk is full or failed: the content of the entry's pages is unknown.
    pub(super) fn flush<D: Disk>(&mut self, disk: &D, commit: u64) -> io::Result<()> {
        let entry = encode(self.run, (self.flushed, commit), &self.changes);
        disk.write(JOURNAL_AT + self.at, &entry)?;
        disk.sync_data()?;
        self.at += entry.len() as u64;
        self.flushed = commit;
        self.changes.clear();
        Ok(())
    }

    /// Restarts the journal at its first page, because redb's pages on disk hold all commits up to `commit`.
    pub(super) fn begin_anew(&mut self, commit: u64) {
        (self.at, self.flushed, self.is_long) = (0, commit, false);
        self.changes.clear();
    }
}

/// Returns the position of a table in `tables::ALL`, which the file format fixes.
fn number(table: Table) -> u8 {
    let at = tables::ALL.iter().position(|known| known.name() == table.name());
    u8::try_from(at.expect("ALL lists every table")).expect("few tables")
}

/// Returns the length of an entry with this length of changes, both in bytes: whole pages, at least one.
fn padded(changes: usize) -> usize {
    changes.div_ceil(PAGE - HEAD_BYTES).max(1) * PAGE
}

/// Encodes the entry that leads from the first of the commits to the second.
pub(super) fn encode(run: RunId, commits: (u64, u64), changes: &[u8]) -> Vec<u8> {
    let mut head = Vec::with_capacity(HEAD_BYTES);
    head.extend(run.0);
    head.extend(commits.0.to_le_bytes());
    head.extend(commits.1.to_le_bytes());
    head.extend(u32::try_from(changes.len()).expect("an entry is small").to_le_bytes());
    let sum = checksum(&[&head, changes].concat());
    let mut entry = vec![0; padded(changes.len())];
    entry[..4].copy_from_slice(&sum.to_le_bytes());
    entry[4..HEAD_BYTES].copy_from_slice(&head);
    for (page, part) in entry.chunks_mut(PAGE).zip(changes.chunks(PAGE - HEAD_BYTES)) {
        page[HEAD_BYTES..HEAD_BYTES + part.len()].copy_from_slice(part);
    }
    entry
}

/// An entry as read from the disk.
struct JournalEntry {
    run: RunId,
    from: u64,
    to: u64,
    changes: Vec<u8>,
}

impl JournalEntry {
    /// Reads the entry that begins here, or returns `None` unless its checksum matches.
    fn read(bytes: &[u8]) -> Option<JournalEntry> {
        let mut head = Bytes(bytes);
        let sum = u32::from_le_bytes(head.array()?);
        let run = RunId(head.array()?);
        let (from, to) = (u64::from_le_bytes(head.array()?), u64::from_le_bytes(head.array()?));
        let length = usize::try_from(u32::from_le_bytes(head.array()?)).ok()?;
        let pages = bytes.get(..padded(length))?;
        let mut changes: Vec<u8> = pages.chunks(PAGE).flat_map(|page| &page[HEAD_BYTES..]).copied().collect();
        changes.truncate(length);
        let whole = sum == checksum(&[&bytes[4..HEAD_BYTES], &changes].concat());
        whole.then_some(JournalEntry { run, from, to, changes })
    }

    /// Returns true if the tables of `run` with this number of commits lack part of the entry.
    fn is_news(&self, run: RunId, commits: u64) -> bool {
        self.run == run && self.to > commits
    }
}

/// Applies the entries that the tables lack.
///
/// # Errors
/// The disk failed, or an entry that was once acknowledged is damaged.
pub(super) fn replay<D: Disk>(disk: &D, transaction: &WriteTransaction) -> Result<(), Error> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 32,768")]
    let mut journal = vec![0; JOURNAL_BYTES as usize];
    disk.read(JOURNAL_AT, &mut journal)?;
    let Some(run) = newest_run(transaction)? else { return Ok(()) };
    let mut commits = State::of(&transaction.open_table(RECORDS)?)?.commits;
    let mut rest = journal.as_slice();
    while let Some(entry) = JournalEntry::read(rest) {
        if entry.is_news(run, commits) {
            if entry.from != commits {
                break;
            }
            apply(transaction, &entry.changes)?;
            commits = entry.to;
        }
        rest = &rest[padded(entry.changes.len())..];
    }
    // Entries are synced one after another: a whole entry behind an invalid page proves that the invalid one was acknowledged.
    let behind = rest.chunks(PAGE).enumerate().filter_map(|(page, _)| JournalEntry::read(&rest[page * PAGE..]));
    match behind.filter(|entry| entry.is_news(run, commits)).count() {
        0 => Ok(()),
        _ => Err(Error::Damaged(format!("the journal's entry after commit {commits}"))),
    }
}

fn newest_run(transaction: &WriteTransaction) -> Result<Option<RunId>, Error> {
    let runs = transaction.open_table(RUNS)?;
    let last = runs.last()?;
    last.map(|(_, value)| Ok(tables::run_entry(value.value())?.0)).transpose()
}

fn apply(transaction: &WriteTransaction, changes: &[u8]) -> Result<(), Error> {
    let malformed = || Error::Damaged("an entry of the journal is malformed".into());
    let mut changes = Bytes(changes);
    while !changes.is_empty() {
        let number = changes.byte().ok_or_else(malformed)?;
        let table = tables::ALL.get(usize::from(number & !REMOVED)).ok_or_else(malformed)?;
        let key = changes.bytes().ok_or_else(malformed)?;
        let mut table = transaction.open_table(*table)?;
        if number & REMOVED == 0 {
            table.insert(key, changes.bytes().ok_or_else(malformed)?)?;
        } else {
            table.remove(key)?;
        }
    }
    Ok(())
}

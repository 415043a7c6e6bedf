//! A short log before redb's pages: what the newest commits did to the tables.
//!
//! A flush of little is one write and one sync here, where redb writes ten pages in as many places. Opening does to the tables
//! what they lack (docs/storage.md, "The journal"). Must never hold a commit that redb has not taken; what is too long for it
//! is flushed by redb, and the journal begins anew.

use std::io;

use redb::{ReadableTable, TableHandle, WriteTransaction};

use crate::store::backend::{JOURNAL_AT, JOURNAL_BYTES};
use crate::store::codec::{Bytes, checksum, put_bytes};
use crate::store::tables::{self, RECORDS, RUNS, State, Table};
use crate::store::{Disk, Error, RunId};

/// Entries begin at multiples of this, so that no write touches a page that holds an older entry.
const PAGE: usize = 4096;
/// Changes that one entry may hold: redb writes them to its pages later too, and what is long is better written once.
const CHANGES_BYTES: usize = 4 * PAGE;
/// Checksum, run, two commits, length. Further pages of an entry begin with as many zeros: what a document says must never stand
/// where an entry could begin.
const HEAD_BYTES: usize = 40;
/// Set in a table's number where a row is removed.
const REMOVED: u8 = 0x80;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Journal {
    run: RunId,
    /// The newest commit on the disk, in an entry or in redb's pages.
    flushed: u64,
    /// Where the next entry begins.
    at: u64,
    /// What the commits since then did.
    changes: Vec<u8>,
    /// They did more than an entry holds; `changes` is not all of it.
    is_long: bool,
}

impl Journal {
    /// The journal of a run that begins with all of `commits` in redb's pages.
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

    fn takes(&mut self, bytes: usize) -> bool {
        self.is_long |= self.changes.len() + bytes > CHANGES_BYTES;
        !self.is_long
    }

    /// Whether what was noted can be flushed here.
    pub(super) fn has_room(&self) -> bool {
        !self.is_long && self.at + padded(self.changes.len()) as u64 <= JOURNAL_BYTES
    }

    /// Flushes what was noted of the commits up to `commit`.
    ///
    /// # Errors
    /// The disk is full or failed: what is in the entry's place is not known.
    pub(super) fn flush<D: Disk>(&mut self, disk: &D, commit: u64) -> io::Result<()> {
        let entry = encode(self.run, (self.flushed, commit), &self.changes);
        disk.write(JOURNAL_AT + self.at, &entry)?;
        disk.sync_data()?;
        self.at += entry.len() as u64;
        self.flushed = commit;
        self.changes.clear();
        Ok(())
    }

    /// All commits up to `commit` are in redb's pages on the disk.
    pub(super) fn begin_anew(&mut self, commit: u64) {
        (self.at, self.flushed, self.is_long) = (0, commit, false);
        self.changes.clear();
    }
}

fn number(table: Table) -> u8 {
    let at = tables::ALL.iter().position(|known| known.name() == table.name());
    u8::try_from(at.expect("ALL lists every table")).expect("few tables")
}

/// The bytes of an entry with so many bytes of changes.
fn padded(changes: usize) -> usize {
    changes.div_ceil(PAGE - HEAD_BYTES).max(1) * PAGE
}

/// The entry that leads from the first of the commits to the second.
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

/// An entry as it was read.
struct Entry {
    run: RunId,
    from: u64,
    to: u64,
    changes: Vec<u8>,
}

impl Entry {
    /// The entry that begins here, if a whole one does.
    fn read(bytes: &[u8]) -> Option<Entry> {
        let mut head = Bytes(bytes);
        let sum = u32::from_le_bytes(head.array()?);
        let run = RunId(head.array()?);
        let (from, to) = (u64::from_le_bytes(head.array()?), u64::from_le_bytes(head.array()?));
        let length = usize::try_from(u32::from_le_bytes(head.array()?)).ok()?;
        let pages = bytes.get(..padded(length))?;
        let mut changes: Vec<u8> = pages.chunks(PAGE).flat_map(|page| &page[HEAD_BYTES..]).copied().collect();
        changes.truncate(length);
        let whole = sum == checksum(&[&bytes[4..HEAD_BYTES], &changes].concat());
        whole.then_some(Entry { run, from, to, changes })
    }

    fn is_news(&self, run: RunId, commits: u64) -> bool {
        self.run == run && self.to > commits
    }
}

/// Does to the tables what the journal says that they lack.
///
/// # Errors
/// The disk failed, or an entry is damaged that was whole once.
pub(super) fn replay<D: Disk>(disk: &D, transaction: &WriteTransaction) -> Result<(), Error> {
    #[expect(clippy::cast_possible_truncation, reason = "it is 32,768")]
    let mut journal = vec![0; JOURNAL_BYTES as usize];
    disk.read(JOURNAL_AT, &mut journal)?;
    let Some(run) = newest_run(transaction)? else { return Ok(()) };
    let mut commits = State::of(&transaction.open_table(RECORDS)?)?.commits;
    let mut rest = journal.as_slice();
    while let Some(entry) = Entry::read(rest) {
        if entry.is_news(run, commits) {
            if entry.from != commits {
                break;
            }
            apply(transaction, &entry.changes)?;
            commits = entry.to;
        }
        rest = &rest[padded(entry.changes.len())..];
    }
    // Entries are synced one after the other: one behind a torn one says that this was whole.
    let behind = rest.chunks(PAGE).enumerate().filter_map(|(page, _)| Entry::read(&rest[page * PAGE..]));
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

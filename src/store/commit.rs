//! Commits: writes one batch to the tables in one transaction, and makes it as durable as its answers promise.
//!
//! Owns the order of steps in a commit, and the counters in `State` that change with it. Must never publish the counters of
//! a transaction that failed.
//!
//! # The problem
//!
//! A batch has up to a thousand changed documents, together with the cursors, peer numbers and settings that arrived with
//! them. All of it must become visible at once: a cursor that is stored without its documents skips them for ever, and an
//! index entry without its record cannot be sent. Each changed document needs a sequence number, by which subscribers and
//! peers resume, so the numbers must have the order of the index. And a durable put is answered only once a crash cannot take
//! it back, with a sync of the disk that takes milliseconds on flash.
//!
//! One durable redb transaction for each request meets the first two, but costs about ten page writes and a sync each while
//! the other requests wait, and wears the flash.
//!
//! # The algorithm
//!
//! 1. `write_records` numbers the changed records in the order of their last change. For each it removes the index entry and
//!    the row of the replaced record, inserts the new ones, and adapts the sum of all records (`crate::store::fingerprint`)
//!    by one subtraction and one addition. A replaced record leaves no version behind; its history is in the chunks that the
//!    new record shares with it.
//! 2. Changes of liveness (`Turn`) update the names, the names of deleted documents and the counts. The list of deleted names
//!    is cut to `DELETED_NAMES`, oldest first; `deleted_floor` keeps the sequence number up to which it is incomplete.
//! 3. Cursors, peer numbers and settings follow, and the counters last. Every row passes through `JournalledTransaction`, which notes
//!    it for the journal.
//! 4. redb commits. What happens next depends on `Flush`: nothing (the pages stay in memory, redb's `Durability::None`); one
//!    entry in the journal and one sync (`journal.rs`); or redb's own pages (`Durability::Immediate`) where the journal has no
//!    room, after which the journal restarts empty.
//! 5. Only then `opened.state` becomes the new counters.
//!
//! A failure in any step leaves the transaction, the journal's notes or both in an unknown state. `commit` does not repair
//! them: its caller opens the database again, in a new run, and every answer of the batch is the error.
//!
//! # Unflushed commits
//!
//! A commit with `Flush::Nothing` is visible to readers, but a crash takes it back, and brings back the index entries that
//! it removed. `unsettled` is the lowest sequence number of such an entry: below it the index is the same before and after a
//! crash. Any flush resets it, and sets `flushed`.
//!
//! # Bounds
//!
//! One commit covers at most `crate::limits::BATCH_DOCUMENTS` documents and the bytes of `COPIED_BYTES` in `engine.rs`, plus
//! one request. For each document it inserts three rows and removes two, besides its name and its chunks, and it parses no
//! content.
//!
//! # Tests
//!
//! In `store/tests`, `faults.rs` fails the disk, and cuts its power, at each write and sync in turn; `journal.rs` crashes
//! after each number of commits; `format.rs` has the bytes. `tests/sim` crashes nodes under load.

use redb::Durability;

use crate::limits::DELETED_NAMES;
use crate::store::batch::{Batch, StagedDocument};
use crate::store::database::OpenDatabase;
use crate::store::fingerprint::summand;
use crate::store::journalled_transaction::JournalledTransaction;
use crate::store::tables::{
    self, CHUNKS, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_AGE, META_SYNC, NAMES, RECORDS, SOURCES, STATE,
    State,
};
use crate::store::{Content, Disk, Error, History, Key, KeyHash, Origin, Record};

/// A change of a document's liveness, or a new version of its tombstone.
struct Turn {
    hash: KeyHash,
    born: Option<Key>,
    died: Option<Key>,
    origin: Origin,
    /// Sequence number of the replaced tombstone.
    tombstone: Option<u64>,
    sequence: u64,
    live: bool,
}

/// Extent of the data on disk once a commit is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flush {
    /// Nothing new: a crash takes this commit back.
    Nothing,
    /// This commit and all before it: in the journal if they fit there, else in redb's pages.
    Commits,
    /// This commit and all before it, in redb's pages.
    Pages,
}

/// Writes and commits `batch`, and gives its staged records their sequence numbers. Returns what was flushed, which is `Pages`
/// for a wanted `Commits` without room in the journal. With `quick_repair`, a flush of pages includes what redb needs to open
/// the file after a kill without walking it.
///
/// # Errors
/// The disk is full or failed. The caller must open the database again: neither the transaction nor the journal can be
/// continued.
pub(super) fn commit<D: Disk>(
    disk: &D,
    opened: &mut OpenDatabase,
    batch: &mut Batch,
    flush: Flush,
    quick_repair: bool,
) -> Result<Flush, Error> {
    let mut transaction = opened.database.begin_write()?;
    let mut next = opened.state;
    write(&JournalledTransaction::new(&transaction, &mut opened.journal), batch, flush, &mut next)?;
    // The size of the changes is known only now.
    let flush = match flush {
        Flush::Commits if !opened.journal.has_room() => Flush::Pages,
        wanted => wanted,
    };
    let durability = if flush == Flush::Pages { Durability::Immediate } else { Durability::None };
    transaction.set_durability(durability).map_err(|cause| Error::Bug(cause.to_string()))?;
    transaction.set_quick_repair(flush == Flush::Pages && quick_repair);
    transaction.commit()?;
    match flush {
        Flush::Nothing => {}
        Flush::Commits => opened.journal.flush(disk, next.commits)?,
        Flush::Pages => opened.journal.begin_anew(next.commits),
    }
    opened.state = next;
    Ok(flush)
}

fn write(tables: &JournalledTransaction<'_>, batch: &mut Batch, flush: Flush, state: &mut State) -> Result<(), Error> {
    state.commits += 1;
    state.sources += batch.given_sources();
    let turns = write_records(tables, batch, state)?;
    // The counters go into the same transaction as the flush that they describe; the caller drops them if it fails.
    if flush != Flush::Nothing {
        state.unsettled = 0;
        state.flushed = state.sequence;
    }
    write_turns(tables, &turns, state)?;
    write_settings(tables, batch)?;
    tables.open(RECORDS)?.insert(STATE.as_slice(), state.encode().as_slice())
}

fn write_records(tables: &JournalledTransaction<'_>, batch: &mut Batch, state: &mut State) -> Result<Vec<Turn>, Error> {
    let changed = batch.changed();
    let mut turns = Vec::new();
    if changed.is_empty() {
        return Ok(turns);
    }
    let mut records = tables.open(RECORDS)?;
    let mut keys = tables.open(KEYS)?;
    let mut index = tables.open(INDEX)?;
    // The counters return after the records: redb fills pages at a table's end, and leaves half-filled ones in any other
    // place.
    records.remove(STATE.as_slice())?;
    for (hash, staged) in changed {
        state.sequence += 1;
        number(staged, state.sequence);
        let Some(record) = &staged.record else { continue };
        if let Some(before) = &staged.before {
            // A crash of an unflushed commit restores the entry; `unsettled` shows readers from where on that can happen.
            let at = tables::index_key(before.kind, before.sequence);
            if let Some(listed) = index.remove(at.as_slice())? {
                let version = tables::index_entry(&at, listed.value())?.version;
                state.sum = state.sum.wrapping_sub(summand(&hash, &version));
            }
            records.remove(tables::number_key(before.sequence).as_slice())?;
            state.unsettle(before.sequence);
        }
        let version = record.version_hash();
        state.sum = state.sum.wrapping_add(summand(&hash, &version));
        let entry = tables::index_value(hash, version, staged.from);
        index.insert(tables::index_key(record.kind, record.sequence).as_slice(), entry.as_slice())?;
        let sequence = tables::number_key(record.sequence);
        records.insert(sequence.as_slice(), record.encode().as_slice())?;
        keys.insert(hash.0.as_slice(), sequence.as_slice())?;
        write_chunks(tables, staged)?;
        turns.extend(turn(hash, staged));
    }
    Ok(turns)
}

/// Writes the bytes that a numbered record adds to its chunks, and removes the chunks of a history that this commit replaces.
fn write_chunks(tables: &JournalledTransaction<'_>, staged: &StagedDocument) -> Result<(), Error> {
    let before = staged.before.as_ref().map_or(&[][..], |before| &before.chunks);
    let history = staged.record.as_ref().and_then(Record::history);
    // A history that only grew still begins with the same chunk; one that was folded or compacted begins with a new one.
    let goes_on = history.is_some_and(|history| history.parts().first() == before.first());
    let gone = if goes_on { &[] } else { before };
    let added = history.map_or(&[][..], History::added);
    if gone.is_empty() && added.is_empty() {
        return Ok(());
    }
    let mut chunks = tables.open(CHUNKS)?;
    for part in gone {
        chunks.remove(tables::number_key(part.label).as_slice())?;
    }
    if let Some(record) = staged.record.as_ref().filter(|_| !added.is_empty()) {
        chunks.insert(tables::number_key(record.sequence).as_slice(), added)?;
    }
    Ok(())
}

/// Assigns a sequence number to a staged record and to the chunks that it adds.
fn number(staged: &mut StagedDocument, sequence: u64) {
    let Some(record) = &mut staged.record else { return };
    record.sequence = sequence;
    if let Content::Merged { history, .. } = &mut record.content {
        history.number(sequence);
    }
}

/// Returns the change of liveness that a staged record makes, or `None` for an edit of a live document.
fn turn(hash: KeyHash, staged: &StagedDocument) -> Option<Turn> {
    let record = staged.record.as_ref()?;
    let before = staged.before.as_ref();
    let name_before = before.and_then(|before| before.name.clone());
    let (was, is) = (name_before.is_some(), record.is_live());
    if was && is {
        return None;
    }
    Some(Turn {
        hash,
        born: record.name.clone(),
        died: name_before,
        origin: record.origin,
        tombstone: before.filter(|_| !was).map(|before| before.sequence),
        sequence: record.sequence,
        live: is,
    })
}

/// Updates the names, the names of deleted documents and the counts.
fn write_turns(tables: &JournalledTransaction<'_>, turns: &[Turn], state: &mut State) -> Result<(), Error> {
    if turns.is_empty() {
        return Ok(());
    }
    let mut names = tables.open(NAMES)?;
    let mut deleted = tables.open(DELETED)?;
    for turn in turns {
        // The name for the tombstone: taken over from the tombstone it replaces, or from the document that it deletes.
        let mut kept = None;
        if let Some(at) = turn.tombstone {
            kept = deleted.remove(tables::number_key(at).as_slice())?.map(|row| row.value().to_vec());
            state.tombstones -= 1;
        }
        if let Some(name) = &turn.died {
            names.remove(tables::name_key(name).as_slice())?;
            kept = Some(tables::deleted_value(turn.origin, name));
            state.live -= 1;
        }
        if let Some(name) = &turn.born {
            names.insert(tables::name_key(name).as_slice(), turn.hash.0.as_slice())?;
        }
        if turn.live {
            state.live += 1;
        } else {
            state.tombstones += 1;
        }
        if let (false, Some(row)) = (turn.live, kept) {
            deleted.insert(tables::number_key(turn.sequence).as_slice(), row.as_slice())?;
        }
    }
    // Names of the oldest deletions are dropped first; up to the last of them, the feed is incomplete.
    while deleted.len()? > DELETED_NAMES as u64 {
        let Some((sequence, _)) = deleted.pop_first()? else { break };
        state.deleted_floor = state.deleted_floor.max(tables::number(sequence.value())?);
    }
    Ok(())
}

fn write_settings(tables: &JournalledTransaction<'_>, batch: &Batch) -> Result<(), Error> {
    if !batch.cursors.is_empty() {
        let mut cursors = tables.open(CURSORS)?;
        for ((peer, kind), cursor) in &batch.cursors {
            cursors.insert(tables::cursor_key(peer, *kind).as_slice(), tables::cursor_value(cursor).as_slice())?;
        }
    }
    if !batch.sources.is_empty() {
        let mut sources = tables.open(SOURCES)?;
        for (peer, (number, run)) in &batch.sources {
            sources.insert(peer.0.as_slice(), tables::source_value(*number, *run).as_slice())?;
        }
    }
    if !batch.links.is_empty() {
        let mut links = tables.open(LINKS)?;
        for (peer, wish) in &batch.links {
            links.insert(peer.0.as_slice(), tables::wish_value(wish).as_slice())?;
        }
    }
    if let Some(age) = batch.age {
        tables.open(META)?.insert(META_AGE, age.encode().as_slice())?;
    }
    if let Some(on) = batch.sync {
        tables.open(META)?.insert(META_SYNC, [u8::from(on)].as_slice())?;
    }
    Ok(())
}

//! Writing a batch: records, index, names, deletions, cursors and settings in one transaction.

use redb::Durability;

use crate::limits::DELETED_NAMES;
use crate::store::batch::{Batch, Staged};
use crate::store::database::Opened;
use crate::store::fingerprint::summand;
use crate::store::journalled::Journalled;
use crate::store::tables::{
    self, CHUNKS, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_AGE, META_SYNC, NAMES, RECORDS, SOURCES, STATE,
    State,
};
use crate::store::{Content, Disk, Error, History, Key, KeyHash, Origin, Record};

/// A document that came to life or ceased, or whose tombstone was replaced.
struct Turn {
    hash: KeyHash,
    born: Option<Key>,
    died: Option<Key>,
    origin: Origin,
    /// Sequence of the tombstone that was replaced.
    tombstone: Option<u64>,
    sequence: u64,
    live: bool,
}

/// How much is to be on the disk when a commit is done.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flush {
    /// Nothing new.
    Nothing,
    /// This commit and those before it, in the journal if they have room there.
    Commits,
    /// They, in redb's pages.
    Pages,
}

/// Writes and commits `batch`; the staged records carry their sequence numbers then. Returns what was flushed.
///
/// # Errors
/// The disk is full or failed; the database must be opened anew.
pub(super) fn commit<D: Disk>(
    disk: &D,
    opened: &mut Opened,
    batch: &mut Batch,
    flush: Flush,
    quick_repair: bool,
) -> Result<Flush, Error> {
    let mut transaction = opened.database.begin_write()?;
    let mut next = opened.state;
    write(&Journalled::new(&transaction, &mut opened.journal), batch, flush, &mut next)?;
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

fn write(tables: &Journalled<'_>, batch: &mut Batch, flush: Flush, state: &mut State) -> Result<(), Error> {
    state.commits += 1;
    state.sources += batch.given_sources();
    let turns = write_records(tables, batch, state)?;
    if flush != Flush::Nothing {
        state.unsettled = 0;
        state.flushed = state.sequence;
    }
    write_turns(tables, &turns, state)?;
    write_settings(tables, batch)?;
    tables.open(RECORDS)?.insert(STATE.as_slice(), state.encode().as_slice())
}

fn write_records(tables: &Journalled<'_>, batch: &mut Batch, state: &mut State) -> Result<Vec<Turn>, Error> {
    let changed = batch.changed();
    let mut turns = Vec::new();
    if changed.is_empty() {
        return Ok(turns);
    }
    let mut records = tables.open(RECORDS)?;
    let mut keys = tables.open(KEYS)?;
    let mut index = tables.open(INDEX)?;
    // It comes back once the records are in: redb fills pages at a table's end, and leaves half-filled ones anywhere else.
    records.remove(STATE.as_slice())?;
    for (hash, staged) in changed {
        state.sequence += 1;
        number(staged, state.sequence);
        let Some(record) = &staged.record else { continue };
        if let Some(before) = &staged.before {
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

/// Writes what a numbered record adds to its chunks, and removes those of a history that ends with this commit.
fn write_chunks(tables: &Journalled<'_>, staged: &Staged) -> Result<(), Error> {
    let before = staged.before.as_ref().map_or(&[][..], |before| &before.chunks);
    let history = staged.record.as_ref().and_then(Record::history);
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

/// Gives a staged record, and the chunks it brings, its sequence number.
fn number(staged: &mut Staged, sequence: u64) {
    let Some(record) = &mut staged.record else { return };
    record.sequence = sequence;
    if let Content::Merged { history, .. } = &mut record.content {
        history.number(sequence);
    }
}

fn turn(hash: KeyHash, staged: &Staged) -> Option<Turn> {
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

/// Keeps the list of names, the names of the deleted, and the counts.
fn write_turns(tables: &Journalled<'_>, turns: &[Turn], state: &mut State) -> Result<(), Error> {
    if turns.is_empty() {
        return Ok(());
    }
    let mut names = tables.open(NAMES)?;
    let mut deleted = tables.open(DELETED)?;
    for turn in turns {
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
    while deleted.len()? > DELETED_NAMES as u64 {
        let Some((sequence, _)) = deleted.pop_first()? else { break };
        state.deleted_floor = state.deleted_floor.max(tables::number(sequence.value())?);
    }
    Ok(())
}

fn write_settings(tables: &Journalled<'_>, batch: &Batch) -> Result<(), Error> {
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

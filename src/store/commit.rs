//! Writing a batch: records, index, names, deletions, cursors and settings in one transaction.

use redb::{Database, Durability, ReadableTableMetadata, WriteTransaction};

use crate::limits::DELETED_NAMES;
use crate::store::batch::{Batch, Staged};
use crate::store::fingerprint::summand;
use crate::store::tables::{
    self, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_AGE, META_SYNC, NAMES, RECORDS, SOURCES, STATE, State,
};
use crate::store::{Content, Error, Key, KeyHash, Origin};

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

/// How one commit reaches the disk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    pub(super) durability: Durability,
    /// Save what lets the database open without walking it.
    pub(super) quick_repair: bool,
}

/// Writes and commits `batch`. Returns the counters as committed; the staged records carry their sequence numbers.
///
/// # Errors
/// The disk is full or failed; the database must be opened anew.
pub(super) fn commit(database: &Database, batch: &mut Batch, state: State, manner: Manner) -> Result<State, Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(manner.durability).map_err(|cause| Error::Bug(cause.to_string()))?;
    transaction.set_quick_repair(manner.quick_repair);
    let mut next = state;
    next.sources += batch.given_sources();
    let turns = write_records(&transaction, batch, &mut next)?;
    if matches!(manner.durability, Durability::Immediate) {
        next.unsettled = 0;
    }
    write_turns(&transaction, &turns, &mut next)?;
    write_settings(&transaction, batch)?;
    if next != state {
        transaction.open_table(RECORDS)?.insert(STATE.as_slice(), next.encode().as_slice())?;
    }
    transaction.commit()?;
    Ok(next)
}

fn write_records(transaction: &WriteTransaction, batch: &mut Batch, state: &mut State) -> Result<Vec<Turn>, Error> {
    let changed = batch.changed();
    let mut turns = Vec::new();
    if changed.is_empty() {
        return Ok(turns);
    }
    let mut records = transaction.open_table(RECORDS)?;
    let mut keys = transaction.open_table(KEYS)?;
    let mut index = transaction.open_table(INDEX)?;
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
        turns.extend(turn(hash, staged));
    }
    Ok(turns)
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
fn write_turns(transaction: &WriteTransaction, turns: &[Turn], state: &mut State) -> Result<(), Error> {
    if turns.is_empty() {
        return Ok(());
    }
    let mut names = transaction.open_table(NAMES)?;
    let mut deleted = transaction.open_table(DELETED)?;
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
        match turn.live {
            true => state.live += 1,
            false => state.tombstones += 1,
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

fn write_settings(transaction: &WriteTransaction, batch: &Batch) -> Result<(), Error> {
    if !batch.cursors.is_empty() {
        let mut cursors = transaction.open_table(CURSORS)?;
        for ((peer, kind), cursor) in &batch.cursors {
            cursors.insert(tables::cursor_key(peer, *kind).as_slice(), tables::cursor_value(cursor).as_slice())?;
        }
    }
    if !batch.sources.is_empty() {
        let mut sources = transaction.open_table(SOURCES)?;
        for (peer, (number, run)) in &batch.sources {
            sources.insert(peer.0.as_slice(), tables::source_value(*number, *run).as_slice())?;
        }
    }
    if !batch.links.is_empty() {
        let mut links = transaction.open_table(LINKS)?;
        for (peer, wish) in &batch.links {
            links.insert(peer.0.as_slice(), tables::wish_value(wish).as_slice())?;
        }
    }
    if let Some(age) = batch.age {
        transaction.open_table(META)?.insert(META_AGE, age.encode().as_slice())?;
    }
    if let Some(on) = batch.sync {
        transaction.open_table(META)?.insert(META_SYNC, [u8::from(on)].as_slice())?;
    }
    Ok(())
}

//! One opening of the database: redb over the disk, in a new run.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use redb::{Builder, Database, ReadableTable, WriteTransaction};

use crate::clock::{BootId, Now};
use crate::contain::contain;
use crate::limits;
use crate::store::backend::{self, Alarm, Backend, FailedFlag, Found};
use crate::store::database_clock::{DatabaseClock, NOTED_EVERY_MS, PersistedClock};
use crate::store::journal::{self, Journal};
use crate::store::tables::{
    self, CHUNKS, CURSORS, DELETED, INDEX, KEYS, LINKS, META, META_AGE, META_DATABASE, NAMES, RECORDS, RUNS, SOURCES,
    STATE, State,
};
use crate::store::{Disk, Error, Reader, RunId, StoreConfig, StoreMetrics};

/// New ids for an opening, which no other opening has.
#[derive(Clone, Debug)]
pub(super) struct NewIds {
    pub(super) run: RunId,
    /// Id of the database, if it is created now.
    pub(super) database: [u8; 16],
    /// Raised on each error of the disk.
    pub(super) alarm: Alarm,
}

/// An open database.
#[derive(Debug)]
pub(super) struct OpenDatabase {
    pub(super) database: Arc<Database>,
    pub(super) gate: FailedFlag,
    pub(super) id: [u8; 16],
    pub(super) run: RunId,
    /// Every listed run, with its position in the order in which they began.
    pub(super) runs: BTreeMap<RunId, u64>,
    pub(super) state: State,
    pub(super) journal: Journal,
    pub(super) size: Arc<AtomicU64>,
    pub(super) clocks: DatabaseClock,
    pub(super) figures: Arc<StoreMetrics>,
    /// Age that was last written, in milliseconds.
    noted_ms: u64,
}

impl OpenDatabase {
    /// Opens or creates the database, and begins a run durably. A panic of redb is reported as damage.
    pub(super) fn open<D: Disk>(
        disk: &Arc<D>,
        config: &StoreConfig,
        fresh: &NewIds,
        now: Now,
    ) -> Result<OpenDatabase, Error> {
        contain(|| OpenDatabase::open_trusting(disk, config, fresh, now))
            .unwrap_or_else(|panic| Err(Error::Damaged(format!("a page of the file: {panic}"))))
    }

    /// Opens the database as [`OpenDatabase::open`] does, but panics on some damaged files.
    fn open_trusting<D: Disk>(
        disk: &Arc<D>,
        config: &StoreConfig,
        fresh: &NewIds,
        now: Now,
    ) -> Result<OpenDatabase, Error> {
        let found = backend::look(disk.as_ref())?;
        if found == Found::Nothing {
            backend::begin(disk.as_ref())?;
        }
        let gate = FailedFlag::new(fresh.alarm.clone());
        let backend = Backend::new(disk.clone(), gate.clone())?;
        let database = Builder::new().set_cache_size(config.cache_bytes / 2).create_with_backend(backend)?;
        let opened = OpenDatabase::begin(disk.as_ref(), database, gate, fresh, found, (config.boot, now))?;
        if found == Found::Nothing {
            backend::mark_used(disk.as_ref())?;
        }
        opened.measure(disk.as_ref());
        Ok(opened)
    }

    fn begin<D: Disk>(
        disk: &D,
        database: Database,
        gate: FailedFlag,
        fresh: &NewIds,
        found: Found,
        (boot, now): (BootId, Now),
    ) -> Result<OpenDatabase, Error> {
        let transaction = database.begin_write()?;
        if found == Found::Nothing {
            create(&transaction, fresh.database)?;
        }
        journal::replay(disk, &transaction)?;
        let (id, state, before) = read_meta(&transaction)?;
        let clocks = DatabaseClock::open(before, boot, now);
        let noted = clocks.note(now);
        transaction.open_table(META)?.insert(META_AGE, noted.encode().as_slice())?;
        let runs = begin_run(&transaction, fresh.run, state.sequence + 1)?;
        transaction.commit()?;
        let (database, size) = (Arc::new(database), Arc::default());
        let noted_ms = noted.age_ms;
        let figures = Arc::default();
        let (run, journal) = (fresh.run, Journal::new(fresh.run, state.commits));
        Ok(OpenDatabase { database, gate, id, run, runs, state, journal, size, clocks, figures, noted_ms })
    }

    /// Returns the age if it is time to write it again.
    pub(super) fn age_to_note(&self, now: Now) -> Option<PersistedClock> {
        let noted = self.clocks.note(now);
        (noted.age_ms >= self.noted_ms.saturating_add(NOTED_EVERY_MS)).then_some(noted)
    }

    /// Records that the age was written.
    pub(super) fn noted(&mut self, age: Option<PersistedClock>) {
        self.noted_ms = age.map_or(self.noted_ms, |age| age.age_ms);
    }

    /// Records the size of the file.
    pub(super) fn measure<D: Disk>(&self, disk: &D) {
        self.size.store(disk.used(), Ordering::Relaxed);
    }

    /// Returns the size of the file after the last commit, in bytes.
    pub(super) fn file_bytes(&self) -> u64 {
        self.size.load(Ordering::Relaxed)
    }

    pub(super) fn reader(&self, config: &StoreConfig) -> Reader {
        Reader {
            database: self.database.clone(),
            size: self.size.clone(),
            gate: self.gate.clone(),
            id: self.id,
            run: self.run,
            node: config.node,
            clocks: self.clocks,
            figures: self.figures.clone(),
        }
    }
}

/// Creates every table, so that readers find them, the counters, and the id of the database.
fn create(transaction: &WriteTransaction, id: [u8; 16]) -> Result<(), Error> {
    transaction.open_table(RECORDS)?.insert(STATE.as_slice(), State::default().encode().as_slice())?;
    transaction.open_table(KEYS)?;
    transaction.open_table(NAMES)?;
    transaction.open_table(INDEX)?;
    transaction.open_table(DELETED)?;
    transaction.open_table(CURSORS)?;
    transaction.open_table(LINKS)?;
    transaction.open_table(RUNS)?;
    transaction.open_table(SOURCES)?;
    transaction.open_table(CHUNKS)?;
    transaction.open_table(META)?.insert(META_DATABASE, id.as_slice())?;
    Ok(())
}

fn read_meta(transaction: &WriteTransaction) -> Result<([u8; 16], State, Option<PersistedClock>), Error> {
    let meta = transaction.open_table(META)?;
    let missing = || Error::Damaged("the database id is missing".into());
    let id = meta.get(META_DATABASE)?.ok_or_else(missing)?;
    let id = id.value().try_into().map_err(|_| Error::Damaged("the database id is malformed".into()))?;
    let damaged = || Error::Damaged("the database's age is malformed".into());
    let age = meta.get(META_AGE)?.map(|row| PersistedClock::decode(row.value()).ok_or_else(damaged)).transpose()?;
    Ok((id, State::of(&transaction.open_table(RECORDS)?)?, age))
}

/// Lists the new run, and drops the oldest ones beyond the limit.
fn begin_run(transaction: &WriteTransaction, run: RunId, start: u64) -> Result<BTreeMap<RunId, u64>, Error> {
    let mut runs = transaction.open_table(RUNS)?;
    let last = runs.last()?.map_or(Ok(0), |(number, _)| tables::number(number.value()))?;
    runs.insert(tables::number_key(last + 1).as_slice(), tables::run_value(run, start).as_slice())?;
    // The new run is number `last + 1`; keep as many of the newest as the limit allows.
    let oldest = (last + 2).saturating_sub(limits::RUNS as u64);
    runs.retain_in(..tables::number_key(oldest).as_slice(), |_, _| false)?;
    let listed = runs.iter()?.map(|row| {
        let (number, value) = row?;
        Ok((tables::run_entry(value.value())?.0, tables::number(number.value())?))
    });
    listed.collect()
}

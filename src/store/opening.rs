//! Opens a database, even if the disk has no space for the writes of a start.
//!
//! A start writes little: a new run, the journal's commits in redb's pages, and the pages that redb repairs after a kill.
//! Without space for that, the database is opened over an [`Overlay`]: these writes stay in memory, everything acknowledged
//! can be read and synced to peers, and writes are refused. The run is on no disk, so positions in it are refused later.

use std::io;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::clock::Now;
use crate::store::backend::{self, Found};
use crate::store::database::{NewIds, OpenDatabase};
use crate::store::disk::is_full;
use crate::store::engine::first_16;
use crate::store::error::size;
use crate::store::overlay::Overlay;
use crate::store::{Disk, Error, RunId, StoreConfig, StoreMetrics};

/// Space for the pages that a commit writes besides its records, in bytes: paths through the tables, and redb's own tables.
pub(super) const RESERVE_BYTES: usize = 1 << 20;
/// Memory for the writes of a start on a full disk, in bytes. Repairing a file of 64 MiB or more writes a path of pages; the
/// largest journal entry is a few dozen pages.
const OVERLAY_BYTES: usize = 16 << 20;

/// Access to an open database.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    Write,
    /// Read-only, because the disk has no space for the writes of a start.
    Read,
}

/// Opens or creates the database and begins a run, durably if there is space. Continues the counts in `figures`.
///
/// # Errors
/// The database is damaged or of a newer format, the disk failed, or it is full and there is no database yet.
pub(super) fn open<D: Disk>(
    disk: &Arc<D>,
    config: &StoreConfig,
    fresh: &NewIds,
    now: Now,
    figures: Arc<StoreMetrics>,
) -> Result<(OpenDatabase, Access), Error> {
    let room = match disk.reserve(RESERVE_BYTES as u64) {
        Err(cause) if !is_full(&cause) => return Err(cause.into()),
        room => room,
    };
    let (mut opened, access) = match OpenDatabase::open(disk, config, fresh, now) {
        Ok(opened) => (opened, Access::Write),
        Err(cause) if is_for_want_of_room(&cause, &room) && has_database(disk.as_ref()) => {
            (read_only(disk, config, fresh, now)?, Access::Read)
        }
        Err(cause) if is_for_want_of_room(&cause, &room) => return Err(Error::DiskFull),
        Err(cause) => return Err(cause),
    };
    opened.figures = figures;
    opened.measure(disk.as_ref());
    note_room(&opened.figures, disk.as_ref(), RESERVE_BYTES as u64, &room);
    opened.figures.read_only.set((access == Access::Read).into());
    Ok((opened, access))
}

/// Returns true if a full disk caused the error. redb repeats a disk error as one without a kind.
fn is_for_want_of_room(cause: &Error, room: &io::Result<()>) -> bool {
    matches!(cause, Error::DiskFull) || (room.is_err() && matches!(cause, Error::Io(_)))
}

fn has_database<D: Disk>(disk: &D) -> bool {
    matches!(backend::look(disk), Ok(Found::Database))
}

fn read_only<D: Disk>(disk: &Arc<D>, config: &StoreConfig, fresh: &NewIds, now: Now) -> Result<OpenDatabase, Error> {
    let overlay = Arc::new(Overlay::over(disk.clone(), OVERLAY_BYTES)?);
    // The first attempt may have written its run, and raised the alarm.
    fresh.alarm.silence();
    let fresh = NewIds { run: successor(fresh.run), database: fresh.database, alarm: fresh.alarm.clone() };
    let opened = OpenDatabase::open(&overlay, config, &fresh, now)?;
    let free = disk.free().map_or("too little".to_owned(), size_of);
    log::error!(
        "the disk is full: a start needs {} and {free} are free; the database is open for reading only until there is room",
        size(RESERVE_BYTES)
    );
    Ok(opened)
}

/// Returns the run that follows `run` after a storage error. It is as unique as `run`.
pub(super) fn successor(run: RunId) -> RunId {
    let mut context = Context::new(&SHA256);
    context.update(b"peat-reopened");
    context.update(&run.0);
    RunId(first_16(context))
}

/// Returns the error for requests while a failed database is not open.
pub(super) fn not_open() -> Error {
    Error::Io(Arc::new(io::Error::other("the database failed and could not be opened again yet")))
}

/// Returns the error for requests that began before the database failed and was opened again.
pub(super) fn reopened() -> Error {
    Error::Io(Arc::new(io::Error::other("the database failed meanwhile and was opened again")))
}

/// Records for `health` if `bytes` were available on the disk.
pub(super) fn note_room<D: Disk>(figures: &StoreMetrics, disk: &D, bytes: u64, room: &io::Result<()>) {
    let lacking = matches!(room, Err(cause) if is_full(cause));
    figures.lacking_bytes.set(if lacking { bytes } else { 0 });
    figures.free_bytes.set(if lacking { disk.free().unwrap_or(0) } else { 0 });
}

fn size_of(bytes: u64) -> String {
    size(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// Returns a sentence about missing space on the disk, if there is a problem.
pub(crate) fn room_problem(figures: &StoreMetrics) -> Option<String> {
    let (lacking, free) = (figures.lacking_bytes.get(), figures.free_bytes.get());
    let consequence = match figures.read_only.get() {
        0 => "writes are refused, reads and sync out go on",
        _ => "the database was opened for reading only, sync out goes on",
    };
    let words =
        format!("the disk is full: a write needs {} and {} are free; {consequence}", size_of(lacking), size_of(free));
    (lacking > 0).then_some(words)
}

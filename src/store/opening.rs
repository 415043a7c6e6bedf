//! Opening a database, and what to do when the disk has no room for what a start writes.
//!
//! A start writes little, but it writes: a run of its own, what the journal lacks in redb's pages, pages that redb mends after a
//! kill. Without room for that the database is opened over an [`Overlay`]: these writes stay in memory, everything that was
//! acknowledged can be read and synced out, and nothing is taken. Its run is on no disk, so positions in it are refused later.

use std::io;
use std::sync::Arc;

use ring::digest::{Context, SHA256};

use crate::clock::Now;
use crate::store::backend::{self, Found};
use crate::store::database::{Fresh, Opened};
use crate::store::disk::is_full;
use crate::store::engine::first_16;
use crate::store::error::size;
use crate::store::overlay::Overlay;
use crate::store::{Config, Disk, Error, Figures, RunId};

/// Pages a commit writes besides its records: paths through the tables, redb's own tables.
pub(super) const RESERVE_BYTES: usize = 1 << 20;
/// Memory for what a start writes when the disk has no room for it. Mending a file of 64 MiB or more writes a path of pages;
/// the largest journal entry is some dozen pages.
const OVERLAY_BYTES: usize = 16 << 20;

/// Whether a database takes writes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Access {
    Write,
    /// The disk has no room for what a start writes.
    Read,
}

/// Opens or creates the database and begins a run, durably where there is room. Goes on counting in `figures`.
///
/// # Errors
/// The database is damaged or of a newer format, the disk failed, or it is full and there is no database yet.
pub(super) fn open<D: Disk>(
    disk: &Arc<D>,
    config: &Config,
    fresh: &Fresh,
    now: Now,
    figures: Arc<Figures>,
) -> Result<(Opened, Access), Error> {
    let room = match disk.reserve(RESERVE_BYTES as u64) {
        Err(cause) if !is_full(&cause) => return Err(cause.into()),
        room => room,
    };
    let (mut opened, access) = match Opened::open(disk, config, fresh, now) {
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

/// redb repeats an error of the disk as one without a kind.
fn is_for_want_of_room(cause: &Error, room: &io::Result<()>) -> bool {
    matches!(cause, Error::DiskFull) || (room.is_err() && matches!(cause, Error::Io(_)))
}

fn has_database<D: Disk>(disk: &D) -> bool {
    matches!(backend::look(disk), Ok(Found::Database))
}

fn read_only<D: Disk>(disk: &Arc<D>, config: &Config, fresh: &Fresh, now: Now) -> Result<Opened, Error> {
    let overlay = Arc::new(Overlay::over(disk.clone(), OVERLAY_BYTES)?);
    // The first attempt may have written its run, and raised the alarm.
    fresh.alarm.silence();
    let fresh = Fresh { run: successor(fresh.run), database: fresh.database, alarm: fresh.alarm.clone() };
    let opened = Opened::open(&overlay, config, &fresh, now)?;
    let free = disk.free().map_or("too little".to_owned(), size_of);
    log::error!(
        "the disk is full: a start needs {} and {free} are free; the database is open for reading only until there is room",
        size(RESERVE_BYTES)
    );
    Ok(opened)
}

/// The run after a storage error: as unique as the run it follows.
pub(super) fn successor(run: RunId) -> RunId {
    let mut context = Context::new(&SHA256);
    context.update(b"peat-reopened");
    context.update(&run.0);
    RunId(first_16(context))
}

/// The answer while a database that failed is not open.
pub(super) fn not_open() -> Error {
    Error::Io(Arc::new(io::Error::other("the database failed and could not be opened again yet")))
}

/// The answer to what was begun before the database failed and was opened again.
pub(super) fn reopened() -> Error {
    Error::Io(Arc::new(io::Error::other("the database failed meanwhile and was opened again")))
}

/// Notes for `health` whether `bytes` were found on the disk.
pub(super) fn note_room<D: Disk>(figures: &Figures, disk: &D, bytes: u64, room: &io::Result<()>) {
    let lacking = matches!(room, Err(cause) if is_full(cause));
    figures.lacking_bytes.set(if lacking { bytes } else { 0 });
    figures.free_bytes.set(if lacking { disk.free().unwrap_or(0) } else { 0 });
}

fn size_of(bytes: u64) -> String {
    size(usize::try_from(bytes).unwrap_or(usize::MAX))
}

/// What is wrong with the room on the disk, if anything.
pub(crate) fn room_problem(figures: &Figures) -> Option<String> {
    let (lacking, free) = (figures.lacking_bytes.get(), figures.free_bytes.get());
    let consequence = match figures.read_only.get() {
        0 => "writes are refused, reads and sync out go on",
        _ => "the database was opened for reading only, sync out goes on",
    };
    let words =
        format!("the disk is full: a write needs {} and {} are free; {consequence}", size_of(lacking), size_of(free));
    (lacking > 0).then_some(words)
}

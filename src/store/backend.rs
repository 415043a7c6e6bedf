//! The layer between redb and the disk: this project's header in front of redb's pages, and a gate that can be shut.
//!
//! The header identifies the file and its format before redb reads it, so that a newer or foreign file is rejected unchanged.
//! The gate cuts a failed database off the disk before it is opened again: its readers may still exist in other threads, and
//! the pages they would read may have been overwritten. It also reports disk errors of readers to the store, because redb
//! serves nothing from the disk after an error in any thread.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};

use redb::{BackendError, StorageBackend};

use crate::store::codec::checksum;
use crate::store::{Disk, Error};

/// File format that this program writes.
pub(super) const FORMAT: u32 = 2;
/// Length of the header page, in bytes.
pub(super) const HEADER_BYTES: u64 = 4096;
/// Offset of the journal ([`crate::store::journal`]), which lies between the header and redb's pages.
pub(super) const JOURNAL_AT: u64 = HEADER_BYTES;
/// Length of the journal, in bytes: eight entries of one page.
pub(super) const JOURNAL_BYTES: u64 = 8 * 4096;
/// Offset of redb's pages.
pub(super) const PAGES_AT: u64 = JOURNAL_AT + JOURNAL_BYTES;
const MAGIC: [u8; 8] = *b"peatnode";
/// Offset of the byte that marks a database as having been in use.
const USED_AT: u64 = 16;
const USED: u8 = 0xa5;
/// Offset of the note of the file's minimum length: the length and its checksum.
const LENGTH_AT: u64 = 32;

/// Content of a disk, according to the header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// Empty, or a database that was not created completely, so that nothing in it was ever acknowledged.
    Nothing,
    /// A database of this format.
    Database,
}

/// Reads the header without changing anything.
///
/// # Errors
/// The disk failed, or holds a newer format, a foreign file or a damaged header.
pub(super) fn look<D: Disk>(disk: &D) -> Result<Found, Error> {
    let length = disk.len()?;
    #[expect(clippy::cast_possible_truncation, reason = "it is 16")]
    let mut header = [0; USED_AT as usize + 1];
    let present = usize::try_from(length).unwrap_or(usize::MAX).min(header.len());
    disk.read(0, &mut header[..present])?;
    let [fields @ .., used] = header;
    // A crash can tear the header, but only before redb has written to the disk.
    if used == 0 && (length <= PAGES_AT || fields == [0; 16] || fields == fields_of(FORMAT)) {
        return Ok(Found::Nothing);
    }
    read_fields(fields)?;
    match used {
        USED => match noted_length(disk) {
            expected if length < expected => {
                Err(Error::Damaged(format!("the file has {length} bytes and should have {expected} or more")))
            }
            _ => Ok(Found::Database),
        },
        _ => Err(Error::Damaged("the header is malformed".into())),
    }
}

fn read_fields(fields: [u8; 16]) -> Result<(), Error> {
    let mut bytes = crate::store::codec::Bytes(&fields);
    let whole = "sixteen bytes hold the fields";
    let magic: [u8; 8] = bytes.array().expect(whole);
    let found = u32::from_le_bytes(bytes.array().expect(whole));
    let sum = u32::from_le_bytes(bytes.array().expect(whole));
    match (magic == MAGIC, sum == checksum(&fields[..12])) {
        (true, true) if found > FORMAT => Err(Error::NewerFormat { found, known: FORMAT }),
        (true, true) if found < FORMAT => Err(Error::OlderFormat { found, known: FORMAT }),
        (true, true) => Ok(()),
        (false, false) => Err(Error::Damaged("it is not a peat-node database".into())),
        _ => Err(Error::Damaged("the header does not match its checksum".into())),
    }
}

fn fields_of(format: u32) -> [u8; 16] {
    let mut fields = [0; 16];
    fields[..8].copy_from_slice(&MAGIC);
    fields[8..12].copy_from_slice(&format.to_le_bytes());
    let sum = checksum(&fields[..12]);
    fields[12..].copy_from_slice(&sum.to_le_bytes());
    fields
}

/// Returns the minimum length of the file. A note that a crash has torn is ignored.
fn noted_length<D: Disk>(disk: &D) -> u64 {
    let mut note = [0; 12];
    if disk.read(LENGTH_AT, &mut note).is_err() {
        return PAGES_AT + 1;
    }
    let [length @ .., _, _, _, _] = note;
    let whole = note[8..] == checksum(&length).to_le_bytes();
    if whole { u64::from_le_bytes(length) } else { PAGES_AT + 1 }
}

fn note_length<D: Disk>(disk: &D, length: u64) -> io::Result<()> {
    let mut note = [0; 12];
    note[..8].copy_from_slice(&length.to_le_bytes());
    note[8..].copy_from_slice(&checksum(&length.to_le_bytes()).to_le_bytes());
    disk.write(LENGTH_AT, &note)
}

/// Clears the disk and writes the header of a database that is not in use yet.
pub(super) fn begin<D: Disk>(disk: &D) -> Result<(), Error> {
    disk.set_len(0)?;
    disk.set_len(PAGES_AT)?;
    // Write the zeros now: space that is already allocated cannot be missing when an entry is synced.
    #[expect(clippy::cast_possible_truncation, reason = "it is 32,768")]
    disk.write(JOURNAL_AT, &vec![0; JOURNAL_BYTES as usize])?;
    disk.write(0, &fields_of(FORMAT))?;
    Ok(disk.sync_data()?)
}

/// Marks the database as in use, after which it is never created again.
pub(super) fn mark_used<D: Disk>(disk: &D) -> Result<(), Error> {
    disk.write(USED_AT, &[USED])?;
    Ok(disk.sync_data()?)
}

/// Cuts a failed database off the disk once it is shut.
#[derive(Clone, Debug, Default)]
pub(super) struct FailedFlag {
    shut: Arc<AtomicBool>,
    /// Raised on each error of the disk.
    alarm: Alarm,
}

impl FailedFlag {
    pub(super) fn new(alarm: Alarm) -> FailedFlag {
        FailedFlag { shut: Arc::default(), alarm }
    }

    pub(super) fn shut(&self) {
        self.shut.store(true, Ordering::Release);
    }

    pub(super) fn pass(&self) -> io::Result<()> {
        if self.shut.load(Ordering::Acquire) {
            Err(io::Error::other("the database was reopened after a storage error"))
        } else {
            Ok(())
        }
    }

    /// Passes on a result of the disk, and raises the alarm on an error.
    fn watch<T>(&self, result: io::Result<T>) -> io::Result<T> {
        if result.is_err() && self.pass().is_ok() {
            self.alarm.raise();
        }
        result
    }
}

/// Signal of a disk error: any reading thread raises it, and the store takes it.
#[derive(Clone, Debug)]
pub(super) struct Alarm {
    raise: Sender<()>,
    raised: Receiver<()>,
}

impl Default for Alarm {
    fn default() -> Alarm {
        let (raise, raised) = bounded(1);
        Alarm { raise, raised }
    }
}

impl Alarm {
    fn raise(&self) {
        // The channel is full if the store has not taken the last signal yet.
        let _ = self.raise.try_send(());
    }

    pub(super) fn is_raised(&self) -> bool {
        !self.raised.is_empty()
    }

    pub(super) fn silence(&self) {
        let _ = self.raised.try_recv();
    }

    /// Returns a receiver that has a message while the alarm is raised. Only the store takes the message.
    pub(super) fn raised(&self) -> Receiver<()> {
        self.raised.clone()
    }
}

/// The disk as redb sees it.
#[derive(Debug)]
pub(super) struct Backend<D> {
    disk: Arc<D>,
    gate: FailedFlag,
    /// Length of the file, in bytes.
    length: AtomicU64,
    /// Minimum length of the file according to the header, in bytes.
    noted: AtomicU64,
}

impl<D: Disk> Backend<D> {
    pub(super) fn new(disk: Arc<D>, gate: FailedFlag) -> io::Result<Backend<D>> {
        let (length, noted) = (AtomicU64::new(disk.len()?), AtomicU64::new(noted_length(disk.as_ref())));
        Ok(Backend { disk, gate, length, noted })
    }

    fn note(&self, length: u64) -> io::Result<()> {
        note_length(self.disk.as_ref(), length)?;
        self.noted.store(length, Ordering::Relaxed);
        Ok(())
    }
}

impl<D: Disk> StorageBackend for Backend<D> {
    fn len(&self) -> io::Result<u64> {
        self.gate.pass()?;
        Ok(self.gate.watch(self.disk.len())?.saturating_sub(PAGES_AT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.gate.pass()?;
        self.gate.watch(self.disk.read(offset + PAGES_AT, out))?;
        // During the read, the gate may have been shut and the page overwritten.
        self.gate.pass()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.gate.pass()?;
        let length = len + PAGES_AT;
        // The note is a lower bound after any crash: it shrinks before the file does, and grows after it.
        if length < self.noted.load(Ordering::Relaxed) {
            self.gate.watch(self.note(length).and_then(|()| self.disk.sync_data()))?;
        }
        self.gate.watch(self.disk.set_len(length))?;
        self.length.store(length, Ordering::Relaxed);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass()?;
        self.gate.watch(self.disk.sync_data())?;
        let length = self.length.load(Ordering::Relaxed);
        let grown = length > self.noted.load(Ordering::Relaxed);
        if grown { self.gate.watch(self.note(length)) } else { Ok(()) }
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.gate.pass()?;
        self.gate.watch(self.disk.write(offset + PAGES_AT, data))
    }

    // The disk is exclusive by construction, so every lock is free.
    fn try_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn try_lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(true)
    }

    fn lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn lock_shared_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn unlock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<(), BackendError> {
        Ok(())
    }

    fn query_lock_range(&self, _start: Bound<u64>, _end: Bound<u64>) -> Result<bool, BackendError> {
        Ok(false)
    }
}

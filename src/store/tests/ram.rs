//! A disk in memory: unsynced bytes are lost in a crash, and it fails on command.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::Disk;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    full: bool,
    /// Maximum length of the disk.
    capacity: Option<usize>,
    /// True if a write in place takes space too, as on copy-on-write file systems.
    copies: bool,
    /// Number of writes until the disk is full.
    writes: Option<u64>,
    /// Number of writes and syncs until the disk fails.
    healthy: Option<u64>,
    unreadable: bool,
    syncs: u64,
    reads: u64,
}

/// A handle to a disk; clones share it.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct Ram(Arc<Mutex<State>>);

impl Ram {
    pub(in crate::store) fn of(bytes: Vec<u8>) -> Ram {
        Ram(Arc::new(Mutex::new(State { synced: bytes.clone(), bytes, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Returns the disk as a crash leaves it.
    pub(in crate::store) fn crash(&self) -> Ram {
        Ram::of(self.state().synced.clone())
    }

    pub(in crate::store) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub(in crate::store) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Stops the disk from growing; false gives it space again.
    pub(in crate::store) fn fill(&self, full: bool) {
        let mut state = self.state();
        state.capacity = full.then_some(state.bytes.len());
        (state.full, state.copies, state.writes) = (full, false, None);
    }

    /// Fails every write and sync as a full disk does on a file system where even a write in place takes space.
    pub(in crate::store) fn fill_to_the_last_block(&self, full: bool) {
        self.fill(full);
        self.state().copies = full;
    }

    /// Fills the disk after `count` more writes, even in place.
    pub(in crate::store) fn fill_after(&self, count: u64) {
        self.state().writes = Some(count);
    }

    /// Fails every write and sync after `count` more; `None` repairs the disk.
    pub(in crate::store) fn fail_after(&self, count: Option<u64>) {
        self.state().healthy = count;
    }

    /// Makes every read fail, or succeed again.
    pub(in crate::store) fn set_unreadable(&self, unreadable: bool) {
        self.state().unreadable = unreadable;
    }

    pub(in crate::store) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(in crate::store) fn reads(&self) -> u64 {
        self.state().reads
    }
}

impl State {
    fn room_for(&mut self, end: usize) -> io::Result<()> {
        match &mut self.writes {
            Some(0) => return Err(io::ErrorKind::StorageFull.into()),
            Some(left) => *left -= 1,
            None => {}
        }
        match self.capacity {
            Some(capacity) if end > capacity.max(self.bytes.len()) => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn spend(&mut self) -> io::Result<()> {
        match &mut self.healthy {
            Some(0) => Err(io::Error::other("injected")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl redb::StorageBackend for Ram {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().bytes.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state();
        if state.unreadable {
            return Err(io::Error::other("injected"));
        }
        state.reads += out.len() as u64;
        let start = usize::try_from(offset).unwrap();
        let from = state.bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(from);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.room_for(usize::try_from(len).unwrap())?;
        state.bytes.resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        state.syncs += 1;
        state.synced = state.bytes.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state();
        state.spend()?;
        let start = usize::try_from(offset).unwrap();
        let end = start + data.len();
        let grows_to = if state.copies { usize::MAX } else { end };
        state.room_for(grows_to)?;
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[start..end].copy_from_slice(data);
        Ok(())
    }
}

impl Disk for Ram {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        if self.state().full || self.state().writes == Some(0) {
            Err(io::ErrorKind::StorageFull.into())
        } else {
            Ok(())
        }
    }

    fn used(&self) -> u64 {
        self.state().bytes.len() as u64
    }
}

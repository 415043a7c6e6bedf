//! A disk in memory: what was not synced is lost at a crash, and it fails when told to.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::store::Disk;

#[derive(Debug, Default)]
struct State {
    bytes: Vec<u8>,
    synced: Vec<u8>,
    full: bool,
    /// Writes and syncs that still succeed.
    healthy: Option<u64>,
    unreadable: bool,
    syncs: u64,
    reads: u64,
}

/// A handle; clones share the disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Ram(Arc<Mutex<State>>);

impl Ram {
    pub(super) fn of(bytes: Vec<u8>) -> Ram {
        Ram(Arc::new(Mutex::new(State { synced: bytes.clone(), bytes, ..State::default() })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The disk as a crash leaves it.
    pub(super) fn crash(&self) -> Ram {
        Ram::of(self.state().synced.clone())
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.state().bytes.clone()
    }

    pub(super) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// After `count` more writes and syncs, every one fails; `None` heals.
    pub(super) fn fail_after(&self, count: Option<u64>) {
        self.state().healthy = count;
    }

    /// Whether every read fails.
    pub(super) fn set_unreadable(&self, unreadable: bool) {
        self.state().unreadable = unreadable;
    }

    pub(super) fn syncs(&self) -> u64 {
        self.state().syncs
    }

    pub(super) fn reads(&self) -> u64 {
        self.state().reads
    }
}

impl State {
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
        if state.bytes.len() < end {
            state.bytes.resize(end, 0);
        }
        state.bytes[start..end].copy_from_slice(data);
        Ok(())
    }
}

impl Disk for Ram {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        if self.state().full { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn used(&self) -> u64 {
        self.state().bytes.len() as u64
    }
}

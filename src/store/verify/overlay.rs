//! A database file that is read and never written: changes stay in memory, block by block.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use redb::{BackendError, StorageBackend};

use crate::store::disk::DATABASE;
use crate::store::{Disk, Error};

const BLOCK: usize = 4096;

/// The file, and what was written over it.
#[derive(Debug)]
pub(super) struct Overlay {
    file: File,
    /// redb wants to share it; only one thread has it.
    written: Mutex<Written>,
}

#[derive(Debug)]
struct Written {
    length: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl Overlay {
    /// Opens the database file of a data directory; `None` where there is none.
    pub(super) fn open(directory: &Path) -> Result<Option<Overlay>, Error> {
        let path = directory.join(DATABASE);
        let refused =
            |cause: &io::Error| Error::NotOurs { path: path.display().to_string(), reason: cause.to_string() };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(cause) => return Err(refused(&cause)),
        };
        let written = Written { length: file.metadata()?.len(), blocks: BTreeMap::new() };
        Ok(Some(Overlay { file, written: Mutex::new(written) }))
    }

    fn written(&self) -> io::Result<MutexGuard<'_, Written>> {
        self.written.lock().map_err(|_| io::Error::other("an earlier look panicked"))
    }

    /// The block at `number`, of the file where nothing was written over it; zeros beyond its end.
    fn block(&self, written: &Written, number: u64) -> io::Result<Box<[u8; BLOCK]>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = Box::new([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            match self.file.read_at(&mut block[filled..], number * BLOCK as u64 + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        Ok(block)
    }
}

/// The blocks that a range touches: number, offset in it, bytes.
fn pieces(offset: u64, length: usize) -> impl Iterator<Item = (u64, usize, usize)> {
    let (mut at, mut left) = (offset, length);
    std::iter::from_fn(move || {
        let begin = usize::try_from(at % BLOCK as u64).expect("a block is small");
        let count = left.min(BLOCK - begin);
        let piece = (at / BLOCK as u64, begin, count);
        at += count as u64;
        left -= count;
        (count > 0).then_some(piece)
    })
}

impl StorageBackend for Overlay {
    fn len(&self) -> io::Result<u64> {
        Ok(self.written()?.length)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let written = self.written()?;
        if offset.checked_add(out.len() as u64).is_none_or(|end| end > written.length) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut filled = 0;
        for (number, begin, count) in pieces(offset, out.len()) {
            let block = self.block(&written, number)?;
            out[filled..filled + count].copy_from_slice(&block[begin..begin + count]);
            filled += count;
        }
        Ok(())
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.written()?.length = length;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written()?;
        let mut taken = 0;
        for (number, begin, count) in pieces(offset, data.len()) {
            let mut block = self.block(&written, number)?;
            block[begin..begin + count].copy_from_slice(&data[taken..taken + count]);
            written.blocks.insert(number, block);
            taken += count;
        }
        written.length = written.length.max(offset + data.len() as u64);
        Ok(())
    }

    // The data directory's lock is held.
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

impl Disk for Overlay {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        0
    }
}

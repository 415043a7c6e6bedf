//! A disk that is read and never written: changes stay in memory, in blocks.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, MutexGuard};

use redb::{BackendError, StorageBackend};

use crate::store::Disk;

/// Length of a block, in bytes.
const BLOCK: usize = 4096;

/// Read-only bytes.
pub(super) trait Base: std::fmt::Debug + Send + Sync + 'static {
    /// Returns their number.
    fn length(&self) -> io::Result<u64>;

    /// Fills `out` with the bytes at `offset`, all of which exist.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

impl Base for File {
    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(out, offset)
    }
}

impl<D: Disk> Base for Arc<D> {
    fn length(&self) -> io::Result<u64> {
        self.len()
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.read(offset, out)
    }
}

/// Read-only bytes, and the blocks written over them.
#[derive(Debug)]
pub(super) struct Overlay<B> {
    base: B,
    /// Maximum size of the written blocks, in bytes; a write beyond it fails as on a full disk.
    limit: usize,
    /// redb requires `Sync`; contention is rare.
    written: Mutex<WrittenBlocks>,
}

#[derive(Debug)]
struct WrittenBlocks {
    length: u64,
    /// Part of the base that is still visible: it is cut when the length is set below its own.
    visible: u64,
    blocks: BTreeMap<u64, Box<[u8; BLOCK]>>,
}

impl<B: Base> Overlay<B> {
    pub(super) fn over(base: B, limit: usize) -> io::Result<Overlay<B>> {
        let length = base.length()?;
        let written = WrittenBlocks { length, visible: length, blocks: BTreeMap::new() };
        Ok(Overlay { base, limit, written: Mutex::new(written) })
    }

    fn written(&self) -> io::Result<MutexGuard<'_, WrittenBlocks>> {
        self.written.lock().map_err(|_| io::Error::other("an earlier look panicked"))
    }

    /// Returns the block at `number`: the written one, or that of the base, with zeros beyond its end.
    fn block(&self, written: &WrittenBlocks, number: u64) -> io::Result<Box<[u8; BLOCK]>> {
        if let Some(block) = written.blocks.get(&number) {
            return Ok(block.clone());
        }
        let mut block = Box::new([0; BLOCK]);
        let offset = number * BLOCK as u64;
        let present = usize::try_from(written.visible.saturating_sub(offset)).unwrap_or(BLOCK).min(BLOCK);
        self.base.read_at(offset, &mut block[..present])?;
        Ok(block)
    }
}

/// Iterates over the blocks that a range touches: number, offset within, and length.
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

impl<B: Base> StorageBackend for Overlay<B> {
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
        let mut written = self.written()?;
        written.length = length;
        written.visible = written.visible.min(length);
        written.blocks.retain(|number, _| number * (BLOCK as u64) < length);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut written = self.written()?;
        let mut taken = 0;
        for (number, begin, count) in pieces(offset, data.len()) {
            if !written.blocks.contains_key(&number) && written.blocks.len() >= self.limit / BLOCK {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let mut block = self.block(&written, number)?;
            block[begin..begin + count].copy_from_slice(&data[taken..taken + count]);
            written.blocks.insert(number, block);
            taken += count;
        }
        written.length = written.length.max(offset + data.len() as u64);
        Ok(())
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

impl<B: Base> Disk for Overlay<B> {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::ram::Ram;

    fn overlay(limit: usize) -> Overlay<Arc<Ram>> {
        let bytes = (0..10_000u32).map(|n| n.to_le_bytes()[0]).collect();
        Overlay::over(Arc::new(Ram::of(bytes)), limit).unwrap()
    }

    fn bytes(overlay: &Overlay<Arc<Ram>>, offset: u64, count: usize) -> Vec<u8> {
        let mut out = vec![0; count];
        overlay.read(offset, &mut out).unwrap();
        out
    }

    #[test]
    fn what_is_written_stands_over_the_base_and_the_base_is_untouched() {
        let overlay = overlay(1 << 20);
        let before = overlay.base.bytes();
        overlay.write(4_090, b"over the edge").unwrap();
        assert_eq!(bytes(&overlay, 4_090, 13), b"over the edge");
        assert_eq!(bytes(&overlay, 4_088, 2), [4_088u32.to_le_bytes()[0], 4_089u32.to_le_bytes()[0]]);
        assert_eq!(overlay.base.bytes(), before);
    }

    #[test]
    fn what_was_cut_off_comes_back_as_zeros() {
        let overlay = overlay(1 << 20);
        overlay.write(9_000, b"gone").unwrap();
        overlay.set_len(5_000).unwrap();
        assert!(overlay.read(4_999, &mut [0; 2]).is_err());
        overlay.set_len(10_000).unwrap();
        assert_eq!(bytes(&overlay, 9_000, 4), [0; 4]);
        assert_eq!(bytes(&overlay, 5_000, 1), [0]);
    }

    #[test]
    fn beyond_its_limit_it_is_a_full_disk() {
        let overlay = overlay(2 * BLOCK);
        overlay.write(0, &[1; 2 * BLOCK]).unwrap();
        overlay.write(0, &[2; BLOCK]).unwrap();
        let refused = overlay.write(2 * BLOCK as u64, &[3]).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::StorageFull);
    }
}

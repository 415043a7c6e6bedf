//! A disk in memory that counts written bytes.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use peat_node::store::Disk;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

/// A storage backend in memory that counts written bytes.
#[derive(Debug)]
pub(crate) struct CountingDisk {
    inner: InMemoryBackend,
    written: Arc<AtomicU64>,
}

impl CountingDisk {
    /// Creates an empty disk that counts in `written`.
    pub(crate) fn new(written: &Arc<AtomicU64>) -> CountingDisk {
        CountingDisk { inner: InMemoryBackend::new(), written: Arc::clone(written) }
    }
}

impl StorageBackend for CountingDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.write(offset, data)
    }
}

impl Disk for CountingDisk {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        self.inner.len().unwrap_or(0)
    }
}

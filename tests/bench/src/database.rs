//! Looks into, and tampers with, the database of a node that is not running.

use std::io;
use std::ops::Bound;
use std::path::Path;

use bench_peers::Failure;
use peat_node::store::FileDisk;
use redb::{BackendError, Database, ReadableDatabase, ReadableTableMetadata, StorageBackend, TableDefinition};

/// The node's own header and its journal, before redb's pages (docs/storage.md). A node that was stopped has all in those.
const PAGES_AT: u64 = 4096 + 32_768;
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const CHUNKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("chunks");
const CURSORS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("cursors");

/// How much is stored, without the trees it is stored in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// Records, tombstones included.
    pub(crate) records: u64,
    /// Their keys and values, and their chunks.
    pub(crate) bytes: u64,
}

/// The records of the node whose data directory is `data`.
pub(crate) fn stored(data: &Path) -> Result<Stored, Failure> {
    let database = open(data)?;
    let transaction = database.begin_read()?;
    let [records, chunks] = [transaction.open_table(RECORDS)?, transaction.open_table(CHUNKS)?];
    let bytes = records.stats()?.stored_bytes() + chunks.stats()?.stored_bytes();
    // The counters are a row too.
    Ok(Stored { records: records.len()? - 1, bytes })
}

/// Makes the node forget how far it has come with every peer, as if the checkpoints had been lost.
pub(crate) fn forget_cursors(data: &Path) -> Result<(), Failure> {
    let database = open(data)?;
    let transaction = database.begin_write()?;
    transaction.open_table(CURSORS)?.retain(|_, _| false)?;
    Ok(transaction.commit()?)
}

fn open(data: &Path) -> Result<Database, Failure> {
    Ok(Database::builder().create_with_backend(Pages(FileDisk::open(data)?))?)
}

/// redb's part of the file.
#[derive(Debug)]
struct Pages(FileDisk);

impl StorageBackend for Pages {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len()?.saturating_sub(PAGES_AT))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset + PAGES_AT, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len + PAGES_AT)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset + PAGES_AT, data)
    }

    // The file itself is locked for as long as it is open.
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

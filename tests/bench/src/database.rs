//! Inspects and modifies the database of a stopped node.

use std::io;
use std::ops::Bound;
use std::path::Path;

use bench_peers::Failure;
use peat_node::store::FileDisk;
use redb::{BackendError, Database, ReadableDatabase, ReadableTableMetadata, StorageBackend, TableDefinition};

/// Offset of redb's pages in bytes, after the node's header and its journal (docs/storage.md). After a clean stop the pages
/// contain all data.
const PAGES_AT: u64 = 4096 + 32_768;
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
const CHUNKS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("chunks");
const CURSORS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("cursors");

/// Amount of stored data, without the overhead of the trees.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stored {
    /// Number of records, tombstones included.
    pub(crate) records: u64,
    /// Bytes of their keys, values and chunks.
    pub(crate) bytes: u64,
}

/// Measures the records of the node with the data directory `data`.
pub(crate) fn stored(data: &Path) -> Result<Stored, Failure> {
    let database = open(data)?;
    let transaction = database.begin_read()?;
    let [records, chunks] = [transaction.open_table(RECORDS)?, transaction.open_table(CHUNKS)?];
    let bytes = records.stats()?.stored_bytes() + chunks.stats()?.stored_bytes();
    // The counters occupy one row of the table.
    Ok(Stored { records: records.len()? - 1, bytes })
}

/// Deletes the node's cursors of all peers, as if the checkpoints had been lost.
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

    // The file itself is locked while it is open.
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

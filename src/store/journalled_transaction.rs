//! A write transaction that notes its changes for the journal.

use std::cell::RefCell;

use redb::{AccessGuard, ReadableTableMetadata, WriteTransaction};

use crate::store::Error;
use crate::store::journal::Journal;
use crate::store::tables::Table;

/// A transaction and the journal that notes its changes. Tables must be changed through this type only: a change that bypasses
/// it is lost in a crash.
pub(super) struct JournalledTransaction<'t> {
    transaction: &'t WriteTransaction,
    journal: RefCell<&'t mut Journal>,
}

impl<'t> JournalledTransaction<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction, journal: &'t mut Journal) -> JournalledTransaction<'t> {
        JournalledTransaction { transaction, journal: RefCell::new(journal) }
    }

    pub(super) fn open(&self, table: Table) -> Result<JournalledTable<'_, 't>, Error> {
        Ok(JournalledTable { rows: self.transaction.open_table(table)?, table, tables: self })
    }
}

/// A table opened through [`JournalledTransaction`].
pub(super) struct JournalledTable<'n, 't> {
    rows: redb::Table<'n, &'static [u8], &'static [u8]>,
    table: Table,
    tables: &'n JournalledTransaction<'t>,
}

/// Value of a row.
type Value<'a> = AccessGuard<'a, &'static [u8]>;

impl JournalledTable<'_, '_> {
    pub(super) fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.tables.journal.borrow_mut().put(self.table, key, value);
        self.rows.insert(key, value)?;
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<Option<Value<'_>>, Error> {
        self.tables.journal.borrow_mut().remove(self.table, key);
        Ok(self.rows.remove(key)?)
    }

    /// Removes and returns the first row.
    pub(super) fn pop_first(&mut self) -> Result<Option<(Value<'_>, Value<'_>)>, Error> {
        let first = self.rows.pop_first()?;
        if let Some((key, _)) = &first {
            self.tables.journal.borrow_mut().remove(self.table, key.value());
        }
        Ok(first)
    }

    pub(super) fn len(&self) -> Result<u64, Error> {
        Ok(self.rows.len()?)
    }
}

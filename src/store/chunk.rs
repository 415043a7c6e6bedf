//! Checks Automerge chunks from a peer before Automerge loads them.
//!
//! A few bytes of run-length encoding can stand for billions of operations, and Automerge expands what it loads. This module
//! walks the runs without expanding them, and refuses chunks that would inflate: types that nodes never send, compressed data,
//! counts that exceed the bytes present, and more rows than the caller allows. It allocates a few counters and, for each
//! change of a document chunk, its place in the history. Must never call Automerge.
//!
//! The format is <https://automerge.org/automerge-binary-format-spec/>. Checks beyond it cover what Automerge 0.12 assumes
//! without checking.

mod columns;
mod history;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fmt;

use ring::digest;

use crate::limits::CHANGE_OPERATIONS;
use columns::{Columns, Tally};
use reader::Reader;

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
const HASH_BYTES: usize = 32;

/// Limit of rows for documents of this node, which all have fewer.
const ROWS_MEASURED: u64 = 1 << 32;
/// Rows that a change counts as, besides its operations: it costs Automerge 1.7 KB, a row 0.5 KB.
const CHANGE_ROWS: u64 = 2;
/// Limit of actors × changes, in multiples of the limit of rows. Automerge keeps a clock (a number for each actor) for one
/// change in 16.
const CLOCK_ENTRIES_PER_ROW: u64 = 16;

/// Reason for refusing chunks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChunkError {
    /// The chunk has this type: a compressed change (2), a bundle (3), or an unknown one.
    Kind(u8),
    /// A document chunk has a compressed column.
    Compressed,
    /// The checksum does not match the bytes.
    Checksum,
    /// The expanded chunks have more rows than this limit.
    Rows(u64),
    /// The expanded strings have more bytes than this limit.
    Strings(u64),
    /// A change has more operations than this limit.
    Change(u64),
    /// The document has more fields and elements than this limit.
    Elements(u64),
    /// The number of actors times changes exceeds this limit.
    Clocks(u64),
    /// The bytes are not a valid chunk, for this reason.
    Malformed(&'static str),
}

impl fmt::Display for ChunkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChunkError::Kind(2) | ChunkError::Compressed => write!(f, "the chunk is compressed"),
            ChunkError::Kind(kind) => {
                write!(f, "the chunk is of type {kind}; only documents (0) and changes (1) travel")
            }
            ChunkError::Checksum => write!(f, "the chunk's checksum does not match"),
            ChunkError::Rows(limit) => write!(f, "the chunks expand to more than {limit} rows"),
            ChunkError::Strings(limit) => write!(f, "the chunks' strings expand to more than {limit} bytes"),
            ChunkError::Change(limit) => write!(f, "a change in the chunks has more than {limit} operations"),
            ChunkError::Elements(limit) => write!(f, "the chunks expand to more than {limit} fields and elements"),
            ChunkError::Clocks(limit) => write!(f, "the chunks' actors times changes exceed {limit}"),
            ChunkError::Malformed(what) => write!(f, "malformed chunk: {what}"),
        }
    }
}

impl std::error::Error for ChunkError {}

/// Checks concatenated chunks. `rows_limit` bounds the sum, over all groups of columns, of the rows of the longest column.
///
/// # Errors
/// The first fault found. The bytes must not be given to Automerge then.
pub fn check(bytes: &[u8], rows_limit: u64) -> Result<(), ChunkError> {
    walk(bytes, rows_limit).map(drop)
}

/// Size of chunks once Automerge has expanded them, as [`check`] counts it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Expansion {
    /// Number of rows; see [`crate::limits::CHUNK_ROWS`].
    pub rows: u64,
    /// Bytes of strings, each counted once for every row it stands for.
    pub string_bytes: u64,
}

impl Expansion {
    /// Measures chunks that this node made, without limits.
    ///
    /// # Errors
    /// The chunks are malformed.
    pub fn measure(bytes: &[u8]) -> Result<Expansion, ChunkError> {
        let checker = walk(bytes, ROWS_MEASURED)?;
        let (rows, string_bytes) = checker.tally.counted();
        Ok(Expansion { rows, string_bytes })
    }

    /// Returns the sum of two expansions.
    #[must_use]
    pub fn and(self, more: Expansion) -> Expansion {
        Expansion { rows: self.rows + more.rows, string_bytes: self.string_bytes + more.string_bytes }
    }
}

/// Limits for the expanded chunks of one document, derived from a limit of rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    rows: u64,
}

impl Bounds {
    /// Returns the limits that [`check`] derives from this limit of rows.
    #[must_use]
    pub const fn of_rows(rows: u64) -> Bounds {
        Bounds { rows }
    }

    /// Returns the first limit that a document with this number of actors and changes exceeds.
    #[must_use]
    pub fn exceeded(self, expansion: Expansion, (actors, changes): (u64, u64)) -> Option<Bound> {
        let strings = self.rows.saturating_mul(columns::STRING_BYTES_PER_ROW);
        let clocks = self.rows.saturating_mul(CLOCK_ENTRIES_PER_ROW);
        [
            (expansion.rows, self.rows, "operations"),
            (expansion.string_bytes, strings, "bytes of keys, each counted with every edit"),
            (actors.saturating_mul(changes), clocks, "edits times concurrent writers"),
        ]
        .into_iter()
        .find(|(count, limit, _)| count > limit)
        .map(|(count, limit, what)| Bound { count, limit, what })
    }
}

/// An exceeded limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound {
    /// Actual number.
    pub count: u64,
    /// Limit of the number.
    pub limit: u64,
    /// Counted items, as a phrase for messages.
    pub what: &'static str,
}

fn walk(bytes: &[u8], rows_limit: u64) -> Result<Checker<'_>, ChunkError> {
    let mut checker = Checker { tally: Tally::new(rows_limit), actors: BTreeSet::new(), changes: 0, rows_limit };
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        checker.chunk(&mut reader)?;
    }
    Ok(checker)
}

/// Totals over all chunks of one message.
struct Checker<'a> {
    tally: Tally,
    actors: BTreeSet<&'a [u8]>,
    changes: u64,
    rows_limit: u64,
}

impl<'a> Checker<'a> {
    fn chunk(&mut self, reader: &mut Reader<'a>) -> Result<(), ChunkError> {
        if reader.take(MAGIC.len())? != MAGIC {
            return Err(ChunkError::Malformed("it does not start with the magic bytes"));
        }
        let checksum = reader.take(4)?;
        let hashed = reader.rest();
        let kind = reader.byte()?;
        let body = reader.prefixed()?;
        let hashed = &hashed[..hashed.len() - reader.rest().len()];
        if !matches!(kind, 0 | 1) {
            return Err(ChunkError::Kind(kind));
        }
        if digest::digest(&digest::SHA256, hashed).as_ref()[..4] != *checksum {
            return Err(ChunkError::Checksum);
        }
        match kind {
            0 => self.document(Reader::new(body))?,
            _ => self.change(Reader::new(body))?,
        }
        self.check_clocks()
    }

    fn check_clocks(&self) -> Result<(), ChunkError> {
        let limit = self.rows_limit.saturating_mul(CLOCK_ENTRIES_PER_ROW);
        match (self.actors.len() as u64).checked_mul(self.changes) {
            Some(entries) if entries <= limit => Ok(()),
            _ => Err(ChunkError::Clocks(limit)),
        }
    }

    fn document(&mut self, mut body: Reader<'a>) -> Result<(), ChunkError> {
        self.actors(&mut body)?;
        hashes(&mut body)?;
        let changes = Columns::read(&mut body)?;
        let operations = Columns::read(&mut body)?;
        let history = history::History::find(&changes, body)?;
        let count = changes.walk(&mut body, &mut self.tally)?;
        self.count_changes(count)?;
        history.check(self.rows_limit)?;
        operations.walk_document(&mut body, &mut self.tally)?;
        while !body.is_empty() {
            body.unsigned()?;
        }
        Ok(())
    }

    fn change(&mut self, mut body: Reader<'a>) -> Result<(), ChunkError> {
        hashes(&mut body)?;
        self.actors.insert(body.prefixed()?);
        let sequence = body.unsigned()?;
        let first_operation = body.unsigned()?;
        body.signed()?;
        let message = body.prefixed()?;
        if std::str::from_utf8(message).is_err() {
            return Err(ChunkError::Malformed("its message is not UTF-8"));
        }
        self.actors(&mut body)?;
        let operations = Columns::read(&mut body)?.walk_change(&mut body, &mut self.tally)?;
        if operations > CHANGE_OPERATIONS {
            return Err(ChunkError::Change(CHANGE_OPERATIONS));
        }
        let last_operation = first_operation.checked_add(operations);
        if first_operation == 0 || last_operation.is_none_or(|last| last >= u64::from(u32::MAX)) {
            return Err(ChunkError::Malformed("its operations are numbered out of range"));
        }
        if sequence == 0 || sequence >= u64::from(u32::MAX) {
            return Err(ChunkError::Malformed("its sequence number is out of range"));
        }
        self.count_changes(1)
    }

    fn count_changes(&mut self, count: u64) -> Result<(), ChunkError> {
        self.changes += count;
        self.tally.add_rows(count.checked_mul(CHANGE_ROWS))
    }

    /// Reads a list of actor ids behind their number.
    fn actors(&mut self, body: &mut Reader<'a>) -> Result<(), ChunkError> {
        for _ in 0..body.count(1)? {
            self.actors.insert(body.prefixed()?);
        }
        Ok(())
    }
}

/// Reads a list of change hashes behind their number.
fn hashes(body: &mut Reader<'_>) -> Result<(), ChunkError> {
    let count = body.count(HASH_BYTES)?;
    body.take(count * HASH_BYTES).map(drop)
}

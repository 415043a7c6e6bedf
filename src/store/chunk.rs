//! Looks over Automerge chunks from a peer before Automerge loads them.
//!
//! A few bytes of run-length encoding can stand for billions of operations, and Automerge expands what it loads. This
//! walks the runs without expanding them and refuses what would inflate: chunks of a kind the node never sends,
//! anything compressed, counts that the bytes cannot hold, and more rows than the caller allows. Allocates nothing but
//! a few counters and, per change of a document chunk, its place in the history; must never call Automerge.
//!
//! The format is <https://automerge.org/automerge-binary-format-spec/>; what is checked beyond it is what Automerge
//! 0.12 takes on trust.

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

/// No document that this node holds has more rows.
const ROWS_MEASURED: u64 = 1 << 32;
/// A change counts as this many rows besides those of its operations: it costs Automerge 1.7 KB, a row 0.5 KB.
const CHANGE_ROWS: u64 = 2;
/// Automerge keeps a clock (a number for each actor) for one change in 16, so actors × changes is bounded too: by this
/// many times the limit of rows.
const CLOCK_ENTRIES_PER_ROW: u64 = 16;

/// Why chunks are refused.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ChunkError {
    /// A chunk of this type: a compressed change (2), a bundle (3), or one nobody knows.
    Kind(u8),
    /// A document chunk with a compressed column.
    Compressed,
    /// The checksum is not that of the bytes.
    Checksum,
    /// Expanded, the chunks have more rows than this limit.
    Rows(u64),
    /// Expanded, the strings in the chunks have more bytes than this limit.
    Strings(u64),
    /// A change has more operations than this limit.
    Change(u64),
    /// The document has more fields and elements than this limit.
    Elements(u64),
    /// Actors times changes exceed this limit.
    Clocks(u64),
    /// Bytes that are no chunk: what is wrong with them.
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

/// Looks over concatenated chunks; `rows_limit` bounds the rows of all their columns' longest together.
///
/// # Errors
/// The first thing that is wrong. Automerge must not see the bytes then.
pub fn check(bytes: &[u8], rows_limit: u64) -> Result<(), ChunkError> {
    walk(bytes, rows_limit).map(drop)
}

/// What [`check`] counts of chunks, against the limits.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Expansion {
    /// See [`crate::limits::CHUNK_ROWS`].
    pub rows: u64,
    /// Bytes of strings, each as often as it stands for a row.
    pub string_bytes: u64,
}

impl Expansion {
    /// Of chunks of this node's own making, whatever the limits.
    ///
    /// # Errors
    /// They are malformed.
    pub fn measure(bytes: &[u8]) -> Result<Expansion, ChunkError> {
        let checker = walk(bytes, ROWS_MEASURED)?;
        let (rows, string_bytes) = checker.tally.counted();
        Ok(Expansion { rows, string_bytes })
    }

    /// Of these chunks and more.
    #[must_use]
    pub fn and(self, more: Expansion) -> Expansion {
        Expansion { rows: self.rows + more.rows, string_bytes: self.string_bytes + more.string_bytes }
    }
}

/// What the chunks of one document may expand to, as [`check`] holds it against `rows` rows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bounds {
    rows: u64,
}

impl Bounds {
    /// The bounds that [`check`] has with this limit of rows.
    #[must_use]
    pub const fn of_rows(rows: u64) -> Bounds {
        Bounds { rows }
    }

    /// The first that a document with so many actors and changes exceeds.
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

/// A bound that is exceeded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bound {
    /// How much there is.
    pub count: u64,
    /// How much there may be.
    pub limit: u64,
    /// Of what, in words.
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

/// What all chunks of one message add up to.
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

    /// A counted list of actor ids.
    fn actors(&mut self, body: &mut Reader<'a>) -> Result<(), ChunkError> {
        for _ in 0..body.count(1)? {
            self.actors.insert(body.prefixed()?);
        }
        Ok(())
    }
}

/// A counted list of change hashes.
fn hashes(body: &mut Reader<'_>) -> Result<(), ChunkError> {
    let count = body.count(HASH_BYTES)?;
    body.take(count * HASH_BYTES).map(drop)
}

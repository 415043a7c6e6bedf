//! Walks columns run by run, and counts their rows.

use super::ChunkError;
use super::reader::Reader;
use crate::limits::CHUNK_ELEMENTS;

/// Limit of the expanded strings, in bytes per allowed row: 96 MiB for 1.5 million rows. Automerge holds each string once
/// while it loads a document; a row takes half a kilobyte.
pub(super) const STRING_BYTES_PER_ROW: u64 = 64;
/// Number of column specifications. Automerge 0.12 confuses columns with higher ones with those it knows.
const SPECIFICATIONS: u64 = 256;
const DEFLATED: u64 = 0b1000;

// Column types: the lowest three bits of a column's specification.
const GROUP: u64 = 0;
const DELTA: u64 = 3;
const BOOLEAN: u64 = 4;
const STRING: u64 = 5;
const VALUE_LENGTHS: u64 = 6;
const VALUES: u64 = 7;

/// Columns with the number of operations that replace an operation, the number of those it replaces, and its action.
const SUCCESSORS: u64 = 0x80;
const PREDECESSORS: u64 = 0x70;
const ACTIONS: u64 = 0x42;
/// Action of a deletion.
const DELETE: u64 = 3;

const LONG_VALUES: ChunkError = ChunkError::Malformed("values are longer than their column");

/// Rows, strings and elements counted so far, against their limits.
#[derive(Debug)]
pub(super) struct Tally {
    rows_limit: u64,
    rows: u64,
    string_bytes: u64,
    elements: u64,
}

impl Tally {
    pub(super) fn new(rows_limit: u64) -> Tally {
        Tally { rows_limit, rows: 0, string_bytes: 0, elements: 0 }
    }

    /// Returns the number of rows and the bytes of strings.
    pub(super) fn counted(&self) -> (u64, u64) {
        (self.rows, self.string_bytes)
    }

    /// Returns the number of rows if it is within what is left of the limit.
    fn check_rows(&self, rows: Option<u64>) -> Result<u64, ChunkError> {
        match rows {
            Some(rows) if rows <= self.rows_limit - self.rows => Ok(rows),
            _ => Err(ChunkError::Rows(self.rows_limit)),
        }
    }

    /// Counts rows, or items that cost as much as rows.
    pub(super) fn add_rows(&mut self, rows: Option<u64>) -> Result<(), ChunkError> {
        self.rows += self.check_rows(rows)?;
        Ok(())
    }

    /// Counts rows that may be visible as fields or elements.
    fn add_elements(&mut self, elements: u64) -> Result<(), ChunkError> {
        self.elements += elements;
        if self.elements > CHUNK_ELEMENTS { Err(ChunkError::Elements(CHUNK_ELEMENTS)) } else { Ok(()) }
    }

    fn add_strings(&mut self, bytes: Option<u64>) -> Result<(), ChunkError> {
        let limit = self.rows_limit.saturating_mul(STRING_BYTES_PER_ROW);
        match bytes.and_then(|bytes| self.string_bytes.checked_add(bytes)) {
            Some(total) if total <= limit => self.string_bytes = total,
            _ => return Err(ChunkError::Strings(limit)),
        }
        Ok(())
    }
}

/// The directory of a group of columns: the specification and the length in bytes of each.
#[derive(Debug)]
pub(super) struct Columns(Vec<(u64, usize)>);

impl Columns {
    pub(super) fn read(reader: &mut Reader<'_>) -> Result<Columns, ChunkError> {
        let count = reader.count(2)?;
        let mut columns: Vec<(u64, usize)> = Vec::with_capacity(count.min(64));
        for _ in 0..count {
            let specification = reader.unsigned()?;
            if specification & DEFLATED != 0 {
                return Err(ChunkError::Compressed);
            }
            if specification >= SPECIFICATIONS {
                return Err(ChunkError::Malformed("a column of an unknown number"));
            }
            if columns.last().is_some_and(|(previous, _)| *previous >= specification) {
                return Err(ChunkError::Malformed("columns out of order"));
            }
            columns.push((specification, reader.count(1)?));
        }
        Ok(Columns(columns))
    }

    /// Returns the bytes of one column, empty if it is absent. `data` begins with the first column.
    pub(super) fn find<'a>(&self, wanted: u64, mut data: Reader<'a>) -> Result<Reader<'a>, ChunkError> {
        for (specification, length) in &self.0 {
            let column = data.take(*length)?;
            if *specification == wanted {
                return Ok(Reader::new(column));
            }
        }
        Ok(Reader::new(&[]))
    }

    /// Walks the operation columns of a document. Operations that no other replaces are visible as fields and elements.
    pub(super) fn walk_document(&self, reader: &mut Reader<'_>, tally: &mut Tally) -> Result<(), ChunkError> {
        let successors = self.find(SUCCESSORS, *reader)?;
        let rows = self.walk(reader, tally)?;
        let replaced = rows_where(successors, |count| count > 0)?;
        tally.add_elements(rows.saturating_sub(replaced))
    }

    /// Walks the operation columns of a change, and returns the number of operations. Operations that replace none are visible
    /// as fields and elements; a deletion removes one.
    pub(super) fn walk_change(&self, reader: &mut Reader<'_>, tally: &mut Tally) -> Result<u64, ChunkError> {
        let (predecessors, actions) = (self.find(PREDECESSORS, *reader)?, self.find(ACTIONS, *reader)?);
        let rows = self.walk(reader, tally)?;
        let replacing = rows_where(predecessors, |count| count > 0)?;
        let deletions = rows_where(actions, |action| action == DELETE)?;
        tally.add_elements(rows.saturating_sub(replacing).saturating_sub(deletions))?;
        Ok(rows)
    }

    /// Walks the bytes of the columns, and returns the number of rows of the longest.
    pub(super) fn walk(&self, reader: &mut Reader<'_>, tally: &mut Tally) -> Result<u64, ChunkError> {
        let mut longest = 0;
        // Column of value lengths that awaits its column of values: its specification, and the bytes it needs.
        let mut asked = (0, 0);
        for (specification, length) in &self.0 {
            let column = Reader::new(reader.take(*length)?);
            if specification & 7 == VALUES {
                check_values(*specification, *length as u64, &mut asked)?;
                continue;
            }
            let (rows, sum) = walk_column(*specification, column, tally)?;
            longest = longest.max(rows);
            match specification & 7 {
                GROUP => longest = longest.max(tally.check_rows(sum)?),
                VALUE_LENGTHS if asked.1 == 0 => asked = (*specification, sum.ok_or(LONG_VALUES)?),
                VALUE_LENGTHS => return Err(LONG_VALUES),
                _ => {}
            }
        }
        tally.add_rows(Some(longest))?;
        if asked.1 == 0 { Ok(longest) } else { Err(LONG_VALUES) }
    }
}

fn check_values(specification: u64, length: u64, asked: &mut (u64, u64)) -> Result<(), ChunkError> {
    let (lengths, bytes) = std::mem::take(asked);
    let held = lengths + 1 == specification && bytes <= length;
    if held || bytes == 0 { Ok(()) } else { Err(LONG_VALUES) }
}

/// Returns the number of rows of a column, and the sum of its values if that is meaningful (`None` on overflow).
fn walk_column(specification: u64, column: Reader<'_>, tally: &mut Tally) -> Result<(u64, Option<u64>), ChunkError> {
    let mut sum = Some(0u64);
    let mut add = |value: u64, times: u64| sum = sum.and_then(|sum| sum.checked_add(value.checked_mul(times)?));
    let rows = match specification & 7 {
        BOOLEAN => walk_booleans(column, tally)?,
        DELTA => {
            let mut total = Some(0i64);
            walk_runs(column, tally, |reader, times, _| {
                let step = reader.signed()?;
                let times = i64::try_from(times).ok();
                total = total.and_then(|total| total.checked_add(step.checked_mul(times?)?));
                total.map(drop).ok_or(ChunkError::Malformed("a counter overflows"))
            })?
        }
        STRING => walk_runs(column, tally, |reader, times, tally| {
            let text = reader.prefixed()?;
            std::str::from_utf8(text).map_err(|_| ChunkError::Malformed("a string is not UTF-8"))?;
            tally.add_strings((text.len() as u64).checked_mul(times))
        })?,
        VALUE_LENGTHS => walk_runs(column, tally, |reader, times, _| {
            add(reader.unsigned()? >> 4, times);
            Ok(())
        })?,
        _ => walk_runs(column, tally, |reader, times, _| {
            add(reader.unsigned()?, times);
            Ok(())
        })?,
    };
    Ok((rows, sum))
}

/// Walks a run-length encoded column. `value` reads one value and receives the number of its repetitions.
fn walk_runs(
    mut column: Reader<'_>,
    tally: &mut Tally,
    mut value: impl FnMut(&mut Reader<'_>, u64, &mut Tally) -> Result<(), ChunkError>,
) -> Result<u64, ChunkError> {
    let mut rows = 0u64;
    while !column.is_empty() {
        let count = column.signed()?;
        let times = if count == 0 { column.unsigned()? } else { count.unsigned_abs() };
        // Checked before the values are read: a run of millions must not be walked.
        rows = tally.check_rows(rows.checked_add(times))?;
        match count {
            0 => {}
            1.. => value(&mut column, times, tally)?,
            _ => {
                for _ in 0..times {
                    value(&mut column, 1, tally)?;
                }
            }
        }
    }
    Ok(rows)
}

/// Counts the rows with a `wanted` value in a run-length encoded column of numbers, which must have been walked already.
fn rows_where(mut column: Reader<'_>, wanted: impl Fn(u64) -> bool) -> Result<u64, ChunkError> {
    let mut rows = 0;
    while !column.is_empty() {
        let count = column.signed()?;
        match count {
            0 => _ = column.unsigned()?,
            1.. => rows += if wanted(column.unsigned()?) { count.unsigned_abs() } else { 0 },
            _ => {
                for _ in 0..count.unsigned_abs() {
                    rows += u64::from(wanted(column.unsigned()?));
                }
            }
        }
    }
    Ok(rows)
}

/// Walks alternating runs of false and true.
fn walk_booleans(mut column: Reader<'_>, tally: &Tally) -> Result<u64, ChunkError> {
    let mut rows = 0u64;
    while !column.is_empty() {
        rows = tally.check_rows(rows.checked_add(column.unsigned()?))?;
    }
    Ok(rows)
}

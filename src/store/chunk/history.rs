//! The history in a document chunk: the dependencies and the number of operations of each change.
//!
//! Automerge reserves memory for as many operations as the numbers of a change imply, even if the chunk does not contain them,
//! and follows dependencies without checking that the change exists.

use super::ChunkError;
use super::columns::Columns;
use super::reader::Reader;
use crate::limits::CHANGE_OPERATIONS;

const LAST_OPERATION: u64 = 0x13;
const DEPENDENCY_COUNT: u64 = 0x40;
const DEPENDENCIES: u64 = 0x43;

const UNKNOWN_DEPENDENCY: ChunkError = ChunkError::Malformed("a change depends on none before it");
const OPERATION_NUMBER: ChunkError = ChunkError::Malformed("operations are numbered out of range");

/// The columns of changes that describe the history.
pub(super) struct History<'a> {
    last_operations: Reader<'a>,
    dependency_counts: Reader<'a>,
    dependencies: Reader<'a>,
}

impl<'a> History<'a> {
    pub(super) fn find(changes: &Columns, data: Reader<'a>) -> Result<History<'a>, ChunkError> {
        Ok(History {
            last_operations: changes.find(LAST_OPERATION, data)?,
            dependency_counts: changes.find(DEPENDENCY_COUNT, data)?,
            dependencies: changes.find(DEPENDENCIES, data)?,
        })
    }

    /// Checks the columns, which must have been walked already, so that the number of their rows is within the limit.
    pub(super) fn check(self, rows_limit: u64) -> Result<(), ChunkError> {
        let last_operations = absolute(expand(self.last_operations, Reader::signed)?)?;
        let counts = expand(self.dependency_counts, Reader::unsigned)?;
        let mut dependencies = absolute(expand(self.dependencies, Reader::signed)?)?.into_iter();
        if counts.len() != last_operations.len() {
            return Err(ChunkError::Malformed("columns of different lengths"));
        }
        let (mut operations, mut longest) = (0, 0);
        for (index, count) in counts.into_iter().enumerate() {
            let mut built_on = 0;
            for _ in 0..count.unwrap_or(0) {
                let dependency = dependencies.next().ok_or(UNKNOWN_DEPENDENCY)? as usize;
                let before = last_operations[..index].get(dependency).ok_or(UNKNOWN_DEPENDENCY)?;
                built_on = built_on.max(*before);
            }
            // The operations of a change are numbered from the highest number it builds on.
            let own = u64::from(last_operations[index].checked_sub(built_on).ok_or(OPERATION_NUMBER)?);
            (operations, longest) = (operations + own, own.max(longest));
        }
        match () {
            () if operations > rows_limit => Err(ChunkError::Rows(rows_limit)),
            () if longest > CHANGE_OPERATIONS => Err(ChunkError::Change(CHANGE_OPERATIONS)),
            () => Ok(()),
        }
    }
}

/// Expands a run-length encoded column; `None` stands for null.
fn expand<'a, T: Copy>(
    mut column: Reader<'a>,
    read: impl Fn(&mut Reader<'a>) -> Result<T, ChunkError>,
) -> Result<Vec<Option<T>>, ChunkError> {
    let mut rows = Vec::new();
    while !column.is_empty() {
        let count = column.signed()?;
        let times = usize::try_from(if count == 0 { column.unsigned()? } else { count.unsigned_abs() });
        let times = times.map_err(|_| OPERATION_NUMBER)?;
        match count {
            0 => rows.extend(std::iter::repeat_n(None, times)),
            1.. => rows.extend(std::iter::repeat_n(Some(read(&mut column)?), times)),
            _ => {
                for _ in 0..times {
                    rows.push(Some(read(&mut column)?));
                }
            }
        }
    }
    Ok(rows)
}

/// Converts differences to absolute numbers.
fn absolute(differences: Vec<Option<i64>>) -> Result<Vec<u32>, ChunkError> {
    let mut number = 0i64;
    let add = |difference: Option<i64>| {
        number = number.checked_add(difference.ok_or(OPERATION_NUMBER)?).ok_or(OPERATION_NUMBER)?;
        u32::try_from(number).map_err(|_| OPERATION_NUMBER)
    };
    differences.into_iter().map(add).collect()
}

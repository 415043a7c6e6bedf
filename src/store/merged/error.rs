//! Errors of merged documents.

use std::fmt;

use automerge::AutomergeError;

use crate::limits::JSON_NESTING_LEVELS;

/// Reason that a merged document cannot be used or changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum MergedError {
    /// The stored bytes cannot be decoded, for this reason.
    Damaged(String),
    /// A peer's chunks cannot be decoded, or have a type that peers do not send.
    Malformed(String),
    /// Well-formed changes contradict existing ones.
    Refused(String),
    /// A peer's changes nest deeper than a document may.
    TooDeep,
    /// A base names a missing change.
    UnknownBase,
    /// A put with a superseded base changes more elements of long arrays than can be found as of its base.
    TooMuchAtBase,
}

impl MergedError {
    pub(super) fn refused(cause: &AutomergeError) -> MergedError {
        MergedError::Refused(cause.to_string())
    }
}

impl From<AutomergeError> for MergedError {
    fn from(cause: AutomergeError) -> MergedError {
        MergedError::refused(&cause)
    }
}

impl fmt::Display for MergedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            MergedError::Damaged(why) => write!(f, "the stored history does not load: {why}"),
            MergedError::Malformed(why) => write!(f, "malformed changes: {why}"),
            MergedError::Refused(why) => write!(f, "the changes contradict what is here: {why}"),
            MergedError::TooDeep => {
                write!(f, "objects and arrays nest deeper than the limit of {JSON_NESTING_LEVELS} levels")
            }
            MergedError::TooMuchAtBase => {
                write!(f, "the base is superseded, and the put changes too many elements of long arrays to merge them")
            }
            MergedError::UnknownBase => write!(f, "the base names a change that is not here"),
        }
    }
}

impl std::error::Error for MergedError {}

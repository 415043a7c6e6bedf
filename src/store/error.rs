//! Errors of the store, by blame.

use std::fmt;
use std::io;
use std::sync::Arc;

use peat_ipc::Code;

use crate::error::Blame;
use crate::limits::{CHANGE_OPERATIONS, DOCUMENT_ELEMENTS, DOCUMENT_JSON_BYTES, HISTORY_BYTES, WRITTEN_RECORD_BYTES};
use crate::store::chunk::Bound;
use crate::store::{CommandError, Key, KeyError};

/// A failure of the store. It is cloned when it fails a whole batch: each request receives a copy.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The disk is full; nothing of the batch was written. Reads, and sync to peers, continue.
    DiskFull,
    /// The disk failed; it is unknown if any of the batch was written. The database is opened again.
    Io(Arc<io::Error>),
    /// Stored bytes cannot be decoded, for this reason.
    Damaged(String),
    /// A collection name or a document id is invalid.
    Key(KeyError),
    /// The text is not a JSON object that a document can hold: the reason, with its position.
    Json { key: Key, reason: String },
    /// The JSON of the document exceeds [`DOCUMENT_JSON_BYTES`].
    DocumentTooLarge { key: Key, bytes: usize },
    /// The merged document has more fields and elements than [`DOCUMENT_ELEMENTS`].
    TooManyElements { key: Key, elements: usize },
    /// The put changes more fields and elements at once than [`CHANGE_OPERATIONS`].
    ChangeTooLarge { key: Key, operations: u64 },
    /// The history of the document exceeds [`HISTORY_BYTES`].
    HistoryTooLarge { key: Key, bytes: usize },
    /// The history of the document expands to more than this bound, so that peers would soon refuse it.
    HistoryTooLong { key: Key, bound: Bound },
    /// The document would exceed [`WRITTEN_RECORD_BYTES`] with the put, so that peers would refuse it.
    RecordTooLarge { key: Key, bytes: usize },
    /// The `base` is not a version that this program wrote.
    MalformedBase(Key),
    /// `merged`: the base is unknown here, or of an earlier incarnation.
    UnknownBase(Key),
    /// `latest`: the base is not the current version. `merged`: the same, and the put changes more elements of long arrays
    /// than can be merged.
    BaseNotCurrent(Key),
    /// The document to compact does not exist.
    NotFound(Key),
    /// The document to compact has no history.
    NoHistory(Key),
    /// The document was deleted and created more often than incarnations can count.
    Exhausted(Key),
    /// The stored history of the document cannot be used, for this reason.
    History { key: Key, reason: String },
    /// The database was written by a newer version.
    NewerFormat { found: u32, known: u32 },
    /// The database was written by an older version, in a format that this one does not read.
    OlderFormat { found: u32, known: u32 },
    /// Another process has the database open.
    Locked(String),
    /// The data directory or a file in it cannot be used by this process: the path and the reason.
    NotOurs { path: String, reason: String },
    /// A change of a command was refused.
    Command(CommandError),
    /// A bug, with what was found.
    Bug(String),
}

impl Error {
    /// Returns the error code for the client.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Error::DiskFull
            | Error::DocumentTooLarge { .. }
            | Error::TooManyElements { .. }
            | Error::ChangeTooLarge { .. }
            | Error::HistoryTooLarge { .. }
            | Error::HistoryTooLong { .. }
            | Error::RecordTooLarge { .. } => Code::ResourceExhausted,
            Error::Io(_) => Code::Unavailable,
            Error::Damaged(_) | Error::History { .. } => Code::DataLoss,
            Error::Key(_) | Error::Json { .. } | Error::MalformedBase(_) => Code::InvalidArgument,
            Error::UnknownBase(_) | Error::NoHistory(_) | Error::Exhausted(_) => Code::FailedPrecondition,
            Error::BaseNotCurrent(_) => Code::Aborted,
            Error::NotFound(_) => Code::NotFound,
            Error::NewerFormat { .. } | Error::OlderFormat { .. } | Error::Locked(_) => Code::FailedPrecondition,
            Error::NotOurs { .. } => Code::PermissionDenied,
            Error::Command(cause) => cause.code(),
            Error::Bug(_) => Code::Internal,
        }
    }

    /// Returns the party that has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Error::DiskFull | Error::Io(_) | Error::Damaged(_) | Error::History { .. } => Blame::Machine,
            Error::NewerFormat { .. } | Error::OlderFormat { .. } | Error::Locked(_) | Error::NotOurs { .. } => {
                Blame::Operator
            }
            Error::Bug(_) => Blame::Bug,
            _ => Blame::Client,
        }
    }
}

/// Formats a number of bytes for messages.
pub(super) fn size(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..0x10_0000 => format!("{}.{} KiB", bytes >> 10, ((bytes & 0x3ff) * 10) >> 10),
        _ => format!("{}.{} MiB", bytes >> 20, ((bytes & 0xf_ffff) * 10) >> 20),
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::DiskFull => {
                write!(
                    f,
                    "the disk is full; nothing was written (free 8 MiB or more beside the database, writes then work again)"
                )
            }
            Error::Io(cause) => write!(f, "the disk failed: {cause}; nothing was acknowledged, try again"),
            Error::Damaged(what) => {
                write!(f, "the database is damaged: {what}; restore it, or move it away to start empty and sync again")
            }
            Error::Key(cause) => write!(f, "{cause}"),
            Error::Json { key, reason } => write!(f, "document {key} was refused: {reason}"),
            Error::TooManyElements { key, elements } => write!(
                f,
                "document {key} has {elements} fields and elements; the limit of a merged document is {DOCUMENT_ELEMENTS}: put it as several documents, or into a `latest` collection (--latest-collection)"
            ),
            Error::ChangeTooLarge { key, operations } => write!(
                f,
                "the put changes {operations} fields and elements of document {key}; the limit is {CHANGE_OPERATIONS} at once: change fewer, or delete the document and put it again"
            ),
            Error::DocumentTooLarge { key, bytes } => {
                write!(f, "document {key} is {} of JSON; the limit is {}", size(*bytes), size(DOCUMENT_JSON_BYTES))
            }
            Error::HistoryTooLarge { key, bytes } => write!(
                f,
                "document {key} has {} of history; the limit is {}: run `peat-node compact {} {}`",
                size(*bytes),
                size(HISTORY_BYTES),
                key.collection(),
                key.id()
            ),
            Error::HistoryTooLong { key, bound: Bound { count, limit, what } } => write!(
                f,
                "document {key} has a history of {count} {what}; the limit is {limit}: run `peat-node compact {} {}`",
                key.collection(),
                key.id()
            ),
            Error::RecordTooLarge { key, bytes } => write!(
                f,
                "document {key} would have {} of history with this put; the limit is {}: run `peat-node compact {} {}`",
                size(*bytes),
                size(WRITTEN_RECORD_BYTES),
                key.collection(),
                key.id()
            ),
            Error::MalformedBase(key) => {
                write!(f, "the base given for document {key} is not a version; give back what a get or put returned")
            }
            Error::UnknownBase(key) => {
                write!(f, "the base given for document {key} is not known here; read it again and retry")
            }
            Error::BaseNotCurrent(key) => {
                write!(f, "document {key} has changed since the base given; read it again and retry")
            }
            Error::NotFound(key) => write!(f, "there is no document {key}"),
            Error::NoHistory(key) => write!(f, "document {key} keeps no history; there is nothing to compact"),
            Error::Exhausted(key) => write!(f, "document {key} cannot be created again; use another id"),
            Error::History { key, reason } => {
                write!(f, "the history of document {key} is damaged: {reason}; delete it and put it again")
            }
            Error::NewerFormat { found, known } => write!(
                f,
                "the database has format {found}, this version knows up to {known}; start the newer version, the file was not touched"
            ),
            Error::OlderFormat { found, known } => write!(
                f,
                "the database has format {found}, this version reads format {known} only; start the version that wrote it, or move documents.redb away: the node then starts empty and its peers bring the documents back; the file was not touched"
            ),
            Error::Locked(path) => write!(f, "{path} is in use by another process; stop it, or use another --data-dir"),
            Error::NotOurs { path, reason } => write!(f, "{path} {reason}; use another --data-dir or repair it"),
            Error::Command(cause) => write!(f, "{cause}"),
            Error::Bug(what) => write!(f, "this should not have happened, please report it: {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io(cause) => Some(cause.as_ref()),
            Error::Key(cause) => Some(cause),
            Error::Command(cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<KeyError> for Error {
    fn from(cause: KeyError) -> Error {
        Error::Key(cause)
    }
}

impl From<CommandError> for Error {
    fn from(cause: CommandError) -> Error {
        Error::Command(cause)
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Error {
        match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::DiskFull,
            _ => Error::Io(Arc::new(cause)),
        }
    }
}

impl From<redb::StorageError> for Error {
    fn from(cause: redb::StorageError) -> Error {
        match cause {
            redb::StorageError::Io(cause) => cause.into(),
            redb::StorageError::Corrupted(what) => Error::Damaged(what),
            redb::StorageError::PreviousIo => {
                Error::Io(Arc::new(io::Error::other("a read or write of it failed before; the node opens it anew")))
            }
            other => Error::Io(Arc::new(io::Error::other(other.to_string()))),
        }
    }
}

impl From<redb::TableError> for Error {
    fn from(cause: redb::TableError) -> Error {
        match cause {
            redb::TableError::Storage(cause) => cause.into(),
            other => Error::Damaged(other.to_string()),
        }
    }
}

impl From<redb::TransactionError> for Error {
    fn from(cause: redb::TransactionError) -> Error {
        match cause {
            redb::TransactionError::Storage(cause) => cause.into(),
            other => Error::Bug(other.to_string()),
        }
    }
}

impl From<redb::CommitError> for Error {
    fn from(cause: redb::CommitError) -> Error {
        match cause {
            redb::CommitError::Storage(cause) => cause.into(),
            other => Error::Bug(other.to_string()),
        }
    }
}

impl From<redb::DatabaseError> for Error {
    fn from(cause: redb::DatabaseError) -> Error {
        match cause {
            redb::DatabaseError::Storage(cause) => cause.into(),
            redb::DatabaseError::UpgradeRequired(version) => {
                Error::Damaged(format!("its page format is version {version}, older than any release wrote"))
            }
            other => Error::Damaged(other.to_string()),
        }
    }
}

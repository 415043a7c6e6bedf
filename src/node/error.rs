//! Errors that prevent a node from starting, or that end it.

use std::fmt;
use std::io;
use std::path::Path;

use crate::api::shell::BindError;
use crate::config;
use crate::error::Blame;
use crate::store::{self, BALLAST_BYTES};

/// Bytes that a first start writes, rounded up: 1.1 MiB of database, and the space for a commit.
const FIRST_START_BYTES: u64 = 3 << 20;

/// Failure that ended the node.
#[derive(Debug)]
pub enum Error {
    /// A setting is invalid.
    Config(config::Error),
    /// The store could not be opened.
    Store(store::Error),
    /// A file or directory has the wrong type, owner, mode or content; a sentence that names it.
    Place(String),
    /// Another node has locked the data directory: its path, and the other's process id if known.
    InUse { path: String, pid: Option<u32> },
    /// The disk is full: the file or directory, and the free bytes there.
    NoRoom { path: String, free: Option<u64> },
    /// A client socket could not be opened.
    Listen(BindError),
    /// A system call failed: its purpose, and the cause.
    Machine(String, io::Error),
    /// A thread ended by itself: its role, and its message.
    Thread(&'static str, String),
    /// Threads that did not end when the node stopped: their roles.
    Stuck(String),
}

impl Error {
    /// Converts the failure of a file operation.
    pub(super) fn file(path: &Path, cause: io::Error) -> Error {
        match cause.kind() {
            io::ErrorKind::PermissionDenied
            | io::ErrorKind::ReadOnlyFilesystem
            | io::ErrorKind::NotADirectory
            | io::ErrorKind::AlreadyExists => Error::Place(format!("{}: {cause}", path.display())),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::no_room(path),
            _ => Error::Machine(path.display().to_string(), cause),
        }
    }

    /// Returns the error for a full disk of `path`, which need not exist.
    pub(super) fn no_room(path: &Path) -> Error {
        let volume = path.ancestors().find_map(|path| rustix::fs::statvfs(path).ok());
        let free = volume.map(|volume| volume.f_bavail.saturating_mul(volume.f_frsize));
        Error::NoRoom { path: path.display().to_string(), free }
    }

    /// Returns the party that has to act.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            Error::Config(_) | Error::Place(_) | Error::InUse { .. } => Blame::Operator,
            Error::Store(error) => error.blame(),
            Error::Machine(..) | Error::NoRoom { .. } | Error::Listen(_) => Blame::Machine,
            Error::Thread(..) | Error::Stuck(_) => Blame::Bug,
        }
    }

    /// Returns the exit code: 78 if only the operator can help, so that a service manager does not restart it in a loop. A
    /// data directory in use gives 1, because the other node may be about to end.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::InUse { .. } | Error::Store(store::Error::Locked(_)) => 1,
            error if error.blame() == Blame::Operator => 78,
            _ => 1,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Config(error) => write!(f, "{error}"),
            Error::Store(error) => write!(f, "{error}"),
            Error::Place(words) => write!(f, "{words}"),
            Error::InUse { path, pid: Some(pid) } => {
                write!(f, "{path} is in use by the node with process id {pid}; stop it, or use another --data-dir")
            }
            Error::InUse { path, pid: None } => {
                write!(f, "{path} is in use by another node; stop it, or use another --data-dir")
            }
            Error::NoRoom { path, free } => {
                let free = free.map_or("too little is".to_owned(), |free| format!("{} KiB are", free >> 10));
                write!(
                    f,
                    "{path}: the disk is full: a first start needs {} MiB (a key, an empty database, room for a write) and {free} free; {} MiB more are reserved once there is room",
                    FIRST_START_BYTES >> 20,
                    BALLAST_BYTES >> 20
                )
            }
            Error::Listen(error) => write!(f, "{error}"),
            Error::Machine(what, cause) => write!(f, "{what}: {cause}"),
            Error::Thread(which, words) => write!(f, "the {which} thread ended: {words}"),
            Error::Stuck(which) => write!(f, "not ended in time: {which}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Config(cause) => Some(cause),
            Error::Store(cause) => Some(cause),
            Error::Listen(cause) => Some(cause),
            Error::Machine(_, cause) => Some(cause),
            _ => None,
        }
    }
}

impl From<config::Error> for Error {
    fn from(cause: config::Error) -> Error {
        Error::Config(cause)
    }
}

impl From<store::Error> for Error {
    fn from(cause: store::Error) -> Error {
        Error::Store(cause)
    }
}

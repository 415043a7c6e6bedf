//! The storage seam, and the disk of a real node: redb's backend and space reserved in advance.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use crate::store::Error;

/// Storage of the database: a file in a node, a simulated disk in tests.
///
/// The store puts a layer between this and redb, so the lock methods are never called (a disk is exclusive by construction).
/// Neither is `close`: the disk is no longer used once it is dropped. One disk outlives several openings of the database,
/// because after a failed write the database is opened again over the same disk.
pub trait Disk: redb::StorageBackend {
    /// Reserves space for `bytes` more, or fails with [`io::ErrorKind::StorageFull`].
    ///
    /// # Errors
    /// The disk is full or failed.
    fn reserve(&self, bytes: u64) -> io::Result<()>;

    /// Returns the bytes in use, for `health`.
    fn used(&self) -> u64;

    /// Returns the bytes that can be written in addition to the reserved ones, or `None` if unknown.
    fn free(&self) -> Option<u64> {
        None
    }
}

/// Space kept allocated beside the database while the disk has it, in bytes.
pub(crate) const BALLAST_BYTES: u64 = 8 << 20;
pub(super) const DATABASE: &str = "documents.redb";
const BALLAST: &str = "reserve";
/// Unit of `st_blocks`, in bytes.
const STAT_BLOCK_BYTES: u64 = 512;

/// The database file of a data directory, and the space reserved beside it.
#[derive(Debug)]
pub struct FileDisk {
    file: File,
    /// Path of the ballast file, which may not exist on a full disk.
    ballast: PathBuf,
    /// Allocated bytes of the ballast.
    reserved: AtomicU64,
}

impl FileDisk {
    /// Opens or creates the database file in `directory`, exclusively. Creates the directory with access for this user only.
    ///
    /// # Errors
    /// Another process has locked it, it belongs to another user, or the disk failed.
    pub fn open(directory: &Path) -> Result<FileDisk, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(|cause| named(directory, cause))?;
        check_owner(directory, &fs::metadata(directory).map_err(|cause| named(directory, cause))?, true)?;
        let path = directory.join(DATABASE);
        let file = open_file(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(path.display().to_string())),
            Err(TryLockError::Error(cause)) => return Err(named(&path, cause)),
        }
        let ballast = directory.join(BALLAST);
        let reserved = AtomicU64::new(match fs::symlink_metadata(&ballast) {
            Ok(metadata) => {
                check_file(&ballast, &metadata)?;
                allocated(&metadata)
            }
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => 0,
            Err(cause) => return Err(named(&ballast, cause)),
        });
        // Sync the directory, too: the names must survive a crash, not only the contents.
        File::open(directory)?.sync_all()?;
        Ok(FileDisk { file, ballast, reserved })
    }

    /// Allocates `bytes` beside the database, or keeps the previous allocation.
    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let before = self.reserved.load(Ordering::Relaxed);
        let ballast = options().open(&self.ballast)?;
        match rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => {}
            // The file system cannot reserve space: continue without.
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(cause) => {
                // Some file systems keep the part that they could allocate.
                ballast.set_len(before)?;
                return Err(cause.into());
            }
        }
        self.reserved.store(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn give_ballast_back(&self) -> io::Result<()> {
        self.reserved.store(0, Ordering::Relaxed);
        options().open(&self.ballast)?.set_len(0)
    }

    /// Runs `write`; if the disk is full, frees the ballast and runs it once more.
    fn with_ballast(&self, write: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match write() {
            Err(cause) if is_full(&cause) && self.reserved.load(Ordering::Relaxed) > 0 => {
                self.give_ballast_back()?;
                write()
            }
            result => result,
        }
    }
}

/// Returns the allocated bytes of a file. A copy of a directory may have holes where the original had space.
fn allocated(metadata: &fs::Metadata) -> u64 {
    metadata.len().min(metadata.blocks().saturating_mul(STAT_BLOCK_BYTES))
}

pub(super) fn is_full(cause: &io::Error) -> bool {
    matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Converts an error of the file system to one that names the path for the operator.
fn named(path: &Path, cause: io::Error) -> Error {
    let refused = |reason: String| Error::NotOurs { path: path.display().to_string(), reason };
    match cause.kind() {
        io::ErrorKind::PermissionDenied => refused("cannot be opened by this user".into()),
        io::ErrorKind::ReadOnlyFilesystem => refused("is on a read-only file system".into()),
        io::ErrorKind::NotADirectory | io::ErrorKind::AlreadyExists => refused("is not a directory".into()),
        _ if cause.raw_os_error() == Some(Errno::LOOP.raw_os_error()) => refused("is a symbolic link".into()),
        _ => cause.into(),
    }
}

/// Returns the options to open a file of the data directory, creating it if missing.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Neither follow a symbolic link, nor wait for the other end of a FIFO.
    options.custom_flags((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed());
    options
}

fn open_file(path: &Path) -> Result<File, Error> {
    let file = options().open(path).map_err(|cause| named(path, cause))?;
    check_file(path, &file.metadata()?)?;
    Ok(file)
}

fn check_file(path: &Path, metadata: &fs::Metadata) -> Result<(), Error> {
    if !metadata.is_file() {
        return Err(Error::NotOurs { path: path.display().to_string(), reason: "is not a file".into() });
    }
    check_owner(path, metadata, false)
}

/// Checks the owner: a file must belong to this user; a directory may also belong to root, as container volumes do.
fn check_owner(path: &Path, metadata: &fs::Metadata, or_root: bool) -> Result<(), Error> {
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == ours || (or_root && owner == 0) {
        return Ok(());
    }
    let reason = format!("belongs to user {owner}, and this is user {ours}");
    Err(Error::NotOurs { path: path.display().to_string(), reason })
}

impl redb::StorageBackend for FileDisk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(out, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with_ballast(|| self.file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with_ballast(|| self.file.write_all_at(data, offset))
    }
}

impl Disk for FileDisk {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        let wanted = bytes.max(BALLAST_BYTES);
        let reserved = self.reserved.load(Ordering::Relaxed);
        if reserved >= wanted {
            return Ok(());
        }
        match self.allocate(wanted) {
            // Less than the usual ballast, but enough for this write.
            Err(cause) if is_full(&cause) && reserved >= bytes => Ok(()),
            Err(cause) if is_full(&cause) => self.allocate(bytes),
            result => result,
        }
    }

    fn used(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.len())
    }

    fn free(&self) -> Option<u64> {
        let volume = rustix::fs::fstatvfs(&self.file).ok()?;
        Some(volume.f_bavail.saturating_mul(volume.f_frsize))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use redb::StorageBackend;

    use super::*;

    #[test]
    fn a_second_opening_is_refused_until_the_first_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let first = FileDisk::open(directory.path()).unwrap();
        let second = FileDisk::open(directory.path()).unwrap_err();
        assert!(matches!(&second, Error::Locked(path) if path.ends_with(DATABASE)), "{second:?}");
        drop(first);
        FileDisk::open(directory.path()).unwrap();
    }

    #[test]
    fn files_are_for_this_user_only() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("made/here");
        FileDisk::open(&inner).unwrap().reserve(1).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&inner), 0o700);
        assert_eq!(mode(&inner.join(DATABASE)), 0o600);
        assert_eq!(mode(&inner.join(BALLAST)), 0o600);
    }

    #[test]
    fn a_file_of_somebody_else_is_refused_by_name() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        drop(FileDisk::open(directory.path()).unwrap());
        std::os::unix::fs::chown(directory.path().join(DATABASE), Some(12_345), None).unwrap();
        let refused = FileDisk::open(directory.path()).unwrap_err();
        assert!(refused.to_string().contains("belongs to user 12345"), "{refused}");
        std::os::unix::fs::chown(directory.path(), Some(12_345), None).unwrap();
        assert!(matches!(FileDisk::open(directory.path()), Err(Error::NotOurs { .. })));
    }

    #[test]
    fn a_data_directory_that_is_a_file_is_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "x").unwrap();
        let refused = FileDisk::open(&file).unwrap_err();
        assert!(matches!(&refused, Error::NotOurs { .. }), "{refused:?}");
    }

    #[test]
    fn the_ballast_is_allocated_once_and_given_back_when_a_write_finds_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        disk.reserve(1).unwrap();
        let ballast = || fs::metadata(directory.path().join(BALLAST)).unwrap().len();
        assert_eq!(ballast(), BALLAST_BYTES);
        let tries = std::cell::Cell::new(0);
        let result = disk.with_ballast(|| {
            tries.set(tries.get() + 1);
            if ballast() > 0 { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        });
        assert!(result.is_ok());
        assert_eq!((tries.get(), ballast()), (2, 0));
        disk.reserve(BALLAST_BYTES + 1).unwrap();
        assert_eq!(ballast(), BALLAST_BYTES + 1);
    }

    #[test]
    fn room_that_a_copy_lost_is_not_counted() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(BALLAST), "").unwrap();
        fs::File::options().write(true).open(directory.path().join(BALLAST)).unwrap().set_len(BALLAST_BYTES).unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        assert!(disk.reserved.load(Ordering::Relaxed) < BALLAST_BYTES);
        assert!(disk.free().unwrap() > 0);
    }

    #[test]
    fn what_is_written_is_read_back_and_reading_past_the_end_fails() {
        let directory = tempfile::tempdir().unwrap();
        let disk = FileDisk::open(directory.path()).unwrap();
        disk.set_len(10).unwrap();
        disk.write(3, b"abc").unwrap();
        disk.sync_data().unwrap();
        let mut read = [0; 5];
        disk.read(2, &mut read).unwrap();
        assert_eq!(&read, b"\0abc\0");
        assert!(disk.read(8, &mut read).is_err());
        assert_eq!((disk.len().unwrap(), disk.used()), (10, 10));
    }
}

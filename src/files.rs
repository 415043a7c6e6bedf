//! Files and directories that are opened once, checked on the descriptor, and used through it.
//!
//! A path may refer to another file at each use. Therefore no check here uses a path: the file is opened, without waiting for the
//! other end of a FIFO, and its type, owner and mode are read from the descriptor.

use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat, renameat, unlinkat};
use zeroize::Zeroizing;

/// Mode of files that only this user may read and write.
const PRIVATE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Reason for which a file or directory is not used.
#[derive(Debug)]
pub(crate) enum FileError {
    /// It has the wrong type, belongs to another user, or is open to others; the sentence continues after the path.
    Refused(String),
    /// A system call failed.
    Machine(io::Error),
}

impl From<io::Error> for FileError {
    fn from(cause: io::Error) -> FileError {
        FileError::Machine(cause)
    }
}

impl From<rustix::io::Errno> for FileError {
    fn from(cause: rustix::io::Errno) -> FileError {
        FileError::Machine(cause.into())
    }
}

impl FileError {
    fn refused(words: impl Into<String>) -> FileError {
        FileError::Refused(words.into())
    }

    /// Returns the error as a sentence that begins with the path.
    pub(crate) fn of(&self, path: &Path) -> String {
        match self {
            FileError::Refused(words) => format!("{} {words}", path.display()),
            FileError::Machine(cause) => format!("{}: {cause}", path.display()),
        }
    }
}

/// Treatment of a symbolic link as the last component of a path.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Links {
    /// Followed: the operator gives the path, and volumes of secrets consist of links.
    Follow,
    /// Rejected: the name is the node's own.
    Refuse,
}

/// Opens a regular file for reading.
pub(crate) fn open(path: &Path, links: Links) -> Result<File, FileError> {
    let file = File::from(openat(CWD, path, reading(links), Mode::empty())?);
    regular(&file)?;
    Ok(file)
}

fn reading(links: Links) -> OFlags {
    let common = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse { common | OFlags::NOFOLLOW } else { common }
}

fn regular(file: &File) -> Result<Metadata, FileError> {
    let metadata = file.metadata()?;
    if metadata.is_file() { Ok(metadata) } else { Err(FileError::refused("is not a file")) }
}

/// Reads a file of at most `limit` bytes. The buffer has room for the whole file, so that no copy of a secret is left behind when
/// it grows, and is wiped on drop.
pub(crate) fn bytes(file: &File, limit: u64) -> Result<Zeroizing<Vec<u8>>, FileError> {
    let too_long = || FileError::refused(format!("is longer than {limit} bytes, which is the limit"));
    let length = file.metadata()?.len();
    if length > limit {
        return Err(too_long());
    }
    // The spare room avoids a reallocation; reading one byte beyond the limit detects a file that grew meanwhile.
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length + 64).unwrap_or(usize::MAX)));
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit { Err(too_long()) } else { Ok(bytes) }
}

/// Reads a file like `bytes`, as UTF-8.
pub(crate) fn text(file: &File, limit: u64) -> Result<Zeroizing<String>, FileError> {
    let mut bytes = bytes(file, limit)?;
    String::from_utf8(std::mem::take(&mut *bytes)).map(Zeroizing::new).map_err(|cause| {
        drop(Zeroizing::new(cause.into_bytes()));
        FileError::refused("is not UTF-8")
    })
}

/// Reads a file with a secret: it must belong to root or to this user, and be closed to all others but its group.
pub(crate) fn secret_text(path: &Path, limit: u64) -> Result<Zeroizing<String>, FileError> {
    let file = open(path, Links::Follow)?;
    let metadata = file.metadata()?;
    check_owner(&metadata, true)?;
    if metadata.mode() & 0o007 != 0 {
        let words = format!("can be read or changed by every user; run `chmod o= {}`", path.display());
        return Err(FileError::refused(words));
    }
    text(&file, limit)
}

/// Checks that a file or directory belongs to this user or, if `or_root`, to root.
pub(crate) fn check_owner(metadata: &Metadata, or_root: bool) -> Result<(), FileError> {
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner == ours || (or_root && owner == 0) {
        return Ok(());
    }
    Err(FileError::refused(format!("belongs to user {owner}, and this is user {ours}")))
}

/// Returns true if users other than this one and its groups have these rights. The kubelet gives every file of a volume to the
/// pod's `fsGroup`, with the owner's permissions, so a group of this process does not count as another's.
pub(crate) fn is_open_to_others(metadata: &Metadata, rights: u32) -> bool {
    is_open(metadata.mode(), metadata.gid(), &groups(), rights)
}

/// Implements `is_open_to_others`. `rights` is a digit of a mode: 7 for any, 2 for writing.
pub(crate) fn is_open(mode: u32, group: u32, ours: &[u32], rights: u32) -> bool {
    mode & rights != 0 || (mode & (rights << 3) != 0 && !ours.contains(&group))
}

/// Returns the groups of this process.
fn groups() -> Vec<u32> {
    let supplementary = rustix::process::getgroups().unwrap_or_default();
    supplementary.into_iter().chain([rustix::process::getegid()]).map(rustix::process::Gid::as_raw).collect()
}

/// An open directory. Its files are opened relative to its descriptor, and links are not followed.
#[derive(Debug)]
pub(crate) struct Directory {
    descriptor: File,
    path: PathBuf,
}

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Directory, FileError> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let descriptor = File::from(openat(CWD, path, flags, Mode::empty())?);
        Ok(Directory { descriptor, path: path.to_owned() })
    }

    pub(crate) fn metadata(&self) -> io::Result<Metadata> {
        self.descriptor.metadata()
    }

    /// Returns the path of a file in it, for messages.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file for reading; `None` if it does not exist.
    pub(crate) fn read(&self, name: &str) -> Result<Option<File>, FileError> {
        match openat(&self.descriptor, name, reading(Links::Refuse), Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(cause) => Err(linked(cause)),
            Ok(file) => {
                let file = File::from(file);
                regular(&file).map(|_| Some(file))
            }
        }
    }

    /// Opens this user's private file for reading and writing, creating it if it is missing.
    pub(crate) fn open_own(&self, name: &str) -> Result<File, FileError> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(openat(&self.descriptor, name, flags, PRIVATE).map_err(linked)?);
        check_owner(&regular(&file)?, false)?;
        Ok(file)
    }

    /// Creates this user's private file, which must not exist.
    pub(crate) fn create_own(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(File::from(openat(&self.descriptor, name, flags, PRIVATE)?))
    }

    /// Adds a second name to a file. The name must be free.
    pub(crate) fn link(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(linkat(&self.descriptor, from, &self.descriptor, to, AtFlags::empty())?)
    }

    /// Renames a file, replacing the target if it exists.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> io::Result<()> {
        Ok(renameat(&self.descriptor, from, &self.descriptor, to)?)
    }

    /// Removes a name, if it exists.
    pub(crate) fn remove(&self, name: &OsStr) -> io::Result<()> {
        match unlinkat(&self.descriptor, name, AtFlags::empty()) {
            Err(cause) if cause != rustix::io::Errno::NOENT => Err(cause.into()),
            _ => Ok(()),
        }
    }

    /// Makes the names in it durable.
    pub(crate) fn sync(&self) -> io::Result<()> {
        self.descriptor.sync_all()
    }
}

/// Converts the errors of opening with O_NOFOLLOW: a symbolic link gives ELOOP.
fn linked(cause: rustix::io::Errno) -> FileError {
    match cause {
        rustix::io::Errno::LOOP => FileError::refused("is a symbolic link; the node follows none in its directory"),
        // A FIFO without a reader, or a socket.
        rustix::io::Errno::NXIO => FileError::refused("is not a file"),
        cause => cause.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    fn fifo(path: &Path) {
        rustix::fs::mknodat(CWD, path, rustix::fs::FileType::Fifo, PRIVATE, 0).expect("made");
    }

    fn refusal<T: std::fmt::Debug>(result: Result<T, FileError>) -> String {
        result.expect_err("refused").of(Path::new("it"))
    }

    #[test]
    fn a_link_a_directory_and_a_fifo_are_no_files_of_a_directory() {
        let held = directory();
        let target = held.path().join("target");
        std::fs::write(&target, "kept").expect("written");
        symlink(&target, held.path().join("link")).expect("made");
        symlink(held.path().join("nothing"), held.path().join("dangling")).expect("made");
        fifo(&held.path().join("fifo"));
        std::fs::create_dir(held.path().join("inner")).expect("made");
        let opened = Directory::open(held.path()).expect("a directory");
        for name in ["link", "dangling", "fifo", "inner"] {
            let words = refusal(opened.read(name));
            assert!(words.contains("symbolic link") || words.contains("is not a file"), "{name}: {words}");
            opened.open_own(name).expect_err(name);
            opened.create_own(OsStr::new(name)).expect_err(name);
        }
        assert!(!held.path().join("nothing").exists(), "no link was followed");
        assert_eq!(std::fs::read_to_string(target).expect("there"), "kept");
        assert!(opened.read("missing").expect("asked").is_none());
    }

    #[test]
    fn a_directory_that_is_replaced_after_it_was_opened_is_still_the_one_in_use() {
        let held = directory();
        let (path, moved) = (held.path().join("data"), held.path().join("moved"));
        std::fs::create_dir(&path).expect("made");
        let opened = Directory::open(&path).expect("a directory");
        std::fs::rename(&path, &moved).expect("moved");
        std::fs::create_dir(&path).expect("made");
        opened.open_own("lock").expect("made");
        assert!(moved.join("lock").exists() && !path.join("lock").exists());
    }

    #[test]
    fn a_secret_is_a_file_through_links_and_nothing_else() {
        let held = directory();
        let path = held.path().join("key");
        std::fs::write(&path, "secret").expect("written");
        let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
        for mode in [0o604, 0o602, 0o601] {
            set(mode);
            assert!(refusal(secret_text(&path, 100)).contains("chmod o="), "{mode:o}");
        }
        set(0o640);
        let link = held.path().join("link");
        symlink(&path, &link).expect("made");
        assert_eq!(secret_text(&link, 100).expect("read").as_str(), "secret", "volumes of secrets are links");
        assert!(refusal(secret_text(&path, 5)).contains("5 bytes"));
        let pipe = held.path().join("fifo");
        fifo(&pipe);
        assert!(refusal(secret_text(&pipe, 100)).contains("is not a file"), "without waiting for a writer");
        assert!(refusal(secret_text(held.path(), 100)).contains("is not a file"));
    }

    #[test]
    fn what_belongs_to_another_user_is_refused() {
        let held = directory();
        let path = held.path().join("key");
        std::fs::write(&path, "secret").expect("written");
        if std::os::unix::fs::chown(&path, Some(12_345), None).is_err() {
            // Only root may give files away; without that right the file is this user's.
            assert!(secret_text(&path, 100).is_ok() || std::fs::metadata(&path).expect("there").mode() & 0o007 != 0);
            return;
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        assert!(refusal(secret_text(&path, 100)).contains("belongs to user 12345"));
        let opened = Directory::open(held.path()).expect("a directory");
        assert!(refusal(opened.open_own("key")).contains("belongs to user 12345"));
    }

    #[test]
    fn a_group_of_others_and_every_user_are_others() {
        for (mode, group, open) in [
            (0o600, 7, false),
            (0o600, 8, false),
            (0o660, 7, false),
            (0o660, 8, true),
            (0o610, 8, true),
            (0o604, 7, true),
            (0o666, 7, true),
        ] {
            assert_eq!(is_open(mode, group, &[5, 7], 7), open, "{mode:o} {group}");
        }
        assert!(!is_open(0o755, 8, &[7], 2) && is_open(0o775, 8, &[7], 2) && is_open(0o757, 7, &[7], 2));
    }
}

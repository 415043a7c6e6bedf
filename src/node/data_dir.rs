//! The data directory: its lock, and the small files that identify the node.
//!
//! | file | content |
//! |---|---|
//! | `lock` | process id of the node; locked while it runs |
//! | `identity.key` | the node's Ed25519 seed, 64 hex digits, mode 0600 |
//! | `node-id` | the node's name, if none was configured |
//! | `watched-agent` | id of the agent of `--agent-addr` at the last start |
//!
//! The directory is opened once; these files are opened in it, without following links, and checked on their descriptors. The
//! store owns the database file ([`crate::store::FileDisk`]).

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::Path;

use zeroize::Zeroizing;

use super::Error;
use crate::files::{self, Directory, FileError};
use crate::identity::{EndpointId, Identity};
use crate::random::{Random, RandomExt};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.key";
const NODE_ID: &str = "node-id";
const WATCHED_AGENT: &str = "watched-agent";
/// Maximum size of each small file, in bytes.
const FILE_BYTES: u64 = 4096;
/// Rights of other users, as a digit of a mode.
const ANY: u32 = 7;
const WRITING: u32 = 2;

/// A data directory that belongs to this user and is locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    directory: Directory,
    _lock: File,
}

impl DataDir {
    /// Locks the directory, creating it (0700) if it is missing.
    ///
    /// # Errors
    /// It belongs to another user, others can write to it, another node has locked it, or the disk failed.
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|cause| Error::file(path, cause))?;
        let directory = open_directory(path)?;
        let lock = lock(&directory, path)?;
        Ok(DataDir { directory, _lock: lock })
    }

    /// Returns the node's key, which is generated at the first start.
    ///
    /// # Errors
    /// The key file is not a key, others can read it, or the disk failed.
    pub fn identity(&self, random: &mut dyn Random) -> Result<Identity, Error> {
        match identity_in(&self.directory)? {
            Some((identity, file)) => {
                close(&file, &self.directory.path(IDENTITY));
                Ok(identity)
            }
            None => make_identity_in(&self.directory, random),
        }
    }

    /// Returns the node's name, which is generated at the first start.
    ///
    /// # Errors
    /// The disk failed.
    pub fn node_id(&self, random: &mut dyn Random) -> Result<String, Error> {
        match read(&self.directory, NODE_ID)? {
            Some(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
            _ => {
                let name = uuid(random.array());
                create(&self.directory, NODE_ID, &format!("{name}\n"))?;
                Ok(name)
            }
        }
    }

    /// Stores the watched agent's id, and returns its id at the last start if that was different.
    ///
    /// # Errors
    /// The disk failed.
    pub fn watched_agent(&self, id: &str) -> Result<Option<String>, Error> {
        let last = read(&self.directory, WATCHED_AGENT)?;
        let last = last.map(|text| text.trim_end_matches('\n').to_owned()).filter(|last| !last.is_empty());
        if last.as_deref() == Some(id) {
            return Ok(None);
        }
        let (name, unfinished) = (OsString::from(WATCHED_AGENT), OsString::from(format!("{WATCHED_AGENT}.new")));
        let directory = &self.directory;
        let removed = directory.remove(&unfinished);
        let written = removed.and_then(|()| write(directory.create_own(&unfinished)?, &format!("{id}\n")));
        let renamed = written.and_then(|()| directory.rename(&unfinished, &name));
        renamed.map_err(|cause| Error::file(&directory.path(WATCHED_AGENT), cause))?;
        Ok(last)
    }
}

/// Opens a data directory that this user may use: it belongs to this user or, as the volumes of containers do, to root, and
/// others cannot write to it.
pub(super) fn open_directory(path: &Path) -> Result<Directory, Error> {
    let opened = Directory::open(path).map_err(|cause| failed(path, cause))?;
    let metadata = opened.metadata().map_err(|cause| Error::file(path, cause))?;
    files::check_owner(&metadata, true)
        .map_err(|cause| Error::Place(format!("{}; use another --data-dir", cause.of(path))))?;
    if !files::is_open_to_others(&metadata, WRITING) {
        return Ok(opened);
    }
    let shown = path.display();
    if metadata.uid() == rustix::process::geteuid().as_raw() {
        let words = format!("{shown} can be written to by other users; run `chmod go-w {shown}`");
        return Err(Error::Place(words));
    }
    log::warn!("{shown} is root's, and every user can write to it; give --data-dir a directory inside it");
    Ok(opened)
}

fn failed(path: &Path, cause: FileError) -> Error {
    match cause {
        FileError::Machine(cause) => Error::file(path, cause),
        refused @ FileError::Refused(_) => Error::Place(refused.of(path)),
    }
}

fn lock(directory: &Directory, shown: &Path) -> Result<File, Error> {
    let path = directory.path(LOCK);
    let mut file = directory.open_own(LOCK).map_err(|cause| failed(&path, cause))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = read(directory, LOCK)?.and_then(|text| text.trim().parse().ok());
            return Err(Error::InUse { path: shown.display().to_string(), pid });
        }
        Err(TryLockError::Error(cause)) => return Err(Error::file(&path, cause)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    // A full disk must not keep a node from starting: the lock holds without the process id.
    drop(written);
    Ok(file)
}

/// Returns the key of a data directory, if it has one. Needs no lock.
///
/// # Errors
/// The key file is not a key, belongs to another user, or can be read by others.
pub fn read_identity(directory: &Path) -> Result<Option<Identity>, Error> {
    match Directory::open(directory) {
        Ok(directory) => Ok(identity_in(&directory)?.map(|(identity, _)| identity)),
        Err(FileError::Machine(cause)) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(failed(directory, cause)),
    }
}

fn identity_in(directory: &Directory) -> Result<Option<(Identity, File)>, Error> {
    let path = directory.path(IDENTITY);
    let Some(file) = directory.read(IDENTITY).map_err(|cause| failed(&path, cause))? else { return Ok(None) };
    let metadata = file.metadata().map_err(|cause| Error::file(&path, cause))?;
    files::check_owner(&metadata, false).map_err(|cause| failed(&path, cause))?;
    let shown = path.display();
    if files::is_open_to_others(&metadata, ANY) {
        let words =
            format!("{shown} can be read by others; run `chmod 600 {shown}`, and make a new key if it was read");
        return Err(Error::Place(words));
    }
    let not_a_key =
        || Error::Place(format!("{shown} does not hold 64 hex digits; restore it, or move it away for a new key"));
    let text = match files::text(&file, FILE_BYTES) {
        Err(FileError::Machine(cause)) => return Err(Error::file(&path, cause)),
        text => text.map_err(|_| not_a_key())?,
    };
    let seed: EndpointId = text.trim().parse().map_err(|_| not_a_key())?;
    let seed = Zeroizing::new(seed.0);
    Ok(Some((Identity::from_seed(*seed), file)))
}

/// Removes the group's permissions from the key. A volume that does not support that is used as it is.
fn close(file: &File, path: &Path) {
    if !file.metadata().is_ok_and(|metadata| metadata.mode() & 0o077 != 0) {
        return;
    }
    match file.set_permissions(fs::Permissions::from_mode(0o600)) {
        Ok(()) => log::info!("{}: its group could read it; its mode is 0600 again", path.display()),
        Err(cause) => log::warn!("{}: its group can read it, and its mode stays: {cause}", path.display()),
    }
}

/// Generates a key in a directory without one, durably, and under its final name only once it is complete.
///
/// # Errors
/// A key exists, or the disk failed.
pub fn make_identity(directory: &Path, random: &mut dyn Random) -> Result<Identity, Error> {
    let directory = Directory::open(directory).map_err(|cause| failed(directory, cause))?;
    make_identity_in(&directory, random)
}

fn make_identity_in(directory: &Directory, random: &mut dyn Random) -> Result<Identity, Error> {
    let seed = Zeroizing::new(random.array::<32>());
    let text = Zeroizing::new(format!("{}\n", EndpointId(*seed)));
    create(directory, IDENTITY, &text)?;
    Ok(Identity::from_seed(*seed))
}

/// Creates a private file that must not exist yet, completely or not at all.
///
/// # Errors
/// It exists, or the disk failed.
pub fn create_file(path: &Path, text: &str) -> Result<(), Error> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let directory = Directory::open(parent).map_err(|cause| failed(parent, cause))?;
    create(&directory, &name, text)
}

fn create(directory: &Directory, name: &str, text: &str) -> Result<(), Error> {
    let (unfinished, name) = (OsString::from(format!("{name}.new.{}", std::process::id())), OsString::from(name));
    // A link, unlike a rename, fails if the name exists.
    let file = directory.create_own(&unfinished);
    let written = file.and_then(|file| write(file, text)).and_then(|()| directory.link(&unfinished, &name));
    let removed = directory.remove(&unfinished);
    let done = written.and(removed).and_then(|()| directory.sync());
    done.map_err(|cause| Error::file(&directory.path(&name.to_string_lossy()), cause))
}

fn write(mut file: File, text: &str) -> io::Result<()> {
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a small file. Returns empty text for one that is too long or not UTF-8.
fn read(directory: &Directory, name: &str) -> Result<Option<String>, Error> {
    let path = directory.path(name);
    let Some(file) = directory.read(name).map_err(|cause| failed(&path, cause))? else { return Ok(None) };
    match files::text(&file, FILE_BYTES) {
        Ok(text) => Ok(Some(text.as_str().to_owned())),
        Err(FileError::Refused(_)) => Ok(Some(String::new())),
        Err(cause) => Err(failed(&path, cause)),
    }
}

/// Formats a random UUID (RFC 9562, version 4).
fn uuid(mut bytes: [u8; 16]) -> String {
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::System;

    fn directory() -> tempfile::TempDir {
        tempfile::tempdir().expect("a directory")
    }

    #[test]
    fn a_node_keeps_its_key_and_its_name() {
        let (parent, mut random) = (directory(), System::default());
        let path = parent.path().join("new");
        let who = |random: &mut System| {
            let data = DataDir::open(&path).expect("ours");
            (data.identity(random).expect("a key").id(), data.node_id(random).expect("a name"))
        };
        let first = who(&mut random);
        assert_eq!(who(&mut random), first);
        assert_eq!(fs::metadata(&path).expect("made").mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(path.join(IDENTITY)).expect("made").mode() & 0o777, 0o600);
    }

    #[test]
    fn another_name_of_the_watched_agent_is_told_once() {
        let directory = directory();
        let data = DataDir::open(directory.path()).expect("ours");
        let told: Vec<_> = ["a", "a", "b", "b", "a"].map(|id| data.watched_agent(id).expect("kept")).into();
        assert_eq!(told, [None, None, Some("a".to_owned()), None, Some("b".to_owned())]);
    }

    #[test]
    fn a_second_node_is_told_who_has_the_directory() {
        let directory = directory();
        let _first = DataDir::open(directory.path()).expect("ours");
        let error = DataDir::open(directory.path()).expect_err("locked");
        assert!(error.to_string().contains(&std::process::id().to_string()), "{error}");
        assert_eq!(error.exit_code(), 1);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let directory = directory();
        make_identity(directory.path(), &mut System::default()).expect("made");
        let path = directory.path().join(IDENTITY);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).expect("set");
        let error = read_identity(directory.path()).expect_err("readable");
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert_eq!(error.exit_code(), 78);
    }

    #[test]
    fn a_key_that_only_a_group_of_this_process_can_read_is_used_and_closed() {
        let (directory, mut random) = (directory(), System::default());
        let path = directory.path().join(IDENTITY);
        let id = DataDir::open(directory.path()).expect("ours").identity(&mut random).expect("made").id();
        for mode in [0o640, 0o660, 0o670, 0o620] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("set");
            assert_eq!(read_identity(directory.path()).expect("ours").map(|identity| identity.id()), Some(id));
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, mode, "reading changes nothing");
            let data = DataDir::open(directory.path()).expect("ours");
            assert_eq!(data.identity(&mut random).expect("ours").id(), id);
            assert_eq!(fs::metadata(&path).expect("there").mode() & 0o777, 0o600, "a start closes it");
        }
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        let directory = directory();
        for mode in [0o777, 0o1777, 0o702, 0o703] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("set");
            let error = DataDir::open(directory.path()).expect_err("open to others");
            assert!(error.to_string().contains("chmod go-w"), "{error}");
            assert_eq!(error.exit_code(), 78);
        }
        for mode in [0o755, 0o770, 0o700] {
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(mode)).expect("set");
            DataDir::open(directory.path()).expect("closed to others");
        }
    }

    #[test]
    fn no_file_of_the_directory_is_a_link_and_what_one_leads_to_is_left_alone() {
        let (directory, mut random) = (directory(), System::default());
        let elsewhere = directory.path().join("elsewhere");
        fs::write(&elsewhere, "kept").expect("written");
        fs::set_permissions(&elsewhere, fs::Permissions::from_mode(0o600)).expect("set");
        for name in [LOCK, IDENTITY, NODE_ID, WATCHED_AGENT] {
            let link = directory.path().join(name);
            std::os::unix::fs::symlink(&elsewhere, &link).expect("made");
            let opened = DataDir::open(directory.path());
            let used = opened.and_then(|data| {
                data.identity(&mut random)?;
                data.node_id(&mut random)?;
                data.watched_agent("a")
            });
            let error = used.expect_err("a link").to_string();
            assert!(error.contains(name) && error.contains("symbolic link"), "{error}");
            assert_eq!(fs::read_to_string(&elsewhere).expect("there"), "kept");
            fs::remove_file(link).expect("there");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let directory = directory();
        let path = directory.path().join(IDENTITY);
        for text in ["", "abc\n", &"x".repeat(5000)] {
            fs::write(&path, text).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
            read_identity(directory.path()).expect_err("no key");
            assert_eq!(fs::read_to_string(&path).expect("there"), text);
            fs::remove_file(&path).expect("there");
        }
    }

    #[test]
    fn a_key_is_never_overwritten() {
        let directory = directory();
        let first = make_identity(directory.path(), &mut System::default()).expect("made").id();
        make_identity(directory.path(), &mut System::default()).expect_err("there is one");
        assert_eq!(read_identity(directory.path()).expect("a key").expect("there").id(), first);
        assert_eq!(fs::read_dir(directory.path()).expect("listed").count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_uuid_says_that_it_is_random() {
        assert_eq!(uuid([0xff; 16]), "ffffffff-ffff-4fff-bfff-ffffffffffff");
    }
}

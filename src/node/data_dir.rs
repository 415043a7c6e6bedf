//! The data directory: who may use it, and the small files in it that say who this node is.
//!
//! | file | |
//! |---|---|
//! | `lock` | held while a node runs; its process id |
//! | `identity.key` | the node's Ed25519 seed, 64 hex digits, mode 0600 |
//! | `node-id` | the name it took when none was given |
//! | `watched-agent` | what the agent of `--agent-addr` was called at the last start |
//!
//! The database is the store's own ([`crate::store::FileDisk`]).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Error;
use crate::identity::{EndpointId, Identity};
use crate::random::{Random, RandomExt};

const LOCK: &str = "lock";
const IDENTITY: &str = "identity.key";
const NODE_ID: &str = "node-id";
const WATCHED_AGENT: &str = "watched-agent";
/// None of the small files is longer.
const FILE_BYTES: u64 = 4096;

/// A data directory that is ours and locked until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Creates the directory (0700) where it is missing, and locks it.
    ///
    /// # Errors
    /// It belongs to somebody else, another node has it, or the disk failed.
    pub fn open(path: &Path) -> Result<DataDir, Error> {
        let created = DirBuilder::new().recursive(true).mode(0o700).create(path);
        created.map_err(|cause| Error::file(path, cause))?;
        check_owner(path)?;
        Ok(DataDir { path: path.to_owned(), _lock: lock(path)? })
    }

    /// The node's key, made at the first start.
    ///
    /// # Errors
    /// The key file is not a key, others can read it, or the disk failed.
    pub fn identity(&self, random: &mut dyn Random) -> Result<Identity, Error> {
        match read_identity(&self.path)? {
            Some(identity) => {
                close(&self.path);
                Ok(identity)
            }
            None => make_identity(&self.path, random),
        }
    }

    /// The node's name, made at the first start.
    ///
    /// # Errors
    /// The disk failed.
    pub fn node_id(&self, random: &mut dyn Random) -> Result<String, Error> {
        let path = self.path.join(NODE_ID);
        match read(&path)? {
            Some(name) if !name.trim().is_empty() => Ok(name.trim().to_owned()),
            _ => {
                let name = uuid(random.array());
                create(&path, &format!("{name}\n"))?;
                Ok(name)
            }
        }
    }

    /// Keeps what the watched agent is called, and returns what it was called at the last start when that was something else.
    ///
    /// # Errors
    /// The disk failed.
    pub fn watched_agent(&self, id: &str) -> Result<Option<String>, Error> {
        let path = self.path.join(WATCHED_AGENT);
        let last = read(&path)?.map(|text| text.trim_end_matches('\n').to_owned()).filter(|last| !last.is_empty());
        if last.as_deref() == Some(id) {
            return Ok(None);
        }
        let unfinished = path.with_extension("new");
        let failed = |cause| Error::file(&path, cause);
        match fs::remove_file(&unfinished) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failed(cause)),
            _ => {}
        }
        write_new(&unfinished, &format!("{id}\n")).and_then(|()| fs::rename(&unfinished, &path)).map_err(failed)?;
        Ok(last)
    }
}

/// A directory must belong to this user or, as the volumes of containers do, to root.
pub(super) fn check_owner(path: &Path) -> Result<(), Error> {
    let owner = fs::metadata(path).map_err(|cause| Error::file(path, cause))?.uid();
    let ours = rustix::process::geteuid().as_raw();
    if owner == ours || owner == 0 {
        return Ok(());
    }
    let path = path.display();
    Err(Error::Place(format!("{path} belongs to user {owner}, and this is user {ours}; use another --data-dir")))
}

fn lock(directory: &Path) -> Result<File, Error> {
    let path = directory.join(LOCK);
    let failed = |cause| Error::file(&path, cause);
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
    let mut file = opened.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = read(&path)?.and_then(|text| text.trim().parse().ok());
            return Err(Error::InUse { path: directory.display().to_string(), pid });
        }
        Err(TryLockError::Error(cause)) => return Err(failed(cause)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    // A full disk must not keep a node from starting: the lock holds without the number.
    drop(written);
    Ok(file)
}

/// The key of a data directory, if it has one. Needs no lock.
///
/// # Errors
/// The key file is not a key, is somebody else's, or can be read by others.
pub fn read_identity(directory: &Path) -> Result<Option<Identity>, Error> {
    let path = directory.join(IDENTITY);
    let metadata = match fs::metadata(&path) {
        Ok(metadata) => metadata,
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(Error::file(&path, cause)),
    };
    let shown = path.display();
    let (owner, ours) = (metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != ours {
        return Err(Error::Place(format!("{shown} belongs to user {owner}, and this is user {ours}")));
    }
    if is_open_to_others(metadata.mode(), metadata.gid(), &groups()) {
        let words =
            format!("{shown} can be read by others; run `chmod 600 {shown}`, and make a new key if it was read");
        return Err(Error::Place(words));
    }
    let text = read(&path)?.unwrap_or_default();
    let not_a_key =
        |_| Error::Place(format!("{shown} does not hold 64 hex digits; restore it, or move it away for a new key"));
    let seed: EndpointId = text.trim().parse().map_err(not_a_key)?;
    Ok(Some(Identity::from_seed(seed.0)))
}

/// Whether users beside this one and its own groups may use a file. The kubelet gives every file of a volume to the pod's `fsGroup`, with
/// the owner's permissions, so a group of this process is not another's.
fn is_open_to_others(mode: u32, group: u32, ours: &[u32]) -> bool {
    mode & 0o007 != 0 || (mode & 0o070 != 0 && !ours.contains(&group))
}

/// The groups of this process.
fn groups() -> Vec<u32> {
    let supplementary = rustix::process::getgroups().unwrap_or_default();
    supplementary.into_iter().chain([rustix::process::getegid()]).map(rustix::process::Gid::as_raw).collect()
}

/// Takes the group's permissions from the key. A volume on which that is not possible is used as it is.
fn close(directory: &Path) {
    let path = directory.join(IDENTITY);
    let is_open = fs::metadata(&path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    if !is_open {
        return;
    }
    match fs::set_permissions(&path, fs::Permissions::from_mode(0o600)) {
        Ok(()) => log::info!("{}: its group could read it; its mode is 0600 again", path.display()),
        Err(cause) => log::warn!("{}: its group can read it, and its mode stays: {cause}", path.display()),
    }
}

/// Makes a key in a directory that has none, durably and under its final name only once it is complete.
///
/// # Errors
/// There is one, or the disk failed.
pub fn make_identity(directory: &Path, random: &mut dyn Random) -> Result<Identity, Error> {
    let seed: [u8; 32] = random.array();
    create(&directory.join(IDENTITY), &format!("{}\n", EndpointId(seed)))?;
    Ok(Identity::from_seed(seed))
}

/// Creates a private file that must not exist yet, all of it or nothing.
///
/// # Errors
/// It exists, or the disk failed.
pub fn create(path: &Path, text: &str) -> Result<(), Error> {
    let unfinished = path.with_extension(format!("new.{}", std::process::id()));
    let written = write_new(&unfinished, text).and_then(|()| fs::hard_link(&unfinished, path));
    let removed = fs::remove_file(&unfinished);
    written.and(removed).and_then(|()| sync_parent(path)).map_err(|cause| Error::file(path, cause))
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// The name must survive a crash too, not just what the file holds.
fn sync_parent(path: &Path) -> io::Result<()> {
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

fn read(path: &Path) -> Result<Option<String>, Error> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > FILE_BYTES => Ok(Some(String::new())),
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|cause| Error::file(path, cause)),
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(cause) => Err(Error::file(path, cause)),
    }
}

/// A random UUID (RFC 9562, version 4).
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
            assert_eq!(is_open_to_others(mode, group, &[5, 7]), open, "{mode:o} {group}");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_and_left_alone() {
        let directory = directory();
        let path = directory.path().join(IDENTITY);
        for text in ["", "abc\n", &"x".repeat(5000)] {
            write_new(&path, text).expect("written");
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

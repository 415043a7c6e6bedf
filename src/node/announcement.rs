//! Announces the node's address in a file beside its default socket, for clients with the node's environment but not its flags.
//!
//! The health check of a container is such a client: it runs in the image's environment, which does not contain the node's
//! arguments. Only a node with a `$RUNTIME_DIRECTORY` writes the file, because the service manager, the image or the chart gives
//! that directory to one node alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ANNOUNCEMENT, Listen};

/// The announcement file, which is removed on drop.
#[derive(Debug)]
pub(super) struct Announcement(PathBuf);

impl Announcement {
    /// Writes the first of `addresses`, with unix sockets before TCP, to a file in `directory`.
    ///
    /// # Errors
    /// The directory is not writable.
    pub(super) fn write(directory: &Path, addresses: &[Listen]) -> io::Result<Option<Announcement>> {
        let unix = addresses.iter().find(|address| matches!(address, Listen::Unix(_)));
        let Some(address) = unix.or(addresses.first()) else { return Ok(None) };
        let path = directory.join(ANNOUNCEMENT);
        // Renaming is atomic: a reader finds the old file or the new one.
        let unfinished = path.with_extension(format!("new.{}", std::process::id()));
        std::fs::write(&unfinished, format!("{address}\n"))?;
        std::fs::rename(&unfinished, &path)?;
        Ok(Some(Announcement(path)))
    }

    /// Writes the file in `$RUNTIME_DIRECTORY`, if that is set. A failure is logged; clients then need `--node`.
    pub(super) fn of_this_process(addresses: &[Listen]) -> Option<Announcement> {
        let directories = std::env::var("RUNTIME_DIRECTORY").ok()?;
        let directory = directories.split(':').next().filter(|directory| !directory.is_empty())?;
        Announcement::write(Path::new(directory), addresses).unwrap_or_else(|cause| {
            log::warn!(
                "{directory}/{ANNOUNCEMENT} is not written, so commands find this node with --node only: {cause}"
            );
            None
        })
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        // A file that remains points to an address without a node, which is as harmless as a socket that remains.
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_address_is_written_down_and_removed_at_the_end() {
        let directory = tempfile::tempdir().expect("a directory");
        let addresses = [
            Listen::parse("tcp://0.0.0.0:50051").expect("valid"),
            Listen::parse("unix:///run/other.sock").expect("valid"),
        ];
        let path = directory.path().join(ANNOUNCEMENT);
        let announced = Announcement::write(directory.path(), &addresses[..1]).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "tcp://0.0.0.0:50051\n");
        drop(announced);
        assert!(!path.exists());
        let _announced = Announcement::write(directory.path(), &addresses).expect("written");
        assert_eq!(std::fs::read_to_string(&path).expect("there"), "unix:///run/other.sock\n");
    }
}

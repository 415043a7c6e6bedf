//! Where a node listens, written down beside its default socket for commands that have the node's environment and not its flags.
//!
//! A container's health check is one: it runs in the image's environment, and the node's arguments are not in it. Only a node with a
//! `$RUNTIME_DIRECTORY` does it, which the service manager, the image or the chart gives to one node alone.

use std::io;
use std::path::{Path, PathBuf};

use crate::config::{ANNOUNCEMENT, Listen};

/// The file, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Announcement(PathBuf);

impl Announcement {
    /// Writes down the first of `addresses`, a unix socket before TCP, in `directory`.
    ///
    /// # Errors
    /// The directory cannot be written to.
    pub(super) fn write(directory: &Path, addresses: &[Listen]) -> io::Result<Option<Announcement>> {
        let unix = addresses.iter().find(|address| matches!(address, Listen::Unix(_)));
        let Some(address) = unix.or(addresses.first()) else { return Ok(None) };
        let path = directory.join(ANNOUNCEMENT);
        // In one step: a reader finds the old file or the new one.
        let unfinished = path.with_extension(format!("new.{}", std::process::id()));
        std::fs::write(&unfinished, format!("{address}\n"))?;
        std::fs::rename(&unfinished, &path)?;
        Ok(Some(Announcement(path)))
    }

    /// In `$RUNTIME_DIRECTORY`, when that is set. What cannot be written is logged: commands then need `--node`.
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
        // Left behind it leads to an address where no node answers, as a socket that is left behind does.
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

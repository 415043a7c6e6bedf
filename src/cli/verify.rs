//! The subcommand `verify`, which reads a whole database.

use super::arguments::Verify;
use super::failure::Failure;
use super::say;
use crate::config::{Flags, Machine, resolve};
use crate::node::Error;
use crate::node::data_dir::DataDir;
use crate::store::{Verified, verify as read};

/// Exit code for a damaged database.
const DAMAGED: u8 = 1;

pub(super) fn verify(command: Verify) -> Result<(), Failure> {
    let flags = Flags { data_dir: command.data_dir, ..Flags::default() };
    let path = resolve(&flags, &Machine::this()?)?.data_dir;
    if !path.is_dir() {
        return Err(Failure::failed(format!("{} is no directory; there is nothing to verify", path.display())));
    }
    let _locked = DataDir::open(&path).map_err(failure)?;
    let found = read(&path).map_err(|error| failure(error.into()))?;
    let Some(found) = found else {
        return Err(Failure::failed(format!("there is no database in {}", path.display())));
    };
    tell(&found)
}

fn tell(found: &Verified) -> Result<(), Failure> {
    found.damaged.iter().try_for_each(|words| say(words))?;
    say(&format!("{} documents and {} tombstones are whole", found.live, found.tombstones))?;
    match found.complaints {
        0 => Ok(()),
        count => Err(Failure::new(
            DAMAGED,
            format!(
                "the database is damaged in {count} places; restore it, or move it away to start empty and sync again"
            ),
        )),
    }
}

fn failure(error: Error) -> Failure {
    Failure::new(error.exit_code(), error)
}

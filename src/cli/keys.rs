//! The subcommands for keys: id and keygen.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::arguments::{Id, Keygen};
use super::failure::Failure;
use super::{note, say};
use crate::config::{Flags, Machine, resolve};
use crate::identity::EndpointId;
use crate::node::Error;
use crate::node::data_dir::{self, DataDir};
use crate::random::{RandomExt, System};

/// Size of a new shared key, in bytes.
const SHARED_KEY_BYTES: usize = 32;
/// Maximum number of identities per `keygen`.
const COUNT_MAX: u32 = 10_000;

pub(super) fn id(command: Id) -> Result<(), Failure> {
    let flags = Flags { data_dir: command.data_dir, ..Flags::default() };
    let path = resolve(&flags, &Machine::this()?)?.data_dir;
    say(&identity(&path).map_err(failure)?.to_string())
}

/// Returns the id of the key in a data directory, creating the key if there is none. A directory that a running node has locked
/// contains one.
fn identity(path: &Path) -> Result<EndpointId, Error> {
    if let Some(identity) = data_dir::read_identity(path)? {
        return Ok(identity.id());
    }
    Ok(DataDir::open(path)?.identity(&mut System::default())?.id())
}

pub(super) fn keygen(command: Keygen) -> Result<(), Failure> {
    let count = command.count.unwrap_or(1);
    match (command.out, count) {
        (None, _) if command.count.is_some() => Err(Failure::usage("--count needs --out DIR to write to")),
        (None, _) => say(&shared_key()),
        (Some(_), count) if count > COUNT_MAX => Err(Failure::usage(format!("--count: at most {COUNT_MAX} at once"))),
        (Some(out), count) => write_keys(&PathBuf::from(out), count),
    }
}

fn shared_key() -> String {
    STANDARD.encode(System::default().array::<SHARED_KEY_BYTES>())
}

fn write_keys(out: &Path, count: u32) -> Result<(), Failure> {
    make_directory(out)?;
    let shared = out.join("shared.key");
    if !shared.exists() {
        data_dir::create_file(&shared, &format!("{}\n", shared_key())).map_err(failure)?;
    }
    for number in 1..=count {
        let directory = out.join(number.to_string());
        make_directory(&directory)?;
        let identity = data_dir::make_identity(&directory, &mut System::default()).map_err(failure)?;
        say(&format!("{number}\t{}", identity.id()))?;
    }
    note(&format!("{} holds the shared key, {}/N/identity.key the identities", shared.display(), out.display()));
    Ok(())
}

fn make_directory(path: &Path) -> Result<(), Failure> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|cause| Failure::failed(format!("{}: {cause}", path.display())))
}

fn failure(error: Error) -> Failure {
    Failure::new(error.exit_code(), error)
}

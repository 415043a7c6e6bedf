//! Checks that a node could start here, without starting or changing anything.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Error, data_dir};
use crate::config::{Config, Listen, refuse_ourselves};
use crate::identity::EndpointId;

/// Result of `check`.
#[derive(Debug)]
pub struct CheckReport {
    /// Endpoint id of the node; `None`: its key is generated at the first start.
    pub identity: Option<EndpointId>,
}

/// Checks the files and directories that `run` would use.
///
/// # Errors
/// The error that would keep the node from starting.
pub fn check(config: &Config) -> Result<CheckReport, Error> {
    let identity = check_data_dir(&config.data_dir)?;
    if let Some(id) = identity {
        refuse_ourselves(&config.peers, id)?;
    }
    for listen in &config.listen {
        let Listen::Unix(path) = listen else { continue };
        let Some(parent) = path.parent() else { continue };
        // A socket in a missing data directory is created together with it.
        check_writable(if parent == config.data_dir { &config.data_dir } else { parent })?;
    }
    Ok(CheckReport { identity })
}

fn check_data_dir(path: &Path) -> Result<Option<EndpointId>, Error> {
    check_writable(path)?;
    if !path.exists() {
        return Ok(None);
    }
    data_dir::open_directory(path)?;
    Ok(data_dir::read_identity(path)?.map(|identity| identity.id()))
}

/// Checks that the directory, or the nearest existing one above it, is writable.
fn check_writable(path: &Path) -> Result<(), Error> {
    let absolute = std::path::absolute(path).map_err(|cause| Error::file(path, cause))?;
    let nearest = absolute.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let shown = nearest.display();
    if !nearest.is_dir() {
        return Err(Error::Place(format!("{shown} is not a directory")));
    }
    access(nearest, Access::WRITE_OK | Access::EXEC_OK).map_err(|cause| {
        Error::Place(format!("{shown} cannot be written to by this user: {}", std::io::Error::from(cause)))
    })
}

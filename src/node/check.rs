//! Whether a node could start here, found out without starting or touching anything.

use std::path::Path;

use rustix::fs::{Access, access};

use super::{Error, data_dir};
use crate::config::{Config, Listen, refuse_ourselves};
use crate::identity::EndpointId;

/// What `check` found.
#[derive(Debug)]
pub struct Findings {
    /// The node's id; `None`: its key is made at the first start.
    pub identity: Option<EndpointId>,
}

/// Looks at what `run` would use.
///
/// # Errors
/// What would keep the node from starting.
pub fn check(config: &Config) -> Result<Findings, Error> {
    let identity = check_data_dir(&config.data_dir)?;
    if let Some(id) = identity {
        refuse_ourselves(&config.peers, id)?;
    }
    for listen in &config.listen {
        let Listen::Unix(path) = listen else { continue };
        let Some(parent) = path.parent() else { continue };
        // A socket in the data directory may come to be with it.
        check_writable(if parent == config.data_dir { &config.data_dir } else { parent })?;
    }
    Ok(Findings { identity })
}

fn check_data_dir(path: &Path) -> Result<Option<EndpointId>, Error> {
    check_writable(path)?;
    if !path.exists() {
        return Ok(None);
    }
    data_dir::open_directory(path)?;
    Ok(data_dir::read_identity(path)?.map(|identity| identity.id()))
}

/// The directory, or the nearest one above it that exists, can be written to.
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

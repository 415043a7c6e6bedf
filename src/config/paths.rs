//! Where things belong on this machine when nobody says so.

use std::path::{Path, PathBuf};

use super::{Environment, Error};

/// Where the container image and the chart mount the state.
const IMAGE_DATA: &str = "/data/peat-node";
/// Where a system service's socket is.
const SYSTEM_RUNTIME: &str = "/run/peat-node";
const SOCKET: &str = "peat-node.sock";
/// Holds the address of a node that does not listen at the default socket, in its runtime directory.
pub const ANNOUNCEMENT: &str = "peat-node.listen";

/// What defaults depend on besides the environment.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// The environment.
    pub environment: Environment,
    /// Whether `/data/peat-node` exists.
    pub image_data: bool,
    /// Whether the process runs as root.
    pub root: bool,
    /// The text of `/etc/group`.
    pub groups: String,
}

impl Machine {
    /// This machine, as it is now.
    ///
    /// # Errors
    /// A `PEAT_NODE_*` variable is not UTF-8.
    pub fn this() -> Result<Machine, Error> {
        Ok(Machine {
            environment: Environment::new(std::env::vars_os())?,
            image_data: Path::new(IMAGE_DATA).is_dir(),
            root: rustix::process::geteuid().is_root(),
            groups: std::fs::read_to_string("/etc/group").unwrap_or_default(),
        })
    }

    /// `$STATE_DIRECTORY`, else `/data/peat-node` where it exists, else XDG state.
    pub(super) fn data_dir(&self) -> Option<PathBuf> {
        let image = || self.image_data.then(|| PathBuf::from(IMAGE_DATA));
        let home = || self.environment.get("HOME").map(|home| Path::new(home).join(".local/state"));
        let xdg = || self.environment.get("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let state = || xdg().or_else(home).map(|state| state.join("peat-node"));
        self.environment.directory("STATE_DIRECTORY").or_else(image).or_else(state)
    }

    fn runtime_dirs(&self) -> impl Iterator<Item = PathBuf> {
        let xdg = self.environment.get("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
        let system = self.root.then(|| PathBuf::from(SYSTEM_RUNTIME));
        [self.environment.directory("RUNTIME_DIRECTORY"), xdg, system].into_iter().flatten()
    }

    /// The default socket: in `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`, else for root `/run/peat-node`, else the data
    /// directory.
    pub(super) fn socket(&self, data_dir: &Path) -> PathBuf {
        self.runtime_dirs().next().unwrap_or_else(|| data_dir.to_owned()).join(SOCKET)
    }
}

/// Where a client looks for the socket of a node that runs on its defaults: the place its own defaults would give, then
/// the places another user's would.
#[must_use]
pub fn socket_candidates(machine: &Machine) -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> = machine.runtime_dirs().collect();
    candidates.extend([PathBuf::from(SYSTEM_RUNTIME)]);
    candidates.extend(machine.data_dir());
    candidates.into_iter().map(|directory| directory.join(SOCKET)).collect()
}

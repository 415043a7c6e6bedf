//! Default locations on this machine: the data directory, and the socket that the node makes and its clients look for.

use std::path::{Path, PathBuf};

use super::{Environment, Error};

/// Mount point of the data directory in the container image and the chart.
const IMAGE_DATA: &str = "/data/peat-node";
/// Runtime directory of a system service.
const SYSTEM_RUNTIME: &str = "/run/peat-node";
const SOCKET: &str = "peat-node.sock";
/// Name of the file that holds the address of a node without the default socket, in its runtime directory.
pub const ANNOUNCEMENT: &str = "peat-node.listen";

/// State of the machine that defaults depend on.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Environment variables.
    pub environment: Environment,
    /// True if `/data/peat-node` exists.
    pub image_data: bool,
    /// True if the process runs as root.
    pub root: bool,
    /// Content of `/etc/group`.
    pub groups: String,
}

impl Machine {
    /// Reads the state of this machine.
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

    /// Returns the default data directory: `$STATE_DIRECTORY`, else `/data/peat-node` if it exists, else XDG state.
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

    /// Returns the default socket: in `$RUNTIME_DIRECTORY`, else `$XDG_RUNTIME_DIR`, else for root `/run/peat-node`, else the
    /// data directory.
    pub(super) fn socket(&self, data_dir: &Path) -> PathBuf {
        self.runtime_dirs().next().unwrap_or_else(|| data_dir.to_owned()).join(SOCKET)
    }
}

/// Returns the sockets at which a client looks for a node with default settings: the one its own defaults give, then those of
/// other users.
#[must_use]
pub fn socket_candidates(machine: &Machine) -> Vec<PathBuf> {
    let mut candidates: Vec<PathBuf> = machine.runtime_dirs().collect();
    candidates.extend([PathBuf::from(SYSTEM_RUNTIME)]);
    candidates.extend(machine.data_dir());
    candidates.into_iter().map(|directory| directory.join(SOCKET)).collect()
}

//! Addresses of a node's API: `unix:///path` or `tcp://HOST:PORT`.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// An address of a node's API, in the syntax of `--listen` and `--node`.
///
/// ```
/// use peat_ipc::Target;
///
/// let target: Target = "unix:///run/peat-node.sock".parse().unwrap();
/// assert_eq!(target, Target::Unix("/run/peat-node.sock".into()));
/// assert_eq!(target.to_string(), "unix:///run/peat-node.sock");
/// assert!("http://localhost".parse::<Target>().is_err());
/// ```
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Target {
    /// Absolute path of a unix socket.
    Unix(PathBuf),
    /// Host and port, as `HOST:PORT`.
    Tcp(String),
}

/// The error for text that is not an address of a node's API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TargetError {
    text: String,
    reason: &'static str,
}

impl fmt::Display for TargetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "'{}' {}; expected unix:///path or tcp://HOST:PORT", self.text, self.reason)
    }
}

impl std::error::Error for TargetError {}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Target, TargetError> {
        let refused = |reason| TargetError { text: text.chars().take(200).collect(), reason };
        if let Some(path) = text.strip_prefix("unix://") {
            return unix(path).map_err(refused);
        }
        match text.strip_prefix("tcp://") {
            Some(address) => tcp(address).map_err(refused),
            None => Err(refused("is not an address")),
        }
    }
}

fn unix(path: &str) -> Result<Target, &'static str> {
    match path.strip_prefix('/') {
        Some("") => Err("names no file"),
        Some(_) => Ok(Target::Unix(path.into())),
        None => Err("has no absolute path (three slashes)"),
    }
}

fn tcp(address: &str) -> Result<Target, &'static str> {
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(Target::Tcp(address.into())),
        _ => Err("has no HOST:PORT"),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Unix(path) => write!(f, "unix://{}", path.display()),
            Target::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

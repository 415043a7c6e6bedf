//! Addresses on which the node listens for clients.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Maximum length of a unix socket's path, in bytes. The kernel's `sockaddr_un` holds 107 beside its terminator, and a socket is
/// created under a name that is one byte longer before it is moved into place.
const SOCKET_PATH_BYTES: usize = 106;

/// Address of one listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Listen {
    /// Path of a unix socket.
    Unix(PathBuf),
    /// TCP address and port.
    Tcp(SocketAddr),
}

impl Listen {
    /// Parses `unix:///PATH` or `tcp://HOST:PORT`.
    ///
    /// # Errors
    /// The text has neither form; the message says what is wrong with it.
    pub fn parse(text: &str) -> Result<Listen, String> {
        match text.split_once("://") {
            Some(("unix", path)) => unix(path),
            Some(("tcp", address)) => tcp(address).map(Listen::Tcp),
            _ => Err(format!("'{text}' is neither unix:///PATH nor tcp://HOST:PORT")),
        }
    }

    /// Returns true if only this machine can reach the listener.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Listen::Unix(_) => true,
            Listen::Tcp(address) => address.ip().to_canonical().is_loopback(),
        }
    }
}

fn unix(path: &str) -> Result<Listen, String> {
    if !Path::new(path).is_absolute() {
        return Err(format!("'unix://{path}' needs an absolute path, as in unix:///run/peat-node.sock"));
    }
    match path.len() {
        0..=SOCKET_PATH_BYTES => Ok(Listen::Unix(PathBuf::from(path))),
        long => Err(format!("the path of a unix socket has {long} bytes; the limit is {SOCKET_PATH_BYTES}")),
    }
}

fn tcp(text: &str) -> Result<SocketAddr, String> {
    if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| format!("'{text}' is not IP:PORT, as in tcp://127.0.0.1:50051 or tcp://[::]:50051"))
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Unix(path) => write!(f, "unix://{}", path.display()),
            Listen::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_shown_alike() {
        for text in ["unix:///run/peat.sock", "tcp://127.0.0.1:50051", "tcp://[::1]:0"] {
            assert_eq!(Listen::parse(text).expect(text).to_string(), text);
        }
        assert_eq!(Listen::parse("tcp://localhost:1").expect("name").to_string(), "tcp://127.0.0.1:1");
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "/run/x", "unix://x", "http://x:1", "tcp://x", "tcp://example.org:1", "tcp://1.2.3.4"] {
            Listen::parse(text).expect_err(text);
        }
    }

    #[test]
    fn a_path_the_kernel_would_cut_is_refused() {
        let reason = Listen::parse(&format!("unix:///{}", "a".repeat(106))).expect_err("107 bytes");
        assert!(reason.contains("106"), "{reason}");
        Listen::parse(&format!("unix:///{}", "a".repeat(105))).expect("106 bytes");
    }

    #[test]
    fn only_loopback_is_local() {
        for (text, local) in [
            ("tcp://127.0.0.9:1", true),
            ("tcp://[::1]:1", true),
            ("tcp://[::ffff:127.0.0.1]:1", true),
            ("tcp://0.0.0.0:1", false),
            ("tcp://[::]:1", false),
        ] {
            assert_eq!(Listen::parse(text).expect(text).is_local(), local, "{text}");
        }
    }
}

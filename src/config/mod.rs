//! Settings of a node: flags, then the environment, then a settings file, then defaults, resolved into values.
//!
//! Owns parsing and validation. Must never create, change or lock anything, because `check` runs the same code as `run`.
//!
//! | file | holds |
//! |---|---|
//! | `flags.rs` | the flags as text, with their help |
//! | `environment.rs`, `settings.rs`, `kubernetes.rs`, `original.rs` | variables, the settings file, variables of Kubernetes services and of the original system |
//! | `resolve.rs` | one value per setting, from the first source that has it |
//! | `access.rs`, `fleet.rs`, `listen.rs`, `paths.rs`, `peers.rs`, `relay.rs`, `secret.rs`, `watcher.rs` | the settings of one subject each |
//! | `duration.rs`, `rate.rs` | units |

mod access;
mod duration;
mod environment;
mod flags;
mod fleet;
mod kubernetes;
mod listen;
mod original;
mod paths;
mod peers;
mod rate;
mod relay;
mod resolve;
mod secret;
mod settings;
#[cfg(test)]
mod tests;
mod watcher;

use std::collections::BTreeSet;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use access::{Access, Group, TokenFile};
pub(crate) use duration::within as time_within;
pub use environment::{Environment, clean, variable};
pub use flags::{BARE, Flags};
pub use fleet::FleetSettings;
pub(crate) use fleet::ttl;
pub use listen::Listen;
pub use paths::{ANNOUNCEMENT, Machine, socket_candidates};
pub use peers::{parse_peer, refuse_ourselves};
pub use relay::{RelayConfig, resolve_relay};
pub use resolve::resolve;
pub use secret::Secret;
pub use watcher::{AgentIdentity, AgentTls, AgentUrl, WatcherSettings};

use crate::sync::{LinkRates, PeerSpec};

/// Settings of a node, resolved and validated.
#[derive(Clone, Debug)]
pub struct Config {
    /// Addresses to listen on for clients; never empty.
    pub listen: Vec<Listen>,
    /// Directory of the database and the keys.
    pub data_dir: PathBuf,
    /// Name of this node; `None`: a UUID kept in the data directory.
    pub node_id: Option<String>,
    /// Name of the application. Nodes of another application are not admitted.
    pub app_id: String,
    /// Formation key. Nodes that prove it are admitted.
    pub formation_key: Option<Secret>,
    /// UDP address of this node's relay; `None`: it runs none.
    pub relay_listen: Option<SocketAddr>,
    /// Key of relays; `None`: the formation key.
    pub relay_key: Option<Secret>,
    /// Configured peers.
    pub peers: Vec<PeerSpec>,
    /// UDP address to bind.
    pub bind: SocketAddr,
    /// False to start with synchronization stopped, in radio silence.
    pub auto_sync: bool,
    /// True to keep the effect of StartSync and StopSync across restarts.
    pub persist_sync: bool,
    /// Maximum send rates of links.
    pub link_rates: LinkRates,
    /// Names of the `latest` collections.
    pub latest_collections: BTreeSet<String>,
    /// Maximum time for which a write that needs no flush may stay unflushed.
    pub flush_interval: Duration,
    /// Memory for cached pages and loaded documents, in bytes.
    pub cache_bytes: usize,
    /// True to pin each thread to a processor.
    pub pin: bool,
    /// Settings of agents and commands.
    pub fleet: FleetSettings,
    /// Watched agent, if any.
    pub watcher: Option<WatcherSettings>,
    /// Access rights of clients.
    pub access: Access,
    /// Log filter in env_logger's syntax.
    pub log: String,
    /// Warnings about settings without effect.
    pub warnings: Vec<String>,
}

impl Config {
    /// Returns the flags that differ from `new` and need a restart to take effect.
    #[must_use]
    pub fn needs_restart(&self, new: &Config) -> Vec<&'static str> {
        let differs = [
            (self.listen != new.listen, "--listen"),
            (self.data_dir != new.data_dir, "--data-dir"),
            (self.node_id != new.node_id, "--node-id"),
            (self.app_id != new.app_id, "--app-id"),
            (self.bind != new.bind, "--bind"),
            (self.relay_listen != new.relay_listen, "--relay-listen"),
            (self.relay_key != new.relay_key, "--relay-key-file"),
            (self.auto_sync != new.auto_sync, "--auto-sync"),
            (self.persist_sync != new.persist_sync, "--persist-sync"),
            (self.latest_collections != new.latest_collections, "--latest-collection"),
            (self.flush_interval != new.flush_interval, "--flush-interval"),
            (self.cache_bytes != new.cache_bytes, "--cache-bytes"),
            (self.pin != new.pin, "--pin"),
            (self.watcher != new.watcher, "--agent-addr and its files"),
            (self.access.socket_group != new.access.socket_group, "--socket-group"),
            (self.access.socket_mode != new.access.socket_mode, "--socket-mode"),
            (self.log != new.log, "--log"),
        ];
        differs.into_iter().filter(|(is, _)| *is).map(|(_, flag)| flag).collect()
    }
}

/// A setting that is invalid, with the reason. The operator is to blame; the process exits with 78 (`EX_CONFIG`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    setting: String,
    reason: String,
}

impl Error {
    pub(crate) fn new(setting: impl Into<String>, reason: impl Into<String>) -> Error {
        Error { setting: setting.into(), reason: reason.into() }
    }

    /// Returns an error about several settings, in a sentence that names each.
    fn sentence(words: String) -> Error {
        Error { setting: String::new(), reason: words }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.setting.is_empty() { "" } else { ": " };
        // Invisible characters are escaped, because one of them may be what is wrong.
        for c in self.setting.chars().chain(separator.chars()).chain(self.reason.chars()) {
            if is_invisible(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Returns true for a character that has no width on a screen, or looks like a space without being one.
fn is_invisible(c: char) -> bool {
    let no_room = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    c.is_control() || no_room || (c.is_whitespace() && c != ' ')
}

impl std::error::Error for Error {}

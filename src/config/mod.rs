//! Settings of a node: flags, then the environment, then a settings file, then defaults, resolved into values.
//!
//! Owns parsing and judging. Must never create, change or lock anything: `check` runs the same code as `run`.
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

/// Everything a node needs to know before it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect; never empty.
    pub listen: Vec<Listen>,
    /// Where documents and keys are kept.
    pub data_dir: PathBuf,
    /// What this node calls itself; `None`: a UUID kept in the data directory.
    pub node_id: Option<String>,
    /// Nodes of another application are not admitted.
    pub app_id: String,
    /// Admits whoever proves it.
    pub formation_key: Option<Secret>,
    /// UDP address of this node's relay; `None`: it is none.
    pub relay_listen: Option<SocketAddr>,
    /// What relays take instead of the formation key.
    pub relay_key: Option<Secret>,
    /// Named peers.
    pub peers: Vec<PeerSpec>,
    /// UDP address.
    pub bind: SocketAddr,
    /// False: start in radio silence.
    pub auto_sync: bool,
    /// Remember StartSync and StopSync across restarts.
    pub persist_sync: bool,
    /// How fast links may send.
    pub link_rates: LinkRates,
    /// Collections whose documents are `latest`.
    pub latest_collections: BTreeSet<String>,
    /// How long a write that needs no flush may stay unflushed.
    pub flush_interval: Duration,
    /// Memory for cached pages and loaded documents.
    pub cache_bytes: usize,
    /// Give each thread a processor of its own.
    pub pin: bool,
    /// Agents and commands.
    pub fleet: FleetSettings,
    /// The agent that is asked for its state.
    pub watcher: Option<WatcherSettings>,
    /// Who may call, and what they may do.
    pub access: Access,
    /// What to log, in env_logger's syntax.
    pub log: String,
    /// About settings that have no effect.
    pub warnings: Vec<String>,
}

impl Config {
    /// The flags of what differs and cannot change while the node runs.
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

/// A setting that cannot be used: which, and why. The operator is to blame; the process exits with 78 (`EX_CONFIG`).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Error {
    setting: String,
    reason: String,
}

impl Error {
    pub(crate) fn new(setting: impl Into<String>, reason: impl Into<String>) -> Error {
        Error { setting: setting.into(), reason: reason.into() }
    }

    /// Several settings at once: words that name each.
    fn sentence(words: String) -> Error {
        Error { setting: String::new(), reason: words }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.setting.is_empty() { "" } else { ": " };
        // What cannot be seen may be what is wrong.
        for c in self.setting.chars().chain(separator.chars()).chain(self.reason.chars()) {
            if is_invisible(c) { write!(f, "{}", c.escape_unicode())? } else { f.write_char(c)? }
        }
        Ok(())
    }
}

/// Whether a character takes no room on a screen, or looks like a space without being one.
fn is_invisible(c: char) -> bool {
    let no_room = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    c.is_control() || no_room || (c.is_whitespace() && c != ' ')
}

impl std::error::Error for Error {}

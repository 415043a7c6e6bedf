//! Settings of relays: to run one, and to use one.

use std::net::SocketAddr;
use std::path::Path;

use super::resolve::{Layers, boolean, log_filter};
use super::settings::Settings;
use super::{Config, Error, Flags, Machine, Secret, secret};

/// Settings of a relay without a node.
#[derive(Clone, Debug)]
pub struct RelayConfig {
    /// UDP address to bind.
    pub listen: SocketAddr,
    /// Key that admits nodes to the relay.
    pub key: Secret,
    /// True to pin its thread to a processor.
    pub pin: bool,
    /// Log filter in env_logger's syntax.
    pub log: String,
    /// Warnings about settings without effect.
    pub warnings: Vec<String>,
}

const KEYS: &str = "give --relay-key-file FILE or --shared-key-file FILE, so that strangers cannot use it";

/// Resolves the flags of a relay without a node over the machine's environment.
///
/// # Errors
/// A setting that is invalid, as one sentence.
pub fn resolve_relay(flags: &Flags, machine: &Machine) -> Result<RelayConfig, Error> {
    let (environment, mut warnings) = machine.environment.flags()?;
    let settings = Settings::of(flags, &environment)?;
    warnings.extend(settings.warnings.iter().cloned());
    let layers = Layers { flags, environment: &environment, settings: &settings };
    let key = match key(&layers)? {
        Some(own) => Some(own),
        None => super::resolve::formation_key(&layers)?,
    };
    Ok(RelayConfig {
        listen: listen(&layers)?.unwrap_or_else(|| (std::net::Ipv4Addr::UNSPECIFIED, 4243).into()),
        key: key.ok_or_else(|| Error::new("relay", KEYS))?,
        pin: layers.parse("--pin", |f| &f.pin, boolean)?.unwrap_or(false),
        log: layers.parse("--log", |f| &f.log, log_filter)?.unwrap_or_else(|| "info".to_owned()),
        warnings,
    })
}

pub(super) fn listen(layers: &Layers<'_>) -> Result<Option<SocketAddr>, Error> {
    let address = |text: &str| text.parse().map_err(|_| format!("'{text}' is not IP:PORT, as in 0.0.0.0:4243"));
    layers.parse("--relay-listen", |f| &f.relay_listen, address)
}

/// Reads the key of `--relay-key-file`.
pub(super) fn key(layers: &Layers<'_>) -> Result<Option<Secret>, Error> {
    layers.parse("--relay-key-file", |f| &f.relay_key_file, |path| secret::key_file(Path::new(path)))
}

/// Rejects a relay or a relayed peer without a key, which both ends need.
pub(super) fn refuse_without_key(config: &Config) -> Result<(), Error> {
    let keyless = config.relay_key.is_none() && config.formation_key.is_none();
    let through = config.peers.iter().any(|peer| peer.addresses.iter().any(crate::sync::Address::is_relay));
    match () {
        () if keyless && config.relay_listen.is_some() => Err(Error::new("--relay-listen", KEYS)),
        () if keyless && through => Err(Error::new(
            "--peer",
            "a relay takes a key; give the relay's --relay-key-file FILE or --shared-key-file FILE",
        )),
        () => Ok(()),
    }
}

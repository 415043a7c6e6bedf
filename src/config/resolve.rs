//! Resolves settings from text to values: the command line first, then the environment, the settings file and the default.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::access::{self, Access};
use super::fleet::fleet;
use super::settings::Settings;
use super::watcher::watcher;
use super::{Config, Error, Flags, Listen, Machine, peers, rate, relay, secret, variable};
use crate::limits::{ID_BYTES, LATEST_COLLECTIONS};
use crate::store;

/// Range of `--flush-interval`, in seconds.
const FLUSH_SECONDS: std::ops::RangeInclusive<f64> = 0.0..=3600.0;
/// Minimum of `--cache-bytes`, in bytes; redb needs a few pages.
const CACHE_BYTES_MIN: usize = 1 << 20;

/// Resolves `flags` over the machine's environment.
///
/// # Errors
/// A setting that is invalid, as one sentence.
pub fn resolve(flags: &Flags, machine: &Machine) -> Result<Config, Error> {
    let (environment, mut warnings) = machine.environment.flags()?;
    let settings = Settings::of(flags, &environment)?;
    warnings.extend(settings.warnings.iter().cloned());
    let layers = Layers { flags, environment: &environment, settings: &settings };
    let data_dir = data_dir(&layers, machine)?;
    let fleet = fleet(&layers)?;
    let config = Config {
        listen: listen(&layers, machine, &data_dir)?,
        node_id: layers.parse("--node-id", |f| &f.node_id, name)?,
        app_id: layers.parse("--app-id", |f| &f.app_id, name)?.unwrap_or_else(|| "peat-default".to_owned()),
        formation_key: formation_key(&layers)?,
        relay_listen: relay::listen(&layers)?,
        relay_key: relay::key(&layers)?,
        peers: layers.parse_list("--peer", |f| &f.peer, |texts| peers::parse_all(texts))?,
        bind: layers.parse("--bind", |f| &f.bind, bind)?.unwrap_or_else(default_bind),
        auto_sync: layers.parse("--auto-sync", |f| &f.auto_sync, boolean)?.unwrap_or(true),
        persist_sync: layers.parse("--persist-sync", |f| &f.persist_sync, boolean)?.unwrap_or(false),
        link_rates: layers.parse_list("--link-rate", |f| &f.link_rate, |texts| rate::parse_all(texts))?,
        latest_collections: latest_collections(&layers)?,
        flush_interval: layers.parse("--flush-interval", |f| &f.flush_interval, flush_interval)?.unwrap_or(SECOND),
        cache_bytes: layers.parse("--cache-bytes", |f| &f.cache_bytes, cache_bytes)?.unwrap_or(DEFAULT_CACHE_BYTES),
        pin: layers.parse("--pin", |f| &f.pin, boolean)?.unwrap_or(false),
        watcher: watcher(&layers, &fleet)?,
        fleet,
        access: access(&layers, machine)?,
        log: layers.parse("--log", |f| &f.log, log_filter)?.unwrap_or_else(|| "info".to_owned()),
        data_dir,
        warnings,
    };
    refuse_open_doors(&config)?;
    relay::refuse_without_key(&config)?;
    Ok(config)
}

const SECOND: Duration = Duration::from_secs(1);
const DEFAULT_CACHE_BYTES: usize = 8 << 20;

/// Sources of a setting, in order of precedence.
pub(super) struct Layers<'a> {
    pub(super) flags: &'a Flags,
    pub(super) environment: &'a Flags,
    pub(super) settings: &'a Settings,
}

impl<'a> Layers<'a> {
    /// Returns the text of a setting and its name in the source that it came from, for errors.
    pub(super) fn one(&self, long: &str, get: impl Fn(&Flags) -> &Option<String>) -> Option<(String, &'a str)> {
        let flag = get(self.flags).as_deref().map(|text| (long.to_owned(), text));
        let variable = || get(self.environment).as_deref().map(|text| (variable(long), text));
        flag.or_else(variable)
            .or_else(|| get(&self.settings.flags).as_deref().map(|text| (self.settings.called(long), text)))
    }

    pub(super) fn parse<T>(
        &self,
        long: &str,
        get: impl Fn(&Flags) -> &Option<String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some((called, text)) = self.one(long, get) else { return Ok(None) };
        parse(text).map(Some).map_err(|reason| Error::new(called, reason))
    }

    /// Parses a flag that may be repeated. In a variable and in the settings file, the values are separated by commas.
    pub(super) fn parse_list<T>(
        &self,
        long: &str,
        get: impl Fn(&Flags) -> &Vec<String>,
        parse: impl Fn(&mut dyn Iterator<Item = &str>) -> Result<T, String>,
    ) -> Result<T, Error> {
        // The first source that has the flag wins as a whole. Only the command line repeats the flag; the others separate by
        // commas.
        let (called, texts, separator) =
            match [self.flags, self.environment, &self.settings.flags].map(|flags| get(flags).as_slice()) {
                [[], [], []] => (long.to_owned(), [].as_slice(), None),
                [[], [], texts] => (self.settings.called(long), texts, Some(',')),
                [[], texts, _] => (variable(long), texts, Some(',')),
                [texts, _, _] => (long.to_owned(), texts, None),
            };
        let mut texts = texts.iter().flat_map(|text| match separator {
            Some(separator) => text.split(separator).map(str::trim).collect(),
            None => vec![text.as_str()],
        });
        parse(&mut texts).map_err(|reason| Error::new(called, reason))
    }
}

fn data_dir(layers: &Layers<'_>, machine: &Machine) -> Result<PathBuf, Error> {
    let given = layers.one("--data-dir", |f| &f.data_dir).map(|(_, text)| PathBuf::from(text));
    let missing =
        || Error::new("--data-dir", "neither it nor STATE_DIRECTORY, XDG_STATE_HOME or HOME says where to keep data");
    given.or_else(|| machine.data_dir()).ok_or_else(missing)
}

fn listen(layers: &Layers<'_>, machine: &Machine, data_dir: &Path) -> Result<Vec<Listen>, Error> {
    let mut listen = layers.parse_list(
        "--listen",
        |f| &f.listen,
        |texts| texts.filter(|text| !text.is_empty()).map(Listen::parse).collect::<Result<Vec<_>, _>>(),
    )?;
    if listen.is_empty() {
        let absolute = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
        let address = format!("unix://{}", machine.socket(&absolute).display());
        listen.push(Listen::parse(&address).map_err(|reason| Error::new("--listen", reason))?);
    }
    match (1..listen.len()).find(|&index| listen[..index].contains(&listen[index])) {
        Some(twice) => Err(Error::new("--listen", format!("{} is given twice", listen[twice]))),
        None => Ok(listen),
    }
}

pub(super) fn formation_key(layers: &Layers<'_>) -> Result<Option<secret::Secret>, Error> {
    let inline = layers.parse("--shared-key", |f| &f.shared_key, secret::formation_key)?;
    let file = layers.parse("--shared-key-file", |f| &f.shared_key_file, |path| secret::key_file(Path::new(path)))?;
    match (inline, file) {
        (Some(_), Some(_)) => Err(Error::new("--shared-key", "cannot be given together with --shared-key-file")),
        (inline, file) => Ok(inline.or(file)),
    }
}

fn access(layers: &Layers<'_>, machine: &Machine) -> Result<Access, Error> {
    let group = |text: &str| access::group(text, &machine.groups);
    Ok(Access {
        admin_group: layers.parse("--admin-group", |f| &f.admin_group, group)?,
        socket_group: layers.parse("--socket-group", |f| &f.socket_group, group)?,
        socket_mode: layers.parse("--socket-mode", |f| &f.socket_mode, access::mode)?.unwrap_or(0o660),
        token: layers.parse("--api-token-file", |f| &f.api_token_file, |path| access::token_file(Path::new(path)))?,
        insecure: layers.parse("--insecure-api", |f| &f.insecure_api, boolean)?.unwrap_or(false),
        open_documents: layers.parse("--open-documents", |f| &f.open_documents, boolean)?.unwrap_or(false),
    })
}

/// Rejects a TCP listener that other machines can reach, unless a token protects it or `--insecure-api` was given.
fn refuse_open_doors(config: &Config) -> Result<(), Error> {
    let guarded = config.access.token.is_some() || config.access.insecure;
    match config.listen.iter().find(|listen| !listen.is_local()) {
        Some(open) if !guarded => Err(Error::new(
            "--listen",
            format!(
                "{open} can be reached from other machines; give --api-token-file FILE, or --insecure-api to let everybody in"
            ),
        )),
        _ => Ok(()),
    }
}

fn latest_collections(layers: &Layers<'_>) -> Result<std::collections::BTreeSet<String>, Error> {
    let more = layers.parse_list(
        "--latest-collection",
        |f| &f.latest_collection,
        |texts| texts.filter(|text| !text.is_empty()).map(collection).collect::<Result<Vec<_>, _>>(),
    )?;
    let all: std::collections::BTreeSet<String> =
        store::StoreConfig::LATEST.into_iter().map(String::from).chain(more).collect();
    match all.len() {
        0..=LATEST_COLLECTIONS => Ok(all),
        count => Err(Error::new(
            "--latest-collection",
            format!("{count} collections are `latest`; the limit is {LATEST_COLLECTIONS}"),
        )),
    }
}

fn collection(text: &str) -> Result<String, String> {
    match store::Key::new(text, "x") {
        _ if text == "commands" => Err("the collection 'commands' has records of its own kind".to_owned()),
        Ok(_) => Ok(text.to_owned()),
        Err(cause) => Err(cause.to_string()),
    }
}

fn name(text: &str) -> Result<String, String> {
    match text.len() {
        0 => Err("is empty".to_owned()),
        1..=ID_BYTES if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        1..=ID_BYTES => Err("contains a control character".to_owned()),
        long => Err(format!("has {long} bytes; the limit is {ID_BYTES}")),
    }
}

fn default_bind() -> std::net::SocketAddr {
    (std::net::Ipv4Addr::UNSPECIFIED, 4242).into()
}

fn bind(text: &str) -> Result<std::net::SocketAddr, String> {
    text.parse().map_err(|_| format!("'{text}' is not IP:PORT, as in 0.0.0.0:4242 or [::]:4242"))
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    text.parse().map_err(|_| format!("'{text}' is neither true nor false"))
}

fn flush_interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| FLUSH_SECONDS.contains(seconds));
    let wrong = || format!("'{text}' is not a number of seconds from 0 to 3600");
    seconds.map(Duration::from_secs_f64).ok_or_else(wrong)
}

fn cache_bytes(text: &str) -> Result<usize, String> {
    let bytes = text.parse().ok().filter(|bytes| *bytes >= CACHE_BYTES_MIN);
    bytes.ok_or_else(|| format!("'{text}' is not a number of bytes from {CACHE_BYTES_MIN} up"))
}

/// Checks the documented subset of env_logger's syntax: `LEVEL` and `MODULE=LEVEL`.
pub(super) fn log_filter(text: &str) -> Result<String, String> {
    for directive in text.split(',').map(str::trim).filter(|directive| !directive.is_empty()) {
        let level = directive.rsplit_once('=').map_or(directive, |(_, level)| level);
        level.parse::<log::LevelFilter>().map_err(|_| {
            format!("'{directive}' is neither a level (off, error, warn, info, debug, trace) nor MODULE=LEVEL")
        })?;
    }
    Ok(text.to_owned())
}

//! Settings of the watched agent: its address, the poll interval, and the certificates.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::duration::within;
use super::resolve::Layers;
use super::{Error, FleetSettings, Secret, secret};
use crate::files::{self, Links};
use crate::fleet;
use crate::limits::AGENT_ID_BYTES;
use crate::store::Key;

/// Maximum size of a file of certificates, in bytes.
const CERTIFICATES_BYTES: u64 = 1 << 20;

/// Settings of `--agent-addr` and its accompanying flags.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WatcherSettings {
    /// Address of the agent.
    pub agent: AgentUrl,
    /// Id of the agent in the fleet; `None`: the node's id.
    pub agent_id: Option<String>,
    /// Interval between polls.
    pub poll_interval: Duration,
    /// TLS settings, present exactly for an https address.
    pub tls: Option<AgentTls>,
}

/// URL `http://HOST[:PORT][/PATH]` or https, without a slash at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentUrl(String);

impl AgentUrl {
    /// Returns the URL of a path below it, which begins with a slash.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{path}", self.0)
    }

    /// Returns `HOST:PORT` of an http URL; `None` for https.
    #[must_use]
    pub fn plain_authority(&self) -> Option<String> {
        let rest = self.0.strip_prefix("http://")?;
        let authority = rest.split('/').next().unwrap_or(rest);
        let has_port =
            authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        Some(if has_port { authority.to_owned() } else { format!("{authority}:80") })
    }
}

impl fmt::Display for AgentUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Trusted authorities and client certificate of the watcher, checked to be usable.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentTls {
    /// Authorities (PEM), one of which must have issued the agent's certificate.
    pub authorities: Vec<u8>,
    /// Client certificate that the watcher presents.
    pub identity: Option<AgentIdentity>,
}

/// Client certificate with its key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AgentIdentity {
    /// Chain (PEM), the watcher's own certificate first.
    pub certificates: Vec<u8>,
    /// Private key (PEM).
    pub key: Secret,
}

pub(super) fn watcher(layers: &Layers<'_>, fleet: &FleetSettings) -> Result<Option<WatcherSettings>, Error> {
    let agent = layers.parse("--agent-addr", |f| &f.agent_addr, agent_url)?;
    let agent_id = layers.parse("--agent-id", |f| &f.agent_id, agent_id)?;
    let interval = layers.parse("--agent-poll-interval", |f| &f.agent_poll_interval, poll_interval)?;
    let authorities = layers.parse("--agent-tls-ca", |f| &f.agent_tls_ca, |path| authorities(Path::new(path)))?;
    let identity = identity(layers)?;
    let secure = agent.as_ref().is_some_and(|agent| agent.0.starts_with("https:"));
    let Some(agent) = agent else {
        return match (authorities.is_some() || identity.is_some(), agent_id) {
            (true, _) => Err(Error::new("--agent-tls-*", "are of no use without --agent-addr")),
            (false, Some(_)) => Err(Error::new("--agent-id", "names the agent of --agent-addr, which is not given")),
            (false, None) => Ok(None),
        };
    };
    let poll_interval = interval.unwrap_or(Duration::from_secs(10));
    let tls = match (secure, authorities) {
        (false, None) if identity.is_none() => None,
        (false, _) => {
            return Err(Error::new(
                "--agent-addr",
                format!("{agent} does not use the --agent-tls-* files; give an https URL"),
            ));
        }
        (true, None) => {
            let reason =
                format!("{agent} needs --agent-tls-ca FILE: the node trusts no certificate authority by itself");
            return Err(Error::new("--agent-addr", reason));
        }
        (true, Some(authorities)) => Some(AgentTls { authorities, identity }),
    };
    if let Some(tls) = &tls {
        tls.client()?;
    }
    if poll_interval >= fleet.stale_after {
        let reason =
            format!("{poll_interval:?} between polls makes the agent stale each time; give less than --stale-after");
        return Err(Error::new("--agent-poll-interval", reason));
    }
    Ok(Some(WatcherSettings { agent, agent_id, poll_interval, tls }))
}

/// Parses an agent's id, within the rules that [`crate::fleet`] has for agents that register.
fn agent_id(text: &str) -> Result<String, String> {
    let key = Key::new(fleet::COLLECTION, text).map_err(|cause| cause.to_string())?;
    match key.id().len() {
        ..=AGENT_ID_BYTES => Ok(text.to_owned()),
        long => Err(format!("has {long} bytes; the limit is {AGENT_ID_BYTES}")),
    }
}

fn agent_url(text: &str) -> Result<AgentUrl, String> {
    let wrong = || format!("'{text}' is not http://HOST[:PORT] or https://HOST[:PORT]");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    let rest = rest.trim_end_matches('/');
    let (authority, _) = rest.split_once('/').unwrap_or((rest, ""));
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '@' | '?' | '#' | '\\' | '"' | '<' | '>');
    let usable = matches!(scheme, "http" | "https") && rest.chars().all(plain) && is_authority(authority);
    usable.then(|| AgentUrl(format!("{scheme}://{rest}"))).ok_or_else(wrong)
}

/// Returns true for `HOST`, `HOST:PORT`, `[V6]` or `[V6]:PORT`.
fn is_authority(text: &str) -> bool {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (text, None),
    };
    let port_fits = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let host_fits = match bracketed {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && !host.contains([':', '[', ']']),
    };
    port_fits && host_fits
}

fn poll_interval(text: &str) -> Result<Duration, String> {
    within(text, 0.05..=86_400.0, "from 0.05 s to 1 d")
}

fn identity(layers: &Layers<'_>) -> Result<Option<AgentIdentity>, Error> {
    let certificates = layers.parse("--agent-tls-cert", |f| &f.agent_tls_cert, |path| certificates(Path::new(path)))?;
    let key = layers.parse("--agent-tls-key", |f| &f.agent_tls_key, |path| key(Path::new(path)))?;
    match (certificates, key) {
        (None, None) => Ok(None),
        (Some(certificates), Some(key)) => Ok(Some(AgentIdentity { certificates, key })),
        (Some(_), None) => Err(Error::new("--agent-tls-cert", "needs --agent-tls-key FILE beside it")),
        (None, Some(_)) => Err(Error::new("--agent-tls-key", "needs --agent-tls-cert FILE beside it")),
    }
}

/// Reads certificates and checks that a root store accepts every one.
fn authorities(path: &Path) -> Result<Vec<u8>, String> {
    let pem = certificates(path)?;
    roots(&pem).map(|_| pem).map_err(|cause| format!("{}: {cause}", path.display()))
}

fn certificates(path: &Path) -> Result<Vec<u8>, String> {
    let shown = path.display();
    let read = files::open(path, Links::Follow).and_then(|file| files::bytes(&file, CERTIFICATES_BYTES));
    let pem = read.map_err(|cause| cause.of(path))?.to_vec();
    let found = parse_certificates(&pem).map_err(|cause| format!("{shown}: {cause}"))?;
    if found.is_empty() { Err(format!("{shown} holds no certificate in PEM")) } else { Ok(pem) }
}

fn parse_certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<_, _>>().map_err(|cause| cause.to_string())
}

fn key(path: &Path) -> Result<Secret, String> {
    let text = secret::read(path)?;
    match PrivateKeyDer::from_pem_slice(text.as_bytes()) {
        Ok(_) => Ok(Secret::new(text.as_bytes().to_vec())),
        Err(_) => Err(format!("{} holds no private key in PEM", path.display())),
    }
}

fn roots(pem: &[u8]) -> Result<RootCertStore, String> {
    let mut store = RootCertStore::empty();
    for certificate in parse_certificates(pem)? {
        store.add(certificate).map_err(|cause| cause.to_string())?;
    }
    Ok(store)
}

impl AgentTls {
    /// Builds the configuration of a TLS 1.3 client that trusts the given authorities alone.
    ///
    /// # Errors
    /// The certificate and the key do not match, or cannot be used.
    pub fn client(&self) -> Result<ClientConfig, Error> {
        let unusable =
            |cause: String| Error::new("--agent-tls-cert", format!("does not work with --agent-tls-key: {cause}"));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let builder = builder.map_err(|cause| unusable(cause.to_string()))?;
        let builder = builder.with_root_certificates(roots(&self.authorities).map_err(unusable)?);
        let Some(identity) = &self.identity else { return Ok(builder.with_no_client_auth()) };
        let key = PrivateKeyDer::from_pem_slice(identity.key.expose()).map_err(|cause| unusable(cause.to_string()))?;
        let chain = parse_certificates(&identity.certificates).map_err(unusable)?;
        builder.with_client_auth_cert(chain, key).map_err(|cause| unusable(cause.to_string()))
    }
}

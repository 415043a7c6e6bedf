//! Components of a node before it runs: its engines, opened on the data directory, and its sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Error;
use super::data_dir::DataDir;
use crate::api;
use crate::api::shell::InheritedListener;
use crate::clock;
use crate::config::{Config, Listen, Secret, refuse_ourselves};
use crate::fleet;
use crate::fleet::commands::{self, Trust};
use crate::identity::{EndpointId, Identity};
use crate::random::System;
use crate::relay::wire::RelayKey;
use crate::relay::{self, Relay};
use crate::store::{self, FileDisk, Reader, Store};
use crate::sync;
use crate::sync::proof::FormationKey;
use crate::udp;
use crate::watcher;

/// A relay and its socket.
pub(super) struct RelayPart {
    pub(super) relay: Relay,
    pub(super) socket: udp::Socket,
    pub(super) bound: SocketAddr,
}

impl RelayPart {
    /// Binds the socket.
    pub(super) fn open(listen: SocketAddr, key: &Secret) -> Result<RelayPart, Error> {
        let failed = |cause| Error::Machine(format!("the relay's address {listen}"), cause);
        let socket = udp::Socket::bind(listen, relay::shell::SOCKET_BUFFER_BYTES).map_err(failed)?;
        let bound = socket.local_address().map_err(failed)?;
        let key = FormationKey::new(key.expose().to_vec()).map_err(|cause| Error::Place(cause.to_string()))?;
        let relay = Relay::new(RelayKey::new(&key), Box::new(System::default()), clock::shell::now());
        Ok(RelayPart { relay, socket, bound })
    }
}

/// All components that can fail to open, opened.
pub(super) struct Components {
    pub(super) store: Store<FileDisk>,
    pub(super) sync: sync::Engine,
    pub(super) api: api::Engine,
    pub(super) udp: udp::Socket,
    pub(super) clients: api::shell::Shell,
    pub(super) watcher: Option<watcher::shell::Shell>,
    pub(super) relay: Option<RelayPart>,
    bound: SocketAddr,
    pub(super) id: EndpointId,
}

impl Components {
    /// Opens the database, creates the engines and binds the sockets.
    pub(super) fn open(config: &Config, data: &DataDir, handed: Vec<InheritedListener>) -> Result<Components, Error> {
        let mut random = System::default();
        let identity = Arc::new(data.identity(&mut random)?);
        refuse_ourselves(&config.peers, identity.id())?;
        let node_id = config.node_id.clone().map_or_else(|| data.node_id(&mut random), Ok)?;
        let watcher = open_watcher(config, &node_id)?;
        if watcher.is_some() {
            tell_of_former_agent(data, &watched_agent(config, &node_id))?;
        }
        let store = open_store(config, &identity)?;
        let sync = sync_engine(config, &identity, node_id.clone(), store.reader())?;
        let api = api::Engine::new(api_config(config, node_id, &identity), store.reader(), clock::shell::now());
        let udp = udp::Socket::bind(config.bind, sync::shell::SOCKET_BUFFER_BYTES);
        let udp = udp.map_err(|cause| Error::Machine(format!("--bind {}", config.bind), cause))?;
        let bound = udp.local_address().map_err(|cause| Error::Machine("the UDP socket".to_owned(), cause))?;
        let relay = open_relay(config)?;
        let clients = bind_clients(config, handed)?;
        Ok(Components { store, sync, api, udp, clients, watcher, relay, bound, id: identity.id() })
    }

    /// Returns the node's addresses and endpoint id, for the log.
    pub(super) fn describe(&self) -> String {
        let clients: Vec<String> = self.clients.addresses().iter().map(ToString::to_string).collect();
        let relay = self.relay.as_ref().map_or(String::new(), |relay| format!(", relay at {}", relay.bound));
        format!("clients at {}, nodes at {}{relay}, endpoint id {}", clients.join(" "), self.bound, self.id)
    }
}

/// Opens the client sockets, creating the directory of a unix socket if it is missing.
fn bind_clients(config: &Config, handed: Vec<InheritedListener>) -> Result<api::shell::Shell, Error> {
    for listen in &config.listen {
        let Listen::Unix(path) = listen else { continue };
        if handed.iter().any(|handed| handed.path == *path) {
            continue;
        }
        let Some(parent) = path.parent() else { continue };
        std::fs::create_dir_all(parent).map_err(|cause| Error::file(parent, cause))?;
    }
    api::shell::Shell::open(&config.listen, &config.access, handed).map_err(Error::Listen)
}

fn open_relay(config: &Config) -> Result<Option<RelayPart>, Error> {
    let key = config.relay_key.as_ref().or(config.formation_key.as_ref());
    config.relay_listen.zip(key).map(|(listen, key)| RelayPart::open(listen, key)).transpose()
}

/// Returns the watched agent's id in the fleet.
fn watched_agent(config: &Config, node_id: &str) -> String {
    let given = config.watcher.as_ref().and_then(|watcher| watcher.agent_id.clone());
    given.unwrap_or_else(|| node_id.to_owned())
}

/// Warns about documents under the agent's former id. They are kept, because an agent of another node may have that id now.
fn tell_of_former_agent(data: &DataDir, id: &str) -> Result<(), Error> {
    if let Some(former) = data.watched_agent(id)? {
        log::warn!(
            "the watched agent was called '{former}' and is called '{id}' now; platforms/{former} and the documents of deployments and packages \
             that begin with '{former}:' stay: delete them if no other node's agent has that id"
        );
    }
    Ok(())
}

fn open_watcher(config: &Config, node_id: &str) -> Result<Option<watcher::shell::Shell>, Error> {
    let open = |settings| watcher::shell::Shell::new(settings, &config.fleet, watched_agent(config, node_id));
    let unusable =
        |cause| Error::Place(format!("--agent-addr: the node's id cannot name the agent: {cause}; give --agent-id"));
    config.watcher.clone().map(open).transpose().map_err(unusable)
}

/// Returns the access rights of clients.
pub(super) fn policy(config: &Config) -> api::Policy {
    api::Policy {
        own_uid: rustix::process::geteuid().as_raw(),
        admin_group: config.access.admin_group.map(|group| group.0),
        tcp_token: config.access.token.as_ref().map(|file| file.token.clone()),
        insecure: config.access.insecure,
        open_documents: config.access.open_documents,
    }
}

/// Returns the settings of agents.
pub(super) fn fleet(config: &Config) -> fleet::Settings {
    fleet::Settings { times: config.fleet.times(), http_url: http_url(config) }
}

/// Returns the settings of commands: trusted issuers, retention and default time to live.
pub(super) fn commands(config: &Config, id: EndpointId) -> commands::Settings {
    let trust = Trust { node: id, issuers: config.fleet.trust_issuers.iter().copied().collect() };
    commands::Settings { trust, retention: config.fleet.command_retention, ttl: config.fleet.command_ttl }
}

fn api_config(config: &Config, node_id: String, identity: &Arc<Identity>) -> api::ApiConfig {
    let (policy, fleet, commands) = (policy(config), fleet(config), commands(config, identity.id()));
    let watched_agent = watched_agent(config, &node_id);
    api::ApiConfig {
        node_id,
        watched_agent,
        policy,
        cache_bytes: config.cache_bytes,
        fleet,
        identity: identity.clone(),
        commands,
    }
}

/// Returns the URL at which agents reach the node over HTTP. It is empty without HTTP, and where the address depends on the
/// agent's location or is not known in advance: for a listener on every address, or on port 0.
fn http_url(config: &Config) -> String {
    let tcp = config.listen.iter().find_map(|listen| match listen {
        Listen::Tcp(at) if cfg!(feature = "http") && at.port() != 0 && !at.ip().is_unspecified() => Some(at),
        _ => None,
    });
    tcp.map(|at| format!("http://{at}")).unwrap_or_default()
}

fn open_store(config: &Config, identity: &Identity) -> Result<Store<FileDisk>, Error> {
    let settings = store::StoreConfig {
        latest_collections: config.latest_collections.clone(),
        flush_interval: config.flush_interval,
        cache_bytes: config.cache_bytes,
        boot: clock::shell::boot_id(&mut System::default()),
        ..store::StoreConfig::new(identity.id())
    };
    let opened = FileDisk::open(&config.data_dir)
        .and_then(|disk| Store::open(disk, settings, &mut System::default(), clock::shell::now()));
    opened.map_err(|error| match error {
        store::Error::DiskFull => Error::no_room(&config.data_dir),
        error => error.into(),
    })
}

/// Returns the formation key, which admits other nodes.
pub(super) fn formation_key(config: &Config) -> Result<Option<FormationKey>, Error> {
    parsed(config.formation_key.as_ref())
}

fn parsed(key: Option<&Secret>) -> Result<Option<FormationKey>, Error> {
    let key = key.map(|key| FormationKey::new(key.expose().to_vec()));
    key.transpose().map_err(|cause| Error::Place(cause.to_string()))
}

fn sync_engine(config: &Config, identity: &Identity, node_id: String, reader: Reader) -> Result<sync::Engine, Error> {
    let settings = sync::SyncConfig {
        node_id,
        app_id: config.app_id.clone(),
        formation_key: formation_key(config)?,
        relay_key: parsed(config.relay_key.as_ref())?,
        is_relay: config.relay_listen.is_some(),
        peers: config.peers.clone(),
        latest_collections: config.latest_collections.clone(),
        active: config.auto_sync,
        persist_sync: config.persist_sync,
        link_rates: config.link_rates.clone(),
    };
    Ok(sync::Engine::new(settings, identity, reader, Box::new(System::default()), clock::shell::now())?)
}

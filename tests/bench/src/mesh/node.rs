//! One node of the mesh: its engines and the agents at its socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use bench_peers::Failure;
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_request};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::{ListAgentsRequest, ListAgentsResponse, Liveness};
use peat_ipc::{PREFACE, Rpc};
use peat_node::api::{self, Caller, ConnectionId, Policy};
use peat_node::clock::Now;
use peat_node::fleet;
use peat_node::identity::Identity;
use peat_node::random::System;
use peat_node::store::{self, Envelope, Store, Ticket};
use peat_node::sync::{self, PeerSpec};

use super::address;
use super::disk::CountingDisk;
use crate::agents::{Agents, Beat};

/// Number of agents per connection, a little below the limit of calls.
const ON_ONE_CONNECTION: usize = 250;
/// Connection of the client that lists the fleet.
const VIEWER: ConnectionId = ConnectionId(1_000);

/// One node: three engines and the agents at its socket.
pub(super) struct Node {
    store: Store<CountingDisk>,
    pub(super) sync: sync::Engine,
    api: api::Engine,
    agents: Vec<Agents>,
    viewer: Viewer,
    written: Arc<AtomicU64>,
    /// Earliest deadline of its threads.
    pub(super) due: Option<Instant>,
}

impl Node {
    /// Starts node `number` of `nodes`, which dials the next one.
    pub(super) fn start(number: usize, nodes: usize, now: Now) -> Result<Node, Failure> {
        let identity = identity(number);
        let written = Arc::new(AtomicU64::new(0));
        let disk = CountingDisk::new(&written);
        let store = Store::open(disk, store::StoreConfig::new(identity.id()), &mut System::default(), now)?;
        let reader = store.reader();
        let peers = peers(number, nodes);
        let sync =
            sync::Engine::new(links(number, peers), &identity, reader.clone(), Box::new(System::default()), now)?;
        let config = api::ApiConfig {
            node_id: format!("node-{number:02}"),
            policy: Policy { own_uid: 0, admin_group: None, tcp_token: None, insecure: false, open_documents: false },
            watched_agent: format!("node-{number:02}"),
            cache_bytes: 0,
            fleet: fleet::Settings::default(),
            identity,
            commands: fleet::commands::Settings::default(),
        };
        let api = api::Engine::new(config, reader, now);
        let agents = Vec::new();
        Ok(Node { store, sync, api, agents, viewer: Viewer::default(), written, due: None })
    }

    fn open(&mut self, now: Now, id: ConnectionId) -> Result<(), Failure> {
        let caller = Caller::Unix { uid: 0, gid: 0, groups: Vec::new() };
        self.api.handle_open(now, id, caller).map_err(|_| "a node refuses a connection".into())
    }

    /// Connects and registers its agents.
    pub(super) fn register(&mut self, now: Now, first: usize, count: usize) {
        for from in (0..count).step_by(ON_ONE_CONNECTION) {
            let id = ConnectionId(self.agents.len() as u64);
            self.agents.push(Agents::new(first + from, ON_ONE_CONNECTION.min(count - from)));
            self.open(now, id).expect("a new node has room for its agents");
        }
    }

    /// Sends a heartbeat of agent `agent`.
    pub(super) fn beat(&mut self, agent: usize, beat: Beat) {
        self.agents[agent / ON_ONE_CONNECTION].beat(agent % ON_ONE_CONNECTION, beat);
    }

    /// Returns the number of its agents' unanswered heartbeats.
    pub(super) fn unanswered(&self) -> u64 {
        self.agents.iter().map(Agents::unanswered).sum()
    }

    /// Returns the number of bytes written to its disk.
    pub(super) fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    pub(super) fn wake(&mut self, now: Now) {
        if self.store.poll_deadline().is_some_and(|due| now.reached(due)) {
            self.store.handle_timeout(now);
            self.tell_tip(now);
        }
        self.sync.handle_timeout(now);
        self.api.handle_timeout(now);
    }

    pub(super) fn deadline(&mut self, now: Now) -> Option<Instant> {
        let sync = self.sync.poll_deadline(now).map(|(due, _)| due);
        let api = self.api.poll_deadline().map(|(due, _)| due);
        [sync, api, self.store.poll_deadline()].into_iter().flatten().min()
    }

    fn tell_tip(&mut self, now: Now) {
        let tip = self.store.tip();
        self.api.handle_tip(now, tip);
        self.sync.handle_tip(now, tip);
    }

    /// Passes messages between the threads once; returns true if there were any. `presences` counts news about other nodes.
    pub(super) fn exchange(&mut self, now: Now, presences: &mut u64) -> bool {
        let mut any = self.commit(now);
        while let Some(event) = self.sync.poll_event() {
            *presences += u64::from(matches!(event, sync::Event::Presence(_)));
            self.api.handle_event(now, event);
            any = true;
        }
        while let Some(asked) = self.api.poll_asked() {
            self.sync.handle_asked(now, asked);
            any = true;
        }
        any
    }

    fn commit(&mut self, now: Now) -> bool {
        let mut batch: Vec<Envelope> = Vec::new();
        batch.extend(std::iter::from_fn(|| self.api.poll_store()));
        batch.extend(std::iter::from_fn(|| self.sync.poll_store()));
        if batch.is_empty() {
            return false;
        }
        let mut replies = Vec::new();
        self.store.handle_batch(now, batch, &mut replies);
        for reply in replies {
            match reply.ticket {
                Ticket::Api(_) => self.api.handle_reply(now, reply),
                Ticket::Sync(_) => self.sync.handle_reply(now, reply),
            }
        }
        self.tell_tip(now);
        true
    }

    /// Passes bytes between the api engine and its clients once; returns true if there were any.
    pub(super) fn talk(&mut self, now: Now) -> Result<bool, Failure> {
        let mut any = false;
        for (number, agents) in self.agents.iter_mut().enumerate() {
            any |= pass(&mut self.api, now, ConnectionId(number as u64), &mut agents.out);
        }
        any |= pass(&mut self.api, now, VIEWER, &mut self.viewer.out);
        while let Some(id) = self.api.poll_output() {
            let bytes = self.api.output(id).to_vec();
            self.api.handle_written(now, id, bytes.len());
            any = true;
            match self.agents.get_mut(id.0 as usize) {
                Some(agents) => agents.take(&bytes)?,
                None => self.viewer.decoder.extend(&bytes),
            }
        }
        match self.api.poll_close() {
            Some(closed) => Err(format!("a node closed a connection: {}", closed.reason).into()),
            None => Ok(any),
        }
    }

    /// Returns the number of agents that ListAgents shows as LIVE.
    pub(super) fn live(&mut self, now: Now) -> Result<usize, Failure> {
        let request = ListAgentsRequest { liveness: Liveness::Live.into(), ..ListAgentsRequest::default() };
        if self.viewer.calls == 0 {
            self.open(now, VIEWER)?;
        }
        self.viewer.ask(&request);
        while self.talk(now)? {}
        match self.viewer.decoder.next_frame()? {
            Some((_, Body::Response(bytes))) => Ok(ListAgentsResponse::decode(bytes)?.agents.len()),
            other => Err(format!("ListAgents was answered by {other:?}").into()),
        }
    }
}

fn pass(api: &mut api::Engine, now: Now, id: ConnectionId, out: &mut Vec<u8>) -> bool {
    let any = !out.is_empty() && api.wants_bytes(id);
    if any {
        api.handle_bytes(now, id, out);
        out.clear();
    }
    any
}

/// Returns the two neighbours in the ring; the next one is dialled.
fn peers(number: usize, nodes: usize) -> Vec<PeerSpec> {
    let (next, last) = ((number + 1) % nodes, (number + nodes - 1) % nodes);
    let dialled = PeerSpec { id: identity(next).id(), addresses: vec![sync::Address::Literal(address(next))] };
    let dials_us = PeerSpec { id: identity(last).id(), addresses: Vec::new() };
    [dialled, dials_us].into_iter().take(if nodes > 1 { 2 } else { 0 }).collect()
}

fn links(number: usize, peers: Vec<PeerSpec>) -> sync::SyncConfig {
    sync::SyncConfig {
        node_id: format!("node-{number:02}"),
        app_id: "bench".into(),
        formation_key: None,
        relay_key: None,
        is_relay: false,
        peers,
        latest_collections: store::StoreConfig::LATEST.into_iter().map(String::from).collect(),
        active: true,
        persist_sync: false,
        link_rates: sync::LinkRates::default(),
    }
}

/// A client that lists the fleet at one node.
struct Viewer {
    out: Vec<u8>,
    decoder: Decoder,
    calls: u64,
}

impl Default for Viewer {
    fn default() -> Viewer {
        Viewer { out: PREFACE.to_vec(), decoder: Decoder::default(), calls: 0 }
    }
}

impl Viewer {
    fn ask<R: Rpc>(&mut self, request: &R) {
        self.calls += 1;
        let header = RequestHeader { method: R::METHOD.number(), ..RequestHeader::default() };
        put_request(&mut self.out, self.calls, header, request);
    }
}

fn identity(number: usize) -> Arc<Identity> {
    Arc::new(Identity::from_seed([number as u8 + 1; 32]))
}

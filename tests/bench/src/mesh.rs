//! Whole nodes in one process under virtual time: the shipped engines, a disk that counts, a network that loses nothing.
//!
//! Commits and hand-offs between threads take no time, a datagram takes [`DELAY`]. `tests/sim` is where things go wrong; here
//! they go on for hours, and what they cost is counted.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_request};
use peat_ipc::prost::Message;
use peat_ipc::prost::bytes::BytesMut;
use peat_ipc::sidecar::{ListAgentsRequest, ListAgentsResponse, Liveness};
use peat_ipc::{PREFACE, Rpc};
use peat_node::api::{self, Caller, ConnectionId, Policy};
use peat_node::clock::Now;
use peat_node::fleet;
use peat_node::identity::Identity;
use peat_node::random::System;
use peat_node::store::{self, Disk, Store, Submitted, Ticket};
use peat_node::sync::{self, PeerSpec};
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::agents::{Agents, Beat};

/// How long a datagram takes.
const DELAY: Duration = Duration::from_micros(300);
/// A thread that wants to go on at once still takes some time.
const TURN: Duration = Duration::from_micros(20);
/// Agents on one connection: its limit of calls is a little higher.
const ON_ONE_CONNECTION: usize = 250;
/// The connection of whoever looks at the fleet.
const VIEWER: ConnectionId = ConnectionId(1_000);
const PORT: u16 = 4242;

/// What has been counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// Of all datagrams, UDP payload.
    pub(crate) datagram_bytes: u64,
    pub(crate) datagrams: u64,
    /// Messages of presence that a node took from a peer as news.
    pub(crate) presences: u64,
    /// Written to disks.
    pub(crate) disk_bytes: u64,
    pub(crate) beats: u64,
}

impl std::ops::Sub for Counted {
    type Output = Counted;

    fn sub(self, before: Counted) -> Counted {
        Counted {
            datagram_bytes: self.datagram_bytes - before.datagram_bytes,
            datagrams: self.datagrams - before.datagrams,
            presences: self.presences - before.presences,
            disk_bytes: self.disk_bytes - before.disk_bytes,
            beats: self.beats - before.beats,
        }
    }
}

/// Nodes in a ring, each with as many agents.
pub(crate) struct Mesh {
    base: Instant,
    time: Duration,
    nodes: Vec<Node>,
    /// Datagrams on their way, by arrival.
    flying: BTreeMap<(Duration, u64), (usize, SocketAddr, Vec<u8>)>,
    agents: usize,
    beat: Beat,
    next_beat: usize,
    /// When it is; `None` before all are registered.
    beat_at: Option<Duration>,
    counted: Counted,
}

impl Mesh {
    /// All nodes started at time zero, their agents registered one node after the other within a heartbeat interval, so that
    /// nodes do not speak all at once later.
    pub(crate) fn new(nodes: usize, agents_each: usize, beat: Beat) -> Result<Mesh, Failure> {
        let base = Instant::now();
        let mut mesh = Mesh {
            base,
            time: Duration::ZERO,
            nodes: Vec::new(),
            flying: BTreeMap::new(),
            agents: nodes * agents_each,
            beat,
            next_beat: 0,
            beat_at: None,
            counted: Counted::default(),
        };
        for number in 0..nodes {
            mesh.nodes.push(Node::start(number, nodes, mesh.now())?);
        }
        for number in 0..nodes {
            let now = mesh.now();
            mesh.nodes[number].register(now, number * agents_each, agents_each);
            mesh.drain(number)?;
            mesh.run(heartbeat() / u32::try_from(nodes)?)?;
        }
        mesh.beat_at = Some(mesh.time);
        Ok(mesh)
    }

    /// Lets this much time pass, each agent beating once a heartbeat interval, all of them spread evenly over it.
    pub(crate) fn run(&mut self, duration: Duration) -> Result<Counted, Failure> {
        let before = self.counted();
        let end = self.time + duration;
        loop {
            let beat = self.beat_at.unwrap_or(end);
            let arrival = self.flying.first_key_value().map_or(end, |((at, _), _)| *at);
            let (due, node) = self.first_due().unwrap_or((end, 0));
            let next = arrival.min(due).min(beat);
            if next >= end {
                self.time = end;
                return Ok(self.counted() - before);
            }
            self.time = next.max(self.time);
            if beat == next {
                self.let_one_beat()?;
            } else if arrival == next {
                self.deliver()?;
            } else {
                self.wake(node)?;
            }
        }
    }

    /// How many agents each node shows LIVE.
    pub(crate) fn live(&mut self) -> Result<Vec<usize>, Failure> {
        let now = self.now();
        self.nodes.iter_mut().map(|node| node.live(now)).collect()
    }

    /// Heartbeats that no node has answered.
    pub(crate) fn unanswered(&self) -> u64 {
        self.nodes.iter().flat_map(|node| &node.agents).map(Agents::unanswered).sum()
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.base + self.time, wall_ms: 1_750_000_000_000 + millis as i64, boot_ms: millis }
    }

    /// Everything since the start.
    pub(crate) fn counted(&self) -> Counted {
        let disk_bytes = self.nodes.iter().map(|node| node.written.load(Ordering::Relaxed)).sum();
        Counted { disk_bytes, ..self.counted }
    }

    fn first_due(&self) -> Option<(Duration, usize)> {
        let due = |node: &Node| node.due.map(|due| due.saturating_duration_since(self.base));
        self.nodes.iter().enumerate().filter_map(|(number, node)| Some((due(node)?, number))).min()
    }

    fn let_one_beat(&mut self) -> Result<(), Failure> {
        let each = self.agents / self.nodes.len();
        let (node, agent) = (self.next_beat % self.nodes.len(), self.next_beat / self.nodes.len() % each);
        self.next_beat += 1;
        self.beat_at = Some(self.time + heartbeat() / u32::try_from(self.agents)?);
        self.counted.beats += 1;
        self.nodes[node].agents[agent / ON_ONE_CONNECTION].beat(agent % ON_ONE_CONNECTION, self.beat);
        self.drain(node)
    }

    fn deliver(&mut self) -> Result<(), Failure> {
        let Some((_, (to, from, data))) = self.flying.pop_first() else { return Ok(()) };
        let now = self.now();
        self.nodes[to].sync.handle_datagram(now, from, BytesMut::from(data.as_slice()));
        self.drain(to)
    }

    fn wake(&mut self, node: usize) -> Result<(), Failure> {
        let now = self.now();
        self.nodes[node].wake(now);
        self.drain(node)
    }

    /// Carries out what a node's engines want, until they want nothing more.
    fn drain(&mut self, number: usize) -> Result<(), Failure> {
        let now = self.now();
        let node = &mut self.nodes[number];
        while node.exchange(now, &mut self.counted.presences) | node.talk(now)? {}
        let mut datagram = Vec::new();
        while let Some(to) = node.sync.poll_transmit(now, &mut datagram) {
            self.counted.datagrams += 1;
            self.counted.datagram_bytes += datagram.len() as u64;
            let key = (self.time + DELAY, self.counted.datagrams);
            self.flying.insert(key, (number_at(to), address(number), datagram.clone()));
        }
        node.due = node.deadline(now).map(|due| due.max(now.mono + TURN));
        Ok(())
    }
}

fn heartbeat() -> Duration {
    fleet::Times::default().heartbeat
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number as u32), PORT))
}

fn number_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => (u32::from(*address.ip()) - 0x0a00_0001) as usize,
        SocketAddr::V6(_) => unreachable!("every node has an IPv4 address"),
    }
}

fn identity(number: usize) -> Arc<Identity> {
    Arc::new(Identity::from_seed([number as u8 + 1; 32]))
}

/// One node: three engines and the agents at its socket.
struct Node {
    store: Store<CountingDisk>,
    sync: sync::Engine,
    api: api::Engine,
    agents: Vec<Agents>,
    viewer: Viewer,
    written: Arc<AtomicU64>,
    /// When one of its threads is to be woken.
    due: Option<Instant>,
}

impl Node {
    /// Number `number` of `nodes`, which dials the next one.
    fn start(number: usize, nodes: usize, now: Now) -> Result<Node, Failure> {
        let identity = identity(number);
        let written = Arc::new(AtomicU64::new(0));
        let disk = CountingDisk { inner: InMemoryBackend::new(), written: Arc::clone(&written) };
        let store = Store::open(disk, store::Config::new(identity.id()), &mut System::default(), now)?;
        let reader = store.reader();
        let peers = peers(number, nodes);
        let sync =
            sync::Engine::new(links(number, peers), &identity, reader.clone(), Box::new(System::default()), now)?;
        let config = api::Config {
            node_id: format!("node-{number:02}"),
            policy: Policy { own_uid: 0, admin_group: None, tcp_token: None },
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

    /// Its agents connect and register.
    fn register(&mut self, now: Now, first: usize, count: usize) {
        for from in (0..count).step_by(ON_ONE_CONNECTION) {
            let id = ConnectionId(self.agents.len() as u64);
            self.agents.push(Agents::new(first + from, ON_ONE_CONNECTION.min(count - from)));
            self.open(now, id).expect("a new node has room for its agents");
        }
    }

    fn wake(&mut self, now: Now) {
        if self.store.poll_deadline().is_some_and(|due| now.reached(due)) {
            self.store.handle_timeout(now);
            self.tell_tip(now);
        }
        self.sync.handle_timeout(now);
        self.api.handle_timeout(now);
    }

    fn deadline(&mut self, now: Now) -> Option<Instant> {
        let sync = self.sync.poll_deadline(now).map(|(due, _)| due);
        let api = self.api.poll_deadline().map(|(due, _)| due);
        [sync, api, self.store.poll_deadline()].into_iter().flatten().min()
    }

    fn tell_tip(&mut self, now: Now) {
        let tip = self.store.tip();
        self.api.handle_tip(now, tip);
        self.sync.handle_tip(now, tip);
    }

    /// What the threads hand to each other, once; whether there was anything. `presences` counts what was heard of others.
    fn exchange(&mut self, now: Now, presences: &mut u64) -> bool {
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
        let mut batch: Vec<Submitted> = Vec::new();
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

    /// Bytes between the api engine and its clients, once; whether there were any.
    fn talk(&mut self, now: Now) -> Result<bool, Failure> {
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

    /// How many agents ListAgents shows LIVE.
    fn live(&mut self, now: Now) -> Result<usize, Failure> {
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

/// The two neighbours in the ring; the next one is dialled.
fn peers(number: usize, nodes: usize) -> Vec<PeerSpec> {
    let (next, last) = ((number + 1) % nodes, (number + nodes - 1) % nodes);
    let dialled = PeerSpec { id: identity(next).id(), addresses: vec![sync::Address::Literal(address(next))] };
    let dials_us = PeerSpec { id: identity(last).id(), addresses: Vec::new() };
    [dialled, dials_us].into_iter().take(if nodes > 1 { 2 } else { 0 }).collect()
}

fn links(number: usize, peers: Vec<PeerSpec>) -> sync::Config {
    sync::Config {
        node_id: format!("node-{number:02}"),
        app_id: "bench".into(),
        formation_key: None,
        peers,
        latest_collections: store::Config::LATEST.into_iter().map(String::from).collect(),
        active: true,
        persist_sync: false,
    }
}

/// Whoever looks at the fleet from one node.
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

/// Memory that counts what is written to it.
#[derive(Debug)]
struct CountingDisk {
    inner: InMemoryBackend,
    written: Arc<AtomicU64>,
}

impl StorageBackend for CountingDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.written.fetch_add(data.len() as u64, Ordering::Relaxed);
        self.inner.write(offset, data)
    }
}

impl Disk for CountingDisk {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        self.inner.len().unwrap_or(0)
    }
}

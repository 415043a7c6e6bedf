//! Nodes without clients (a store and links each) in one process, under virtual time, over an impaired network.
//!
//! The engines are the production ones. Several nodes may share a store, so that a thousand of them fit into memory. The
//! processor time of node 0 is measured.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::prost::bytes::BytesMut;
use peat_node::clock::Now;
use peat_node::identity::{EndpointId, Identity};
use peat_node::random::System;
use peat_node::store::{self, DocumentWrite, Envelope, Key, Put, Store, StoreRequest, Ticket};
use peat_node::sync::{Address, Control, ControlRequest, Engine, LinkRates, PeerSpec, SyncConfig};
use rustix::time::{ClockId, clock_gettime};

use crate::mesh::disk::CountingDisk;

/// Size of the IP and UDP headers in bytes.
pub(crate) const HEADERS_BYTES: u64 = 28;
/// Time that a thread takes before it continues.
const TURN: Duration = Duration::from_micros(20);

/// The behaviour of every link, in each direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay: Duration,
    pub(crate) loss_per_mille: u64,
    /// Rate limit including headers; faster traffic is queued.
    pub(crate) bytes_per_second: Option<u64>,
    pub(crate) cut: bool,
}

impl Weather {
    /// A wired network.
    pub(crate) const LAN: Weather =
        Weather { delay: Duration::from_micros(300), loss_per_mille: 0, bytes_per_second: None, cut: false };
}

struct Node {
    sync: Engine,
    store: usize,
    due: Option<Duration>,
}

/// The nodes, their stores and the network; see the module's documentation.
pub(crate) struct Field {
    base: Instant,
    pub(crate) time: Duration,
    pub(crate) weather: Weather,
    stores: Vec<Store<CountingDisk>>,
    nodes: Vec<Node>,
    due: BTreeSet<(Duration, usize)>,
    flying: BTreeMap<(Duration, u64), (usize, usize, Vec<u8>)>,
    free_at: BTreeMap<(usize, usize), Duration>,
    sent: u64,
    losses: u64,
    /// Processor time used by node 0.
    pub(crate) spent: Duration,
}

impl Field {
    /// Creates an empty field.
    pub(crate) fn new(weather: Weather) -> Field {
        Field {
            base: Instant::now(),
            time: Duration::ZERO,
            weather,
            stores: Vec::new(),
            nodes: Vec::new(),
            due: BTreeSet::new(),
            flying: BTreeMap::new(),
            free_at: BTreeMap::new(),
            sent: 0,
            losses: 1,
            spent: Duration::ZERO,
        }
    }

    /// Adds a store and returns its number.
    pub(crate) fn store(&mut self) -> Result<usize, Failure> {
        let config = store::StoreConfig::new(identity(self.nodes.len()).id());
        let disk = CountingDisk::new(&Arc::default());
        self.stores.push(Store::open(disk, config, &mut System::default(), self.now())?);
        Ok(self.stores.len() - 1)
    }

    /// Adds a node, inactive until started, which dials some peers and accepts others.
    pub(crate) fn node(
        &mut self,
        store: usize,
        dials: &[usize],
        lets_in: std::ops::Range<usize>,
        rate: Option<u64>,
    ) -> Result<usize, Failure> {
        let number = self.nodes.len();
        let literal = |node: usize| vec![Address::Literal(address(node))];
        let dialled = dials.iter().map(|node| PeerSpec { id: id(*node), addresses: literal(*node) });
        let pinned = lets_in.map(|node| PeerSpec { id: id(node), addresses: Vec::new() });
        let config = SyncConfig {
            node_id: format!("node-{number}"),
            app_id: "bench".into(),
            formation_key: None,
            relay_key: None,
            is_relay: false,
            peers: dialled.chain(pinned).collect(),
            link_rates: LinkRates { all: rate, ..LinkRates::default() },
            latest_collections: store::StoreConfig::LATEST.into_iter().map(String::from).collect(),
            active: false,
            persist_sync: false,
        };
        let reader = self.stores[store].reader();
        let sync = Engine::new(config, &identity(number), reader, Box::new(System::default()), self.now())?;
        self.nodes.push(Node { sync, store, due: None });
        Ok(number)
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.base + self.time, wall_ms: 1_750_000_000_000 + millis as i64, boot_ms: millis }
    }

    /// Starts replication on a node.
    pub(crate) fn start(&mut self, node: usize) {
        self.with(node, |sync, now| sync.handle_asked(now, ControlRequest { call: 0, control: Control::StartSync }));
    }

    /// Delivers the kernel's notification that a node's network has changed.
    pub(crate) fn network_changed(&mut self, node: usize) {
        self.with(node, Engine::handle_network_changed);
    }

    /// Returns the number of peers that a node is linked to.
    pub(crate) fn connected(&self, node: usize) -> u32 {
        self.nodes[node].sync.stats().connected_peers
    }

    /// Writes a document.
    pub(crate) fn put(&mut self, store: usize, id: &str, json: String) -> Result<(), Failure> {
        let write =
            DocumentWrite { key: Key::new("tracks", id)?, put: Put::Whole { json, base: None }, durable: false };
        let submitted = Envelope { ticket: Ticket::Api(0), request: StoreRequest::Write(write) };
        let mut replies = Vec::new();
        let now = self.now();
        self.stores[store].handle_batch(now, [submitted], &mut replies);
        replies.remove(0).result?;
        self.tell_tip(store);
        Ok(())
    }

    /// Returns true if a store holds this content.
    pub(crate) fn holds(&self, store: usize, id: &str, json: &str) -> Result<bool, Failure> {
        let document = self.stores[store].reader().snapshot()?.document(&Key::new("tracks", id)?)?;
        Ok(document.is_some_and(|document| document.json == json))
    }

    /// Returns the newest visible sequence number of a store.
    pub(crate) fn visible(&self, store: usize) -> u64 {
        self.stores[store].tip().visible
    }

    fn tell_tip(&mut self, store: usize) {
        for node in 0..self.nodes.len() {
            if self.nodes[node].store == store {
                let tip = self.stores[store].tip();
                self.counted(node, |field, now| field.nodes[node].sync.handle_tip(now, tip));
                self.wake_at(node, Some(self.time));
            }
        }
    }

    /// Runs until `done` holds or `limit` has passed; returns true if `done` held.
    pub(crate) fn run(&mut self, limit: Duration, mut done: impl FnMut(&Field) -> bool) -> bool {
        let end = self.time + limit;
        loop {
            if done(self) {
                return true;
            }
            let due = self.due.first().map_or(end, |(at, _)| *at);
            let arrival = self.flying.first_key_value().map_or(end, |((at, _), _)| *at);
            let next = due.min(arrival);
            if next >= end {
                self.time = end;
                return false;
            }
            self.time = next.max(self.time);
            if arrival <= due {
                self.deliver();
            } else if let Some((_, node)) = self.due.pop_first() {
                self.nodes[node].due = None;
                self.with(node, Engine::handle_timeout);
            }
        }
    }

    fn deliver(&mut self) {
        let Some((_, (from, to, data))) = self.flying.pop_first() else { return };
        if !self.weather.cut {
            self.with(to, |sync, now| sync.handle_datagram(now, address(from), BytesMut::from(&data[..])));
        }
    }

    /// Applies an event to a node and carries out the consequences.
    fn with(&mut self, node: usize, happens: impl FnOnce(&mut Engine, Now)) {
        self.counted(node, |field, now| {
            happens(&mut field.nodes[node].sync, now);
            field.drain(node, now);
        });
        let now = self.now();
        let due = self.nodes[node].sync.poll_deadline(now).map(|(at, _)| at.saturating_duration_since(self.base));
        self.wake_at(node, due.map(|due| due.max(self.time + TURN)));
    }

    fn counted(&mut self, node: usize, work: impl FnOnce(&mut Field, Now)) {
        let (now, begun) = (self.now(), processor_time());
        work(self, now);
        if node == 0 {
            self.spent += processor_time().saturating_sub(begun);
        }
    }

    fn wake_at(&mut self, node: usize, due: Option<Duration>) {
        if let Some(before) = std::mem::replace(&mut self.nodes[node].due, due) {
            self.due.remove(&(before, node));
        }
        self.due.extend(due.map(|due| (due, node)));
    }

    fn drain(&mut self, number: usize, now: Now) {
        let store = self.nodes[number].store;
        loop {
            let requests: Vec<Envelope> = std::iter::from_fn(|| self.nodes[number].sync.poll_store()).collect();
            if requests.is_empty() {
                break;
            }
            let (before, mut replies) = (self.stores[store].tip(), Vec::new());
            self.stores[store].handle_batch(now, requests, &mut replies);
            replies.into_iter().for_each(|reply| self.nodes[number].sync.handle_reply(now, reply));
            // Virtual disks sync in no time.
            let mut flushed = Vec::new();
            let flush = Envelope { ticket: Ticket::Api(0), request: StoreRequest::Flush };
            self.stores[store].handle_batch(now, [flush], &mut flushed);
            if self.stores[store].tip() != before {
                self.tell_tip(store);
            }
        }
        while self.nodes[number].sync.poll_event().is_some() {}
        let mut datagram = Vec::new();
        while let Some(to) = self.nodes[number].sync.poll_transmit(now, &mut datagram) {
            self.transmit(number, to, &datagram);
        }
    }

    fn transmit(&mut self, from: usize, to: SocketAddr, datagram: &[u8]) {
        let Some(to) = (0..self.nodes.len()).nth(number_at(to)) else { return };
        let free_at = self.free_at.entry((from, to)).or_default();
        let takes = self.weather.bytes_per_second.map_or(Duration::ZERO, |rate| {
            Duration::from_nanos((datagram.len() as u64 + HEADERS_BYTES) * 1_000_000_000 / rate)
        });
        *free_at = self.time.max(*free_at) + takes;
        let arrival = *free_at + self.weather.delay;
        self.sent += 1;
        self.losses = self.losses.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if (self.losses >> 33) % 1_000 >= self.weather.loss_per_mille {
            self.flying.insert((arrival, self.sent), (from, to, datagram.to_vec()));
        }
    }
}

/// Returns the processor time this thread has used.
pub(crate) fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

fn address(number: usize) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::from(0x0a00_0001 + number as u32), 4242))
}

fn number_at(address: SocketAddr) -> usize {
    match address {
        SocketAddr::V4(address) => (u32::from(*address.ip()) - 0x0a00_0001) as usize,
        SocketAddr::V6(_) => unreachable!("every node has an IPv4 address"),
    }
}

fn identity(number: usize) -> Identity {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(number as u64 + 1).to_le_bytes());
    Identity::from_seed(seed)
}

fn id(number: usize) -> EndpointId {
    identity(number).id()
}

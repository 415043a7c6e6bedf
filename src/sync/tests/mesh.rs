//! A few whole nodes (store and sync engine each) on an in-memory network under virtual time.
//!
//! Faults are injected in `tests/sim`; here the network is merely slow, so that each test can state exactly what must happen.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use redb::StorageBackend;
use redb::backends::InMemoryBackend;

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::random::{Random, RandomExt};
use crate::relay::Relay;
use crate::relay::wire::RelayKey;
use crate::store::fingerprint::{fingerprint, summand};
use crate::store::{self, Disk, DocumentWrite, Envelope, Key, Put, Store, StoreRequest, Ticket};
use crate::sync::proof::FormationKey;
use crate::sync::{
    Address, Answer, Control, ControlError, ControlRequest, Engine, Event, LinkRates, Peer, PeerSpec, Reloaded,
    SyncConfig,
};

/// Properties of every link, in each direction.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wire {
    pub(super) delay: Duration,
    pub(super) loss_per_mille: u64,
    /// Rate that includes IP and UDP headers; datagrams beyond it wait.
    pub(super) bytes_per_second: Option<u64>,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire { delay: Duration::from_millis(2), loss_per_mille: 0, bytes_per_second: None }
    }
}

/// Size of the IP and UDP headers, in bytes.
pub(super) const HEADERS_BYTES: u64 = 28;
/// Offset of node numbers: a node that has moved takes the address of the node with its number plus this.
const MOVED: usize = 100;
/// Number of the node at the address of which the relay is.
pub(super) const RELAY: usize = 99;
/// Maximum number of steps, more than any test here needs.
const STEPS: usize = 2_000_000;

#[derive(Debug)]
pub(super) struct Seeded(u64);

impl Seeded {
    pub(super) fn new(seed: u64) -> Seeded {
        Seeded(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(1))
    }
}

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            *byte = self.0.to_le_bytes()[3];
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryDisk(Arc<InMemoryBackend>);

impl StorageBackend for MemoryDisk {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

impl Disk for MemoryDisk {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }
    fn used(&self) -> u64 {
        self.0.len().unwrap_or(0)
    }
}

/// One node.
pub(super) struct Node {
    store: Store<MemoryDisk>,
    disk: MemoryDisk,
    pub(super) engine: Engine,
    identity: Identity,
    latest: BTreeSet<String>,
    key: Option<&'static [u8]>,
    pub(super) rate: Option<u64>,
    pub(super) answers: BTreeMap<u64, Result<Answer, ControlError>>,
    /// Nodes reported to it as present, in order.
    pub(super) present: Vec<EndpointId>,
    /// Notices to its operator about documents that do not replicate.
    pub(super) notices: Vec<String>,
    /// False if it is down; nothing reaches it.
    up: bool,
    /// Requests to its store while the store is held; `None` if it answers.
    held: Option<Vec<Envelope>>,
    /// Datagrams in its socket while its process is stopped (SIGSTOP); `None` if it runs.
    stopped: Option<Vec<(SocketAddr, Vec<u8>)>>,
    wall_skew_ms: i64,
}

/// Configuration of a node.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) key: Option<&'static [u8]>,
    pub(super) pins: Vec<usize>,
    pub(super) dials: Vec<usize>,
    /// Peers that can also be reached through the relay.
    pub(super) relayed: Vec<usize>,
    pub(super) latest: Vec<&'static str>,
    pub(super) app_id: &'static str,
    pub(super) active: bool,
    /// Rate in bytes per second.
    pub(super) link_rate: Option<u64>,
    /// Node that this one is a copy of, if it is one.
    pub(super) copy_of: Option<usize>,
}

impl Default for Setup {
    fn default() -> Setup {
        let latest = vec!["platforms", "tracks", "deployments", "packages"];
        Setup {
            key: Some(b"a formation key of the tests"),
            pins: vec![],
            dials: vec![],
            relayed: vec![],
            latest,
            app_id: "tests",
            active: true,
            link_rate: None,
            copy_of: None,
        }
    }
}

/// Datagram in flight.
struct Flight {
    from: (usize, SocketAddr),
    to: SocketAddr,
    datagram: Vec<u8>,
}

/// Network and its nodes.
pub(super) struct Mesh {
    pub(super) nodes: Vec<Node>,
    pub(super) relay: Option<Relay>,
    now: Now,
    start: Instant,
    flying: BTreeMap<(Instant, u64), Flight>,
    pub(super) wire: Wire,
    /// Time at which a direction has sent everything given to it so far.
    free_at: BTreeMap<(usize, usize), Instant>,
    pub(super) losses: Seeded,
    /// Current addresses of nodes that have moved.
    moved: BTreeMap<usize, SocketAddr>,
    sent: u64,
    calls: u64,
    starts: u64,
    /// Directed pairs between which nothing passes.
    cuts: BTreeSet<(usize, usize)>,
    /// UDP payload bytes and datagrams by directed pair.
    pub(super) carried: BTreeMap<(usize, usize), (u64, u64)>,
}

pub(super) fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, u8::try_from(node + 1).expect("few nodes")], 4242))
}

fn identity(node: usize) -> Identity {
    Identity::generate(&mut Seeded::new(1_000 + node as u64))
}

#[expect(clippy::disallowed_methods, reason = "the starting point of virtual time")]
fn start() -> Now {
    Now { mono: Instant::now(), wall_ms: 1_700_000_000_000, boot_ms: 10_000 }
}

impl Mesh {
    #[expect(clippy::needless_pass_by_value, reason = "a mesh is made of its setups")]
    pub(super) fn new(setups: Vec<Setup>) -> Mesh {
        let now = start();
        let mut mesh = Mesh {
            nodes: Vec::new(),
            relay: None,
            now,
            start: now.mono,
            flying: BTreeMap::new(),
            wire: Wire::default(),
            free_at: BTreeMap::new(),
            losses: Seeded::new(3),
            moved: BTreeMap::new(),
            sent: 0,
            calls: 0,
            starts: 0,
            cuts: BTreeSet::new(),
            carried: BTreeMap::new(),
        };
        for (index, setup) in setups.iter().enumerate() {
            let node = Mesh::node(index, setup, now, MemoryDisk::default(), 0);
            mesh.nodes.push(node);
        }
        mesh
    }

    /// Creates two nodes with one formation key; the second dials the first.
    pub(super) fn pair() -> Mesh {
        Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }])
    }

    /// Creates a node at its start number `start`, which seeds its randomness.
    fn node(index: usize, setup: &Setup, now: Now, disk: MemoryDisk, start: u64) -> Node {
        let mut random = Seeded::new(7 + index as u64 + 1_000 * start);
        let identity = identity(setup.copy_of.unwrap_or(index));
        let latest: BTreeSet<String> = setup.latest.iter().map(ToString::to_string).collect();
        let mut config = store::StoreConfig::new(identity.id());
        config.latest_collections.clone_from(&latest);
        let store = Store::open(disk.clone(), config, &mut random, now).expect("an empty disk opens");
        let peer = |other: &usize, addresses| PeerSpec { id: identity_id(*other), addresses };
        let pins = setup.pins.iter().map(|other| peer(other, Vec::new()));
        let mut ways: BTreeMap<usize, Vec<Address>> = BTreeMap::new();
        for other in &setup.dials {
            ways.entry(*other).or_default().push(Address::Literal(address(*other)));
        }
        for other in &setup.relayed {
            ways.entry(*other).or_default().push(Address::Relay(address(RELAY).to_string()));
        }
        let dials = ways.into_iter().map(|(other, addresses)| peer(&other, addresses));
        let config = SyncConfig {
            node_id: format!("node-{index}"),
            app_id: setup.app_id.to_owned(),
            formation_key: setup.key.map(|key| FormationKey::new(key.to_vec()).expect("long enough")),
            relay_key: None,
            is_relay: false,
            peers: pins.chain(dials).collect(),
            latest_collections: latest.clone(),
            active: setup.active,
            persist_sync: false,
            link_rates: LinkRates { all: setup.link_rate, ..LinkRates::default() },
        };
        let engine = Engine::new(config, &identity, store.reader(), Box::new(random), now).expect("the store reads");
        Node {
            store,
            disk,
            engine,
            identity,
            latest,
            key: setup.key,
            rate: setup.link_rate,
            answers: BTreeMap::new(),
            present: Vec::new(),
            notices: Vec::new(),
            up: true,
            held: None,
            stopped: None,
            wall_skew_ms: 0,
        }
    }

    pub(super) fn id(&self, node: usize) -> EndpointId {
        self.nodes[node].identity.id()
    }

    fn now_at(&self, node: usize) -> Now {
        Now { wall_ms: self.now.wall_ms + self.nodes[node].wall_skew_ms, ..self.now }
    }

    // Driving.

    fn drain(&mut self, node: usize) {
        let now = self.now_at(node);
        let mut datagram = Vec::new();
        loop {
            let state = &mut self.nodes[node];
            let mut requests: Vec<Envelope> = std::iter::from_fn(|| state.engine.poll_store()).collect();
            if let Some(held) = &mut state.held {
                held.append(&mut requests);
            }
            if !requests.is_empty() {
                let mut replies = Vec::new();
                state.store.handle_batch(now, requests, &mut replies);
                replies.into_iter().for_each(|reply| state.engine.handle_reply(now, reply));
            }
            let tip = state.store.tip();
            state.engine.handle_tip(now, tip);
            while let Some(event) = state.engine.poll_event() {
                match event {
                    Event::Answered { call, answer } => _ = state.answers.insert(call, answer),
                    Event::Presence(of) => state.present.push(of),
                    Event::Notices(notices) => state.notices = notices,
                    Event::Status(_) => {}
                }
            }
            let Some(to) = state.engine.poll_transmit(now, &mut datagram) else { break };
            self.carry(node, to, datagram.clone());
        }
    }

    fn carry(&mut self, from: usize, to: SocketAddr, datagram: Vec<u8>) {
        let target = (0..).find(|other| address(*other) == to).expect("a test's address") % MOVED;
        let carried = self.carried.entry((from, target)).or_default();
        carried.0 += datagram.len() as u64;
        carried.1 += 1;
        self.sent += 1;
        let leaves = self.throttle(from, target, datagram.len() as u64);
        if self.losses.below(1_000) >= self.wire.loss_per_mille {
            let flight = Flight { from: (from, self.place(from)), to, datagram };
            self.flying.insert((leaves + self.wire.delay, self.sent), flight);
        }
    }

    /// Returns the time at which a datagram has passed the bottleneck of the link.
    fn throttle(&mut self, from: usize, to: usize, bytes: u64) -> Instant {
        let Some(rate) = self.wire.bytes_per_second else { return self.now.mono };
        let free_at = self.free_at.entry((from, to)).or_insert(self.now.mono);
        let takes = Duration::from_nanos((bytes + HEADERS_BYTES) * 1_000_000_000 / rate);
        *free_at = self.now.mono.max(*free_at) + takes;
        *free_at
    }

    fn place(&self, node: usize) -> SocketAddr {
        self.moved.get(&node).copied().unwrap_or_else(|| address(node))
    }

    /// Starts a relay that knows the formation key, in place of an earlier one.
    pub(super) fn start_relay(&mut self, seed: u64) {
        let key = FormationKey::new(Setup::default().key.expect("a key").to_vec()).expect("long enough");
        self.relay = Some(Relay::new(RelayKey::new(&key), Box::new(Seeded::new(seed)), self.now));
    }

    fn deliver_to_relay(&mut self, flight: &Flight) {
        let Some(relay) = &mut self.relay else { return };
        relay.handle_timeout(self.now);
        relay.handle_datagram(self.now, flight.from.1, &flight.datagram);
        let sent: Vec<_> = std::iter::from_fn(|| relay.poll_transmit()).collect();
        sent.into_iter().for_each(|(to, datagram)| self.carry(RELAY, to, datagram));
    }

    fn deliver(&mut self, flight: &Flight) {
        let from = flight.from.0;
        if flight.to == address(RELAY) && !self.cuts.contains(&(from, RELAY)) {
            return self.deliver_to_relay(flight);
        }
        let Some(to) = (0..self.nodes.len()).find(|node| self.place(*node) == flight.to) else { return };
        if self.cuts.contains(&(from, to)) || !self.nodes[to].up {
            return;
        }
        let now = self.now_at(to);
        if let Some(kept) = &mut self.nodes[to].stopped {
            return kept.push((flight.from.1, flight.datagram.clone()));
        }
        self.nodes[to].engine.handle_datagram(now, flight.from.1, BytesMut::from(&flight.datagram[..]));
        self.drain(to);
    }

    /// Makes a node's store leave the requests of its sync engine unanswered.
    pub(super) fn hold_store(&mut self, node: usize) {
        self.nodes[node].held = Some(Vec::new());
    }

    pub(super) fn release_store(&mut self, node: usize) {
        let (now, mut replies) = (self.now_at(node), Vec::new());
        let state = &mut self.nodes[node];
        let requests = state.held.take().unwrap_or_default();
        state.store.handle_batch(now, requests, &mut replies);
        replies.into_iter().for_each(|reply| state.engine.handle_reply(now, reply));
        self.drain(node);
    }

    /// Stops a node's process, as SIGSTOP does.
    pub(super) fn stop(&mut self, node: usize) {
        self.nodes[node].stopped = Some(Vec::new());
    }

    /// Continues a stopped node with the datagrams that have arrived; the store answers once the sync thread has read them all.
    pub(super) fn go_on(&mut self, node: usize) {
        let now = self.now_at(node);
        for (from, datagram) in self.nodes[node].stopped.take().unwrap_or_default() {
            self.nodes[node].engine.handle_datagram(now, from, BytesMut::from(&datagram[..]));
        }
        self.drain(node);
    }

    fn next_deadline(&mut self) -> Option<(Instant, usize)> {
        let now = self.now;
        let nodes = self.nodes.iter_mut().enumerate().filter(|(_, node)| node.up && node.stopped.is_none());
        let times = nodes.filter_map(|(index, node)| {
            let engine = node.engine.poll_deadline(now).map(|(at, _)| at);
            engine.into_iter().chain(node.store.poll_deadline()).min().map(|at| (at.max(now.mono), index))
        });
        times.min()
    }

    /// Runs virtual time until `done` or for `limit`. Returns whether `done` held.
    pub(super) fn run_until(&mut self, limit: Duration, mut done: impl FnMut(&mut Mesh) -> bool) -> bool {
        let end = self.now.mono + limit;
        let running = |mesh: &Mesh, node: &usize| mesh.nodes[*node].stopped.is_none();
        (0..self.nodes.len())
            .filter(|node| running(self, node))
            .collect::<Vec<_>>()
            .into_iter()
            .for_each(|node| self.drain(node));
        for _ in 0..STEPS {
            if done(self) {
                return true;
            }
            let deadline = self.next_deadline();
            let flight = self.flying.keys().next().copied();
            let next = deadline.map(|(at, _)| at).into_iter().chain(flight.map(|(at, _)| at)).min();
            let Some(next) = next.filter(|next| *next <= end) else {
                self.advance(end);
                return done(self);
            };
            self.advance(next);
            match flight.filter(|(at, _)| *at == next) {
                Some(key) => {
                    let flight = self.flying.remove(&key).expect("just seen");
                    self.deliver(&flight);
                }
                None => self.wake(deadline.expect("one of the two came").1),
            }
        }
        panic!("no end after {STEPS} steps");
    }

    fn wake(&mut self, node: usize) {
        let now = self.now_at(node);
        self.nodes[node].store.handle_timeout(now);
        self.nodes[node].engine.handle_timeout(now);
        self.drain(node);
    }

    fn advance(&mut self, to: Instant) {
        let passed = to.saturating_duration_since(self.now.mono);
        self.now.mono = self.now.mono.max(to);
        self.now.wall_ms += i64::try_from(passed.as_millis()).expect("a short test");
        self.now.boot_ms = 10_000 + u64::try_from((self.now.mono - self.start).as_millis()).expect("a short test");
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        self.run_until(time, |_| false);
    }

    /// Runs until all live nodes hold the same, which must happen within a minute.
    pub(super) fn converge(&mut self) {
        let same = self.run_until(Duration::from_secs(60), |mesh| {
            let live = (0..mesh.nodes.len()).filter(|node| mesh.nodes[*node].up);
            live.map(|node| mesh.versions(node)).collect::<BTreeSet<_>>().len() == 1
        });
        let states: Vec<_> = (0..self.nodes.len()).map(|node| self.state(node)).collect();
        assert!(same, "{}", shortened(&format!("{states:#?}")));
        let equal = states.windows(2).all(|pair| pair[0] == pair[1]);
        assert!(equal, "equal versions, different content: {}", shortened(&format!("{states:#?}")));
    }

    fn versions(&self, node: usize) -> BTreeMap<[u8; 16], [u8; 16]> {
        let snapshot = self.nodes[node].store.reader().snapshot().expect("a memory disk reads");
        let entries = store::Kind::ALL.into_iter().flat_map(|kind| snapshot.entries(kind, 0).expect("reads"));
        let entries: Vec<store::IndexEntry> = entries.map(|entry| entry.expect("reads")).collect();
        let summands = entries.iter().map(|entry| summand(&entry.hash, &entry.version));
        let counted = fingerprint(entries.len() as u64, summands.fold(0, u128::wrapping_add));
        assert_eq!(snapshot.fingerprint(), counted, "node {node}: the fingerprint is of what is there");
        entries.into_iter().map(|entry| (entry.hash.0, entry.version.0)).collect()
    }

    /// Returns the JSON of every record of a node, by key hash; empty for a deleted one.
    pub(super) fn state(&self, node: usize) -> BTreeMap<[u8; 16], String> {
        let snapshot = self.nodes[node].store.reader().snapshot().expect("a memory disk reads");
        let content = |hash: [u8; 16]| {
            let record = snapshot.record(&store::KeyHash(hash)).expect("reads").expect("indexed");
            record.json().unwrap_or_default().to_owned()
        };
        self.versions(node).into_keys().map(|hash| (hash, content(hash))).collect()
    }

    pub(super) fn snapshot(&self, node: usize) -> store::Snapshot {
        self.nodes[node].store.reader().snapshot().expect("a memory disk reads")
    }

    /// Returns the clocks, as a node without skew reads them.
    pub(super) fn now(&self) -> Now {
        self.now
    }

    // Actions.

    pub(super) fn write(&mut self, node: usize, collection: &str, id: &str, put: Put) -> u64 {
        let now = self.now_at(node);
        let key = Key::new(collection, id).expect("a valid key");
        let request = StoreRequest::Write(DocumentWrite { key, put, durable: false });
        let submitted = Envelope { ticket: Ticket::Api(0), request };
        let mut replies = Vec::new();
        self.nodes[node].store.handle_batch(now, [submitted], &mut replies);
        let outcome = replies.pop().expect("one reply").result.expect("a valid write");
        let tip = self.nodes[node].store.tip();
        self.nodes[node].engine.handle_tip(now, tip);
        self.drain(node);
        match outcome {
            store::Outcome::Written { sequence, .. } => sequence,
            other => panic!("{other:?}"),
        }
    }

    /// Adds a merged document created by `writer` to a node's store, as if received from a third node.
    pub(super) fn bring(&mut self, node: usize, collection: &str, id: &str, (writer, chunks): (u8, Vec<u8>)) {
        let key = Key::new(collection, id).expect("a valid key");
        let third = EndpointId([0x33; 32]);
        let dot = store::Dot { writer: [writer; 8], incarnation: 1 };
        let incoming = store::Incoming {
            hash: key.hash(),
            name: Some(key),
            kind: store::Kind::Merged,
            incarnation: 1,
            origin: third,
            lineage: store::Lineage { dots: store::Dots::one(dot), ..store::Lineage::default() },
            body: store::Body::Merged(store::Merged { chunks, heads: Vec::new() }),
        };
        let from = store::PeerRun { node: third, run: store::RunId([0x33; 16]) };
        let into = self.nodes[node].store.run();
        let excluded = BTreeSet::new();
        let apply = store::Apply { from, into, documents: vec![incoming], cursors: vec![], flush: true, excluded };
        let submitted = Envelope { ticket: Ticket::Api(0), request: StoreRequest::Apply(apply) };
        let (now, mut replies) = (self.now_at(node), Vec::new());
        self.nodes[node].store.handle_batch(now, [submitted], &mut replies);
        match replies.pop().expect("one reply").result.expect("applied") {
            store::Outcome::Applied(applied) => assert!(applied.refused.is_empty(), "{:?}", applied.refused),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn put(&mut self, node: usize, collection: &str, id: &str, json: &str) -> u64 {
        self.write(node, collection, id, Put::Whole { json: json.to_owned(), base: None })
    }

    pub(super) fn get(&self, node: usize, collection: &str, id: &str) -> Option<String> {
        let snapshot = self.nodes[node].store.reader().snapshot().expect("a memory disk reads");
        let key = Key::new(collection, id).expect("a valid key");
        snapshot.document(&key).expect("reads").map(|document| document.json)
    }

    /// Returns the sequence number of the commit that wrote the newest version of a document.
    pub(super) fn sequence(&self, node: usize, collection: &str, id: &str) -> u64 {
        let snapshot = self.nodes[node].store.reader().snapshot().expect("a memory disk reads");
        let key = Key::new(collection, id).expect("a valid key");
        snapshot.document(&key).expect("reads").expect("it is there").sequence
    }

    pub(super) fn ask(&mut self, node: usize, control: Control) -> u64 {
        self.calls += 1;
        let (now, call) = (self.now_at(node), self.calls);
        self.nodes[node].engine.handle_asked(now, ControlRequest { call, control });
        self.drain(node);
        call
    }

    /// Reloads a node's configuration with these peers and its current formation key.
    pub(super) fn reload(&mut self, node: usize, peers: Vec<PeerSpec>) {
        let now = self.now_at(node);
        let formation_key = self.nodes[node].key.map(|key| FormationKey::new(key.to_vec()).expect("long enough"));
        let link_rates = LinkRates { all: self.nodes[node].rate, ..LinkRates::default() };
        self.nodes[node].engine.handle_reloaded(now, Reloaded { formation_key, peers, link_rates });
        self.drain(node);
    }

    pub(super) fn peers(&mut self, node: usize) -> Vec<Peer> {
        let call = self.ask(node, Control::ListAllPeers);
        match self.nodes[node].answers.remove(&call) {
            Some(Ok(Answer::Peers(peers))) => peers,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn is_connected(&mut self, node: usize) -> bool {
        self.peers(node).iter().any(|peer| peer.connected)
    }

    pub(super) fn connect_all(&mut self) {
        let up =
            self.run_until(Duration::from_secs(20), |mesh| (0..mesh.nodes.len()).all(|node| mesh.is_connected(node)));
        assert!(up, "{:#?}", (0..self.nodes.len()).map(|node| self.peers(node)).collect::<Vec<_>>());
    }

    pub(super) fn cut(&mut self, a: usize, b: usize) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// Cuts the direction from `a` to `b`.
    pub(super) fn cut_one_way(&mut self, a: usize, b: usize) {
        self.cuts.insert((a, b));
    }

    pub(super) fn heal(&mut self) {
        self.cuts.clear();
    }

    /// Moves a node to another address; datagrams to its former one are lost.
    pub(super) fn relocate(&mut self, node: usize) {
        self.moved.insert(node, address(node + MOVED));
    }

    /// Reports a change of the network to a node, as the kernel does.
    pub(super) fn network_changed(&mut self, node: usize) {
        let now = self.now_at(node);
        self.nodes[node].engine.handle_network_changed(now);
        self.drain(node);
    }

    pub(super) fn set_clock(&mut self, node: usize, skew_ms: i64) {
        self.nodes[node].wall_skew_ms = skew_ms;
    }

    /// Returns a copy of a node's disk, in the state in which nothing is unflushed.
    pub(super) fn backup(&self, node: usize) -> MemoryDisk {
        let (disk, copy) = (&self.nodes[node].disk, MemoryDisk::default());
        let mut bytes = vec![0; usize::try_from(disk.used()).expect("a small disk")];
        disk.read(0, &mut bytes).expect("memory");
        copy.set_len(bytes.len() as u64).and_then(|()| copy.write(0, &bytes)).expect("memory");
        copy
    }

    /// Restarts a node on another disk.
    pub(super) fn restore(&mut self, node: usize, setup: &Setup, disk: MemoryDisk) {
        self.starts += 1;
        self.nodes[node] = Mesh::node(node, setup, self.now, disk, self.starts);
    }

    /// Replaces a node's disk with an empty one and restarts it.
    pub(super) fn replace_disk(&mut self, node: usize, setup: &Setup) {
        self.restore(node, setup, MemoryDisk::default());
        assert_eq!(self.nodes[node].latest.len(), setup.latest.len());
    }

    /// Returns the bytes and datagrams between two nodes since the last call, in both directions.
    pub(super) fn take_carried(&mut self) -> (u64, u64) {
        let all = std::mem::take(&mut self.carried).into_values();
        all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }
}

/// Shortens the text of a failure to a readable length.
fn shortened(text: &str) -> String {
    text.chars().take(4_000).collect()
}

fn identity_id(node: usize) -> EndpointId {
    identity(node).id()
}

//! The event loop: takes the next event, passes it to its node, and schedules the consequences.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_node::clock::Now;
use peat_node::limits;
use peat_node::store::{DocumentWrite, Error, InjectedBug, Key, Reply, Ticket};
use peat_node::sync::proof::FormationKey;
use peat_node::sync::{Event as SyncEvent, LinkRates, PeerSpec, STORE_OUTSTANDING, SyncConfig};

use crate::checkers::bounds;
use crate::checkers::commands::Begun;
use crate::checkers::promises::Promises;
use crate::faults::{Fault, Tally};
use crate::mesh::callers::{CallerAt, Held};
use crate::mesh::clients::{Clients, DIRECT, Learned};
use crate::mesh::errands::{AgentAt, Errands};
use crate::mesh::links::{self, Around, Linked};
use crate::mesh::load::{self, Stopped};
use crate::mesh::node::{Commit, Node, Output, Running};
use crate::mesh::plan::{Admission, Plan, Ways};
use crate::mesh::relay::{self, RelayAt};
use crate::mesh::trouble::Trouble;
use crate::mesh::watcher::{WHOLE, Watcher};
use crate::mesh::{Event, Mail, Role, odd};
use crate::net::Net;
use crate::prng::Prng;
use crate::seeds::{self, Violation};
use crate::time::{Clock, Queue, Time};
use crate::workload;

/// Maximum number of events per seed.
const STEPS: u64 = 3_000_000;
/// Time after a node's start within which hurried clients write, in milliseconds: about as long as it takes to meet its peers.
const HURRY_MS: u64 = 1_500;
/// Maximum number of requests in transit from the sync thread to the store: batches from peers and settings to save.
const SYNC_QUEUE: usize = STORE_OUTSTANDING + 64;

/// Connection numbers of the callers and of the agents.
const CALLER: u64 = 1;
const AGENT: u64 = 2;

fn is_direct_reply(reply: &Reply) -> bool {
    matches!(reply.ticket, Ticket::Api(call) if call >= DIRECT)
}

fn is_direct_event(event: &SyncEvent) -> bool {
    matches!(event, SyncEvent::Answered { call, .. } if *call >= DIRECT)
}

/// Returns true if a node has a write or a later one.
fn holds(running: &Running, held: &Held) -> Result<bool, Error> {
    let snapshot = running.reader.snapshot()?;
    let Some(record) = snapshot.record(&held.key.hash())? else { return Ok(false) };
    let Some(document) = snapshot.document(&held.key)? else { return Ok(true) };
    Ok(record.incarnation > 1 || document.json.contains(&format!("\"{}\"", held.field)))
}

/// The whole simulated world.
pub struct World {
    pub plan: Plan,
    pub queue: Queue<Event>,
    pub nodes: Vec<Node>,
    pub clients: Vec<Clients>,
    pub callers: Vec<CallerAt>,
    pub watchers: Vec<Watcher>,
    pub agents: Vec<AgentAt>,
    pub errands: Errands,
    pub begun: Begun,
    /// Agents on streams.
    pub linked: Vec<Linked>,
    /// Number of connections made so far; lower numbers belong to the callers.
    connections: u64,
    pub net: Net,
    pub keys: Vec<Key>,
    pub promises: Promises,
    pub random: Prng,
    pub trouble: Trouble,
    pub relay: RelayAt,
    pub tally: Arc<Tally>,
    /// True once no more faults are injected into the nodes of the core; the others stay off.
    pub healing: bool,
    pub core: BTreeSet<usize>,
    /// Nodes with a suspended process.
    pub stopped: BTreeMap<usize, Stopped>,
    /// The node that holds a document too large for any link.
    pub large: Option<usize>,
    marks: u64,
    steps: u64,
    /// Arrival time of the latest message on each channel, and the number in transit.
    channels: BTreeMap<(usize, Role, Role), (Time, usize)>,
    trace: u64,
}

impl World {
    /// Creates the world of `seed`, with everything switched on at its beginning.
    pub fn new(seed: u64, injected_bug: InjectedBug, base: Instant, tally: &Arc<Tally>) -> World {
        let mut random = Prng::new(seed);
        let plan = Plan::new(&mut random);
        plan.link_rates.iter().for_each(|_| tally.count(Fault::LinkRate));
        let node = |number: usize| {
            let mut random = random.fork("node", number as u64);
            let drift = i64::try_from(random.below(401)).expect("small") - 200;
            if drift != 0 {
                tally.count(Fault::ClockDrift);
            }
            let clock = Clock::new(base, drift, 1_750_000_000_000);
            let mut node = Node::new(number, clock, injected_bug, random, tally);
            if plan.mixed_latest.contains(&number) {
                node.make_latest(odd::MIXED);
            }
            node
        };
        let nodes: Vec<Node> = (0..plan.nodes).map(node).collect();
        let net = Net::new(plan.nodes + 1, random.fork("net", 0), tally);
        let mut world = World {
            queue: Queue::default(),
            clients: nodes.iter().map(|_| Clients::default()).collect(),
            callers: nodes.iter().map(|_| CallerAt::default()).collect(),
            watchers: nodes.iter().map(|_| Watcher::default()).collect(),
            agents: nodes.iter().map(|_| AgentAt::default()).collect(),
            errands: Errands::default(),
            begun: Begun::default(),
            connections: AGENT,
            linked: (0..2 * nodes.len()).map(|number| Linked::new(number, number % nodes.len())).collect(),
            nodes,
            net,
            keys: workload::keys(plan.ids).into_iter().chain([load::hot_key(), odd::long_key()]).collect(),
            core: (0..plan.nodes).collect(),
            stopped: BTreeMap::new(),
            large: None,
            plan,
            promises: Promises::default(),
            trouble: Trouble::default(),
            relay: RelayAt::new(Clock::new(base, 0, 0)),
            tally: Arc::clone(tally),
            healing: false,
            marks: 0,
            steps: 0,
            channels: BTreeMap::new(),
            trace: 0xcbf2_9ce4_8422_2325,
            random,
        };
        for node in 0..world.nodes.len() {
            let delay = Duration::from_millis(world.random.below(300));
            world.queue.after(delay, Event::Start { node });
            world.queue.after(delay, Event::Watch { node });
            world.queue.after(delay, Event::Look { node });
        }
        for agent in 0..world.linked.len() {
            world.queue.after(Duration::from_millis(500), Event::Beat { agent });
        }
        world.start_relay();
        world.queue.after(Duration::from_secs(1), Event::Client);
        world.queue.after(Duration::from_secs(2), Event::Trouble);
        world.plan_load();
        world
    }

    pub fn time(&self) -> Time {
        self.queue.now()
    }

    /// Returns a digest of everything that was sent: time, sender, receiver and length.
    pub fn trace(&self) -> u64 {
        self.trace
    }

    pub fn steps(&self) -> u64 {
        self.steps
    }

    fn note(&mut self, number: u64) {
        self.trace = (self.trace ^ number).wrapping_mul(0x0000_0100_0000_01b3);
    }

    /// Processes all events until `time`.
    pub fn run_until(&mut self, time: Time) -> Result<(), Violation> {
        while self.queue.next().is_some_and(|next| next <= time) {
            self.step()?;
        }
        Ok(())
    }

    /// Advances to `time`; no events are due before it.
    pub fn idle_until(&mut self, time: Time) {
        self.queue.idle_until(time);
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.steps += 1;
        if self.steps > STEPS {
            return Err(Violation::new("steps", format!("{STEPS} events by {:?}", self.time())));
        }
        let Some(event) = self.queue.pop() else { return Ok(()) };
        let Some(event) = self.held_back(event) else { return Ok(()) };
        match event {
            Event::Arrives { to, from, data } if to == self.plan.relay() => {
                self.relay(from, &data);
                Ok(())
            }
            Event::Arrives { to, from, data } => {
                let output = self.nodes[to].datagram(self.queue.now(), from, &data);
                self.put_out(to, output)
            }
            Event::Delivered { node, life, from, to, mail } => self.deliver(node, life, from, to, mail),
            Event::Due { node, life, role } => self.due(node, life, role),
            Event::Committed { node, life, mail } => self.committed(node, life, mail),
            Event::Start { node } => self.start(node),
            Event::StartRelay => {
                self.start_relay();
                Ok(())
            }
            Event::Client => self.client(),
            Event::Hurry { node } => self.hurry(node),
            Event::Watch { node } => self.watch(node),
            Event::Beat { agent } => self.beat(agent),
            Event::Look { node } => self.look(node),
            Event::Trouble => self.make_trouble(),
            Event::Hot { node, edits, pause_micros } => self.heat(node, edits, pause_micros),
            Event::Stop => {
                self.stop_one();
                Ok(())
            }
            Event::Flap { one, other, left } => {
                self.flap(one, other, left);
                Ok(())
            }
        }
    }

    // Nodes.

    fn start(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].running.is_some() || !self.core.contains(&number) {
            return Ok(());
        }
        let config = self.sync_config(number);
        let time = self.time();
        seeds::trace(|| format!("{time:?} node {number} starts"));
        if self.nodes[number].start(time, config, &self.keys)? {
            let now = self.nodes[number].clock.at(time);
            let output = self.nodes[number].drain(now);
            if self.random.chance(300) {
                for _ in 0..self.random.between(1, 30) {
                    let delay = Duration::from_millis(self.random.below(HURRY_MS));
                    self.queue.after(delay, Event::Hurry { node: number });
                }
            }
            self.put_out(number, output)
        } else {
            self.queue.after(Duration::from_secs(1), Event::Start { node: number });
            Ok(())
        }
    }

    fn sync_config(&self, number: usize) -> SyncConfig {
        let mut peers: BTreeMap<usize, PeerSpec> = BTreeMap::new();
        for (from, to) in &self.plan.edges {
            if *from == number {
                let addresses = self.plan.addresses_of(number, *to);
                peers.insert(*to, PeerSpec { id: self.nodes[*to].id(), addresses });
            } else if *to == number {
                // A peer that is dialled through a relay has an allocation there as well.
                let through = self.plan.ways(*from, *to) != Ways::Direct;
                let addresses = if through { vec![self.plan.relay_address()] } else { Vec::new() };
                if through || self.plan.admission == Admission::Pinned {
                    peers.entry(*from).or_insert_with(|| PeerSpec { id: self.nodes[*from].id(), addresses });
                }
            }
        }
        let key = (self.plan.admission == Admission::Formation).then(|| vec![7; limits::FORMATION_KEY_BYTES]);
        SyncConfig {
            relay_key: Some(relay::key()),
            is_relay: false,
            node_id: format!("node{number}"),
            app_id: "sim".into(),
            formation_key: key.map(|key| FormationKey::new(key).expect("long enough")),
            peers: peers.into_values().collect(),
            latest_collections: self.nodes[number].latest_collections(),
            active: true,
            persist_sync: false,
            link_rates: LinkRates { all: self.plan.link_rates.get(&number).copied(), ..LinkRates::default() },
        }
    }

    /// Handles that a node is off; it will be switched on again.
    pub fn went_off(&mut self, number: usize) {
        self.stopped.remove(&number);
        self.clients[number].hang_up();
        self.callers[number].cut_off();
        self.watchers[number].cut_off();
        self.agents[number].cut_off();
        self.linked.iter_mut().filter(|agent| agent.node == number).for_each(Linked::cut_off);
        self.channels.retain(|(node, _, _), _| *node != number);
        let delay = Duration::from_millis(self.random.between(50, 4_000));
        let time = self.time();
        seeds::trace(|| format!("{time:?} node {number} is off"));
        self.queue.after(delay, Event::Start { node: number });
    }

    /// Schedules a node's output and its deadlines.
    pub fn put_out(&mut self, number: usize, output: Output) -> Result<(), Violation> {
        if self.nodes[number].silent && !output.datagrams.is_empty() {
            return Err(Violation::new(
                "radio silence",
                format!("node {number} sent {} datagrams", output.datagrams.len()),
            ));
        }
        for (to, data) in output.datagrams {
            self.transmit(number, to, &data);
        }
        for (from, to, mail) in output.mail {
            self.post(number, from, to, mail)?;
        }
        if !self.nodes[number].is_powered() {
            self.nodes[number].power_failed();
            self.went_off(number);
        }
        self.arm(number);
        Ok(())
    }

    pub fn transmit(&mut self, from: usize, to: SocketAddr, data: &[u8]) {
        let time = self.time();
        self.note(u64::try_from(time.as_nanos()).expect("short"));
        self.note(((from as u64) << 32) | data.len() as u64);
        let Some(target) = self.net.listener(to) else { return };
        self.note(target as u64);
        for arrival in self.net.send(time, from, target, data.len()) {
            let event = Event::Arrives { to: target, from: self.net.place(from), data: data.to_vec() };
            self.queue.schedule(arrival, event);
        }
    }

    /// Returns a number that no write has used.
    pub fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    /// Sends a message to another thread of the node; a channel preserves order.
    pub fn post(&mut self, node: usize, from: Role, to: Role, mail: Mail) -> Result<(), Violation> {
        let stalls = self.random.chance(10);
        let delay = Duration::from_micros(if stalls { self.random.below(50_000) } else { self.random.below(300) });
        let now = self.queue.now();
        let (latest, waiting) = self.channels.entry((node, from, to)).or_default();
        *latest = (now + delay).max(*latest);
        *waiting += 1;
        let bound = match (from, to) {
            (Role::Sync, Role::Store) => SYNC_QUEUE,
            (Role::Api, Role::Store) => limits::STORE_QUEUE,
            _ => usize::MAX,
        };
        if *waiting > bound {
            return Err(Violation::new(
                "bounds",
                format!("{waiting} messages from {from:?} to {to:?}, {bound} at most"),
            ));
        }
        let life = self.nodes[node].life;
        self.queue.schedule(*latest, Event::Delivered { node, life, from, to, mail });
        Ok(())
    }

    fn arm(&mut self, number: usize) {
        let (time, life) = (self.time(), self.nodes[number].life);
        for (role, due) in self.nodes[number].deadlines(time) {
            let Some(running) = &mut self.nodes[number].running else { return };
            // A thread that continues immediately still takes some time.
            let due = due.max(time + Duration::from_micros(20));
            if running.armed.get(&role).is_none_or(|armed| *armed > due || *armed <= time) {
                running.armed.insert(role, due);
                self.queue.schedule(due, Event::Due { node: number, life, role });
            }
        }
    }

    fn due(&mut self, number: usize, life: u64, role: Role) -> Result<(), Violation> {
        let time = self.time();
        let node = &mut self.nodes[number];
        if node.life != life || node.running.as_mut().is_none_or(|running| running.armed.get(&role) != Some(&time)) {
            return Ok(());
        }
        if role == Role::Store {
            let commit = node.flush(time, &self.keys, &mut self.promises)?;
            return self.begin(number, commit);
        }
        let output = if role == Role::Api { node.wake_api(time) } else { node.wake_sync(time) };
        self.put_out(number, output)
    }

    fn deliver(&mut self, number: usize, life: u64, from: Role, to: Role, mail: Mail) -> Result<(), Violation> {
        if self.nodes[number].life != life {
            return Ok(());
        }
        if let Some((_, waiting)) = self.channels.get_mut(&(number, from, to)) {
            *waiting -= 1;
        }
        match (to, mail) {
            (Role::Api, Mail::Reply(reply)) if is_direct_reply(&reply) => {
                self.clients[number].reply(reply, self.nodes[number].was_troubled)
            }
            (Role::Api, Mail::Event(event)) if is_direct_event(&event) => {
                let learned = self.clients[number].event(event, self.nodes[number].was_troubled)?;
                if learned == Learned::FellSilent {
                    self.nodes[number].fell_silent();
                }
                Ok(())
            }
            (Role::Resolver, Mail::Resolve(name)) => self.resolve(number, name),
            (to, mail) => {
                if let Mail::Event(SyncEvent::Notices(notices)) = &mail {
                    self.nodes[number].notices.clone_from(notices);
                }
                let output = self.nodes[number].receive(self.queue.now(), to, mail);
                self.put_out(number, output)?;
                self.try_commit(number)
            }
        }
    }

    fn resolve(&mut self, number: usize, name: String) -> Result<(), Violation> {
        if self.nodes[number].silent {
            return Err(Violation::new("radio silence", format!("node {number} looks up {name}")));
        }
        let target =
            name.strip_prefix("node").and_then(|rest| rest.split('.').next()).and_then(|text| text.parse().ok());
        let address =
            target.map(|target: usize| self.net.place(target)).filter(|_| self.healing || !self.random.chance(300));
        if address.is_none() {
            self.tally.count(Fault::LookupFailed);
        }
        let slow = !self.healing && self.random.chance(200);
        if slow {
            self.tally.count(Fault::LookupSlow);
        }
        let delay = Duration::from_millis(if slow { self.random.below(5_000) } else { self.random.below(50) });
        let result = address.map(|address| vec![address]).ok_or_else(|| "no such name".to_owned());
        let life = self.nodes[number].life;
        let mail = Mail::Resolved(name, result);
        self.channels.entry((number, Role::Resolver, Role::Sync)).or_default().1 += 1;
        self.queue.after(delay, Event::Delivered { node: number, life, from: Role::Resolver, to: Role::Sync, mail });
        Ok(())
    }

    // Commits.

    fn try_commit(&mut self, number: usize) -> Result<(), Violation> {
        let time = self.time();
        let commit = self.nodes[number].begin_commit(time, &self.keys, &mut self.promises)?;
        self.begin(number, commit)
    }

    fn begin(&mut self, number: usize, commit: Commit) -> Result<(), Violation> {
        match commit {
            Commit::Nothing => {}
            Commit::Failed => self.went_off(number),
            Commit::Takes(busy, mail) => {
                let life = self.nodes[number].life;
                self.queue.after(busy, Event::Committed { node: number, life, mail });
            }
        }
        self.arm(number);
        Ok(())
    }

    fn committed(&mut self, number: usize, life: u64, mail: Vec<(Role, Mail)>) -> Result<(), Violation> {
        if self.nodes[number].life != life {
            return Ok(());
        }
        self.nodes[number].committed();
        for (to, mail) in mail {
            self.post(number, Role::Store, to, mail)?;
        }
        self.try_commit(number)
    }

    // Clients.

    fn client(&mut self) -> Result<(), Violation> {
        if self.healing {
            return Ok(());
        }
        if self.plan.population > 0 {
            self.populate()?;
        }
        let number = self.random.index(self.nodes.len());
        for _ in 0..self.random.between(1, 4) {
            self.write(number)?;
        }
        self.write_odd(number)?;
        for _ in 0..self.random.below(4) {
            let number = self.random.index(self.nodes.len());
            self.command(number)?;
        }
        let pause = Duration::from_micros(self.random.between(100, 600_000));
        self.queue.after(pause, Event::Client);
        Ok(())
    }

    /// Writes to a node as soon as it has started, while it is still meeting its peers.
    fn hurry(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].running.is_none() {
            return Ok(());
        }
        self.tally.count(Fault::WrittenEarly);
        self.write(number)
    }

    /// Writes many documents at once, so that there is something to reconcile and to catch up with.
    fn populate(&mut self) -> Result<(), Violation> {
        let Some(number) = (0..self.nodes.len()).find(|number| self.nodes[*number].running.is_some()) else {
            return Ok(());
        };
        for count in 0..std::mem::take(&mut self.plan.population) {
            let collection = if count % 3 == 0 { "tracks" } else { "notes" };
            let key = Key::new(collection, format!("p{count}")).expect("a valid key");
            self.marks += 1;
            let document = workload::document(&mut self.random, self.marks);
            let json = serde_json::Value::Object(document).to_string();
            let put = peat_node::store::Put::Whole { json, base: None };
            let mail = self.clients[number].write(key, put, false);
            self.post(number, Role::Api, Role::Store, mail)?;
        }
        Ok(())
    }

    /// Performs one random write on a node, if it is on: over the native IPC, or directly on the engines for operations that it
    /// lacks.
    pub fn write(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].running.is_none() || self.is_stopped(number) {
            return Ok(());
        }
        self.marks += 1;
        let key = workload::key(&mut self.random, self.plan.ids);
        let put = workload::put(&mut self.random, &key, self.marks, None);
        let (durable, waits) = (self.random.chance(300), self.random.chance(100));
        if self.random.chance(400) {
            let mail = self.clients[number].write(key, put, durable);
            return self.post(number, Role::Api, Role::Store, mail);
        }
        let now = self.now(number);
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        self.callers[number].write(&mut running.api, now, CALLER, DocumentWrite { key, put, durable }, waits);
        self.talk(number)
    }

    /// Performs one random operation on commands at a node.
    fn command(&mut self, number: usize) -> Result<(), Violation> {
        if self.is_stopped(number) {
            return Ok(());
        }
        let (now, nodes) = (self.now(number), self.nodes.len());
        let node = &mut self.nodes[number];
        let sound = !node.was_troubled;
        let Some(running) = &mut node.running else { return Ok(()) };
        let snapshot = running.reader.snapshot().ok().filter(|_| sound);
        let agent = &mut self.agents[number];
        if let Some(snapshot) = &snapshot {
            agent.look(snapshot)?;
        }
        let at = (now, AGENT, number);
        agent.act(&mut running.api, at, snapshot.as_ref(), &mut self.random, &mut self.errands, nodes)?;
        self.talk(number)
    }

    /// Passes bytes between the callers of a node and its api engine.
    fn talk(&mut self, number: usize) -> Result<(), Violation> {
        let now = self.now(number);
        let node = &mut self.nodes[number];
        let troubled = node.was_troubled;
        let Some(running) = &mut node.running else { return Ok(()) };
        let held = self.callers[number].turn(&mut running.api, now, &mut self.random, troubled)?;
        let state = (troubled, self.trouble.had_disaster());
        self.agents[number].turn(&mut running.api, now, &mut self.random, &mut self.errands, state)?;
        for held in held {
            self.is_held_elsewhere(number, &held)?;
        }
        let output = self.nodes[number].drain(now);
        self.put_out(number, output)
    }

    /// Checks that some peer holds a write that was reported as held by a peer. A node that is off may be the one.
    fn is_held_elsewhere(&self, number: usize, held: &Held) -> Result<(), Violation> {
        if self.trouble.had_disaster() {
            return Ok(());
        }
        let others = self.nodes.iter().filter(|node| node.number != number);
        let holds = |node: &Node| node.running.as_ref().is_none_or(|running| holds(running, held).unwrap_or(true));
        if others.into_iter().any(holds) {
            return Ok(());
        }
        Err(Violation::new("wait_peers", format!("no peer of node {number} holds {held:?}")))
    }

    /// Lets subscribers read what is available; some disconnect.
    fn watch(&mut self, number: usize) -> Result<(), Violation> {
        let pause = Duration::from_millis(self.random.between(5, 400));
        self.queue.after(pause, Event::Watch { node: number });
        let most = if self.healing { WHOLE } else { self.random.index(4_000) };
        let leaves = !self.healing && self.random.chance(50);
        self.turn_watcher(number, most, leaves)?;
        self.talk(number)
    }

    fn turn_watcher(&mut self, number: usize, most: usize, leaves: bool) -> Result<(), Violation> {
        self.connections += 1;
        let now = self.now(number);
        let Some(running) = &mut self.nodes[number].running else { return Ok(()) };
        bounds::peers(&running.sync)?;
        let watcher = &mut self.watchers[number];
        if leaves {
            self.tally.count(Fault::Hangup);
            watcher.hang_up(&mut running.api, now);
        } else {
            watcher.turn(&mut running.api, now, self.connections, &mut self.random, most)?;
        }
        Ok(())
    }

    // Agents on streams.

    /// Runs one turn of an agent, which moves to another node now and then.
    fn beat(&mut self, number: usize) -> Result<(), Violation> {
        let pause = Duration::from_millis(self.random.between(100, 900));
        self.queue.after(pause, Event::Beat { agent: number });
        if self.is_stopped(self.linked[number].node) {
            return Ok(());
        }
        let moves = if self.healing { !self.core.contains(&self.linked[number].node) } else { self.random.chance(10) };
        if moves {
            self.leave(number)?;
        }
        let node = self.linked[number].node;
        if self.is_stopped(node) {
            // The agent has just moved there.
            return Ok(());
        }
        self.connections += 1;
        let (now, time, healing) = (self.now(node), self.time(), self.healing);
        let Some(running) = &mut self.nodes[node].running else { return Ok(()) };
        let World { linked, random, begun, tally, .. } = self;
        let mut around = Around { random, begun, tally, well: healing };
        linked[number].turn(&mut running.api, (now, time), self.connections, &mut around)?;
        let output = self.nodes[node].drain(now);
        self.put_out(node, output)
    }

    fn leave(&mut self, number: usize) -> Result<(), Violation> {
        if self.linked[number].is_at_work() {
            self.tally.count(Fault::AgentMoved);
        }
        let node = self.linked[number].node;
        let now = self.now(node);
        if let Some(running) = &mut self.nodes[node].running {
            self.linked[number].hang_up(&mut running.api, now);
            let output = self.nodes[node].drain(now);
            self.put_out(node, output)?;
        }
        self.linked[number].cut_off();
        let nodes: Vec<usize> = self.core.iter().copied().collect();
        self.linked[number].node = *self.random.pick(&nodes);
        Ok(())
    }

    /// Sends every agent a command from every node.
    pub fn send_to_everyone(&mut self) -> Result<(), Violation> {
        for node in self.core.clone() {
            let now = self.now(node);
            for (number, agent) in self.linked.iter().enumerate() {
                let Some(running) = &mut self.nodes[node].running else { continue };
                let ttl_s = if number % 2 == 0 { 30 } else { 0 };
                let id = format!("h{node}-{number}");
                self.agents[node].send(&mut running.api, now, AGENT, &agent.id, &id, ttl_s);
            }
            self.talk(node)?;
        }
        Ok(())
    }

    /// Checks that no agent is listed as LIVE after too long a silence.
    fn look(&mut self, node: usize) -> Result<(), Violation> {
        self.queue.after(Duration::from_millis(700), Event::Look { node });
        for shown in self.shown(node)? {
            links::check(&self.linked, node, &shown, self.queue.now())?;
        }
        Ok(())
    }

    /// Returns the agents that a node lists; empty while it is off.
    pub fn shown(&mut self, node: usize) -> Result<Vec<peat_ipc::sidecar::Agent>, Violation> {
        self.connections += 1;
        let now = self.now(node);
        let Some(running) = &mut self.nodes[node].running else { return Ok(Vec::new()) };
        let shown = links::shown(&mut running.api, now, self.connections, &mut self.random);
        let output = self.nodes[node].drain(now);
        self.put_out(node, output)?;
        Ok(shown)
    }

    /// Returns the node's current clocks.
    pub fn now(&self, number: usize) -> Now {
        self.nodes[number].clock.at(self.queue.now())
    }
}

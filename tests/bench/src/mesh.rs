//! Whole nodes in one process under virtual time: the production engines, counting disks, and a network without loss.
//!
//! Commits and messages between threads take no time, a datagram takes [`DELAY`]. `tests/sim` injects faults; this mesh runs
//! for hours without them and counts the cost. `node.rs` is one node, `disk.rs` its disk.

pub(crate) mod disk;
mod node;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::prost::bytes::BytesMut;
use peat_node::clock::Now;
use peat_node::fleet;

use self::node::Node;
use crate::agents::Beat;

/// Transit time of a datagram.
const DELAY: Duration = Duration::from_micros(300);
/// Time that a thread takes before it continues.
const TURN: Duration = Duration::from_micros(20);
const PORT: u16 = 4242;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// UDP payload of all datagrams, in bytes.
    pub(crate) datagram_bytes: u64,
    pub(crate) datagrams: u64,
    /// Presence messages with new information that nodes received from peers.
    pub(crate) presences: u64,
    /// Bytes written to disks.
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

/// A ring of nodes with equally many agents each.
pub(crate) struct Mesh {
    base: Instant,
    time: Duration,
    nodes: Vec<Node>,
    /// Datagrams in transit, by arrival time.
    flying: BTreeMap<(Duration, u64), (usize, SocketAddr, Vec<u8>)>,
    agents: usize,
    beat: Beat,
    next_beat: usize,
    /// Time of the next heartbeat; `None` before all agents are registered.
    beat_at: Option<Duration>,
    counted: Counted,
}

impl Mesh {
    /// Starts all nodes at time zero and registers their agents, one node after the other within a heartbeat interval, so that
    /// the nodes do not send in step later.
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

    /// Runs for `duration`, with one heartbeat per agent and interval, spread evenly.
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

    /// Returns the number of agents that each node lists as LIVE.
    pub(crate) fn live(&mut self) -> Result<Vec<usize>, Failure> {
        let now = self.now();
        self.nodes.iter_mut().map(|node| node.live(now)).collect()
    }

    /// Returns the number of unanswered heartbeats.
    pub(crate) fn unanswered(&self) -> u64 {
        self.nodes.iter().map(Node::unanswered).sum()
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.base + self.time, wall_ms: 1_750_000_000_000 + millis as i64, boot_ms: millis }
    }

    /// Returns the counters since the start.
    pub(crate) fn counted(&self) -> Counted {
        let disk_bytes = self.nodes.iter().map(|node| node.written()).sum();
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
        self.nodes[node].beat(agent, self.beat);
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

    /// Carries out the output of a node's engines until there is none left.
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

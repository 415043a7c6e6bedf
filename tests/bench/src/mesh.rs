//! Whole nodes in one process under virtual time: the shipped engines, disks that count, a network that loses nothing.
//!
//! Commits and hand-offs between threads take no time, a datagram takes [`DELAY`]. `tests/sim` is where things go wrong;
//! here they go on for hours, and what they cost is counted. `node.rs` is one node, `disk.rs` its disk.

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

/// How long a datagram takes.
const DELAY: Duration = Duration::from_micros(300);
/// A thread that wants to go on at once still takes some time.
const TURN: Duration = Duration::from_micros(20);
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
    /// All nodes started at time zero, their agents registered one node after the other within a heartbeat interval, so
    /// that nodes do not speak all at once later.
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
        self.nodes.iter().map(Node::unanswered).sum()
    }

    fn now(&self) -> Now {
        let millis = u64::try_from(self.time.as_millis()).unwrap_or(u64::MAX);
        Now { mono: self.base + self.time, wall_ms: 1_750_000_000_000 + millis as i64, boot_ms: millis }
    }

    /// Everything since the start.
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

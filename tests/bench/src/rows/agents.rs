//! Heartbeats of agents on their streams: nothing is stored, so no heartbeat waits for a disk.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use bench_peers::Failure;

use crate::agents::{Agents, Beat};
use crate::bench::Bench;
use crate::node::Node;
use crate::row::Row;
use crate::sample::{median, percentile};
use crate::table::{Figure, Line, Target};

const AGENTS: usize = 1_000;
const ON_ONE_CONNECTION: usize = 20;
/// Number of connections with heartbeats in flight: 200 of the thousand agents.
const WIDTH: usize = 10;
/// Number of heartbeats per agent and round.
const BEATS: usize = 100;
const ROUNDS: usize = 9;
const READ_BYTES: usize = 64 << 10;

/// Streams of a thousand agents on one node, with heartbeats as fast as it answers.
pub(crate) struct Streams;

impl Row for Streams {
    fn name(&self) -> &'static str {
        "agent-streams"
    }

    fn about(&self) -> &'static str {
        "heartbeats of 1,000 agents on their streams"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "agent-streams")?;
        node.start()?;
        let firsts = (0..AGENTS).step_by(ON_ONE_CONNECTION);
        let mut connections = firsts.map(|first| Connection::open(&node, first)).collect::<Result<Vec<_>, _>>()?;
        let beats = bench.times(BEATS);
        round(&mut connections, beats, &mut Vec::new())?;
        let (mut rates, mut took) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.push(round(&mut connections, beats, &mut took)?);
        }
        Ok(lines(median(&rates), percentile(&took, 99)))
    }
}

fn lines(rate: f64, p99: f64) -> Vec<Line> {
    let most = Target::AtMost(Figure::Seconds(0.020));
    vec![
        Line::absolute(
            "heartbeats on 1,000 agent streams",
            Figure::PerSecond(rate),
            Target::AtLeast(Figure::PerSecond(50_000.0)),
        ),
        Line::absolute("heartbeats on 1,000 agent streams, p99", Figure::Seconds(p99), most),
    ]
}

/// Sends `beats` heartbeats per agent and returns the rate per second. Appends to `took` the seconds for the twenty agents of
/// each connection.
fn round(connections: &mut [Connection], beats: usize, took: &mut Vec<f64>) -> Result<f64, Failure> {
    let begun = Instant::now();
    let turns = beats * connections.len();
    for turn in 0..turns + WIDTH {
        if turn >= WIDTH {
            let oldest = (turn - WIDTH) % connections.len();
            took.push(connections[oldest].hear()?);
        }
        if turn < turns {
            let next = turn % connections.len();
            connections[next].beat()?;
        }
    }
    Ok((beats * AGENTS) as f64 / begun.elapsed().as_secs_f64())
}

struct Connection {
    socket: UnixStream,
    agents: Agents,
    beat_at: Instant,
    scratch: Vec<u8>,
}

impl Connection {
    /// Connects and registers twenty agents.
    fn open(node: &Node, first: usize) -> Result<Connection, Failure> {
        let socket = UnixStream::connect(node.socket())?;
        let agents = Agents::new(first, ON_ONE_CONNECTION);
        let mut connection = Connection { socket, agents, beat_at: Instant::now(), scratch: vec![0; READ_BYTES] };
        connection.write()?;
        while !connection.agents.are_registered() {
            connection.read()?;
        }
        Ok(connection)
    }

    /// Sends one heartbeat per agent.
    fn beat(&mut self) -> Result<(), Failure> {
        (0..ON_ONE_CONNECTION).for_each(|stream| self.agents.beat(stream, Beat::Bare));
        self.beat_at = Instant::now();
        self.write()
    }

    /// Waits until all are answered; returns the latency of the last one in seconds.
    fn hear(&mut self) -> Result<f64, Failure> {
        while self.agents.unanswered() > 0 {
            self.read()?;
        }
        Ok(self.beat_at.elapsed().as_secs_f64())
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.socket.write_all(&self.agents.out)?;
        self.agents.out.clear();
        Ok(())
    }

    fn read(&mut self) -> Result<(), Failure> {
        match self.socket.read(&mut self.scratch)? {
            0 => Err("the node closed an agent's connection".into()),
            count => self.agents.take(&self.scratch[..count]),
        }
    }
}

//! GetStatus over the unix socket, beside a bare echo of the same bytes, tonic and ttrpc.

use bench_peers::{Caller, Failure, Peer};
use peat_ipc::sidecar::GetStatusRequest;

use crate::bench::Bench;
use crate::native::Native;
use crate::node::Node;
use crate::process::OneProcessor;
use crate::row::Row;
use crate::sample::{Contender, Rounds, compete, latency, rate};
use crate::served::Served;
use crate::table::{Figure, Line, Target};

const PEERS: [Peer; 3] = [Peer::Echo, Peer::Ttrpc, Peer::Tonic];
const IN_FLIGHT: usize = 32;

/// A running node and all peers, each with one connection. The node's is the first.
struct Field {
    callers: Vec<Box<dyn Caller>>,
    _node: Node,
    _peers: Vec<Served>,
}

impl Field {
    fn new(bench: &Bench) -> Result<Field, Failure> {
        let mut node = Node::new(bench, "calls")?;
        let mut native = Native::new(node.start()?, GetStatusRequest {});
        let sizes = native.sizes()?;
        let peers = PEERS.into_iter().map(|peer| Served::start(bench, peer, sizes)).collect::<Result<Vec<_>, _>>()?;
        let mut callers: Vec<Box<dyn Caller>> = vec![Box::new(native)];
        for peer in &peers {
            callers.push(peer.caller()?);
        }
        Ok(Field { callers, _node: node, _peers: peers })
    }

    /// Measures the node, echo, ttrpc and tonic.
    fn compete(
        &mut self,
        rounds: usize,
        one: impl Fn(&mut dyn Caller) -> Result<f64, Failure> + Copy,
    ) -> Result<[Rounds; 4], Failure> {
        let mut contenders: Vec<Contender<'_>> = Vec::new();
        for caller in &mut self.callers {
            contenders.push(Box::new(move || one(caller.as_mut())));
        }
        compete(rounds, &mut contenders)?.try_into().map_err(|_| "four were measured".into())
    }
}

/// Latency with one call at a time.
pub(crate) struct Latency;

impl Row for Latency {
    fn name(&self) -> &'static str {
        "status"
    }

    fn about(&self) -> &'static str {
        "GetStatus, one client, one call at a time"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let _one = OneProcessor::begin()?;
        let calls = bench.times(3_000);
        let [ours, echo, ttrpc, tonic] = Field::new(bench)?.compete(15, |caller| latency(caller, calls))?;
        let line = |name, with: &Rounds, ratio, target| {
            let figure = Figure::Seconds(ours.figure());
            Line::relative("GetStatus, p50", figure, (name, Figure::Seconds(with.figure())), ratio, target)
        };
        Ok(vec![
            line("echo", &echo, ours.over(&echo), Target::at_most_times(1.6)),
            line("ttrpc", &ttrpc, ours.over(&ttrpc), Target::at_most_times(1.0)),
            line("tonic", &tonic, tonic.over(&ours), Target::at_least_times(3.0)),
        ])
    }
}

/// Rate with many calls in flight on one connection.
pub(crate) struct Rate;

impl Row for Rate {
    fn name(&self) -> &'static str {
        "in-flight"
    }

    fn about(&self) -> &'static str {
        "GetStatus, one connection, 32 calls in flight"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let calls = bench.times(30_000);
        let [ours, _, ttrpc, tonic] = Field::new(bench)?.compete(9, |caller| rate(caller, calls, IN_FLIGHT))?;
        let line = |name, with: &Rounds, target| {
            let figure = Figure::PerSecond(ours.figure());
            let with_figure = Figure::PerSecond(with.figure());
            Line::relative("GetStatus, 32 in flight", figure, (name, with_figure), ours.over(with), target)
        };
        Ok(vec![line("tonic", &tonic, Target::at_least_times(8.0)), line("ttrpc", &ttrpc, Target::at_least_times(2.0))])
    }
}

//! Network traffic of a fleet while nothing changes.

use std::time::Duration;

use bench_peers::Failure;
use peat_node::mesh::Presence;
use peat_node::mesh::message::Body;
use peat_node::sync::frame;

use crate::agents::Beat;
use crate::bench::Bench;
use crate::mesh::{Counted, Mesh};
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const NODES: usize = 20;
const AGENTS_EACH: usize = 25;
/// Time for everything to be replicated, acknowledged and flushed.
const SETTLE: Duration = Duration::from_secs(180);

/// Five hundred agents at twenty nodes in a ring, with a heartbeat every 30 s.
pub(crate) struct Quiet;

impl Row for Quiet {
    fn name(&self) -> &'static str {
        "fleet"
    }

    fn about(&self) -> &'static str {
        "a fleet of 500 agents over 20 nodes in which nothing changes"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut mesh = Mesh::new(NODES, AGENTS_EACH, Beat::WithState)?;
        mesh.run(SETTLE)?;
        let window = Duration::from_secs(60) * u32::try_from(bench.times(10))?;
        let counted = mesh.run(window)?;
        if mesh.live()? != [NODES * AGENTS_EACH; NODES] {
            return Err(format!("nodes show {:?} agents LIVE", mesh.live()?).into());
        }
        Ok(lines(counted, window))
    }
}

fn lines(counted: Counted, window: Duration) -> Vec<Line> {
    let rate = |bytes: u64| bytes as f64 / window.as_secs_f64() / NODES as f64;
    let (all, itself) = (rate(counted.datagram_bytes), rate(counted.presences * presence_bytes()));
    vec![
        Line::relative(
            "fleet of 500 agents, nothing changes: bytes a second and node",
            Figure::Bytes(all),
            ("presence itself", Figure::Bytes(itself)),
            all / itself,
            Target::at_most_times(20.0),
        )
        .strict(),
        Line::absolute(
            "fleet of 500 agents, nothing changes: bytes stored",
            Figure::Bytes(counted.disk_bytes as f64),
            Target::AtMost(Figure::Bytes(0.0)),
        )
        .beside(format!("{} heartbeats", counted.beats))
        .strict(),
    ]
}

/// Returns the size of a presence message on a lane, including its length prefix.
fn presence_bytes() -> u64 {
    let presence = Presence { node: vec![1; 32].into(), run: vec![1; 16].into(), counter: 1 };
    let mut bytes = Vec::new();
    frame::encode(Body::Presence(presence), &mut bytes);
    bytes.len() as u64
}

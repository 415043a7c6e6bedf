//! Disk writes caused by unchanged heartbeats: an hour of a thousand agents, in virtual time.

use std::time::Duration;

use bench_peers::Failure;

use crate::agents::Beat;
use crate::bench::Bench;
use crate::mesh::Mesh;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const AGENTS: usize = 1_000;
/// Time for the registrations and first states to be stored.
const SETTLE: Duration = Duration::from_secs(180);

/// Heartbeats with an agent state that never changes.
pub(crate) struct Unchanged;

impl Row for Unchanged {
    fn name(&self) -> &'static str {
        "unchanged-beats"
    }

    fn about(&self) -> &'static str {
        "bytes on disk of an hour of unchanged heartbeats, 1,000 agents"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut mesh = Mesh::new(1, AGENTS, Beat::WithState)?;
        mesh.run(SETTLE)?;
        let registering = mesh.counted().disk_bytes;
        let minutes = bench.times(60);
        let hour = mesh.run(Duration::from_secs(60) * u32::try_from(minutes)?)?;
        if mesh.live()? != [AGENTS] || mesh.unanswered() > 0 {
            return Err("an agent that beats is not LIVE, or was not answered".into());
        }
        let line = Line::absolute(
            "disk bytes of an unchanged heartbeat, 1,000 agents, one hour",
            Figure::Bytes(hour.disk_bytes as f64 / hour.beats as f64),
            Target::AtMost(Figure::Bytes(16.0)),
        );
        let registering = Figure::Bytes(registering as f64);
        Ok(vec![line.beside(format!("{} heartbeats; registering wrote {registering}", hour.beats)).strict()])
    }
}

//! Telemetry: a thousand agents report repeatedly, and neither memory nor disk use may grow.

use std::fs;
use std::os::unix::fs::MetadataExt;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::database::stored;
use crate::documents::{LATEST, load, pipeline, put};
use crate::node::Node;
use crate::process::memory;
use crate::row::Row;
use crate::sample::timed;
use crate::table::{Figure, Line, Target};

const AGENTS: usize = 1_000;
/// Number of reports after which the allocator and the page cache have reached their size.
const WARM: usize = 100_000;

/// A million heartbeats written to a `latest` collection, pipelined on one connection.
pub(crate) struct Heartbeats;

impl Row for Heartbeats {
    fn name(&self) -> &'static str {
        "heartbeats"
    }

    fn about(&self) -> &'static str {
        "1,000,000 heartbeats from 1,000 agents"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "heartbeats")?;
        let mut client = node.start()?;
        let warm = bench.times(WARM);
        let all = bench.times(1_000_000);
        let beats = |from: usize, to: usize| (from..to).map(|beat| put(LATEST, beat % AGENTS, beat / AGENTS, false));
        load(&mut client, LATEST, 0..AGENTS, 0)?;
        pipeline(&mut client, beats(0, warm))?;
        let before = memory(&node.proc())?.resident;
        let seconds = timed(|| pipeline(&mut client, beats(warm, all)))?;
        load(&mut client, LATEST, 0..AGENTS, all)?;
        let after = memory(&node.proc())?.resident;
        drop(client);
        // Count allocated blocks: redb doubles the length of a small file long before it uses it.
        let file = (fs::metadata(node.data().join("documents.redb"))?.blocks() * 512) as f64;
        node.stop()?;
        let live = stored(&node.data())?.bytes as f64;
        Ok(lines((all - warm) as f64 / seconds, [before, after], file, live))
    }
}

fn lines(rate: f64, [before, after]: [f64; 2], file: f64, live: f64) -> Vec<Line> {
    vec![
        Line::absolute(
            "heartbeats, 1,000 agents, pipelined",
            Figure::PerSecond(rate),
            Target::AtLeast(Figure::PerSecond(50_000.0)),
        ),
        Line::relative(
            "heartbeats: file, as it occupies the disk",
            Figure::Bytes(file),
            ("live data", Figure::Bytes(live)),
            file / live,
            Target::at_most_times(3.0),
        )
        .strict(),
        Line::relative(
            "heartbeats: resident memory after the last tenth of them",
            Figure::Bytes(after),
            ("after the first tenth", Figure::Bytes(before)),
            after / before,
            Target::at_most_times(1.1),
        )
        .strict(),
    ]
}

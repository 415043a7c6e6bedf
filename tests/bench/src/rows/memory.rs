//! Memory use of a node.

use std::thread::sleep;
use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, load};
use crate::node::Node;
use crate::process::{Memory, memory};
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const MIB: f64 = 1_048_576.0;
/// Time from the last call to the reading, in which the pending flush completes.
const CALM: Duration = Duration::from_secs(3);

/// Memory when idle, and with a hundred thousand documents stored by the same process.
pub(crate) struct Resident;

impl Row for Resident {
    fn name(&self) -> &'static str {
        "memory"
    }

    fn about(&self) -> &'static str {
        "resident memory, idle and with 100,000 documents"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "memory")?;
        let mut client = node.start()?;
        let idle = settle(&node)?;
        let half = bench.times(100_000) / 2;
        load(&mut client, LATEST, 0..half, 0)?;
        load(&mut client, MERGED, 0..half, 0)?;
        let full = settle(&node)?;
        Ok(vec![line("resident memory, idle", idle, 10.0), line("resident memory, 100,000 documents", full, 48.0)])
    }
}

fn settle(node: &Node) -> Result<Memory, Failure> {
    sleep(CALM);
    memory(&node.proc())
}

fn line(what: &str, memory: Memory, mib: f64) -> Line {
    Line::absolute(what, Figure::Bytes(memory.resident), Target::AtMost(Figure::Bytes(mib * MIB)))
        .beside(format!("anonymous {}", Figure::Bytes(memory.anonymous)))
        .strict()
}

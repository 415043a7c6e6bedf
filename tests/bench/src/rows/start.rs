//! Time from a node's start to its first answer.

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, load};
use crate::node::Node;
use crate::row::Row;
use crate::sample::{median, timed};
use crate::table::{Figure, Line, Target};

const STARTS: usize = 5;

/// Start of an empty node, and with a hundred thousand documents after a stop and after a kill.
pub(crate) struct Start;

impl Row for Start {
    fn name(&self) -> &'static str {
        "start"
    }

    fn about(&self) -> &'static str {
        "from start to ready: empty, with 100,000 documents, and after kill -9"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut empty = Vec::new();
        for number in 0..STARTS {
            empty.push(started(&mut Node::new(bench, &format!("start-{number}"))?)?);
        }
        let mut node = Node::new(bench, "start-full")?;
        let mut client = node.start()?;
        let half = bench.times(100_000) / 2;
        load(&mut client, LATEST, 0..half, 0)?;
        load(&mut client, MERGED, 0..half, 0)?;
        let stopped = again(&mut node, Node::stop)?;
        let killed = again(&mut node, |node| {
            // Leave something unflushed at the kill.
            load(&mut node.client()?, LATEST, 0..half.min(1_000), 1)?;
            node.kill()
        })?;
        Ok(vec![
            line("start, empty", &empty, 0.2),
            line("start, 100,000 documents", &stopped, 1.0),
            line("start, 100,000 documents, after kill -9", &killed, 1.0),
        ])
    }
}

fn again(node: &mut Node, mut end: impl FnMut(&mut Node) -> Result<(), Failure>) -> Result<Vec<f64>, Failure> {
    let mut times = Vec::new();
    for _ in 0..STARTS {
        end(node)?;
        times.push(started(node)?);
    }
    Ok(times)
}

/// Returns the seconds until the node answers a call.
fn started(node: &mut Node) -> Result<f64, Failure> {
    timed(|| node.start())
}

fn line(what: &str, times: &[f64], most: f64) -> Line {
    Line::absolute(what, Figure::Seconds(median(times)), Target::AtMost(Figure::Seconds(most)))
}

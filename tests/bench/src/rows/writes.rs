//! Durable writes of one client, beside the disk's lower bound.

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, load, put};
use crate::floor::Appender;
use crate::node::Node;
use crate::row::Row;
use crate::sample::{compete, median_of, timed};
use crate::table::{Figure, Line, Target};

/// Number of documents written in turn.
const DOCUMENTS: usize = 64;

/// PutDocument with `durable` set.
pub(crate) struct Durable;

impl Row for Durable {
    fn name(&self) -> &'static str {
        "durable-put"
    }

    fn about(&self) -> &'static str {
        "durable PutDocument of 300 bytes, one client"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        Ok(vec![measure(bench, "latest", LATEST, 3.0)?, measure(bench, "merged", MERGED, 5.0)?])
    }
}

fn measure(bench: &Bench, kind: &str, collection: &str, times: f64) -> Result<Line, Failure> {
    let mut node = Node::new(bench, "durable-put")?;
    let mut client = node.start()?;
    load(&mut client, collection, 0..DOCUMENTS, 0)?;
    let mut appender = Appender::new(bench)?;
    let writes = bench.times(200);
    let mut edition = 0;
    let mut write = || {
        edition += 1;
        let request = put(collection, edition % DOCUMENTS, edition, true);
        timed(|| Ok(client.put_document(&request)?))
    };
    let rounds = compete(
        15,
        &mut [Box::new(|| median_of(writes, &mut write)), Box::new(|| median_of(writes, || appender.append()))],
    )?;
    Ok(Line::relative(
        format!("durable put, {kind}, p50"),
        Figure::Seconds(rounds[0].figure()),
        ("append + fdatasync", Figure::Seconds(rounds[1].figure())),
        rounds[0].over(&rounds[1]),
        Target::at_most_times(times),
    ))
}

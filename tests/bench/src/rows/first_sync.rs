//! First synchronisation of an empty node with one that holds a hundred thousand documents.

use std::time::Instant;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::database::stored;
use crate::documents::{LATEST, MERGED, load};
use crate::node::{Node, documents, id, wire_bytes};
use crate::row::Row;
use crate::table::{Figure, Line, Target};
use crate::wait::until;

/// Documents per second, and bytes transferred per byte stored.
pub(crate) struct FirstSync;

impl Row for FirstSync {
    fn name(&self) -> &'static str {
        "first-sync"
    }

    fn about(&self) -> &'static str {
        "first sync of 100,000 documents of 300 bytes"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut lines = measure(bench, "latest", LATEST, 50_000.0)?;
        lines.extend(measure(bench, "merged", MERGED, 10_000.0)?);
        Ok(lines)
    }
}

fn measure(bench: &Bench, kind: &str, collection: &str, per_second: f64) -> Result<Vec<Line>, Failure> {
    let count = bench.times(100_000);
    let mut a = Node::new(bench, "first-a")?;
    let mut holder = a.start()?;
    load(&mut holder, collection, 0..count, 0)?;
    let mut b = Node::new(bench, "first-b")?;
    b.dials(&id(&mut holder)?, &a.address());
    let begun = Instant::now();
    let mut receiver = b.start()?;
    until("all documents have come", || Ok(documents(&mut receiver)? == count as u64))?;
    let seconds = begun.elapsed().as_secs_f64();
    let wire = wire_bytes(&mut receiver)? as f64;
    a.stop()?;
    let stored = stored(&a.data())?.bytes as f64;
    Ok(vec![
        Line::absolute(
            format!("first sync of {count}, {kind}"),
            Figure::PerSecond(count as f64 / seconds),
            Target::AtLeast(Figure::PerSecond(per_second)),
        ),
        Line::relative(
            format!("first sync of {count}, {kind}, on the wire"),
            Figure::Bytes(wire),
            ("stored", Figure::Bytes(stored)),
            wire / stored,
            Target::at_most_times(1.3),
        )
        .strict(),
    ])
}

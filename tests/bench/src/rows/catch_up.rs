//! A node returns after an absence, during which a hundred of ten thousand documents have changed.

use std::time::Instant;

use bench_peers::Failure;
use peat_ipc::Client;

use crate::bench::Bench;
use crate::database::{Stored, stored};
use crate::documents::{LATEST, MERGED, get, json, load};
use crate::node::{Node, documents, id, settled, wire_bytes};
use crate::row::Row;
use crate::sample::median;
use crate::table::{Figure, Line, Target};
use crate::wait::until;

const CHANGED: usize = 100;

/// Time from the process's start to the last changed document.
pub(crate) struct CatchUp;

impl Row for CatchUp {
    fn name(&self) -> &'static str {
        "catch-up"
    }

    fn about(&self) -> &'static str {
        "100 of 10,000 documents changed while a node was down"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut lines = measure(bench, "latest", LATEST)?;
        lines.extend(measure(bench, "merged", MERGED)?);
        Ok(lines)
    }
}

fn measure(bench: &Bench, kind: &str, collection: &str) -> Result<Vec<Line>, Failure> {
    let count = bench.times(10_000);
    let mut a = Node::new(bench, "catch-up-a")?;
    let mut holder = a.start()?;
    load(&mut holder, collection, 0..count, 0)?;
    let mut b = Node::new(bench, "catch-up-b")?;
    b.dials(&id(&mut holder)?, &a.address());
    let mut receiver = b.start()?;
    until("all documents have come", || Ok(documents(&mut receiver)? == count as u64))?;
    let (mut seconds, mut wire) = (Vec::new(), Vec::new());
    for edition in 1..=5 {
        settled(&mut holder)?;
        b.stop()?;
        load(&mut holder, collection, 0..CHANGED, edition)?;
        let begun = Instant::now();
        let mut receiver = b.start()?;
        until("the changes have come", || has(&mut receiver, collection, CHANGED - 1, edition))?;
        until("every change has come", || {
            (0..CHANGED).try_fold(true, |all, number| Ok(all && has(&mut receiver, collection, number, edition)?))
        })?;
        seconds.push(begun.elapsed().as_secs_f64());
        wire.push(wire_bytes(&mut receiver)? as f64);
    }
    a.stop()?;
    Ok(lines(kind, median(&seconds), median(&wire), stored(&a.data())?))
}

fn has(client: &mut Client, collection: &str, number: usize, edition: usize) -> Result<bool, Failure> {
    Ok(client.get_document(&get(collection, number))?.json_data.is_some_and(|found| found == json(number, edition)))
}

fn lines(kind: &str, seconds: f64, wire: f64, stored: Stored) -> Vec<Line> {
    let changed = stored.bytes as f64 / stored.records as f64 * CHANGED as f64;
    vec![
        Line::absolute(
            format!("catch-up, 100 of {}, {kind}, from process start", stored.records),
            Figure::Seconds(seconds),
            Target::AtMost(Figure::Seconds(0.15)),
        ),
        Line::relative(
            format!("catch-up, 100 of {}, {kind}, on the wire", stored.records),
            Figure::Bytes(wire),
            ("changed, as stored", Figure::Bytes(changed)),
            wire / changed,
            Target::at_most_times(1.3),
        )
        .strict(),
    ]
}

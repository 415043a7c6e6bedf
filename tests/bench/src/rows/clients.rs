//! Durable writes of many concurrent clients, which should share syncs.

use std::collections::VecDeque;

use bench_peers::Failure;
use peat_ipc::sidecar::PutDocumentRequest;
use peat_ipc::{Client, Pending};

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, load, put};
use crate::node::Node;
use crate::row::Row;
use crate::sample::{compete, timed};
use crate::table::{Figure, Line, Target};

const CLIENTS: usize = 64;

/// Rate of 64 connections with one durable put in flight each, against one such connection.
pub(crate) struct Together;

impl Row for Together {
    fn name(&self) -> &'static str {
        "64-clients"
    }

    fn about(&self) -> &'static str {
        "durable PutDocument of 300 bytes, 64 clients at once"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        Ok(vec![measure(bench, "latest", LATEST, 4.0)?, measure(bench, "merged", MERGED, 2.0)?])
    }
}

fn measure(bench: &Bench, kind: &str, collection: &str, times: f64) -> Result<Line, Failure> {
    let mut node = Node::new(bench, "clients")?;
    let mut alone = vec![node.start()?];
    let mut many = (0..CLIENTS).map(|_| node.client()).collect::<Result<Vec<_>, _>>()?;
    let (few, lots) = (bench.times(300), bench.times(100));
    let (mut round, mut round_of_many) = (0, 1_000);
    let rounds = compete(
        9,
        &mut [
            Box::new(|| rate(&mut alone, collection, few, &mut round)),
            Box::new(|| rate(&mut many, collection, lots, &mut round_of_many)),
        ],
    )?;
    Ok(Line::relative(
        format!("durable puts, {kind}, 64 clients"),
        Figure::PerSecond(rounds[1].figure()),
        ("one client", Figure::PerSecond(rounds[0].figure())),
        rounds[1].over(&rounds[0]),
        Target::at_least_times(times),
    ))
}

/// Returns puts per second with `each` puts per client, one at a time, all clients together. Every round writes new documents,
/// since the cost of a long history is measured separately.
fn rate(clients: &mut [Client], collection: &str, each: usize, round: &mut usize) -> Result<f64, Failure> {
    let calls = (clients.len() * each) as f64;
    let first = *round * CLIENTS;
    load(&mut clients[0], collection, first..first + CLIENTS, 0)?;
    *round += 1;
    let seconds = timed(|| {
        let mut flying = VecDeque::with_capacity(clients.len());
        for (number, client) in clients.iter_mut().enumerate() {
            flying.push_back(start(client, collection, first, number + 1)?);
        }
        for edition in 2..=each {
            for (number, client) in clients.iter_mut().enumerate() {
                client.finish(flying.pop_front().ok_or("each client has a call under way")?)?;
                flying.push_back(start(client, collection, first, number + edition)?);
            }
        }
        clients.iter_mut().zip(flying).try_for_each(|(client, call)| client.finish(call).map(drop))?;
        Ok(())
    })?;
    Ok(calls / seconds)
}

fn start(
    client: &mut Client,
    collection: &str,
    first: usize,
    turn: usize,
) -> Result<Pending<PutDocumentRequest>, Failure> {
    let call = client.start(&put(collection, first + turn % CLIENTS, turn, true))?;
    client.flush()?;
    Ok(call)
}

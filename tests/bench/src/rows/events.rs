//! Time from a put on one node to the event at a subscriber of another.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::Client;
use peat_ipc::sidecar::SubscribeRequest;

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, load, put};
use crate::floor::Appender;
use crate::node::{Node, connected, id};
use crate::process::OneProcessor;
use crate::row::Row;
use crate::sample::{Rounds, compete, median_of};
use crate::table::{Figure, Line, Target};

const DOCUMENTS: usize = 16;
/// Time after which an event counts as lost.
const LOST: Duration = Duration::from_secs(10);

/// Two nodes on this machine, with one put in flight.
pub(crate) struct Delivery;

impl Row for Delivery {
    fn name(&self) -> &'static str {
        "event"
    }

    fn about(&self) -> &'static str {
        "put on A started to event at a subscriber of B"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let _one = OneProcessor::begin()?;
        let mut a = Node::new(bench, "event-a")?;
        let mut client = a.start()?;
        let mut b = Node::new(bench, "event-b")?;
        b.dials(&id(&mut client)?, &a.address());
        let events = subscribe(b.start()?)?;
        connected(&mut client)?;
        let [latest, _] = measure(bench, &mut client, &events, LATEST)?;
        let [merged, sync] = measure(bench, &mut client, &events, MERGED)?;
        Ok(vec![
            Line::absolute(
                "put on A to event on B, latest, p50",
                Figure::Seconds(latest.figure()),
                Target::AtMost(Figure::Seconds(0.0004)),
            ),
            Line::absolute(
                "put on A to event on B, merged, beyond the sync, p50",
                Figure::Seconds(merged.with(&sync, |ours, sync| ours - sync)),
                Target::AtMost(Figure::Seconds(0.0006)),
            )
            .beside(format!("append + fdatasync {}", Figure::Seconds(sync.figure()))),
        ])
    }
}

/// Measures the delivery, and the disk's lower bound, in rounds.
fn measure(
    bench: &Bench,
    client: &mut Client,
    events: &Receiver<Event>,
    collection: &str,
) -> Result<[Rounds; 2], Failure> {
    load(client, collection, 0..DOCUMENTS, 0)?;
    let mut appender = Appender::new(bench)?;
    let puts = bench.times(100);
    let mut edition = 0;
    let mut deliver = || {
        edition += 1;
        let request = put(collection, edition % DOCUMENTS, edition, false);
        let begun = Instant::now();
        client.put_document(&request)?;
        let seen = arrival(events, &request.json_data)?;
        Ok(seen.duration_since(begun).as_secs_f64())
    };
    let rounds = compete(
        15,
        &mut [Box::new(|| median_of(puts, &mut deliver)), Box::new(|| median_of(puts, || appender.append()))],
    )?;
    rounds.try_into().map_err(|_| "two were measured".into())
}

/// Content of a document, and the time it was received.
type Event = (String, Instant);

fn subscribe(client: Client) -> Result<Receiver<Event>, Failure> {
    let mut subscription = client.into_subscription(&SubscribeRequest::default())?;
    let (seen, events) = sync_channel(1_024);
    std::thread::spawn(move || {
        while let Some(Ok(change)) = subscription.next() {
            let event = (change.json_data.unwrap_or_default(), Instant::now());
            if seen.send(event).is_err() {
                return;
            }
        }
    });
    Ok(events)
}

/// Returns the arrival time of the event with this content; earlier events are skipped.
fn arrival(events: &Receiver<Event>, content: &str) -> Result<Instant, Failure> {
    loop {
        let (seen, at) = events.recv_timeout(LOST).map_err(|_| "an event never came")?;
        if seen == content {
            return Ok(at);
        }
    }
}

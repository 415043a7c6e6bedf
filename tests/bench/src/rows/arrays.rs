//! Puts of a long array into a merged document, and the delay of other clients meanwhile.

use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::Client;
use peat_ipc::sidecar::PutDocumentRequest;

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, get, load};
use crate::node::Node;
use crate::row::Row;
use crate::sample::{median_of, percentile, timed};
use crate::table::{Figure, Line, Target};

/// Number of elements in the array.
const ELEMENTS: usize = 100_000;
/// Number of puts of each kind, of which the median is taken.
const PUTS: usize = 5;

/// An array of numbers, with one element or all elements changed.
pub(crate) struct Arrays;

impl Row for Arrays {
    fn name(&self) -> &'static str {
        "arrays"
    }

    fn about(&self) -> &'static str {
        "merged put of an array of 100,000 numbers: one changed, all changed, another client's reads meanwhile"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "arrays")?;
        let mut writer = node.start()?;
        let mut reader = node.client()?;
        load(&mut reader, LATEST, 0..1, 0)?;
        let mut numbers: Vec<usize> = (100_000..100_000 + ELEMENTS).collect();
        put(&mut writer, &numbers)?;
        let mut round = 0;
        let one = median_of(PUTS, || {
            round += 1;
            numbers[round * 1_000] += ELEMENTS;
            timed(|| put(&mut writer, &numbers))
        })?;
        let mut waits = Vec::new();
        let all = median_of(PUTS, || {
            round += 1;
            // No two rounds share a number.
            numbers = (0..ELEMENTS).map(|n| 100_000 + 7 * n + 31 * round).collect();
            timed(|| {
                let call = writer.start(&request(&numbers))?;
                writer.flush()?;
                waits.push(longest_read(&mut reader, Duration::from_millis(500))?);
                writer.finish(call)?;
                Ok(())
            })
        })?;
        let seconds = |value| Target::AtMost(Figure::Seconds(value));
        Ok(vec![
            Line::absolute("merged put, 1 of 100,000 elements changed", Figure::Seconds(one), seconds(0.1)),
            Line::absolute("merged put, all of 100,000 elements changed", Figure::Seconds(all), seconds(1.0)),
            Line::absolute("longest read meanwhile", Figure::Seconds(percentile(&waits, 100)), seconds(0.05)),
        ])
    }
}

fn request(numbers: &[usize]) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: MERGED.into(),
        doc_id: "array".into(),
        json_data: format!(r#"{{"l":{numbers:?}}}"#),
        ..Default::default()
    }
}

fn put(client: &mut Client, numbers: &[usize]) -> Result<(), Failure> {
    client.put_document(&request(numbers))?;
    Ok(())
}

/// Returns the duration of the longest read within `time`, in seconds.
fn longest_read(client: &mut Client, time: Duration) -> Result<f64, Failure> {
    let begun = Instant::now();
    let mut longest = 0.0f64;
    while begun.elapsed() < time {
        longest = longest.max(timed(|| client.get_document(&get(LATEST, 0)).map_err(Failure::from))?);
    }
    Ok(longest)
}

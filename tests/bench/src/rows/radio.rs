//! The share of a narrow, distant and lossy radio link that carries documents.

use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents;
use crate::field::{Field, Weather};
use crate::row::Row;
use crate::table::{Figure, Line, Target};

/// Link rate in bytes per second, which is 64 kbit/s.
const RATE: u64 = 8_000;
const WEATHER: Weather =
    Weather { delay: Duration::from_millis(800), loss_per_mille: 50, bytes_per_second: Some(RATE), cut: false };
/// Number of 300-byte pieces in a document.
const PIECES: usize = 4;

/// Document bytes per second, from the first write to the arrival of the last document.
pub(crate) struct Radio;

impl Row for Radio {
    fn name(&self) -> &'static str {
        "radio"
    }

    fn about(&self) -> &'static str {
        "goodput of 64 kbit/s with 800 ms each way and 5 % loss"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let count = bench.times(1_000);
        let with = goodput(count, Some(RATE))?;
        let without = goodput(count, None)?;
        Ok(vec![
            Line::relative(
                "64 kbit/s, 800 ms, 5 % loss: documents of 1.2 kB, --link-rate",
                Figure::Bytes(with),
                ("the link", Figure::Bytes(RATE as f64)),
                with / RATE as f64,
                Target::at_least_times(0.7),
            )
            .beside(format!("without --link-rate {}", Figure::Bytes(without))),
        ])
    }
}

fn goodput(count: usize, rate: Option<u64>) -> Result<f64, Failure> {
    let mut field = Field::new(WEATHER);
    let stores = [field.store()?, field.store()?];
    field.node(stores[0], &[], 1..2, rate)?;
    field.node(stores[1], &[0], 0..0, rate)?;
    (0..2).for_each(|node| field.start(node));
    if !field.run(Duration::from_secs(120), |field| field.connected(0) == 1) {
        return Err("the nodes do not meet".into());
    }
    let (begun, mut bytes) = (field.time, 0);
    for number in 0..count {
        let pieces = (0..PIECES).map(|piece| documents::json(number * PIECES + piece, 0)).collect::<Vec<_>>();
        let json = format!("{{\"pieces\":[{}]}}", pieces.join(","));
        bytes += json.len();
        field.put(stores[0], &documents::id(number), json)?;
    }
    if !field.run(Duration::from_secs(36_000), |field| field.visible(stores[1]) >= count as u64) {
        return Err("the documents do not arrive".into());
    }
    Ok(bytes as f64 / (field.time - begun).as_secs_f64())
}

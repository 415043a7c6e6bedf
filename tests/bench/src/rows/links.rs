//! One node with a thousand idle peers, and then one document for all of them.

use std::path::Path;
use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents;
use crate::field::{Field, Weather};
use crate::process::memory;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const ID: &str = "track-000000";
/// Idle time before the measurement.
const IDLE: Duration = Duration::from_secs(60);

/// Memory per link, and the processor time of one change for all peers.
pub(crate) struct Thousand;

impl Row for Thousand {
    fn name(&self) -> &'static str {
        "thousand links"
    }

    fn about(&self) -> &'static str {
        "one node with 1,000 idle peers: memory of a link, a changed document for all"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let count = bench.times(1_000);
        let mut field = Field::new(Weather::LAN);
        let stores = [field.store()?, field.store()?];
        field.node(stores[0], &[], 1..count + 1, None)?;
        for _ in 0..count {
            field.node(stores[1], &[0], 0..0, None)?;
        }
        let before = memory(Path::new("/proc/self"))?.anonymous;
        field.start(0);
        for node in 1..=count {
            field.start(node);
            field.run(Duration::from_millis(5), |_| false);
        }
        if !field.run(Duration::from_secs(120), |field| field.connected(0) as usize == count) {
            return Err(format!("{} of {count} peers are linked", field.connected(0)).into());
        }
        field.run(IDLE, |_| false);
        // Both ends of each link are in this process.
        let each = (memory(Path::new("/proc/self"))?.anonymous - before) / count as f64 / 2.0;
        let spent = reach_all(&mut field, stores)?;
        Ok(vec![
            Line::absolute(
                format!("{count} idle peers: memory of a link, an end"),
                Figure::Bytes(each),
                Target::AtMost(Figure::Bytes(32_768.0)),
            ),
            Line::absolute(
                format!("{count} idle peers: a changed document for all, one core"),
                Figure::Seconds(spent.as_secs_f64()),
                Target::AtMost(Figure::Seconds(0.3)),
            ),
        ])
    }
}

/// Returns the processor time of the node until every peer has acknowledged the change.
fn reach_all(field: &mut Field, stores: [usize; 2]) -> Result<Duration, Failure> {
    let json = documents::json(0, 1);
    let before = field.spent;
    field.put(stores[0], ID, json.clone())?;
    field.run(Duration::from_secs(2), |_| false);
    match field.holds(stores[1], ID, &json)? {
        true => Ok(field.spent - before),
        false => Err("the change does not arrive".into()),
    }
}

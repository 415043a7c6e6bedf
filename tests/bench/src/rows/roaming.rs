//! A restored path: time until everything written during the outage has arrived.

use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents;
use crate::field::{Field, Weather, processor_time};
use crate::row::Row;
use crate::table::{Figure, Line, Target};

/// Number of documents written during an outage.
const CHANGES: usize = 1_000;
/// Maximum redial delay.
const BACKOFF: Duration = Duration::from_secs(30);
/// Durations of the outages.
const OUTAGES: [Duration; 5] = [
    Duration::from_secs(20),
    Duration::from_secs(47),
    Duration::from_secs(95),
    Duration::from_secs(190),
    Duration::from_secs(600),
];

/// The slowest recovery from several outages.
pub(crate) struct PathRestored;

impl Row for PathRestored {
    fn name(&self) -> &'static str {
        "path restored"
    }

    fn about(&self) -> &'static str {
        "1,000 changes of an outage are on the other side after the path is back, LAN delays"
    }

    fn run(&self, _bench: &Bench) -> Result<Vec<Line>, Failure> {
        let line = |what: &str, seen: bool, limit: Duration| {
            let times = OUTAGES.iter().map(|outage| restored(*outage, seen)).collect::<Result<Vec<_>, _>>()?;
            let worst = times.into_iter().max().unwrap_or_default();
            let target = Target::AtMost(Figure::Seconds(limit.as_secs_f64()));
            let figure = Figure::Seconds(worst.as_secs_f64());
            Ok::<_, Failure>(Line::absolute(format!("path restored, 1,000 changes, {what}"), figure, target))
        };
        Ok(vec![
            line("interface event seen", true, Duration::from_secs(1))?,
            line("no event", false, BACKOFF + Duration::from_secs(1))?,
        ])
    }
}

/// Returns the recovery time: virtual time plus the processor time of both nodes.
fn restored(outage: Duration, seen: bool) -> Result<Duration, Failure> {
    let mut field = Field::new(Weather::LAN);
    let stores = [field.store()?, field.store()?];
    field.node(stores[0], &[], 1..2, None)?;
    field.node(stores[1], &[0], 0..0, None)?;
    (0..2).for_each(|node| field.start(node));
    if !field.run(Duration::from_secs(20), |field| field.connected(1) == 1) {
        return Err("the nodes do not meet".into());
    }
    field.weather.cut = true;
    for number in 0..CHANGES {
        field.run(outage / CHANGES as u32, |_| false);
        field.put(stores[0], &documents::id(number), documents::json(number, 0))?;
    }
    field.weather.cut = false;
    let (begun, worked) = (field.time, processor_time());
    if seen {
        field.network_changed(1);
    }
    let all = CHANGES as u64;
    if !field.run(Duration::from_secs(120), |field| field.visible(stores[1]) >= all) {
        return Err("the changes do not arrive".into());
    }
    for number in 0..CHANGES {
        if !field.holds(stores[1], &documents::id(number), &documents::json(number, 0))? {
            return Err("a change is missing".into());
        }
    }
    Ok(field.time - begun + processor_time().saturating_sub(worked))
}

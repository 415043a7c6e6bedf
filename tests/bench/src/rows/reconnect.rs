//! Reconnection of two nodes that hold the same hundred thousand documents, or nearly the same.
//!
//! A forwarder between them counts traffic. The cost of replication is the difference from a connection between two empty
//! nodes; the cost of finding differences is that beyond a connection without a search.

use std::thread::sleep;
use std::time::Duration;

use bench_peers::Failure;
use peat_ipc::Client;

use crate::bench::Bench;
use crate::database::{forget_cursors, stored};
use crate::documents::{LATEST, get, load};
use crate::forwarder::{Forwarder, Traffic};
use crate::node::{Node, connected, documents, id, settled};
use crate::row::Row;
use crate::sample::median;
use crate::table::{Figure, Line, Target};
use crate::wait::until;

const DIFFERENT: usize = 10;
/// Time after which a connection has gone quiet; keep-alives come later.
const QUIET: Duration = Duration::from_secs(2);

/// Reconnection with checkpoints, without them, and without them while ten documents differ.
pub(crate) struct Reconnect;

impl Row for Reconnect {
    fn name(&self) -> &'static str {
        "reconnect"
    }

    fn about(&self) -> &'static str {
        "reconnect with 100,000 equal documents, and with 10 different"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let empty = Pair::new(bench, 0)?.measure(3, |_, _| Ok(()))?;
        let mut pair = Pair::new(bench, bench.times(100_000))?;
        let with = pair.measure(3, |_, _| Ok(()))?;
        let without = pair.measure(3, |pair, _| forget_cursors(&pair.b.data()))?;
        let differing = pair.measure(3, |pair, edition| {
            load(&mut pair.holder, LATEST, 0..DIFFERENT, edition)?;
            forget_cursors(&pair.b.data())
        })?;
        pair.a.stop()?;
        let stored = stored(&pair.a.data())?;
        let changes = stored.bytes as f64 / stored.records as f64 * DIFFERENT as f64;
        let mut lines = payload(&empty, &with, &without);
        lines.extend(difference(&with, &differing, changes));
        Ok(lines)
    }
}

fn payload(empty: &Seen, with: &Seen, without: &Seen) -> Vec<Line> {
    let line = |what: &str, seen: &Seen| {
        [
            Line::absolute(
                format!("reconnect, equal, {what}: replication payload"),
                Figure::Bytes(seen.bytes - empty.bytes),
                Target::AtMost(Figure::Bytes(256.0)),
            )
            .beside(format!("nodes with nothing {}", Figure::Bytes(empty.bytes)))
            .strict(),
            Line::absolute(
                format!("reconnect, equal, {what}: whole connection"),
                Figure::Bytes(seen.bytes),
                Target::AtMost(Figure::Bytes(8_000.0)),
            )
            .strict(),
        ]
    };
    [line("with checkpoint", with), line("no checkpoint", without)].into_iter().flatten().collect()
}

fn difference(with: &Seen, differing: &Seen, changes: f64) -> Vec<Line> {
    vec![
        Line::absolute(
            "reconnect, 10 differ, no checkpoint: beyond the changes",
            Figure::Bytes(differing.bytes - with.bytes - changes),
            Target::AtMost(Figure::Bytes(8_192.0)),
        )
        .beside(format!("changes {}", Figure::Bytes(changes)))
        .strict(),
        Line::absolute(
            "reconnect, 10 differ, no checkpoint: one-way messages until B has them",
            Figure::Count(differing.turns_needed - with.turns),
            Target::AtMost(Figure::Count(7.0)),
        ),
    ]
}

/// Medians of the counted traffic.
struct Seen {
    bytes: f64,
    turns: f64,
    /// Turns until B had all of A's documents.
    turns_needed: f64,
}

/// Traffic of one reconnection.
struct Passed {
    all: Traffic,
    until_equal: Traffic,
}

struct Pair {
    a: Node,
    holder: Client,
    b: Node,
    forwarder: Forwarder,
    edition: usize,
}

impl Pair {
    /// Starts two nodes with the same `count` documents.
    fn new(bench: &Bench, count: usize) -> Result<Pair, Failure> {
        let mut a = Node::new(bench, &format!("reconnect-a-{count}"))?;
        let mut holder = a.start()?;
        load(&mut holder, LATEST, 0..count, 0)?;
        let forwarder = Forwarder::to(a.port())?;
        let mut b = Node::new(bench, &format!("reconnect-b-{count}"))?;
        b.dials(&id(&mut holder)?, &forwarder.address());
        let mut receiver = b.start()?;
        connected(&mut receiver)?;
        until("all documents have come", || Ok(documents(&mut receiver)? == count as u64))?;
        Ok(Pair { a, holder, b, forwarder, edition: 0 })
    }

    /// Stops B, changes something meanwhile, and counts the traffic after B's return.
    fn measure(
        &mut self,
        rounds: usize,
        mut meanwhile: impl FnMut(&mut Pair, usize) -> Result<(), Failure>,
    ) -> Result<Seen, Failure> {
        let mut passed = Vec::new();
        for _ in 0..rounds {
            settled(&mut self.holder)?;
            self.b.stop()?;
            self.edition += 1;
            meanwhile(self, self.edition)?;
            passed.push(self.reconnect()?);
        }
        let of = |figure: fn(&Passed) -> u64| median(&passed.iter().map(|one| figure(one) as f64).collect::<Vec<_>>());
        Ok(Seen {
            bytes: of(|passed| passed.all.bytes),
            turns: of(|passed| passed.all.turns),
            turns_needed: of(|passed| passed.until_equal.turns),
        })
    }

    fn reconnect(&mut self) -> Result<Passed, Failure> {
        self.forwarder.reset();
        let mut receiver = self.b.start()?;
        connected(&mut receiver)?;
        let held = self.holder.get_document(&get(LATEST, DIFFERENT - 1))?.json_data;
        until("B has what A has", || Ok(receiver.get_document(&get(LATEST, DIFFERENT - 1))?.json_data == held))?;
        let until_equal = self.forwarder.traffic();
        sleep(QUIET);
        Ok(Passed { all: self.forwarder.traffic(), until_equal })
    }
}

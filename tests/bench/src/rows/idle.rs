//! Activity of an idle node.

use std::thread::sleep;
use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::documents::{LATEST, load};
use crate::node::{Node, connected, id, settled};
use crate::process::wakeups;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

/// Wake-ups of two connected nodes over a minute; the larger number counts.
pub(crate) struct Wakeups;

impl Row for Wakeups {
    fn name(&self) -> &'static str {
        "wake-ups"
    }

    fn about(&self) -> &'static str {
        "wake-ups a minute of an idle node with one idle peer"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut a = Node::new(bench, "idle-a")?;
        let mut client = a.start()?;
        let mut b = Node::new(bench, "idle-b")?;
        b.dials(&id(&mut client)?, &a.address());
        connected(&mut b.start()?)?;
        load(&mut client, LATEST, 0..100, 0)?;
        settled(&mut client)?;
        drop(client);
        let seconds = if bench.quick { 10 } else { 60 };
        let before = [wakeups(&a.proc())?, wakeups(&b.proc())?];
        sleep(Duration::from_secs(seconds));
        let after = [wakeups(&a.proc())?, wakeups(&b.proc())?];
        let most = (after[0] - before[0]).max(after[1] - before[1]);
        Ok(vec![
            Line::absolute(
                "wake-ups a minute, idle with an idle peer",
                Figure::Count((most * 60 / seconds) as f64),
                Target::AtMost(Figure::Count(60.0)),
            )
            .strict(),
        ])
    }
}

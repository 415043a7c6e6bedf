//! Reading a document over the unix socket.

use bench_peers::{Failure, Peer};

use crate::bench::Bench;
use crate::documents::{LATEST, MERGED, get, load};
use crate::native::Native;
use crate::node::Node;
use crate::process::OneProcessor;
use crate::row::Row;
use crate::sample::{compete, latency};
use crate::served::Served;
use crate::table::{Figure, Line, Target};

/// Number of other documents stored.
const DOCUMENTS: usize = 1_000;

/// GetDocument after a start: no Automerge document is loaded, and reading loads none.
pub(crate) struct Get;

impl Row for Get {
    fn name(&self) -> &'static str {
        "get"
    }

    fn about(&self) -> &'static str {
        "GetDocument of 300 bytes, one call at a time"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let _one = OneProcessor::begin()?;
        let mut node = Node::new(bench, "get")?;
        let mut client = node.start()?;
        load(&mut client, LATEST, 0..DOCUMENTS, 0)?;
        load(&mut client, MERGED, 0..DOCUMENTS, 0)?;
        drop(client);
        node.stop()?;
        node.start()?;
        [LATEST, MERGED].into_iter().map(|collection| measure(bench, &node, collection)).collect()
    }
}

fn measure(bench: &Bench, node: &Node, collection: &str) -> Result<Line, Failure> {
    let mut native = Native::new(node.client()?, get(collection, DOCUMENTS / 2));
    let served = Served::start(bench, Peer::Echo, native.sizes()?)?;
    let mut echo = served.caller()?;
    let calls = bench.times(3_000);
    let rounds =
        compete(15, &mut [Box::new(|| latency(&mut native, calls)), Box::new(|| latency(echo.as_mut(), calls))])?;
    let [ours, echo] = [&rounds[0], &rounds[1]];
    Ok(Line::relative(
        format!("GetDocument 300 B, {}, p50", kind(collection)),
        Figure::Seconds(ours.figure()),
        ("echo", Figure::Seconds(echo.figure())),
        ours.over(echo),
        Target::at_most_times(2.5),
    ))
}

fn kind(collection: &str) -> &'static str {
    if collection == LATEST { "latest" } else { "merged" }
}

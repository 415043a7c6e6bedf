//! Flash writes per durable put, as the edited document ages.

use bench_peers::Failure;
use peat_ipc::Client;

use crate::bench::Bench;
use crate::documents::{MERGED, put};
use crate::node::Node;
use crate::process::written;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

/// Number of puts over which bytes are counted: many times the journal's capacity.
const COUNTED: usize = 200;
/// Number of puts between the two counts.
const BETWEEN: usize = 1_000;

/// Bytes that the node's process has caused the kernel to write.
pub(crate) struct Wear;

impl Row for Wear {
    fn name(&self) -> &'static str {
        "wear"
    }

    fn about(&self) -> &'static str {
        "bytes to the disk of a durable put of three fields into one merged document"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "wear")?;
        let mut client = node.start()?;
        let early = count(&node, &mut client, 0)?;
        (COUNTED..COUNTED + BETWEEN).try_for_each(|edition| change(&mut client, edition))?;
        let late = count(&node, &mut client, COUNTED + BETWEEN)?;
        Ok(vec![
            Line::relative(
                format!("merged put, to the disk, after {} of the document", COUNTED + BETWEEN),
                Figure::Bytes(late),
                ("the first 200", Figure::Bytes(early)),
                late / early,
                Target::at_most_times(1.5),
            )
            .strict(),
        ])
    }
}

/// Returns bytes per put, over [`COUNTED`] of them.
fn count(node: &Node, client: &mut Client, from: usize) -> Result<f64, Failure> {
    let before = written(&node.proc())?;
    (from..from + COUNTED).try_for_each(|edition| change(client, edition))?;
    Ok((written(&node.proc())? - before) as f64 / COUNTED as f64)
}

fn change(client: &mut Client, edition: usize) -> Result<(), Failure> {
    client.put_document(&put(MERGED, 0, edition, true))?;
    Ok(())
}

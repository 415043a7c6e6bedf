//! Cost of a document that has been edited many times.

use std::thread::sleep;
use std::time::Duration;

use bench_peers::Failure;
use peat_ipc::Client;
use peat_ipc::sidecar::PutDocumentRequest;

use crate::bench::Bench;
use crate::documents::{MERGED, pipeline};
use crate::node::Node;
use crate::process::memory;
use crate::row::Row;
use crate::sample::{median_of, timed};
use crate::table::{Figure, Line, Target};

/// Number of puts that are timed.
const TIMED: usize = 200;

/// A durable put into a document with few and with many edits.
pub(crate) struct Edited;

impl Row for Edited {
    fn name(&self) -> &'static str {
        "edited"
    }

    fn about(&self) -> &'static str {
        "durable put of two fields into one merged document of 1,000 and of 100,000 edits"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "edited")?;
        let mut client = node.start()?;
        let few = after(&mut client, 0..1_000)?;
        let many = after(&mut client, 1_000 + TIMED..100_000)?;
        Ok(vec![Line::relative(
            "merged put, p50, after 100,000 edits of the document",
            Figure::Seconds(many),
            ("after 1,000", Figure::Seconds(few)),
            many / few,
            Target::at_most_times(1.5),
        )])
    }
}

/// Returns the seconds per put after `editions`.
fn after(client: &mut Client, editions: std::ops::Range<usize>) -> Result<f64, Failure> {
    let mut edition = editions.end;
    pipeline(client, editions.map(edit))?;
    median_of(TIMED, || {
        edition += 1;
        let put = edit(edition);
        timed(|| Ok(client.put_document(&put)?))
    })
}

fn edit(edition: usize) -> PutDocumentRequest {
    let json_data = format!(r#"{{"armed":{},"count":{edition}}}"#, edition.is_multiple_of(2));
    merged("edited", json_data)
}

fn merged(doc_id: &str, json_data: String) -> PutDocumentRequest {
    let (collection, doc_id) = (MERGED.into(), doc_id.into());
    PutDocumentRequest { collection, doc_id, json_data, durable: true, ..Default::default() }
}

const MIB: f64 = 1_048_576.0;
/// Default of `--cache-bytes`, and the memory a node may use beyond it, in MiB.
const CACHE_MIB: f64 = 8.0;
const BESIDE_MIB: f64 = 16.0;
const DOCUMENTS: usize = 100;
const PATCHES: usize = 1_000;
/// Number of fields per document, of 1,000 bytes each.
const FIELDS: usize = 60;
/// Time from the last call to the reading, in which the pending flush completes.
const CALM: Duration = Duration::from_secs(3);

/// Many large documents with long histories, loaded after a restart.
pub(crate) struct Loaded;

impl Row for Loaded {
    fn name(&self) -> &'static str {
        "loaded"
    }

    fn about(&self) -> &'static str {
        "resident memory of 100 merged documents of 60 KB after 1,000 patches each"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "loaded")?;
        let mut client = node.start()?;
        for document in 0..DOCUMENTS {
            pipeline(&mut client, (0..=bench.times(PATCHES)).map(|edition| large(document, edition)))?;
        }
        drop(client);
        node.stop()?;
        let mut client = node.start()?;
        pipeline(&mut client, (0..DOCUMENTS).map(|document| large(document, PATCHES + 1)))?;
        sleep(CALM);
        let memory = memory(&node.proc())?;
        let limit = Target::AtMost(Figure::Bytes((CACHE_MIB + BESIDE_MIB) * MIB));
        Ok(vec![
            Line::absolute("resident memory, 100 loaded documents", Figure::Bytes(memory.resident), limit)
                .beside(format!("anonymous {}", Figure::Bytes(memory.anonymous)))
                .strict(),
        ])
    }
}

/// Creates a document of 60 KB; each edition changes one of its fields.
fn large(document: usize, edition: usize) -> PutDocumentRequest {
    let newest = |field: usize| edition.saturating_sub((edition + FIELDS - field) % FIELDS);
    let fields: Vec<_> = (0..FIELDS).map(|field| format!(r#""field{field:02}":"{:0960}""#, newest(field))).collect();
    merged(&format!("large-{document}"), format!("{{{}}}", fields.join(",")))
}

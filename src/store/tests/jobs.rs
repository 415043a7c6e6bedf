//! Long merges run in parallel with the store thread: requests about other documents continue, and the order is kept.

use super::*;
use crate::store::{Cursor, Finished, Job};

/// Returns the content of a document that is merged by a job.
fn long(mark: u64) -> String {
    format!(r#"{{"mark":{mark},"text":"{}"}}"#, "x".repeat(StoreConfig::JOB_BYTES))
}

fn submitted(call: u64, request: StoreRequest) -> Envelope {
    Envelope { ticket: Ticket::Api(call), request }
}

/// Makes one commit, and returns the calls that it answers.
fn commit(bench: &mut Bench, requests: Vec<Envelope>) -> Vec<u64> {
    let mut replies = Vec::new();
    bench.store.handle_commit(bench.now, &mut requests.into_iter().peekable(), &mut replies);
    calls(&replies)
}

fn calls(replies: &[Reply]) -> Vec<u64> {
    let call = |reply: &Reply| match reply.ticket {
        Ticket::Api(call) | Ticket::Sync(call) => call,
    };
    replies.iter().map(call).collect()
}

fn begin(bench: &mut Bench) -> Option<Job> {
    bench.store.poll_job(bench.now, &mut Vec::new())
}

fn end(bench: &mut Bench, finished: Finished) -> Vec<u64> {
    let mut replies = Vec::new();
    bench.store.handle_finished(bench.now, finished, &mut replies);
    assert!(replies.iter().all(|reply| reply.result.is_ok()), "{replies:?}");
    calls(&replies)
}

#[test]
fn writes_to_other_documents_do_not_wait_for_a_long_merge() {
    let mut bench = Bench::new();
    let requests =
        vec![submitted(1, write("cells/long", whole(&long(1)))), submitted(2, write("cells/short", whole("{}")))];
    assert_eq!(commit(&mut bench, requests), [2]);
    let job = begin(&mut bench).unwrap();
    assert!(begin(&mut bench).is_none(), "one at a time");
    assert_eq!(commit(&mut bench, vec![submitted(3, write("cells/short", whole(r#"{"n":1}"#)))]), [3]);
    let finished = job.run();
    assert_eq!(commit(&mut bench, vec![submitted(4, write("platforms/p", whole("{}")))]), [4]);
    assert_eq!(bench.json("cells/long"), None);
    assert_eq!(end(&mut bench, finished), [1]);
    assert_eq!(bench.json("cells/long").unwrap(), long(1));
    assert_eq!(bench.json("cells/short").unwrap(), r#"{"n":1}"#);
}

#[test]
fn writes_to_a_document_that_is_being_merged_wait_and_keep_their_order() {
    let mut bench = Bench::new();
    assert!(commit(&mut bench, vec![submitted(1, write("cells/x", whole(&long(1))))]).is_empty());
    let job = begin(&mut bench).unwrap();
    let later =
        (2..5).map(|n| submitted(n, write("cells/x", Put::Patch { json: format!(r#"{{"n":{n}}}"#), base: None })));
    assert!(commit(&mut bench, later.collect()).is_empty());
    assert_eq!(end(&mut bench, job.run()), [1]);
    let job = begin(&mut bench).unwrap();
    assert_eq!(end(&mut bench, job.run()), [2, 3, 4]);
    assert!(begin(&mut bench).is_none());
    let content: serde_json::Value = serde_json::from_str(&bench.json("cells/x").unwrap()).unwrap();
    assert_eq!((&content["n"], &content["mark"]), (&4.into(), &1.into()));
    assert!(commit(&mut bench, vec![submitted(5, write("cells/x", Put::Delete))]).is_empty(), "it is large");
    let job = begin(&mut bench).unwrap();
    assert_eq!(end(&mut bench, job.run()), [5]);
    assert_eq!(commit(&mut bench, vec![submitted(6, write("cells/x", whole("{}")))]), [6], "it is short now");
}

#[test]
fn a_cursor_never_counts_on_documents_that_a_job_has_not_brought_yet() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/long", &long(1));
    a.put("platforms/p", "{}");
    let batch = |name: &str, sequence: u64| {
        let (database, run) = (a.store.database(), a.store.run());
        let cursor = |kind| Cursor { kind, database, run, sequence, horizon: sequence, excluded: 0 };
        let cursors = vec![cursor(Kind::Merged), cursor(Kind::Latest)];
        let (from, into) = (a.peer_run(), b.store.run());
        StoreRequest::Apply(Apply {
            from,
            into,
            documents: vec![a.outgoing(name)],
            cursors,
            flush: false,
            excluded: Default::default(),
        })
    };
    let (first, second) = (batch("cells/long", 1), batch("platforms/p", 2));
    let reached = |b: &Bench| b.snapshot().cursors(&node(1)).unwrap().iter().map(|cursor| cursor.sequence).max();
    assert!(commit(&mut b, vec![submitted(1, first)]).is_empty());
    let job = begin(&mut b).unwrap();
    assert!(commit(&mut b, vec![submitted(2, second)]).is_empty(), "it is behind the first");
    assert_eq!(reached(&b), None);
    assert_eq!(end(&mut b, job.run()), [1]);
    assert_eq!(reached(&b), Some(1));
    let job = begin(&mut b).unwrap();
    assert_eq!(end(&mut b, job.run()), [2]);
    assert_eq!(reached(&b), Some(2));
    assert!(b.json("cells/long").is_some() && b.json("platforms/p").is_some());
    let source = b.snapshot().source(a.peer_run()).unwrap();
    assert!(source.is_some());
    assert_eq!(b.snapshot().entries(Kind::Merged, 0).unwrap().next().unwrap().unwrap().from, source.unwrap());
}

#[test]
fn a_job_of_a_database_that_failed_meanwhile_is_refused() {
    let mut bench = Bench::new();
    bench.put("cells/x", "{}");
    commit(&mut bench, vec![submitted(1, write("cells/x", whole(&long(1))))]);
    let finished = begin(&mut bench).unwrap().run();
    bench.disk.fail_after(Some(0));
    let mut replies = Vec::new();
    let failing = [submitted(2, durable("platforms/p", whole("{}")))];
    bench.store.handle_commit(bench.now, &mut failing.into_iter().peekable(), &mut replies);
    assert!(matches!(replies[..], [Reply { result: Err(Error::Io(_)), .. }]), "{replies:?}");
    bench.disk.fail_after(None);
    bench.pass(Duration::from_secs(2));
    let mut replies = Vec::new();
    bench.store.handle_finished(bench.now, finished, &mut replies);
    assert!(matches!(replies[..], [Reply { ticket: Ticket::Api(1), result: Err(Error::Io(_)) }]), "{replies:?}");
    assert_eq!(bench.json("cells/x").unwrap(), "{}");
    bench.put("cells/x", &long(2));
    assert_eq!(bench.json("cells/x").unwrap(), long(2));
}

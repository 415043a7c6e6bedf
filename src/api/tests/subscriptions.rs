//! Subscriptions: complete, coalesced, resumable, and never beyond the client's credit.

use peat_ipc::Code;
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{RequestHeader, put_cancel, put_credit};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;

use super::{ROOT, World, code};
use crate::api::ConnectionId;

fn put(world: &mut World, client: ConnectionId, collection: &str, id: &str, json: &str) {
    let request = PutDocumentRequest {
        collection: collection.into(),
        doc_id: id.into(),
        json_data: json.into(),
        ..PutDocumentRequest::default()
    };
    world.call(client, &request).expect("put");
}

fn delete(world: &mut World, client: ConnectionId, collection: &str, id: &str) {
    let request = DeleteDocumentRequest { collection: collection.into(), doc_id: id.into() };
    world.call(client, &request).expect("delete");
}

fn subscribe(world: &mut World, client: ConnectionId, request: &SubscribeRequest, credit: u32) -> u64 {
    world.start_with(client, request, RequestHeader { credit, ..RequestHeader::default() })
}

fn snapshot() -> SubscribeRequest {
    SubscribeRequest { snapshot: true, ..SubscribeRequest::default() }
}

fn grant(world: &mut World, client: ConnectionId, call: u64, items: u32) {
    let mut bytes = Vec::new();
    put_credit(&mut bytes, call, items);
    world.send(client, &bytes);
}

/// Returns the changes received since the last call.
fn changes(world: &mut World, client: ConnectionId, call: u64) -> Vec<DocumentChange> {
    let items = std::iter::from_fn(|| world.take(client, call));
    let decode = |body| match body {
        Body::Item(bytes) => DocumentChange::decode(bytes).expect("a change"),
        body => panic!("{body:?} is no item"),
    };
    items.map(decode).collect()
}

/// Abbreviates changes: `+a`, `-a`, `.` for the end of a snapshot.
fn short(changes: &[DocumentChange]) -> String {
    let words = changes.iter().map(|change| match change.change_type() {
        ChangeType::Upsert => format!("+{}", change.doc_id),
        ChangeType::Delete => format!("-{}", change.doc_id),
        ChangeType::SnapshotEnd => ".".into(),
        ChangeType::Oversized => format!("!{}", change.doc_id),
        ChangeType::Unspecified => "?".into(),
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn a_snapshot_is_closed_and_then_changes_come_live() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    put(&mut world, client, "notes", "a", "{}");
    put(&mut world, client, "tracks", "b", "{}");
    put(&mut world, client, "notes", "gone", "{}");
    delete(&mut world, client, "notes", "gone");
    let call = subscribe(&mut world, client, &snapshot(), 100);
    assert_eq!(short(&changes(&mut world, client, call)), "+a +b .");
    put(&mut world, client, "notes", "c", r#"{"n":1}"#);
    delete(&mut world, client, "notes", "a");
    let live = changes(&mut world, client, call);
    assert_eq!(short(&live), "+c -a");
    assert_eq!(live[0].json_data.as_deref(), Some(r#"{"n":1}"#));
    assert_eq!(live[0].origin, "07".repeat(32));
    assert_eq!((live[1].collection.as_str(), live[1].json_data.as_deref()), ("notes", None));
    assert!(live[0].sequence < live[1].sequence);
    assert_eq!(live[0].run.len(), 16);
}

#[test]
fn without_a_snapshot_only_what_happens_from_now_on_is_sent() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    put(&mut world, client, "notes", "a", "{}");
    let call = subscribe(&mut world, client, &SubscribeRequest::default(), 100);
    put(&mut world, client, "notes", "b", "{}");
    assert_eq!(short(&changes(&mut world, client, call)), "+b");
}

#[test]
fn only_the_collections_asked_for_are_sent() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let request = SubscribeRequest { collections: vec!["tracks".into(), "cells".into()], ..snapshot() };
    put(&mut world, client, "notes", "a", "{}");
    put(&mut world, client, "tracks", "b", "{}");
    let call = subscribe(&mut world, client, &request, 100);
    put(&mut world, client, "notes", "c", "{}");
    put(&mut world, client, "cells", "d", "{}");
    delete(&mut world, client, "notes", "a");
    delete(&mut world, client, "tracks", "b");
    assert_eq!(short(&changes(&mut world, client, call)), "+b . +d -b");
}

#[test]
fn nothing_is_sent_beyond_the_credit() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for id in ["a", "b", "c", "d"] {
        put(&mut world, client, "notes", id, "{}");
    }
    let call = subscribe(&mut world, client, &snapshot(), 0);
    assert_eq!(short(&changes(&mut world, client, call)), "");
    grant(&mut world, client, call, 2);
    assert_eq!(short(&changes(&mut world, client, call)), "+a +b");
    grant(&mut world, client, call, 2);
    assert_eq!(short(&changes(&mut world, client, call)), "+c +d");
    grant(&mut world, client, call, u32::MAX);
    grant(&mut world, client, call, u32::MAX);
    assert_eq!(short(&changes(&mut world, client, call)), ".");
}

#[test]
fn a_slow_subscriber_gets_the_newest_version_of_each_document() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = subscribe(&mut world, client, &SubscribeRequest::default(), 0);
    for n in 0..50 {
        put(&mut world, client, "tracks", "a", &format!(r#"{{"n":{n}}}"#));
        put(&mut world, client, "notes", "b", &format!(r#"{{"n":{n}}}"#));
    }
    put(&mut world, client, "notes", "gone", "{}");
    delete(&mut world, client, "notes", "gone");
    grant(&mut world, client, call, 100);
    let late = changes(&mut world, client, call);
    assert_eq!(short(&late), "+a +b -gone");
    assert_eq!(late[0].json_data.as_deref(), Some(r#"{"n":49}"#));
}

#[test]
fn a_subscriber_that_takes_nothing_costs_little_and_misses_nothing() {
    let mut world = World::new();
    let (writer, reader) = (world.connect(ROOT), world.connect(ROOT));
    let call = subscribe(&mut world, reader, &SubscribeRequest::default(), u32::MAX);
    world.clients.get_mut(&reader).expect("connected").takes = 0;
    let text = "x".repeat(10_000);
    for n in 0..100 {
        put(&mut world, writer, "notes", &format!("d{n}"), &format!(r#"{{"t":"{text}"}}"#));
    }
    let waiting = world.engine.output(reader).len();
    assert!(waiting < 100_000, "{waiting}");
    world.wait(std::time::Duration::from_secs(3_600));
    assert!(world.is_open(reader), "what a subscriber is owed may wait");
    world.take_bytes(reader, usize::MAX);
    assert_eq!(changes(&mut world, reader, call).len(), 100);
}

#[test]
fn a_subscription_resumes_without_a_gap() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    put(&mut world, client, "notes", "a", "{}");
    let first = subscribe(&mut world, client, &snapshot(), 100);
    let seen = changes(&mut world, client, first);
    let last = seen.last().expect("the end of the snapshot");
    let mut bytes = Vec::new();
    put_cancel(&mut bytes, first);
    world.send(client, &bytes);
    put(&mut world, client, "notes", "b", "{}");
    delete(&mut world, client, "notes", "a");
    assert!(changes(&mut world, client, first).is_empty());
    let resume = SubscribeRequest { resume_after: last.sequence, resume_run: last.run.clone(), ..Default::default() };
    let second = subscribe(&mut world, client, &resume, 100);
    put(&mut world, client, "notes", "c", "{}");
    assert_eq!(short(&changes(&mut world, client, second)), "+b -a +c");
}

#[test]
fn a_token_nobody_knows_is_out_of_range() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    put(&mut world, client, "notes", "a", "{}");
    let unknown = SubscribeRequest { resume_after: 1, resume_run: vec![9; 16], ..Default::default() };
    assert_eq!(code(world.call_stream(client, &unknown)), Code::OutOfRange);
    let run = world.store.run().0.to_vec();
    let ahead = SubscribeRequest { resume_after: 1_000, resume_run: run.clone(), ..Default::default() };
    assert_eq!(code(world.call_stream(client, &ahead)), Code::OutOfRange);
    for wrong in [
        SubscribeRequest { resume_after: 1, ..Default::default() },
        SubscribeRequest { resume_run: vec![1], ..Default::default() },
        SubscribeRequest { snapshot: true, resume_run: run, ..Default::default() },
    ] {
        assert_eq!(code(world.call_stream(client, &wrong)), Code::InvalidArgument);
    }
}

#[test]
fn the_token_of_a_subscriber_that_is_behind_says_how_far_the_node_was() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for id in ["d", "e", "f"] {
        let request = PutDocumentRequest {
            collection: "tracks".into(),
            doc_id: id.into(),
            json_data: "{}".into(),
            durable: true,
            ..PutDocumentRequest::default()
        };
        world.call(client, &request).expect("put");
    }
    // Not durable yet: after a crash "d" is back at its old sequence number, which this subscriber has passed.
    put(&mut world, client, "tracks", "d", r#"{"n":1}"#);
    let call = subscribe(&mut world, client, &snapshot(), 100);
    let seen = changes(&mut world, client, call);
    assert_eq!(short(&seen), "+e +f +d .");
    assert!(seen.iter().map(|change| change.sequence).eq([2, 3, 4, 4]));
    let (run, behind) = (world.store.run().0.to_vec(), [&world.store.run().0[..], &4_u64.to_be_bytes()].concat());
    assert!(seen.iter().map(|change| &change.run).eq([&behind, &behind, &run, &run]));
    let resume = SubscribeRequest { resume_after: 2, resume_run: behind, ..Default::default() };
    let resumed = subscribe(&mut world, client, &resume, 100);
    assert_eq!(short(&changes(&mut world, client, resumed)), "+f +d");
    let ahead = [&world.store.run().0[..], &5_u64.to_be_bytes()].concat();
    let resume = SubscribeRequest { resume_after: 2, resume_run: ahead, ..Default::default() };
    assert_eq!(code(world.call_stream(client, &resume)), Code::OutOfRange);
}

#[test]
fn a_large_snapshot_does_not_hold_up_other_calls() {
    let mut world = World::new();
    let (client, other) = (world.connect(ROOT), world.connect(ROOT));
    for n in 0..2_000 {
        put(&mut world, client, "tracks", &format!("t{n:04}"), "{}");
    }
    let request = SubscribeRequest { collections: vec!["none".into()], ..snapshot() };
    let mut bytes = Vec::new();
    let header = RequestHeader { method: 17, credit: 10, ..RequestHeader::default() };
    peat_ipc::frame::put_request(&mut bytes, 9_000, header, &request);
    world.engine.handle_bytes(world.now, client, &bytes);
    assert_eq!(world.engine.poll_deadline().map(|(_, wake)| wake), Some(crate::api::Wake::Streams));
    assert!(world.engine.output(client).is_empty(), "it is not through yet");
    world.call(other, &GetStatusRequest {}).expect("served in between");
    world.run();
    assert_eq!(short(&changes(&mut world, client, 9_000)), ".");
}

impl World {
    /// Returns the first answer to a subscription if it is an error.
    fn call_stream(&mut self, client: ConnectionId, request: &SubscribeRequest) -> Result<(), peat_ipc::CallError> {
        let call = subscribe(self, client, request, 1);
        self.answer::<SubscribeRequest>(client, call).map_or(Ok(()), |answer| answer.map(|_| ()))
    }
}

#[test]
fn collections_can_be_excluded_such_as_the_one_that_nodes_write_themselves() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let exclude = vec!["agents".to_owned(), "tracks".to_owned()];
    let everything = subscribe(&mut world, client, &snapshot(), 100);
    let own = subscribe(&mut world, client, &SubscribeRequest { exclude: exclude.clone(), ..snapshot() }, 100);
    let both = SubscribeRequest { exclude, collections: vec!["notes".into(), "tracks".into()], ..snapshot() };
    let both = subscribe(&mut world, client, &both, 100);
    put(&mut world, client, "notes", "a", "{}");
    put(&mut world, client, "tracks", "b", "{}");
    // The node records the agent of the platform, in another collection.
    put(&mut world, client, "platforms", "p", "{}");
    let seen = |world: &mut World, call| {
        let changes = changes(world, client, call);
        changes.into_iter().map(|change| change.collection).filter(|name| !name.is_empty()).collect::<Vec<_>>()
    };
    assert_eq!(seen(&mut world, everything), ["notes", "tracks", "platforms", "agents"]);
    assert_eq!(seen(&mut world, own), ["notes", "platforms"]);
    assert_eq!(seen(&mut world, both), ["notes"]);
}

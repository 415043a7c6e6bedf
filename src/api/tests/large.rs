//! Documents that merges made longer than a frame: they are read in parts, and end no subscription.

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ROOT as DOCUMENT};
use peat_ipc::Code;
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{FRAME_BYTES, RequestHeader};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;

use super::{ROOT, World};
use crate::api::ConnectionId;
use crate::identity::EndpointId;
use crate::store::{self, Apply, Dot, Dots, Envelope, Incoming, Key, Kind, Lineage, Merged, PeerRun, RunId, Ticket};

const FIELD_BYTES: usize = 2_300_000;

/// Returns a world with `notes/big`, a document of 4.6 MB merged from the writes of two nodes.
fn world() -> World {
    let mut world = World::new();
    for writer in 1..=2_u8 {
        let mut document = AutoCommit::new().with_actor(ActorId::from([writer; 16]));
        let text = char::from(b'a' + writer).to_string().repeat(FIELD_BYTES);
        document.put(DOCUMENT, format!("f{writer}"), text).expect("a put");
        document.commit_with(CommitOptions::default().with_time(1));
        let key = Key::new("notes", "big").expect("a key");
        let incoming = Incoming {
            hash: key.hash(),
            name: Some(key),
            kind: Kind::Merged,
            incarnation: 1,
            lineage: Lineage { dots: Dots::one(Dot { writer: [writer; 8], incarnation: 1 }), ..Lineage::default() },
            origin: EndpointId([writer; 32]),
            body: store::Body::Merged(Merged { chunks: document.save_nocompress(), heads: Vec::new() }),
        };
        let from = PeerRun { node: EndpointId([writer; 32]), run: RunId([writer; 16]) };
        let into = world.store.run();
        let excluded = Default::default();
        let apply = Apply { from, into, documents: vec![incoming], cursors: Vec::new(), flush: true, excluded };
        let submitted = Envelope { ticket: Ticket::Sync(1), request: store::StoreRequest::Apply(apply) };
        let mut replies = Vec::new();
        world.store.handle_batch(world.now, [submitted], &mut replies);
        assert!(replies.iter().all(|reply| reply.result.is_ok()), "{replies:?}");
    }
    world.engine.handle_tip(world.now, world.store.tip());
    world
}

fn get() -> GetDocumentRequest {
    GetDocumentRequest { collection: "notes".into(), doc_id: "big".into() }
}

fn parts() -> RequestHeader<'static> {
    RequestHeader { takes_parts: true, credit: 100, ..RequestHeader::default() }
}

fn put(world: &mut World, client: ConnectionId, id: &str) {
    let request = PutDocumentRequest {
        collection: "notes".into(),
        doc_id: id.into(),
        json_data: "{}".into(),
        ..PutDocumentRequest::default()
    };
    world.call(client, &request).expect("put");
}

fn changes(world: &mut World, client: ConnectionId, call: u64) -> Vec<DocumentChange> {
    let items = std::iter::from_fn(|| world.take(client, call));
    let decode = |body| match body {
        Body::Item(bytes) => DocumentChange::decode(bytes).expect("a change"),
        body => panic!("{body:?} is no item"),
    };
    items.map(decode).collect()
}

#[test]
fn a_document_over_a_frame_is_read_by_a_client_that_takes_parts() {
    let mut world = world();
    let client = world.connect(ROOT);
    let call = world.start_with(client, &get(), parts());
    let document = world.answer::<GetDocumentRequest>(client, call).expect("answered").expect("read");
    assert!(document.json_data.expect("it exists").len() > FRAME_BYTES);
    put(&mut world, client, "small");
}

#[test]
fn a_client_that_takes_no_parts_is_refused_that_document_alone() {
    let mut world = world();
    let client = world.connect(ROOT);
    let refused = world.call(client, &get()).unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(refused.message.contains("takes_parts"), "{}", refused.message);
    put(&mut world, client, "small");
}

#[test]
fn a_document_over_a_frame_ends_no_subscription() {
    let mut world = world();
    let snapshot = SubscribeRequest { snapshot: true, ..SubscribeRequest::default() };
    let client = world.connect(ROOT);
    let call = world.start_with(client, &snapshot, RequestHeader { credit: 100, ..RequestHeader::default() });
    put(&mut world, client, "small");
    let told = changes(&mut world, client, call);
    let types: Vec<_> = told.iter().map(DocumentChange::change_type).collect();
    assert_eq!(types, [ChangeType::Oversized, ChangeType::SnapshotEnd, ChangeType::Upsert]);
    assert_eq!((told[0].doc_id.as_str(), &told[0].json_data), ("big", &None));
    assert!(told[0].error.contains("document notes/big is 46"), "{}", told[0].error);
    assert_eq!(told[2].doc_id, "small");

    let whole = world.connect(ROOT);
    let call = world.start_with(whole, &snapshot, parts());
    put(&mut world, whole, "other");
    let told = changes(&mut world, whole, call);
    let types: Vec<_> = told.iter().map(DocumentChange::change_type).collect();
    assert!(types.iter().all(|kind| matches!(kind, ChangeType::Upsert | ChangeType::SnapshotEnd)), "{types:?}");
    assert!(told[0].json_data.as_ref().is_some_and(|json| json.len() > FRAME_BYTES));
    assert_eq!(told.last().map(|change| change.doc_id.as_str()), Some("other"));
}

#[test]
fn a_subscriber_says_how_long_a_change_may_be() {
    let mut world = world();
    let client = world.connect(ROOT);
    let request = SubscribeRequest { snapshot: true, max_change_bytes: 1_000, ..SubscribeRequest::default() };
    let call = world.start_with(client, &request, parts());
    assert_eq!(changes(&mut world, client, call)[0].change_type(), ChangeType::Oversized);
}

#[test]
fn parts_are_no_frames_that_a_client_sends() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.send(client, &[5, 0x08, 1, 0x5a, 1, 7]);
    assert_eq!(world.last_words(client).map(|error| error.code), Some(Code::InvalidArgument));
}

#[cfg(feature = "http")]
#[test]
fn a_document_over_a_frame_is_read_over_http() {
    let mut world = world();
    let client = world.browse(ROOT);
    let path = "/peat.sidecar.v1.PeatSidecar/GetDocument";
    let (status, read) = world.ask_json(client, path, r#"{"collection":"notes","docId":"big"}"#);
    assert_eq!(status, 200);
    assert!(read["jsonData"].as_str().is_some_and(|json| json.len() > FRAME_BYTES));
}

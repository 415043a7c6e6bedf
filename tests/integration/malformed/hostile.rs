//! Documents from an admitted peer that would harm a node that trusted them, applied to a store.

use std::time::{Duration, Instant};

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT};
use peat_node::clock::Now;
use peat_node::identity::EndpointId;
use peat_node::random::System;
use peat_node::store::{
    Applied, Apply, Body, Dot, Dots, Envelope, FileDisk, Incoming, Key, Kind, Lineage, Merged, Outcome, PeerRun, Reply,
    RunId, Store, StoreConfig, StoreRequest, Ticket,
};
use tempfile::TempDir;

use super::corpus;
use super::mutate::Mutator;

struct Bench {
    store: Store<FileDisk>,
    _directory: TempDir,
}

#[expect(clippy::disallowed_methods, reason = "a test is a shell")]
fn now() -> Now {
    Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
}

impl Bench {
    fn new() -> Bench {
        let directory = TempDir::new().expect("a directory");
        let disk = FileDisk::open(directory.path()).expect("a disk");
        let config = StoreConfig { flush_interval: Duration::from_secs(3600), ..StoreConfig::new(EndpointId([1; 32])) };
        let store = Store::open(disk, config, &mut System::default(), now()).expect("a store");
        Bench { store, _directory: directory }
    }

    /// Applies the chunks of a `merged` document as a peer would send them.
    fn receive(&mut self, id: &str, chunks: Vec<u8>) -> Applied {
        let from = PeerRun { node: EndpointId([2; 32]), run: RunId([3; 16]) };
        let name = Key::new("notes", id).expect("a key");
        let incoming = Incoming {
            hash: name.hash(),
            name: Some(name),
            kind: Kind::Merged,
            incarnation: 1,
            origin: from.node,
            lineage: Lineage { dots: Dots::one(Dot { writer: [2; 8], incarnation: 1 }), ..Lineage::default() },
            body: Body::Merged(Merged { chunks, heads: Vec::new() }),
        };
        let apply = Apply {
            from,
            into: RunId::default(),
            documents: vec![incoming],
            cursors: vec![],
            flush: false,
            excluded: Default::default(),
        };
        let mut replies: Vec<Reply> = Vec::new();
        let submitted = Envelope { ticket: Ticket::Sync(1), request: StoreRequest::Apply(apply) };
        self.store.handle_batch(now(), [submitted], &mut replies);
        match replies.pop().expect("an answer").result {
            Ok(Outcome::Applied(applied)) => applied,
            other => panic!("{other:?}"),
        }
    }

    fn json(&self, id: &str) -> Option<String> {
        let key = Key::new("notes", id).expect("a key");
        let snapshot = self.store.reader().snapshot().expect("a snapshot");
        snapshot.document(&key).expect("a readable document").map(|document| document.json)
    }
}

fn actor(number: u8) -> ActorId {
    ActorId::from([number; 16])
}

/// Returns a change that writes into a map created by another change, with that dependency removed.
fn change_of_an_object_that_is_not_there() -> Vec<u8> {
    let mut document = AutoCommit::new().with_actor(actor(1));
    let map = document.put_object(ROOT, "map", ObjType::Map).expect("a map");
    document.commit();
    let mut other = document.fork().with_actor(actor(2));
    other.put(&map, "key", 1).expect("a put");
    let change = other.get_last_local_change().expect("a change");
    let chunk = change.raw_bytes();
    // Skip magic, checksum, kind and a length of one byte; then drop one dependency of 32 bytes.
    let body = [&[0], &chunk[10 + 33..]].concat();
    let length = u8::try_from(body.len()).expect("a short change");
    corpus::with_checksum(&[&chunk[..9], &[length], &body].concat())
}

fn honest() -> AutoCommit {
    let mut document = AutoCommit::new().with_actor(actor(7));
    document.put(ROOT, "text", "honest").expect("a put");
    document
}

#[test]
fn a_change_that_automerge_panics_on_is_refused_and_the_node_goes_on() {
    let mut bench = Bench::new();
    assert!(bench.receive("held", honest().save_nocompress()).refused.is_empty());
    for id in ["held", "new"] {
        let applied = bench.receive(id, change_of_an_object_that_is_not_there());
        assert_eq!(applied.refused.len(), 1, "{id}: {applied:?}");
    }
    assert_eq!(bench.json("held").as_deref(), Some(r#"{"text":"honest"}"#));
    assert_eq!(bench.json("new"), None);
    assert!(bench.receive("new", honest().save_nocompress()).refused.is_empty());
}

#[test]
fn a_compressed_document_is_refused() {
    let mut bench = Bench::new();
    let mut document = honest();
    document.put(ROOT, "long", "long ".repeat(1_000)).expect("a put");
    assert_eq!(bench.receive("packed", document.save()).refused.len(), 1);
    assert_eq!(bench.json("packed"), None);
}

#[test]
fn whatever_changes_arrive_the_store_answers_and_what_it_kept_can_be_read() {
    let mut bench = Bench::new();
    let mut mutator = Mutator::new(8);
    let chunks = corpus::chunks();
    let mut kept = 0;
    for round in 0..600 {
        let id = format!("{}", round % 50);
        let bytes = corpus::with_checksum(&mutator.mutate(&chunks));
        let applied = bench.receive(&id, bytes);
        kept += usize::from(applied.refused.is_empty() && applied.missing.is_empty());
        drop(bench.json(&id));
    }
    assert!(kept > 0, "some mutations are harmless");
    assert!(bench.receive("end", honest().save_nocompress()).refused.is_empty());
}

//! Documents too large for any link: they are held back by name, and everything else replicates.

use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, AutoCommit, ROOT};

use super::mesh::{Mesh, Setup};
use crate::limits::RECORD_BYTES;
use crate::store::{Content, Key, Put};

/// Size of each of two fields, in bytes: together they exceed one record.
const FIELD_BYTES: usize = RECORD_BYTES / 2 + 1;

/// Creates two nodes that are not linked yet. The first holds the merge of one document written apart by two others: over 16
/// MiB.
fn merged_beyond_the_limit() -> Mesh {
    let mut mesh = Mesh::pair();
    mesh.bring(0, "notes", "big", field(1));
    mesh.bring(0, "notes", "big", field(2));
    assert!(size(&mesh, 0) > RECORD_BYTES);
    mesh
}

/// Returns the creator of a document with one long field, and its chunks.
fn field(writer: u8) -> (u8, Vec<u8>) {
    let mut document = AutoCommit::new().with_actor(ActorId::from([writer; 16]));
    let text = char::from(b'a' + writer).to_string().repeat(FIELD_BYTES);
    document.put(ROOT, format!("f{writer}"), text).expect("a put");
    document.commit_with(CommitOptions::default().with_time(1));
    (writer, document.save_nocompress())
}

fn size(mesh: &Mesh, node: usize) -> usize {
    let record = mesh.snapshot(node).record(&Key::new("notes", "big").expect("a key").hash());
    match record.expect("reads").expect("held").content {
        Content::Merged { history, .. } => history.size(),
        other => panic!("{other:?}"),
    }
}

/// Waits until both operators are notified.
fn await_notices(mesh: &mut Mesh) {
    let named = |notices: &[String]| notices.iter().any(|notice| notice.contains("document notes/big"));
    let told = mesh.run_until(Duration::from_secs(20), |mesh| (0..2).all(|node| named(&mesh.nodes[node].notices)));
    assert!(told, "{:?}, {:?}", mesh.nodes[0].notices, mesh.nodes[1].notices);
}

fn arrives(mesh: &mut Mesh, node: usize, id: &str) {
    let there = mesh.run_until(Duration::from_secs(20), |mesh| mesh.get(node, "notes", id).is_some());
    assert!(there, "notes/{id} is not at node {node}");
}

/// Asserts that the document, small again, replicates and is no longer named.
fn recovers(mesh: &mut Mesh) {
    mesh.converge();
    let quiet = mesh.run_until(Duration::from_secs(20), |mesh| (0..2).all(|node| mesh.nodes[node].notices.is_empty()));
    assert!(quiet, "{:?}, {:?}", mesh.nodes[0].notices, mesh.nodes[1].notices);
    assert_eq!(mesh.peers(0)[0].pending_documents, 0);
}

#[test]
fn a_record_over_the_limit_is_held_back_by_name_and_everything_else_flows() {
    let mut mesh = merged_beyond_the_limit();
    mesh.put(0, "notes", "before", "{}");
    await_notices(&mut mesh);
    arrives(&mut mesh, 1, "before");
    mesh.put(0, "notes", "after", "{}");
    mesh.put(1, "notes", "back", "{}");
    arrives(&mut mesh, 1, "after");
    arrives(&mut mesh, 0, "back");
    mesh.run_for(Duration::from_secs(10));
    assert!(mesh.is_connected(0) && mesh.is_connected(1));
    assert_eq!((mesh.peers(0)[0].pending_documents, mesh.peers(0)[0].held_documents), (1, 1));
    assert_eq!(mesh.peers(1)[0].held_documents, 1);
    assert!(mesh.nodes[0].notices[0].contains("peat-node compact notes big"), "{:?}", mesh.nodes[0].notices);

    // A new session changes nothing.
    mesh.cut(0, 1);
    mesh.run_for(Duration::from_secs(40));
    mesh.heal();
    mesh.connect_all();
    mesh.put(0, "notes", "later", "{}");
    arrives(&mut mesh, 1, "later");

    // Shortened, it is a document like any other.
    mesh.put(0, "notes", "big", r#"{"short":true}"#);
    recovers(&mut mesh);
    mesh.put(1, "notes", "big", r#"{"short":1}"#);
    mesh.converge();
}

#[test]
fn a_record_over_the_limit_can_be_deleted() {
    let mut mesh = merged_beyond_the_limit();
    await_notices(&mut mesh);
    mesh.write(0, "notes", "big", Put::Delete);
    recovers(&mut mesh);
}

#[test]
fn a_compacted_record_that_is_still_over_the_limit_travels_once_it_is_shortened() {
    let mut mesh = merged_beyond_the_limit();
    await_notices(&mut mesh);
    // Compacted, it is still too large; nothing breaks.
    mesh.write(0, "notes", "big", Put::Compact);
    mesh.put(0, "notes", "after", "{}");
    arrives(&mut mesh, 1, "after");
    // Without one of its fields it fits: a patch that removes so large a part starts a new incarnation.
    let without = r#"{"f1":null}"#.to_owned();
    mesh.write(0, "notes", "big", Put::Patch { json: without, base: None });
    recovers(&mut mesh);
    assert!(mesh.get(1, "notes", "big").is_some_and(|json| json.len() > FIELD_BYTES));
}

#[test]
fn a_node_that_lacks_little_of_a_record_over_the_limit_gets_that() {
    let mut mesh = merged_beyond_the_limit();
    mesh.bring(1, "notes", "big", field(1));
    mesh.converge();
    assert_eq!(mesh.nodes[0].notices, Vec::<String>::new());
    mesh.put(1, "notes", "other", "{}");
    mesh.converge();
}

#[test]
fn a_node_that_lacks_too_much_of_a_record_it_holds_is_told_so() {
    let mut mesh = merged_beyond_the_limit();
    mesh.put(1, "notes", "big", r#"{"own":1}"#);
    await_notices(&mut mesh);
    mesh.put(0, "notes", "after", "{}");
    arrives(&mut mesh, 1, "after");
    assert!(mesh.get(0, "notes", "big").is_some_and(|json| json.contains(r#""own":1"#)), "the other way it fits");
    assert!(mesh.is_connected(0));
    mesh.write(0, "notes", "big", Put::Delete);
    recovers(&mut mesh);
}

#[test]
fn a_document_that_came_by_another_way_once_it_was_shortened_is_not_named_any_more() {
    let dialling = |dials: Vec<usize>| Setup { dials, ..Setup::default() };
    let mut mesh = Mesh::new(vec![dialling(vec![1, 2]), dialling(vec![2]), dialling(vec![])]);
    mesh.bring(0, "notes", "big", field(1));
    mesh.bring(0, "notes", "big", field(2));
    await_notices(&mut mesh);
    mesh.cut(0, 1);
    mesh.run_for(Duration::from_secs(40));
    mesh.put(0, "notes", "big", r#"{"short":true}"#);
    mesh.converge();
    mesh.heal();
    let quiet = |mesh: &mut Mesh| mesh.nodes.iter().all(|node| node.notices.is_empty());
    assert!(mesh.run_until(Duration::from_secs(60), quiet), "{:?}", mesh.nodes[0].notices);
}

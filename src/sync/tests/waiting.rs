//! Waits until peers hold a version.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::store::{Key, Put};
use crate::sync::{Answer, Control};

fn wait(mesh: &mut Mesh, collection: &str, id: &str, sequence: u64) -> u64 {
    let key = Key::new(collection, id).expect("a valid key").hash();
    mesh.ask(0, Control::WaitPeers { key, sequence, peers: 1 })
}

fn is_done(mesh: &Mesh, call: u64) -> bool {
    mesh.nodes[0].answers.get(&call) == Some(&Ok(Answer::Done))
}

#[test]
fn a_wait_ends_when_the_peer_has_it_on_disk_and_does_not_wait_for_the_flush_interval() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(10));
    for collection in ["platforms", "notes"] {
        let sequence = mesh.put(0, collection, "a", r#"{"a":1}"#);
        let call = wait(&mut mesh, collection, "a", sequence);
        assert!(!is_done(&mesh, call));
        assert!(mesh.run_until(Duration::from_millis(100), |mesh| is_done(mesh, call)), "{collection}");
    }
}

#[test]
fn a_wait_for_what_the_peer_already_has_ends() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    let sequence = mesh.put(0, "notes", "a", r#"{"a":1}"#);
    mesh.converge();
    mesh.run_for(Duration::from_secs(10));
    let call = wait(&mut mesh, "notes", "a", sequence);
    assert!(mesh.run_until(Duration::from_millis(100), |mesh| is_done(mesh, call)));
}

#[test]
fn a_superseding_version_satisfies_a_wait() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.cut(0, 1);
    let sequence = mesh.put(0, "notes", "a", r#"{"a":1}"#);
    let call = wait(&mut mesh, "notes", "a", sequence);
    mesh.put(0, "notes", "a", r#"{"a":2}"#);
    mesh.run_for(Duration::from_secs(2));
    assert!(!is_done(&mesh, call), "nobody has it");
    mesh.heal();
    assert!(mesh.run_until(Duration::from_secs(60), |mesh| is_done(mesh, call)));
}

#[test]
fn a_wait_for_what_the_peer_itself_wrote_ends_at_once() {
    for collection in ["platforms", "notes"] {
        let mut mesh = Mesh::pair();
        mesh.connect_all();
        mesh.run_for(Duration::from_secs(10));
        mesh.put(1, collection, "a", r#"{"a":1}"#);
        mesh.converge();
        let sequence = mesh.sequence(0, collection, "a");
        let call = wait(&mut mesh, collection, "a", sequence);
        assert!(mesh.run_until(Duration::from_millis(100), |mesh| is_done(mesh, call)), "{collection}");
    }
}

/// Creates two nodes at which `notes` is `merged` and `latest` respectively.
fn mismatched() -> Mesh {
    let odd = Setup { dials: vec![0], latest: vec!["platforms", "notes"], ..Setup::default() };
    let even = Setup { latest: vec!["platforms"], ..Setup::default() };
    let mut mesh = Mesh::new(vec![even, odd]);
    mesh.connect_all();
    mesh
}

#[test]
fn a_peer_with_which_a_collection_does_not_sync_does_not_count_as_holding_its_documents() {
    let mut mesh = mismatched();
    let sequence = mesh.put(0, "notes", "two", r#"{"a":1}"#);
    let put = wait(&mut mesh, "notes", "two", sequence);
    let sequence = mesh.write(0, "notes", "two", Put::Delete);
    let deleted = wait(&mut mesh, "notes", "two", sequence);
    mesh.put(0, "platforms", "p", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(20));
    assert!(!is_done(&mesh, put) && !is_done(&mesh, deleted));
    assert_eq!(mesh.get(1, "platforms", "p").as_deref(), Some(r#"{"a":1}"#));
}

//! No lane stalls, regardless of edits to documents in flight.

use std::time::Duration;

use super::mesh::Mesh;
use crate::store::Put;

/// Size of a text, in bytes. Its history is offered rather than sent once its chunks are compacted into one.
const OFFERED: usize = 5_000;

/// Creates two linked nodes with this one-way delay, and a large document that both hold.
fn pair(delay: Duration) -> Mesh {
    let mut mesh = Mesh::pair();
    mesh.put(0, "notes", "large", &format!(r#"{{"n":0,"text":"{}"}}"#, "x".repeat(OFFERED)));
    mesh.connect_all();
    mesh.converge();
    mesh.run_for(Duration::from_secs(10));
    mesh.wire.delay = delay;
    mesh
}

fn patch(mesh: &mut Mesh, id: &str, n: usize) {
    let json = format!(r#"{{"n":{n},"more":"{n} {}"}}"#, "y".repeat(n % 40));
    mesh.write(0, "notes", id, Put::Patch { json, base: None });
}

#[test]
fn edits_that_overtake_the_answer_to_an_offer_do_not_stop_the_lane() {
    let mut mesh = pair(Duration::from_millis(700));
    for n in 1..=400 {
        patch(&mut mesh, "large", n);
        mesh.run_for(Duration::from_millis(20));
    }
    mesh.put(0, "notes", "another", r#"{"after":"the edits"}"#);
    mesh.converge();
}

#[test]
fn a_peer_that_stopped_for_a_moment_gets_every_edit_made_meanwhile() {
    let mut mesh = pair(Duration::from_millis(2));
    mesh.stop(1);
    for n in 1..=200 {
        patch(&mut mesh, "large", n);
        mesh.run_for(Duration::from_millis(5));
    }
    mesh.go_on(1);
    mesh.put(0, "notes", "another", r#"{"after":"the edits"}"#);
    mesh.converge();
}

/// Edits one document repeatedly, then another once; returns the delay of the other, and of the last edit.
fn flood(mesh: &mut Mesh, collection: &str, json: impl Fn(usize) -> String, every: Duration) -> (Duration, Duration) {
    let mut last = String::new();
    for n in 1..=400 {
        last = json(n);
        mesh.put(0, collection, "hot", &last);
        mesh.run_for(every);
    }
    mesh.put(0, collection, "other", r#"{"n":1}"#);
    let before = mesh.now().mono;
    let mut arrives = |id: &str, expected: &str| {
        let is_there = |mesh: &mut Mesh| mesh.get(1, collection, id).as_deref() == Some(expected);
        assert!(mesh.run_until(Duration::from_secs(60), is_there), "{collection}/{id} does not arrive");
        mesh.now().mono - before
    };
    (arrives("other", r#"{"n":1}"#), arrives("hot", &last))
}

#[test]
fn a_document_edited_without_end_delays_no_other_and_arrives_as_it_is_last() {
    // 1 MB/s, and two hundred edits per second: of 20 kB, of which only the last is needed, and of 2 kB with a history.
    for (collection, repeats) in [("platforms", 2_500), ("notes", 250)] {
        let text = |n: usize| format!(r#"{{"n":{n},"text":"{}"}}"#, format!("{n:08}").repeat(repeats));
        let mut mesh = Mesh::pair();
        mesh.connect_all();
        mesh.wire.bytes_per_second = Some(1_000_000);
        let (other, last) = flood(&mut mesh, collection, text, Duration::from_millis(5));
        assert!(other < Duration::from_secs(2), "{collection}: the other document took {other:?}");
        assert!(last < Duration::from_secs(5), "{collection}: the last edit took {last:?}");
    }
}

/// QUIC sends a keep-alive on an idle link every 12 s.
#[test]
fn a_link_that_was_idle_is_not_given_up_at_its_first_word() {
    for quarters in 36..52 {
        let mut mesh = Mesh::pair();
        mesh.connect_all();
        mesh.run_for(Duration::from_millis(250 * quarters));
        mesh.put(1, "platforms", "p", r#"{"n":1}"#);
        let lost = mesh.run_until(Duration::from_secs(2), |mesh| !mesh.is_connected(1));
        assert!(!lost, "after {} ms: {:?}", 250 * quarters, mesh.peers(1));
    }
}

#[test]
fn a_lane_on_which_nothing_moves_is_reported_and_its_link_replaced() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(10));
    mesh.hold_store(1);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(50));
    assert_eq!(mesh.peers(0)[0].last_error, "");
    mesh.run_for(Duration::from_secs(20));
    let stalled = "nothing moves: the acknowledgement of batches on the merged lane has not come for";
    assert!(mesh.peers(0)[0].last_error.starts_with(stalled), "{:?}", mesh.peers(0));
    assert!(mesh.nodes[0].notices[0].contains(stalled), "health says so: {:?}", mesh.nodes[0].notices);
    assert!(mesh.is_connected(0), "it may yet come");
    assert!(mesh.run_until(Duration::from_secs(600), |mesh| !mesh.is_connected(0)), "the link is given up");
    mesh.release_store(1);
    mesh.connect_all();
    mesh.converge();
    assert_eq!(mesh.peers(0)[0].last_error, "");
    assert_eq!(mesh.nodes[0].notices, Vec::<String>::new());
}

//! No lane comes to a standstill, whatever is edited while something of it is on its way.

use std::time::Duration;

use super::mesh::Mesh;
use crate::store::Put;

/// A history that is offered, not sent, once its chunks are one.
const OFFERED: usize = 5_000;

/// Two linked nodes whose messages take so long one way, and a large document that both hold.
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

//! Measurements of links: by peer, by lane, and whether a dial was attempted.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::sync::link::Lane;
use crate::sync::{Answer, Control, Measured};

pub(super) fn measure(mesh: &mut Mesh, node: usize) -> Measured {
    let call = mesh.ask(node, Control::Measure);
    match mesh.nodes[node].answers.remove(&call) {
        Some(Ok(Answer::Measured(measured))) => *measured,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_travels_is_counted_at_both_ends_by_peer_and_class() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(1));
    let class = |measured: &Measured, lane: Lane| measured.peers[0].traffic[lane];
    let (before, idle) = (measure(&mut mesh, 0), measure(&mut mesh, 1));
    mesh.put(0, "notes", "a", r#"{"a":1}"#);
    mesh.converge();
    let (after, there) = (measure(&mut mesh, 0), measure(&mut mesh, 1));
    assert!(class(&after, Lane::Merged).sent > class(&before, Lane::Merged).sent);
    assert_eq!(class(&after, Lane::Latest), class(&before, Lane::Latest));
    let arrived = class(&there, Lane::Merged).received - class(&idle, Lane::Merged).received;
    assert_eq!(arrived, class(&after, Lane::Merged).sent - class(&before, Lane::Merged).sent);
    assert_eq!((after.known_peers, after.peers[0].name.as_str()), (1, "node-1"));
    assert!(after.stats.bytes_sent > 0);
}

#[test]
fn a_node_whose_peer_does_not_answer_has_tried_once_an_attempt_is_over() {
    let mut mesh = Mesh::new(vec![Setup { dials: vec![1], ..Setup::default() }, Setup::default()]);
    mesh.cut(0, 1);
    let tried = |mesh: &mut Mesh| mesh.nodes[0].engine.status().tried;
    mesh.run_for(Duration::from_secs(1));
    assert!(!tried(&mut mesh));
    assert!(mesh.run_until(Duration::from_secs(60), tried));
    assert!(!measure(&mut mesh, 0).peers[0].connected);
}

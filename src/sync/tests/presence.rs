//! Presence reaches every node once, by any path, and is not stored.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::sync::Control;

/// Returns the number of times that node 0 was reported as present to node `of`.
fn heard(mesh: &Mesh, of: usize) -> usize {
    let zero = mesh.id(0);
    mesh.nodes[of].present.iter().filter(|id| **id == zero).count()
}

fn chain(nodes: usize) -> Mesh {
    let mut setups = vec![Setup::default()];
    setups.extend((1..nodes).map(|node| Setup { dials: vec![node - 1], ..Setup::default() }));
    let mut mesh = Mesh::new(setups);
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(5));
    mesh
}

#[test]
fn a_presence_reaches_every_node_of_a_chain_once() {
    let mut mesh = chain(4);
    let sequence = mesh.snapshot(3).visible();
    for round in 1..=3 {
        mesh.ask(0, Control::Announce);
        mesh.run_for(Duration::from_secs(30));
        for node in 1..4 {
            assert_eq!(heard(&mesh, node), round, "node {node}");
        }
    }
    assert_eq!(mesh.nodes[0].present, [], "never echoed");
    assert_eq!(mesh.snapshot(3).visible(), sequence, "nothing is stored");
}

#[test]
fn in_a_ring_a_presence_is_told_once_and_dies_out() {
    let dials = |dials: &[usize]| Setup { dials: dials.to_vec(), ..Setup::default() };
    let mut mesh = Mesh::new(vec![dials(&[]), dials(&[0]), dials(&[1]), dials(&[2, 0])]);
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(20));
    mesh.take_carried();
    mesh.run_for(Duration::from_secs(30));
    let (_, idle) = mesh.take_carried();
    mesh.ask(0, Control::Announce);
    mesh.run_for(Duration::from_secs(30));
    let (_, busy) = mesh.take_carried();
    assert!((1..4).all(|node| heard(&mesh, node) == 1));
    assert!(busy <= idle + 40, "{busy} datagrams with an announcement, {idle} without");
}

#[test]
fn a_node_that_connects_hears_at_once_who_is_there() {
    let mut mesh = chain(2);
    mesh.cut(0, 1);
    assert!(mesh.run_until(Duration::from_secs(60), |mesh| !mesh.is_connected(0)));
    mesh.ask(0, Control::Announce);
    mesh.heal();
    assert!(mesh.run_until(Duration::from_secs(25), |mesh| heard(mesh, 1) == 1));
}

#[test]
fn under_radio_silence_nobody_is_announced() {
    let mut mesh = chain(2);
    mesh.ask(0, Control::StopSync);
    mesh.carried.clear();
    mesh.ask(0, Control::Announce);
    mesh.run_for(Duration::from_secs(60));
    assert_eq!((heard(&mesh, 1), mesh.carried.get(&(0, 1))), (0, None));
}

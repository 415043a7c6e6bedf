//! Nodes that move between networks, and their reaction to it.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::sync::Control;

/// Time allowed from the moment there is a path.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Creates two nodes that dial each other.
fn mutual() -> Mesh {
    Mesh::new(vec![Setup { dials: vec![1], ..Setup::default() }, Setup { dials: vec![0], ..Setup::default() }])
}

#[test]
fn who_waits_for_its_backoff_dials_at_once_when_the_network_changes() {
    let mut mesh = Mesh::pair();
    mesh.cut(0, 1);
    mesh.run_for(Duration::from_secs(90));
    mesh.heal();
    mesh.network_changed(1);
    assert!(mesh.run_until(Duration::from_millis(500), |mesh| mesh.is_connected(1)));
}

#[test]
fn a_link_follows_the_node_that_dialled_it_to_another_address() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(8));
    mesh.relocate(1);
    mesh.take_carried();
    mesh.network_changed(1);
    mesh.run_for(Duration::from_millis(100));
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    assert!(mesh.run_until(Duration::from_millis(500), |mesh| mesh.get(1, "notes", "n").is_some()));
    let (bytes, _) = mesh.take_carried();
    assert!(bytes < 4_000, "{bytes} bytes: as much as a new connection takes");
}

#[test]
fn whoever_dialled_a_node_that_moves_is_in_sync_at_once() {
    for moves in [0, 1] {
        let mut mesh = mutual();
        mesh.connect_all();
        mesh.run_for(Duration::from_secs(20));
        mesh.relocate(moves);
        mesh.network_changed(moves);
        mesh.put(moves, "notes", "n", r#"{"a":1}"#);
        let arrived = mesh.run_until(AT_ONCE, |mesh| mesh.get(1 - moves, "notes", "n").is_some());
        assert!(arrived, "node {moves} moved");
        mesh.put(1 - moves, "notes", "m", r#"{"a":1}"#);
        assert!(mesh.run_until(AT_ONCE, |mesh| mesh.get(moves, "notes", "m").is_some()), "node {moves} moved");
    }
}

#[test]
fn a_link_that_leads_nowhere_since_the_network_changed_is_given_up_for_one_that_does() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(8));
    mesh.cut(0, 1);
    mesh.network_changed(1);
    mesh.run_for(Duration::from_millis(1_100));
    assert!(!mesh.is_connected(1));
    mesh.run_for(Duration::from_secs(30));
    mesh.heal();
    mesh.network_changed(1);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    assert!(mesh.run_until(AT_ONCE, |mesh| mesh.get(1, "notes", "n").is_some()));
}

#[test]
fn an_interface_that_flaps_makes_no_storm() {
    let mut mesh = Mesh::pair();
    mesh.cut(0, 1);
    for _ in 0..3_000 {
        mesh.network_changed(1);
        mesh.run_for(Duration::from_millis(20));
    }
    let (_, datagrams) = mesh.take_carried();
    assert!(datagrams < 150, "{datagrams} datagrams in a minute of flapping");
    mesh.heal();
    mesh.run_for(Duration::from_secs(10));
    assert!(mesh.is_connected(1));
}

#[test]
fn under_radio_silence_a_change_of_the_network_moves_nobody() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.ask(1, Control::StopSync);
    mesh.carried.clear();
    for _ in 0..10 {
        mesh.network_changed(1);
        mesh.run_for(Duration::from_secs(3));
    }
    assert_eq!(mesh.carried.get(&(1, 0)), None);
}

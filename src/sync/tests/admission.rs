//! Admission of peers.

use std::time::Duration;

use super::mesh::{Mesh, Setup, address};
use crate::sync::{Address, Control, PeerSpec};

fn after_ten_seconds(a: Setup, b: Setup) -> Mesh {
    let mut mesh = Mesh::new(vec![a, Setup { dials: vec![0], ..b }]);
    mesh.put(0, "notes", "secret", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(10));
    mesh
}

#[test]
fn a_node_with_another_key_gets_no_document_and_both_sides_say_why() {
    let mut mesh =
        after_ten_seconds(Setup::default(), Setup { key: Some(b"another formation key entirely"), ..Setup::default() });
    assert_eq!(mesh.get(1, "notes", "secret"), None);
    assert!(!mesh.is_connected(0) && !mesh.is_connected(1));
    let reason = mesh.peers(1)[0].last_error.clone();
    assert!(reason.contains("formation proof is wrong"), "{reason}");
}

#[test]
fn a_node_without_a_key_is_told_which_flags_would_help() {
    let mut mesh = after_ten_seconds(Setup::default(), Setup { key: None, ..Setup::default() });
    assert_eq!(mesh.get(1, "notes", "secret"), None);
    let reason = mesh.peers(1)[0].last_error.clone();
    assert!(reason.contains("--shared-key") && reason.contains("--peer"), "{reason}");
}

#[test]
fn a_pinned_peer_needs_no_key() {
    let a = Setup { key: None, pins: vec![1], ..Setup::default() };
    let mut mesh = after_ten_seconds(a, Setup { key: None, ..Setup::default() });
    assert!(mesh.is_connected(0));
    mesh.converge();
}

#[test]
fn nodes_of_different_applications_do_not_meet() {
    let mut mesh = after_ten_seconds(Setup::default(), Setup { app_id: "other", ..Setup::default() });
    assert_eq!(mesh.get(1, "notes", "secret"), None);
    assert!(!mesh.is_connected(1));
}

#[test]
fn two_nodes_that_dial_each_other_end_with_one_connection() {
    let setups = vec![Setup { dials: vec![1], ..Setup::default() }, Setup { dials: vec![0], ..Setup::default() }];
    let mut mesh = Mesh::new(setups);
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(30));
    for node in 0..2 {
        let stats = mesh.nodes[node].engine.stats();
        assert_eq!(stats.connected_peers, 1);
    }
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    mesh.converge();
}

fn named(mesh: &Mesh, node: usize, dialled: bool) -> PeerSpec {
    let addresses = dialled.then(|| Address::Literal(address(node)));
    PeerSpec { id: mesh.id(node), addresses: addresses.into_iter().collect() }
}

fn keyless(nodes: usize) -> Mesh {
    Mesh::new(vec![Setup { key: None, ..Setup::default() }; nodes])
}

#[test]
fn peers_named_in_a_reload_are_linked_and_those_no_longer_named_are_not() {
    let mut mesh = keyless(2);
    let (zero, one) = (named(&mesh, 0, true), named(&mesh, 1, false));
    mesh.reload(0, vec![one]);
    mesh.reload(1, vec![zero]);
    mesh.connect_all();
    mesh.reload(0, Vec::new());
    assert!(!mesh.is_connected(0), "at once");
    mesh.run_for(Duration::from_secs(60));
    assert!(!mesh.is_connected(0) && !mesh.is_connected(1), "and it stays away");
}

#[test]
fn a_reload_leaves_links_alone_that_it_does_not_name_anew() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    let zero = named(&mesh, 0, true);
    mesh.reload(1, vec![zero]);
    mesh.run_for(Duration::from_secs(1));
    mesh.take_carried();
    assert!(mesh.is_connected(0) && mesh.is_connected(1), "with the same peers and key");
}

#[test]
fn a_peer_that_was_connected_by_a_call_stays_when_the_configuration_names_it_no_longer() {
    let mut mesh = keyless(2);
    let (zero, one) = (named(&mesh, 0, true), named(&mesh, 1, false));
    mesh.reload(0, vec![one]);
    mesh.reload(1, vec![zero.clone()]);
    mesh.connect_all();
    let addresses = vec![address(0).to_string()];
    mesh.ask(1, Control::Connect { peer: zero.id, addresses, wait: None });
    mesh.reload(1, Vec::new());
    mesh.run_for(Duration::from_secs(60));
    assert!(mesh.is_connected(1));
}

#[test]
fn a_peer_that_was_disconnected_by_a_call_stays_away_though_a_reload_names_it() {
    let mut mesh = keyless(2);
    let (zero, one) = (named(&mesh, 0, true), named(&mesh, 1, false));
    mesh.reload(0, vec![one]);
    mesh.reload(1, vec![zero.clone()]);
    mesh.connect_all();
    mesh.ask(1, Control::Disconnect(zero.id));
    mesh.reload(1, Vec::new());
    mesh.reload(1, vec![zero]);
    mesh.run_for(Duration::from_secs(60));
    assert!(!mesh.is_connected(1));
}

#[test]
fn a_restored_backup_that_lost_a_disconnect_says_so_of_the_peer_it_lets_in_again() {
    let setup = Setup::default();
    let mut mesh = Mesh::new(vec![
        setup.clone(),
        Setup { dials: vec![0], ..setup.clone() },
        Setup { dials: vec![0], ..setup.clone() },
    ]);
    mesh.connect_all();
    mesh.put(0, "missions", "before", "{}");
    mesh.converge();
    mesh.run_for(Duration::from_secs(10));
    let backup = mesh.backup(0);
    // The node is stopped for a backup, and then continues in another run.
    let disk = mesh.backup(0);
    mesh.restore(0, &setup, disk);
    mesh.run_for(Duration::from_secs(60));
    mesh.put(0, "missions", "after", "{}");
    mesh.converge();
    mesh.run_for(Duration::from_secs(10));
    let lost = mesh.id(2);
    mesh.ask(0, Control::Disconnect(lost));
    mesh.run_for(Duration::from_secs(10));
    let shown = |mesh: &mut Mesh, id| mesh.peers(0).into_iter().find(|peer| peer.id == id).expect("listed");
    assert!(!shown(&mut mesh, lost).connected);

    mesh.restore(0, &setup, backup);
    assert!(
        mesh.run_until(Duration::from_secs(60), |mesh| mesh.peers(0).iter().filter(|peer| peer.connected).count() == 2)
    );
    let peer = shown(&mut mesh, lost);
    assert!(peer.path_reason.contains("may lack a `disconnect`"), "{peer:?}");
}

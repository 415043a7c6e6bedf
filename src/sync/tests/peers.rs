//! Requests about peers and their answers, and peers seen before a restart.

use std::time::Duration;

use super::mesh::{Mesh, Setup, address};
use crate::sync::{Address, Answer, Control, ControlError, PeerSpec};

/// Returns the number of peers in a list without `all`.
fn listed(mesh: &mut Mesh, node: usize) -> usize {
    let call = mesh.ask(node, Control::ListPeers);
    match mesh.nodes[node].answers.remove(&call) {
        Some(Ok(Answer::Peers(peers))) => peers.len(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_disconnected_peer_is_listed_only_when_asked_for_with_address_and_reason_across_restarts_too() {
    let setup = Setup { dials: vec![0], ..Setup::default() };
    let mut mesh = Mesh::new(vec![Setup::default(), setup]);
    mesh.connect_all();
    let peer = mesh.id(0);
    assert_eq!(listed(&mut mesh, 1), 1);
    mesh.ask(1, Control::Disconnect(peer));
    for _ in 0..2 {
        mesh.run_for(Duration::from_secs(40));
        assert_eq!(listed(&mut mesh, 1), 0);
        let refused = &mesh.peers(1)[0];
        assert!(refused.last_error.contains("disconnected by an operator"), "{refused:?}");
        assert_eq!(refused.addresses, [address(0).to_string()]);
        // The configuration no longer names it.
        let disk = mesh.backup(1);
        mesh.restore(1, &Setup::default(), disk);
    }
    // Its address is still known.
    let call = mesh.ask(1, Control::Connect { peer, addresses: Vec::new(), wait: None });
    assert_eq!(mesh.nodes[1].answers.get(&call), Some(&Ok(Answer::Done)));
    mesh.connect_all();
    assert_eq!(listed(&mut mesh, 1), 1);
}

#[test]
fn peers_that_are_named_by_their_ids_alone_say_that_an_address_is_missing() {
    let setup = |other| Setup { key: None, pins: vec![other], ..Setup::default() };
    let mut mesh = Mesh::new(vec![setup(1), setup(0)]);
    mesh.run_for(Duration::from_secs(10));
    for node in 0..2 {
        let peer = &mesh.peers(node)[0];
        assert!(!peer.connected && peer.last_error.contains("no address of it is known here"), "{peer:?}");
    }
    let (zero, addresses) = (mesh.id(0), vec![address(0).to_string()]);
    mesh.ask(1, Control::Connect { peer: zero, addresses, wait: None });
    mesh.connect_all();
    assert!(mesh.peers(0)[0].last_error.is_empty());
}

#[test]
fn a_node_that_is_dialled_contacts_its_peers_after_a_restart() {
    for (pins, key) in [(vec![], Setup::default().key), (vec![1], None)] {
        let zero = Setup { pins, key, ..Setup::default() };
        let mut mesh = Mesh::new(vec![zero.clone(), Setup { key, dials: vec![0], ..Setup::default() }]);
        mesh.connect_all();
        for quiet in [5, 25, 100] {
            mesh.run_for(Duration::from_secs(quiet));
            let disk = mesh.backup(0);
            mesh.restore(0, &zero, disk);
            assert!(!mesh.is_connected(0));
            let again = mesh.run_until(Duration::from_secs(1), |mesh| mesh.is_connected(0));
            assert!(again, "after {quiet} s: {:?}", mesh.peers(0));
            mesh.put(0, "notes", &format!("n{quiet}"), "{}");
            mesh.converge();
        }
    }
}

#[test]
fn a_node_that_was_down_for_long_is_linked_at_once_whatever_its_peers_wait_for() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    let disk = mesh.backup(0);
    mesh.cut(0, 1);
    // Its peer dials every half minute in the end.
    mesh.run_for(Duration::from_secs(600));
    mesh.heal();
    mesh.restore(0, &Setup::default(), disk);
    assert!(mesh.run_until(Duration::from_secs(1), |mesh| mesh.is_connected(0)), "{:?}", mesh.peers(0));
}

#[test]
fn a_peer_that_moved_is_contacted_where_it_was_seen_last() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    mesh.relocate(1);
    mesh.network_changed(1);
    let disk = mesh.backup(1);
    mesh.restore(1, &Setup { dials: vec![0], ..Setup::default() }, disk);
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(5));
    let disk = mesh.backup(0);
    mesh.restore(0, &Setup::default(), disk);
    assert!(mesh.run_until(Duration::from_secs(1), |mesh| mesh.is_connected(0)), "{:?}", mesh.peers(0));
}

#[test]
fn a_peer_that_was_seen_before_is_not_let_in_once_the_key_is_another() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    for key in [Some(&b"another formation key entirely"[..]), None] {
        let disk = mesh.backup(0);
        mesh.restore(0, &Setup { key, ..Setup::default() }, disk);
        mesh.put(0, "notes", "secret", r#"{"a":1}"#);
        mesh.run_for(Duration::from_secs(60));
        assert!(!mesh.is_connected(0) && mesh.get(1, "notes", "secret").is_none());
    }
}

#[test]
fn a_peer_that_was_disconnected_is_not_contacted() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    let one = mesh.id(1);
    mesh.ask(0, Control::Disconnect(one));
    mesh.run_for(Duration::from_secs(1));
    let disk = mesh.backup(0);
    mesh.restore(0, &Setup::default(), disk);
    mesh.carried.clear();
    mesh.cut_one_way(1, 0);
    mesh.run_for(Duration::from_secs(60));
    assert_eq!(mesh.carried.get(&(0, 1)), None);
}

/// Connects node 1 to node 0 and waits for `seconds`.
fn connect(mesh: &mut Mesh, to: usize, seconds: u64) -> u64 {
    let (peer, addresses) = (mesh.id(0), vec![address(to).to_string()]);
    mesh.ask(1, Control::Connect { peer, addresses, wait: Some(Duration::from_secs(seconds)) })
}

#[test]
fn a_call_that_waits_is_answered_once_the_peer_is_admitted() {
    let mut mesh = Mesh::new(vec![Setup::default(); 2]);
    for _ in 0..2 {
        let call = connect(&mut mesh, 0, 10);
        assert!(mesh.run_until(Duration::from_secs(2), |mesh| mesh.nodes[1].answers.contains_key(&call)));
        assert_eq!(mesh.nodes[1].answers[&call], Ok(Answer::Done));
        assert!(mesh.is_connected(1), "and again, while it is");
    }
}

#[test]
fn a_call_that_waits_in_vain_is_told_why() {
    let wrong = Setup { key: Some(b"another formation key entirely"), ..Setup::default() };
    for (setup, to, why) in [
        (wrong, 0, "formation proof is wrong"),
        (Setup::default(), 7, "no answer"),
        (Setup::default(), 1, "correct the peer's id"),
    ] {
        let mut mesh = Mesh::new(vec![setup, Setup::default()]);
        let call = connect(&mut mesh, to, 15);
        mesh.run_for(Duration::from_millis(14_900));
        assert_eq!(mesh.nodes[1].answers.get(&call), None, "it may come yet");
        mesh.run_for(Duration::from_millis(200));
        match mesh.nodes[1].answers.get(&call) {
            Some(Err(ControlError::NotAdmitted(peer, words))) => {
                assert!(*peer == mesh.id(0) && words.contains(why), "{words}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_call_that_waits_under_radio_silence_is_told_of_it() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { active: false, ..Setup::default() }]);
    let call = connect(&mut mesh, 0, 5);
    mesh.run_for(Duration::from_secs(6));
    let answer = mesh.nodes[1].answers.get(&call);
    assert!(
        matches!(answer, Some(Err(ControlError::NotAdmitted(_, words))) if words.contains("silence")),
        "{answer:?}"
    );
}

#[test]
fn calls_that_wait_are_bounded_and_may_be_given_up() {
    let mut mesh = Mesh::new(vec![Setup::default(); 2]);
    let first = connect(&mut mesh, 7, 1_000);
    (1..256).for_each(|_| _ = connect(&mut mesh, 7, 1_000));
    let over = connect(&mut mesh, 7, 1_000);
    assert_eq!(mesh.nodes[1].answers.get(&over), Some(&Err(ControlError::TooManyWait)));
    mesh.ask(1, Control::Abandon { call: first });
    let another = connect(&mut mesh, 7, 1_000);
    assert_eq!(mesh.nodes[1].answers.get(&another), None);
}

#[test]
fn a_reload_that_names_a_seen_peer_dials_it_as_named() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.connect_all();
    let spec = PeerSpec { id: mesh.id(1), addresses: vec![Address::Literal(address(1))] };
    mesh.reload(0, vec![spec]);
    mesh.run_for(Duration::from_secs(10));
    assert!(mesh.is_connected(0));
    assert_eq!(mesh.peers(0)[0].addresses, [address(1).to_string()]);
}

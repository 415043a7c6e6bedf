//! Paths: direct if that works, otherwise through a relay, with changes in either direction that lose nothing.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::sync::{Answer, Control};

/// Creates two nodes with allocations at the relay; the second dials the first, directly or through the relay.
fn pair(direct: bool) -> Mesh {
    let dials = if direct { vec![0] } else { vec![] };
    let mut mesh = Mesh::new(vec![
        Setup { relayed: vec![1], ..Setup::default() },
        Setup { dials, relayed: vec![0], ..Setup::default() },
    ]);
    mesh.start_relay(1);
    mesh
}

/// Creates a pair on a direct path; only the second dials, so there is one connection.
fn direct() -> Mesh {
    let mut mesh = pair(true);
    mesh.connect_all();
    assert!(mesh.run_until(Duration::from_secs(20), |mesh| way(mesh) == "direct"), "{:#?}", mesh.peers(1));
    // A few round trips, so that QUIC has measured the path.
    mesh.put(0, "notes", "first", r#"{"a":1}"#);
    mesh.converge();
    mesh.run_for(Duration::from_secs(1));
    mesh
}

fn way(mesh: &mut Mesh) -> &'static str {
    mesh.peers(1)[0].path.unwrap_or("none")
}

/// Puts a document on `from` and waits until the other node has it; fails if that takes longer, or if the session ends
/// meanwhile.
fn arrives(mesh: &mut Mesh, from: usize, id: &str, within: Duration) {
    mesh.put(from, "notes", id, r#"{"a":1}"#);
    let arrived = mesh.run_until(within, |mesh| {
        assert!(mesh.is_connected(0) && mesh.is_connected(1), "the session was lost");
        mesh.get(1 - from, "notes", id).is_some()
    });
    assert!(arrived, "{id}: {:#?}", mesh.peers(1));
}

#[test]
fn nodes_that_cannot_reach_each_other_meet_through_a_relay() {
    let mut mesh = pair(false);
    mesh.cut(0, 1);
    assert!(mesh.run_until(Duration::from_secs(2), |mesh| mesh.is_connected(0) && mesh.is_connected(1)));
    assert_eq!(way(&mut mesh), "relay");
    arrives(&mut mesh, 0, "there", Duration::from_secs(1));
    arrives(&mut mesh, 1, "back", Duration::from_secs(1));
    assert_eq!((mesh.carried.get(&(0, 1)), mesh.carried.get(&(1, 0))), (None, None));
}

#[test]
fn a_direct_address_is_preferred_although_the_relay_works() {
    let mut mesh = direct();
    let peer = mesh.peers(1).remove(0);
    assert_eq!((peer.path, peer.path_reason.is_empty()), (Some("direct"), false));
}

#[test]
fn a_peer_whose_direct_address_is_dead_is_reached_through_the_relay_within_two_seconds() {
    let mut mesh = pair(true);
    mesh.cut(0, 1);
    assert!(mesh.run_until(Duration::from_secs(2), |mesh| mesh.is_connected(1)));
    assert_eq!(way(&mut mesh), "relay");
    assert_eq!(mesh.peers(1)[0].path_reason, "no direct address answered");
}

#[test]
fn when_the_direct_way_fails_documents_go_through_the_relay_within_two_seconds_and_back_when_it_returns() {
    for writer in [0, 1] {
        let mut mesh = direct();
        mesh.cut(0, 1);
        arrives(&mut mesh, writer, "during", Duration::from_secs(2));
        assert_eq!(way(&mut mesh), "relay");
        arrives(&mut mesh, 1 - writer, "answer", Duration::from_secs(1));
        mesh.heal();
        assert!(mesh.run_until(Duration::from_secs(20), |mesh| {
            assert!(mesh.is_connected(0) && mesh.is_connected(1), "the session was lost");
            way(mesh) == "direct"
        }));
        assert_eq!(mesh.peers(1)[0].path_reason, "a direct address answers again");
        arrives(&mut mesh, writer, "after", Duration::from_secs(1));
        mesh.run_for(Duration::from_secs(1));
        let forwarded = |mesh: &Mesh| mesh.relay.as_ref().map(|relay| relay.counts().1);
        let before = forwarded(&mesh);
        mesh.put(writer, "notes", "last", r#"{"a":1}"#);
        mesh.converge();
        assert_eq!(forwarded(&mesh), before, "the relay is not needed any more");
    }
}

#[test]
fn a_way_that_works_in_one_direction_only_is_left_too() {
    for (writer, (from, to)) in [(0, (0, 1)), (0, (1, 0)), (1, (0, 1)), (1, (1, 0))] {
        let mut mesh = direct();
        mesh.cut_one_way(from, to);
        arrives(&mut mesh, writer, "during", Duration::from_secs(2));
        mesh.run_for(Duration::from_secs(3));
        arrives(&mut mesh, 1 - writer, "answer", Duration::from_secs(2));
    }
}

#[test]
fn a_relay_that_was_started_anew_is_found_again() {
    let mut mesh = pair(false);
    mesh.cut(0, 1);
    mesh.connect_all();
    mesh.start_relay(2);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    assert!(mesh.run_until(Duration::from_secs(12), |mesh| mesh.get(1, "notes", "n").is_some()));
}

#[test]
fn a_relay_that_is_not_there_is_named() {
    let mut mesh = pair(false);
    mesh.relay = None;
    mesh.run_for(Duration::from_secs(10));
    let why = mesh.peers(0)[0].last_error.clone();
    assert!(why.contains("relay 10.0.0.100:4242: it does not answer"), "{why}");
    mesh.start_relay(1);
    assert!(mesh.run_until(Duration::from_secs(6), |mesh| mesh.is_connected(0) && mesh.is_connected(1)));
}

#[test]
fn a_node_that_dialled_through_a_relay_learns_where_its_peer_can_be_reached_directly() {
    // The first knows the second's address; the second knows only the relay, and its link may be the one kept.
    for order in [[0, 1], [1, 0]] {
        let knows = Setup { dials: vec![order[1]], relayed: vec![order[1]], ..Setup::default() };
        let does_not = Setup { relayed: vec![order[0]], ..Setup::default() };
        let mut setups = vec![knows, does_not];
        if order[0] == 1 {
            setups.reverse();
        }
        let mut mesh = Mesh::new(setups);
        mesh.start_relay(1);
        mesh.cut(0, 1);
        mesh.connect_all();
        mesh.heal();
        assert!(mesh.run_until(Duration::from_secs(40), |mesh| way(mesh) == "direct"), "{:#?}", mesh.peers(1));
    }
}

#[test]
fn under_radio_silence_no_relay_hears_of_us_either() {
    let mut mesh = pair(false);
    mesh.cut(0, 1);
    mesh.connect_all();
    let call = mesh.ask(1, Control::StopSync);
    assert_eq!(mesh.nodes[1].answers.get(&call), Some(&Ok(Answer::Done)));
    mesh.carried.clear();
    mesh.put(1, "notes", "n", r#"{"a":1}"#);
    mesh.put(0, "notes", "m", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(120));
    assert_eq!(mesh.carried.keys().find(|(from, _)| *from == 1), None);
    mesh.ask(1, Control::StartSync);
    mesh.converge();
}

//! Radio silence, dead links, and the cost of an idle link.

use std::time::Duration;

use super::mesh::{self, Mesh, Setup};
use crate::sync::{Answer, Control, ControlError};

#[test]
fn under_radio_silence_not_one_datagram_leaves() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    let call = mesh.ask(1, Control::StopSync);
    assert_eq!(mesh.nodes[1].answers.get(&call), Some(&Ok(Answer::Done)));
    mesh.carried.clear();
    mesh.put(1, "notes", "n", r#"{"a":1}"#);
    mesh.put(0, "notes", "m", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(120));
    assert_eq!(mesh.carried.get(&(1, 0)), None);
    assert_eq!(mesh.get(0, "notes", "n"), None);
    mesh.ask(1, Control::StartSync);
    mesh.converge();
}

#[test]
fn who_waits_for_silence_is_told_when_sync_is_started_again_first() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup::default()]);
    let peer = mesh.id(0);
    mesh.ask(1, Control::Connect { peer, addresses: vec!["slow.test:4242".into()], wait: None });
    assert!(mesh.nodes[1].engine.poll_resolve().is_some(), "a resolver is at work");
    let stop = mesh.ask(1, Control::StopSync);
    assert_eq!(mesh.nodes[1].answers.get(&stop), None);
    mesh.ask(1, Control::StartSync);
    assert_eq!(mesh.nodes[1].answers.get(&stop), Some(&Err(ControlError::StartedAgain)));
}

#[test]
fn a_node_started_silent_sends_nothing_until_told() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], active: false, ..Setup::default() }]);
    mesh.run_for(Duration::from_secs(60));
    assert_eq!(mesh.take_carried(), (0, 0));
    mesh.ask(1, Control::StartSync);
    mesh.connect_all();
}

#[test]
fn a_dead_link_is_noticed_within_ten_seconds_when_something_is_owed() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(8));
    mesh.cut(0, 1);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    assert!(mesh.run_until(Duration::from_millis(10_500), |mesh| !mesh.is_connected(0)));
}

#[test]
fn a_dead_link_is_noticed_within_half_a_minute_otherwise() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(8));
    mesh.cut(0, 1);
    assert!(mesh.run_until(Duration::from_millis(30_500), |mesh| !mesh.is_connected(0)));
}

fn connect(mesh: &mut Mesh, from: usize, to: usize) {
    let (id, addresses) = (mesh.id(to), Vec::new());
    mesh.ask(from, Control::Connect { peer: id, addresses, wait: None });
}

#[test]
fn who_is_told_to_connect_dials_at_once_although_an_attempt_is_under_way() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup { dials: vec![0], ..Setup::default() }]);
    mesh.cut(0, 1);
    mesh.run_for(Duration::from_secs(5));
    mesh.heal();
    connect(&mut mesh, 1, 0);
    assert!(mesh.run_until(Duration::from_millis(500), |mesh| mesh.is_connected(1)));
}

#[test]
fn who_is_told_to_connect_dials_the_new_address_at_once() {
    let mut mesh = Mesh::new(vec![Setup::default(), Setup::default(), Setup::default()]);
    mesh.cut(1, 2);
    let (id, address) = (mesh.id(0), |node| vec![mesh::address(node).to_string()]);
    mesh.ask(1, Control::Connect { peer: id, addresses: address(2), wait: None });
    mesh.run_for(Duration::from_secs(5));
    mesh.ask(1, Control::Connect { peer: id, addresses: address(0), wait: None });
    assert!(mesh.run_until(Duration::from_millis(500), |mesh| mesh.is_connected(1)));
}

#[test]
fn who_is_told_to_connect_sends_at_once_what_a_link_that_is_not_dead_yet_has_lost() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.cut(0, 1);
    mesh.put(1, "notes", "n", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(7));
    mesh.heal();
    connect(&mut mesh, 1, 0);
    assert!(mesh.run_until(Duration::from_millis(500), |mesh| mesh.get(0, "notes", "n").is_some()));
}

#[test]
fn an_idle_link_costs_a_few_datagrams_a_minute() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(20));
    mesh.take_carried();
    mesh.run_for(Duration::from_secs(60));
    let (_, datagrams) = mesh.take_carried();
    assert!(datagrams <= 30, "{datagrams} datagrams in an idle minute");
}

//! Formation proof on real connections.

use std::time::Duration;

use super::net::Net;
use crate::identity::EndpointId;
use crate::sync::link::{Lane, LinkId};
use crate::sync::proof::{FormationKey, Role, prove, verify};

fn key() -> FormationKey {
    FormationKey::new(vec![7; 32]).expect("long enough")
}

/// Dials and sends a message; returns the link at both ends.
fn connect(net: &mut Net, from: usize, to: usize) -> (LinkId, LinkId) {
    let before = net.nodes[to].events.len();
    let dialled = net.dial(from, to);
    net.run(Duration::from_secs(1));
    net.write_all(from, dialled, Lane::Control, b"hello");
    net.run(Duration::from_secs(1));
    let accepted = net.nodes[to].events[before].link();
    (dialled, accepted)
}

fn dialler_proves(net: &Net, node: usize, link: LinkId, to: EndpointId) -> [u8; 32] {
    prove(&key(), Role::Dialler, "fleet", &net.nodes[node].id, &to, &net.nodes[node].links.export(link))
}

fn acceptor_verifies(net: &Net, node: usize, link: LinkId, from: EndpointId, proof: &[u8]) -> bool {
    let exporter = net.nodes[node].links.export(link);
    verify(&key(), Role::Dialler, "fleet", &from, &net.nodes[node].id, &exporter, proof)
}

#[test]
fn a_proof_is_worth_nothing_on_another_connection_of_the_same_nodes() {
    let mut net = Net::new(1, 2);
    let (a, b) = (net.nodes[0].id, net.nodes[1].id);
    let (first, first_accepted) = connect(&mut net, 0, 1);
    let (_, second_accepted) = connect(&mut net, 0, 1);
    let proof = dialler_proves(&net, 0, first, b);
    assert!(acceptor_verifies(&net, 1, first_accepted, a, &proof));
    assert!(!acceptor_verifies(&net, 1, second_accepted, a, &proof));
}

#[test]
fn a_node_in_the_middle_cannot_pass_a_proof_on() {
    let mut net = Net::new(1, 3);
    let (a, middle, b) = (net.nodes[0].id, net.nodes[1].id, net.nodes[2].id);
    let (from_a, _) = connect(&mut net, 0, 1);
    let (_, at_b) = connect(&mut net, 1, 2);
    for meant_for in [middle, b] {
        let proof = dialler_proves(&net, 0, from_a, meant_for);
        assert!(!acceptor_verifies(&net, 2, at_b, middle, &proof));
        assert!(!acceptor_verifies(&net, 2, at_b, a, &proof));
    }
}

#[test]
fn an_acceptor_without_the_key_cannot_answer_with_the_diallers_own_proof() {
    let mut net = Net::new(1, 2);
    let (a, b) = (net.nodes[0].id, net.nodes[1].id);
    let (dialled, _) = connect(&mut net, 0, 1);
    let reflected = dialler_proves(&net, 0, dialled, b);
    let exporter = net.nodes[0].links.export(dialled);
    assert!(!verify(&key(), Role::Acceptor, "fleet", &b, &a, &exporter, &reflected));
}

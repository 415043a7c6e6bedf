//! Room in the roster, under floods of records and registrations.

use super::*;
use crate::limits::{AGENTS, AGENTS_OF_USER};

/// Returns the record of an agent in the form that node `endpoint` would store.
fn record(endpoint: EndpointId) -> String {
    serde_json::json!({"liveness": "LIVE", "via": "x", "endpoint": endpoint.to_string(), "attach": 1}).to_string()
}

#[test]
fn made_up_records_keep_neither_this_nodes_agents_out_nor_those_of_nodes_that_are_there() {
    let mut mesh = Mesh::new(1);
    let (made_up, there, unheard) = (EndpointId([8; 32]), EndpointId([9; 32]), EndpointId([10; 32]));
    let flood = record(made_up);
    for number in 0..AGENTS + 10 {
        mesh.nodes[0].handle_record(mesh.now, &format!("x{number}"), Some(&flood));
    }
    assert_eq!(mesh.nodes[0].agents(mesh.now, None).count(), AGENTS);
    mesh.register(0, "ours");
    mesh.nodes[0].handle_presence(mesh.now, there);
    mesh.nodes[0].handle_record(mesh.now, "theirs", Some(&record(there)));
    mesh.nodes[0].handle_record(mesh.now, "nobodys", Some(&record(unheard)));
    let knows = ["ours", "theirs", "nobodys"].map(|id| mesh.nodes[0].knows(id));
    assert_eq!((knows, mesh.nodes[0].agents(mesh.now, None).count()), ([true, true, false], AGENTS));
}

#[test]
fn one_user_has_a_share_of_the_roster_and_others_find_room() {
    let mut mesh = Mesh::new(1);
    for number in 0..AGENTS_OF_USER {
        mesh.nodes[0].handle_sign(mesh.now, &format!("x{number}"), USER);
    }
    let error = mesh.register_as(0, "more", USER).expect_err("the share is used up");
    assert!(error.code == Code::ResourceExhausted && error.message.contains("its share"), "{error}");
    mesh.register_as(0, "more", Owner::User(1_001)).expect("another user's");
    mesh.register_as(0, "x1", USER).expect("one that is known");
}

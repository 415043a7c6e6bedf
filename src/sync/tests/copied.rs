//! Two machines under one identity: their writes do not circulate, and the operator is warned.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::store::Put;

const LATEST: &str = "platforms";

/// Creates hubs 0 and 1, linked with each other, node 2 at the first, and its copy 3 at the second.
fn copies_behind_two_hubs() -> Mesh {
    let dials = |hub: usize| Setup { dials: vec![hub], ..Setup::default() };
    let mut mesh = Mesh::new(vec![Setup::default(), dials(0), dials(0), Setup { copy_of: Some(2), ..dials(1) }]);
    assert_eq!(mesh.id(2), mesh.id(3));
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(5));
    mesh
}

fn datagrams(mesh: &mut Mesh, time: Duration) -> u64 {
    mesh.take_carried();
    mesh.run_for(time);
    mesh.take_carried().1
}

#[test]
fn what_two_copies_write_comes_to_rest_and_every_node_names_the_identity() {
    let mut mesh = copies_behind_two_hubs();
    let idle = datagrams(&mut mesh, Duration::from_secs(60));
    for document in 0..20 {
        mesh.put(2, LATEST, &format!("p{document}"), r#"{"by":"original"}"#);
        mesh.put(3, LATEST, &format!("p{document}"), r#"{"by":"copy"}"#);
    }
    mesh.run_for(Duration::from_secs(30));
    let after = datagrams(&mut mesh, Duration::from_secs(60));
    assert!(after <= idle + 20, "{after} datagrams in a minute, {idle} before");
    mesh.converge();
    let copied = mesh.id(2);
    for (index, node) in mesh.nodes.iter().enumerate() {
        let status = node.engine.status();
        assert_eq!((status.copied, status.copied_nodes), (Some(copied), 1), "node {index}");
    }
}

#[test]
fn copies_that_go_on_writing_are_merged_by_version_and_cost_no_more_than_that() {
    let mut mesh = copies_behind_two_hubs();
    mesh.put(2, LATEST, "p", r#"{"n":0}"#);
    mesh.put(3, LATEST, "p", r#"{"n":1}"#);
    mesh.run_for(Duration::from_secs(30));
    let sequence = mesh.snapshot(0).visible();
    for n in 2..22 {
        mesh.put(2 + n % 2, LATEST, "p", &format!("{{\"n\":{n}}}"));
        mesh.run_for(Duration::from_secs(2));
        mesh.converge();
        assert_eq!(mesh.get(0, LATEST, "p"), Some(format!("{{\"n\":{n}}}")));
    }
    assert_eq!(mesh.snapshot(0).visible(), sequence + 20, "each write is one version");
}

#[test]
fn a_finding_ends_once_there_is_no_sign_of_a_copy() {
    let mut mesh = copies_behind_two_hubs();
    mesh.put(2, LATEST, "p", r#"{"n":0}"#);
    mesh.put(3, LATEST, "p", r#"{"n":1}"#);
    mesh.run_for(Duration::from_secs(30));
    assert!(mesh.nodes[0].engine.status().copied.is_some());
    mesh.run_for(Duration::from_secs(700));
    assert!(mesh.nodes.iter().all(|node| node.engine.status().copied.is_none()));
}

#[test]
fn a_replaced_disk_is_not_taken_for_a_copy() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    for n in 0..10 {
        mesh.put(1, LATEST, "p", &format!("{{\"n\":{n}}}"));
    }
    mesh.converge();
    mesh.replace_disk(1, &Setup { dials: vec![0], ..Setup::default() });
    mesh.write(1, LATEST, "p", Put::Whole { json: r#"{"n":"new"}"#.to_owned(), base: None });
    mesh.run_for(Duration::from_secs(30));
    mesh.converge();
    assert_eq!(mesh.get(0, LATEST, "p").as_deref(), Some(r#"{"n":"new"}"#));
    assert!(mesh.nodes.iter().all(|node| node.engine.status().copied.is_none()));
}

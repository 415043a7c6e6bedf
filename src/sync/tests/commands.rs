//! Commands between nodes.

use std::time::Duration;

use super::mesh::{Mesh, Setup};
use crate::identity::Identity;
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;
use crate::store::{CommandChange, CommandView, Put, Rank, Report, Signed};

fn issued(id: &str, ttl_ms: u64) -> Put {
    let issuer = Identity::from_seed([40; 32]);
    let body = CommandBody {
        id: id.into(),
        issuer: issuer.id().0.to_vec().into(),
        addressed: Some(Addressed::Agent("a1".into())),
        targets: vec!["a1".into()],
        command_type: "replay".into(),
        ttl_ms,
        ..CommandBody::default()
    };
    Put::Command(CommandChange::Issue(Signed::sign(&issuer, &body)))
}

/// Issues a command on `node`; returns its id.
pub(super) fn issue(mesh: &mut Mesh, node: usize) -> String {
    mesh.write(node, "commands", "k", issued("k", 0));
    "k".to_owned()
}

/// Returns true if `node` has the command.
pub(super) fn has(mesh: &Mesh, node: usize, id: &str) -> bool {
    held(mesh, node, id).is_some()
}

fn report(rank: Rank, result: &str) -> Put {
    let (result, error) = (result.to_owned(), String::new());
    Put::Command(CommandChange::Report(Report { agent: "a1".into(), rank, begun: false, result, error }))
}

/// Creates three nodes in a row.
fn line() -> Mesh {
    let dials = |dials: Vec<usize>| Setup { dials, ..Setup::default() };
    Mesh::new(vec![dials(vec![]), dials(vec![0]), dials(vec![1])])
}

fn held(mesh: &Mesh, node: usize, id: &str) -> Option<CommandView> {
    mesh.snapshot(node).command(id).expect("reads")
}

#[test]
fn a_command_crosses_two_nodes_with_its_time_running_down_and_its_result_comes_back() {
    let mut mesh = line();
    mesh.cut(1, 2);
    mesh.write(0, "commands", "k", issued("k", 60_000));
    mesh.write(0, "commands", "forever", issued("forever", 0));
    assert!(mesh.run_until(Duration::from_secs(20), |mesh| held(mesh, 1, "k").is_some()));
    let at = mesh.run_until(Duration::from_secs(30), |_| false);
    assert!(!at);
    mesh.heal();
    assert!(mesh.run_until(Duration::from_secs(25), |mesh| held(mesh, 2, "forever").is_some()), "within its time");
    let (first, last) = (held(&mesh, 0, "k").expect("there"), held(&mesh, 2, "k").expect("there"));
    let (first, last) = (first.until.expect("timed"), last.until.expect("timed"));
    assert!((first..first + 200).contains(&last), "{first} ms there, {last} ms two nodes on");
    assert_eq!(held(&mesh, 2, "forever").expect("there").until, None);

    mesh.write(2, "commands", "k", report(Rank::Executing, ""));
    mesh.write(2, "commands", "k", report(Rank::Completed, "7"));
    mesh.converge();
    assert_eq!(held(&mesh, 0, "k").expect("there").ranks, [Rank::Completed]);
    let result = mesh.snapshot(0).command_result("k", "a1").expect("reads").expect("there");
    assert_eq!(result.result, "7");
}

#[test]
fn a_command_that_waited_too_long_on_its_way_arrives_without_time() {
    let mut mesh = line();
    mesh.cut(1, 2);
    mesh.write(0, "commands", "k", issued("k", 5_000));
    mesh.run_for(Duration::from_secs(40));
    mesh.heal();
    assert!(mesh.run_until(Duration::from_secs(60), |mesh| held(mesh, 2, "k").is_some()));
    let now = mesh.now();
    assert!(held(&mesh, 2, "k").expect("there").has_expired(now));
    mesh.converge();
}

#[test]
fn a_command_removed_on_one_node_is_removed_on_all_and_stays_so() {
    let mut mesh = line();
    mesh.write(0, "commands", "k", issued("k", 0));
    mesh.connect_all();
    mesh.converge();
    mesh.write(2, "commands", "k", report(Rank::Completed, "7"));
    mesh.converge();
    mesh.cut(0, 1);
    mesh.write(2, "commands", "k", Put::Command(CommandChange::Remove));
    mesh.run_for(Duration::from_secs(40));
    mesh.heal();
    mesh.connect_all();
    mesh.converge();
    assert!((0..3).all(|node| held(&mesh, node, "k").is_none() && mesh.get(node, "commands", "k:a1").is_none()));
}

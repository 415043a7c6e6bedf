//! Starting, stopping and killing a node.

use rustix::process::Signal;

use crate::node::{Node, directory, eventually};

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    for n in 0..20 {
        node.run("put", &["missions", &format!("m{n}"), &format!("{{\"n\":{n}}}")]).ok();
    }
    node.run("put", &["platforms", "p", r#"{"last":"word"}"#, "--durable"]).ok();
    node.run("delete", &["missions", "m7"]).ok();
    let id = node.id.clone();
    node.kill();
    node.start_again();
    assert_eq!(node.id, id, "the key is kept");
    assert_eq!(node.run("list", &["missions"]).ok().lines().count(), 19);
    assert_eq!(node.get("missions", "m19").as_deref(), Some(r#"{"n":19}"#));
    assert_eq!(node.get("missions", "m7"), None);
    assert_eq!(node.get("platforms", "p").as_deref(), Some(r#"{"last":"word"}"#));
}

#[test]
fn a_node_that_is_told_to_stop_flushes_and_exits_with_0() {
    let home = directory();
    let mut node = Node::start(home.path(), &["--flush-interval", "3600"]);
    for (n, signal) in [Signal::TERM, Signal::INT].into_iter().enumerate() {
        node.run("put", &["platforms", "p", &format!("{{\"n\":{n}}}")]).ok();
        let expected = node.get("platforms", "p");
        assert_eq!(node.stop(signal).code(), Some(0));
        node.start_again();
        assert_eq!(node.get("platforms", "p"), expected, "flushed at the end");
    }
}

#[test]
fn a_socket_left_by_a_killed_node_is_taken_over() {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    node.kill();
    assert!(node.home().join("socket").exists());
    node.start_again();
    node.run("status", &[]).ok();
}

#[test]
fn the_node_keeps_the_name_it_gave_itself() {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    let name = node.json("status", &[])["nodeId"].clone();
    assert_eq!(name.as_str().expect("text").len(), 36, "a UUID");
    node.stop(Signal::TERM);
    node.start_again();
    assert_eq!(node.json("status", &[])["nodeId"], name);
}

#[test]
fn threads_are_named_and_pinned_when_asked() {
    let home = directory();
    let node = Node::start(home.path(), &["--pin"]);
    let pid = std::fs::read_to_string(node.data().join("lock")).expect("locked").trim().to_owned();
    // A thread sets its name when it is first scheduled.
    for role in ["peat-api", "peat-store", "peat-sync", "peat-resolver"] {
        eventually(role, || {
            let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
            let names = tasks.map(|task| std::fs::read_to_string(task.expect("listed").path().join("comm")));
            names.flatten().any(|name| name.trim() == role).then_some(())
        });
    }
}

#[test]
fn a_running_node_leaves_no_core() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", node.pid().as_raw_nonzero())).expect("it runs");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("listed");
    assert_eq!(core.split_whitespace().skip(4).take(2).collect::<Vec<_>>(), ["0", "0"]);
}

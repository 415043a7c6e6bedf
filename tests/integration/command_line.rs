//! Command-line arguments, positions that survive a crash, and nodes that do not answer.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Done, Node, directory, eventually};

#[test]
fn every_id_is_taken_literally() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    for (n, id) in ["-", "@-", "@", "@/nowhere", "a=b", "help", "true"].into_iter().enumerate() {
        node.run("put", &["c", id, &format!("{{\"n\":{n}}}")]).ok();
        assert_eq!(node.run("list", &["c"]).ok(), format!("{id}\n"));
        node.run("patch", &["c", id, "{\"patched\":true}"]).ok();
        assert_eq!(node.get("c", id), Some(format!("{{\"n\":{n},\"patched\":true}}")));
        node.run("delete", &["c", id]).ok();
        assert_eq!(node.run("list", &["c"]).ok(), "");
    }
}

#[test]
fn an_id_that_looks_like_an_option_stands_behind_two_hyphens() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    for id in ["--", "-x", "--json", "--node=unix:///nowhere", "--help", "-"] {
        node.run("put", &["--", "-c", id, "{}"]).ok();
        assert_eq!(node.run("list", &["--", "-c"]).ok(), format!("{id}\n"));
        node.run("delete", &["--", "-c", id]).ok();
    }
    let words = node.run("get", &["c", "-x"]).fails(2);
    assert!(words.contains("behind `--`"), "{words}");
    let words = node.run("get", &["c", ""]).fails(1);
    assert!(words.contains("empty"), "{words}");
}

/// Returns the lines of `watch` up to the first that `last` accepts.
fn watched(node: &Node, arguments: &[&str], last: impl Fn(&str) -> bool) -> Vec<String> {
    let mut watch = node.call("watch", arguments);
    let mut watch = watch.stdout(Stdio::piped()).spawn().expect("runs");
    let mut seen = Vec::new();
    for line in BufReader::new(watch.stdout.take().expect("piped")).lines() {
        let line = line.expect("text");
        let enough = last(&line);
        seen.push(line);
        if enough {
            break;
        }
    }
    watch.kill().expect("our child");
    watch.wait().expect("our child");
    seen
}

/// Returns the position at the start of a line of `watch`.
fn position(line: &str) -> String {
    line.split('\t').next().expect("a column").to_owned()
}

fn ends_snapshot(line: &str) -> bool {
    line.contains("snapshot-end")
}

/// Writes documents without flushing them, and returns the position after the last.
fn unflushed(node: &Node, count: u64) -> String {
    for n in 0..count {
        node.run("put", &["platforms", &format!("p{n}"), "{}"]).ok();
    }
    // While further writes are in progress, the reported position is one that survives a crash.
    eventually("a position in what is not flushed", || {
        let position = position(watched(node, &["--snapshot"], ends_snapshot).last().expect("the end"));
        let sequence: u64 = position.split('@').next().expect("a number").parse().expect("a number");
        (sequence >= count).then_some(position)
    })
}

#[test]
fn a_position_in_what_a_crash_took_back_is_refused_and_a_snapshot_replaces_it() {
    let home = directory();
    let mut node = Node::start(home.path(), &["--flush-interval", "3600"]);
    let position = unflushed(&node, 10);
    node.kill();
    node.start_again();
    for n in 0..30 {
        node.run("put", &["platforms", &format!("new{n}"), "{}"]).ok();
    }
    let number = position.split_once('@').expect("a position").0;
    let words = node.run("watch", &["--after", number]).fails(2);
    assert!(words.contains("does not name the run"), "{words}");

    let words = node.run("watch", &["--after", &position]).fails(1);
    assert!(words.contains("does not know what changed") && words.contains("--snapshot"), "{words}");

    let rows = watched(&node, &["--after", &position, "--snapshot", "platforms"], ends_snapshot);
    assert_eq!(rows.len(), 31, "{rows:?}");
}

#[test]
fn a_position_is_printed_as_it_is_given_back() {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    node.run("put", &["c", "old", "{}"]).ok();
    let end = watched(&node, &["--snapshot", "none"], ends_snapshot);
    node.kill();
    node.start_again();
    node.run("put", &["c", "new", "{}"]).ok();
    let next = watched(&node, &["--after", &position(&end[0])], |_| true);
    assert!(next[0].contains("c/new"), "{next:?}");
}

/// A suspended node, which is resumed on drop.
struct Stopped(Pid);

impl Stopped {
    fn new(node: &Node) -> Stopped {
        let pid = node.pid();
        kill_process(pid, Signal::STOP).expect("our child");
        Stopped(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill_process(self.0, Signal::CONT);
    }
}

#[test]
fn every_command_gives_up_on_a_node_that_does_not_answer() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let large = home.path().join("large.json");
    std::fs::write(&large, format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000))).expect("written");
    let large = format!("@{}", large.display());
    let position = "1@AAAAAAAAAAAAAAAAAAAAAA";
    let peer = format!("{}@127.0.0.1:9", "0".repeat(63) + "1");
    let _stopped = Stopped::new(&node);
    let commands: [(&str, &[&str]); 24] = [
        ("status", &[]),
        ("health", &[]),
        ("put", &["c", "i", "{}"]),
        ("put", &["c", "i", &large]),
        ("put", &["c", "i", "{}", "--wait-peers", "1"]),
        ("patch", &["c", "i", "{}"]),
        ("patch", &["c", "i", &large, "--wait-peers", "1"]),
        ("get", &["c", "i"]),
        ("list", &["c"]),
        ("delete", &["c", "i"]),
        ("compact", &["c", "i"]),
        ("watch", &[]),
        ("watch", &["--after", position]),
        ("peers", &[]),
        ("connect", &[&peer]),
        ("disconnect", &[&peer[..64]]),
        ("sync", &["start"]),
        ("sync", &["stats"]),
        ("agents", &[]),
        ("agents", &["--watch"]),
        ("commands", &[]),
        ("send", &["kind", "--all"]),
        ("send", &["kind", "--all", "--wait"]),
        ("cancel", &["id"]),
    ];
    let running = commands.map(|(command, arguments)| {
        let arguments = [&["--timeout", "0.5"], arguments].concat();
        let child = node.call(command, &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        (command, arguments.join(" "), child.expect("runs"))
    });
    for (command, arguments, child) in running {
        let words = Done::of(&child.wait_with_output().expect("our child")).fails(4);
        assert!(words.contains("did not answer within 0.5 s"), "{command} {arguments}: {words}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of how long a command takes, in real time")]
fn without_a_timeout_a_command_waits_ten_seconds() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let _stopped = Stopped::new(&node);
    let begun = Instant::now();
    let words = crate::node::run(&["status", "--node", &node.target()]).fails(4);
    let took = begun.elapsed();
    assert!(took >= Duration::from_secs(9) && took < Duration::from_secs(13), "{took:?}");
    assert!(words.contains("did not answer within 10 s") && words.contains("--timeout"), "{words}");
}

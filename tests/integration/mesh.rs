//! Node processes that connect over loopback.

use std::fs;

use rustix::process::Signal;

use crate::node::{Node, directory, eventually, run};

/// Waits until `node` is connected to `peers` peers.
fn connected(node: &Node, peers: u64) {
    eventually(&format!("{peers} connected"), || (node.json("status", &[])["connectedPeers"] == peers).then_some(()));
}

#[test]
fn two_nodes_that_name_each_other_share_documents() {
    let (here, there) = (directory(), directory());
    let b_id = run(&["id", "--data-dir", there.path().join("data").to_str().expect("text")]).ok();
    let a = Node::start(here.path(), &["--peer", b_id.trim()]);
    let b = Node::start(there.path(), &["--peer", &a.spec()]);
    connected(&a, 1);
    a.run("put", &["missions", "m1", r#"{"from":"a"}"#]).ok();
    b.shows("missions", "m1", r#"{"from":"a"}"#);
    b.run("put", &["platforms", "p1", r#"{"from":"b"}"#]).ok();
    a.shows("platforms", "p1", r#"{"from":"b"}"#);
    a.run("delete", &["missions", "m1"]).ok();
    eventually("the deletion arrives", || b.get("missions", "m1").is_none().then_some(()));
}

#[test]
fn a_shared_key_admits_and_a_wrong_one_does_not() {
    let (a_home, b_home, c_home) = (directory(), directory(), directory());
    let (key, other) = (run(&["keygen"]).ok(), run(&["keygen"]).ok());
    let a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    let b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    let c = Node::start(c_home.path(), &["--shared-key", other.trim(), "--peer", &a.spec()]);
    connected(&a, 1);
    a.run("put", &["missions", "secret", r#"{"for":"members"}"#]).ok();
    b.shows("missions", "secret", r#"{"for":"members"}"#);
    eventually("C is told why it is not admitted", || {
        let peers = c.json("peers", &[]);
        let error = peers["peers"][0]["lastError"].as_str()?.to_owned();
        (!error.is_empty()).then_some(())
    });
    assert_eq!(c.get("missions", "secret"), None);
    assert_eq!(c.json("status", &[])["connectedPeers"], 0);
}

#[test]
fn one_node_id_used_by_two_nodes_is_reported_by_them_and_by_a_third_that_is_well_otherwise() {
    let homes = [directory(), directory(), directory()];
    let key = run(&["keygen"]).ok();
    let hub = Node::start(homes[0].path(), &["--shared-key", key.trim(), "--node-id", "hub"]);
    let twin = |home: &std::path::Path, peer: &Node| {
        Node::start(home, &["--shared-key", key.trim(), "--node-id", "twin", "--peer", &peer.spec()])
    };
    let one = twin(homes[1].path(), &hub);
    assert_eq!(hub.json("health", &[])["problems"].as_array().map(Vec::len), Some(0));
    let other = twin(homes[2].path(), &hub);
    other.run("connect", &[&one.spec()]).ok();
    for node in [&hub, &one, &other] {
        eventually("the two are named", || {
            let health = node.json("health", &[]);
            let words = health["problems"][0].as_str().unwrap_or_default().to_owned();
            let named = [&one.id, &other.id].iter().all(|id| words.contains(id.as_str()));
            (named && health["healthy"] == true).then_some(())
        });
        eventually("the log says so", || node.log().contains("give one of the two another --node-id").then_some(()));
    }
    let words = hub.run("health", &[]).words;
    assert!(words.contains("warning: nodes "), "{words}");
}

#[test]
fn a_node_that_was_killed_catches_up() {
    let (a_home, b_home) = (directory(), directory());
    let key = run(&["keygen"]).ok();
    let mut a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    let mut b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    connected(&b, 1);
    b.run("put", &["missions", "before", r#"{"n":1}"#, "--wait-peers", "1"]).ok();
    assert_eq!(a.get("missions", "before").as_deref(), Some(r#"{"n":1}"#), "it was there before the answer");
    b.kill();
    a.run("put", &["missions", "while", r#"{"n":2}"#]).ok();
    b.start_again();
    b.shows("missions", "while", r#"{"n":2}"#);
    a.kill();
    b.run("put", &["missions", "after", r#"{"n":3}"#]).ok();
    a.start_again();
    a.shows("missions", "after", r#"{"n":3}"#);
    assert_eq!(a.get("missions", "before").as_deref(), Some(r#"{"n":1}"#));
}

#[test]
fn a_damaged_document_is_not_sent_and_the_others_are() {
    let (a_home, b_home) = (directory(), directory());
    let key = run(&["keygen"]).ok();
    let mut a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    for (collection, text) in [("missions", "merged-text"), ("platforms", "latest-text")] {
        a.run("put", &[collection, "bad", &format!(r#"{{"text":"{text}"}}"#), "--durable"]).ok();
    }
    a.run("put", &["missions", "good", r#"{"n":1}"#]).ok();
    assert_eq!(a.stop(Signal::TERM).code(), Some(0));
    let database = a_home.path().join("data/documents.redb");
    let mut bytes = fs::read(&database).expect("there");
    for at in 0..bytes.len() {
        let hit = ["merged-text", "latest-text"].iter().any(|text| bytes[at..].starts_with(text.as_bytes()));
        bytes[at] = if hit { b'?' } else { bytes[at] };
    }
    fs::write(&database, &bytes).expect("written");
    a.start_again();
    assert!(a.run("get", &["missions", "bad"]).fails(1).contains("checksum"));
    let b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    b.shows("missions", "good", r#"{"n":1}"#);
    a.run("put", &["platforms", "after", r#"{"n":2}"#]).ok();
    b.shows("platforms", "after", r#"{"n":2}"#);
    connected(&a, 1);
    assert_eq!((b.get("missions", "bad"), b.get("platforms", "bad")), (None, None));
    assert!(fs::read_to_string(a_home.path().join("log")).expect("a log").contains("is not sent"));
}

#[test]
fn both_sides_of_a_cut_keep_their_edits() {
    let (a_home, b_home) = (directory(), directory());
    let key = run(&["keygen"]).ok();
    let a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    let b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    a.run("put", &["missions", "m", r#"{"name":"survey"}"#]).ok();
    b.shows("missions", "m", r#"{"name":"survey"}"#);
    b.run("sync", &["stop"]).ok();
    a.run("patch", &["missions", "m", r#"{"a":1}"#]).ok();
    b.run("patch", &["missions", "m", r#"{"b":2}"#]).ok();
    assert_eq!(b.get("missions", "m").as_deref(), Some(r#"{"b":2,"name":"survey"}"#));
    b.run("sync", &["start"]).ok();
    for node in [&a, &b] {
        node.shows("missions", "m", r#"{"a":1,"b":2,"name":"survey"}"#);
    }
}

#[test]
fn a_peer_that_was_disconnected_stays_away_until_it_is_connected() {
    let (a_home, b_home) = (directory(), directory());
    let key = run(&["keygen"]).ok();
    let mut a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    let b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    connected(&a, 1);
    a.run("disconnect", &[&b.id]).ok();
    connected(&a, 0);
    a.kill();
    a.start_again();
    b.run("put", &["missions", "m", "{}"]).ok();
    a.run("connect", &[&b.spec()]).ok();
    a.shows("missions", "m", "{}");
    let words = a.run("connect", &[&"c".repeat(64)]).fails(1);
    assert!(words.contains("address"), "{words}");
    a.run("connect", &[&a.spec()]).fails(1);
}

#[test]
fn a_name_that_does_not_resolve_is_reported() {
    let home = directory();
    let peer = format!("{}@nothing.invalid:4242", "b".repeat(64));
    let node = Node::start(home.path(), &["--peer", &peer]);
    eventually("the peer's state says why", || {
        let peers = node.json("peers", &[]);
        peers["peers"][0]["lastError"].as_str().filter(|error| error.contains("nothing.invalid")).map(|_| ())
    });
}

#[test]
fn a_peer_that_stopped_for_a_moment_gets_every_edit_made_meanwhile() {
    let (a_home, b_home) = (directory(), directory());
    let key = run(&["keygen"]).ok();
    let a = Node::start(a_home.path(), &["--shared-key", key.trim()]);
    let b = Node::start(b_home.path(), &["--shared-key", key.trim(), "--peer", &a.spec()]);
    connected(&a, 1);
    let text = "x".repeat(5_000);
    a.run("put", &["missions", "large", &format!(r#"{{"text":"{text}"}}"#), "--wait-peers", "1"]).ok();
    b.signal(Signal::STOP);
    for n in 1..=100 {
        a.run("patch", &["missions", "large", &format!(r#"{{"n":{n},"more":"{}"}}"#, "y".repeat(n))]).ok();
    }
    b.signal(Signal::CONT);
    a.run("put", &["missions", "another", r#"{"n":1}"#]).ok();
    b.shows("missions", "another", r#"{"n":1}"#);
    eventually("the last edit arrives", || b.get("missions", "large").filter(|json| json.contains(r#""n":100"#)));
}

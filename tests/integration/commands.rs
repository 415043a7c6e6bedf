//! Documents through the command line.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use serde_json::json;

use crate::node::{Done, Node, directory, eventually, skip};

#[test]
fn a_document_is_put_read_listed_and_deleted() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let version = node.run("put", &["missions", "m1", "{\"b\": 1, \"a\": [true]}"]).ok();
    assert!(!version.trim().is_empty());
    assert_eq!(node.get("missions", "m1").as_deref(), Some(r#"{"a":[true],"b":1}"#));
    assert_eq!(node.run("list", &["missions"]).ok(), "m1\n");
    assert_eq!(node.run("delete", &["missions", "m1"]).ok(), "");
    let words = node.run("get", &["missions", "m1"]).fails(3);
    assert!(words.contains("missions/m1"), "{words}");
    assert_eq!(node.run("list", &["missions"]).ok(), "");
}

#[test]
fn a_patch_changes_what_it_names() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    for collection in ["missions", "platforms"] {
        node.run("put", &[collection, "x", r#"{"keep":1,"change":1,"drop":1}"#]).ok();
        node.run("patch", &[collection, "x", r#"{"change":2,"drop":null}"#]).ok();
        assert_eq!(node.get(collection, "x").as_deref(), Some(r#"{"change":2,"keep":1}"#));
    }
}

#[test]
fn a_document_comes_from_a_file_or_from_stdin() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let file = home.path().join("document.json");
    std::fs::write(&file, "{\"from\":\"file\"}\n").expect("written");
    node.run("put", &["c", "file", &format!("@{}", file.display())]).ok();
    assert_eq!(node.get("c", "file").as_deref(), Some(r#"{"from":"file"}"#));

    let mut put = node.call("put", &["c", "stdin", "-"]);
    let mut child = put.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    child.stdin.take().expect("piped").write_all(br#"{"from":"stdin"}"#).expect("taken");
    Done::of(&child.wait_with_output().expect("our child")).ok();
    assert_eq!(node.get("c", "stdin").as_deref(), Some(r#"{"from":"stdin"}"#));
    node.run("put", &["c", "none", "@/nowhere"]).fails(1);
}

#[test]
fn what_cannot_be_held_is_refused_by_name() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    for (json, word) in [("[1]", "object"), ("{\"a\":1,\"a\":2}", "a"), ("{", "c/i")] {
        let words = node.run("put", &["c", "i", json]).fails(1);
        assert!(words.contains("c/i") && words.contains(word), "{json}: {words}");
    }
    let words = node.run("put", &["c", "a\u{7}", "{}"]).fails(1);
    assert!(words.contains("control character"), "{words}");
    let large = home.path().join("large.json");
    std::fs::write(&large, format!("{{\"a\":\"{}\"}}", "x".repeat(1 << 20))).expect("written");
    let words = node.run("put", &["c", "i", &format!("@{}", large.display())]).fails(1);
    assert!(words.contains("1.0 MiB"), "{words}");
}

#[test]
fn a_stale_base_of_a_latest_document_is_refused() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let first = node.run("put", &["platforms", "p", r#"{"n":1}"#]).ok();
    node.run("put", &["platforms", "p", r#"{"n":2}"#, "--base", first.trim()]).ok();
    node.run("put", &["platforms", "p", r#"{"n":3}"#, "--base", first.trim()]).fails(1);
    assert_eq!(node.get("platforms", "p").as_deref(), Some(r#"{"n":2}"#));
}

#[test]
fn json_prints_the_response_with_every_field() {
    let home = directory();
    let node = Node::start(home.path(), &["--node-id", "n1"]);
    let status = node.json("status", &[]);
    assert_eq!(status["nodeId"], "n1");
    assert_eq!(status["endpointAddr"], node.id.as_str());
    assert_eq!(status["syncActive"], true);
    assert_eq!(status["connectedPeers"], 0);
    assert_eq!(status["phase"], "NODE_PHASE_READY");

    let put = node.json("put", &["c", "i", r#"{"a":1}"#]);
    assert_eq!(put["durable"], true, "merged documents are on disk before the answer");
    let get = node.json("get", &["c", "i"]);
    assert_eq!((&get["jsonData"], &get["version"]), (&json!(r#"{"a":1}"#), &put["version"]));
    assert_eq!(node.json("list", &["c"]), json!({"docIds": ["i"]}));
    assert_eq!(node.json("delete", &["c", "i"]), json!({}));
    assert_eq!(node.json("peers", &[]), json!({"peers": []}));
    assert_eq!(node.json("sync", &["stats"])["bytesSent"], "0");
}

#[test]
fn health_counts_what_is_stored() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    node.run("put", &["c", "stays", "{}"]).ok();
    node.run("put", &["c", "goes", "{}"]).ok();
    node.run("delete", &["c", "goes"]).ok();
    let health = node.json("health", &[]);
    assert_eq!(health["healthy"], true);
    assert_eq!((&health["documents"], &health["tombstones"]), (&json!("1"), &json!("1")));
    assert!(node.run("health", &[]).ok().contains("healthy\ttrue"));
}

#[test]
fn watch_prints_the_snapshot_then_what_changes_and_resumes() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    node.run("put", &["c", "old", r#"{"n":1}"#]).ok();
    let mut watch = Watch::start(&node, &["--snapshot"]);
    assert_eq!(watch.next()["docId"], "old");
    assert_eq!(watch.next()["changeType"], "CHANGE_TYPE_SNAPSHOT_END");
    node.run("put", &["c", "new", r#"{"n":2}"#]).ok();
    let change = watch.next();
    assert_eq!((&change["docId"], &change["changeType"]), (&json!("new"), &json!("CHANGE_TYPE_UPSERT")));
    assert_eq!(change["jsonData"], r#"{"n":2}"#);
    drop(watch);

    node.run("delete", &["c", "old"]).ok();
    let sequence = change["sequence"].as_str().expect("a string");
    let token = format!("{sequence}@{}", change["run"].as_str().expect("a string"));
    let mut resumed = Watch::start(&node, &["--after", &token]);
    let change = resumed.next();
    assert_eq!((&change["docId"], &change["changeType"]), (&json!("old"), &json!("CHANGE_TYPE_DELETE")));
    let words = node.run("watch", &["--after", "1@AAAAAAAAAAAAAAAAAAAAAA"]).fails(1);
    assert!(!words.is_empty());
}

/// A running `watch --json` process.
struct Watch {
    child: std::process::Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Watch {
    fn start(node: &Node, arguments: &[&str]) -> Watch {
        let mut child = node.call("watch", arguments).arg("--json").stdout(Stdio::piped()).spawn().expect("runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Watch { child, lines }
    }

    fn next(&mut self) -> serde_json::Value {
        serde_json::from_str(&self.lines.next().expect("a line").expect("text")).expect("JSON")
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn compacting_keeps_the_content() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    for n in 0..20 {
        node.run("put", &["c", "i", &format!("{{\"n\":{n}}}")]).ok();
    }
    node.run("compact", &["c", "i"]).ok();
    assert_eq!(node.get("c", "i").as_deref(), Some(r#"{"n":19}"#));
    node.run("compact", &["c", "absent"]).fails(3);
}

#[test]
fn a_socket_is_private_to_its_user_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let home = directory();
    let node = Node::start(home.path(), &["--socket-mode", "0600"]);
    let mode = std::fs::metadata(node.home().join("socket")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn another_user_may_write_documents_but_not_change_links() {
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    if !rustix::process::geteuid().is_root() {
        return skip("another_user_may_write_documents_but_not_change_links", "root");
    }
    let home = directory();
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).expect("ours");
    let node = Node::start(home.path(), &["--socket-mode", "0666", "--admin-group", "4321"]);
    let program = readable_program(home.path());
    let call = |group: u32, arguments: &[&str]| {
        let mut command = std::process::Command::new(&program);
        command.args(arguments).args(["--node", &node.target()]).uid(1234).gid(group);
        Done::of(&command.output().expect("the program runs"))
    };
    call(1234, &["put", "c", "i", "{}"]).ok();
    assert_eq!(call(1234, &["get", "c", "i"]).ok(), "{}\n");
    let words = call(1234, &["sync", "stop"]).fails(5);
    assert!(words.contains("--admin-group"), "{words}");
    call(1234, &["connect", &format!("{}@127.0.0.1:1", "b".repeat(64))]).fails(5);
    call(4321, &["sync", "stop"]).ok();
    std::fs::set_permissions(home.path().join("socket"), std::fs::Permissions::from_mode(0o600)).expect("ours");
    let words = call(1234, &["status"]).fails(5);
    assert!(words.contains("may not open"), "{words}");
}

/// Copies the program to a place where every user may execute it.
fn readable_program(directory: &std::path::Path) -> std::path::PathBuf {
    let copy = directory.join("peat-node");
    std::fs::copy(env!("CARGO_BIN_EXE_peat-node"), &copy).expect("copied");
    copy
}

#[test]
fn a_token_guards_a_tcp_listener() {
    use std::os::unix::fs::PermissionsExt;
    let home = directory();
    let token = home.path().join("token");
    std::fs::write(&token, "0123456789abcdef0123456789abcdef\n").expect("written");
    std::fs::set_permissions(&token, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let token = token.to_str().expect("text");
    let node = Node::start(home.path(), &["--listen", "tcp://127.0.0.1:0", "--api-token-file", token]);
    let target = eventually("the node says where it listens", || {
        let log = node.log();
        let at = log.find("tcp://127.0.0.1:")?;
        Some(log[at..].split([' ', ',', '\n']).next()?.to_owned())
    });
    let call = |with_token: bool| {
        let mut command = crate::node::program();
        if with_token {
            command.env("PEAT_NODE_API_TOKEN_FILE", token);
        }
        Done::of(&command.args(["status", "--node", &target]).output().expect("runs"))
    };
    call(true).ok();
    call(false).fails(5);
}

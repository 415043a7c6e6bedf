//! A node that watches an agent without peat-node support.

mod agent;

use peat_ipc::sidecar::{ListAgentsRequest, Liveness};
use serde_json::{Value, json};

use self::agent::{Agent, PACKAGES, PULLED, Reply, STATUS, ok};
use crate::node::{Node, directory, eventually};

/// Starts an agent with one package.
fn usual() -> Agent {
    let agent = Agent::start();
    make_usual(&agent);
    agent
}

fn make_usual(agent: &Agent) {
    agent.says(STATUS, json!({"version": "1.0", "k8sVersion": "v1.31", "systemTime": "1700000000"}));
    agent.says(PACKAGES, json!({"packages": [{"name": "podinfo", "version": "6.4", "status": 2}]}));
    agent.says(PULLED, json!({"registries": []}));
}

/// Starts a node that names the agent `a1` and polls it often.
fn watching(home: &std::path::Path, url: &str, more: &[&str]) -> Node {
    let flags = ["--node-id", "a1", "--agent-addr", url, "--agent-poll-interval", "0.1"];
    Node::start(home, &[&flags, more].concat())
}

fn document(node: &Node, collection: &str, id: &str) -> Option<Value> {
    node.get(collection, id).map(|json| serde_json::from_str(&json).expect("JSON"))
}

fn has_version(node: &Node, version: &str) {
    eventually(&format!("podinfo has version {version}"), || {
        (document(node, "deployments", "a1:podinfo")?["version"] == version).then_some(())
    });
}

fn logs(node: &Node, words: &str) {
    eventually(&format!("the log says {words:?}"), || node.log().contains(words).then_some(()));
}

fn sequence(node: &Node) -> u64 {
    let health = node.json("health", &[]);
    health["sequence"].as_str().and_then(|text| text.parse().ok()).expect("a number")
}

#[test]
fn a_watched_agent_with_an_id_of_its_own_is_called_by_it_whatever_the_node_is_called() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &["--agent-id", "gateway"]);
    let platform = eventually("the agent's platform", || document(&node, "platforms", "gateway"));
    assert_eq!(platform["agent_id"], "gateway");
    assert!(document(&node, "platforms", "a1").is_none(), "nothing under the node's id");
}

#[test]
fn a_watched_agent_that_is_called_otherwise_after_a_restart_is_reported_with_what_stays_of_it() {
    let (agent, home) = (usual(), directory());
    let mut node = watching(home.path(), &agent.url(), &[]);
    has_version(&node, "6.4");
    assert!(node.stop(rustix::process::Signal::TERM).success());
    let node = watching(home.path(), &agent.url(), &["--agent-id", "gateway"]);
    logs(&node, "was called 'a1' and is called 'gateway' now; platforms/a1");
    assert!(document(&node, "platforms", "a1").is_some(), "another node's agent may be called so now");
}

#[test]
fn what_the_agent_answers_becomes_documents_and_what_it_no_longer_lists_is_deleted() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &[]);
    has_version(&node, "6.4");
    let platform = document(&node, "platforms", "a1").expect("written before the packages");
    assert_eq!(platform["platform_type"], "uds-remote-agent");
    assert_eq!((&platform["version"], &platform["k8s_version"]), (&json!("1.0"), &json!("v1.31")));
    assert!(platform["last_seen"].as_i64().expect("a number") > 1_600_000_000);

    let tag = json!({"reference": "6.4", "arch": "amd64", "totalBytes": "4294967296", "pullInfo": {"status": 3}});
    let registry = json!({"host": "local", "packages": [{"packageName": "podinfo", "tags": [tag]}]});
    agent.says(PULLED, json!({ "registries": [registry] }));
    let package = eventually("the package shows", || document(&node, "packages", "a1:6.4-amd64"));
    assert_eq!((&package["total_bytes"], &package["pull_status"]), (&json!(4_294_967_296_u64), &json!(3)));

    agent.says(PACKAGES, json!({"packages": []}));
    eventually("the package is deleted", || node.get("deployments", "a1:podinfo").is_none().then_some(()));
}

#[test]
fn an_agent_that_does_not_change_costs_no_write_but_its_sign_of_life() {
    let (agent, home) = (usual(), directory());
    let package = |n: usize, version: &str| json!({"name": format!("p{n:03}"), "version": version});
    let list = |version: &str| {
        let packages: Vec<Value> = (0..500).map(|n| package(n, if n == 7 { version } else { "1" })).collect();
        json!({ "packages": packages })
    };
    agent.says(PACKAGES, list("1"));
    let node = watching(home.path(), &agent.url(), &["--heartbeat", "1h", "--stale-after", "2h"]);
    eventually("all are written", || document(&node, "deployments", "a1:p499"));
    let (polls, before) = (agent.polls(), sequence(&node));
    eventually("it is polled on", || (agent.polls() >= polls + 10).then_some(()));
    let between = sequence(&node);
    agent.says(PACKAGES, list("2"));
    eventually("one changed", || (document(&node, "deployments", "a1:p007")?["version"] == "2").then_some(()));
    let polls = agent.polls();
    eventually("it is polled on", || (agent.polls() >= polls + 10).then_some(()));
    // The fleet may record a transition meanwhile; the watcher writes nothing.
    assert!(between <= before + 1, "{before} {between}");
    assert!(sequence(&node) <= between + 2, "{between} {}", sequence(&node));
}

#[test]
fn the_heartbeat_is_kept_without_a_change() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &["--heartbeat", "1", "--stale-after", "3"]);
    let seen = || document(&node, "platforms", "a1")?["last_seen"].as_i64();
    let first = eventually("it is seen", seen);
    eventually("it is seen again", || seen().filter(|seen| *seen >= first + 2));
}

#[test]
fn an_agent_that_speaks_for_itself_is_left_alone_until_it_stops() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &["--heartbeat", "2", "--stale-after", "6"]);
    has_version(&node, "6.4");
    node.run("put", &["platforms", "a1", "{\"agent_id\": \"a1\", \"name\": \"its own\"}"]).ok();
    agent.says(PACKAGES, json!({"packages": [{"name": "podinfo", "version": "6.5"}]}));
    logs(&node, "the watched agent pushes by itself");
    assert_eq!(document(&node, "deployments", "a1:podinfo").expect("there")["version"], "6.4");
    logs(&node, "it is watched again");
    has_version(&node, "6.5");
    let platform = document(&node, "platforms", "a1").expect("there");
    assert_eq!((&platform["name"], &platform["version"]), (&json!("its own"), &json!("1.0")));
}

#[test]
fn an_agent_that_stops_answering_goes_stale_and_dead_and_its_packages_stay() {
    let (agent, home) = (usual(), directory());
    let node =
        watching(home.path(), &agent.url(), &["--heartbeat", "0.5", "--stale-after", "1.5", "--dead-after", "1"]);
    has_version(&node, "6.4");
    is(&node, Liveness::Live);
    for path in [STATUS, PACKAGES, PULLED] {
        agent.replies(path, Reply::Bytes(Vec::new()));
    }
    is(&node, Liveness::Stale);
    is(&node, Liveness::Dead);
    has_version(&node, "6.4");
    make_usual(&agent);
    is(&node, Liveness::Live);
}

/// Waits until the agent has this liveness.
fn is(node: &Node, liveness: Liveness) {
    let mut client = peat_ipc::Client::connect(&node.target().parse().expect("a target")).expect("it listens");
    eventually(&format!("the agent is {liveness:?}"), || {
        let agents = client.call(&ListAgentsRequest::default(), Default::default()).expect("an answer").agents;
        agents.iter().any(|agent| agent.agent_id == "a1" && agent.liveness() == liveness).then_some(())
    });
}

#[test]
fn an_agent_that_lies_costs_that_poll_only() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &[]);
    has_version(&node, "6.4");
    let many_headers = [b"HTTP/1.1 200 OK\r\n".as_slice(), &b"x-header: y\r\n".repeat(10_000)].concat();
    let long_header = [b"HTTP/1.1 200 OK\r\nx-header: ".as_slice(), &b"y".repeat(100_000)].concat();
    let huge = format!("{{\"packages\": [{{\"name\": \"{}\"}}]}}", "x".repeat(5 << 20));
    for (reply, words) in [
        (Reply::Bytes(ok("<html>welcome</html>")), "it is not JSON"),
        (Reply::Bytes(ok(&huge)), "larger than 4194304 bytes"),
        (Reply::Endless, "larger than 4194304 bytes"),
        (Reply::Bytes(many_headers), "too many headers"),
        (Reply::Bytes(long_header), "head is larger"),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{\"packages\"".to_vec()), "ListPackages: "),
        (Reply::Bytes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}".to_vec()), "ListPackages: "),
        (Reply::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), "ListPackages: "),
        (Reply::Bytes(Vec::new()), "ListPackages: "),
        (
            Reply::Bytes(b"HTTP/1.1 302 Found\r\nlocation: http://example.com/\r\ncontent-length: 0\r\n\r\n".to_vec()),
            "redirect",
        ),
        (Reply::Bytes(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_vec()), "HTTP status 500"),
    ] {
        let before = node.log().matches(words).count();
        agent.replies(PACKAGES, reply);
        eventually(words, || (before > 0 || node.log().contains(words)).then_some(()));
        let polls = agent.polls();
        eventually("it is polled on", || (agent.polls() >= polls + 3).then_some(()));
        assert_eq!(document(&node, "deployments", "a1:podinfo").expect("still there")["version"], "6.4", "{words}");
    }
    agent.says(PACKAGES, json!({"packages": [{"name": "podinfo", "version": "6.5"}]}));
    has_version(&node, "6.5");
    logs(&node, "is answered again");
}

#[test]
fn an_agent_that_is_slow_holds_up_neither_the_node_nor_the_other_questions() {
    let (agent, home) = (usual(), directory());
    let node = watching(home.path(), &agent.url(), &[]);
    has_version(&node, "6.4");
    agent.replies(PULLED, Reply::Drip);
    let polls = agent.polls();
    eventually("a slow poll has begun", || (agent.polls() > polls).then_some(()));
    node.run("put", &["c", "i", "{}"]).ok();
    logs(&node, "ListPulledPackages: no complete answer within 10s");
    agent.says(PACKAGES, json!({"packages": [{"name": "podinfo", "version": "6.5"}]}));
    has_version(&node, "6.5");
}

#[test]
fn an_agent_that_breaks_off_http2_is_named() {
    let (agent, home) = (Agent::start(), directory());
    // SETTINGS, and a GOAWAY for input it does not understand.
    let opening = b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01";
    for path in [STATUS, PACKAGES, PULLED, "*"] {
        agent.replies(path, Reply::Bytes(opening.to_vec()));
    }
    let node = watching(home.path(), &agent.url(), &[]);
    logs(&node, "GET /status: the answer cannot be used: HTTP/2: ");
}

#[test]
fn an_agent_that_is_not_there_yet_is_found_when_it_comes() {
    let home = directory();
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let node = watching(home.path(), &format!("http://127.0.0.1:{port}"), &[]);
    logs(&node, "GET /status: ");
    node.run("status", &[]).ok();
}

/// Copies a key with private permissions, which git does not preserve.
fn private(home: &std::path::Path, name: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = home.join(name);
    std::fs::copy(fixture(name), &path).expect("copied");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    path.to_str().expect("text").to_owned()
}

fn fixture(name: &str) -> String {
    format!("{}/tests/integration/tls/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn over_mutual_tls_both_ends_show_who_they_are() {
    let (agent, home) = (Agent::with_mutual_tls(), directory());
    make_usual(&agent);
    let (ca, certificate, key) = (fixture("ca.pem"), fixture("client.pem"), private(home.path(), "client.key"));
    let flags = ["--agent-tls-ca", &ca, "--agent-tls-cert", &certificate, "--agent-tls-key", &key];
    let node = watching(home.path(), &agent.https(), &flags);
    has_version(&node, "6.4");
}

#[test]
fn an_agent_that_nobody_vouches_for_is_not_asked() {
    let (agent, home, other) = (Agent::with_mutual_tls(), directory(), directory());
    make_usual(&agent);
    let (stranger, ca) = (fixture("client.pem"), fixture("ca.pem"));
    let node = watching(home.path(), &agent.https(), &["--agent-tls-ca", &stranger]);
    logs(&node, "UnknownIssuer");
    let node = watching(other.path(), &agent.https(), &["--agent-tls-ca", &ca]);
    logs(&node, "CertificateRequired");
    assert_eq!(agent.polls(), 0);
}

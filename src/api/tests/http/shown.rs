//! Monitoring: health, readiness, metrics, the web page and its data.

use std::time::Duration;

use peat_ipc::sidecar::ListPeersRequest;
use serde_json::json;

use super::{ROOT, World, get};
use crate::api::{Caller, SYNC_OUTSTANDING};
use crate::config::Secret;
use crate::identity::EndpointId;
use crate::sync::{Event, Measured, Peer, Stats, Status, Traffic};

fn peer(number: u8, connected: bool) -> Peer {
    Peer {
        id: EndpointId([number; 32]),
        addresses: Vec::new(),
        connected,
        path: connected.then_some("direct"),
        path_reason: String::new(),
        rtt_micros: 1_500,
        last_ack_age_ms: 250,
        pending_documents: 7,
        held_documents: 0,
        clock_skew_ms: -2_000,
        last_error: String::new(),
        name: format!("n{number}"),
        traffic: Traffic::default(),
    }
}

fn measured() -> Measured {
    let stats = Stats { active: true, connected_peers: 1, bytes_sent: 9, bytes_received: 8 };
    Measured { stats, known_peers: 5, peers: vec![peer(2, true), peer(3, false)] }
}

#[test]
fn a_node_is_healthy_while_its_threads_answer() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    assert_eq!(world.ask(client, &get("/healthz")).text(), "ok\n");
    (world.measured, world.store_runs) = (None, false);
    world.send(client, get("/healthz").as_bytes());
    assert!(world.response(client).is_none(), "they have a moment");
    world.wait(Duration::from_secs(4));
    let answer = world.response(client).expect("an answer");
    assert_eq!((answer.status, answer.text()), (503, "no answer from: store, sync\n"));
    (world.measured, world.store_runs) = (Some(Measured::default()), true);
    world.run();
    assert_eq!(world.ask(client, &get("/healthz")).status, 200, "what comes late harms nobody");
    world.engine.set_silent(vec!["watcher"]);
    assert_eq!(world.ask(client, &get("/healthz")).text(), "no answer from: watcher\n");
}

#[test]
fn a_node_is_ready_once_some_peer_was_tried() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let answer = world.ask(client, &get("/readyz"));
    assert_eq!((answer.status, answer.text()), (503, "no peer has been tried yet\n"));
    let status = Status { active: true, tried: true, ..Status::default() };
    world.engine.handle_event(world.now, Event::Status(status));
    assert_eq!(world.ask(client, &get("/readyz")).status, 200);
}

#[test]
fn metrics_name_calls_peers_agents_and_threads() {
    let mut world = World::new();
    world.measured = Some(measured());
    let client = world.browse(ROOT);
    world.ask_json(client, "/api/v1/agents", r#"{"agent_id":"a1"}"#);
    world.ask_json(client, "/api/v1/agents/a1/commands", r#"{"type":"x"}"#);
    let native = world.connect(ROOT);
    world.call(native, &peat_ipc::sidecar::GetStatusRequest {}).expect("a status");
    let answer = world.ask(client, &get("/metrics"));
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let (two, three) = ("02".repeat(32), "03".repeat(32));
    for line in [
        "rpcs_total{method=\"GetStatus\",code=\"OK\"} 1".into(),
        "rpcs_total{method=\"PutCommand\",code=\"OK\"} 1".into(),
        "rpc_duration_seconds_count{method=\"PutCommand\"} 1".into(),
        "agents{state=\"live\"} 1".into(),
        "commands{status=\"pending\"} 1".into(),
        "peers{state=\"connected\"} 1".into(),
        "peers{state=\"away\"} 4".into(),
        "peers_unlisted 3".into(),
        "udp_sent_bytes_total 9".into(),
        format!("peer_rtt_seconds{{peer=\"{two}\"}} 0.001500"),
        format!("peer_clock_skew_seconds{{peer=\"{three}\"}} -2.000000"),
        format!("peer_path{{peer=\"{two}\",path=\"direct\"}} 1"),
        format!("peer_sent_bytes_total{{peer=\"{two}\",class=\"merged\"}} 0"),
    ] {
        assert!(answer.text().contains(&format!("\npeat_node_{line}\n")), "{line}\n{}", answer.text());
    }
    assert!(!answer.text().contains(&format!("peer_rtt_seconds{{peer=\"{three}\"")), "it is away");
}

#[test]
fn calls_that_are_refused_before_they_begin_are_counted() {
    let mut world = World::new();
    world.measured = None;
    let clients = [world.connect(ROOT), world.connect(ROOT)];
    for number in 0..=SYNC_OUTSTANDING {
        world.start(clients[number % 2], &ListPeersRequest::default());
    }
    let browser = world.browse(ROOT);
    world.send(browser, get("/metrics").as_bytes());
    world.wait(Duration::from_secs(4));
    let answer = world.response(browser).expect("an answer");
    let line = "\npeat_node_rpcs_total{method=\"ListPeers\",code=\"RESOURCE_EXHAUSTED\"} 1\n";
    assert!(answer.text().contains(line), "{}", answer.text());
}

#[test]
fn metrics_come_without_what_a_silent_thread_would_have_said() {
    let mut world = World::new();
    world.measured = None;
    let client = world.browse(ROOT);
    world.send(client, get("/metrics").as_bytes());
    world.wait(Duration::from_secs(4));
    let answer = world.response(client).expect("an answer");
    assert!(answer.status == 200 && answer.text().contains("peat_node_documents 0\n"));
    assert!(!answer.text().contains("peat_node_peers"));
}

#[test]
fn a_client_that_leaves_before_its_answer_is_forgotten() {
    let mut world = World::new();
    (world.measured, world.store_runs) = (None, false);
    let client = world.browse(ROOT);
    world.send(client, get("/healthz").as_bytes());
    world.engine.handle_closed(world.now, client);
    world.store_runs = true;
    world.run();
    world.wait(Duration::from_secs(4));
    assert_eq!(world.engine.connections(), 0);
}

#[test]
fn the_overview_shows_the_node_its_peers_agents_and_commands() {
    let mut world = World::new();
    world.measured = Some(measured());
    let client = world.browse(ROOT);
    world.ask_json(client, "/api/v1/agents", r#"{"agent_id":"<b>","group":"north"}"#);
    world.ask_json(client, "/api/v1/agents/groups/north/commands", r#"{"type":"replay"}"#);
    let overview = world.get_json(client, "/api/v1/overview");
    assert_eq!((&overview["node"]["id"], &overview["known_peers"]), (&json!("n1"), &json!(5)));
    assert_eq!((&overview["peers"][0]["name"], &overview["peers"][0]["pending_documents"]), (&json!("n2"), &json!(7)));
    assert_eq!(overview["agents"]["counts"], json!({ "live": 1, "stale": 0, "dead": 0 }));
    assert_eq!(overview["agents"]["shown"][0]["agent_id"], "<b>");
    let command = &overview["commands"]["shown"][0];
    assert_eq!((&command["type"], &command["to"], &command["targets"]), (&json!("replay"), &json!("north"), &json!(1)));
    world.measured = None;
    world.send(client, get("/api/v1/overview").as_bytes());
    world.wait(Duration::from_secs(4));
    let answer = world.response(client).expect("an answer");
    assert!(answer.text().contains("the sync thread does not answer"), "{}", answer.text());
}

#[test]
fn the_page_and_health_are_for_everybody_and_the_rest_wants_the_token() {
    let mut world = World::new();
    let token = Some(Secret::new(b"0123456789abcdef".to_vec()));
    world.reload(|reloaded| reloaded.policy.tcp_token = token);
    let client = world.browse(Caller::Tcp);
    for (path, status) in [
        ("/", 200),
        ("/healthz", 200),
        ("/readyz", 503),
        ("/metrics", 401),
        ("/api/v1/overview", 401),
        ("/api/v1/agents", 401),
        ("/api/v1/agents/a1/events", 401),
    ] {
        assert_eq!(world.ask(client, &get(path)).status, status, "{path}");
    }
    let shown = get("/metrics").replace("\r\n\r\n", "\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n");
    assert_eq!(world.ask(client, &shown).status, 200);
    let page = world.ask(client, &get("/"));
    let policy = page.header("content-security-policy").expect("a policy");
    assert!(policy.contains("frame-ancestors 'none'") && policy.contains("script-src 'sha256-"), "{policy}");
    assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
}

//! Agents and commands over REST.

use std::time::Duration;

use serde_json::json;

use super::{ROOT, World, get, post};
use crate::api::tests::SOMEBODY;
use crate::api::tests::agents::OTHER;

const AGENTS: &str = "/api/v1/agents";

#[test]
fn an_agent_registers_lives_by_its_heartbeats_and_is_listed_by_state() {
    let mut world = World::new();
    let agent = world.browse(SOMEBODY);
    let body = r#"{"agent_id":"a/1","name":"first","group":"north","labels":{"k":"v"},
                   "workloads":[{"name":"web","version":"2"}],"capacity":{"cpu_total":4}}"#;
    let (status, registered) = world.ask_json(agent, AGENTS, body);
    assert_eq!((status, &registered["heartbeat_interval_ms"]), (200, &json!(30_000)), "{registered}");
    assert_eq!(registered["events_url"], "/api/v1/agents/a%2F1/events");
    let listed = world.get_json(agent, "/api/v1/agents?status=LIVE");
    let listed = &listed["agents"][0];
    assert_eq!(
        (&listed["agent_id"], &listed["group"], &listed["labels"]["k"]),
        (&json!("a/1"), &json!("north"), &json!("v"))
    );
    assert_eq!(
        (&listed["status"], &listed["via"], &listed["attached_here"]),
        (&json!("LIVE"), &json!("n1"), &json!(false))
    );
    let deployed = world.get_document("deployments", "a/1:web").expect("deployed");
    assert!(deployed.contains(r#""version":"2""#), "{deployed}");
    world.wait(Duration::from_secs(91));
    assert_eq!(world.get_json(agent, "/api/v1/agents?status=LIVE"), json!({ "agents": [] }));
    assert_eq!(world.get_json(agent, "/api/v1/agents?status=stale")["agents"].as_array().map(Vec::len), Some(1));
    let (status, _) = world.ask_json(agent, "/api/v1/agents/a%2F1/heartbeat", r#"{"status":"BUSY"}"#);
    assert_eq!(status, 200);
    assert_eq!(world.get_json(agent, AGENTS)["agents"][0]["status"], "LIVE");
    assert!(world.get_document("platforms", "a/1").expect("there").contains("PLATFORM_STATUS_BUSY"));
    assert_eq!(world.get_json(agent, "/api/v1/agents?group=south"), json!({ "agents": [] }));
}

#[test]
fn what_is_wrong_is_said_in_json_with_a_code() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let long = format!(r#"{{"agent_id":"{}"}}"#, "a".repeat(256));
    for (path, body, status, code, word) in [
        (AGENTS, "{}", 400, "invalid_argument", "agent_id"),
        (AGENTS, long.as_str(), 429, "resource_exhausted", "255"),
        (AGENTS, "[1]", 400, "invalid_argument", "no JSON object"),
        ("/api/v1/agents/nobody/heartbeat", "", 404, "not_found", "POST /api/v1/agents"),
        ("/api/v1/agents/%ff/heartbeat", "", 400, "invalid_argument", "percent-encoded"),
        ("/api/v1/agents/a1/commands", "{}", 400, "invalid_argument", "type"),
        ("/api/v1/agents/a1/commands", r#"{"type":"x","ttl_s":999999999}"#, 400, "invalid_argument", "ttl_s"),
        ("/api/v1/agents/commands", r#"{"type":"x"}"#, 400, "failed_precondition", "no live agent"),
        ("/api/v1/agents/groups/north/commands", r#"{"type":"x"}"#, 400, "failed_precondition", "north"),
        ("/api/v1/agents/a1/commands/k/ack", "", 404, "not_found", "k"),
        ("/api/v1/agents/a1/commands/k/ack", r#"{"status":"perhaps"}"#, 400, "invalid_argument", "status"),
    ] {
        let (given, answer) = world.ask_json(client, path, body);
        assert_eq!((given, answer["code"].as_str()), (status, Some(code)), "{path} {body} {answer}");
        assert!(answer["message"].as_str().is_some_and(|words| words.contains(word)), "{path} {body} {answer}");
    }
    assert_eq!(world.ask(client, &get("/api/v1/agents?status=gone")).status, 400);
    assert!(world.is_open(client));
}

#[test]
fn a_command_is_accepted_for_delivery_with_its_id_and_targets_and_done_when_the_agent_says_so() {
    let mut world = World::new();
    let (admin, agent) = (world.browse(ROOT), world.browse(SOMEBODY));
    for id in ["a2", "a1"] {
        world.ask_json(agent, AGENTS, &format!(r#"{{"agent_id":"{id}","group":"north"}}"#));
    }
    let order = r#"{"type":"replay","payload":{"n":1},"ttl_s":60}"#;
    let (status, sent) = world.ask_json(admin, "/api/v1/agents/groups/north/commands", order);
    assert_eq!((status, &sent["targets"]), (202, &json!(["a1", "a2"])), "{sent}");
    let id = sent["id"].as_str().expect("an id").to_owned();
    let (_, other) = world.ask_json(admin, "/api/v1/agents/commands", order);
    assert_ne!(other["id"], sent["id"]);
    assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", order).1["targets"], json!(["a1"]));
    let ack = |agent: &str| format!("/api/v1/agents/{agent}/commands/{id}/ack");
    assert_eq!(world.ask_json(agent, &ack("a1"), "").1, json!({ "id": id, "status": "ACCEPTED" }));
    assert_eq!(world.ask_json(agent, &ack("a1"), "").0, 200, "said again");
    let (status, _) = world.ask_json(agent, &ack("a1"), r#"{"status":"completed","result":{"ok":true}}"#);
    assert_eq!(status, 200);
    world.ask_json(agent, &ack("a2"), r#"{"status":"failed","error":"no room"}"#);
    let command = world.get_document("commands", &id).expect("kept");
    assert!(command.contains("COMMAND_STATUS_FAILED") && command.contains("COMMAND_STATUS_COMPLETED"), "{command}");
    assert!(world.get_document("commands", &format!("{id}:a1")).expect("a result").contains("true"));
    for late in ["failed", "cancelled", "progress", "completed"] {
        let (status, stands) = world.ask_json(agent, &ack("a1"), &format!(r#"{{"status":"{late}"}}"#));
        assert_eq!((status, &stands["status"]), (200, &json!("COMPLETED")), "what is over stays as it is");
    }
    assert_eq!(world.ask_json(agent, &ack("a2"), r#"{"status":"completed"}"#).1["status"], "COMPLETED", "it climbs");
}

#[test]
fn what_came_of_a_command_is_read_over_rest() {
    let mut world = World::new();
    let (admin, agent) = (world.browse(ROOT), world.browse(SOMEBODY));
    for number in 0..3 {
        let order = format!(r#"{{"id":"k{number}","type":"replay","payload":{{"n":{number}}},"ttl_s":60}}"#);
        assert_eq!(world.ask_json(admin, "/api/v1/agents/a%2F1/commands", &order).0, 202);
    }
    world.ask_json(agent, "/api/v1/agents/a%2F1/commands/k1/ack", "");
    let done = r#"{"status":"completed","result":{"frames":12}}"#;
    world.ask_json(agent, "/api/v1/agents/a%2F1/commands/k1/ack", done);
    let command = world.get_json(agent, "/api/v1/commands/k1");
    assert_eq!((&command["status"], &command["result"]), (&json!("COMPLETED"), &json!({"frames": 12})), "{command}");
    assert_eq!((&command["type"], &command["payload"]), (&json!("replay"), &json!({"n": 1})));
    assert_eq!(command["targets"][0]["agent_id"], "a/1");
    let ids = |world: &mut World, query: &str| -> (Vec<String>, Option<String>) {
        let listed = world.get_json(agent, &format!("/api/v1/agents/a%2F1/commands{query}"));
        let ids =
            listed["commands"].as_array().expect("a list").iter().map(|one| one["id"].as_str().expect("an id").into());
        (ids.collect(), listed["next_page_token"].as_str().map(String::from))
    };
    assert_eq!(ids(&mut world, ""), (vec!["k0".into(), "k1".into(), "k2".into()], None));
    assert_eq!(ids(&mut world, "?pending=true").0, ["k0", "k2"]);
    assert_eq!(ids(&mut world, "?status=completed,failed").0, ["k1"]);
    let (first, token) = ids(&mut world, "?page_size=2");
    assert_eq!(first, ["k0", "k1"]);
    assert_eq!(
        ids(&mut world, &format!("?page_size=2&page_token={}", token.expect("more"))),
        (vec!["k2".into()], None)
    );
    for (path, status) in [
        ("/api/v1/commands/none", 404),
        ("/api/v1/agents/a1/commands?status=gone", 400),
        ("/api/v1/agents/a1/commands?page_size=x", 400),
        ("/api/v1/agents/a1/commands?page_token=0", 400),
        ("/api/v1/agents/a1/commands?page_token=00", 400),
        ("/api/v1/agents/a1/commands?pending=perhaps", 400),
    ] {
        assert_eq!(world.ask(agent, &get(path)).status, status, "{path}");
    }
}

#[test]
fn one_agent_is_read_and_all_of_them_in_pages_with_their_routes() {
    let mut world = World::new();
    let agent = world.browse(SOMEBODY);
    for number in 0..5 {
        let body = format!(r#"{{"agent_id":"a{number}","routes":["http://10.0.0.{number}:80"]}}"#);
        assert_eq!(world.ask_json(agent, AGENTS, &body).0, 200);
    }
    let one = world.get_json(agent, "/api/v1/agents/a3");
    assert_eq!((&one["agent_id"], &one["routes"]), (&json!("a3"), &json!(["http://10.0.0.3:80"])));
    let mut listed = Vec::new();
    let mut query = "?page_size=2".to_owned();
    loop {
        let page = world.get_json(agent, &format!("{AGENTS}{query}"));
        listed.extend(page["agents"].as_array().expect("a list").iter().map(|one| one["agent_id"].clone()));
        let Some(token) = page["next_page_token"].as_str() else { break };
        query = format!("?page_size=2&page_token={token}");
    }
    assert_eq!(listed, ["a0", "a1", "a2", "a3", "a4"]);
    assert_eq!(world.ask(agent, &get("/api/v1/agents/none")).status, 404);
    let client = world.connect(ROOT);
    let all = world.call(client, &peat_ipc::sidecar::ListAgentsRequest::default()).expect("listed");
    assert_eq!(
        (all.agents[3].routes.as_slice(), all.next_page_token.len()),
        (&["http://10.0.0.3:80".to_owned()][..], 0)
    );
}

#[test]
fn an_agent_is_told_where_its_events_are_as_it_reached_the_node() {
    use crate::api::Caller;
    let mut world = World::new();
    world.reload(|reloaded| reloaded.policy.insecure = true);
    let mut url = |caller: Caller, host: &str| {
        let client = world.browse(caller);
        let request = post(AGENTS, "application/json", &format!(r#"{{"agent_id":"{host}"}}"#));
        let answer = world.ask(client, &request.replace("localhost", host));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
        body["events_url"].as_str().expect("text").to_owned()
    };
    assert_eq!(url(Caller::Tcp, "10.0.0.7:8080"), "http://10.0.0.7:8080/api/v1/agents/10.0.0.7%3A8080/events");
    assert_eq!(url(Caller::Tcp, "[::1]:80"), "http://[::1]:80/api/v1/agents/%5B%3A%3A1%5D%3A80/events");
    assert_eq!(url(SOMEBODY, "localhost"), "/api/v1/agents/localhost/events", "a socket's host is a name for nothing");
}

#[test]
fn an_order_with_an_id_may_be_sent_again() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    let order = r#"{"id":"k","type":"replay","payload":{"n":1}}"#;
    let first = world.ask_json(admin, "/api/v1/agents/a1/commands", order);
    world.wait(Duration::from_secs(5));
    assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", order), first);
    let (status, other) = world.ask_json(admin, "/api/v1/agents/a1/commands", r#"{"id":"k","type":"other"}"#);
    assert_eq!((status, other["code"].as_str()), (409, Some("already_exists")));
}

#[test]
fn a_command_that_names_no_time_expires_after_the_default_and_one_with_zero_never() {
    let mut world = World::new();
    let (admin, agent) = (world.browse(ROOT), world.browse(SOMEBODY));
    world.ask_json(agent, AGENTS, r#"{"agent_id":"a1"}"#);
    for (body, late) in [(r#"{"id":"soon","type":"x"}"#, 400), (r#"{"id":"ever","type":"x","ttl_s":0}"#, 200)] {
        assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", body).0, 202);
        world.wait(Duration::from_secs(61));
        let id = if late == 200 { "ever" } else { "soon" };
        let (status, answer) = world.ask_json(agent, &format!("/api/v1/agents/a1/commands/{id}/ack"), "");
        assert_eq!(status, late, "{answer}");
    }
}

#[test]
fn an_agents_caller_issues_no_commands_and_speaks_for_no_other() {
    let mut world = World::new();
    let (admin, agent, other) = (world.browse(ROOT), world.browse(SOMEBODY), world.browse(OTHER));
    world.ask_json(agent, AGENTS, r#"{"agent_id":"a1"}"#);
    world.ask_json(admin, "/api/v1/agents/a1/commands", r#"{"id":"k","type":"x"}"#);
    for (client, path, body) in [
        (agent, "/api/v1/agents/a1/commands", r#"{"type":"x"}"#),
        (agent, "/api/v1/agents/commands", r#"{"type":"x"}"#),
        (other, AGENTS, r#"{"agent_id":"a1"}"#),
        (other, "/api/v1/agents/a1/heartbeat", ""),
        (other, "/api/v1/agents/a1/commands/k/ack", ""),
    ] {
        let (status, answer) = world.ask_json(client, path, body);
        assert_eq!((status, answer["code"].as_str()), (403, Some("permission_denied")), "{path} {answer}");
    }
    assert_eq!(world.ask(other, &get("/api/v1/agents/a1/events")).status, 403);
    assert_eq!(world.ask(other, &post("/api/v1/agents/a2/events", "text/plain", "")).status, 405);
}

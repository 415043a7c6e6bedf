//! Server-sent events: delivery while an agent listens, and no replay.

use std::time::Duration;

use super::{ROOT, World, get};
use crate::api::ConnectionId;
use crate::api::tests::SOMEBODY;

impl World {
    fn register(&mut self, agent: &str) -> ConnectionId {
        let client = self.browse(SOMEBODY);
        assert_eq!(self.ask_json(client, "/api/v1/agents", &format!(r#"{{"agent_id":"{agent}"}}"#)).0, 200);
        client
    }

    fn listen(&mut self, agent: &str) -> ConnectionId {
        let client = self.browse(SOMEBODY);
        let request = get(&format!("/api/v1/agents/{agent}/events"));
        self.send(client, request.replace("\r\n\r\n", "\r\nLast-Event-ID: missed\r\n\r\n").as_bytes());
        let answer = self.response(client).expect("a head");
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
        assert!(answer.text().starts_with("retry: 2000\nevent: config\ndata: {"), "{}", answer.text());
        client
    }

    fn order(&mut self, admin: ConnectionId, id: &str) {
        let body = format!(r#"{{"id":"{id}","type":"replay","payload":{{"n":1}}}}"#);
        assert_eq!(self.ask_json(admin, "/api/v1/agents/a1/commands", &body).0, 202);
    }
}

#[test]
fn an_agent_hears_of_a_command_and_of_its_cancellation() {
    let mut world = World::new();
    let (admin, agent) = (world.browse(ROOT), world.register("a1"));
    let listener = world.listen("a1");
    world.order(admin, "k");
    let heard = world.streamed(listener);
    assert!(heard.starts_with("id: k\nevent: command\ndata: {"), "{heard}");
    assert!(heard.contains(r#""payload":{"n":1}"#) && heard.ends_with("}\n\n"), "{heard}");
    world.ask_json(agent, "/api/v1/agents/a1/commands/k/ack", "");
    assert_eq!(world.streamed(listener), "");
    let native = world.connect(ROOT);
    world.call(native, &peat_ipc::sidecar::CancelCommandRequest { id: "k".into() }).expect("cancelled");
    assert_eq!(world.streamed(listener), "event: cancel\ndata: {\"id\":\"k\"}\n\n");
}

#[test]
fn nothing_missed_is_replayed_and_a_fresh_send_arrives() {
    let mut world = World::new();
    let (admin, agent) = (world.browse(ROOT), world.register("a1"));
    let listener = world.listen("a1");
    world.engine.handle_closed(world.now, listener);
    world.order(admin, "missed");
    let listener = world.listen("a1");
    assert_eq!(world.streamed(listener), "");
    world.order(admin, "fresh");
    assert!(world.streamed(listener).starts_with("id: fresh\n"));
    let (status, _) = world.ask_json(agent, "/api/v1/agents/a1/commands/missed/ack", "");
    assert_eq!(status, 200, "it is pending until it expires, and may be found by polling");
    world.wait(Duration::from_secs(61));
    assert!(world.get_document("commands", "fresh").expect("kept").contains("COMMAND_STATUS_EXPIRED"));
}

#[test]
fn a_ping_comes_every_fifteen_seconds_and_keeps_nobody_alive() {
    let mut world = World::new();
    world.register("a1");
    let listener = world.listen("a1");
    world.wait(Duration::from_secs(14));
    assert_eq!(world.streamed(listener), "");
    world.wait(Duration::from_secs(31));
    assert_eq!(world.streamed(listener), "event: ping\ndata: {}\n\n".repeat(3));
    world.wait(Duration::from_secs(600));
    assert!(world.is_open(listener), "a stream may be idle for ever");
    let looker = world.browse(SOMEBODY);
    assert_eq!(world.get_json(looker, "/api/v1/agents")["agents"][0]["status"], "DEAD");
}

#[test]
fn a_lost_stream_of_events_is_no_missed_heartbeat() {
    let mut world = World::new();
    let agent = world.register("a1");
    let listener = world.listen("a1");
    world.engine.handle_closed(world.now, listener);
    world.wait(Duration::from_secs(89));
    assert_eq!(world.get_json(agent, "/api/v1/agents")["agents"][0]["status"], "LIVE");
}

#[test]
fn a_newer_stream_takes_over_and_an_agents_link_gets_everything() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    world.register("a1");
    let (first, second) = (world.listen("a1"), world.listen("a1"));
    let ended = world.clients[&first].text.clone().expect("HTTP");
    assert_eq!(ended, b"0\r\n\r\n");
    world.order(admin, "k1");
    assert!(world.streamed(second).contains("id: k1"));
    let link = world.attach(SOMEBODY, "a1");
    assert!(world.heard(link).is_some(), "what is pending is pushed again");
    world.order(admin, "k2");
    assert!(world.heard(link).is_some());
    assert_eq!(world.streamed(second), "");
    world.engine.handle_closed(world.now, link.client);
    world.run();
    world.order(admin, "k3");
    assert!(world.streamed(second).starts_with("id: k3\n"));
}

#[test]
fn reloaded_settings_are_told_to_who_listens() {
    let mut world = World::new();
    world.register("a1");
    let listener = world.listen("a1");
    world.reload(|reloaded| reloaded.fleet.times.heartbeat = Duration::from_secs(5));
    let heard = world.streamed(listener);
    assert!(heard.starts_with("event: config\n") && heard.contains(r#""heartbeat_interval_ms":5000"#), "{heard}");
}

#[test]
fn who_does_not_read_its_events_loses_the_stream_and_costs_no_memory() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    world.register("a1");
    let listener = world.listen("a1");
    world.clients.get_mut(&listener).expect("connected").takes = 0;
    let payload = "x".repeat(60 << 10);
    for number in 0..2 {
        let body = format!(r#"{{"id":"k{number}","type":"replay","payload":"{payload}"}}"#);
        assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", &body).0, 202);
    }
    world.order(admin, "more");
    assert!(world.is_open(listener));
    assert!(world.engine.output(listener).len() < 200 << 10, "what waits is named, not held");
    world.wait(Duration::from_secs(31));
    assert!(!world.is_open(listener));
    let listener = world.listen("a1");
    world.clients.get_mut(&listener).expect("connected").takes = 0;
    world.wait(Duration::from_secs(60));
    assert!(!world.is_open(listener), "not even a ping was taken");
}

#[test]
fn a_listener_that_reads_slowly_hears_of_everything() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    world.register("a1");
    let listener = world.listen("a1");
    world.clients.get_mut(&listener).expect("connected").takes = 0;
    let payload = "x".repeat(200 << 10);
    for number in 0..60 {
        let body = format!(r#"{{"id":"k{number}","type":"replay","payload":"{payload}","ttl_s":0}}"#);
        assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", &body).0, 202);
    }
    let mut heard = String::new();
    while !heard.contains("id: k59\n") {
        world.take_bytes(listener, 100 << 10);
        heard.push_str(&world.streamed(listener));
    }
    assert!((0..60).all(|number| heard.contains(&format!("id: k{number}\n"))));
    assert!(world.is_open(listener));
}

#[test]
fn asking_for_the_head_of_events_takes_no_stream_over() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    world.register("a1");
    let listener = world.listen("a1");
    let looker = world.browse(SOMEBODY);
    let answer = world.ask(looker, &get("/api/v1/agents/a1/events").replace("GET ", "HEAD "));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")));
    assert!(answer.body.is_empty() && world.is_open(looker));
    world.order(admin, "k");
    assert!(world.streamed(listener).starts_with("id: k\n"), "it goes where it went before");
    world.send(looker, get("/api/v1/agents/a2/events").replace("GET ", "HEAD ").as_bytes());
    let text = world.clients[&looker].text.clone().expect("HTTP");
    assert!(text.starts_with(b"HTTP/1.1 404 "), "{}", text.escape_ascii());
}

#[test]
fn nobody_listens_for_an_agent_that_is_not_there() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let answer = world.ask(client, &get("/api/v1/agents/a1/events"));
    assert_eq!(answer.status, 404);
    assert!(answer.text().contains("POST /api/v1/agents"));
}

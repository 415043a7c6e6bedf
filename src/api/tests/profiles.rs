//! Identity of an agent, from its registration or from its document.

use std::time::Duration;

use peat_ipc::agent::{Capacity, Register, Workload, agent_message};
use peat_ipc::sidecar::*;
use serde_json::{Value, json};

use super::agents::register;
use super::{ROOT, SOMEBODY, World};
use crate::api::ConnectionId;

impl World {
    fn put_json(&mut self, client: ConnectionId, id: &str, json: &Value) {
        let request = PutDocumentRequest {
            collection: "platforms".into(),
            doc_id: id.into(),
            json_data: json.to_string(),
            ..PutDocumentRequest::default()
        };
        self.call(client, &request).expect("put");
    }

    fn listed(&mut self, id: &str) -> Agent {
        let client = self.connect(ROOT);
        let all = self.call(client, &ListAgentsRequest::default()).expect("listed").agents;
        all.into_iter().find(|agent| agent.agent_id == id).expect("there")
    }
}

#[test]
fn an_agent_that_puts_its_document_is_what_the_document_says() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    world.put_json(
        agent,
        "a1",
        &json!({
            "group": "north", "version": "2.1", "labels": {"site": "k", "bad": 7}, "name": "first",
            "capabilities": ["x"], "routes": ["http://10.0.0.1"], "status": "BUSY",
        }),
    );
    let listed = world.listed("a1");
    assert_eq!((listed.group.as_str(), listed.version.as_str(), listed.name.as_str()), ("north", "2.1", "first"));
    assert_eq!((&listed.labels["site"], listed.labels.len(), listed.routes.len()), (&"k".to_owned(), 1, 1));
    let to_group = Command { id: "k".into(), group: "north".into(), command_type: "x".into(), ..Command::default() };
    world.call(admin, &PutCommandRequest { command: Some(to_group) }).expect("it is in the group");
    let patch = |json: Value| PatchDocumentRequest {
        collection: "platforms".into(),
        doc_id: "a1".into(),
        patch_json: json.to_string(),
        ..PatchDocumentRequest::default()
    };
    world.call(agent, &patch(json!({"group": "south", "version": null}))).expect("patched");
    let listed = world.listed("a1");
    assert_eq!((listed.group.as_str(), listed.version.as_str()), ("south", ""));
    world.wait(Duration::from_secs(100));
    let stored = world.json("agents", "a1").expect("stored");
    assert_eq!(stored["group"], "south", "other nodes are told");
    let long = "x".repeat(2_000);
    world.put_json(agent, "a1", &json!({"group": long, "labels": {"a": "b".repeat(70_000)}}));
    let listed = world.listed("a1");
    assert_eq!((listed.group.as_str(), listed.labels.len()), ("", 0), "what is over a limit is not taken");
}

#[test]
fn an_agent_with_a_stream_is_what_it_registered_as() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    world.open_stream(
        SOMEBODY,
        Some(agent_message::Body::Register(Register { group: "north".into(), ..register("a1") })),
        100,
    );
    world.put_json(admin, "a1", &json!({"group": "south"}));
    assert_eq!(world.listed("a1").group, "north");
}

#[test]
fn a_registration_replaces_what_an_earlier_one_said() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    world.put_json(admin, "a1", &json!({"platform_type": "uav"}));
    world.wait(Duration::from_secs(100));
    let workload = |labels: bool| Workload {
        name: "w".into(),
        labels: if labels { [("a".to_owned(), "b".to_owned())].into() } else { Default::default() },
        ..Workload::default()
    };
    let all = Register {
        name: "first".into(),
        group: "north".into(),
        version: "1".into(),
        capabilities: vec!["x".into()],
        labels: [("site".to_owned(), "k".to_owned())].into(),
        routes: vec!["http://10.0.0.1".into()],
        capacity: Some(Capacity { cpu_total: 4.0, ..Capacity::default() }),
        workloads: vec![workload(true)],
        ..register("a1")
    };
    world.open_stream(ROOT, Some(agent_message::Body::Register(all.clone())), 100);
    let held = world.json("platforms", "a1").expect("there");
    assert_eq!(
        (&held["group"], &held["labels"], &held["routes"]),
        (&json!("north"), &json!({"site": "k"}), &json!(["http://10.0.0.1"]))
    );
    let less = Register { version: "2".into(), workloads: vec![workload(false)], ..register("a1") };
    world.open_stream(ROOT, Some(agent_message::Body::Register(less)), 100);
    let held = world.json("platforms", "a1").expect("there");
    assert_eq!(held, json!({"agent_id": "a1", "platform_type": "uav", "version": "2"}));
    assert_eq!(world.json("deployments", "a1:w").expect("there").get("labels"), None);
    let listed = world.listed("a1");
    assert_eq!((listed.version.as_str(), listed.group.as_str(), listed.routes.len()), ("2", "", 0));
}

#[test]
fn a_stopped_node_reads_what_its_agents_said_before_it_judges_them() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    let watcher = world.connect(ROOT);
    let call = world.start_with(
        watcher,
        &WatchAgentsRequest {},
        peat_ipc::frame::RequestHeader { credit: 1_000, ..Default::default() },
    );
    while world.take(watcher, call).is_some() {}
    assert!(world.engine.poll_deadline().is_some());
    // The process was suspended for longer than both thresholds; heartbeats wait in the socket.
    let later = world.now.after(Duration::from_secs(1_000));
    world.set_time(later);
    world.engine.handle_timeout(world.now);
    world.run();
    world.beat(stream, 7);
    world.run();
    let told: Vec<_> = std::iter::from_fn(|| world.take(watcher, call)).collect();
    assert!(told.is_empty(), "no one was announced as anything: {told:?}");
    assert_eq!(world.listed("a1").liveness(), Liveness::Live);
    world.wait(Duration::from_secs(91));
    assert_eq!(world.listed("a1").liveness(), Liveness::Stale);
}

//! The stream of an agent: Register first, heartbeats, take-over, and errors that cost only the stream.

use std::time::Duration;

use peat_ipc::agent::{
    AgentMessage, Goodbye, Heartbeat, NodeMessage, Register, State, Workload, agent_message, node_message,
};
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{RequestHeader, put_half_close, put_request, put_upload};
use peat_ipc::method::AGENT_LINK;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use peat_ipc::{CallError, Code};

use super::{ROOT, SOMEBODY, World, code};
use crate::api::{Caller, ConnectionId};
use crate::fleet::{Settings, Times};

pub(super) const OTHER: Caller = Caller::Unix { uid: 1001, gid: 1001, groups: Vec::new() };

/// An agent's stream on a separate connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    pub(super) client: ConnectionId,
    pub(super) call: u64,
}

fn message(body: agent_message::Body) -> AgentMessage {
    AgentMessage { body: Some(body) }
}

pub(super) fn register(id: &str) -> Register {
    Register { agent_id: id.into(), ..Register::default() }
}

impl World {
    pub(super) fn open_stream(&mut self, caller: Caller, first: Option<agent_message::Body>, credit: u32) -> Stream {
        let client = self.connect(caller);
        self.open_stream_on(client, first, credit)
    }

    fn open_stream_on(&mut self, client: ConnectionId, first: Option<agent_message::Body>, credit: u32) -> Stream {
        let state = self.clients.get_mut(&client).expect("connected");
        state.last_call += 1;
        let call = state.last_call;
        let header = RequestHeader { method: AGENT_LINK, credit, ..RequestHeader::default() };
        let mut bytes = Vec::new();
        put_request(&mut bytes, call, header, &AgentMessage { body: first });
        self.send(client, &bytes);
        Stream { client, call }
    }

    pub(super) fn attach(&mut self, caller: Caller, id: &str) -> Stream {
        let stream = self.open_stream(caller, Some(agent_message::Body::Register(register(id))), 1_000);
        let Some(node_message::Body::Registered(registered)) = self.heard(stream) else { panic!("not registered") };
        assert_eq!((registered.heartbeat_interval_ms, registered.stale_after_ms), (30_000, 90_000));
        stream
    }

    pub(super) fn say(&mut self, stream: Stream, body: agent_message::Body) {
        let mut bytes = Vec::new();
        put_upload(&mut bytes, stream.call, &message(body));
        self.send(stream.client, &bytes);
    }

    pub(super) fn beat(&mut self, stream: Stream, number: u64) {
        self.say(stream, agent_message::Body::Heartbeat(Heartbeat { number, state: None }));
        let ack = self.heard(stream).expect("acknowledged");
        assert!(matches!(ack, node_message::Body::HeartbeatAck(ack) if ack.number == number));
    }

    /// Grants credit for one message, then sends a heartbeat.
    fn beat_after_credit(&mut self, stream: Stream) {
        let mut credit = Vec::new();
        peat_ipc::frame::put_credit(&mut credit, stream.call, 1);
        self.send(stream.client, &credit);
        self.beat(stream, 1);
    }

    pub(super) fn heard(&mut self, stream: Stream) -> Option<node_message::Body> {
        match self.take(stream.client, stream.call)? {
            Body::Item(bytes) => NodeMessage::decode(bytes).expect("a message").body,
            body => panic!("{body:?} is no item"),
        }
    }

    fn refused(&mut self, stream: Stream) -> CallError {
        match self.take(stream.client, stream.call) {
            Some(Body::Error(error)) => CallError::new(Code::from_number(error.code), error.message),
            body => panic!("{body:?} is no error"),
        }
    }

    fn agents(&mut self) -> Vec<Agent> {
        let client = self.connect(ROOT);
        self.call(client, &ListAgentsRequest::default()).expect("listed").agents
    }

    fn agent(&mut self, id: &str) -> Agent {
        self.agents().into_iter().find(|agent| agent.agent_id == id).expect("listed")
    }

    pub(super) fn json(&mut self, collection: &str, id: &str) -> Option<serde_json::Value> {
        let client = self.connect(ROOT);
        let request = GetDocumentRequest { collection: collection.into(), doc_id: id.into() };
        let json = self.call(client, &request).expect("read").json_data?;
        Some(serde_json::from_str(&json).expect("JSON"))
    }

    pub(super) fn sequence(&self) -> u64 {
        self.store.tip().visible
    }
}

pub(super) fn drop_stream(world: &mut World, stream: Stream) {
    world.engine.handle_closed(world.now, stream.client);
    world.run();
}

#[test]
fn an_agent_that_registers_is_live_and_one_that_falls_silent_is_stale_then_dead() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    assert_eq!(world.agent("a1").liveness(), Liveness::Live);
    assert_eq!(world.json("agents", "a1").expect("stored")["liveness"], "LIVE");
    world.wait(Duration::from_secs(89));
    world.beat(stream, 1);
    world.wait(Duration::from_secs(89));
    assert_eq!(world.agent("a1").liveness(), Liveness::Live);
    assert_eq!(world.agent("a1").age_ms, 89_000);
    world.wait(Duration::from_secs(1));
    assert_eq!(world.agent("a1").liveness(), Liveness::Stale);
    assert_eq!(world.json("agents", "a1").expect("stored")["liveness"], "STALE");
    world.wait(Duration::from_secs(300));
    assert_eq!(world.agent("a1").liveness(), Liveness::Dead);
    assert_eq!(world.json("agents", "a1").expect("stored")["liveness"], "DEAD");
    world.beat(stream, 2);
    assert_eq!(world.agent("a1").liveness(), Liveness::Live, "a heartbeat brings it back");
}

#[test]
fn a_dropped_stream_is_stale_at_once_and_a_register_brings_it_back() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    drop_stream(&mut world, stream);
    let agent = world.agent("a1");
    assert_eq!((agent.liveness(), agent.attached_here), (Liveness::Stale, false));
    world.attach(SOMEBODY, "a1");
    assert_eq!(world.agent("a1").liveness(), Liveness::Live);
    assert_eq!(world.agents().len(), 1, "the same agent");
}

#[test]
fn a_goodbye_ends_the_stream_and_the_agent_is_stale_at_once() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.say(stream, agent_message::Body::Goodbye(Goodbye { reason: "upgrade".into() }));
    assert!(matches!(world.take(stream.client, stream.call), Some(Body::End(_))));
    assert_eq!(world.agent("a1").liveness(), Liveness::Stale);
    let stream = world.attach(SOMEBODY, "a1");
    let mut bytes = Vec::new();
    put_half_close(&mut bytes, stream.call);
    world.send(stream.client, &bytes);
    assert!(matches!(world.take(stream.client, stream.call), Some(Body::End(_))));
    assert_eq!(world.agent("a1").liveness(), Liveness::Stale);
    assert!(world.is_open(stream.client));
}

#[test]
fn a_register_takes_a_hung_stream_over() {
    let mut world = World::new();
    let hung = world.attach(SOMEBODY, "a1");
    let fresh = world.attach(SOMEBODY, "a1");
    let error = world.refused(hung);
    assert_eq!(error.code, Code::Aborted, "{error}");
    drop_stream(&mut world, hung);
    assert_eq!(world.agent("a1").liveness(), Liveness::Live, "the old stream's end means nothing any more");
    world.beat(fresh, 1);
}

#[test]
fn another_user_gets_an_id_only_once_its_agent_is_gone() {
    let mut world = World::new();
    let first = world.attach(SOMEBODY, "a1");
    let thief = world.open_stream(OTHER, Some(agent_message::Body::Register(register("a1"))), 10);
    let error = world.refused(thief);
    assert_eq!(error.code, Code::PermissionDenied, "{error}");
    assert!(world.is_open(thief.client), "it costs the stream only");
    world.beat(first, 1);
    drop_stream(&mut world, first);
    world.attach(OTHER, "a1");
}

#[test]
fn what_an_agent_must_not_send_costs_its_stream_only() {
    let mut world = World::new();
    let bystander = world.attach(SOMEBODY, "by");
    let client = world.connect(SOMEBODY);
    let long = "x".repeat(2_000_000);
    let labelled = |bytes: usize, count: usize| Register {
        labels: (0..count).map(|n| (format!("k{n}"), "x".repeat(bytes))).collect(),
        ..register("a1")
    };
    let named = Register { name: "n".repeat(1_025), ..register("a1") };
    let workload = Workload { name: "w\u{7}".into(), ..Workload::default() };
    let cases = [
        (agent_message::Body::Heartbeat(Heartbeat::default()), Code::FailedPrecondition, "Register"),
        (agent_message::Body::Goodbye(Goodbye::default()), Code::FailedPrecondition, "Register"),
        (agent_message::Body::Register(register("")), Code::InvalidArgument, "agent_id"),
        (agent_message::Body::Register(register("a\nb")), Code::InvalidArgument, "control character"),
        (agent_message::Body::Register(register(&"a".repeat(256))), Code::ResourceExhausted, "255"),
        (agent_message::Body::Register(labelled(5_000, 1)), Code::ResourceExhausted, "4096"),
        (agent_message::Body::Register(labelled(1, 300)), Code::ResourceExhausted, "256"),
        (agent_message::Body::Register(labelled(2_000, 200)), Code::ResourceExhausted, "65536"),
        (
            agent_message::Body::Register(Register { version: long, ..register("a1") }),
            Code::ResourceExhausted,
            "1048576",
        ),
        (agent_message::Body::Register(named), Code::ResourceExhausted, "1024"),
        (
            agent_message::Body::Register(Register { workloads: vec![workload], ..register("a1") }),
            Code::InvalidArgument,
            "workload.name",
        ),
    ];
    for (body, code, word) in cases {
        let stream = world.open_stream_on(client, Some(body), 10);
        let error = world.refused(stream);
        assert!(error.code == code && error.message.contains(word), "{error}");
        // A message that was sent before the client saw the error is ignored.
        world.say(stream, agent_message::Body::Heartbeat(Heartbeat::default()));
    }
    let empty = world.open_stream_on(client, None, 10);
    let mut bytes = Vec::new();
    put_upload(&mut bytes, empty.call, &register("not an AgentMessage"));
    world.send(client, &bytes);
    assert_eq!(world.refused(empty).code, Code::InvalidArgument);
    assert!(world.is_open(client));
    assert_eq!(world.agents().len(), 1);
    world.beat(bystander, 1);
}

#[test]
fn a_label_of_ten_megabytes_costs_its_connection_only() {
    let mut world = World::new();
    let bystander = world.attach(SOMEBODY, "by");
    let client = world.connect(SOMEBODY);
    let mut bytes = Vec::new();
    let large = Register { labels: [("k".into(), "x".repeat(10 << 20))].into(), ..register("a1") };
    let header = RequestHeader { method: AGENT_LINK, credit: 10, ..RequestHeader::default() };
    put_request(&mut bytes, 1, header, &message(agent_message::Body::Register(large)));
    world.send(client, &bytes);
    assert!(world.last_words(client).expect("told why").message.contains("4194304"));
    assert_eq!(world.agents().len(), 1);
    world.beat(bystander, 1);
}

#[test]
fn a_stream_is_one_agents() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.say(stream, agent_message::Body::Register(register("a2")));
    assert_eq!(world.refused(stream).code, Code::InvalidArgument);
    assert_eq!(world.agent("a1").liveness(), Liveness::Stale, "its stream is gone");
    assert_eq!(world.agents().len(), 1);
}

#[test]
fn uploads_for_other_methods_end_the_connection() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = world.start(client, &SubscribeRequest::default());
    let mut bytes = Vec::new();
    put_upload(&mut bytes, call, &AgentMessage::default());
    world.send(client, &bytes);
    assert!(world.last_words(client).expect("told why").message.contains("uploads"));
}

#[test]
fn an_agent_that_never_reads_loses_its_stream_and_may_register_again() {
    let mut world = World::new();
    let stream = world.open_stream(SOMEBODY, Some(agent_message::Body::Register(register("a1"))), 0);
    for number in 0..5_000 {
        world.say(stream, agent_message::Body::Heartbeat(Heartbeat { number, state: None }));
    }
    let error = world.refused(stream);
    assert!(error.code == Code::ResourceExhausted && error.message.contains("does not read"), "{error}");
    assert_eq!(world.agent("a1").liveness(), Liveness::Stale);
    assert!(world.is_open(stream.client));
    world.attach(SOMEBODY, "a1");
}

#[test]
fn an_agent_whose_socket_is_full_keeps_little_waiting() {
    let mut world = World::new();
    let stream = world.open_stream(SOMEBODY, Some(agent_message::Body::Register(register("a1"))), 2_000);
    assert!(world.heard(stream).is_some());
    world.clients.get_mut(&stream.client).expect("connected").takes = 0;
    for number in 0..1_000 {
        world.say(stream, agent_message::Body::Heartbeat(Heartbeat { number, state: None }));
    }
    assert!(world.engine.output(stream.client).len() < 100_000);
    world.take_bytes(stream.client, usize::MAX);
    let acks = std::iter::from_fn(|| world.heard(stream)).count();
    assert_eq!(acks, 1_000);
}

/// Returns the ids of `count` pushed commands, granting credit for one message at a time.
fn pushed(world: &mut World, stream: Stream, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    while ids.len() < count {
        match world.heard(stream) {
            Some(node_message::Body::CommandPush(push)) => ids.push(push.command.expect("one").id),
            Some(_) => {}
            None => {
                let mut credit = Vec::new();
                peat_ipc::frame::put_credit(&mut credit, stream.call, 1);
                world.send(stream.client, &credit);
            }
        }
    }
    ids
}

#[test]
fn what_waits_for_an_agent_is_pushed_as_it_takes_it_however_much_it_is() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    let payload_json = format!("\"{}\"", "x".repeat(200_000));
    for number in 0..60 {
        let command = Command {
            id: format!("k{number:02}"),
            target_id: "a1".into(),
            command_type: "replay".into(),
            payload_json: payload_json.clone(),
            ..Command::default()
        };
        world.call(admin, &PutCommandRequest { command: Some(command) }).expect("issued");
    }
    let first = Some(agent_message::Body::Register(register("a1")));
    let stream = world.open_stream(SOMEBODY, first.clone(), 1);
    let wanted: Vec<String> = (0..60).map(|number| format!("k{number:02}")).collect();
    assert_eq!(pushed(&mut world, stream, 60), wanted);
    world.beat_after_credit(stream);
    let stream = world.open_stream(SOMEBODY, first, 1_000);
    world.clients.get_mut(&stream.client).expect("connected").takes = 0;
    world.wait(Duration::from_secs(1));
    assert!(world.engine.output(stream.client).len() < 1 << 20, "no more than it is about to take is read");
    world.take_bytes(stream.client, usize::MAX >> 1);
    assert_eq!(pushed(&mut world, stream, 60), wanted);
}

fn workload(name: &str, status: &str) -> Workload {
    Workload { name: name.into(), version: "1".into(), status: status.into(), ..Workload::default() }
}

#[test]
fn what_runs_replaces_the_agents_deployments_and_nobody_elses() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for (id, agent) in [("a1:old", "a1"), ("a1:kept", "a1"), ("a1:b:theirs", "a1:b"), ("a10:other", "a10")] {
        let request = PutDocumentRequest {
            collection: "deployments".into(),
            doc_id: id.into(),
            json_data: format!(r#"{{"agent_id":"{agent}","flavor":"x"}}"#),
            ..PutDocumentRequest::default()
        };
        world.call(client, &request).expect("put");
    }
    let running = Register { workloads: vec![workload("kept", "up"), workload("new", "up")], ..register("a1") };
    let stream = world.open_stream(SOMEBODY, Some(agent_message::Body::Register(running)), 100);
    assert!(world.heard(stream).is_some());
    let list = world.call(client, &ListDocumentsRequest { collection: "deployments".into() }).expect("listed");
    assert_eq!(list.doc_ids, ["a10:other", "a1:b:theirs", "a1:kept", "a1:new"]);
    let kept = world.json("deployments", "a1:kept").expect("there");
    assert_eq!((&kept["flavor"], &kept["status"]), (&"x".into(), &"up".into()), "other keys stay");
}

#[test]
fn state_is_written_when_it_changes_and_touches_only_its_keys() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let platform = Platform { id: "a1".into(), platform_type: "uav".into(), latitude: 2.5, ..Platform::default() };
    world.call(client, &PutPlatformRequest { platform: Some(platform) }).expect("put");
    world.wait(Duration::from_secs(100));
    let stream = world.attach(SOMEBODY, "a1");
    let state = |status: PlatformStatus, up: &str| State {
        status: status.into(),
        workloads: vec![workload("w", up)],
        labels: [("site".to_owned(), "north".to_owned())].into(),
        ..State::default()
    };
    let beat = |state: State| agent_message::Body::Heartbeat(Heartbeat { number: 1, state: Some(state) });
    world.say(stream, beat(state(PlatformStatus::Busy, "starting")));
    let held = world.json("platforms", "a1").expect("there");
    assert_eq!((&held["platform_type"], &held["latitude"]), (&"uav".into(), &2.5.into()));
    assert_eq!((&held["status"], &held["labels"]["site"]), (&"PLATFORM_STATUS_BUSY".into(), &"north".into()));
    assert_eq!(world.json("deployments", "a1:w").expect("there")["status"], "starting");
    assert_eq!(world.agent("a1").status(), PlatformStatus::Busy);

    let before = world.sequence();
    for _ in 0..10 {
        world.say(stream, beat(state(PlatformStatus::Busy, "starting")));
        world.wait(Duration::from_secs(30));
    }
    assert_eq!(world.sequence(), before, "unchanged beats never touch the store");
    world.say(stream, beat(state(PlatformStatus::Busy, "up")));
    assert_eq!(world.sequence(), before + 1, "only what changed is written");
    let none = State { workloads_complete: true, ..State::default() };
    world.say(stream, beat(none));
    assert_eq!(world.json("deployments", "a1:w"), None);
    assert_eq!(world.json("platforms", "a1").expect("there")["status"], "PLATFORM_STATUS_BUSY");
}

#[test]
fn the_newest_state_wins_while_the_store_is_slow() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.store_runs = false;
    for status in [PlatformStatus::Busy, PlatformStatus::Degraded, PlatformStatus::Ready] {
        let state = State { status: status.into(), ..State::default() };
        world.say(stream, agent_message::Body::Heartbeat(Heartbeat { number: 1, state: Some(state) }));
    }
    assert!(world.queued.len() <= 1, "one write of a document at a time");
    world.store_runs = true;
    world.run();
    assert_eq!(world.json("platforms", "a1").expect("there")["status"], "PLATFORM_STATUS_READY");
}

#[test]
fn an_agent_that_only_puts_its_platform_is_listed_with_the_same_times() {
    let mut world = World::new();
    let client = world.connect(SOMEBODY);
    let put = PutDocumentRequest {
        collection: "platforms".into(),
        doc_id: "p1".into(),
        json_data: r#"{"status":"BUSY"}"#.into(),
        ..PutDocumentRequest::default()
    };
    world.call(client, &put).expect("put");
    let agent = world.agent("p1");
    assert_eq!((agent.liveness(), agent.status()), (Liveness::Live, PlatformStatus::Busy));
    assert_eq!((agent.via.as_str(), agent.attached_here), ("n1", false));
    world.wait(Duration::from_secs(90));
    assert_eq!(world.agent("p1").liveness(), Liveness::Stale);
    let patch = PatchDocumentRequest {
        collection: "platforms".into(),
        doc_id: "p1".into(),
        patch_json: "{}".into(),
        ..PatchDocumentRequest::default()
    };
    world.call(client, &patch).expect("patched");
    assert_eq!(world.agent("p1").liveness(), Liveness::Live);
    let platforms = world.call(client, &GetPlatformsRequest {}).expect("listed").platforms;
    assert_eq!((platforms[0].liveness(), platforms[0].via.as_str()), (Liveness::Live, "n1"));
    world.wait(Duration::from_secs(390));
    assert_eq!(world.agent("p1").liveness(), Liveness::Dead);
    // The previous connection has reached its idle timeout.
    let client = world.connect(SOMEBODY);
    let bad = PutDocumentRequest { json_data: "[]".into(), ..put };
    assert_eq!(code(world.call(client, &bad)), Code::InvalidArgument);
    assert_eq!(world.agent("p1").liveness(), Liveness::Dead, "a put that fails is no sign of life");
}

#[test]
fn nobody_but_nodes_writes_the_roster() {
    let mut world = World::new();
    let (root, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    let put = PutDocumentRequest {
        collection: "agents".into(),
        doc_id: "a1".into(),
        json_data: r#"{"liveness":"LIVE"}"#.into(),
        ..PutDocumentRequest::default()
    };
    assert_eq!(code(world.call(root, &put)), Code::InvalidArgument);
    let stream = world.attach(SOMEBODY, "a1");
    let delete = DeleteDocumentRequest { collection: "agents".into(), doc_id: "a1".into() };
    assert_eq!(code(world.call(agent, &delete)), Code::PermissionDenied);
    drop_stream(&mut world, stream);
    world.call(root, &delete).expect("an admin forgets an agent that is gone");
    assert_eq!(world.agents().len(), 0);
}

#[test]
fn a_watcher_gets_the_agents_then_their_changes() {
    let mut world = World::new();
    let first = world.attach(SOMEBODY, "a1");
    let client = world.connect(SOMEBODY);
    let header = RequestHeader { credit: 100, ..RequestHeader::default() };
    let call = world.start_with(client, &WatchAgentsRequest {}, header);
    assert_eq!(changes(&mut world, client, call), "a1:Live .");
    let second = world.attach(SOMEBODY, "a2");
    assert!(changes(&mut world, client, call).ends_with("a2:Live"));
    drop_stream(&mut world, first);
    assert_eq!(changes(&mut world, client, call), "a1:Stale");
    world.wait(Duration::from_secs(60));
    world.beat(second, 1);
    assert_eq!(changes(&mut world, client, call), "", "a beat is no change");
    world.wait(Duration::from_secs(240));
    assert_eq!(changes(&mut world, client, call), "a2:Stale a1:Dead");
}

/// Abbreviates the changes since the last call: `a1:Live`, `.` for the end of the snapshot.
fn changes(world: &mut World, client: ConnectionId, call: u64) -> String {
    let items = std::iter::from_fn(|| world.take(client, call));
    let words = items.map(|body| {
        let Body::Item(bytes) = body else { panic!("{body:?} is no item") };
        let change = AgentChange::decode(bytes).expect("a change");
        match (change.change_type(), change.agent) {
            (ChangeType::SnapshotEnd, None) => ".".to_owned(),
            (ChangeType::Upsert, Some(agent)) => format!("{}:{:?}", agent.agent_id, agent.liveness()),
            other => panic!("{other:?}"),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn reloaded_settings_are_told_to_every_agent() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    let times = Times { heartbeat: Duration::from_secs(5), ..Times::default() };
    world.reload(|settings| settings.fleet = Settings { times, ..Settings::default() });
    let update = world.heard(stream).expect("told");
    assert!(matches!(update, node_message::Body::ConfigUpdate(update) if update.heartbeat_interval_ms == 5_000));
}

#[test]
fn a_node_is_announced_while_it_has_agents() {
    let mut world = World::new();
    world.wait(Duration::from_secs(600));
    assert_eq!(world.announced, 0, "nobody is there");
    let stream = world.attach(SOMEBODY, "a1");
    assert_eq!(world.announced, 1, "at once");
    for number in 0..10 {
        world.wait(Duration::from_secs(30));
        world.beat(stream, number);
    }
    assert_eq!(world.announced, 11);
    drop_stream(&mut world, stream);
    world.wait(Duration::from_secs(600));
    assert_eq!(world.announced, 11);
}

#[test]
fn an_agent_that_flaps_is_stored_a_few_times_and_then_once_in_a_while() {
    let mut world = World::new();
    let before = world.sequence();
    for _ in 0..50 {
        let stream = world.attach(SOMEBODY, "a1");
        drop_stream(&mut world, stream);
    }
    assert!(world.sequence() - before <= 6, "{} writes", world.sequence() - before);
    world.wait(Duration::from_secs(60));
    assert_eq!(world.json("agents", "a1").expect("stored")["liveness"], "STALE", "the newest is written in the end");
}

//! Fleets of several nodes in virtual time, on a mesh with configurable partitions that carries documents and presence.

mod room;
mod silence;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peat_ipc::agent::{AgentMessage, Heartbeat, Register, agent_message};
use peat_ipc::{CallError, Code, sidecar};
use serde_json::Value;

use super::*;

#[test]
fn two_nodes_with_one_node_id_are_told_while_both_are_there() {
    let mut mesh = Mesh::new(3);
    mesh.nodes[2] = Fleet::new(EndpointId([2; 32]), "n1".to_owned(), Settings::default());
    mesh.register_as(1, "a", USER).expect("registered");
    mesh.register_as(2, "b", USER).expect("registered");
    let both = Some([EndpointId([1; 32]), EndpointId([2; 32])]);
    for node in 0..3 {
        mesh.nodes[node].handle_presence(mesh.now, EndpointId([1; 32]));
        mesh.nodes[node].handle_presence(mesh.now, EndpointId([2; 32]));
        let told = mesh.nodes[node].namesakes(mesh.now).map(|mut nodes| {
            nodes.sort_unstable();
            nodes
        });
        assert_eq!(told, both, "at node {node}");
    }
    let later = Now { mono: mesh.now.mono + Settings::default().times.stale_after, ..mesh.now };
    assert_eq!(mesh.nodes[0].namesakes(later), None, "one may have gone");
}

const SECOND: Duration = Duration::from_secs(1);
const USER: Owner = Owner::User(1_000);

/// Nodes and the mesh between them: writes are carried out at once, and each document is delivered to the other nodes.
struct Mesh {
    now: Now,
    nodes: Vec<Fleet>,
    stores: Vec<BTreeMap<Key, String>>,
    /// Nodes that are partitioned from all others.
    cut: Vec<usize>,
    /// Documents that a node has written and the others have not received.
    unsent: Vec<(usize, Key, String)>,
    writes: usize,
    announced: usize,
    ended: Vec<(usize, StreamId, Option<CallError>)>,
    streams: u64,
}

impl Mesh {
    fn new(nodes: u8) -> Mesh {
        #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
        let now = Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 };
        let node = |n| Fleet::new(EndpointId([n; 32]), format!("n{n}"), Settings::default());
        Mesh {
            now,
            nodes: (0..nodes).map(node).collect(),
            stores: vec![BTreeMap::new(); nodes.into()],
            cut: Vec::new(),
            unsent: Vec::new(),
            writes: 0,
            announced: 0,
            ended: Vec::new(),
            streams: 0,
        }
    }

    fn say(&mut self, node: usize, stream: StreamId, body: agent_message::Body) -> Result<(), CallError> {
        let message = AgentMessage { body: Some(body) };
        let result = self.nodes[node].handle_message(self.now, stream, message, &mut |_| Ok(Vec::new()));
        self.settle();
        result
    }

    fn register_as(&mut self, node: usize, id: &str, owner: Owner) -> Result<StreamId, CallError> {
        self.streams += 1;
        let stream = StreamId(self.streams);
        self.nodes[node].handle_open(stream, owner);
        let register = Register { agent_id: id.into(), group: "g".into(), ..Register::default() };
        self.say(node, stream, agent_message::Body::Register(register)).map(|()| stream)
    }

    fn may_speak(&self, node: usize, id: &str, owner: Owner) -> bool {
        self.nodes[node].check_speaker(self.now, id, owner).is_ok()
    }

    fn register(&mut self, node: usize, id: &str) -> StreamId {
        self.register_as(node, id, USER).expect("let in")
    }

    fn beat(&mut self, node: usize, stream: StreamId) {
        let beat = agent_message::Body::Heartbeat(Heartbeat::default());
        self.say(node, stream, beat).expect("taken");
    }

    fn drop_stream(&mut self, node: usize, stream: StreamId) {
        self.nodes[node].handle_dropped(self.now, stream);
        self.settle();
    }

    fn sign(&mut self, node: usize, id: &str, owner: Owner) {
        self.nodes[node].handle_sign(self.now, id, owner);
        self.settle();
    }

    fn is_cut(&self, a: usize, b: usize) -> bool {
        a == b || self.cut.contains(&a) || self.cut.contains(&b)
    }

    fn settle(&mut self) {
        for _ in 0..100 {
            let busy: Vec<bool> = (0..self.nodes.len()).map(|node| self.drain(node)).collect();
            if !busy.contains(&true) {
                return;
            }
        }
        panic!("the fleets never come to rest");
    }

    fn drain(&mut self, number: usize) -> bool {
        let mut busy = false;
        let fleet = &mut self.nodes[number];
        while let Some((stream, error)) = fleet.poll_end() {
            self.ended.push((number, stream, error));
        }
        while fleet.poll_message().is_some() || fleet.poll_attachment().is_some() {}
        while let Some(write) = fleet.poll_write(self.now) {
            busy = true;
            if let Change::Whole(json) = write.change {
                self.writes += 1;
                self.stores[number].insert(write.key.clone(), json.clone());
                self.unsent.push((number, write.key, json));
            }
            fleet.handle_written(self.now, write.number, WriteResult::Done);
        }
        if fleet.poll_announcement(self.now) {
            self.announced += 1;
            for other in (0..self.nodes.len()).filter(|other| !self.is_cut(number, *other)).collect::<Vec<_>>() {
                let node = EndpointId([u8::try_from(number).expect("few nodes"); 32]);
                self.nodes[other].handle_presence(self.now, node);
            }
        }
        self.carry() || busy
    }

    /// Delivers documents between nodes that are not partitioned. The last one written wins.
    fn carry(&mut self) -> bool {
        let (kept, sent): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.unsent).into_iter().partition(|(node, ..)| self.cut.contains(node));
        self.unsent = kept;
        for (node, key, json) in &sent {
            for other in (0..self.nodes.len()).filter(|other| !self.is_cut(*node, *other)).collect::<Vec<_>>() {
                self.stores[other].insert(key.clone(), json.clone());
                self.nodes[other].handle_record(self.now, key.id(), Some(json));
            }
        }
        !sent.is_empty()
    }

    fn heal(&mut self) {
        self.cut.clear();
        self.settle();
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        loop {
            let next = self.nodes.iter().filter_map(Fleet::poll_deadline).min().filter(|at| *at <= end);
            let Some(at) = next else { break };
            self.now.mono = self.now.mono.max(at);
            for node in 0..self.nodes.len() {
                self.nodes[node].handle_timeout(self.now);
            }
            self.settle();
        }
        self.now.mono = end;
    }

    fn agent(&self, node: usize, id: &str) -> sidecar::Agent {
        self.nodes[node].agent(self.now, id).expect("known")
    }

    /// Returns the liveness that each node shows, in order, for example `LSD`.
    fn shown(&self, id: &str) -> String {
        let letter = |node| match self.agent(node, id).liveness() {
            sidecar::Liveness::Live => 'L',
            sidecar::Liveness::Stale => 'S',
            sidecar::Liveness::Dead => 'D',
            sidecar::Liveness::Unspecified => '?',
        };
        (0..self.nodes.len()).map(letter).collect()
    }

    fn stored(&self, node: usize, id: &str) -> Value {
        let key = Key::new(COLLECTION, id).expect("an id");
        serde_json::from_str(&self.stores[node][&key]).expect("JSON")
    }
}

#[test]
fn a_transition_shows_at_once_everywhere() {
    let mut mesh = Mesh::new(3);
    let stream = mesh.register(0, "a");
    assert_eq!(mesh.shown("a"), "LLL");
    let seen = mesh.agent(2, "a");
    assert_eq!((seen.via.as_str(), seen.group.as_str(), seen.attached_here), ("n0", "g", false));
    assert_eq!(seen.via_endpoint, EndpointId([0; 32]).to_string());
    mesh.drop_stream(0, stream);
    assert_eq!(mesh.shown("a"), "SSS");
    mesh.wait(299 * SECOND);
    assert_eq!(mesh.shown("a"), "SSS");
    mesh.wait(SECOND);
    assert_eq!(mesh.shown("a"), "DDD");
    mesh.register(0, "a");
    assert_eq!(mesh.shown("a"), "LLL", "a Register brings it back");
}

#[test]
fn silence_is_stale_after_ninety_seconds_and_dead_five_minutes_later() {
    let mut mesh = Mesh::new(2);
    let stream = mesh.register(0, "a");
    for _ in 0..20 {
        mesh.wait(30 * SECOND);
        mesh.beat(0, stream);
    }
    assert_eq!(mesh.shown("a"), "LL");
    mesh.wait(Duration::from_millis(89_999));
    assert_eq!(mesh.shown("a"), "LL");
    mesh.wait(Duration::from_millis(1));
    assert_eq!(mesh.shown("a"), "SS");
    mesh.wait(300 * SECOND);
    assert_eq!(mesh.shown("a"), "DD");
    mesh.beat(0, stream);
    assert_eq!(mesh.shown("a"), "LL", "a heartbeat brings it back");
}

#[test]
fn unchanged_beats_touch_no_store_and_a_node_announces_itself_once_a_period() {
    let mut mesh = Mesh::new(2);
    let streams: Vec<StreamId> = (0..50).map(|n| mesh.register(0, &format!("a{n}"))).collect();
    let (writes, announced) = (mesh.writes, mesh.announced);
    for _ in 0..120 {
        mesh.wait(30 * SECOND);
        streams.iter().for_each(|stream| mesh.beat(0, *stream));
    }
    assert_eq!(mesh.writes, writes);
    assert_eq!(mesh.announced - announced, 120);
}

#[test]
fn a_node_that_is_cut_off_is_believed_for_ninety_seconds() {
    let mut mesh = Mesh::new(2);
    let stream = mesh.register(0, "a");
    let beat = |mesh: &mut Mesh, seconds: u32| {
        for _ in 0..seconds {
            mesh.wait(SECOND);
            mesh.beat(0, stream);
        }
    };
    beat(&mut mesh, 60);
    mesh.cut = vec![0];
    let writes = mesh.writes;
    beat(&mut mesh, 89);
    assert_eq!(mesh.shown("a"), "LL");
    assert_eq!(mesh.agent(1, "a").age_ms, 89_000);
    beat(&mut mesh, 1);
    assert_eq!(mesh.shown("a"), "LS");
    beat(&mut mesh, 300);
    assert_eq!(mesh.shown("a"), "LD");
    assert_eq!(mesh.writes, writes, "what is derived is never written");
    mesh.heal();
    beat(&mut mesh, 30);
    assert_eq!(mesh.shown("a"), "LL");
}

#[test]
fn what_is_long_past_is_not_shown_live_when_it_arrives() {
    let mut mesh = Mesh::new(2);
    mesh.cut = vec![0];
    mesh.register(0, "a");
    let told: Vec<_> = mesh.unsent.clone();
    // Node 0 is gone for good; its record arrives from another node.
    let (_, key, json) = &told[0];
    mesh.nodes[1].handle_record(mesh.now, key.id(), Some(json));
    assert_eq!(mesh.agent(1, "a").liveness(), sidecar::Liveness::Stale);
}

#[test]
fn wall_clocks_change_nothing() {
    for wall_ms in [0, -86_400_000, 253_402_300_800_000, i64::MAX, i64::MIN] {
        let mut mesh = Mesh::new(2);
        let stream = mesh.register(0, "a");
        mesh.now.wall_ms = wall_ms;
        mesh.wait(89 * SECOND);
        assert_eq!(mesh.shown("a"), "LL");
        mesh.beat(0, stream);
        mesh.now.wall_ms = 0;
        mesh.wait(89 * SECOND);
        assert_eq!(mesh.shown("a"), "LL");
        mesh.wait(SECOND);
        assert_eq!(mesh.shown("a"), "SS");
    }
}

#[test]
fn an_agent_that_moves_belongs_to_its_new_node() {
    let mut mesh = Mesh::new(3);
    let old = mesh.register(0, "a");
    mesh.register(1, "a");
    assert_eq!(mesh.shown("a"), "LLL");
    for node in 0..3 {
        assert_eq!(mesh.agent(node, "a").via, "n1");
    }
    assert_eq!(mesh.stored(2, "a")["attach"], 2);
    let ended = mesh.ended.pop().expect("the hung stream is ended");
    assert_eq!((ended.0, ended.1, ended.2.map(|error| error.code)), (0, old, Some(Code::Aborted)));
    let writes = mesh.writes;
    mesh.drop_stream(0, old);
    mesh.wait(60 * SECOND);
    assert_eq!(mesh.writes, writes, "the older node writes nothing about it any more");
    assert_eq!(mesh.shown("a"), "LLL");
}

#[test]
fn of_two_nodes_that_did_not_know_of_each_other_the_later_attachment_wins() {
    let mut mesh = Mesh::new(3);
    let first = mesh.register(0, "a");
    mesh.drop_stream(0, first);
    mesh.cut = vec![0];
    mesh.register(1, "a");
    mesh.register(0, "a");
    mesh.drop_stream(0, StreamId(mesh.streams));
    // Node 0's record, of the earlier attachment, arrives last at every node.
    mesh.heal();
    mesh.wait(60 * SECOND);
    for node in 0..3 {
        let agent = mesh.agent(node, "a");
        assert_eq!((agent.via.as_str(), agent.liveness()), ("n1", sidecar::Liveness::Live), "node {node}");
        assert_eq!(mesh.stored(node, "a")["via"], "n1");
    }
}

#[test]
fn an_agent_that_only_puts_its_platform_lives_by_it() {
    let mut mesh = Mesh::new(2);
    mesh.sign(0, "p", USER);
    assert_eq!(mesh.shown("p"), "LL");
    assert!(!mesh.agent(0, "p").attached_here);
    mesh.wait(60 * SECOND);
    mesh.sign(0, "p", USER);
    mesh.wait(89 * SECOND);
    assert_eq!(mesh.shown("p"), "LL");
    mesh.wait(SECOND);
    assert_eq!(mesh.shown("p"), "SS");
    mesh.wait(300 * SECOND);
    assert_eq!(mesh.shown("p"), "DD");
}

#[test]
fn a_put_elsewhere_or_by_somebody_else_is_no_sign_of_a_live_agent() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    mesh.wait(60 * SECOND);
    mesh.sign(1, "a", USER);
    mesh.sign(0, "a", Owner::User(7));
    assert_eq!(mesh.agent(1, "a").via, "n0");
    mesh.wait(30 * SECOND);
    assert_eq!(mesh.shown("a"), "SS");
    mesh.sign(1, "a", USER);
    assert_eq!(mesh.agent(0, "a").via, "n1", "but once it is gone it may be anywhere");
}

#[test]
fn two_users_without_a_name_here_are_not_the_same() {
    let mut mesh = Mesh::new(1);
    let first = mesh.register_as(0, "a", Owner::Nobody).expect("new");
    assert_eq!(mesh.register_as(0, "a", Owner::Nobody).expect_err("perhaps another").code, Code::PermissionDenied);
    mesh.drop_stream(0, first);
    mesh.register_as(0, "a", Owner::Nobody).expect("the first is gone");
    assert!(mesh.may_speak(0, "a", Owner::Nobody) && !mesh.may_speak(0, "a", USER));
    assert!(mesh.may_speak(0, "nobody heard of", USER));
}

const OTHER: Owner = Owner::User(1_001);

#[test]
fn an_agent_at_another_node_is_not_taken_over_by_another_user() {
    let mut mesh = Mesh::new(2);
    let stream = mesh.register(0, "a");
    let refused = |mesh: &mut Mesh| {
        let error = mesh.register_as(1, "a", OTHER).expect_err("it belongs to another user");
        assert_eq!(error.code, Code::PermissionDenied);
        assert!(error.message.contains("at node n0"), "{}", error.message);
        assert!(!mesh.may_speak(1, "a", OTHER) && mesh.may_speak(1, "a", USER));
        mesh.sign(1, "a", OTHER);
        assert_eq!(mesh.agent(1, "a").via, "n0");
    };
    refused(&mut mesh);
    mesh.drop_stream(0, stream);
    assert_eq!(mesh.shown("a"), "SS");
    refused(&mut mesh);
    mesh.wait(400 * SECOND);
    assert_eq!(mesh.shown("a"), "DD");
    mesh.register_as(1, "a", OTHER).expect("it is gone");
    assert_eq!(mesh.agent(0, "a").via, "n1");
}

#[test]
fn the_same_user_moves_an_agent_to_another_node_while_it_is_live() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    mesh.register_as(1, "a", USER).expect("its own user");
    assert_eq!((mesh.agent(0, "a").via, mesh.agent(1, "a").via), ("n1".into(), "n1".into()));
}

#[test]
fn documents_of_an_agent_are_written_by_its_user_on_every_node() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    mesh.register(0, "a:b");
    mesh.register_as(1, "a:b", OTHER).expect_err("it belongs to another user");
    for (collection, id) in [("platforms", "a"), ("deployments", "a:web"), ("packages", "a:reg.io:5000/x:1-amd64")] {
        let key = Key::new(collection, id).expect("a name");
        for node in 0..2 {
            let code = mesh.nodes[node].check_document(&key, OTHER).expect_err("not its own").code;
            assert_eq!(code, Code::PermissionDenied, "{key} at node {node}");
            mesh.nodes[node].check_document(&key, USER).expect("its own");
        }
    }
    for (collection, id) in
        [("platforms", "unknown"), ("deployments", "unknown:web"), ("notes", "a"), ("deployments", "a")]
    {
        let key = Key::new(collection, id).expect("a name");
        mesh.nodes[1].check_document(&key, OTHER).expect("it belongs to no agent");
    }
}

#[test]
fn an_admin_who_corrects_a_platform_does_not_become_its_owner() {
    let mut mesh = Mesh::new(1);
    let stream = mesh.register(0, "a");
    mesh.drop_stream(0, stream);
    mesh.sign(0, "a", Owner::User(0));
    assert_eq!(mesh.shown("a"), "S", "it is no sign of life either");
    mesh.nodes[0].check_document(&Key::new("platforms", "a").expect("a name"), USER).expect("still its own");
}

#[test]
fn a_node_knows_its_own_word_from_one_that_the_store_shows_instead() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    let key = Key::new(COLLECTION, "a").expect("an id");
    let own = mesh.stores[0][&key].clone();
    assert!(mesh.nodes[0].is_own_word("a", &own));
    assert!(!mesh.nodes[1].is_own_word("a", &own), "another node's");
    let other = own.replace("LIVE", "STALE");
    assert!(!mesh.nodes[0].is_own_word("a", &other) && !mesh.nodes[0].is_own_word("b", &own));
}

#[test]
fn a_restart_of_the_node_costs_no_transition_when_the_agent_is_back_soon() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    let restart = |mesh: &mut Mesh| {
        mesh.nodes[0] = Fleet::new(EndpointId([0; 32]), "n0".into(), Settings::default());
        let json = mesh.stores[0][&Key::new(COLLECTION, "a").expect("an id")].clone();
        mesh.nodes[0].handle_record(mesh.now, "a", Some(&json));
        mesh.settle();
    };
    let writes = mesh.writes;
    restart(&mut mesh);
    assert_eq!(mesh.shown("a"), "SL");
    mesh.wait(5 * SECOND);
    mesh.register(0, "a");
    mesh.wait(60 * SECOND);
    assert_eq!((mesh.shown("a").as_str(), mesh.writes), ("LL", writes));
    restart(&mut mesh);
    mesh.wait(10 * SECOND);
    assert_eq!((mesh.shown("a").as_str(), mesh.writes), ("SS", writes + 1), "it did not come back");
}

#[test]
fn flapping_is_damped_and_the_newest_is_stored_in_the_end() {
    let mut mesh = Mesh::new(2);
    let hour = 3_600;
    for _ in 0..hour {
        let stream = mesh.register(0, "a");
        mesh.drop_stream(0, stream);
        mesh.wait(SECOND);
    }
    assert!(mesh.writes <= hour / 10 + 5, "{} writes in an hour of flapping", mesh.writes);
    mesh.wait(30 * SECOND);
    assert_eq!(mesh.stored(1, "a")["liveness"], "STALE");
}

#[test]
fn a_write_that_the_disk_refused_is_tried_again() {
    let mut mesh = Mesh::new(1);
    let fleet = &mut mesh.nodes[0];
    fleet.handle_sign(mesh.now, "a", USER);
    let write = fleet.poll_write(mesh.now).expect("a transition");
    fleet.handle_written(mesh.now, write.number, WriteResult::Failed);
    assert!(fleet.poll_write(mesh.now).is_none(), "not at once");
    mesh.wait(5 * SECOND);
    assert_eq!(mesh.stored(0, "a")["liveness"], "LIVE");
}

#[test]
fn presence_does_not_vouch_for_what_the_disk_did_not_take() {
    let mut mesh = Mesh::new(2);
    let gone = mesh.register(0, "a");
    mesh.register(0, "b");
    mesh.wait(SECOND);
    let fleet = &mut mesh.nodes[0];
    fleet.handle_dropped(mesh.now, gone);
    let fails = |fleet: &mut Fleet, now: Now| {
        while let Some(write) = fleet.poll_write(now) {
            fleet.handle_written(now, write.number, WriteResult::Failed);
        }
    };
    for _ in 0..80 {
        mesh.now.mono += SECOND;
        let fleet = &mut mesh.nodes[0];
        fleet.handle_sign(mesh.now, "b", USER);
        fleet.handle_timeout(mesh.now);
        fails(fleet, mesh.now);
        assert!(!fleet.poll_announcement(mesh.now));
    }
    mesh.register(0, "a");
    mesh.wait(20 * SECOND);
    assert_eq!(mesh.shown("a"), "LL", "the store's LIVE is right again");
    assert_eq!(mesh.shown("b"), "LL");
}

#[test]
fn the_live_agents_of_a_group_are_those_seen_now() {
    let mut mesh = Mesh::new(2);
    mesh.register(0, "a");
    let gone = mesh.register(0, "b");
    mesh.sign(1, "c", USER);
    mesh.drop_stream(0, gone);
    assert_eq!(mesh.nodes[1].live(mesh.now, Some("g")), ["a"]);
    assert_eq!(mesh.nodes[1].live(mesh.now, None), ["a", "c"]);
    assert_eq!(mesh.nodes[1].live(mesh.now, Some("none")), [""; 0]);
}

#[test]
fn what_is_no_transition_is_not_listed_and_is_overwritten_by_the_owner() {
    let mut mesh = Mesh::new(1);
    mesh.register(0, "a");
    for junk in ["{}", "[]", "not JSON", r#"{"liveness":"ALIVE","endpoint":"00","attach":-1}"#] {
        mesh.nodes[0].handle_record(mesh.now, "b", Some(junk));
        assert!(mesh.nodes[0].agent(mesh.now, "b").is_none());
    }
    let writes = mesh.writes;
    mesh.nodes[0].handle_record(mesh.now, "a", Some("{}"));
    mesh.settle();
    assert_eq!(mesh.writes, writes + 1);
    mesh.nodes[0].handle_record(mesh.now, "a", None);
    mesh.settle();
    assert_eq!(mesh.writes, writes + 2, "a live agent that was deleted is written again");
}

#[test]
fn another_nodes_word_that_crossed_ours_on_its_way_to_the_store_is_overwritten() {
    let mut mesh = Mesh::new(1);
    let fleet = &mut mesh.nodes[0];
    fleet.handle_sign(mesh.now, "a", USER);
    let write = fleet.poll_write(mesh.now).expect("a transition");
    let theirs = format!(r#"{{"liveness":"DEAD","endpoint":"{}","attach":0,"via":"n9"}}"#, EndpointId([9; 32]));
    fleet.handle_record(mesh.now, "a", Some(&theirs));
    fleet.handle_written(mesh.now, write.number, WriteResult::Done);
    mesh.settle();
    assert_eq!(mesh.stored(0, "a")["via"], "n0", "ours may have been written before theirs");
    assert_eq!(mesh.writes, 1, "once more is enough");
}

#[test]
fn what_is_stored_counts_even_when_its_writer_forgot_what_it_claimed() {
    let mut mesh = Mesh::new(1);
    let record = |mesh: &mut Mesh, node: u8, liveness: &str, attach: u64| {
        let endpoint = EndpointId([node; 32]);
        let json = format!(r#"{{"liveness":"{liveness}","endpoint":"{endpoint}","attach":{attach},"via":"n{node}"}}"#);
        mesh.nodes[0].handle_record(mesh.now, "a", Some(&json));
        mesh.nodes[0].handle_presence(mesh.now, endpoint);
        mesh.settle();
    };
    record(&mut mesh, 9, "DEAD", 5);
    assert_eq!(mesh.shown("a"), "D");
    record(&mut mesh, 9, "LIVE", 1);
    assert_eq!(mesh.shown("a"), "L", "its disk was replaced");
    record(&mut mesh, 8, "LIVE", 1);
    assert_eq!((mesh.shown("a").as_str(), mesh.agent(0, "a").via.as_str()), ("L", "n8"));
    assert_eq!(mesh.writes, 0);
}

#[test]
fn a_watcher_that_missed_removals_is_told() {
    let mut mesh = Mesh::new(1);
    let start = mesh.nodes[0].last_change();
    for number in 0..=crate::limits::REMOVED_AGENTS {
        let json = format!(r#"{{"liveness":"DEAD","endpoint":"{}","attach":1}}"#, "09".repeat(32));
        mesh.nodes[0].handle_record(mesh.now, &format!("x{number}"), Some(&json));
        mesh.nodes[0].handle_record(mesh.now, &format!("x{number}"), None);
    }
    assert!(mesh.nodes[0].change_after(mesh.now, start).is_err());
    assert!(mesh.nodes[0].change_after(mesh.now, mesh.nodes[0].last_change() - 1).is_ok());
}

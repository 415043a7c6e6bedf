//! Agents of real nodes: attached to one, visible on the other, and commanded from both.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::time::Duration;

use peat_ipc::agent::command_update::Stage;
use peat_ipc::agent::{AgentMessage, CommandUpdate, Heartbeat, NodeMessage, Register, agent_message, node_message};
use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_request, put_upload};
use peat_ipc::method::AGENT_LINK;
use peat_ipc::{PREFACE, prost::Message};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::node::{Node, directory, eventually, run};

/// Long enough for a busy machine, short enough for a test to wait for.
const TIMES: [&str; 6] = ["--heartbeat", "0.5", "--stale-after", "3", "--dead-after", "6"];
/// Intervals for tests in which no agent becomes silent.
const PATIENT: [&str; 2] = ["--heartbeat", "1"];

/// An agent on a separate stream.
struct Agent {
    socket: UnixStream,
    decoder: Decoder,
}

impl Agent {
    fn register(node: &Node, register: Register) -> Agent {
        let socket = UnixStream::connect(node.home().join("socket")).expect("the node listens");
        socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a socket");
        let mut bytes = PREFACE.to_vec();
        let header = RequestHeader { method: AGENT_LINK, credit: 10_000, ..RequestHeader::default() };
        put_request(&mut bytes, 1, header, &AgentMessage { body: Some(agent_message::Body::Register(register)) });
        let mut agent = Agent { socket, decoder: Decoder::default() };
        agent.socket.write_all(&bytes).expect("taken");
        let first = agent.next().expect("an answer");
        assert!(matches!(first, node_message::Body::Registered(_)), "{first:?}");
        agent
    }

    fn attach(node: &Node, id: &str) -> Agent {
        Agent::register(node, named(id))
    }

    fn say(&mut self, body: agent_message::Body) {
        let mut bytes = Vec::new();
        put_upload(&mut bytes, 1, &AgentMessage { body: Some(body) });
        self.socket.write_all(&bytes).expect("taken");
    }

    /// Returns the node's next message, or the reason it ended the stream.
    fn next(&mut self) -> Result<node_message::Body, String> {
        loop {
            if let Some((_, body)) = self.decoder.next_frame().expect("frames") {
                return match body {
                    Body::Item(bytes) => Ok(NodeMessage::decode(bytes).expect("a message").body.expect("a body")),
                    Body::Error(error) => Err(error.message),
                    body => panic!("{body:?}"),
                };
            }
            let mut bytes = [0; 4_096];
            let count = self.socket.read(&mut bytes).expect("the node answers");
            assert!(count > 0, "the node closed the connection");
            self.decoder.extend(&bytes[..count]);
        }
    }

    fn report(&mut self, id: &str, stage: Stage, result: &str) {
        let update = CommandUpdate {
            command_id: id.into(),
            stage: stage.into(),
            result_json: result.into(),
            ..CommandUpdate::default()
        };
        self.say(agent_message::Body::CommandUpdate(update));
        match self.next().expect("acknowledged") {
            node_message::Body::UpdateAck(ack) => assert_eq!(ack.refused, ""),
            body => panic!("{body:?}"),
        }
    }

    /// Accepts the next command, reports it as completed with `result`, and returns its id.
    fn run_one(&mut self, result: &str) -> String {
        let id = self.accept_one();
        self.report(&id, Stage::Completed, result);
        id
    }

    fn accept_one(&mut self) -> String {
        let push = match self.next().expect("a command") {
            node_message::Body::CommandPush(push) => push,
            body => panic!("{body:?}"),
        };
        let id = push.command.expect("a command").id;
        self.report(&id, Stage::Accepted, "");
        id
    }
}

fn named(id: &str) -> Register {
    Register { agent_id: id.into(), group: "north".into(), version: "1.2".into(), ..Register::default() }
}

/// Two connected nodes.
struct Pair {
    a: Node,
    b: Node,
    _homes: (TempDir, TempDir),
}

impl Pair {
    fn start(flags: &[&str]) -> Pair {
        let homes = (directory(), directory());
        let key = run(&["keygen"]).ok();
        let start = |home: &TempDir, more: &[&str]| {
            let all = [&["--shared-key", key.trim()], flags, more].concat();
            Node::start(home.path(), &all)
        };
        let a = start(&homes.0, &["--node-id", "a"]);
        let b = start(&homes.1, &["--node-id", "b", "--peer", &a.spec()]);
        Pair { a, b, _homes: homes }
    }
}

/// Returns an agent as a node lists it.
fn seen(node: &Node, id: &str) -> Option<serde_json::Value> {
    let agents = node.json("agents", &[])["agents"].as_array().expect("a list").clone();
    agents.into_iter().find(|agent| agent["agentId"] == id)
}

fn shows(node: &Node, id: &str, state: &str) {
    eventually(&format!("{id} is {state}"), || {
        let agent = seen(node, id)?;
        (agent["liveness"] == format!("LIVENESS_{state}")).then_some(())
    });
}

#[test]
fn an_agent_of_one_node_is_live_on_the_other_until_it_leaves() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let agent = Agent::attach(&a, "x1");
    shows(&a, "x1", "LIVE");
    shows(&b, "x1", "LIVE");
    let there = seen(&b, "x1").expect("listed");
    assert_eq!((&there["via"], &there["group"], &there["version"]), (&"a".into(), &"north".into(), &"1.2".into()));
    assert_eq!((&there["viaEndpoint"], &there["attachedHere"]), (&a.id.as_str().into(), &false.into()));
    drop(agent);
    shows(&a, "x1", "STALE");
    shows(&b, "x1", "STALE");
    let _back = Agent::attach(&a, "x1");
    shows(&a, "x1", "LIVE");
    shows(&b, "x1", "LIVE");
    let table = b.run("agents", &["--status", "live"]).ok();
    assert!(table.starts_with("x1\tnorth\tLIVE\ta\t"), "{table}");
    assert_eq!(b.run("agents", &["--status", "dead"]).ok(), "");
    b.run("agents", &["--status", "well"]).fails(2);
}

#[test]
fn an_agent_that_falls_silent_is_stale_and_then_dead_everywhere() {
    let Pair { _homes, a, b } = Pair::start(&TIMES);
    let mut agent = Agent::attach(&a, "x1");
    shows(&b, "x1", "LIVE");
    for state in ["STALE", "DEAD"] {
        shows(&a, "x1", state);
        shows(&b, "x1", state);
    }
    agent.say(agent_message::Body::Heartbeat(Heartbeat { number: 7, state: None }));
    assert!(matches!(agent.next(), Ok(node_message::Body::HeartbeatAck(ack)) if ack.number == 7));
    for node in [&a, &b] {
        shows(node, "x1", "LIVE");
    }
}

#[test]
fn a_node_that_is_gone_takes_its_agents_word_with_it() {
    let Pair { _homes, mut a, b } = Pair::start(&TIMES);
    let _agent = Agent::attach(&a, "x1");
    shows(&b, "x1", "LIVE");
    a.kill();
    shows(&b, "x1", "STALE");
    shows(&b, "x1", "DEAD");
    assert_eq!(seen(&b, "x1").expect("still listed")["via"], "a");
    a.start_again();
    let _back = Agent::attach(&a, "x1");
    shows(&b, "x1", "LIVE");
}

#[test]
fn a_hung_stream_is_taken_over_here_and_from_another_node() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let mut hung = Agent::attach(&a, "x1");
    let mut second = Agent::attach(&a, "x1");
    assert!(hung.next().expect_err("ended").contains("takes over"));
    shows(&b, "x1", "LIVE");
    let _third = Agent::attach(&b, "x1");
    assert!(second.next().expect_err("ended").contains("node b"));
    eventually("both say that it is at b", || {
        let at_b = |node: &Node| seen(node, "x1").is_some_and(|agent| agent["via"] == "b");
        (at_b(&a) && at_b(&b)).then_some(())
    });
    shows(&a, "x1", "LIVE");
}

#[test]
fn a_node_that_was_stopped_for_long_announces_no_agent_as_silent_that_kept_beating() {
    let Pair { _homes, a, b } = Pair::start(&["--heartbeat", "0.5", "--stale-after", "10", "--dead-after", "2"]);
    let mut agent = Agent::attach(&a, "x1");
    let put =
        || a.call("put", &["platforms", "p1", r#"{"status":"READY"}"#]).stdout(Stdio::null()).spawn().expect("runs");
    assert!(put().wait().expect("our child").success());
    shows(&b, "x1", "LIVE");
    shows(&b, "p1", "LIVE");
    let mut watch = Following::start(&a, "agents", &["--watch", "--json"]);
    eventually("the list is complete", || watch.line().contains("SNAPSHOT_END").then_some(()));

    a.signal(Signal::STOP);
    shows(&b, "x1", "DEAD");
    agent.say(agent_message::Body::Heartbeat(Heartbeat { number: 1, state: None }));
    let mut put = put();
    a.signal(Signal::CONT);
    assert!(matches!(agent.next(), Ok(node_message::Body::HeartbeatAck(ack)) if ack.number == 1));
    assert!(put.wait().expect("our child").success());

    let _last = Agent::attach(&a, "last");
    let told = std::iter::from_fn(|| Some(watch.line())).take_while(|line| !line.contains(r#""agentId":"last""#));
    let silent = |line: &String| line.contains("LIVENESS_STALE") || line.contains("LIVENESS_DEAD");
    assert_eq!(told.filter(silent).collect::<Vec<_>>(), [""; 0]);
    for id in ["x1", "p1"] {
        shows(&a, id, "LIVE");
        shows(&b, id, "LIVE");
    }
}

#[test]
fn an_agent_that_only_puts_its_platform_is_listed_everywhere() {
    let Pair { _homes, a, b } = Pair::start(&TIMES);
    a.run("put", &["platforms", "p1", r#"{"status":"READY"}"#]).ok();
    for node in [&a, &b] {
        shows(node, "p1", "LIVE");
    }
    eventually("its status came too", || (seen(&b, "p1")?["status"] == "PLATFORM_STATUS_READY").then_some(()));
    for node in [&a, &b] {
        shows(node, "p1", "DEAD");
    }
}

#[test]
fn what_an_agent_runs_is_seen_on_the_other_node() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let running = |names: &[&str]| {
        let workload = |name: &&str| peat_ipc::agent::Workload {
            name: (*name).into(),
            status: "up".into(),
            ..peat_ipc::agent::Workload::default()
        };
        Register { workloads: names.iter().map(workload).collect(), ..named("x1") }
    };
    let first = Agent::register(&a, running(&["web", "db"]));
    let listed = |expected: &str| {
        eventually(expected, || (b.run("list", &["deployments"]).ok() == expected).then_some(()));
    };
    listed("x1:db\nx1:web\n");
    drop(first);
    let _second = Agent::register(&a, running(&["db"]));
    listed("x1:db\n");
}

#[test]
fn commands_are_listed_however_many_and_pushed_however_large() {
    let home = directory();
    let node = Node::start(home.path(), &PATIENT);
    let payload = home.path().join("payload.json");
    std::fs::write(&payload, format!("\"{}\"", "x".repeat(200_000))).expect("written");
    let payload = format!("@{}", payload.display());
    let send =
        |agent: &str| node.run("send", &["--agent", agent, "--ttl", "0", "replay", &payload]).ok().trim().to_owned();
    let sent: std::collections::BTreeSet<String> = (0..60).map(|_| send("a1")).collect();
    send("a2");
    let mut agent = Agent::attach(&node, "a1");
    let mut pushed = std::collections::BTreeSet::new();
    while pushed.len() < sent.len() {
        match agent.next().expect("it reads its stream") {
            node_message::Body::CommandPush(push) => assert!(pushed.insert(push.command.expect("one").id)),
            body => panic!("{body:?}"),
        }
    }
    assert_eq!(pushed, sent);
    let done = pushed.first().expect("some").clone();
    agent.report(&done, Stage::Accepted, "");
    agent.report(&done, Stage::Completed, &format!("\"{}\"", "r".repeat(200_000)));
    let count = |arguments: &[&str]| node.run("commands", arguments).ok().lines().count();
    assert_eq!((count(&[]), count(&["--agent", "a1"]), count(&["--pending"])), (61, 60, 60));
    assert_eq!(count(&["--agent", "a1", "--status", "completed", "--status", "failed"]), 1);
    let listed = node.json("commands", &["--agent", "a1"]);
    assert_eq!(listed["commands"].as_array().map(Vec::len), Some(60));
    assert!(node.run("commands", &["--status", "lost"]).fails(2).contains("none of pending"));
}

/// A running command of the program, and its output.
struct Following(Child, std::io::Lines<BufReader<std::process::ChildStdout>>);

impl Following {
    fn start(node: &Node, command: &str, arguments: &[&str]) -> Following {
        let mut child =
            node.call(command, arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("runs");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Following(child, lines)
    }

    fn line(&mut self) -> String {
        self.1.next().expect("a line").expect("text")
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_command_sent_at_one_node_runs_at_the_other_and_its_result_comes_back() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let mut agent = Agent::attach(&b, "x1");
    shows(&a, "x1", "LIVE");
    let mut send = Following::start(&a, "send", &["--agent", "x1", "restart", r#"{"unit":"web"}"#, "--wait"]);
    assert_eq!(send.line(), "x1\tPENDING\t");
    let id = agent.accept_one();
    let progress = CommandUpdate {
        command_id: id.clone(),
        stage: Stage::Progress.into(),
        progress: "stopping".into(),
        percent: 40,
        ..CommandUpdate::default()
    };
    agent.say(agent_message::Body::CommandUpdate(progress));
    let words = std::iter::from_fn(|| Some(send.line())).find(|line| *line != "x1\tEXECUTING\t").expect("a line");
    assert_eq!(words, "x1\tEXECUTING\t40 % stopping");
    assert_eq!(a.json("commands", &[])["commands"][0]["percent"], 40);
    agent.report(&id, Stage::Completed, r#"{"restarted":1}"#);
    let last = std::iter::from_fn(|| Some(send.line())).find(|line| !line.contains("EXECUTING")).expect("an end");
    assert_eq!(last, "x1\tCOMPLETED\t{\"restarted\":1}");
    assert!(eventually("send ends", || send.0.try_wait().expect("our child")).success());
    let commands = b.json("commands", &[]);
    assert_eq!(commands["commands"][0]["status"], "COMMAND_STATUS_COMPLETED");
}

#[test]
fn a_group_is_resolved_once_and_an_empty_one_is_an_error() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let mut agents = [Agent::attach(&a, "x1"), Agent::attach(&b, "x2")];
    shows(&a, "x2", "LIVE");
    let id = a.run("send", &["--group", "north", "rollout", "{}"]).ok();
    for agent in &mut agents {
        assert_eq!(agent.run_one("{}"), id.trim());
    }
    eventually("both results are at a", || {
        let commands = a.json("commands", &[]);
        (commands["commands"][0]["status"] == "COMMAND_STATUS_COMPLETED").then_some(())
    });
    let words = a.run("send", &["--group", "south", "rollout"]).fails(1);
    assert!(words.contains("south"), "{words}");
    a.run("send", &["rollout"]).fails(2);
    a.run("send", &["--agent", "x1", "--all", "rollout"]).fails(2);
    a.run("send", &["--agent", "x1", "rollout", "{"]).fails(1);
    a.run("cancel", &["never sent"]).fails(3);
}

#[test]
fn a_cancelled_command_is_confirmed_by_its_agents_node() {
    let Pair { _homes, a, b } = Pair::start(&PATIENT);
    let id = a.run("send", &["--agent", "x1", "dig", "--ttl", "0"]).ok();
    let done = a.run("cancel", &[id.trim()]);
    assert!(done.words.contains("requested"), "{}", done.words);
    assert_eq!(done.ok(), "x1\tPENDING\n");
    let _agent = Agent::attach(&b, "x1");
    eventually("a hears that it is over", || {
        let commands = a.json("commands", &[]);
        (commands["commands"][0]["status"] == "COMMAND_STATUS_CANCELLED").then_some(())
    });
}

#[test]
fn agents_are_watched() {
    let home = directory();
    let node = Node::start(home.path(), &["--node-id", "a"]);
    let _first = Agent::attach(&node, "x1");
    let mut watch = Following::start(&node, "agents", &["--watch", "--json"]);
    assert!(watch.line().contains(r#""agentId":"x1""#));
    assert_eq!(watch.line(), r#"{"changeType":"CHANGE_TYPE_SNAPSHOT_END"}"#);
    let second = Agent::attach(&node, "x2");
    eventually("x2 is live", || watch.line().contains("LIVENESS_LIVE").then_some(()));
    drop(second);
    eventually("x2 is stale", || watch.line().contains("LIVENESS_STALE").then_some(()));
}

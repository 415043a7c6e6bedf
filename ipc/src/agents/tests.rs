//! Tests of an agent over a real socket, against a scripted node.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use prost::Message;

use super::jobs::{Jobs, Permit, RESTARTED, update};
use super::ledger::Ledger;
use super::*;
use crate::agent::command_update::Stage;
use crate::agent::{
    AgentMessage, CancelPush, CommandPush, CommandUpdate, NodeMessage, UpdateAck, agent_message, node_message,
};
use crate::envelope::frame::Body;
use crate::frame::{Decoder, put_error, put_item};
use crate::sidecar::Command;
use crate::stream::Stream;

/// Time limit of each expected event; only a failing test waits this long.
const PATIENCE: Duration = Duration::from_secs(30);

struct Node {
    listener: UnixListener,
    path: PathBuf,
}

/// One connection of the agent, as the node sees it.
struct Link {
    stream: Stream,
    decoder: Decoder,
}

impl Node {
    fn new(name: &str) -> Node {
        let path = std::env::temp_dir().join(format!("peat-agent-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Node { listener: UnixListener::bind(path.join("socket")).unwrap(), path }
    }

    fn target(&self) -> Target {
        Target::Unix(self.path.join("socket"))
    }

    fn memory(&self) -> PathBuf {
        self.path.join("memory")
    }

    fn agent<O: Into<Outcome>>(&self, handler: impl Fn(&Work<'_>) -> O + Send + Sync + 'static) -> Agent {
        let agent = Agent::connect(self.target()).remember_in(self.memory()).on_command(handler);
        agent.register(Register { agent_id: "a1".into(), ..Register::default() }).unwrap()
    }

    fn accept(&self) -> Link {
        let (stream, _): (UnixStream, _) = self.listener.accept().unwrap();
        let mut link = Link { stream: Stream::from(stream), decoder: Decoder::default() };
        link.stream.set_timeout(Some(PATIENCE)).unwrap();
        while link.decoder.buffered() < 8 {
            link.read();
        }
        assert_eq!(&link.decoder.peek()[..8], crate::PREFACE);
        link.decoder.skip(8);
        link
    }

    /// Accepts the agent's connection and returns it with the registration it sent.
    fn welcome(&self, beat_ms: u32) -> (Link, Register) {
        let mut link = self.accept();
        let agent_message::Body::Register(register) = link.next() else { panic!("not a Register") };
        let terms = Registered { heartbeat_interval_ms: beat_ms, node_id: "n".into(), ..Registered::default() };
        link.say(node_message::Body::Registered(terms));
        (link, register)
    }
}

impl Link {
    fn read(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).unwrap();
        self.decoder.extend(&bytes[..count]);
    }

    /// Returns the agent's next message, skipping credit.
    fn next(&mut self) -> agent_message::Body {
        loop {
            match self.decoder.next_frame().unwrap() {
                Some((_, Body::Request(request))) => return decode(&request.payload),
                Some((_, Body::Upload(bytes))) => return decode(&bytes),
                Some(_) => {}
                None => self.read(),
            }
        }
    }

    fn update(&mut self) -> CommandUpdate {
        match self.next() {
            agent_message::Body::CommandUpdate(update) => update,
            other => panic!("not an update: {other:?}"),
        }
    }

    fn say(&mut self, body: node_message::Body) {
        let message = NodeMessage { body: Some(body) };
        let mut bytes = Vec::new();
        put_item(&mut bytes, 1, message.encoded_len(), |out| message.encode_raw(out));
        self.stream.write_all(&bytes, || None).unwrap();
    }

    fn push(&mut self, id: &str) {
        let command = Command { id: id.into(), command_type: "test".into(), ..Command::default() };
        self.say(node_message::Body::CommandPush(CommandPush { command: Some(command), time_left_ms: 60_000 }));
    }

    fn cancel(&mut self, id: &str) {
        self.say(node_message::Body::CancelPush(CancelPush { command_id: id.into() }));
    }

    fn ack(&mut self, update: &CommandUpdate, refused: &str) {
        let ack = UpdateAck {
            command_id: update.command_id.clone(),
            stage: update.stage,
            refused: refused.into(),
            ..UpdateAck::default()
        };
        self.say(node_message::Body::UpdateAck(ack));
    }

    /// Expects an update of that command with that stage, and acknowledges it.
    fn hears(&mut self, id: &str, stage: Stage) -> CommandUpdate {
        let update = self.update();
        assert_eq!((update.command_id.as_str(), update.stage()), (id, stage), "{update:?}");
        self.ack(&update, "");
        update
    }
}

fn decode(bytes: &[u8]) -> agent_message::Body {
    AgentMessage::decode(bytes).unwrap().body.unwrap()
}

fn done() -> Outcome {
    Outcome::Completed("{}".into())
}

/// Returns a handler that counts its runs, signals its start, and blocks until released.
fn held() -> (Arc<AtomicUsize>, Receiver<String>, Sender0, impl Fn(&Work<'_>) -> Outcome) {
    let runs = Arc::new(AtomicUsize::new(0));
    let (began, begins): (SyncSender<String>, _) = sync_channel(8);
    let (release, released) = sync_channel::<()>(8);
    let released = Mutex::new(released);
    let count = Arc::clone(&runs);
    let handler = move |work: &Work<'_>| {
        count.fetch_add(1, Ordering::AcqRel);
        began.send(work.id().to_owned()).unwrap();
        released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        done()
    };
    (runs, begins, release, handler)
}

type Sender0 = SyncSender<()>;

#[test]
fn an_agent_registers_and_beats_as_the_node_asks() {
    let node = Node::new("beats");
    let agent = node.agent(|_| done());
    let (mut link, register) = node.welcome(50);
    assert_eq!((register.agent_id.as_str(), register.commands.len()), ("a1", 0));
    assert_eq!(agent.wait_registered(PATIENCE).unwrap().node_id, "n");
    for number in 1..4 {
        let agent_message::Body::Heartbeat(beat) = link.next() else { panic!("not a beat") };
        assert_eq!((beat.number, beat.state), (number, None));
    }
    drop(agent);
    loop {
        match link.next() {
            agent_message::Body::Heartbeat(_) => {}
            agent_message::Body::Goodbye(_) => break,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_command_begins_only_once_the_node_confirms_that_it_may() {
    let node = Node::new("permit");
    let (runs, begins, release, handler) = held();
    let agent = node.agent(handler);
    let (mut link, _) = node.welcome(60_000);
    link.push("refused");
    let accepted = link.update();
    assert_eq!(accepted.stage(), Stage::Accepted);
    assert_eq!(runs.load(Ordering::Acquire), 0);
    link.ack(&accepted, "it has expired");
    link.push("wanted");
    link.hears("wanted", Stage::Accepted);
    assert_eq!(begins.recv_timeout(PATIENCE).unwrap(), "wanted");
    release.send(()).unwrap();
    assert_eq!(link.hears("wanted", Stage::Completed).result_json, "{}");
    assert!(agent.close(PATIENCE));
    assert_eq!(runs.load(Ordering::Acquire), 1);
}

#[test]
fn a_command_pushed_again_runs_once_across_restarts_too() {
    let node = Node::new("again");
    let (runs, _begins, release, handler) = held();
    release.send(()).unwrap();
    let agent = node.agent(handler);
    let (mut link, _) = node.welcome(60_000);
    link.push("c1");
    link.hears("c1", Stage::Accepted);
    link.push("c1");
    while link.update().stage() != Stage::Completed {}
    link.ack(&update("c1", Stage::Completed), "");
    link.push("c1");
    assert_eq!(link.update().stage(), Stage::Completed);
    assert!(agent.close(PATIENCE));
    drop(link);
    let agent = eventually(|| {
        let again = Agent::connect(node.target()).remember_in(node.memory()).on_command(|_| done());
        again.register(Register { agent_id: "a1".into(), ..Register::default() }).ok()
    });
    let (mut link, register) = node.welcome(60_000);
    assert!(register.commands.is_empty());
    link.push("c1");
    assert_eq!(link.update().stage(), Stage::Completed);
    assert_eq!(runs.load(Ordering::Acquire), 1);
    drop(agent);
}

/// Polls `condition` until it yields a value: the last worker may need a moment to release the ledger.
fn eventually<T>(mut condition: impl FnMut() -> Option<T>) -> T {
    for _ in 0..3_000 {
        match condition() {
            Some(value) => return value,
            None => std::thread::park_timeout(Duration::from_millis(10)),
        }
    }
    panic!("not in time");
}

#[test]
fn work_goes_on_through_a_cut_and_its_result_is_delivered_afterwards() {
    let node = Node::new("cut");
    let (runs, begins, release, handler) = held();
    let agent = node.agent(handler);
    let (mut link, _) = node.welcome(60_000);
    link.push("c1");
    link.hears("c1", Stage::Accepted);
    begins.recv_timeout(PATIENCE).unwrap();
    drop(link);
    let (mut link, register) = node.welcome(60_000);
    assert_eq!(register.commands, [update("c1", Stage::Accepted)]);
    link.push("c1");
    release.send(()).unwrap();
    while link.update().stage() != Stage::Completed {}
    drop(link);
    let (mut link, register) = node.welcome(60_000);
    assert_eq!(register.commands[0].stage(), Stage::Completed, "the node did not confirm it");
    link.ack(&register.commands[0], "");
    assert!(agent.close(PATIENCE));
    assert_eq!(runs.load(Ordering::Acquire), 1);
}

#[test]
fn what_a_restart_interrupted_has_failed_and_what_was_only_accepted_runs() {
    let node = Node::new("restart");
    let mut ledger = Ledger::open("a1", Some(&node.memory())).unwrap();
    for id in ["begun", "waiting"] {
        ledger.accept(&Command { id: id.into(), ..Command::default() }).unwrap();
    }
    ledger.start("begun").unwrap();
    drop(ledger);
    let agent = node.agent(|_| done());
    let (mut link, register) = node.welcome(60_000);
    let [begun, waiting] = &register.commands[..] else { panic!("{register:?}") };
    assert_eq!((begun.stage(), begun.error.as_str()), (Stage::Failed, RESTARTED));
    assert_eq!(*waiting, update("waiting", Stage::Accepted));
    link.ack(begun, "");
    link.ack(waiting, "");
    link.hears("waiting", Stage::Completed);
    assert!(agent.close(PATIENCE));
}

#[test]
fn a_cancel_reaches_the_handler_and_what_has_not_begun_never_does() {
    let node = Node::new("cancel");
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let (began, begins) = sync_channel(8);
    let agent = node.agent(move |work| {
        count.fetch_add(1, Ordering::AcqRel);
        began.send(()).unwrap();
        while !work.is_cancelled() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        Outcome::Cancelled
    });
    let (mut link, _) = node.welcome(60_000);
    link.push("running");
    link.hears("running", Stage::Accepted);
    begins.recv_timeout(PATIENCE).unwrap();
    link.push("accepting");
    let accepted = link.update();
    link.cancel("accepting");
    link.hears("accepting", Stage::Cancelled);
    link.ack(&accepted, "");
    link.cancel("unknown");
    assert_eq!(link.update(), update("unknown", Stage::Cancelled));
    link.push("unknown");
    assert_eq!(link.update(), update("unknown", Stage::Cancelled), "it comes after its own cancel");
    link.cancel("running");
    link.hears("running", Stage::Cancelled);
    assert!(agent.close(PATIENCE));
    assert_eq!(runs.load(Ordering::Acquire), 1);
}

#[test]
fn a_retry_joins_the_work_that_is_under_way_and_reuses_what_did_not_get_through() {
    let node = Node::new("once");
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let (release, released) = sync_channel::<()>(8);
    let released = Mutex::new(released);
    let (began, begins) = sync_channel(8);
    let agent = node.agent(move |work| {
        began.send(()).unwrap();
        work.once("deploy 6.5", |_| {
            released.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            Ok::<_, String>((count.fetch_add(1, Ordering::AcqRel) + 1).to_string())
        })
    });
    let (mut link, _) = node.welcome(60_000);
    for id in ["c1", "c2"] {
        link.push(id);
        link.hears(id, Stage::Accepted);
        begins.recv_timeout(PATIENCE).unwrap();
    }
    drop(link);
    release.send(()).unwrap();
    let (mut link, register) = node.welcome(60_000);
    link.push("c3");
    let mut said = register.commands;
    let mut ended = std::collections::BTreeMap::new();
    while ended.len() < 3 {
        let update = said.pop().unwrap_or_else(|| link.update());
        link.ack(&update, "");
        if update.stage() == Stage::Completed {
            ended.insert(update.command_id, update.result_json);
        }
    }
    assert!(ended.values().all(|result| result == "1"), "{ended:?}");
    assert!(agent.close(PATIENCE));
    assert_eq!(runs.load(Ordering::Acquire), 1);
}

#[test]
fn what_a_handler_gets_wrong_is_a_failed_command() {
    let node = Node::new("wrong");
    let agent = node.agent(|work| match work.id() {
        "panics" => panic!("on purpose"),
        "large" => Outcome::Completed("x".repeat(300_000)),
        "no JSON" => Outcome::Completed("{".into()),
        _ => Outcome::Failed("é".repeat(5_000)),
    });
    let (mut link, _) = node.welcome(60_000);
    for (id, words) in [("panics", "panicked"), ("large", "300000 bytes"), ("words", "é")] {
        link.push(id);
        link.hears(id, Stage::Accepted);
        assert!(link.hears(id, Stage::Failed).error.contains(words));
    }
    link.push("no JSON");
    link.hears("no JSON", Stage::Accepted);
    let ended = link.update();
    link.ack(&ended, "result_json is not JSON");
    assert!(link.hears("no JSON", Stage::Failed).error.contains("is not JSON"));
    assert!(agent.close(PATIENCE));
}

#[test]
fn a_registration_that_is_refused_says_why() {
    let node = Node::new("refused");
    let agent = node.agent(|_| done());
    let mut link = node.accept();
    let mut bytes = Vec::new();
    put_error(&mut bytes, 1, &CallError::new(Code::PermissionDenied, "another user's"));
    link.next();
    link.stream.write_all(&bytes, || None).unwrap();
    eventually(|| agent.trouble().filter(|trouble| trouble.contains("another user's")));
    let error = agent.wait_registered(Duration::ZERO).expect_err("refused");
    assert!(error.message.contains("another user's"), "{error}");
}

#[test]
fn state_is_said_at_once_and_again_after_a_reconnect() {
    let node = Node::new("state");
    let agent = node.agent(|_| done());
    let (mut link, _) = node.welcome(60_000);
    agent.wait_registered(PATIENCE).unwrap();
    agent.heartbeat(State { status: 2, ..State::default() });
    agent.report_deployment(Workload { name: "w".into(), version: "1".into(), ..Workload::default() });
    let state = |link: &mut Link| match link.next() {
        agent_message::Body::Heartbeat(beat) => beat.state.unwrap(),
        other => panic!("{other:?}"),
    };
    assert_eq!(state(&mut link).status, 2);
    assert_eq!(state(&mut link).workloads[0].name, "w");
    drop(link);
    let (mut link, register) = node.welcome(60_000);
    assert_eq!(register.workloads[0].version, "1");
    assert_eq!(state(&mut link).status, 2);
    agent.remove_deployment("w");
    let last = state(&mut link);
    assert!(last.workloads_complete && last.workloads.is_empty());
}

#[test]
fn what_the_node_refuses_of_an_agents_state_is_told_and_taken_back() {
    let node = Node::new("taken-back");
    let agent = node.agent(|_| done());
    let (mut link, _) = node.welcome(60_000);
    agent.wait_registered(PATIENCE).unwrap();
    agent.report_deployment(Workload { name: "\u{0}".into(), ..Workload::default() });
    link.next();
    let mut bytes = Vec::new();
    put_error(&mut bytes, 1, &CallError::new(Code::InvalidArgument, "a workload's name has a control character"));
    link.stream.write_all(&bytes, || None).unwrap();
    let (_link, register) = node.welcome(60_000);
    assert!(register.workloads.is_empty());
    agent.wait_registered(PATIENCE).unwrap();
    assert!(agent.trouble().unwrap().contains("control character"));
}

/// Returns the acknowledgement of a node that does not hold the command.
fn not_here(said: &CommandUpdate) -> UpdateAck {
    let refused = "there is no command here".into();
    UpdateAck { command_id: said.command_id.clone(), stage: said.stage, refused, not_here: true }
}

fn stored(said: &CommandUpdate) -> UpdateAck {
    UpdateAck { command_id: said.command_id.clone(), stage: said.stage, ..UpdateAck::default() }
}

/// Returns the first update of a job that was accepted.
fn accepted(jobs: &mut Jobs, now: std::time::Instant) -> CommandUpdate {
    let command = Some(Command { id: "c1".into(), ..Command::default() });
    jobs.handle_push(now, CommandPush { command, time_left_ms: 0 });
    jobs.take(now).unwrap().expect("a command");
    jobs.poll_updates().pop().expect("ACCEPTED")
}

#[test]
fn a_result_for_a_command_the_node_does_not_hold_is_kept_and_told_again_later_and_less_and_less_often() {
    let (start, mut jobs) = (clock::now(), Jobs::new(Ledger::open("a1", None).unwrap()).unwrap());
    let said = accepted(&mut jobs, start);
    jobs.handle_ack(start, &stored(&said)).unwrap();
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Begin);
    jobs.end(update("c1", Stage::Completed)).unwrap();
    let mut now = start;
    let mut waits = Vec::new();
    let mut begun = now;
    while jobs.unsettled() {
        jobs.handle_timeout(now);
        if let Some(said) = jobs.poll_updates().pop() {
            assert_eq!(said.stage(), Stage::Completed);
            jobs.handle_ack(now, &not_here(&said)).unwrap();
            waits.push((now - begun).as_secs());
            begun = now;
        }
        now += Duration::from_secs(1);
    }
    assert_eq!(waits[..9], [0, 5, 10, 20, 40, 80, 160, 320, 600]);
    assert!((now - start).as_secs().abs_diff(24 * 3_600) < 700, "given up after a day: {:?}", now - start);
}

#[test]
fn a_command_the_node_does_not_hold_waits_without_a_worker_and_runs_when_it_does() {
    let (now, mut jobs) = (clock::now(), Jobs::new(Ledger::open("a1", None).unwrap()).unwrap());
    let said = accepted(&mut jobs, now);
    jobs.handle_ack(now, &not_here(&said)).unwrap();
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Refused, "the worker goes on");
    assert!(jobs.take(now).unwrap().is_none());
    jobs.handle_link_lost();
    assert_eq!(jobs.registered(), std::slice::from_ref(&said), "the next node is asked at once");
    assert!(jobs.take(now).unwrap().is_some());
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Wait);
    jobs.handle_ack(now, &stored(&said)).unwrap();
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Begin);
}

/// Returns an accepted command with an early start record in the ledger at `path`.
fn prepared(path: &std::path::Path) -> (Jobs, CommandUpdate) {
    let (now, mut jobs) = (clock::now(), Jobs::new(Ledger::open("a1", Some(path)).unwrap()).unwrap());
    let said = accepted(&mut jobs, now);
    jobs.prepare("c1").unwrap();
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Wait);
    (jobs, said)
}

fn found(path: &std::path::Path) -> Vec<CommandUpdate> {
    Jobs::new(Ledger::open("a1", Some(path)).unwrap()).unwrap().registered()
}

#[test]
fn what_is_written_down_ahead_of_the_nodes_word_is_taken_back_when_that_is_no_or_does_not_come() {
    let node = Node::new("ahead");
    let path = |name: &str| node.path.join(name);
    drop(prepared(&path("restarted")));
    assert_eq!(found(&path("restarted"))[0].error, RESTARTED, "it may have begun");
    let (mut jobs, _) = prepared(&path("cut"));
    jobs.handle_link_lost();
    drop(jobs);
    assert_eq!(found(&path("cut")), [update("c1", Stage::Accepted)], "it has not, and is to be run");
    let (mut jobs, said) = prepared(&path("refused"));
    let refused = UpdateAck { refused: "it has expired".into(), ..stored(&said) };
    jobs.handle_ack(clock::now(), &refused).unwrap();
    drop(jobs);
    assert_eq!(found(&path("refused")), []);
    let (mut jobs, said) = prepared(&path("confirmed"));
    jobs.handle_ack(clock::now(), &stored(&said)).unwrap();
    assert_eq!(jobs.permit("c1").unwrap(), Permit::Begin);
}

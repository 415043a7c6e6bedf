//! Commands over the stream of an agent: pushed, accepted, finished, cancelled, missed, and pushed again.

use std::time::Duration;

use peat_ipc::Code;
use peat_ipc::agent::command_update::Stage;
use peat_ipc::agent::{CommandUpdate, Register, agent_message, node_message};
use peat_ipc::envelope::frame::Body;
use peat_ipc::sidecar::*;

use super::agents::{OTHER, Stream, drop_stream, register};
use super::{ROOT, SOMEBODY, World, code};
use crate::fleet::commands::Trust;
use crate::identity::EndpointId;
use crate::store::{Error, Reply};

fn to(agent: &str, id: &str) -> Command {
    Command {
        id: id.into(),
        target_id: agent.into(),
        command_type: "restart".into(),
        payload_json: r#"{"n":1}"#.into(),
        ..Command::default()
    }
}

/// Returns a progress report of an agent.
fn words(id: &str, progress: &str, percent: u32) -> agent_message::Body {
    let update = CommandUpdate { progress: progress.into(), percent, ..update(id, Stage::Progress, "") };
    agent_message::Body::CommandUpdate(update)
}

impl World {
    fn issue(&mut self, command: Command) {
        let client = self.connect(ROOT);
        self.call(client, &PutCommandRequest { command: Some(command) }).expect("issued");
    }

    fn command(&mut self, id: &str) -> Command {
        let client = self.connect(ROOT);
        let all = self.call(client, &GetCommandsRequest::default()).expect("listed").commands;
        all.into_iter().find(|command| command.id == id).expect("it exists")
    }

    fn pushed(&mut self, stream: Stream) -> Option<Command> {
        match self.heard(stream)? {
            node_message::Body::CommandPush(push) => push.command,
            body => panic!("{body:?} is no command"),
        }
    }

    /// Sends a report and returns the node's objection; empty if the report was accepted.
    fn report(&mut self, stream: Stream, id: &str, stage: Stage, result: &str) -> String {
        self.say(stream, agent_message::Body::CommandUpdate(update(id, stage, result)));
        match self.heard(stream) {
            Some(node_message::Body::UpdateAck(ack)) if ack.command_id == id && ack.stage() == stage => ack.refused,
            body => panic!("{body:?} is no acknowledgement"),
        }
    }
}

fn update(id: &str, stage: Stage, result: &str) -> CommandUpdate {
    CommandUpdate { command_id: id.into(), stage: stage.into(), result_json: result.into(), ..CommandUpdate::default() }
}

#[test]
fn a_command_is_pushed_accepted_and_finished() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    let command = world.pushed(stream).expect("pushed at once");
    assert_eq!((command.id.as_str(), command.payload_json.as_str()), ("k", r#"{"n":1}"#));
    assert_eq!(world.report(stream, "k", Stage::Accepted, ""), "");
    assert_eq!(world.command("k").status(), CommandStatus::Executing);
    assert_eq!(world.report(stream, "k", Stage::Completed, r#"{"ok":true}"#), "");
    let command = world.command("k");
    assert_eq!((command.status(), command.result_json.as_str()), (CommandStatus::Completed, r#"{"ok":true}"#));
    assert_eq!(world.report(stream, "k", Stage::Completed, r#"{"ok":true}"#), "", "said twice, stored once");
    assert!(world.heard(stream).is_none());
}

#[test]
fn what_is_pending_is_pushed_when_its_agent_registers() {
    let mut world = World::new();
    world.issue(to("a1", "k"));
    let stream = world.attach(SOMEBODY, "a1");
    assert_eq!(world.pushed(stream).expect("pushed").id, "k");
    drop_stream(&mut world, stream);
    let stream = world.attach(SOMEBODY, "a1");
    assert_eq!(world.pushed(stream).expect("pushed again").id, "k");
}

#[test]
fn what_an_agent_has_by_its_own_word_is_not_pushed_again_and_its_result_counts() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    world.issue(to("a1", "waits"));
    assert!(world.pushed(stream).is_some() && world.pushed(stream).is_some());
    assert_eq!(world.report(stream, "k", Stage::Accepted, ""), "");
    drop_stream(&mut world, stream);
    let commands = vec![update("k", Stage::Completed, r#"{"done":1}"#)];
    let back = Register { commands, ..register("a1") };
    let stream = world.open_stream(SOMEBODY, Some(agent_message::Body::Register(back)), 100);
    assert!(matches!(world.heard(stream), Some(node_message::Body::Registered(_))), "first of all");
    let said: Vec<_> = std::iter::from_fn(|| world.heard(stream)).collect();
    let acked = said.iter().any(|body| matches!(body, node_message::Body::UpdateAck(ack) if ack.refused.is_empty()));
    let pushed: Vec<&str> = said
        .iter()
        .filter_map(|body| match body {
            node_message::Body::CommandPush(push) => push.command.as_ref().map(|command| command.id.as_str()),
            _ => None,
        })
        .collect();
    assert!(acked && pushed == ["waits"], "{said:?}");
    assert_eq!(world.command("k").status(), CommandStatus::Completed);
}

#[test]
fn a_command_to_a_group_goes_to_its_live_agents_and_to_nobody_else() {
    let mut world = World::new();
    let member = |id: &str| agent_message::Body::Register(Register { group: "north".into(), ..register(id) });
    let live = world.open_stream(SOMEBODY, Some(member("a1")), 100);
    let gone = world.open_stream(SOMEBODY, Some(member("a2")), 100);
    let other = world.attach(SOMEBODY, "a3");
    drop_stream(&mut world, gone);
    world.issue(Command { target_id: String::new(), group: "north".into(), ..to("", "k") });
    assert!(world.heard(live).is_some());
    assert_eq!(world.pushed(live).expect("pushed").id, "k");
    assert!(world.heard(other).is_none());
    let targets: Vec<String> = world.command("k").targets.into_iter().map(|target| target.agent_id).collect();
    assert_eq!(targets, ["a1"]);
    let client = world.connect(ROOT);
    let nobody = Command { target_id: String::new(), group: "south".into(), ..to("", "k2") };
    assert_eq!(code(world.call(client, &PutCommandRequest { command: Some(nobody) })), Code::FailedPrecondition);
}

#[test]
fn a_command_that_was_not_accepted_in_time_is_expired_and_not_begun() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(Command { created_at: 100, expires_at: 160, ..to("a1", "k") });
    assert!(world.pushed(stream).is_some());
    world.wait(Duration::from_secs(61));
    assert!(world.report(stream, "k", Stage::Accepted, "").contains("not accepted in time"));
    assert_eq!(world.command("k").status(), CommandStatus::Expired);
    drop_stream(&mut world, stream);
    let stream = world.attach(SOMEBODY, "a1");
    assert!(world.heard(stream).is_none(), "nothing is left to run");
}

#[test]
fn cancelling_asks_the_agent_and_is_over_once_it_says_so() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    assert!(world.pushed(stream).is_some());
    assert_eq!(world.report(stream, "k", Stage::Accepted, ""), "");
    let answer = world.call(admin, &CancelCommandRequest { id: "k".into() }).expect("asked");
    assert_eq!(answer.targets[0].status(), CommandStatus::Executing);
    assert!(matches!(world.heard(stream), Some(node_message::Body::CancelPush(push)) if push.command_id == "k"));
    assert!(world.command("k").cancel_requested);
    assert_eq!(world.report(stream, "k", Stage::Cancelled, ""), "");
    assert_eq!(world.command("k").status(), CommandStatus::Cancelled);
}

#[test]
fn reports_about_what_is_not_the_agents_are_refused_and_cost_nothing_else() {
    let mut world = World::new();
    let (first, second) = (world.attach(SOMEBODY, "a1"), world.attach(OTHER, "a2"));
    world.issue(to("a1", "k"));
    assert!(world.pushed(first).is_some());
    assert!(world.report(second, "k", Stage::Completed, "{}").contains("not for agent"));
    assert!(world.report(second, "never sent", Stage::Accepted, "").contains("never sent"));
    assert!(!world.report(first, "k", Stage::Completed, "{").is_empty(), "no JSON");
    assert!(!world.report(first, "k", Stage::Unspecified, "").is_empty());
    assert_eq!(world.command("k").status(), CommandStatus::Pending);
    world.beat(first, 1);
    world.beat(second, 1);
}

#[test]
fn nobody_reports_for_another_users_agent() {
    let mut world = World::new();
    world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    let accepted = Command { status: CommandStatus::Executing.into(), ..to("a1", "k") };
    let thief = world.connect(OTHER);
    let request = PutCommandRequest { command: Some(accepted) };
    assert_eq!(code(world.call(thief, &request)), Code::PermissionDenied);
    let own = world.connect(SOMEBODY);
    world.call(own, &request).expect("an agent may report as one that polls");
    assert_eq!(world.command("k").status(), CommandStatus::Executing);
}

#[test]
fn a_report_that_a_full_disk_refused_is_not_refused_to_the_agent() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    assert!(world.pushed(stream).is_some());
    world.store_runs = false;
    world.say(stream, agent_message::Body::CommandUpdate(update("k", Stage::Completed, "7")));
    for submitted in std::mem::take(&mut world.queued) {
        let reply = Reply { ticket: submitted.ticket, result: Err(Error::DiskFull) };
        world.engine.handle_reply(world.now, reply);
    }
    world.store_runs = true;
    world.run();
    assert!(
        matches!(world.take(stream.client, stream.call), Some(Body::Error(error)) if error.message.contains("the disk is full"))
    );
    let back = Register { commands: vec![update("k", Stage::Completed, "7")], ..register("a1") };
    world.open_stream(SOMEBODY, Some(agent_message::Body::Register(back)), 100);
    assert_eq!(world.command("k").status(), CommandStatus::Completed);
}

#[test]
fn whose_commands_are_delivered_can_change_and_what_waited_is_pushed() {
    let mut world = World::new();
    let trust =
        |issuers: &[EndpointId]| Trust { node: EndpointId([9; 32]), issuers: issuers.iter().copied().collect() };
    world.reload(|settings| settings.commands.trust = trust(&[EndpointId([8; 32])]));
    let stream = world.attach(SOMEBODY, "a1");
    world.issue(to("a1", "k"));
    assert_eq!(world.heard(stream), None, "its issuer is not trusted");
    world.reload(|settings| settings.commands.trust = trust(&[]));
    assert_eq!(world.pushed(stream).expect("trusted now").id, "k");
}

#[test]
fn the_newest_words_of_work_in_progress_are_shown_and_written_now_and_then() {
    let mut world = World::new();
    world.issue(to("a1", "k"));
    let stream = world.attach(SOMEBODY, "a1");
    world.pushed(stream).expect("pushed");
    assert_eq!(world.report(stream, "k", Stage::Accepted, ""), "");
    let before = world.sequence();
    for percent in 1..=50 {
        world.say(stream, words("k", "fetching", percent));
        world.wait(Duration::from_millis(200));
        world.beat(stream, percent.into());
    }
    assert!(world.sequence() - before <= 3, "{} writes in ten seconds", world.sequence() - before);
    world.wait(Duration::from_secs(5));
    let command = world.command("k");
    assert_eq!((command.progress.as_str(), command.percent), ("fetching", 50), "the newest is written in the end");
    assert_eq!(command.targets[0].progress, "fetching");
    assert_eq!(command.result_json, "");
    assert_eq!(world.json("commands", "k:a1").expect("a document")["percent"], 50);
    assert_eq!(world.report(stream, "k", Stage::Completed, ""), "");
    let command = world.command("k");
    assert_eq!((command.status(), command.progress.as_str(), command.percent), (CommandStatus::Completed, "", 0));
    assert_eq!(world.json("commands", "k:a1").expect("a document")["status"], "COMMAND_STATUS_COMPLETED");
    world.say(stream, words("k", "late", 99));
    world.wait(Duration::from_secs(10));
    assert_eq!(world.command("k").progress, "");
}

#[test]
fn words_too_long_are_refused_and_many_talkers_write_ten_times_a_second() {
    let mut world = World::new();
    let agents: Vec<String> = (0..100).map(|number| format!("a{number}")).collect();
    let streams: Vec<Stream> = agents.iter().map(|agent| world.attach(SOMEBODY, agent)).collect();
    world.issue(Command { target_id: String::new(), all: true, ..to("", "k") });
    for stream in &streams {
        world.pushed(*stream).expect("pushed");
        world.report(*stream, "k", Stage::Accepted, "");
    }
    world.say(streams[0], words("k", &"x".repeat(1_025), 1));
    let refused = world.heard(streams[0]);
    assert!(
        matches!(&refused, Some(node_message::Body::UpdateAck(ack)) if ack.refused.contains("1024")),
        "{refused:?}"
    );
    let before = world.sequence();
    streams.iter().for_each(|stream| world.say(*stream, words("k", "on it", 1)));
    world.wait(Duration::from_millis(950));
    assert!(world.sequence() - before <= 10, "{}", world.sequence() - before);
    world.wait(Duration::from_secs(11));
    assert!(world.command("k").targets.iter().all(|target| target.progress == "on it"));
}

#[test]
fn a_report_for_a_command_that_is_not_here_is_to_be_kept_and_one_that_was_removed_is_not() {
    let mut world = World::new();
    let stream = world.attach(SOMEBODY, "a1");
    let not_here = |world: &mut World, id: &str| {
        world.say(stream, agent_message::Body::CommandUpdate(update(id, Stage::Completed, "7")));
        match world.heard(stream) {
            Some(node_message::Body::UpdateAck(ack)) if !ack.refused.is_empty() => ack.not_here,
            other => panic!("{other:?}"),
        }
    };
    assert!(not_here(&mut world, "on its way"));
    world.issue(to("a2", "k"));
    assert!(!not_here(&mut world, "k"), "it is another agent's");
    let client = world.connect(ROOT);
    let request = DeleteDocumentRequest { collection: "commands".into(), doc_id: "k".into() };
    world.call(client, &request).expect("deleted");
    assert!(!not_here(&mut world, "k"), "it never comes back");
    assert!(!not_here(&mut world, &"x".repeat(600)), "nothing has this id");
}

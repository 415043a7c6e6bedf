//! Commands over the calls of a client: issued by admins, answered by polling agents, cancelled, listed.

use std::time::Duration;

use peat_ipc::Code;
use peat_ipc::sidecar::*;

use super::{ROOT, SOMEBODY, World, code};
use crate::api::ConnectionId;

fn command(id: &str) -> Command {
    Command { id: id.into(), target_id: "a1".into(), command_type: "replay".into(), ..Command::default() }
}

fn with(command: Command, status: CommandStatus) -> Command {
    Command { status: status.into(), ..command }
}

fn put(command: Command) -> PutCommandRequest {
    PutCommandRequest { command: Some(command) }
}

fn pending(agent: &str) -> GetCommandsRequest {
    GetCommandsRequest { target_id: agent.into(), pending_only: true, ..GetCommandsRequest::default() }
}

impl World {
    fn put_command(&mut self, client: ConnectionId, command: Command) -> Code {
        match self.call(client, &put(command)) {
            Ok(_) => Code::Unknown,
            Err(error) => error.code,
        }
    }

    fn get_command(&mut self, client: ConnectionId, id: &str) -> Command {
        let all = self.call(client, &GetCommandsRequest::default()).expect("read").commands;
        all.into_iter().find(|command| command.id == id).expect("there")
    }
}

/// What [`World::put_command`] says of a call that went well.
const FINE: Code = Code::Unknown;

#[test]
fn an_agent_that_only_polls_accepts_and_reports() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    let issued = Command { payload_json: r#"{"n":1}"#.into(), created_at: 100, expires_at: 160, ..command("k") };
    world.call(admin, &put(issued.clone())).expect("issue");
    let mut due = world.call(agent, &pending("a1")).expect("poll").commands;
    let due = due.pop().expect("one");
    assert_eq!((due.payload_json.as_str(), due.created_at, due.expires_at), (r#"{"n":1}"#, 100, 160));
    assert_eq!((due.issuer.len(), due.signature.len()), (64, 64));
    world.call(agent, &put(with(due.clone(), CommandStatus::Executing))).expect("accept");
    assert_eq!(world.call(agent, &pending("a1")).expect("poll").commands, []);
    let done = Command { result_json: "7".into(), ..with(due, CommandStatus::Completed) };
    world.call(agent, &put(done.clone())).expect("report");
    world.call(agent, &put(done)).expect("a report given twice");
    let shown = world.get_command(admin, "k");
    assert_eq!((shown.status(), shown.result_json.as_str()), (CommandStatus::Completed, "7"));
    assert_eq!(shown.targets[0].result_json, "7");
    world.call(admin, &put(issued)).expect("issued again: the same");
    let document = GetDocumentRequest { collection: "commands".into(), doc_id: "k".into() };
    let json = world.call(agent, &document).expect("read").json_data.expect("there");
    assert!(json.contains(r#""status":"COMMAND_STATUS_COMPLETED""#), "{json}");
}

#[test]
fn what_is_no_command_is_refused_by_name() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    for (wrong, expected, word) in [
        (Command { target_id: String::new(), ..command("k") }, Code::InvalidArgument, "for somebody"),
        (Command { command_type: String::new(), ..command("k") }, Code::InvalidArgument, "command_type"),
        (Command { payload_json: "{".into(), ..command("k") }, Code::InvalidArgument, "payload_json"),
        (Command { id: String::new(), ..command("k") }, Code::InvalidArgument, "command.id"),
        (command("k:a1"), Code::InvalidArgument, "colon"),
        (Command { target_id: "a\n".into(), ..command("k") }, Code::InvalidArgument, "control character"),
        (Command { target_id: "a".repeat(511), ..command("k") }, Code::InvalidArgument, "512"),
        (Command { created_at: 100, expires_at: 40, ..command("k") }, Code::InvalidArgument, "60 s before created_at"),
        (Command { created_at: 100, expires_at: 400_000_000, ..command("k") }, Code::InvalidArgument, "315360000 s"),
        (Command { expires_at: -5, ..command("k") }, Code::InvalidArgument, "this node's clock"),
        (
            Command { group: "g".into(), target_id: String::new(), ..command("k") },
            Code::FailedPrecondition,
            "group 'g'",
        ),
        (Command { all: true, target_id: String::new(), ..command("k") }, Code::FailedPrecondition, "no live agent"),
        (Command { group: "g".into(), all: true, ..command("k") }, Code::InvalidArgument, "exclude"),
        (with(command("k"), CommandStatus::Completed), Code::NotFound, "commands/k"),
        (
            Command { payload_json: format!("\"{}\"", "x".repeat(300_000)), ..command("k") },
            Code::InvalidArgument,
            "262144",
        ),
    ] {
        let error = world.call(admin, &put(wrong)).expect_err(word);
        assert!(error.code == expected && error.message.contains(word), "{error} should say: {word}");
    }
    assert_eq!(code(world.call(admin, &PutCommandRequest { command: None })), Code::InvalidArgument);
    assert_eq!(world.call(admin, &GetCommandsRequest::default()).expect("read").commands, []);
}

#[test]
fn an_id_that_was_used_names_its_command_for_good() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    assert_eq!(world.put_command(admin, command("k")), FINE);
    let other = Command { payload_json: "{}".into(), ..command("k") };
    assert_eq!(world.put_command(admin, other.clone()), Code::AlreadyExists);
    assert_eq!(world.put_command(admin, with(other.clone(), CommandStatus::Completed)), Code::AlreadyExists);
    let delete = DeleteDocumentRequest { collection: "commands".into(), doc_id: "k".into() };
    world.call(admin, &delete).expect("an admin deletes");
    assert_eq!(world.put_command(admin, other), Code::AlreadyExists, "removed commands are not put again");
    assert_eq!(world.put_command(admin, with(command("k"), CommandStatus::Executing)), Code::NotFound);
}

#[test]
fn two_that_put_one_id_at_once_do_not_both_succeed() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    world.store_runs = false;
    let one = world.start(admin, &put(command("k")));
    let two = world.start(admin, &put(Command { target_id: "a2".into(), ..command("k") }));
    world.store_runs = true;
    world.run();
    assert!(world.answer::<PutCommandRequest>(admin, one).expect("answered").is_ok());
    assert_eq!(code(world.answer::<PutCommandRequest>(admin, two).expect("answered")), Code::AlreadyExists);
}

#[test]
fn a_report_for_another_agent_or_a_command_never_sent_is_refused() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    assert_eq!(world.put_command(agent, with(command("never"), CommandStatus::Completed)), Code::NotFound);
    assert_eq!(world.put_command(admin, command("k")), FINE);
    let other = TargetStatus { agent_id: "a2".into(), status: CommandStatus::Completed.into(), ..Default::default() };
    let report = Command { targets: vec![other], ..command("k") };
    assert_eq!(world.put_command(agent, report), Code::NotFound);
    assert_eq!(world.put_command(agent, with(command("k"), CommandStatus::Expired)), Code::InvalidArgument);
    let broken = Command { result_json: "{".into(), ..with(command("k"), CommandStatus::Completed) };
    assert_eq!(world.put_command(agent, broken), Code::InvalidArgument);
    assert_eq!(world.get_command(admin, "k").status(), CommandStatus::Pending);
}

#[test]
fn what_has_expired_is_shown_so_and_is_not_accepted() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    let timed = || Command { created_at: 100, expires_at: 160, ..command("k") };
    assert_eq!(world.put_command(admin, timed()), FINE);
    world.wait(Duration::from_secs(60));
    let agent = world.connect(SOMEBODY);
    assert_eq!(world.get_command(agent, "k").status(), CommandStatus::Expired);
    assert_eq!(world.call(agent, &pending("a1")).expect("poll").commands, []);
    assert_eq!(world.put_command(agent, with(timed(), CommandStatus::Executing)), Code::FailedPrecondition);
    let done = with(timed(), CommandStatus::Completed);
    assert_eq!(world.put_command(agent, done), FINE, "what was done all the same is told");
    assert_eq!(world.get_command(agent, "k").status(), CommandStatus::Completed);
}

#[test]
fn a_cancellation_is_requested_until_the_agent_or_its_node_confirms_it() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    let cancel = |id: &str| CancelCommandRequest { id: id.into() };
    assert_eq!(code(world.call(admin, &cancel("never"))), Code::NotFound);
    ["k", "runs"].into_iter().for_each(|id| assert_eq!(world.put_command(admin, command(id)), FINE));
    assert_eq!(code(world.call(agent, &cancel("k"))), Code::PermissionDenied);
    assert_eq!(world.put_command(agent, with(command("runs"), CommandStatus::Executing)), FINE);
    for (id, status) in [("k", CommandStatus::Pending), ("runs", CommandStatus::Executing)] {
        let answer = world.call(admin, &cancel(id)).expect("cancel").targets;
        assert_eq!((answer[0].agent_id.as_str(), answer[0].status()), ("a1", status), "requested");
        assert!(world.get_command(admin, id).cancel_requested);
    }
    assert_eq!(world.call(agent, &pending("a1")).expect("poll").commands, []);
    assert_eq!(world.put_command(agent, with(command("k"), CommandStatus::Executing)), Code::FailedPrecondition);
    assert_eq!(world.get_command(admin, "k").status(), CommandStatus::Cancelled);
    assert_eq!(world.put_command(agent, with(command("runs"), CommandStatus::Cancelled)), FINE);
    let answer = world.call(admin, &cancel("runs")).expect("again").targets;
    assert_eq!(answer[0].status(), CommandStatus::Cancelled);
}

#[test]
fn a_command_given_as_a_document_is_a_command() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    let put = |json: &str| PutDocumentRequest {
        collection: "commands".into(),
        doc_id: "k".into(),
        json_data: json.into(),
        ..PutDocumentRequest::default()
    };
    let words = r#"{"id":"k","target_id":"a1","command_type":"replay","payload_json":"{}"}"#;
    assert_eq!(code(world.call(agent, &put(words))), Code::PermissionDenied);
    world.call(admin, &put(words)).expect("issue");
    let get = GetDocumentRequest { collection: "commands".into(), doc_id: "k".into() };
    let held = world.call(agent, &get).expect("get").json_data.expect("there");
    world.call(agent, &put(&held)).expect("as it is shown");
    let accepted = held.replacen("COMMAND_STATUS_PENDING", "COMMAND_STATUS_EXECUTING", 1);
    world.call(agent, &put(&accepted)).expect("accept");
    assert_eq!(world.get_command(agent, "k").status(), CommandStatus::Executing);
    assert_eq!(code(world.call(admin, &put(&held.replace("replay", "stop")))), Code::AlreadyExists);
}

#[test]
fn commands_are_listed_by_agent_and_results_are_no_commands() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    for (id, target) in [("k1", "a1"), ("k2", "a2"), ("k3", "a1")] {
        assert_eq!(world.put_command(admin, Command { target_id: target.into(), ..command(id) }), FINE);
    }
    let failed = Command { error: "no".into(), ..with(command("k1"), CommandStatus::Failed) };
    assert_eq!(world.put_command(admin, failed), FINE);
    let ids = |world: &mut World, request: &GetCommandsRequest| -> Vec<String> {
        world.call(admin, request).expect("read").commands.into_iter().map(|command| command.id).collect()
    };
    assert_eq!(ids(&mut world, &GetCommandsRequest::default()), ["k1", "k2", "k3"]);
    let of = |agent: &str| GetCommandsRequest { target_id: agent.into(), ..GetCommandsRequest::default() };
    assert_eq!(ids(&mut world, &of("a1")), ["k1", "k3"]);
    assert_eq!(ids(&mut world, &pending("a1")), ["k3"]);
    assert_eq!(ids(&mut world, &of("a3")), [""; 0]);
    assert_eq!(world.get_command(admin, "k1").error, "no");
}

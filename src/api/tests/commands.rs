//! Commands over the calls of a client: issued by admins, answered by polling agents, cancelled, listed.

use std::time::Duration;

use peat_ipc::Code;
use peat_ipc::sidecar::*;

use super::{ROOT, SOMEBODY, World, code};
use crate::api::ConnectionId;
use crate::limits::{COMMANDS, COMMANDS_WARNING};

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

/// Result of [`World::put_command`] for a call that succeeded.
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
    assert_eq!(ids(&mut world, &of("a1")), ["k3", "k1"], "what is pending first");
    assert_eq!(ids(&mut world, &pending("a1")), ["k3"]);
    assert_eq!(ids(&mut world, &of("a3")), [""; 0]);
    assert_eq!(world.get_command(admin, "k1").error, "no");
}

impl World {
    /// Issues a command with a payload of `payload` bytes.
    fn issue_made(&mut self, admin: ConnectionId, id: &str, made: i64, payload: usize) {
        let payload_json = format!("\"{}\"", "x".repeat(payload));
        let issued = Command { payload_json, created_at: made, ..command(id) };
        self.call(admin, &put(issued)).expect("issued");
    }

    /// Reports a command as completed.
    fn complete(&mut self, client: ConnectionId, id: &str, result: usize) {
        let one = GetCommandsRequest { id: id.into(), ..GetCommandsRequest::default() };
        let held = self.call(client, &one).expect("read").commands.pop().expect("there");
        let result_json = format!("\"{}\"", "r".repeat(result));
        self.call(client, &put(Command { result_json, ..with(held, CommandStatus::Completed) })).expect("reported");
    }

    /// Returns the ids of every page of a list, and the number of pages.
    fn pages(&mut self, client: ConnectionId, mut request: GetCommandsRequest) -> (Vec<String>, usize) {
        let (mut ids, mut pages) = (Vec::new(), 0);
        loop {
            let page = self.call(client, &request).expect("a page");
            pages += 1;
            ids.extend(page.commands.into_iter().map(|command| command.id));
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() {
                return (ids, pages);
            }
        }
    }
}

#[test]
fn an_agent_that_polls_gets_what_is_pending_first_and_as_much_as_fits() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    for number in 0..20 {
        world.issue_made(admin, &format!("done{number:02}"), 100 + number, 10);
        world.complete(agent, &format!("done{number:02}"), 200 << 10);
    }
    for number in 0..25 {
        world.issue_made(admin, &format!("open{number:02}"), 200 + number, 200_000);
    }
    let of = GetCommandsRequest { target_id: "a1".into(), ..GetCommandsRequest::default() };
    let poll = world.call(agent, &of).expect("what fits");
    let ids: Vec<&str> = poll.commands.iter().map(|command| command.id.as_str()).collect();
    assert!(ids.len() > 15 && ids.iter().enumerate().all(|(at, id)| *id == format!("open{at:02}")), "{ids:?}");
    let due = world.call(agent, &pending("a1")).expect("what fits").commands;
    assert_eq!(due.iter().map(|command| command.id.as_str()).collect::<Vec<_>>(), ids);
    let (all, pages) = world.pages(agent, of);
    let wanted: Vec<String> =
        (0..25).map(|n| format!("open{n:02}")).chain((0..20).map(|n| format!("done{n:02}"))).collect();
    assert!(pages > 2 && all == wanted, "{all:?}");
}

#[test]
fn a_list_has_pages_the_oldest_first_and_each_command_once_whatever_changes_meanwhile() {
    let mut world = World::new();
    let (admin, agent) = (world.connect(ROOT), world.connect(SOMEBODY));
    for number in [3, 1, 4, 0, 2] {
        world.issue_made(admin, &format!("k{number}"), 100 + number, 1);
    }
    let paged = |size| GetCommandsRequest { page_size: size, ..GetCommandsRequest::default() };
    let all = ["k0", "k1", "k2", "k3", "k4"];
    assert_eq!(world.pages(admin, paged(2)), (all.map(String::from).to_vec(), 3));
    assert_eq!(world.pages(admin, paged(5)).1, 1);
    let first = world.call(admin, &paged(2)).expect("a page");
    world.complete(agent, "k0", 1);
    world.complete(agent, "k3", 1);
    let rest = GetCommandsRequest { page_token: first.next_page_token, ..paged(2) };
    assert_eq!(world.pages(admin, rest).0, ["k2", "k3", "k4"]);
    let status = |status: &[CommandStatus], target: &str| GetCommandsRequest {
        status: status.iter().map(|status| (*status).into()).collect(),
        target_id: target.into(),
        ..paged(1)
    };
    use CommandStatus::{Completed, Executing, Expired, Pending};
    assert_eq!(world.pages(admin, status(&[Completed], "")).0, ["k0", "k3"]);
    assert_eq!(world.pages(admin, status(&[Pending, Executing], "a1")).0, ["k1", "k2", "k4"]);
    assert_eq!(world.pages(admin, status(&[Pending, Completed], "a1")).0, all);
    assert_eq!(world.pages(admin, status(&[Expired], "")).0, [""; 0]);
    assert_eq!(world.pages(admin, status(&[Pending], "a2")).0, [""; 0]);
    let wrong = GetCommandsRequest { page_token: b"?".to_vec(), ..paged(1) };
    assert_eq!(code(world.call(admin, &wrong)), Code::InvalidArgument);
    let wrong = GetCommandsRequest { status: vec![77], ..paged(1) };
    assert_eq!(code(world.call(admin, &wrong)), Code::InvalidArgument);
}

#[test]
fn a_command_whose_results_fit_no_answer_is_listed_without_some_of_them() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    let targets: Vec<String> = (0..20).map(|number| format!("a{number:02}")).collect();
    targets.iter().for_each(|id| _ = world.attach(ROOT, id));
    let all = Command { target_id: String::new(), all: true, ..command("k") };
    world.call(admin, &put(all.clone())).expect("issued");
    for agent in &targets {
        let result_json = format!("\"{}\"", "r".repeat(250 << 10));
        let report = Command { target_id: agent.clone(), result_json, ..with(all.clone(), CommandStatus::Completed) };
        world.call(admin, &put(report)).expect("reported");
    }
    for request in [GetCommandsRequest::default(), GetCommandsRequest { id: "k".into(), ..Default::default() }] {
        let listed = world.call(admin, &request).expect("what fits").commands.pop().expect("there");
        let omitted = listed.targets.iter().filter(|target| target.result_omitted).count();
        assert!(listed.status() == CommandStatus::Completed && (4..8).contains(&omitted), "{omitted}");
        assert!(listed.targets.iter().all(|target| target.result_omitted == target.result_json.is_empty()));
    }
}

#[test]
fn what_a_node_distrusts_is_listed_and_not_pending() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    world.issue_made(admin, "k", 1, 1);
    let due = GetCommandsRequest { page_size: 10, ..pending("a1") };
    assert_eq!(world.pages(admin, due.clone()).0, ["k"]);
    // The engine's identity differs from the store's in this world, so the node does not trust the commands it issued.
    world.reload(|reloaded| {
        let strangers = [crate::identity::EndpointId([1; 32])].into();
        reloaded.commands.trust = crate::fleet::commands::Trust { node: Default::default(), issuers: strangers };
    });
    assert_eq!(world.pages(admin, due).0, [""; 0]);
    let of = GetCommandsRequest { target_id: "a1".into(), ..GetCommandsRequest::default() };
    assert_eq!(world.pages(admin, of).0, ["k"]);
}

#[test]
fn health_says_what_an_operator_is_to_look_at_before_commands_are_refused() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    for number in 0..768 {
        world.issue_made(admin, &format!("k{number}"), 1, 1);
    }
    let health = world.call(admin, &GetHealthRequest {}).expect("health");
    assert!(health.healthy && health.problems[0].contains("agent 'a1' has 768 commands"), "{:?}", health.problems);
}

impl World {
    /// Puts commands with this status, all before the store answers the first.
    fn put_at_once(&mut self, clients: &[ConnectionId], ids: &[String], status: CommandStatus) {
        self.store_runs = false;
        let clients = clients.iter().cycle().copied();
        let put = |(client, id): (ConnectionId, &String)| (client, self.start(client, &put(with(command(id), status))));
        let calls: Vec<(ConnectionId, u64)> = clients.zip(ids).map(put).collect();
        self.store_runs = true;
        self.run();
        for (client, call) in calls {
            self.answer::<PutCommandRequest>(client, call).expect("answered").expect("taken");
        }
    }
}

#[test]
fn commands_that_are_completed_keep_no_new_one_out_however_many() {
    /// Number of commands beyond the limit on stored ones.
    const MORE: usize = 512;
    /// Each client puts 32 of the commands of a round.
    const CLIENTS: usize = MORE / 32;
    let mut world = World::new();
    let clients: Vec<ConnectionId> = (0..CLIENTS).map(|_| world.connect(ROOT)).collect();
    let ids: Vec<String> = (0..COMMANDS + MORE).map(|number| format!("k{number:05}")).collect();
    for (round, ids) in ids.chunks(MORE).enumerate() {
        for status in [CommandStatus::Unspecified, CommandStatus::Completed] {
            world.put_at_once(&clients, ids, status);
        }
        let problems = world.call(clients[0], &GetHealthRequest {}).expect("health").problems;
        let warned = problems.iter().any(|problem| problem.contains("--command-retention"));
        assert_eq!(warned, (round + 1) * MORE >= COMMANDS_WARNING, "{round}: {problems:?}");
    }
    let pages = GetCommandsRequest { page_size: 1_000, ..GetCommandsRequest::default() };
    assert_eq!(world.pages(clients[0], pages).0, ids[MORE..], "the oldest gave way");
    assert_eq!(world.put_command(clients[0], command("one more")), FINE);
}

#[test]
fn the_same_order_a_second_later_is_the_same_command() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    let at = |created_at: i64| Command { created_at, expires_at: created_at + 60, ..command("k") };
    assert_eq!(world.put_command(admin, at(100)), FINE);
    assert_eq!(world.put_command(admin, at(101)), FINE);
    assert_eq!(world.put_command(admin, Command { expires_at: 200, ..at(100) }), Code::AlreadyExists);
    world.store_runs = false;
    let two = [at(200), at(201)].map(|command| world.start(admin, &put(Command { id: "j".into(), ..command })));
    world.store_runs = true;
    world.run();
    two.into_iter()
        .for_each(|call| _ = world.answer::<PutCommandRequest>(admin, call).expect("answered").expect("alike"));
}

#[test]
fn a_client_whose_clock_is_years_behind_sends_a_command_that_other_nodes_accept() {
    let mut world = World::new();
    let admin = world.connect(ROOT);
    world.now.wall_ms = 1_900_000_000_000;
    let behind = Command { created_at: 1_800_000_000, expires_at: 1_800_000_060, ..command("k") };
    world.call(admin, &put(behind.clone())).expect("issued");
    let held = world.get_command(admin, "k");
    assert_eq!((held.created_at, held.expires_at), (1_900_000_000, 1_900_000_060));
    world.call(admin, &put(behind)).expect("the same again");
}

//! The table by itself: records and agents in, pushes and writes out, under a clock that moves when told to.

use std::time::{Duration, Instant};

use peat_ipc::agent::CommandUpdate;
use peat_ipc::agent::command_update::Stage;

use super::*;
use crate::limits::{COMMAND_PENDING, COMMANDS};
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;

const OURS: EndpointId = EndpointId([1; 32]);
const OTHER: EndpointId = EndpointId([2; 32]);
const RETENTION: Duration = Duration::from_secs(3_600);

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn start() -> Now {
    Now { mono: Instant::now(), wall_ms: 0, boot_ms: 1_000_000 }
}

fn later(now: Now, ms: u64) -> Now {
    Now { mono: now.mono + Duration::from_millis(ms), boot_ms: now.boot_ms + ms, ..now }
}

fn table(trusted: &[EndpointId]) -> Commands {
    let trust = Trust { node: OURS, issuers: trusted.iter().copied().collect() };
    Commands::new(Settings { trust, retention: RETENTION, ..Settings::default() })
}

fn view(issuer: EndpointId, targets: &[(&str, Rank)], until: Option<u64>) -> CommandView {
    let body = CommandBody {
        id: "k".into(),
        issuer: issuer.0.to_vec().into(),
        addressed: Some(Addressed::All(true)),
        targets: targets.iter().map(|(agent, _)| (*agent).to_owned()).collect(),
        command_type: "replay".into(),
        payload: bytes::Bytes::from_static(b"{}"),
        ..CommandBody::default()
    };
    let ranks = targets.iter().map(|(_, rank)| *rank).collect();
    CommandView { body, signature: [0; 64], ranks, cancel_requested: false, until, ended: None }
}

fn pushes(commands: &mut Commands) -> Vec<(String, Push)> {
    std::iter::from_fn(|| commands.poll_push()).collect()
}

fn writes(commands: &mut Commands) -> Vec<CommandChange> {
    std::iter::from_fn(|| commands.poll_write()).map(|write| write.change).collect()
}

fn command(agent: &str) -> (String, Push) {
    (agent.into(), Push::Command { id: "k".into() })
}

fn update(id: &str, stage: Stage) -> CommandUpdate {
    CommandUpdate { command_id: id.into(), stage: stage.into(), ..CommandUpdate::default() }
}

#[test]
fn a_command_is_pushed_when_it_arrives_and_again_when_its_agent_comes_back() {
    let (now, mut commands) = (start(), table(&[]));
    commands.handle_attached(now, "a1");
    let view = view(OTHER, &[("a1", Rank::Pending), ("a2", Rank::Pending)], None);
    commands.handle_record(now, "k", Some(&view));
    assert_eq!(pushes(&mut commands), [command("a1")]);
    commands.handle_record(now, "k", Some(&view));
    assert_eq!(pushes(&mut commands), [], "once for each stream");
    commands.handle_attached(now, "a2");
    commands.handle_detached(now, "a1");
    commands.handle_attached(now, "a1");
    assert_eq!(pushes(&mut commands), [command("a2"), command("a1")]);
    assert_eq!(commands.poll_deadline(), None);
    assert_eq!(writes(&mut commands), []);
}

#[test]
fn who_listens_to_events_gets_what_comes_from_then_on() {
    let (now, mut commands) = (start(), table(&[]));
    let pending = view(OTHER, &[("a1", Rank::Pending)], Some(now.boot_ms + 60_000));
    commands.handle_record(now, "before", Some(&pending));
    commands.handle_listening(now, "a1");
    commands.handle_record(now, "before", Some(&pending));
    assert_eq!(pushes(&mut commands), []);
    commands.handle_record(now, "k", Some(&pending));
    assert_eq!(pushes(&mut commands), [command("a1")]);
    commands.handle_detached(now, "a1");
    commands.handle_listening(now, "a1");
    assert_eq!(pushes(&mut commands), [], "nothing is replayed");
    commands.handle_timeout(later(now, 60_000));
    assert_eq!(writes(&mut commands).len(), 2, "what it missed expires");
}

#[test]
fn only_what_a_trusted_issuer_signed_is_delivered() {
    let now = start();
    for (trusted, issuer, delivered) in [
        (vec![], OTHER, true),
        (vec![OTHER], OTHER, true),
        (vec![EndpointId([3; 32])], OTHER, false),
        (vec![OTHER], OURS, true),
    ] {
        let mut commands = table(&trusted);
        commands.handle_attached(now, "a1");
        commands.handle_record(now, "k", Some(&view(issuer, &[("a1", Rank::Pending)], None)));
        assert_eq!(pushes(&mut commands).len(), usize::from(delivered), "{issuer} of {trusted:?}");
        let accepted = commands.handle_update(now, "a1", &update("k", Stage::Accepted));
        assert_eq!(accepted.is_ok(), delivered, "{accepted:?}");
    }
}

#[test]
fn what_is_not_accepted_in_time_expires_where_it_was_issued_and_where_its_agent_is() {
    let now = start();
    let until = Some(now.boot_ms + 60_000);
    let view = |issuer| view(issuer, &[("a1", Rank::Pending), ("a2", Rank::Pending), ("a3", Rank::Executing)], until);
    let (mut issuer, mut beside, mut between) = (table(&[]), table(&[]), table(&[]));
    beside.handle_attached(now, "a2");
    issuer.handle_record(now, "k", Some(&view(OURS)));
    [&mut beside, &mut between].into_iter().for_each(|table| table.handle_record(now, "k", Some(&view(OTHER))));
    assert_eq!(between.poll_deadline(), None);
    for table in [&mut issuer, &mut beside, &mut between] {
        table.handle_timeout(later(now, 59_999));
        assert_eq!(writes(table), []);
        table.handle_timeout(later(now, 60_000));
    }
    let expire = |agents: &[&str]| [CommandChange::Expire { agents: agents.iter().map(ToString::to_string).collect() }];
    assert_eq!(writes(&mut issuer), expire(&["a1", "a2"]));
    assert_eq!(writes(&mut beside), expire(&["a2"]));
    assert_eq!(writes(&mut between), []);
    assert_eq!(issuer.poll_deadline(), Some(later(now, 60_000 + RETRY_MS).mono), "the disk may have been full");
    issuer.handle_timeout(later(now, 60_000 + RETRY_MS));
    assert_eq!(writes(&mut issuer), expire(&["a1", "a2"]));
    beside.handle_attached(later(now, 70_000), "a1");
    assert_eq!(pushes(&mut beside), [command("a2")], "from before; what has expired is not pushed");
    assert_eq!(writes(&mut beside), expire(&["a1", "a2"]), "and is said to have");
}

#[test]
fn a_deadline_is_met_though_the_machine_slept_through_it() {
    let (now, mut commands) = (start(), table(&[]));
    commands.handle_record(now, "k", Some(&view(OURS, &[("a1", Rank::Pending)], Some(now.boot_ms + 86_400_000))));
    let wake = commands.poll_deadline().expect("there is one");
    assert_eq!(wake, now.mono + Duration::from_secs(3_600), "at least every hour");
    let resumed = Now { mono: wake, boot_ms: now.boot_ms + 90_000_000, ..now };
    commands.handle_timeout(resumed);
    assert_eq!(writes(&mut commands).len(), 1);
}

#[test]
fn a_cancellation_is_confirmed_for_what_has_not_begun_and_pushed_to_what_has() {
    let (now, mut commands) = (start(), table(&[]));
    ["waits", "runs"].into_iter().for_each(|agent| commands.handle_attached(now, agent));
    let targets = [("waits", Rank::Pending), ("runs", Rank::Executing), ("elsewhere", Rank::Pending)];
    let cancelled = CommandView { cancel_requested: true, ..view(OTHER, &targets, None) };
    commands.handle_record(now, "k", Some(&cancelled));
    assert_eq!(pushes(&mut commands), [("runs".into(), Push::Cancel { id: "k".into() })]);
    assert_eq!(writes(&mut commands), [CommandChange::ConfirmCancel { agents: vec!["waits".into()] }]);
    commands.handle_record(now, "k", Some(&cancelled));
    assert_eq!(pushes(&mut commands), [], "once for each stream");
}

#[test]
fn a_command_is_forgotten_when_it_has_been_over_for_long_enough() {
    let (now, mut commands) = (start(), table(&[]));
    let ended = i64::try_from(now.boot_ms).ok();
    let over = CommandView { ended, ..view(OTHER, &[("a1", Rank::Completed)], None) };
    commands.handle_record(now, "k", Some(&over));
    commands.handle_timeout(later(now, 3_599_999));
    assert_eq!(writes(&mut commands), []);
    commands.handle_timeout(later(now, 3_600_000));
    assert_eq!(writes(&mut commands), [CommandChange::Remove]);
    commands.handle_record(now, "k", None);
    assert_eq!(commands.poll_deadline(), None);
    let long_ago = CommandView { ended: Some(-9_000_000), ..over };
    commands.handle_record(now, "k", Some(&long_ago));
    assert_eq!(writes(&mut commands), [CommandChange::Remove], "it ended before this boot");
}

#[test]
fn a_report_is_refused_by_name_or_handed_on_if_it_is_news() {
    let (now, mut commands) = (start(), table(&[]));
    commands.handle_record(now, "k", Some(&view(OTHER, &[("a1", Rank::Executing)], None)));
    let mut say = |agent: &str, update: CommandUpdate| commands.handle_update(now, agent, &update);
    assert_eq!(say("a1", update("never", Stage::Completed)), Err(CommandError::Unknown("never".into())));
    assert!(matches!(say("a2", update("k", Stage::Completed)), Err(CommandError::NotForAgent { .. })));
    assert!(matches!(say("a1", update("k", Stage::Unspecified)), Err(CommandError::Malformed(_))));
    let broken = CommandUpdate { result_json: "{".into(), ..update("k", Stage::Completed) };
    assert!(matches!(say("a1", broken), Err(CommandError::Malformed(_))));
    assert_eq!(say("a1", update("k", Stage::Accepted)), Ok(None), "said again");
    assert_eq!(say("a1", update("k", Stage::Progress)), Ok(None), "shown, never stored");
    let done = CommandUpdate { result_json: "7".into(), ..update("k", Stage::Completed) };
    let Ok(Some(CommandWrite { change: CommandChange::Report(report), key })) = say("a1", done) else {
        panic!("not handed on")
    };
    assert_eq!((key.id(), report.rank, report.result.as_str()), ("k", Rank::Completed, "7"));
}

#[test]
fn results_are_no_commands() {
    let (now, mut commands) = (start(), table(&[]));
    commands.handle_record(now, "k:a1", None);
    commands.handle_record(now, "k:a1", Some(&view(OTHER, &[("a1", Rank::Pending)], None)));
    commands.handle_attached(now, "a1");
    assert_eq!(pushes(&mut commands), []);
}

#[test]
fn the_table_is_bounded_and_says_when_there_is_room_again() {
    let (now, mut commands) = (start(), table(&[]));
    let view = view(OTHER, &[("a1", Rank::Pending)], None);
    let many = |count: usize| (0..count).map(|number| format!("k{number}"));
    for id in many(COMMAND_PENDING) {
        assert_eq!(commands.room(&["a1".into()]), Ok(()));
        commands.handle_record(now, &id, Some(&view));
    }
    assert!(commands.room(&["a1".into()]).expect_err("full").contains("has 1024 commands"));
    assert_eq!(commands.room(&["a2".into()]), Ok(()));
    for id in many(COMMANDS + 1) {
        commands.handle_record(now, &id, Some(&view));
    }
    assert!(commands.room(&["a2".into()]).expect_err("full").contains("16384 commands are kept"));
    assert!(!commands.poll_rescan());
    commands.handle_record(now, "k1", None);
    assert!(commands.poll_rescan() && !commands.poll_rescan());
}

#[test]
fn what_is_pushed_says_the_time_left_and_only_what_concerns_its_agent() {
    let now = start();
    let due = view(OTHER, &[("a1", Rank::Pending), ("a2", Rank::Executing)], Some(now.boot_ms + 500));
    let push = push_message(&due, "a1", now).expect("due");
    assert_eq!(push.time_left_ms, 500);
    let command = push.command.expect("there");
    assert!(command.all && command.payload_json == "{}" && command.issuer == OTHER.to_string());
    assert_eq!(command.targets.len(), 1);
    assert_eq!(push_message(&due, "a1", later(now, 500)), None, "too late");
    assert_eq!(push_message(&due, "a2", now), None, "accepted already");
    assert_eq!(push_message(&CommandView { cancel_requested: true, ..due }, "a1", now), None);
    let forever = view(OTHER, &[("a1", Rank::Pending)], None);
    assert_eq!(push_message(&forever, "a1", now).expect("due").time_left_ms, 0);
    let expired = shown(&view(OTHER, &[("a1", Rank::Pending)], Some(0)), now);
    assert_eq!(expired.status(), peat_ipc::sidecar::CommandStatus::Expired, "derived by whoever looks");
}

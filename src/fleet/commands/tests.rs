//! The engine of the commands alone in virtual time: records and agents in, pushes and writes out.

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
    let resumed = Now { mono: wake, boot_ms: now.boot_ms + 86_500_000, ..now };
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

fn id(number: usize) -> String {
    format!("k{number:05}")
}

/// Adds copies of one command. With `over` they ended a millisecond apart, the last of them before now.
fn fill(commands: &mut Commands, now: Now, numbers: std::ops::Range<usize>, view: &CommandView, over: bool) {
    for number in numbers {
        let ended = over.then(|| i64::try_from(now.boot_ms + number as u64).expect("early") - 100_000);
        commands.handle_record(now, &id(number), Some(&CommandView { ended, ..view.clone() }));
    }
}

fn removed(commands: &mut Commands) -> Vec<String> {
    let writes = std::iter::from_fn(|| commands.poll_write());
    let removals = writes.filter(|write| write.change == CommandChange::Remove);
    removals.map(|write| write.key.id().to_owned()).collect()
}

#[test]
fn an_agent_is_issued_no_more_than_it_can_have_open_and_health_says_so_before() {
    let (now, mut commands) = (start(), table(&[]));
    let open = view(OTHER, &[("a1", Rank::Pending)], Some(now.boot_ms + 60_000));
    fill(&mut commands, now, 0..COMMAND_PENDING / 4 * 3 - 1, &open, false);
    assert_eq!(commands.problems(now), [""; 0]);
    fill(&mut commands, now, 0..COMMAND_PENDING, &open, false);
    let problem = commands.problems(now).pop().expect("one");
    assert!(problem.contains("agent 'a1' has 1024 commands") && problem.contains("at 1024"), "{problem}");
    let error = commands.room(now, &["a1".into()]).expect_err("full");
    assert!(error.contains("'a1' has 1024 commands"), "{error}");
    assert_eq!(commands.room(now, &["a2".into()]), Ok(()));
    let missed = later(now, 60_000);
    assert_eq!(commands.room(missed, &["a1".into()]), Ok(()), "what it has missed is not open");
    assert_eq!(commands.problems(missed), [""; 0]);
}

#[test]
fn commands_that_are_over_make_room_the_oldest_first_and_health_says_so_before() {
    let (now, mut commands) = (start(), table(&[]));
    let over = view(OTHER, &[("a1", Rank::Completed)], None);
    fill(&mut commands, now, 0..limits::COMMANDS_WARNING - 1, &over, true);
    assert_eq!(commands.problems(now), [""; 0]);
    fill(&mut commands, now, 0..limits::COMMANDS_WARNING, &over, true);
    let problem = commands.problems(now).remove(0);
    assert!(
        problem.contains("12288 commands are kept; at 16384") && problem.contains("--command-retention"),
        "{problem}"
    );
    fill(&mut commands, now, 0..COMMANDS, &over, true);
    assert_eq!((commands.room(now, &["a1".into()]), removed(&mut commands)), (Ok(()), vec![]));
    fill(&mut commands, now, COMMANDS..COMMANDS + 2, &view(OURS, &[("a1", Rank::Pending)], None), false);
    assert_eq!(removed(&mut commands), [id(0), id(1)]);
    commands.handle_timeout(later(now, RETRY_MS));
    assert_eq!(removed(&mut commands), [id(0), id(1)], "the disk may have been full");
    [0, 1].into_iter().for_each(|number| commands.handle_record(now, &id(number), None));
    commands.handle_timeout(later(now, 3 * RETRY_MS));
    assert_eq!(removed(&mut commands), [""; 0]);
}

#[test]
fn a_command_that_everyone_has_missed_is_over_though_its_issuer_never_says_so() {
    let (now, mut commands) = (start(), table(&[]));
    let missed = view(OTHER, &[("a1", Rank::Pending), ("a2", Rank::Failed)], Some(now.boot_ms + 60_000));
    commands.handle_record(now, "k", Some(&missed));
    commands.handle_timeout(later(now, 60_000));
    assert_eq!((writes(&mut commands), commands.table.counts()), (vec![], (0, 1)));
    commands.handle_timeout(later(now, 60_000 + 3_600_000));
    assert_eq!(writes(&mut commands), [CommandChange::Remove]);
    let runs = view(OTHER, &[("a1", Rank::Pending), ("a2", Rank::Executing)], Some(now.boot_ms));
    commands.handle_record(now, "runs", Some(&runs));
    assert_eq!(commands.table.counts(), (1, 2), "somebody still has to report");
}

#[test]
fn one_issuer_that_fills_the_table_gives_way_to_others_and_this_node_goes_first() {
    let (now, mut commands) = (start(), table(&[]));
    let flood = view(OTHER, &[("nobody", Rank::Pending)], None);
    fill(&mut commands, now, 0..COMMANDS + 100, &flood, false);
    assert!(commands.problems(now).remove(0).contains("further ones wait"));
    assert_eq!(commands.room(now, &["a1".into()]), Ok(()));
    let attached = ["a1", "a2"];
    attached.into_iter().for_each(|agent| commands.handle_attached(now, agent));
    commands.handle_record(now, "ours", Some(&view(OURS, &[("a1", Rank::Pending)], None)));
    commands.handle_record(now, "others", Some(&view(EndpointId([3; 32]), &[("a2", Rank::Pending)], None)));
    let push = |agent: &str, id: &str| (agent.to_owned(), Push::Command { id: id.into() });
    assert_eq!(pushes(&mut commands), [push("a1", "ours"), push("a2", "others")]);
    assert!(!commands.poll_rescan(now), "there is no room for what waits");
    (0..10).for_each(|number| commands.handle_record(now, &id(number), None));
    assert!(!commands.poll_rescan(now), "and not enough to read everything again at once");
    let minute = later(now, 60_000);
    assert!(commands.poll_deadline().is_some_and(|at| at <= minute.mono));
    assert!(commands.poll_rescan(minute) && !commands.poll_rescan(minute));
}

#[test]
fn a_node_that_fills_its_own_table_is_told_the_remedy() {
    let (now, mut commands) = (start(), table(&[]));
    let (one, other) = (OURS, &[("a1", Rank::Pending)]);
    fill(&mut commands, now, 0..COMMANDS, &view(one, other, None), false);
    let error = commands.room(now, &["a2".into()]).expect_err("full");
    assert!(error.contains("16384 commands") && error.contains("cancel or delete"), "{error}");
    let problem = commands.problems(now).remove(0);
    assert!(problem.contains("16384 commands are not over; at 16384 no more is issued"), "{problem}");
}

#[test]
fn targets_are_counted_as_well_as_commands() {
    let (now, mut commands) = (start(), table(&[]));
    let agents: Vec<String> = (0..limits::COMMAND_TARGETS).map(|number| format!("a{number}")).collect();
    let targets: Vec<(&str, Rank)> = agents.iter().map(|agent| (agent.as_str(), Rank::Pending)).collect();
    fill(&mut commands, now, 0..129, &view(OURS, &targets, None), false);
    assert_eq!(commands.table.counts(), (128, 128));
    assert!(commands.room(now, &agents).is_err());
}

#[test]
fn commands_of_untrusted_issuers_stay_out_of_the_table_and_have_a_share_each() {
    let trusted = EndpointId([3; 32]);
    let (now, mut commands) = (start(), table(&[trusted]));
    commands.handle_attached(now, "a1");
    let share = limits::COMMAND_UNTRUSTED_SHARE;
    fill(&mut commands, now, 0..share, &view(OTHER, &[("a1", Rank::Pending)], None), false);
    assert_eq!((pushes(&mut commands), commands.table.counts()), (vec![], (0, 0)));
    assert_eq!(commands.room(now, &["a1".into()]), Ok(()));
    fill(&mut commands, now, share..share + 2, &view(OTHER, &[("a1", Rank::Pending)], None), false);
    assert!(removed(&mut commands).is_empty(), "other nodes may trust the issuer");
    let over = CommandView { ended: Some(5), ..view(OTHER, &[("a1", Rank::Failed)], None) };
    commands.handle_record(now, &id(7), Some(&over));
    commands.handle_record(now, "new", Some(&view(OTHER, &[("a1", Rank::Pending)], None)));
    assert_eq!(removed(&mut commands), [id(7)], "what is over makes room");
    (0..share / 2).for_each(|number| commands.handle_record(now, &id(number), None));
    assert!(commands.poll_rescan(now), "those that found no place are looked for again");
    assert!(!commands.poll_rescan(now));
    commands.handle_record(now, "good", Some(&view(trusted, &[("a1", Rank::Pending)], None)));
    assert_eq!(pushes(&mut commands), [("a1".into(), Push::Command { id: "good".into() })]);
}

#[test]
fn many_untrusted_issuers_together_are_bounded() {
    let (now, mut commands) = (start(), table(&[EndpointId([3; 32])]));
    for number in 0..limits::COMMAND_UNTRUSTED + 1 {
        let issuer = EndpointId(std::array::from_fn(|at| number.to_le_bytes().get(at).copied().unwrap_or(9)));
        commands.handle_record(now, &id(number), Some(&view(issuer, &[("a1", Rank::Pending)], None)));
    }
    assert_eq!(commands.untrusted.len(), limits::COMMAND_UNTRUSTED);
    assert!(removed(&mut commands).is_empty());
}

#[test]
fn what_an_untrusted_issuer_has_sent_is_forgotten_like_any_other_and_delivered_once_it_is_trusted() {
    let (now, mut commands) = (start(), table(&[EndpointId([3; 32])]));
    commands.handle_attached(now, "a1");
    let pending = view(OTHER, &[("a1", Rank::Pending)], Some(now.boot_ms + 60_000));
    commands.handle_record(now, "k", Some(&pending));
    let settings =
        Settings { trust: Trust { node: OURS, issuers: [OTHER].into() }, retention: RETENTION, ..Settings::default() };
    assert!(commands.set_settings(settings));
    commands.handle_record(now, "k", Some(&pending));
    assert_eq!(pushes(&mut commands), [command("a1")]);
    let settings =
        Settings { trust: Trust { node: OURS, issuers: [OURS].into() }, retention: RETENTION, ..Settings::default() };
    assert!(commands.set_settings(settings));
    commands.handle_record(now, "k", Some(&pending));
    commands.handle_timeout(later(now, 60_000 + 3_600_000));
    assert_eq!(writes(&mut commands), [CommandChange::Remove]);
}

#[test]
fn the_order_of_all_commands_is_known_whatever_becomes_of_them() {
    let (now, mut commands) = (start(), table(&[EndpointId([3; 32])]));
    let made = |at: i64| {
        let view = view(OTHER, &[("a1", Rank::Pending)], None);
        CommandView { body: CommandBody { created_at: at, ..view.body }, ..view }
    };
    [("c", 1), ("a", 2), ("b", 1)].into_iter().for_each(|(id, at)| commands.handle_record(now, id, Some(&made(at))));
    let all = |commands: &Commands, after: Option<&Place>| -> Vec<String> {
        commands.listed(after).expect("few").map(|(_, id)| id.to_string()).collect()
    };
    assert_eq!(all(&commands, None), ["b", "c", "a"]);
    assert_eq!(all(&commands, Some(&(1, "bb".into()))), ["c", "a"]);
    commands.handle_record(now, "c", None);
    assert_eq!(all(&commands, None), ["b", "a"]);
    fill(&mut commands, now, 0..limits::COMMANDS_LISTED, &made(7), false);
    assert!(commands.listed(None).is_none(), "too many");
    commands.handle_restart();
    commands.handle_record(now, "b", Some(&made(1)));
    assert_eq!(all(&commands, None), ["b"]);
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

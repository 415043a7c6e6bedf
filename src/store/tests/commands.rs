//! Commands: issued once, with statuses that only advance, joined in the same way on every node.

use super::*;
use crate::clock::BootId;
use crate::identity::Identity;
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;
use crate::store::{CommandChange, CommandError, CommandView, CommandWrite, Progress, Rank, Report, RunId, Signed};

const ISSUER: [u8; 32] = [40; 32];
const PEER: PeerRun = PeerRun { node: crate::identity::EndpointId([9; 32]), run: RunId([9; 16]) };

fn body(id: &str, targets: &[&str], ttl_ms: u64) -> CommandBody {
    CommandBody {
        id: id.into(),
        issuer: Identity::from_seed(ISSUER).id().0.to_vec().into(),
        addressed: Some(Addressed::Group("g".into())),
        targets: targets.iter().map(ToString::to_string).collect(),
        command_type: "replay".into(),
        payload: bytes::Bytes::from_static(br#"{"n":1}"#),
        created_at: 5,
        expires_at: if ttl_ms == 0 { 0 } else { 65 },
        ttl_ms,
    }
}

fn sign(body: &CommandBody) -> Signed {
    Signed::sign(&Identity::from_seed(ISSUER), body)
}

fn change(id: &str, change: CommandChange) -> StoreRequest {
    StoreRequest::Write(CommandWrite::new(id, change).unwrap().into())
}

fn says(agent: &str, rank: Rank) -> Report {
    Report { agent: agent.into(), rank, begun: rank != Rank::Executing, result: String::new(), error: String::new() }
}

impl Bench {
    fn issue(&mut self, id: &str, targets: &[&str], ttl_ms: u64) {
        self.change(id, CommandChange::Issue(sign(&body(id, targets, ttl_ms)))).unwrap();
    }

    fn change(&mut self, id: &str, what: CommandChange) -> Result<Written, CommandError> {
        match written(self.request(change(id, what))) {
            Ok(written) => Ok(written),
            Err(Error::Command(cause)) => Err(cause),
            Err(other) => panic!("{other}"),
        }
    }

    fn report(&mut self, id: &str, agent: &str, rank: Rank) -> Result<Written, CommandError> {
        self.change(id, CommandChange::Report(says(agent, rank)))
    }

    fn command(&self, id: &str) -> CommandView {
        self.snapshot().command(id).unwrap().unwrap()
    }

    fn ranks(&self, id: &str) -> Vec<Rank> {
        self.command(id).ranks
    }

    /// Restarts the process, in boot `boot` and at boot time `boot_ms`.
    fn restart(self, boot: u8, boot_ms: u64) -> Bench {
        let Bench { number, disk, store, now, starts } = self;
        drop(store);
        let disk = disk.crash();
        let config = StoreConfig { boot: BootId([boot; 16]), ..StoreConfig::new(node(number)) };
        let now = Now { boot_ms, ..now };
        let mut random = Counter(number * 20 + starts * 2 + 2);
        let store = Store::open(disk.clone(), config, &mut random, now).unwrap();
        Bench { number, disk, store, now, starts: starts + 1 }
    }
}

#[test]
fn a_command_is_shown_with_the_status_of_each_target() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1", "a2"], 60_000);
    bench.report("k", "a2", Rank::Executing).unwrap();
    let shown: serde_json::Value = serde_json::from_str(&bench.json("commands/k").unwrap()).unwrap();
    let statuses = serde_json::json!([
        {"agent_id": "a1", "status": "COMMAND_STATUS_PENDING"},
        {"agent_id": "a2", "status": "COMMAND_STATUS_EXECUTING"},
    ]);
    assert_eq!(shown["targets"], statuses);
    assert_eq!(shown["status"], "COMMAND_STATUS_EXECUTING");
    assert_eq!((&shown["group"], &shown["payload_json"]), (&"g".into(), &r#"{"n":1}"#.into()));
    assert_eq!(shown["issuer"], Identity::from_seed(ISSUER).id().to_string());
    let held = bench.crash();
    assert_eq!(held.ranks("k"), [Rank::Pending, Rank::Executing], "durable before the answer");
    assert_eq!(held.entry("commands/k").version, held.version_hash("commands/k"));
    assert_eq!(held.document("commands/k").unwrap().incarnation, 1);
}

#[test]
fn an_id_is_issued_once_whatever_becomes_of_the_command() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1"], 0);
    let again = bench.change("k", CommandChange::Issue(sign(&body("k", &["a1"], 0)))).unwrap();
    assert_eq!(again.sequence, 1, "the same again changes nothing");
    let other = CommandBody { command_type: "stop".into(), ..body("k", &["a1"], 0) };
    let other = || CommandChange::Issue(sign(&other));
    assert!(matches!(bench.change("k", other()), Err(CommandError::Exists(_))));
    bench.change("k", CommandChange::Remove).unwrap();
    assert_eq!(bench.json("commands/k"), None);
    assert!(matches!(bench.change("k", other()), Err(CommandError::Exists(_))));
    bench.change("k", CommandChange::Remove).unwrap();
}

#[test]
fn of_two_that_race_for_an_id_one_is_told() {
    let mut bench = Bench::new();
    let issue = |kind: &str| {
        change("k", CommandChange::Issue(sign(&CommandBody { command_type: kind.into(), ..body("k", &["a1"], 0) })))
    };
    let answers = bench.batch([issue("one"), issue("two"), issue("one")]);
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(answers[1], Err(Error::Command(CommandError::Exists(_)))), "{answers:?}");
}

#[test]
fn documents_in_commands_are_commands() {
    let mut bench = Bench::new();
    for put in [whole("{}"), Put::Patch { json: "{}".into(), base: None }, Put::Fields(serde_json::Map::new())] {
        let refused = bench.write("commands/k", put).unwrap_err();
        assert!(matches!(refused, Error::Command(CommandError::Malformed(_))), "{refused}");
    }
    bench.issue("k", &["a1"], 0);
    bench.delete("commands/k");
    assert_eq!(bench.json("commands/k"), None);
}

#[test]
fn a_status_climbs_once_and_a_result_is_kept_beside_it() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1", "a2"], 0);
    let accepted = bench.report("k", "a1", Rank::Executing).unwrap();
    assert_eq!(bench.report("k", "a1", Rank::Executing).unwrap().sequence, accepted.sequence, "a repetition");
    let done = Report { result: r#"{"ok":true}"#.into(), ..says("a1", Rank::Completed) };
    let done = || CommandChange::Report(done.clone());
    bench.change("k", done()).unwrap();
    let (tip, result) = (bench.store.tip(), bench.json("commands/k:a1").unwrap());
    assert!(result.contains(r#""result_json":"{\"ok\":true}""#) && result.contains(r#""agent_id":"a1""#), "{result}");
    bench.change("k", done()).unwrap();
    assert_eq!(bench.store.tip(), tip, "a result given twice is one result");
    assert_eq!(bench.ranks("k"), [Rank::Completed, Rank::Pending]);
    assert!(matches!(bench.report("k", "a1", Rank::Executing), Err(CommandError::Ended(_))), "not begun again");
    bench.report("k", "a1", Rank::Failed).unwrap();
    assert_eq!(bench.ranks("k"), [Rank::Completed, Rank::Pending], "an old report is no error, and no news");
    assert_eq!(bench.snapshot().command_result("k", "a1").unwrap().unwrap().rank, Rank::Completed);
    assert_eq!(bench.snapshot().command_result("k", "a2").unwrap(), None);
}

#[test]
fn what_cannot_be_reported_is_refused_by_name() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1"], 0);
    assert!(matches!(bench.report("never", "a1", Rank::Completed), Err(CommandError::Unknown(_))));
    assert!(matches!(bench.report("k", "a2", Rank::Completed), Err(CommandError::NotForAgent { .. })));
    assert!(matches!(bench.report("k", "a1", Rank::Expired), Err(CommandError::Malformed(_))));
    let with = |result: &str, error: &str| {
        let (result, error) = (result.to_owned(), error.to_owned());
        CommandChange::Report(Report { result, error, ..says("a1", Rank::Completed) })
    };
    assert!(matches!(bench.change("k", with("{", "")), Err(CommandError::Malformed(_))));
    let large = format!("\"{}\"", "x".repeat(crate::limits::COMMAND_RESULT_BYTES));
    assert!(matches!(bench.change("k", with(&large, "")), Err(CommandError::TooLarge("result", _))));
    let words = "x".repeat(crate::limits::COMMAND_ERROR_BYTES + 1);
    assert!(matches!(bench.change("k", with("", &words)), Err(CommandError::TooLarge("error", _))));
    assert_eq!(bench.ranks("k"), [Rank::Pending]);
}

#[test]
fn what_comes_too_late_is_not_begun_but_what_had_begun_is_told() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1", "a2", "a3"], 60_000);
    bench.report("k", "a3", Rank::Executing).unwrap();
    bench.pass(Duration::from_millis(59_999));
    assert_eq!(bench.command("k").left_ms(bench.now), Some(1));
    bench.pass(Duration::from_millis(1));
    assert!(matches!(bench.report("k", "a1", Rank::Executing), Err(CommandError::Expired(_))));
    assert_eq!(bench.ranks("k"), [Rank::Expired, Rank::Pending, Rank::Executing], "it is known now");
    assert!(matches!(bench.report("k", "a1", Rank::Executing), Err(CommandError::Expired(_))));
    bench.change("k", CommandChange::Report(Report { begun: true, ..says("a2", Rank::Executing) })).unwrap();
    bench.report("k", "a1", Rank::Completed).unwrap();
    bench.report("k", "a3", Rank::Failed).unwrap();
    assert_eq!(bench.ranks("k"), [Rank::Completed, Rank::Executing, Rank::Failed]);
}

#[test]
fn a_cancelled_command_is_not_begun_and_one_that_runs_is_asked_to_end() {
    let mut bench = Bench::new();
    bench.issue("k", &["here", "elsewhere", "runs", "polls"], 0);
    bench.report("k", "runs", Rank::Executing).unwrap();
    bench.change("k", CommandChange::RequestCancel { attached: vec!["here".into(), "runs".into()] }).unwrap();
    assert_eq!(bench.ranks("k"), [Rank::Cancelled, Rank::Pending, Rank::Executing, Rank::Pending]);
    assert!(bench.command("k").cancel_requested);
    assert!(matches!(bench.report("k", "here", Rank::Executing), Err(CommandError::Cancelled(_))));
    assert!(matches!(bench.report("k", "polls", Rank::Executing), Err(CommandError::Cancelled(_))));
    bench.change("k", CommandChange::ConfirmCancel { agents: vec!["elsewhere".into(), "runs".into()] }).unwrap();
    assert_eq!(bench.ranks("k"), [Rank::Cancelled, Rank::Cancelled, Rank::Executing, Rank::Cancelled]);
    bench.report("k", "runs", Rank::Cancelled).unwrap();
    assert!(bench.command("k").ended.is_some());
}

#[test]
fn a_restart_of_the_process_keeps_the_time_left_and_one_of_the_machine_leaves_none() {
    let mut bench = Bench::new();
    bench.issue("k", &["a1"], 60_000);
    bench.issue("forever", &["a1"], 0);
    let bench = bench.restart(0, 20_000);
    assert_eq!(bench.command("k").left_ms(bench.now), Some(40_000));
    let mut bench = bench.restart(7, 1_000);
    assert_eq!(bench.command("k").left_ms(bench.now), Some(0));
    assert_eq!(bench.command("forever").left_ms(bench.now), None);
    assert!(matches!(bench.report("k", "a1", Rank::Executing), Err(CommandError::Expired(_))));
    bench.report("forever", "a1", Rank::Executing).unwrap();
}

#[test]
fn how_long_ago_a_command_ended_survives_restarts_and_counts_no_time_without_power() {
    let mut bench = Bench::new();
    bench.pass(Duration::from_millis(5_000));
    bench.issue("k", &["a1"], 0);
    assert_eq!(bench.command("k").ended, None);
    bench.report("k", "a1", Rank::Failed).unwrap();
    assert_eq!(bench.command("k").ended, Some(5_000));
    let mut bench = bench.restart(0, 3_600_000);
    assert_eq!(bench.command("k").ended, Some(5_000), "the machine was on all the time");
    written(bench.request(write("cells/x", whole("{}")))).unwrap();
    let mut bench = bench.restart(7, 1_000);
    assert_eq!(bench.command("k").ended, Some(1_000 - 3_595_000), "3,595 s ago at the last note, and none since");
    bench.pass(Duration::from_secs(599));
    bench.request(StoreRequest::Flush).unwrap();
    bench.pass(Duration::from_secs(1));
    bench.request(StoreRequest::Flush).unwrap();
    let bench = bench.restart(8, 0);
    assert_eq!(bench.command("k").ended, Some(-4_195_000), "noted every ten minutes");
}

#[test]
fn a_removed_command_takes_its_results_with_it_and_none_comes_back() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1", "a2"], 0);
    let done = |agent: &str| CommandChange::Report(Report { error: "no".into(), ..says(agent, Rank::Failed) });
    a.change("k", done("a1")).unwrap();
    b.take(&a, "commands/k");
    b.take(&a, "commands/k:a1");
    b.change("k", done("a2")).unwrap();
    let late = [b.outgoing("commands/k"), b.outgoing("commands/k:a2")];
    a.change("k", CommandChange::Remove).unwrap();
    assert_eq!((a.json("commands/k"), a.json("commands/k:a1")), (None, None));
    a.take_in(b.peer_run(), late.into());
    assert_eq!((a.json("commands/k"), a.json("commands/k:a2")), (None, None), "a late result of a removed command");
    b.take(&a, "commands/k");
    for name in ["commands/k", "commands/k:a1", "commands/k:a2"] {
        assert_eq!(b.json(name), None, "{name}");
    }
    assert_eq!(a.version_hash("commands/k:a2"), b.version_hash("commands/k:a2"));
    assert_eq!(a.snapshot().counts().live, 0);
}

fn received(bench: &mut Bench, incoming: Incoming) -> Vec<String> {
    bench.take_in(PEER, vec![incoming]).refused.into_iter().map(|(_, why)| why).collect()
}

/// Returns a command as a peer sends it.
fn sent(body: &CommandBody, ranks: &[u8], until: Option<u64>) -> Incoming {
    let name = key(&format!("commands/{}", body.id));
    let (signed, ranks) = (sign(body), ranks.to_vec());
    Incoming {
        hash: name.hash(),
        name: Some(name),
        kind: Kind::Command,
        incarnation: 1,
        origin: PEER.node,
        lineage: Lineage::default(),
        body: Body::Command(IncomingCommand { signed, ranks, cancel_requested: false, until }),
    }
}

#[test]
fn a_command_that_is_forged_or_malformed_is_refused_by_name() {
    let mut bench = Bench::new();
    let good = body("k", &["a1"], 0);
    let with = |change: &dyn Fn(&mut IncomingCommand)| {
        let mut incoming = sent(&good, &[1], None);
        if let Body::Command(command) = &mut incoming.body {
            change(command);
        }
        incoming
    };
    let named = |name: &str, incoming: Incoming| Incoming { hash: key(name).hash(), name: Some(key(name)), ..incoming };
    let result = |name: &str, rank: u8, result: &[u8]| {
        named(
            name,
            Incoming { body: Body::Result { rank, result: result.to_vec(), error: String::new() }, ..with(&|_| ()) },
        )
    };
    let wrong = [
        (with(&|command| command.signed.signature = [0; 64]), "is not its issuer's"),
        (with(&|command| command.signed.signature[3] ^= 1), "is not its issuer's"),
        (with(&|command| command.signed.body = vec![]), "says that it is ''"),
        (with(&|command| command.ranks = vec![9]), "a status this node does not know"),
        (with(&|command| command.ranks = vec![1, 1]), "2 statuses for 1 targets"),
        (named("commands/other", with(&|_| ())), "says that it is 'k'"),
        (named("cells/k", with(&|_| ())), "nothing else, holds commands"),
        (Incoming { kind: Kind::Merged, ..with(&|_| ()) }, "nothing else, holds commands"),
        (Incoming { incarnation: 2, ..with(&|_| ()) }, "a command of incarnation 2"),
        (result("commands/k", 6, b"{}"), "names no command and agent"),
        (result("commands/k:a1", 2, b"{}"), "a status that is no end"),
        (result("commands/k:a1", 3, b"{}"), "not words and percent"),
        (result("commands/k:a1", 6, b"{"), "a result that is not JSON"),
        (result("commands/k:a1", 6, &vec![b'1'; crate::limits::COMMAND_RESULT_BYTES + 1]), "the limit is 262144"),
    ];
    for (incoming, why) in wrong {
        let refused = received(&mut bench, incoming);
        assert!(refused.len() == 1 && refused[0].contains(why), "{refused:?} should say: {why}");
    }
    assert_eq!(bench.snapshot().counts().live, 0);
    assert_eq!(received(&mut bench, with(&|_| ())), [""; 0]);
    let refused = received(&mut bench, with(&|command| command.signed.signature[3] ^= 1));
    assert_eq!(refused.len(), 1, "over one that is held too");
}

#[test]
fn of_two_bodies_under_one_id_the_same_one_wins_everywhere() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1"], 0);
    let other = CommandBody { command_type: "stop".into(), ..body("k", &["a1", "a2"], 0) };
    b.change("k", CommandChange::Issue(sign(&other))).unwrap();
    b.report("k", "a1", Rank::Completed).unwrap();
    let from_a = a.outgoing("commands/k");
    a.take(&b, "commands/k");
    b.take_in(a.peer_run(), vec![from_a]);
    assert_eq!(a.version_hash("commands/k"), b.version_hash("commands/k"));
    assert_eq!(a.json("commands/k"), b.json("commands/k"));
}

#[test]
fn the_least_time_left_wins_and_is_no_part_of_the_version() {
    let mut bench = Bench::new();
    let timed = body("k", &["a1"], 60_000);
    received(&mut bench, sent(&timed, &[1], Some(90_000)));
    assert_eq!(bench.command("k").until, Some(60_000), "never more than its issuer gave it");
    let version = bench.version_hash("commands/k");
    received(&mut bench, sent(&timed, &[1], Some(59_500)));
    assert_eq!(bench.command("k").until, Some(60_000), "what is lost on the way is no news");
    received(&mut bench, sent(&timed, &[1], Some(30_000)));
    assert_eq!(bench.command("k").until, Some(30_000));
    received(&mut bench, sent(&timed, &[1], Some(50_000)));
    received(&mut bench, sent(&timed, &[1], None));
    assert_eq!(bench.command("k").until, Some(30_000), "who does not know says nothing");
    assert_eq!(bench.version_hash("commands/k"), version);
    let mut other = Bench::new();
    received(&mut other, sent(&timed, &[1], None));
    assert_eq!(other.command("k").until, Some(0), "and to whom knows nothing either, there is none left");
    received(&mut other, sent(&timed, &[1], Some(50_000)));
    assert_eq!(other.command("k").until, Some(0));
    assert_eq!(other.version_hash("commands/k"), version);
}

#[test]
fn what_a_peer_delivered_is_not_sent_back_and_what_was_joined_is() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1", "a2"], 0);
    b.take(&a, "commands/k");
    let source = b.snapshot().source(a.peer_run()).unwrap().unwrap();
    assert_eq!(b.entry("commands/k").from, source);
    a.report("k", "a1", Rank::Executing).unwrap();
    b.report("k", "a2", Rank::Executing).unwrap();
    b.take(&a, "commands/k");
    assert_eq!(b.entry("commands/k").from, 0);
    let tip = b.store.tip();
    b.take(&a, "commands/k");
    assert_eq!(b.store.tip(), tip, "nothing new");
}

#[test]
fn what_a_peer_sends_of_a_command_is_on_disk_before_anybody_is_told() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1"], 0);
    let failed = Report { error: "no".into(), ..says("a1", Rank::Failed) };
    b.take(&a, "commands/k");
    assert_eq!(b.store.tip().durable, b.store.tip().visible);
    a.change("k", CommandChange::Report(failed)).unwrap();
    for name in ["commands/k", "commands/k:a1"] {
        b.take(&a, name);
        assert_eq!(b.store.tip().durable, b.store.tip().visible, "{name}");
    }
    assert_eq!(b.crash().ranks("k"), [Rank::Failed]);
}

/// A deterministic, seeded test: three copies, changed and exchanged in any order, with losses and repetitions.
#[test]
fn statuses_never_go_back_whatever_the_order_of_merges_and_all_copies_agree_in_the_end() {
    for seed in 1..=40 {
        let mut state: u64 = seed;
        let mut below = move |bound: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).unwrap() % bound
        };
        let agents = ["a1", "a2", "a3"];
        let mut nodes: Vec<Bench> = (1..=3).map(Bench::of).collect();
        nodes[0].issue("k", &agents, 0);
        let first = nodes[0].outgoing("commands/k");
        let mut flying = vec![first];
        nodes[1].take_in(PEER, vec![sent(&body("k", &agents, 0), &[1, 1, 1], None)]);
        nodes[2].take_in(PEER, vec![sent(&body("k", &agents, 0), &[1, 1, 1], None)]);
        for _ in 0..60 {
            let at = below(3);
            let before: Vec<Vec<Rank>> = nodes.iter().map(|node| node.ranks("k")).collect();
            match below(4) {
                0 => {
                    let rank = [Rank::Executing, Rank::Cancelled, Rank::Failed, Rank::Completed][below(4)];
                    drop(nodes[at].report("k", agents[below(3)], rank));
                }
                1 => {
                    let agents = vec![agents[below(3)].to_owned()];
                    let change = match below(2) {
                        0 => CommandChange::Expire { agents },
                        _ => CommandChange::RequestCancel { attached: agents },
                    };
                    nodes[at].change("k", change).unwrap();
                }
                2 => flying.push(nodes[at].outgoing("commands/k")),
                _ => {
                    let message = below(flying.len());
                    let Body::Command(command) = &flying[message].body else { panic!() };
                    let again =
                        IncomingCommand { signed: command.signed.clone(), ranks: command.ranks.clone(), ..*command };
                    let incoming = sent(&body("k", &agents, 0), &[], None);
                    nodes[at].take_in(PEER, vec![Incoming { body: Body::Command(again), ..incoming }]);
                }
            }
            for (node, before) in nodes.iter().zip(before) {
                let after = node.ranks("k");
                assert!(before.iter().zip(&after).all(|(before, after)| before <= after), "{before:?} {after:?}");
            }
        }
        for _ in 0..2 {
            let copies: Vec<Incoming> = nodes.iter().map(|node| node.outgoing("commands/k")).collect();
            for copy in copies {
                let Body::Command(command) = copy.body else { panic!() };
                for node in &mut nodes {
                    let signed = command.signed.clone();
                    let again = IncomingCommand { signed, ranks: command.ranks.clone(), ..command };
                    let incoming = sent(&body("k", &agents, 0), &[], None);
                    node.take_in(PEER, vec![Incoming { body: Body::Command(again), ..incoming }]);
                }
            }
        }
        let versions: Vec<VersionHash> = nodes.iter().map(|node| node.version_hash("commands/k")).collect();
        assert!(versions.windows(2).all(|pair| pair[0] == pair[1]), "seed {seed}");
    }
}

fn progress(agent: &str, words: &str, percent: u32) -> CommandChange {
    CommandChange::Progress(Progress { agent: agent.into(), words: words.into(), percent })
}

#[test]
fn progress_is_kept_while_the_work_runs_newest_first_and_ends_with_it() {
    let mut bench = Bench::new();
    let shown =
        |bench: &Bench| bench.snapshot().command_result("k", "a1").unwrap().and_then(|result| result.progress());
    bench.issue("k", &["a1"], 0);
    bench.change("k", progress("a1", "too early", 0)).unwrap();
    assert_eq!(shown(&bench), None);
    bench.report("k", "a1", Rank::Executing).unwrap();
    bench.change("k", progress("a1", "half", 50)).unwrap();
    bench.change("k", progress("a1", "back", 10)).unwrap();
    bench.change("k", progress("nobody", "x", 10)).unwrap();
    assert_eq!(shown(&bench), Some(("back".into(), 10)), "what was said last, whatever it says");
    bench.report("k", "a1", Rank::Completed).unwrap();
    assert_eq!(bench.snapshot().command_result("k", "a1").unwrap().unwrap().rank, Rank::Completed);
    bench.change("k", progress("a1", "too late", 99)).unwrap();
    assert_eq!(shown(&bench), None);
}

#[test]
fn of_two_words_of_progress_all_copies_keep_the_newer_and_a_result_beats_both() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1"], 0);
    a.report("k", "a1", Rank::Executing).unwrap();
    a.change("k", progress("a1", "first", 90)).unwrap();
    let first = a.outgoing("commands/k:a1");
    b.take(&a, "commands/k");
    b.take(&a, "commands/k:a1");
    b.change("k", progress("a1", "second", 10)).unwrap();
    a.take(&b, "commands/k:a1");
    b.take_in(a.peer_run(), vec![first]);
    assert_eq!(a.json("commands/k:a1"), b.json("commands/k:a1"));
    assert!(a.json("commands/k:a1").unwrap().contains(r#""progress":"second""#));
    let second = b.outgoing("commands/k:a1");
    b.report("k", "a1", Rank::Failed).unwrap();
    b.take_in(a.peer_run(), vec![second]);
    a.take(&b, "commands/k:a1");
    assert_eq!(a.json("commands/k:a1"), b.json("commands/k:a1"));
    assert!(a.json("commands/k:a1").unwrap().contains("COMMAND_STATUS_FAILED"));
}

/// The node that removed the command may never have had its result, and would have no tombstone of it unlike other nodes.
#[test]
fn what_becomes_of_a_result_is_told_to_who_removed_its_command_too() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.issue("k", &["a1"], 0);
    b.take(&a, "commands/k");
    b.change("k", CommandChange::Report(Report { result: "7".into(), ..says("a1", Rank::Completed) })).unwrap();
    a.change("k", CommandChange::Remove).unwrap();
    b.take(&a, "commands/k");
    assert_eq!((b.json("commands/k"), b.json("commands/k:a1")), (None, None));
    assert_ne!(b.entry("commands/k").from, 0, "the command's tombstone came from there");
    assert_eq!(b.entry("commands/k:a1").from, 0, "the result's did not");
    a.take(&b, "commands/k:a1");
    assert_eq!(a.version_hash("commands/k:a1"), b.version_hash("commands/k:a1"));
}

#[test]
fn a_command_that_was_withheld_for_a_year_can_no_longer_be_accepted() {
    const MADE: i64 = 1_790_000_000;
    let body = CommandBody { created_at: MADE, expires_at: MADE + 60, ..body("k", &["a1"], 60_000) };
    for (wall_s, accepted) in [
        (MADE, true),
        (MADE + 3_600, true),
        (MADE + 365 * 86_400, false),
        // A clock that was never set decides nothing.
        (5, true),
    ] {
        let mut bench = Bench::new();
        bench.now.wall_ms = wall_s * 1_000;
        let until = Some(bench.now.boot_ms + 60_000);
        assert_eq!(received(&mut bench, sent(&body, &[Rank::Pending as u8], until)), [""; 0]);
        let result = bench.report("k", "a1", Rank::Executing);
        assert_eq!(result.is_ok(), accepted, "{wall_s}: {result:?}");
    }
}

//! The command line and the configuration, where no node is needed.

use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use crate::node::{Done, directory, program, run};

#[test]
fn help_and_version_are_data() {
    assert!(run(&["--help"]).ok().contains("Commands:"));
    assert!(run(&["put", "--help"]).ok().contains("--wait-peers"));
    assert!(run(&["--version"]).ok().starts_with("peat-node "));
}

#[test]
fn a_command_line_that_makes_no_sense_exits_with_2() {
    for arguments in [
        &["nonsense"][..],
        &["get", "only-a-collection"],
        &["run", "--no-such-flag"],
        &["put", "c", "i", "{}", "--base", "not a version!"],
        &["sync", "sideways"],
        &["connect", "nobody"],
        &["status", "--node", "nowhere"],
        &["keygen", "--count", "2"],
        &["completions", "tcsh"],
    ] {
        let words = run(arguments).fails(2);
        assert!(words.starts_with("peat-node: "), "{arguments:?}: {words}");
    }
}

#[test]
fn a_bad_configuration_exits_with_78_and_one_sentence() {
    let id = "a".repeat(64);
    let twice = format!("{id},{id}");
    for arguments in [
        &["--bind", "nowhere"][..],
        &["--peer", "abc@h:1"],
        &["--peer", &twice],
        &["--listen", "tcp://0.0.0.0:1"],
        &["--shared-key", "c2hvcnQ="],
        &["--agent-addr", "localhost:8080"],
        &["--stale-after", "30"],
        &["--relay-listen", "0.0.0.0:4243"],
        &["--relay-key-file", "/nowhere"],
        &["--shared-key-file", "/nowhere"],
        &["--auto-sync=maybe"],
    ] {
        for command in ["run", "check"] {
            let arguments: Vec<&str> = [command].iter().chain(arguments).copied().collect();
            let words = run(&arguments).fails(78);
            assert_eq!(words.lines().count(), 1, "{arguments:?}: {words}");
        }
    }
}

#[test]
fn an_unknown_variable_is_named() {
    let done = program().env("PEAT_NODE_BNID", "0.0.0.0:1").arg("check").output().expect("it runs");
    let words = Done::of(&done).fails(78);
    assert!(words.contains("PEAT_NODE_BNID"), "{words}");
}

#[test]
fn without_a_node_there_is_nobody_to_reach() {
    let home = directory();
    let target = format!("unix://{}/socket", home.path().display());
    let words = run(&["status", "--node", &target]).fails(4);
    assert!(words.contains(&target) && words.contains("peat-node run"), "{words}");
    run(&["status", "--node", "tcp://127.0.0.1:1"]).fails(4);
}

#[test]
fn check_touches_nothing() {
    let home = directory();
    let data = home.path().join("data");
    let arguments = ["check", "--data-dir", data.to_str().expect("text"), "--bind", "127.0.0.1:0"];
    let report = run(&arguments).ok();
    assert!(report.contains("made at the first start"), "{report}");
    assert_eq!(std::fs::read_dir(home.path()).expect("there").count(), 0);
}

#[test]
fn check_finds_a_key_that_others_can_read() {
    let home = directory();
    let out = home.path().to_str().expect("text");
    run(&["keygen", "--out", out]).ok();
    let data = home.path().join("1");
    let arguments = ["check", "--data-dir", data.to_str().expect("text")];
    assert!(run(&arguments).ok().contains("identity"));
    let key = data.join("identity.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("ours");
    assert!(run(&arguments).fails(78).contains("identity.key"));
}

#[test]
fn keygen_makes_identities_and_a_key_they_share() {
    let home = directory();
    let out = home.path().join("keys");
    let out = out.to_str().expect("text");
    let listed = run(&["keygen", "--out", out, "--count", "3"]).ok();
    let ids: Vec<&str> = listed.lines().map(|line| line.split('\t').nth(1).expect("an id")).collect();
    assert_eq!(ids.len(), 3);
    for (number, id) in (1..).zip(&ids) {
        assert_eq!(run(&["id", "--data-dir", &format!("{out}/{number}")]).ok().trim(), *id);
    }
    let shared = std::fs::metadata(format!("{out}/shared.key")).expect("made");
    assert_eq!(shared.permissions().mode() & 0o777, 0o600);
    run(&["check", "--data-dir", &format!("{out}/1"), "--shared-key-file", &format!("{out}/shared.key")]).ok();
    run(&["keygen", "--out", out]).fails(78);
    assert_ne!(run(&["keygen"]).ok(), run(&["keygen"]).ok(), "a new key every time");
}

#[test]
fn our_own_id_is_no_peer() {
    let home = directory();
    let data = home.path().join("data");
    let data = data.to_str().expect("text");
    let id = run(&["id", "--data-dir", data]).ok();
    let peer = format!("{}@127.0.0.1:1", id.trim());
    for command in ["check", "run"] {
        let words = run(&[command, "--data-dir", data, "--bind", "127.0.0.1:0", "--peer", &peer]).fails(78);
        assert!(words.contains(id.trim()), "{words}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let mut child =
        program().args(["completions", "fish"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("our child");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

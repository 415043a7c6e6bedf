//! Valid and invalid configurations, one a row.

use std::ffi::OsString;

use argh::FromArgs;

use super::*;

const ID: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZg==";

fn machine(variables: &[(&str, &str)]) -> Machine {
    let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let environment = Environment::new(variables).expect("text");
    Machine { environment, groups: "peat:x:991:\n".to_owned(), ..Machine::default() }
}

const HOME: (&str, &str) = ("HOME", "/home/u");

fn resolved(flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, Error> {
    let flags = Flags::from_args(&["peat-node"], flags).expect("known flags");
    resolve(&flags, &machine(&[&[HOME], variables].concat()))
}

#[test]
fn the_defaults_are_the_documented_ones() {
    let config = resolved(&[], &[]).expect("valid");
    assert_eq!(config.data_dir, PathBuf::from("/home/u/.local/state/peat-node"));
    assert_eq!(config.listen, [Listen::Unix("/home/u/.local/state/peat-node/peat-node.sock".into())]);
    assert_eq!((config.app_id.as_str(), config.bind.to_string().as_str()), ("peat-default", "0.0.0.0:4242"));
    assert_eq!(
        (config.auto_sync, config.persist_sync, config.pin, config.access.insecure),
        (true, false, false, false)
    );
    assert_eq!((config.flush_interval, config.cache_bytes), (Duration::from_secs(1), 8 << 20));
    assert_eq!(config.access.socket_mode, 0o660);
    assert_eq!(config.log, "info");
    let latest: Vec<&str> = config.latest_collections.iter().map(String::as_str).collect();
    assert_eq!(latest, ["deployments", "packages", "platforms", "tracks"]);
    assert!(config.formation_key.is_none() && config.node_id.is_none() && config.peers.is_empty());
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_default() {
    let variables = [("PEAT_NODE_BIND", "127.0.0.1:1"), ("PEAT_NODE_APP_ID", "env")];
    let config = resolved(&["--bind", "127.0.0.1:2"], &variables).expect("valid");
    assert_eq!((config.bind.port(), config.app_id.as_str()), (2, "env"));
}

#[test]
fn a_list_comes_from_one_place() {
    let config = resolved(&["--listen", "unix:///a"], &[("PEAT_NODE_LISTEN", "unix:///b,unix:///c")]).expect("valid");
    assert_eq!(config.listen, [Listen::Unix("/a".into())]);
    let config = resolved(&[], &[("PEAT_NODE_LISTEN", "unix:///b, unix:///c")]).expect("valid");
    assert_eq!(config.listen, [Listen::Unix("/b".into()), Listen::Unix("/c".into())]);
}

#[test]
fn places_are_taken_from_the_service_manager_then_the_image_then_xdg() {
    let state =
        [("STATE_DIRECTORY", "/var/lib/peat-node"), ("RUNTIME_DIRECTORY", "/run/x"), ("XDG_RUNTIME_DIR", "/run/u")];
    let config = resolved(&[], &state).expect("valid");
    assert_eq!(config.data_dir, PathBuf::from("/var/lib/peat-node"));
    assert_eq!(config.listen, [Listen::Unix("/run/x/peat-node.sock".into())]);

    let xdg = [("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/run/u")];
    let config = resolved(&[], &xdg).expect("valid");
    assert_eq!(config.data_dir, PathBuf::from("/s/peat-node"));
    assert_eq!(config.listen, [Listen::Unix("/run/u/peat-node.sock".into())]);

    let image = Machine { image_data: true, ..machine(&[HOME]) };
    let config = resolve(&Flags::default(), &image).expect("valid");
    assert_eq!(config.data_dir, PathBuf::from("/data/peat-node"));

    let error = resolve(&Flags::default(), &machine(&[])).expect_err("nowhere");
    assert!(error.to_string().contains("--data-dir"), "{error}");
}

#[test]
fn a_client_finds_the_socket_of_a_node_with_the_same_defaults() {
    for variables in [vec![], vec![("XDG_RUNTIME_DIR", "/run/u")], vec![("RUNTIME_DIRECTORY", "/run/x")]] {
        let variables = [vec![HOME], variables].concat();
        for root in [false, true] {
            let machine = Machine { root, ..machine(&variables) };
            let config = resolve(&Flags::default(), &machine).expect("valid");
            let [Listen::Unix(socket)] = &config.listen[..] else { panic!("one socket") };
            assert!(socket_candidates(&machine).contains(socket), "{variables:?}");
        }
    }
}

#[test]
fn valid_settings_are_accepted() {
    let peer = format!("{ID}@h:1+10.0.0.1:2");
    for flags in [
        vec!["--auto-sync", "false"],
        vec!["--bind", "[::]:0"],
        vec!["--shared-key", KEY],
        vec!["--peer", &peer],
        vec!["--peer", ID],
        vec!["--latest-collection", "sensors"],
        vec!["--flush-interval", "0"],
        vec!["--flush-interval", "0.25"],
        vec!["--cache-bytes", "1048576"],
        vec!["--admin-group", "peat", "--socket-group", "991", "--socket-mode", "0600"],
        vec!["--listen", "tcp://127.0.0.1:0"],
        vec!["--listen", "tcp://0.0.0.0:50051", "--insecure-api", "true"],
        vec!["--log", "warn,peat_node::sync=debug"],
        vec!["--node-id", "agent 7"],
    ] {
        resolved(&flags, &[]).unwrap_or_else(|error| panic!("{flags:?}: {error}"));
    }
}

#[test]
fn an_unusable_setting_is_named_with_what_is_wrong() {
    let long = "x".repeat(513);
    let twice = format!("{ID},{ID}@h:1");
    for (flags, words) in [
        (vec!["--bind", "4242"], ["--bind", "4242"]),
        (vec!["--bind", "localhost:4242"], ["--bind", "IP:PORT"]),
        (vec!["--auto-sync", "yes"], ["--auto-sync", "yes"]),
        (vec!["--pin", "1"], ["--pin", "true"]),
        (vec!["--shared-key", "not base64!"], ["--shared-key", "base64"]),
        (vec!["--shared-key", "c2hvcnQ="], ["--shared-key", "16"]),
        (vec!["--shared-key-file", "/nowhere/key"], ["--shared-key-file", "/nowhere/key"]),
        (vec!["--peer", "abc@h:1"], ["--peer", "64 hex digits"]),
        (vec!["--peer", &twice], ["--peer", "twice"]),
        (vec!["--latest-collection", "a\nb"], ["--latest-collection", "control"]),
        (vec!["--latest-collection", "commands"], ["--latest-collection", "commands"]),
        (vec!["--flush-interval", "-1"], ["--flush-interval", "3600"]),
        (vec!["--flush-interval", "nan"], ["--flush-interval", "3600"]),
        (vec!["--cache-bytes", "1000"], ["--cache-bytes", "1048576"]),
        (vec!["--admin-group", "nobody-here"], ["--admin-group", "nobody-here"]),
        (vec!["--admin-group", "65534"], ["--admin-group", "65534"]),
        (vec!["--socket-mode", "0999"], ["--socket-mode", "octal"]),
        (vec!["--api-token-file", "/nowhere/token"], ["--api-token-file", "/nowhere/token"]),
        (vec!["--listen", "tcp://0.0.0.0:50051"], ["--api-token-file", "--insecure-api"]),
        (vec!["--listen", "tcp://[::]:50051"], ["--api-token-file", "--insecure-api"]),
        (vec!["--listen", "unix:///a", "--listen", "unix:///a"], ["--listen", "twice"]),
        (vec!["--log", "loud"], ["--log", "loud"]),
        (vec!["--node-id", &long], ["--node-id", "512"]),
        (vec!["--app-id", "a\u{7}"], ["--app-id", "control"]),
    ] {
        let error = resolved(&flags, &[]).expect_err(&flags.join(" ")).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{flags:?}: {error}");
        assert!(!error.contains('\n'), "one sentence: {error}");
    }
}

#[test]
fn a_variable_that_cannot_be_used_is_named_as_the_variable() {
    let error = resolved(&[], &[("PEAT_NODE_PEERS", "abc")]).expect_err("no id").to_string();
    assert!(error.starts_with("PEAT_NODE_PEERS: "), "{error}");
    let error = resolved(&[], &[("PEAT_NODE_FLUSH_INTERVAL", "soon")]).expect_err("no number").to_string();
    assert!(error.starts_with("PEAT_NODE_FLUSH_INTERVAL: "), "{error}");
}

#[test]
fn both_ways_to_give_the_key_at_once_are_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = secret_file(&directory, 0o600, KEY);
    let config = resolved(&["--shared-key-file", &path], &[]).expect("valid");
    assert_eq!(config.formation_key.expect("read").expose(), b"0123456789abcdef");
    resolved(&["--shared-key-file", &path, "--shared-key", KEY], &[]).expect_err("both");
}

#[test]
fn a_key_file_that_others_can_read_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = secret_file(&directory, 0o644, KEY);
    let error = resolved(&["--shared-key-file", &path], &[]).expect_err("readable").to_string();
    assert!(error.contains("chmod"), "{error}");
}

#[test]
fn secrets_are_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = secret_file(&directory, 0o600, "token-token-token-token");
    let flags = ["--shared-key", KEY, "--api-token-file", &path];
    let shown = format!("{:?}", resolved(&flags, &[]).expect("valid"));
    let typed = format!("{:?}", Flags::from_args(&["peat-node"], &flags).expect("known"));
    for secret in [KEY, "token-token", "0123456789abcdef"] {
        assert!(!shown.contains(secret) && !typed.contains(secret), "{shown} {typed}");
    }
    assert!(shown.contains("formation_key: Some(***)"), "{shown}");
}

fn secret_file(directory: &tempfile::TempDir, mode: u32, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.path().join("secret");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    path.to_str().expect("text").to_owned()
}

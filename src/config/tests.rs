//! Valid and invalid configurations, one per row.

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
    assert_eq!(latest, ["agents", "deployments", "packages", "platforms", "tracks"]);
    assert_eq!(config.fleet, FleetSettings::default());
    assert_eq!(config.fleet.stale_after, 3 * config.fleet.heartbeat);
    assert!(config.watcher.is_none());
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
        vec!["--agent-addr", "http://localhost:8080", "--agent-poll-interval", "0.5"],
        vec!["--agent-addr", "http://[::1]:8080/agent/", "--agent-id", "gateway 7"],
        vec!["--heartbeat", "0.2", "--stale-after", "0.6", "--dead-after", "1"],
        vec!["--command-ttl", "5m", "--command-retention", "12h", "--trust-issuer", ID],
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
        (vec!["--agent-addr", "localhost:8080"], ["--agent-addr", "http://"]),
        (vec!["--agent-addr", "http://user@localhost"], ["--agent-addr", "user@localhost"]),
        (vec!["--agent-addr", "http://localhost:0"], ["--agent-addr", "localhost:0"]),
        (vec!["--agent-addr", "https://localhost"], ["--agent-addr", "--agent-tls-ca"]),
        (vec!["--agent-addr", "http://h", "--agent-poll-interval", "0"], ["--agent-poll-interval", "0.05 s"]),
        (vec!["--agent-addr", "http://h", "--agent-poll-interval", "2m"], ["--agent-poll-interval", "--stale-after"]),
        (vec!["--agent-id", "a"], ["--agent-id", "--agent-addr"]),
        (vec!["--agent-addr", "http://h", "--agent-id", &long[..256]], ["--agent-id", "255"]),
        (vec!["--agent-addr", "http://h", "--agent-id", "a\nb"], ["--agent-id", "control"]),
        (vec!["--agent-tls-ca", "/nowhere/ca"], ["--agent-tls-ca", "/nowhere/ca"]),
        (vec!["--agent-tls-ca", "/etc/passwd"], ["--agent-tls-ca", "no certificate"]),
        (vec!["--agent-tls-cert", "/nowhere/cert"], ["--agent-tls-cert", "/nowhere/cert"]),
        (vec!["--agent-tls-key", "/nowhere/key"], ["--agent-tls-key", "/nowhere/key"]),
        (vec!["--heartbeat", "0"], ["--heartbeat", "0.05 s"]),
        (vec!["--heartbeat", "2m"], ["--heartbeat", "--stale-after"]),
        (vec!["--stale-after", "30"], ["--stale-after", "30s"]),
        (vec!["--dead-after", "8d"], ["--dead-after", "7 d"]),
        (vec!["--command-ttl", "never"], ["--command-ttl", "30 d"]),
        (vec!["--command-retention", "2y"], ["--command-retention", "365 d"]),
        (vec!["--trust-issuer", "hub"], ["--trust-issuer", "64 hex digits"]),
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

const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/integration/tls");

/// Returns the flags of a watcher over mutual TLS, with the key in a file of this mode.
fn watcher_flags(directory: &tempfile::TempDir, mode: u32, key: &str) -> Vec<String> {
    let key = std::fs::read_to_string(format!("{TLS}/{key}")).expect("a fixture");
    let key = secret_file(directory, mode, &key);
    let (ca, certificate) = (format!("{TLS}/ca.pem"), format!("{TLS}/client.pem"));
    let flags = ["--agent-addr", "https://localhost:8443/", "--agent-tls-ca", &ca, "--agent-tls-cert", &certificate];
    flags.into_iter().chain(["--agent-tls-key", &key]).map(String::from).collect()
}

fn watcher_resolved(flags: &[String]) -> Result<Config, Error> {
    resolved(&flags.iter().map(String::as_str).collect::<Vec<_>>(), &[])
}

#[test]
fn an_agent_behind_mutual_tls_can_be_watched_and_the_key_is_not_shown() {
    let directory = tempfile::tempdir().expect("a directory");
    let config = watcher_resolved(&watcher_flags(&directory, 0o600, "client.key")).expect("valid");
    assert!(!format!("{config:?}").contains("PRIVATE KEY"), "{config:?}");
    let watcher = config.watcher.expect("given");
    assert_eq!(watcher.agent.join("/status"), "https://localhost:8443/status");
    assert_eq!(watcher.poll_interval, Duration::from_secs(10));
    assert!(watcher.tls.expect("https").identity.is_some());
}

#[test]
fn a_certificate_needs_its_own_key_and_that_must_be_private() {
    let directory = tempfile::tempdir().expect("a directory");
    let error = watcher_resolved(&watcher_flags(&directory, 0o600, "server.key")).expect_err("not its key").to_string();
    assert!(error.starts_with("--agent-tls-cert: "), "{error}");
    let error = watcher_resolved(&watcher_flags(&directory, 0o644, "client.key")).expect_err("readable").to_string();
    assert!(error.starts_with("--agent-tls-key: ") && error.contains("chmod"), "{error}");
    let flags = watcher_flags(&directory, 0o600, "client.key");
    watcher_resolved(&flags[..6]).expect_err("a certificate without a key");
    watcher_resolved(&[&flags[..4], &flags[6..]].concat()).expect_err("a key without a certificate");
    watcher_resolved(&flags[..2]).expect_err("https without an authority");
    watcher_resolved(&flags[2..]).expect_err("certificates without an agent");
    let plain = ["--agent-addr".to_owned(), "http://localhost:8080".to_owned()];
    watcher_resolved(&[&plain, &flags[2..]].concat()).expect_err("certificates without https");
}

fn secret_file(directory: &tempfile::TempDir, mode: u32, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let path = directory.path().join("secret");
    std::fs::write(&path, text).expect("written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("set");
    path.to_str().expect("text").to_owned()
}

#[test]
fn a_settings_file_is_the_weakest_of_the_three_and_its_errors_name_the_line() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("settings").display().to_string();
    let file = |lines: &str| std::fs::write(&path, lines).expect("written");
    file(
        "PEAT_NODE_BIND=127.0.0.1:3\nPEAT_NODE_APP_ID=file\nPEAT_NODE_NODE_ID=n\nPEAT_NODE_LISTEN=unix:///b,unix:///c\n",
    );
    let variables =
        [("PEAT_NODE_SETTINGS", path.as_str()), ("PEAT_NODE_APP_ID", "env"), ("PEAT_NODE_BIND", "127.0.0.1:1")];
    let config = resolved(&["--bind", "127.0.0.1:2"], &variables).expect("valid");
    assert_eq!((config.bind.port(), config.app_id.as_str(), config.node_id.as_deref()), (2, "env", Some("n")));
    assert_eq!(config.listen, [Listen::Unix("/b".into()), Listen::Unix("/c".into())]);
    for (lines, named) in [
        ("\nPEAT_NODE_HEARTBEAT=soon", ":2: PEAT_NODE_HEARTBEAT"),
        ("PEAT_NODE_PEERS=abc", ":1: PEAT_NODE_PEERS"),
        ("PEAT_NODE_STALE_AFTER=1", ":1: PEAT_NODE_STALE_AFTER"),
        ("nonsense", ":1: is not NAME=value"),
    ] {
        file(lines);
        let error = resolved(&["--settings", &path], &[]).expect_err(lines).to_string();
        assert!(error.starts_with(&format!("{path}{named}")), "{error}");
    }
    let missing = format!("{path}.missing");
    resolved(&["--settings", &missing], &[]).expect_err("missing");
    resolved(&["--settings", &format!("-{missing}")], &[]).expect("it may be missing");
    resolved(&[], &[("PEAT_NODE_SETTINGS", &format!("-{missing}"))]).expect("as a variable too");
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let (old, new) =
        (resolved(&[], &[]).expect("valid"), resolved(&["--pin", "true", "--log", "debug"], &[]).expect("valid"));
    assert_eq!(old.needs_restart(&new), ["--pin", "--log"]);
    assert_eq!(old.needs_restart(&resolved(&["--heartbeat", "5"], &[]).expect("valid")), Vec::<&str>::new());
}

//! Standard output and standard error: closed readers, readers that do not read, and missing streams.

use std::fs::File;
use std::io::{PipeWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use peat_ipc::sidecar::GetStatusRequest;
use peat_ipc::{CallOptions, Client};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Node, directory, eventually, program};

/// Returns a pipe with a closed reader.
fn broken() -> PipeWriter {
    std::io::pipe().expect("a pipe").1
}

/// Returns the exit codes of a command with broken streams and with a full device.
fn codes(mut command: Command) -> Vec<Option<i32>> {
    let full = || File::options().write(true).open("/dev/full").expect("there");
    let gone = command.stdout(broken()).stderr(broken()).status().expect("the program runs").code();
    let error_gone = command.stdout(Stdio::piped()).stderr(broken()).status().expect("the program runs").code();
    let no_room = command.stdout(Stdio::piped()).stderr(full()).status().expect("the program runs").code();
    vec![gone, error_gone, no_room]
}

fn closed(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", r#"exec "$0" "$@" >&- 2>&-"#]).arg(command.get_program()).args(command.get_args());
    shell.env_remove("PEAT_NODE_LISTEN");
    shell
}

#[test]
fn a_failure_keeps_its_exit_code_with_broken_full_and_closed_streams() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let absent = format!("unix://{}/absent", home.path().display());
    let out = home.path().join("fleet").display().to_string();
    for (arguments, expected) in [
        (vec!["get", "notes", "nosuch", "--node", &node.target()], 3),
        (vec!["get", "notes", "nosuch", "--node", &absent], 4),
        (vec!["run", "--bind", "nowhere"], 78),
        (vec!["check", "--bind", "nowhere"], 78),
        (vec!["run", "--data-dir", "/dev/null/data", "--bind", "127.0.0.1:0"], 78),
        (vec!["relay", "--listen", "127.0.0.1:0", "--shared-key-file", "/nowhere"], 78),
        (vec!["get", "only-a-collection"], 2),
        (vec!["status", "--node", "nowhere"], 2),
    ] {
        let command = || {
            let mut command = program();
            command.args(&arguments);
            command
        };
        assert_eq!(codes(command()), [Some(expected); 3], "{arguments:?}");
        assert_eq!(closed(&command()).status().expect("sh runs").code(), Some(expected), "{arguments:?}, closed");
    }
    // Messages on stderr must not cause a failure either.
    let mut keygen = program();
    keygen.args(["keygen", "--out", &out, "--count", "1"]).stdout(broken()).stderr(broken());
    assert_eq!(keygen.status().expect("the program runs").code(), Some(0));
}

/// Returns a full pipe and its reader.
fn full_pipe() -> (std::io::PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("set");
    while writer.write(&[b'.'; 4096]).is_ok() {}
    while writer.write(b".").is_ok() {}
    fcntl_setfl(&writer, flags).expect("set");
    (reader, writer)
}

/// Starts a node that logs at debug level to `stderr`.
fn talkative(home: &Path, stderr: PipeWriter) -> Child {
    let mut command = Node::command(home, &["--bind", "127.0.0.1:0", "--log", "debug"]);
    command.stderr(stderr).spawn().expect("the program runs")
}

fn client(home: &Path) -> Client {
    let target = format!("unix://{}/socket", home.display()).parse().expect("an address");
    eventually("the node serves", || Client::connect(&target).ok())
}

fn ends(mut child: Child) {
    kill_process(Pid::from_child(&child), Signal::TERM).expect("our child");
    let status = eventually("the node ends", || child.try_wait().expect("our child"));
    assert_eq!(status.code(), Some(0));
}

#[cfg(feature = "http")]
fn dropped_lines(home: &Path) -> u64 {
    let mut stream = UnixStream::connect(home.join("socket")).expect("it serves");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: node\r\nconnection: close\r\n\r\n").expect("sent");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix("peat_node_log_lines_dropped_total "));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("the metric: {text}"))
}

#[cfg(feature = "http")]
#[test]
fn a_log_without_a_reader_blocks_no_call_and_dropped_lines_are_counted_and_reported() {
    let home = directory();
    let (mut reader, writer) = full_pipe();
    let child = talkative(home.path(), writer);
    // Each connection that ends logs a line.
    eventually("lines are lost", || {
        let mut client = client(home.path());
        client.call(&GetStatusRequest {}, CallOptions::default()).expect("answered");
        (dropped_lines(home.path()) > 0).then_some(())
    });
    let report = std::thread::Builder::new().spawn(move || {
        let (mut text, mut bytes) = (String::new(), [0; 4096]);
        while !text.contains("log lines dropped") {
            let count = reader.read(&mut bytes).expect("the node lives");
            assert_ne!(count, 0, "it ended without a word: {text}");
            text.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
        reader
    });
    let reader = report.expect("a thread").join().expect("it is reported");
    ends(child);
    drop(reader);
}

#[test]
fn a_node_whose_log_has_no_reader_starts_serves_and_ends_at_sigterm() {
    let home = directory();
    let (reader, writer) = full_pipe();
    let child = talkative(home.path(), writer);
    client(home.path()).call(&GetStatusRequest {}, CallOptions::default()).expect("answered");
    ends(child);
    drop(reader);
}

#[test]
fn a_node_whose_log_has_lost_its_reader_serves_and_ends_at_sigterm() {
    let home = directory();
    let child = talkative(home.path(), broken());
    client(home.path()).call(&GetStatusRequest {}, CallOptions::default()).expect("answered");
    ends(child);
}

#[test]
fn a_node_that_cannot_start_ends_when_stderr_has_no_reader() {
    let (reader, writer) = full_pipe();
    let mut command = program();
    command.args(["run", "--bind", "nowhere"]).stderr(writer);
    let mut child = command.spawn().expect("the program runs");
    let status = eventually("it ends", || child.try_wait().expect("our child"));
    assert_eq!(status.code(), Some(78));
    drop(reader);
}

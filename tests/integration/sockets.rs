//! Listening sockets: limits of paths, conflicts with other nodes, and discovery by commands.

use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use peat_ipc::PREFACE;
use peat_ipc::frame::{RequestHeader, put_request};
use peat_ipc::sidecar::GetStatusRequest;

use rustix::process::Signal;

use crate::node::{Done, Node, directory, eventually, program, run};

/// Returns a socket path in `home` with a length of `bytes` bytes.
fn path_of(home: &Path, bytes: usize) -> String {
    let start = format!("{}/", home.display());
    format!("{start}{}", "s".repeat(bytes - start.len()))
}

#[test]
fn check_and_run_have_one_limit_of_socket_paths() {
    let home = directory();
    for command in ["check", "run"] {
        let listen = format!("unix://{}", path_of(home.path(), 107));
        let data = home.path().join("data").display().to_string();
        let words = run(&[command, "--data-dir", &data, "--listen", &listen]).fails(78);
        assert!(words.contains("--listen") && words.contains("106"), "{command}: {words}");
    }
    let longest = format!("unix://{}", path_of(home.path(), 106));
    let node = Node::start(home.path(), &["--listen", &longest]);
    assert!(node.log().contains("ready: "));
    run(&["status", "--node", &longest]).ok();
}

#[test]
fn a_node_that_ends_leaves_the_socket_that_another_one_put_in_its_place() {
    let (home, other_home) = (directory(), directory());
    let mut first = Node::start(home.path(), &[]);
    let socket = home.path().join("socket");
    std::fs::remove_file(&socket).expect("there");
    let listen = first.target();
    let second = Node::start(other_home.path(), &["--listen", &listen]);
    assert!(first.stop(Signal::TERM).success());
    assert!(socket.exists(), "it is the other node's");
    let id = run(&["status", "--node", &listen, "--json"]).ok();
    assert!(id.contains(&second.id), "{id}");
}

/// Returns true if a connected client receives no answer for a while.
fn is_left_waiting(mut stream: UnixStream) -> bool {
    let mut bytes = PREFACE.to_vec();
    let header = RequestHeader { method: 1, ..RequestHeader::default() };
    put_request(&mut bytes, 1, header, &GetStatusRequest {});
    stream.write_all(&bytes).expect("taken");
    stream.set_read_timeout(Some(Duration::from_millis(500))).expect("a socket");
    matches!(stream.read(&mut [0]), Err(cause) if cause.kind() == ErrorKind::WouldBlock)
}

#[test]
#[expect(clippy::disallowed_methods, reason = "how often is seldom is counted in real time")]
fn a_node_without_descriptors_left_says_so_once_a_minute_and_serves_again() {
    let (home, begun) = (directory(), Instant::now());
    let limit = ["sh", "-c", r#"ulimit -n 64 && exec "$0" "$@""#].map(String::from).to_vec();
    let node = Node::start_inside(limit, "127.0.0.1:0", home.path(), &[]);
    let connect = || UnixStream::connect(home.path().join("socket")).expect("the kernel lets it wait");
    for _ in 0..5 {
        let idle: Vec<UnixStream> = (0..80).map(|_| connect()).collect();
        eventually("there is no descriptor left", || {
            let complained = node.log().contains("a client could not be accepted");
            (is_left_waiting(connect()) && complained).then_some(())
        });
        drop(idle);
        node.run("status", &[]).ok();
    }
    let complaints = node.log().matches("a client could not be accepted").count();
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).expect("few");
    assert!((1..=1 + minutes).contains(&complaints), "{}", node.log());
}

/// Starts a node as in a container, with `RUNTIME_DIRECTORY` set and all else given by flags.
fn contained(home: &Path, flags: &[&str]) -> Command {
    let mut command = program();
    command.env("RUNTIME_DIRECTORY", home.join("run")).args(flags);
    command
}

#[test]
fn health_finds_a_node_that_listens_at_another_place_than_the_default() {
    let home = directory();
    std::fs::create_dir(home.path().join("run")).expect("made");
    let data = home.path().join("data").display().to_string();
    for listen in ["tcp://127.0.0.1:0".to_owned(), format!("unix://{}/other.sock", home.path().display())] {
        let flags = ["run", "--data-dir", &data, "--bind", "127.0.0.1:0", "--listen", &listen];
        let mut child = contained(home.path(), &flags).spawn().expect("the program runs");
        let health = || Done::of(&contained(home.path(), &["health"]).output().expect("the program runs"));
        eventually("health finds it", || (health().code == 0).then_some(()));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::TERM).expect("our child");
        assert!(child.wait().expect("our child").success());
        health().fails(4);
    }
}

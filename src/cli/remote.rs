//! Connection to a node: its address, connection attempts and deadlines.

use std::io::{self, Read};
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use peat_ipc::{CallOptions, Client, Error, Rpc, Target};

use super::arguments::Remote;
use super::failure::{Failure, exit};
use crate::config::{ANNOUNCEMENT, Machine, clean, socket_candidates, time_within};

/// Maximum size of the file with a node's address, in bytes. An address is shorter.
const ANNOUNCEMENT_BYTES: u64 = 256;

/// Default of `--timeout`.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Range of `--timeout`, in seconds.
const TIMEOUT_SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;
/// Time by which the node's deadline is earlier than the command's, so that the node can report its progress.
const HEAD_START: Duration = Duration::from_secs(1);

/// A connection to a node, with the deadline of its calls.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    target: Target,
    timeout: Duration,
    end: Instant,
}

impl Connection {
    /// Makes a call. The connection and all calls since then share `--timeout`.
    pub(super) fn call<R: Rpc>(&mut self, request: &R) -> Result<R::Response, Failure> {
        let left = left(self.end);
        // The node's deadline is a second earlier than this command's, but leaves it four fifths of a short time.
        let deadline = left.saturating_sub(HEAD_START).max(left * 4 / 5);
        let options = CallOptions { deadline: Some(deadline), limit: Some(left) };
        self.client.call(request, options).map_err(|error| match error {
            Error::Transport(cause) if cause.kind() == io::ErrorKind::TimedOut => silent(&self.target, self.timeout),
            error => error.into(),
        })
    }

    /// Grants later calls the whole of `--timeout` again.
    pub(super) fn renew(&mut self) {
        self.end = in_the_future(self.timeout);
    }

    /// Returns the client, for streams, which have no deadline.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Connects to the node that the subcommand names, or else to the one with default settings on this machine.
pub(super) fn connect(command: &impl Remote) -> Result<Connection, Failure> {
    let machine = Machine::this()?;
    let timeout = timeout(command.timeout())?;
    let end = in_the_future(timeout);
    let target = target(command.node(), &machine)?;
    let token = match (&target, machine.environment.get("PEAT_NODE_API_TOKEN_FILE")) {
        (Target::Tcp(_), Some(path)) => token(Path::new(path))?,
        _ => String::new(),
    };
    let client = reach(&target, timeout)?.with_token(token);
    Ok(Connection { client, target, timeout, end })
}

fn timeout(text: Option<&str>) -> Result<Duration, Failure> {
    let parse = |text| time_within(text, TIMEOUT_SECONDS, "from 0.1 s to 1 d");
    text.map_or(Ok(TIMEOUT), parse).map_err(|cause| Failure::usage(format!("--timeout: {cause}")))
}

/// Connects within `timeout`. Name resolution and connecting to a full socket may take any time and cannot be interrupted, so a
/// thread does them, and the process may end without it.
fn reach(target: &Target, timeout: Duration) -> Result<Client, Failure> {
    let (connected, outcome) = mpsc::sync_channel(1);
    let place = target.clone();
    let thread = thread::Builder::new().name("connect".to_owned());
    let spawned = thread.spawn(move || {
        // The receiver may have timed out.
        let _ = connected.send(Client::connect(&place));
    });
    spawned.map_err(|cause| Failure::failed(format!("cannot start a thread: {cause}")))?;
    match outcome.recv_timeout(timeout) {
        Ok(client) => client.map_err(|error| unreachable(target, &error)),
        Err(_) => Err(silent(target, timeout)),
    }
}

fn silent(target: &Target, timeout: Duration) -> Failure {
    let seconds = timeout.as_secs_f64();
    let words = format!(
        "the node at {target} did not answer within {seconds} s; it may be stopped or overloaded (--timeout waits longer)"
    );
    Failure::new(exit::UNREACHABLE, words)
}

#[expect(clippy::disallowed_methods, reason = "a command that blocks keeps its own time")]
fn in_the_future(limit: Duration) -> Instant {
    Instant::now() + limit
}

/// Returns the time left, at least a millisecond: a socket timeout of 0 would mean none.
#[expect(clippy::disallowed_methods, reason = "a command that blocks keeps its own time")]
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// Returns the address of the node: `--node`, else the first entry of `PEAT_NODE_LISTEN`, else the first default socket that
/// exists, or the address announced beside it.
fn target(node: Option<&str>, machine: &Machine) -> Result<Target, Failure> {
    if let Some(node) = node {
        return node.parse().map_err(|cause| Failure::usage(format!("--node: {cause}")));
    }
    if let Some(listen) = machine.environment.get("PEAT_NODE_LISTEN").and_then(|list| list.split(',').next()) {
        let target = listen.trim().parse();
        return target.map_err(|cause| Failure::configuration(format!("PEAT_NODE_LISTEN: {cause}")));
    }
    let candidates = socket_candidates(machine);
    let found = candidates.iter().find_map(|socket| running(socket));
    let first = || candidates.first().map(|path| Target::Unix(path.clone()));
    let nowhere = || Failure::new(exit::UNREACHABLE, "no node was named; give --node unix:///PATH");
    found.or_else(first).ok_or_else(nowhere)
}

/// Returns the address of the node at a default socket, or of the one that announced another address beside it.
fn running(socket: &Path) -> Option<Target> {
    if socket.exists() {
        return Some(Target::Unix(socket.to_owned()));
    }
    let mut text = String::new();
    let file = std::fs::File::open(socket.with_file_name(ANNOUNCEMENT)).ok()?;
    file.take(ANNOUNCEMENT_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    let wrong = |cause| Failure::configuration(format!("PEAT_NODE_API_TOKEN_FILE: {}: {cause}", path.display()));
    text.map(|text| clean(&text).to_owned()).map_err(wrong)
}

/// Returns the reason for which there is no connection, and the remedy.
fn unreachable(target: &Target, error: &Error) -> Failure {
    let Error::Transport(cause) = error else { return Failure::new(exit::UNREACHABLE, error) };
    match (cause.kind(), target) {
        (io::ErrorKind::PermissionDenied, _) => {
            let words = format!("you may not open {target}; join the group that owns it, or ask root");
            Failure::new(exit::NOT_ALLOWED, words)
        }
        (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, Target::Unix(_)) => {
            let words = format!("no node listens at {target}; start one with `peat-node run`, or name it with --node");
            Failure::new(exit::UNREACHABLE, words)
        }
        _ => Failure::new(exit::UNREACHABLE, format!("cannot reach {target}: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::config::Environment;

    fn machine(variables: &[(&str, &str)]) -> Machine {
        let variables = variables.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        Machine { environment: Environment::new(variables).expect("text"), ..Machine::default() }
    }

    #[test]
    fn the_command_line_wins_over_the_environment_and_that_over_the_default() {
        let variables = [("PEAT_NODE_LISTEN", "tcp://127.0.0.1:1,unix:///b"), ("XDG_RUNTIME_DIR", "/nowhere")];
        let shown = |node, variables| target(node, &machine(variables)).expect("valid").to_string();
        assert_eq!(shown(Some("unix:///a"), &variables), "unix:///a");
        assert_eq!(shown(None, &variables), "tcp://127.0.0.1:1");
        assert_eq!(shown(None, &variables[1..]), "unix:///nowhere/peat-node.sock");
    }

    #[test]
    fn a_timeout_is_a_time_above_zero() {
        assert_eq!(timeout(None), Ok(TIMEOUT));
        assert_eq!(timeout(Some("2m")), Ok(Duration::from_secs(120)));
        for text in ["0", "-1", "", "soon", "2d", "inf"] {
            let failure = timeout(Some(text)).expect_err(text);
            assert!(failure.code == exit::USAGE && failure.words.starts_with("--timeout: "), "{}", failure.words);
        }
    }

    #[test]
    fn a_node_that_listens_at_another_place_is_found_by_what_it_wrote_down() {
        let directory = tempfile::tempdir().expect("a directory");
        let runtime = directory.path().to_str().expect("text");
        let found = || target(None, &machine(&[("RUNTIME_DIRECTORY", runtime)])).expect("valid").to_string();
        std::fs::write(directory.path().join(ANNOUNCEMENT), "tcp://0.0.0.0:50051\n").expect("written");
        assert_eq!(found(), "tcp://0.0.0.0:50051");
        std::fs::write(directory.path().join(ANNOUNCEMENT), "nonsense").expect("written");
        assert_eq!(found(), format!("unix://{runtime}/peat-node.sock"));
    }

    #[test]
    fn a_socket_that_may_not_be_opened_is_not_an_absent_node() {
        let socket = Target::Unix("/s".into());
        let code = |kind: io::ErrorKind| unreachable(&socket, &Error::Transport(kind.into())).code;
        assert_eq!(code(io::ErrorKind::PermissionDenied), exit::NOT_ALLOWED);
        assert_eq!(code(io::ErrorKind::NotFound), exit::UNREACHABLE);
        assert_eq!(code(io::ErrorKind::ConnectionRefused), exit::UNREACHABLE);
    }
}

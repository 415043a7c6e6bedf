//! Finding the node and reaching it.

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

/// An address is shorter.
const ANNOUNCEMENT_BYTES: u64 = 256;

/// How long a node may take to answer, unless `--timeout` says otherwise.
const TIMEOUT: Duration = Duration::from_secs(10);
/// What `--timeout` may be, in seconds.
const TIMEOUT_SECONDS: RangeInclusive<f64> = 0.1..=86_400.0;
/// The node is asked to give up this much before the command does, so that it can say how far it came.
const HEAD_START: Duration = Duration::from_secs(1);

/// A connection to a node, and how long it may take to answer.
#[derive(Debug)]
pub(super) struct Connection {
    client: Client,
    target: Target,
    timeout: Duration,
    end: Instant,
}

impl Connection {
    /// Makes a call. Connecting and all calls since share `--timeout`.
    pub(super) fn call<R: Rpc>(&mut self, request: &R) -> Result<R::Response, Failure> {
        let left = left(self.end);
        let deadline = left.saturating_sub(HEAD_START).max(left * 4 / 5);
        let options = CallOptions { deadline: Some(deadline), limit: Some(left) };
        self.client.call(request, options).map_err(|error| match error {
            Error::Transport(cause) if cause.kind() == io::ErrorKind::TimedOut => silent(&self.target, self.timeout),
            error => error.into(),
        })
    }

    /// Gives the calls that follow the whole of `--timeout` again.
    pub(super) fn renew(&mut self) {
        self.end = in_the_future(self.timeout);
    }

    /// For streams, which may last.
    pub(super) fn client(&mut self) -> &mut Client {
        &mut self.client
    }
}

/// Connects to the node the command names, or to the one that runs on this machine's defaults.
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

/// Connects within `timeout`. Resolving a name and connecting to a full socket take any time, and neither can be
/// interrupted, so a thread does it; the process ends without it.
fn reach(target: &Target, timeout: Duration) -> Result<Client, Failure> {
    let (connected, outcome) = mpsc::sync_channel(1);
    let place = target.clone();
    let thread = thread::Builder::new().name("connect".to_owned());
    let spawned = thread.spawn(move || {
        // The command may have given up.
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

/// At least a millisecond: a socket's timeout of 0 would mean none.
#[expect(clippy::disallowed_methods, reason = "a command that blocks keeps its own time")]
fn left(end: Instant) -> Duration {
    end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1))
}

/// `--node`, else `PEAT_NODE_LISTEN`'s first entry, else the default socket, or the address written down beside it: the first place
/// where there is one.
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

/// The node at a default socket, or the one that wrote down beside it where it listens instead.
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

/// Why there is no connection, and what to do about it.
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

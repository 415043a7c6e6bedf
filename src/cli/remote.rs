//! Finding the node and reaching it.

use std::io;
use std::path::Path;

use peat_ipc::{Client, Error, Target};

use super::arguments::Remote;
use super::failure::{Failure, exit};
use crate::config::{Machine, socket_candidates};

/// Connects to the node the command names, or to the one that runs on this machine's defaults.
pub(super) fn connect(command: &impl Remote) -> Result<Client, Failure> {
    let machine = Machine::this()?;
    let target = target(command.node(), &machine)?;
    let client = Client::connect(&target).map_err(|error| unreachable(&target, &error))?;
    match (&target, machine.environment.get("PEAT_NODE_API_TOKEN_FILE")) {
        (Target::Tcp(_), Some(path)) => Ok(client.with_token(token(Path::new(path))?)),
        _ => Ok(client),
    }
}

/// `--node`, else `PEAT_NODE_LISTEN`'s first entry, else the default socket: the first place where there is one.
fn target(node: Option<&str>, machine: &Machine) -> Result<Target, Failure> {
    if let Some(node) = node {
        return node.parse().map_err(|cause| Failure::usage(format!("--node: {cause}")));
    }
    if let Some(listen) = machine.environment.get("PEAT_NODE_LISTEN").and_then(|list| list.split(',').next()) {
        let target = listen.trim().parse();
        return target.map_err(|cause| Failure::configuration(format!("PEAT_NODE_LISTEN: {cause}")));
    }
    let candidates = socket_candidates(machine);
    let found = candidates.iter().find(|path| path.exists()).or(candidates.first());
    let nowhere = || Failure::new(exit::UNREACHABLE, "no node was named; give --node unix:///PATH");
    found.map(|path| Target::Unix(path.clone())).ok_or_else(nowhere)
}

fn token(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path);
    let wrong = |cause| Failure::configuration(format!("PEAT_NODE_API_TOKEN_FILE: {}: {cause}", path.display()));
    text.map(|text| text.trim().to_owned()).map_err(wrong)
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
    fn a_socket_that_may_not_be_opened_is_not_an_absent_node() {
        let socket = Target::Unix("/s".into());
        let code = |kind: io::ErrorKind| unreachable(&socket, &Error::Transport(kind.into())).code;
        assert_eq!(code(io::ErrorKind::PermissionDenied), exit::NOT_ALLOWED);
        assert_eq!(code(io::ErrorKind::NotFound), exit::UNREACHABLE);
        assert_eq!(code(io::ErrorKind::ConnectionRefused), exit::UNREACHABLE);
    }
}

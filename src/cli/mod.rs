//! The command line: `main` is a flat dispatch over [`Command`].
//!
//! Owns the output and the exit code of the process. Data goes to stdout, messages to stderr.
//!
//! | file | holds |
//! |---|---|
//! | `arguments.rs`, `normalise.rs`, `completions.rs` | subcommands and their flags, their normal form, shell completions |
//! | `documents.rs`, `agents.rs`, `commands.rs`, `node.rs` | the subcommands that call a node |
//! | `keys.rs`, `verify.rs` | the subcommands that need none |
//! | `remote.rs` | the connection to a node |
//! | `output.rs`, `failure.rs` | tables and JSON, exit codes |

mod agents;
pub mod arguments;
mod commands;
pub mod completions;
mod documents;
mod failure;
mod keys;
pub mod manual;
mod node;
pub mod normalise;
mod output;
mod remote;
mod verify;

use std::process::ExitCode;
use std::time::Duration;

use argh::FromArgs;

use self::arguments::{Arguments, Command};
use self::failure::{Failure, output_failed};
use self::normalise::normalise;
use self::output::Output;
use crate::config::{Flags, Machine, resolve, resolve_relay};
use crate::stderr;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let command = match parse() {
        Ok(command) => command,
        Err(failure) => return report(&failure, None),
    };
    // A node that ends must not wait for the reader of its log.
    let serves = matches!(command, Some(Command::Run(_) | Command::Relay(_)));
    match dispatch(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => report(&failure, serves.then_some(stderr::LAST_WORDS)),
    }
}

fn report(failure: &Failure, patience: Option<Duration>) -> ExitCode {
    if !failure.words.is_empty() {
        stderr::line(&format!("peat-node: {}", failure.words), patience);
    }
    ExitCode::from(failure.code)
}

/// Prints a message to the user that is not the output of the subcommand.
fn note(text: &str) {
    stderr::line(text, None);
}

/// Parses the subcommand; `None` after help or version, which are printed here.
fn parse() -> Result<Option<Command>, Failure> {
    let arguments = std::env::args_os().skip(1).map(|argument| {
        argument.into_string().map_err(|wrong| Failure::usage(format!("{} is not valid UTF-8", wrong.display())))
    });
    let arguments = normalise(arguments.collect::<Result<_, _>>()?);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match Arguments::from_args(&["peat-node"], &arguments) {
        Ok(Arguments { version: true, .. }) => say(concat!("peat-node ", env!("CARGO_PKG_VERSION"))).map(|()| None),
        Ok(Arguments { command, .. }) => Ok(command),
        Err(exit) if exit.status.is_ok() => say(exit.output.trim_end()).map(|()| None),
        Err(exit) => Err(misunderstood(exit.output.trim_end())),
    }
}

/// Returns the parser's message, with a hint when an argument that is data looked like an option.
fn misunderstood(words: &str) -> Failure {
    let hint = if words.starts_with("Unrecognized argument") {
        "\nAn argument that begins with a hyphen is taken literally behind `--`."
    } else {
        ""
    };
    Failure::usage(format!("{words}{hint}\nSee peat-node --help."))
}

fn dispatch(command: Option<Command>) -> Result<(), Failure> {
    let Some(command) = command else { return Ok(()) };
    match command {
        Command::Run(flags) => run(&flags),
        Command::Check(flags) => check(&flags.0),
        Command::Relay(command) => relay(command),
        Command::Status(command) => node::status(&command),
        Command::Health(command) => node::health(&command),
        Command::Put(command) => documents::put(&command),
        Command::Patch(command) => documents::patch(&command),
        Command::Get(command) => documents::get(&command),
        Command::List(command) => documents::list(&command),
        Command::Delete(command) => documents::delete(&command),
        Command::Compact(command) => documents::compact(&command),
        Command::Watch(command) => documents::watch(&command),
        Command::Peers(command) => node::peers(&command),
        Command::Connect(command) => node::connect(&command),
        Command::Disconnect(command) => node::disconnect(&command),
        Command::Sync(command) => node::sync(&command),
        Command::Agents(command) => agents::agents(&command),
        Command::Commands(command) => commands::commands(&command),
        Command::Send(command) => commands::send(&command),
        Command::Cancel(command) => commands::cancel(&command),
        Command::Id(command) => keys::id(command),
        Command::Keygen(command) => keys::keygen(command),
        Command::Verify(command) => verify::verify(command),
        Command::Completions(command) => completions(&command.shell),
    }
}

fn completions(shell: &str) -> Result<(), Failure> {
    let unknown = || Failure::usage(format!("no completions for '{shell}'; there are some for bash, zsh and fish"));
    say(completions::script(shell).ok_or_else(unknown)?.trim_end())
}

fn run(flags: &Flags) -> Result<(), Failure> {
    let config = resolve(flags, &Machine::this()?)?;
    crate::node::run(config, || resolve(flags, &Machine::this()?))
        .map_err(|error| Failure::new(error.exit_code(), error))
}

fn relay(command: arguments::Relay) -> Result<(), Failure> {
    let arguments::Relay { listen: relay_listen, relay_key_file, shared_key_file, pin, log } = command;
    let flags = Flags { relay_listen, relay_key_file, shared_key_file, pin, log, ..Flags::default() };
    let config = resolve_relay(&flags, &Machine::this()?)?;
    crate::node::run_relay(&config).map_err(|error| Failure::new(error.exit_code(), error))
}

fn check(flags: &Flags) -> Result<(), Failure> {
    let config = resolve(flags, &Machine::this()?)?;
    config.warnings.iter().for_each(|words| note(&format!("warning: {words}")));
    let listen: Vec<String> = config.listen.iter().map(ToString::to_string).collect();
    let findings = crate::node::check(&config).map_err(|error| Failure::new(error.exit_code(), error))?;
    let identity = findings.identity.map_or("made at the first start".to_owned(), |id| id.to_string());
    let fields = [
        ("listen", listen.join(" ")),
        ("data", config.data_dir.display().to_string()),
        ("bind", config.bind.to_string()),
        ("peers", config.peers.len().to_string()),
        ("agent", config.watcher.as_ref().map_or("none is watched".to_owned(), |watcher| watcher.agent.to_string())),
        ("identity", identity),
    ];
    Output::stdout(false).print(|out| out.fields(&fields))
}

/// Prints a line to stdout. A closed pipe is no failure.
fn say(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    writeln!(std::io::stdout(), "{text}").map_err(|cause| output_failed(&cause))
}

//! Converts a command line to the form that the parser accepts, without changing a value.
//!
//! The parser takes every argument that begins with `-` for an option until `--`. Document ids, JSON and names are data and may
//! begin with any character, so the arguments are classified here, by the definition that the parser uses: options with their
//! values come first, then `--`, then the positional arguments unchanged.

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfoKind};

use super::arguments::Arguments;
use crate::config::BARE;

/// Returns the subcommand (`run` if none is given), its options with their values, `--`, and its positional arguments.
///
/// `-` is a positional argument, and so is everything after `--`. Other arguments that begin with `-` are options; one that no
/// subcommand defines is left for the parser to reject.
#[must_use]
pub fn normalise(mut arguments: Vec<String>) -> Vec<String> {
    match arguments.first().map(String::as_str) {
        Some("-h" | "--help" | "help" | "-V" | "--version") => return arguments,
        Some(first) if !first.starts_with('-') => {}
        _ => arguments.insert(0, "run".to_owned()),
    }
    let program = Arguments::get_args_info();
    let Some(command) = program.commands.iter().find(|command| command.name == arguments[0]) else { return arguments };
    Sorted::of(arguments.split_off(1), &command.command).after(arguments)
}

/// Arguments of one subcommand, by class.
#[derive(Debug, Default)]
struct Sorted {
    options: Vec<String>,
    positionals: Vec<String>,
}

impl Sorted {
    fn of(arguments: Vec<String>, command: &CommandInfoWithArgs) -> Sorted {
        let mut sorted = Sorted::default();
        let mut rest = arguments.into_iter().peekable();
        while let Some(argument) = rest.next() {
            match argument.as_str() {
                "--" => sorted.positionals.extend(rest.by_ref()),
                flag if BARE.contains(&flag) => {
                    let bare = rest.peek().is_none_or(|next| next != "true" && next != "false");
                    sorted.options.push(argument);
                    sorted.options.extend(if bare { Some("true".to_owned()) } else { rest.next() });
                }
                flag if takes_value(command, flag) => {
                    sorted.options.push(argument);
                    sorted.options.extend(rest.next());
                }
                "-" => sorted.positionals.push(argument),
                flag if flag.starts_with('-') => sorted.options.extend(split(argument, command)),
                _ => sorted.positionals.push(argument),
            }
        }
        sorted
    }

    fn after(self, mut arguments: Vec<String>) -> Vec<String> {
        arguments.extend(self.options);
        if !self.positionals.is_empty() {
            arguments.push("--".to_owned());
            arguments.extend(self.positionals);
        }
        arguments
    }
}

fn takes_value(command: &CommandInfoWithArgs, flag: &str) -> bool {
    let option = |kind: &FlagInfoKind<'_>| matches!(kind, FlagInfoKind::Option { .. });
    command.flags.iter().any(|known| known.long == flag && option(&known.kind))
}

/// Splits `--flag=value` into two arguments, for a flag that takes a value.
fn split(argument: String, command: &CommandInfoWithArgs) -> Vec<String> {
    match argument.split_once('=') {
        Some((flag, value)) if takes_value(command, flag) => vec![flag.to_owned(), value.to_owned()],
        _ => vec![argument],
    }
}

#[cfg(test)]
mod tests {
    use argh::FromArgs;

    use super::super::arguments::Command;
    use super::*;

    fn normal(arguments: &[&str]) -> Vec<String> {
        normalise(arguments.iter().map(ToString::to_string).collect())
    }

    fn parsed(arguments: &[&str]) -> Result<Option<Command>, String> {
        let normal = normal(arguments);
        let normal: Vec<&str> = normal.iter().map(String::as_str).collect();
        Arguments::from_args(&["peat-node"], &normal).map(|parsed| parsed.command).map_err(|exit| exit.output)
    }

    /// Returns the id that each subcommand for one document reads from these arguments after its collection.
    fn ids(behind: &[&str]) -> Vec<String> {
        let parse = |command: &str, more: &[&str]| parsed(&[&[command, "c"], behind, more].concat()).expect("parses");
        let mut ids = Vec::new();
        for command in [
            parse("get", &[]),
            parse("delete", &[]),
            parse("compact", &[]),
            parse("put", &["{}"]),
            parse("patch", &["{}"]),
        ] {
            ids.push(match command.expect("a command") {
                Command::Get(command) => command.id,
                Command::Delete(command) => command.id,
                Command::Compact(command) => command.id,
                Command::Put(command) => command.id,
                Command::Patch(command) => command.id,
                other => panic!("{other:?}"),
            });
        }
        ids
    }

    #[test]
    fn an_id_is_taken_literally_on_every_command() {
        for id in ["-", "@-", "@", "@file", "", "a=b", "=", "true", "run", "help", " ", "{}"] {
            assert_eq!(ids(&[id]), vec![id; 5], "{id:?}");
        }
    }

    #[test]
    fn behind_two_hyphens_everything_is_literal() {
        for id in ["--", "-", "@-", "-x", "--json", "--node=x", "--base", "-h", "--help", "--pin", "--x=1"] {
            assert_eq!(ids(&["--", id]), vec![id; 5], "{id:?}");
        }
    }

    #[test]
    fn the_value_of_an_option_is_literal() {
        for value in ["-", "--", "@-", "-x", "--json", "--help", "a=b", "", "true"] {
            for arguments in [vec!["cancel", "--node", value, "id"], vec!["cancel", "id", &format!("--node={value}")]] {
                let Ok(Some(Command::Cancel(cancel))) = parsed(&arguments) else { panic!("{arguments:?}") };
                assert_eq!((cancel.node.as_deref(), cancel.id.as_str()), (Some(value), "id"));
            }
        }
    }

    #[test]
    fn an_option_may_stand_behind_the_positional_arguments() {
        let Ok(Some(Command::Put(put))) = parsed(&["put", "-", "--json", "@-", "-", "--base", "v"]) else { panic!() };
        assert_eq!([put.collection.as_str(), &put.id, &put.json_data], ["-", "@-", "-"]);
        assert!(put.json && put.base.as_deref() == Some("v"));
        let Ok(Some(Command::Watch(watch))) = parsed(&["watch", "-", "--", "-a", "--snapshot"]) else { panic!() };
        assert_eq!((watch.collections, watch.snapshot), (vec!["-".into(), "-a".into(), "--snapshot".into()], false));
    }

    #[test]
    fn an_option_no_command_has_is_refused() {
        for arguments in
            [["get", "c", "-x"], ["get", "c", "--id=1"], ["get", "--json=true", "c"], ["get", "c", "--pin"]]
        {
            assert!(parsed(&arguments).expect_err("refused").contains("Unrecognized argument"), "{arguments:?}");
        }
    }

    #[test]
    fn no_command_means_run() {
        assert_eq!(normal(&[]), ["run"]);
        assert_eq!(normal(&["--bind", "x"]), ["run", "--bind", "x"]);
        assert_eq!(normal(&["get", "a", "b"]), ["get", "--", "a", "b"]);
        assert_eq!(normal(&["--help"]), ["--help"]);
    }

    #[test]
    fn a_boolean_may_stand_alone() {
        assert_eq!(normal(&["--pin", "--auto-sync", "false"]), ["run", "--pin", "true", "--auto-sync", "false"]);
        assert_eq!(normal(&["run", "--auto-sync"]), ["run", "--auto-sync", "true"]);
        assert_eq!(normal(&["--auto-sync=false"]), ["run", "--auto-sync", "false"]);
    }

    #[test]
    fn every_command_is_parsed() {
        for command in [
            vec!["put", "c", "i", "-"],
            vec!["watch"],
            vec!["watch", "a", "b", "--snapshot", "--json"],
            vec!["sync", "stop", "--node", "tcp://h:1"],
            vec!["get", "help", "help"],
            vec!["keygen", "--out", "d", "--count", "3"],
            vec!["check", "--pin", "--bind", "1.2.3.4:5"],
            vec!["--pin"],
            vec!["run", "--peer=a@b:1"],
        ] {
            parsed(&command).unwrap_or_else(|words| panic!("{command:?}: {words}"));
        }
    }

    #[test]
    fn help_is_found_behind_arguments_but_not_behind_two_hyphens() {
        assert!(parsed(&["get", "c", "--help"]).expect_err("help").contains("Usage"));
        assert!(parsed(&["get", "c", "--", "--help"]).is_ok());
    }
}

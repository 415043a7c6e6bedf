//! The man page and the example settings file, generated from the definition that parses the arguments.
//!
//! The program prints neither: `cross/packages/pages.rs` writes them for packages, and the linker drops them from the binary.

use std::fmt::Write as _;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind, Optionality, PositionalInfo};

use super::arguments::Arguments;
use crate::config::{Flags, variable};

/// Section of the service's paths, which the definition does not contain.
const FILES: &str = r".SH FILES
.TP
.I /etc/peat\-node/settings
Settings of the service, one variable a line; a reload reads them again.
.TP
.I /etc/peat\-node/peat\-node.env
The service's environment; wins over the settings and counts from a restart on.
.TP
.I /etc/peat\-node/shared.key
The formation key, root's, mode 0600.
.TP
.I /var/lib/peat\-node
The service's identity and documents.
.TP
.I /run/peat\-node/peat\-node.sock
The socket of the service's clients.
.SH SEE ALSO
.BR systemctl (1),
.BR systemd.exec (5)
";

/// Returns the man page peat-node(1) in roff.
#[must_use]
pub fn page() -> String {
    let program = Arguments::get_args_info();
    let mut page = format!(
        ".TH PEAT\\-NODE 1 \"\" \"peat\\-node {}\" \"User Commands\"\n.SH NAME\npeat\\-node \\- {}\n\
         .SH SYNOPSIS\n.B peat\\-node\n.RI [ COMMAND ]\n.RI [ OPTIONS ]\n.SH DESCRIPTION\n",
        env!("CARGO_PKG_VERSION"),
        text(program.description)
    );
    for note in program.notes {
        let _ = writeln!(page, ".P\n{}", line(note));
    }
    page.push_str(".SH OPTIONS\n");
    program.flags.iter().for_each(|flag| option(&mut page, flag));
    page.push_str(".SH COMMANDS\n");
    for (index, named) in program.commands.iter().enumerate() {
        let same = program.commands[..index].iter().find(|earlier| shares_options(&earlier.command, &named.command));
        command(&mut page, named.name, &named.command, same.map(|earlier| earlier.name));
    }
    page.push_str(".SH ENVIRONMENT\nThe options of\n.B run\nas variables:\n");
    for flag in settable() {
        let _ = writeln!(page, ".TP\n.B {}\n{}", text(&variable(flag.long)), line(flag.description));
    }
    page + FILES
}

/// Returns a settings file without effect: every variable in a comment, below its description.
#[must_use]
pub fn settings() -> String {
    let mut file =
        String::from("# Settings of peat-node: every variable, with its default in parentheses. See peat-node(1).\n");
    for flag in settable().filter(|flag| flag.long != "--settings") {
        let _ = writeln!(file, "\n# {}\n#{}=", flag.description.replace('\n', "\n# "), variable(flag.long));
    }
    file
}

/// Iterates over the flags that correspond to a variable.
fn settable() -> impl Iterator<Item = &'static FlagInfo<'static>> {
    Flags::get_args_info().flags.iter().filter(|flag| flag.long.starts_with("--") && flag.long != "--help")
}

/// Returns true if two subcommands have the same options, and more than the common ones of all subcommands that call a node.
fn shares_options(earlier: &CommandInfoWithArgs, later: &CommandInfoWithArgs) -> bool {
    later.flags.len() > 8 && earlier.flags == later.flags
}

/// Writes one subcommand. `same` names an earlier one with the same options.
fn command(page: &mut String, name: &str, command: &CommandInfoWithArgs, same: Option<&str>) {
    let _ = write!(page, ".SS \"{}", text(name));
    for positional in command.positionals {
        let _ = write!(page, " {}", text(&place(positional)));
    }
    let _ = writeln!(page, "\"\n{}", line(command.description));
    for positional in command.positionals {
        let _ = writeln!(page, ".TP\n.I {}\n{}", text(&positional.name.to_uppercase()), line(positional.description));
    }
    match same {
        Some(same) => {
            let _ = writeln!(page, ".P\nTakes the options of\n.BR {} .", text(same));
        }
        None => command.flags.iter().filter(|flag| flag.long != "--help").for_each(|flag| option(page, flag)),
    }
    for note in command.notes {
        let _ = writeln!(page, ".P\n{}", line(note));
    }
}

/// Returns a positional argument in the form used in a synopsis.
fn place(positional: &PositionalInfo<'_>) -> String {
    let name = positional.name.to_uppercase();
    match positional.optionality {
        Optionality::Required => name,
        Optionality::Optional => format!("[{name}]"),
        Optionality::Repeating | Optionality::Greedy => format!("[{name}..]"),
    }
}

fn option(page: &mut String, flag: &FlagInfo<'_>) {
    let short = flag.short.map(|short| format!("-{short}, ")).unwrap_or_default();
    let value = match flag.kind {
        FlagInfoKind::Switch => String::new(),
        FlagInfoKind::Option { arg_name } => format!(" {arg_name}"),
    };
    let names = format!("{short}{}{value}", flag.long);
    let _ = writeln!(page, ".TP\n.B \"{}\"\n{}", text(&names), line(flag.description));
}

/// Escapes text for the inside of a roff line: hyphens that can be copied, literal backslashes.
fn text(words: &str) -> String {
    words.replace('\\', "\\e").replace('-', "\\-").replace('"', "\\(dq").replace('\n', " ")
}

/// Escapes text for the start of a roff line, where a dot or an apostrophe would begin a request.
fn line(words: &str) -> String {
    let text = text(words);
    match text.starts_with(['.', '\'']) {
        true => format!("\\&{text}"),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_every_command_option_and_variable() {
        let page = page();
        for named in Arguments::get_args_info().commands {
            assert!(page.contains(&format!(".SS \"{}", named.name)), "{}", named.name);
            for flag in named.command.flags {
                assert!(flag.long == "--help" || page.contains(&text(flag.long)), "{} {}", named.name, flag.long);
            }
        }
        for flag in settable() {
            assert!(page.contains(&text(&variable(flag.long))), "{}", flag.long);
        }
    }

    #[test]
    fn check_refers_to_run() {
        let page = page();
        let check = page.split(".SS \"check").nth(1).and_then(|rest| rest.split(".SS").next()).expect("check");
        assert!(check.contains("Takes the options of\n.BR run"), "{check}");
    }

    #[test]
    fn no_text_is_taken_for_a_request() {
        assert_eq!(line(".data \\ \"x\" --y"), "\\&.data \\e \\(dqx\\(dq \\-\\-y");
        assert_eq!(line("'quoted'"), "\\&'quoted'");
    }

    #[test]
    fn the_settings_file_names_every_variable_and_sets_none() {
        let file = settings();
        for flag in settable().filter(|flag| flag.long != "--settings") {
            assert!(file.contains(&format!("\n#{}=\n", variable(flag.long))), "{}", flag.long);
        }
        assert!(file.lines().all(|line| line.is_empty() || line.starts_with('#')), "{file}");
    }
}

//! Completion scripts, generated from the definition that parses the arguments.

use std::fmt::Write as _;

use argh::{ArgsInfo, CommandInfoWithArgs, FlagInfo, FlagInfoKind};

use super::arguments::Arguments;

/// Shells with a completion script.
pub const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

const PROGRAM: &str = "peat-node";

/// Returns the script for one of [`SHELLS`].
#[must_use]
pub fn script(shell: &str) -> Option<String> {
    let program = Arguments::get_args_info();
    match shell {
        "bash" => Some(bash(&program)),
        "zsh" => Some(zsh(&program)),
        "fish" => Some(fish(&program)),
        _ => None,
    }
}

fn flags(command: &CommandInfoWithArgs) -> impl Iterator<Item = &FlagInfo<'static>> {
    command.flags.iter().filter(|flag| flag.long.starts_with("--"))
}

fn takes_value(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { .. })
}

/// Returns true if the flag's value is a path.
fn takes_path(flag: &FlagInfo<'_>) -> bool {
    matches!(flag.kind, FlagInfoKind::Option { arg_name: "DIR" | "FILE" })
}

fn names(program: &CommandInfoWithArgs) -> String {
    program.commands.iter().map(|command| command.name).collect::<Vec<_>>().join(" ")
}

fn bash(program: &CommandInfoWithArgs) -> String {
    let mut cases = String::new();
    for command in &program.commands {
        let words: Vec<&str> = flags(&command.command).map(|flag| flag.long).collect();
        let _ = writeln!(cases, "        {}) words=\"{}\" ;;", command.name, words.join(" "));
    }
    format!(
        "_peat_node() {{\n    \
         local current=${{COMP_WORDS[COMP_CWORD]}} words=\"{}\"\n    \
         if [ \"$COMP_CWORD\" -gt 1 ]; then case ${{COMP_WORDS[1]}} in\n{cases}    esac; fi\n    \
         mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n}}\n\
         complete -o default -F _peat_node {PROGRAM}\n",
        names(program)
    )
}

fn zsh(program: &CommandInfoWithArgs) -> String {
    let mut commands = String::new();
    let mut cases = String::new();
    for command in &program.commands {
        let _ = writeln!(commands, "        '{}:{}'", command.name, quoted(command.command.description));
        let _ = write!(cases, "        {}) _arguments", command.name);
        for flag in flags(&command.command) {
            let _ = write!(cases, " '*{}[{}]{}'", flag.long, quoted(flag.description), zsh_value(flag));
        }
        let _ = writeln!(cases, " '*:: :_default' ;;");
    }
    format!(
        "#compdef {PROGRAM}\n_peat_node() {{\n    \
         local -a commands=(\n{commands}    )\n    \
         if (( CURRENT == 2 )); then _describe command commands; return; fi\n    \
         local command=$words[2]\n    shift words; (( CURRENT-- ))\n    \
         case $command in\n{cases}    esac\n}}\n\
         # A file of fpath is run by the first completion.\n\
         if [ \"$funcstack[1]\" = _{PROGRAM} ]; then _peat_node \"$@\"; else compdef _peat_node {PROGRAM}; fi\n"
    )
}

fn zsh_value(flag: &FlagInfo<'_>) -> &'static str {
    match (takes_value(flag), takes_path(flag)) {
        (false, _) => "",
        (true, true) => ":value:_files",
        (true, false) => ":value:",
    }
}

/// Removes characters with a meaning inside single quotes and zsh's brackets.
fn quoted(text: &str) -> String {
    text.replace('\'', "").replace([':', '[', ']'], " ")
}

fn fish(program: &CommandInfoWithArgs) -> String {
    let mut script = String::new();
    let first = "__fish_use_subcommand";
    for command in &program.commands {
        let description = command.command.description.replace('\'', "");
        let _ = writeln!(script, "complete -c {PROGRAM} -n {first} -a {} -d '{description}'", command.name);
        for flag in flags(&command.command) {
            let value = match (takes_value(flag), takes_path(flag)) {
                (false, _) => "",
                (true, true) => " -r",
                (true, false) => " -x",
            };
            let _ = writeln!(
                script,
                "complete -c {PROGRAM} -n '__fish_seen_subcommand_from {}' -l {}{value} -d '{}'",
                command.name,
                flag.long.trim_start_matches('-'),
                flag.description.replace('\'', "")
            );
        }
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_knows_every_command_and_flag() {
        let program = Arguments::get_args_info();
        for shell in SHELLS {
            let script = script(shell).expect("known");
            for command in &program.commands {
                assert!(script.contains(command.name), "{shell}: {}", command.name);
                for flag in flags(&command.command) {
                    let name = flag.long.trim_start_matches('-');
                    assert!(script.contains(name), "{shell}: {} {name}", command.name);
                }
            }
        }
    }

    #[test]
    fn another_shell_has_no_script() {
        assert_eq!(script("tcsh"), None);
    }

    #[test]
    fn bash_accepts_its_script() {
        let script = script("bash").expect("known");
        let status = std::process::Command::new("bash").args(["-n", "-c", &script]).status();
        assert!(status.expect("bash is there").success());
    }
}

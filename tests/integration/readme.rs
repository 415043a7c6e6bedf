//! What the README promises exists, and what exists is in the README.

use argh::ArgsInfo;
use peat_node::cli::arguments::Arguments;
use peat_node::config::{Flags, variable};

const README: &str = include_str!("../../README.md");
const SERVICE: &str = include_str!("../../proto/peat/sidecar/v1/sidecar.proto");

fn is_in_readme(what: &str) -> bool {
    README.contains(&format!("`{what}")) || README.contains(&format!("{what}`"))
}

#[test]
fn every_flag_is_in_the_readme() {
    let info = Flags::get_args_info();
    for flag in info.flags.iter().filter(|flag| flag.long != "--help" && !flag.long.is_empty()) {
        assert!(is_in_readme(flag.long), "{} is missing", flag.long);
        assert!(variable(flag.long).starts_with("PEAT_NODE_"));
    }
}

#[test]
fn every_flag_in_the_readme_exists() {
    let program = Arguments::get_args_info();
    let known: Vec<&str> = program.commands.iter().flat_map(|c| c.command.flags.iter().map(|flag| flag.long)).collect();
    let rows = README.lines().filter_map(|line| line.strip_prefix("| `--")?.split(['`', ' ', '=']).next());
    for flag in rows {
        assert!(known.contains(&format!("--{flag}").as_str()), "--{flag} does not exist");
    }
}

#[test]
fn every_rpc_is_in_the_readme() {
    for rpc in SERVICE.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()) {
        assert!(is_in_readme(rpc), "{rpc} is missing");
    }
}

#[test]
fn every_command_is_in_the_readme() {
    for command in Arguments::get_args_info().commands {
        assert!(is_in_readme(command.name), "{} is missing", command.name);
    }
}

#[test]
fn links_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for link in README.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = link.split('#').next().expect("at least one part");
        assert!(link.starts_with("http") || root.join(path).exists(), "{link}");
    }
}

//! Compares the README and docs/cli.md with the code: everything documented exists, and everything that exists is documented.

use argh::ArgsInfo;
use peat_node::cli::arguments::Arguments;
use peat_node::config::{Flags, variable};

const README: &str = include_str!("../../README.md");
const CLI: &str = include_str!("../../docs/cli.md");
const SERVICE: &str = include_str!("../../proto/peat/sidecar/v1/sidecar.proto");

fn is_on(page: &str, what: &str) -> bool {
    page.contains(&format!("`{what}")) || page.contains(&format!("{what}`"))
}

#[test]
fn every_flag_is_on_the_cli_page() {
    let info = Flags::get_args_info();
    for flag in info.flags.iter().filter(|flag| flag.long != "--help" && !flag.long.is_empty()) {
        assert!(is_on(CLI, flag.long), "{} is missing", flag.long);
        assert!(variable(flag.long).starts_with("PEAT_NODE_"));
    }
}

#[test]
fn every_flag_on_the_cli_page_exists() {
    let program = Arguments::get_args_info();
    let known: Vec<&str> = program.commands.iter().flat_map(|c| c.command.flags.iter().map(|flag| flag.long)).collect();
    let rows = CLI.lines().filter_map(|line| line.strip_prefix("| `--")?.split(['`', ' ', '=']).next());
    for flag in rows {
        assert!(known.contains(&format!("--{flag}").as_str()), "--{flag} does not exist");
    }
}

#[test]
fn every_rpc_is_in_the_readme() {
    for rpc in SERVICE.lines().filter_map(|line| line.trim().strip_prefix("rpc ")?.split('(').next()) {
        assert!(is_on(README, rpc), "{rpc} is missing");
    }
}

#[test]
fn every_command_is_on_the_cli_page() {
    for command in Arguments::get_args_info().commands {
        assert!(is_on(CLI, command.name), "{} is missing", command.name);
    }
}

/// The README starts with the two commands and is short; details are on the linked pages.
#[test]
fn the_readme_is_short() {
    let words = README.split_whitespace().count();
    assert!(words <= 1200, "{words} words");
}

#[test]
fn links_lead_somewhere() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    for (page, folder) in [(README, root.to_path_buf()), (CLI, root.join("docs"))] {
        for link in page.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().expect("at least one part");
            assert!(link.starts_with("http") || folder.join(path).exists(), "{link}");
        }
    }
}

//! Writes what packages have beside the program: the man page, completions and the example settings file, all made from the definition
//! that the command line is parsed by.
//!
//! usage: pages DIR

use std::error::Error;
use std::fs;
use std::path::PathBuf;

use peat_node::cli::{completions, manual};

fn main() -> Result<(), Box<dyn Error>> {
    let directory = PathBuf::from(std::env::args_os().nth(1).ok_or("usage: pages DIR")?);
    fs::create_dir_all(&directory)?;
    fs::write(directory.join("peat-node.1"), manual::page())?;
    fs::write(directory.join("settings"), manual::settings())?;
    for shell in completions::SHELLS {
        let script = completions::script(shell).ok_or("a shell without a script")?;
        fs::write(directory.join(format!("peat-node.{shell}")), script)?;
    }
    Ok(())
}

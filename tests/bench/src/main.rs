//! `make bench`: measures peat-node beside comparable systems and prints one table.
//!
//! Each row ([`row::Row`]) starts the processes it needs, measures the subject and its lower bound alternately, and returns
//! lines of the table. The measured node is the release binary; only what no process can show (a slow disk, an hour of
//! heartbeats, a fleet of twenty nodes) uses the engines as a library.

mod agents;
mod args;
mod bench;
mod database;
mod documents;
mod field;
mod floor;
mod forwarder;
mod mesh;
mod native;
mod node;
mod process;
mod row;
mod rows;
mod sample;
mod served;
mod table;
mod wait;

use std::process::ExitCode;

use args::Command;
use bench_peers::Failure;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(cause) => {
            eprintln!("bench: {cause}");
            ExitCode::FAILURE
        }
    }
}

/// Runs the command; returns true if no line failed.
fn run() -> Result<bool, Failure> {
    match Command::parse(std::env::args().skip(1))? {
        Command::Serve { peer, socket, sizes } => bench_peers::serve(peer, &socket, sizes).map(|()| true),
        Command::List => {
            rows::all().iter().for_each(|row| println!("{:<20} {}", row.name(), row.about()));
            Ok(true)
        }
        Command::Bench(options) => bench::run(&options),
    }
}

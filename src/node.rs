//! The node: opens what it needs, starts its threads, waits for the end, and stops them in order.
//!
//! Owns the process: data directory, signals, threads. Must never touch a document or a datagram; the threads' engines do.
//! `parts.rs` makes the engines and opens the sockets, `wiring.rs` connects them with channels and starts the threads.

mod check;
pub mod data_dir;
mod error;
mod logging;
mod parts;
mod threads;
mod wiring;

use std::time::Duration;

use crossbeam_channel::{Receiver, bounded, select};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

pub use check::{Findings, check};
pub use error::Error;

use self::data_dir::DataDir;
use self::parts::Parts;
use self::threads::Threads;
use crate::config::Config;
use crate::contain::abort_on_panic;

/// How long each thread may take to end.
const STOPPING: Duration = Duration::from_secs(5);

/// Runs a node until it is told to stop by SIGTERM or SIGINT.
///
/// # Errors
/// Why it could not start, or what ended it.
pub fn run(config: &Config) -> Result<(), Error> {
    abort_on_panic();
    logging::start(&config.log);
    let stop = stop_signals()?;
    let data = DataDir::open(&config.data_dir)?;
    let parts = Parts::open(config, &data)?;
    let ready = parts.describe();
    let mut threads = Threads::new(config.pin);
    let running = wiring::start(parts, &mut threads)?;
    log::info!("ready: {ready}");
    let early = select! {
        recv(stop) -> _ => None,
        recv(threads.ended) -> ended => ended.ok(),
    };
    log::info!("stopping");
    running.stop();
    let stopped = threads.wait(early.as_ref().map(|ended| ended.role), STOPPING);
    match early {
        Some(ended) => Err(Error::Thread(ended.role, ended.result.err().unwrap_or_else(|| "by itself".to_owned()))),
        None => stopped,
    }
}

/// A message when the process shall stop; the second signal ends it at once.
fn stop_signals() -> Result<Receiver<()>, Error> {
    let failed = |cause| Error::Machine("watching for signals".to_owned(), cause);
    let mut signals = Signals::new([SIGTERM, SIGINT]).map_err(failed)?;
    let (told, stop) = bounded(1);
    let watch = move || {
        for (earlier, _) in signals.forever().enumerate() {
            if earlier > 0 || told.try_send(()).is_err() {
                std::process::exit(1);
            }
        }
    };
    let started = std::thread::Builder::new().name("peat-signals".to_owned()).spawn(watch);
    started.map(|_| stop).map_err(failed)
}

//! The node process: opens files and sockets, starts the threads, waits, and stops them in order.
//!
//! Owns the process: data directory, signals, threads. Must never touch a document or a datagram; the threads' engines do.
//! `parts.rs` opens the engines and sockets; `wiring.rs` connects them with channels and starts the threads.

mod activation;
mod announcement;
mod check;
pub mod data_dir;
mod error;
mod harden;
mod logging;
mod notify;
mod parts;
mod relay;
mod reload;
mod signals;
mod supervise;
mod threads;
mod wiring;

use std::time::Duration;

pub use check::{CheckReport, check};
pub use error::Error;
pub use relay::run_relay;

pub use logging::dropped_lines;

use self::announcement::Announcement;
use self::data_dir::DataDir;
use self::notify::Manager;
use self::parts::Components;
use self::supervise::Supervisor;
use self::threads::Threads;
use crate::config::{self, Config};
use crate::contain::abort_on_panic;

/// Maximum time for each thread to end.
const STOPPING: Duration = Duration::from_secs(5);

/// Runs a node until SIGTERM or SIGINT. At SIGHUP it applies the settings that `read_again` returns, as far as they can change at
/// run time.
///
/// # Errors
/// The reason for which it could not start, or the failure that ended it.
pub fn run(mut config: Config, read_again: impl Fn() -> Result<Config, config::Error>) -> Result<(), Error> {
    abort_on_panic();
    let _logging = logging::start(&config.log)?;
    harden::harden();
    config.warnings.iter().for_each(|words| log::warn!("{words}"));
    // Comes before anything opens a descriptor; see `activation.rs`.
    let handed = activation::listeners(activation::take()?)?;
    let orders = signals::listen()?;
    let (manager, rhythm) = (Manager::of_this_process(), notify::watchdog());
    let data = DataDir::open(&config.data_dir)?;
    let parts = Components::open(&config, &data, handed)?;
    let ready = parts.describe();
    let _announcement = Announcement::of_this_process(&parts.clients.addresses());
    let mut threads = Threads::new(config.pin);
    let wiring::RunningNode { stop, pulses, outlets } = wiring::start(parts, &mut threads, rhythm)?;
    log::info!("ready: {ready}");
    manager.ready(&ready);
    let supervisor =
        Supervisor { orders: &orders, threads: &threads, manager: &manager, rhythm, pulses, status: ready };
    let early = supervisor.wait(|| outlets.reload(&mut config, read_again()));
    log::info!("stopping");
    manager.stopping();
    // Stopping the api thread ends the others in order; see `wiring::start`.
    stop.stop();
    let stopped = threads.wait(early.as_ref().map(|ended| ended.role), STOPPING);
    match early {
        Some(ended) => Err(Error::Thread(ended.role, ended.result.err().unwrap_or_else(|| "by itself".to_owned()))),
        None => stopped,
    }
}

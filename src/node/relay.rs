//! A relay without a node: one thread, no store, nothing on disk.

use std::time::Duration;

use crossbeam_channel::bounded;

use super::notify::{self, Manager};
use super::parts::RelayPart;
use super::supervise::Supervisor;
use super::threads::Threads;
use super::wiring::ORDERS;
use super::{Error, STOPPING, harden, logging, signals};
use crate::clock::shell::now;
use crate::config::RelayConfig;
use crate::contain::abort_on_panic;
use crate::relay;
use crate::thread_watchdog::ThreadWatchdog;

/// Runs a relay until SIGTERM or SIGINT.
///
/// # Errors
/// The reason for which it could not start, or the failure that ended it.
pub fn run_relay(config: &RelayConfig) -> Result<(), Error> {
    abort_on_panic();
    let _logging = logging::start(&config.log)?;
    harden::harden();
    config.warnings.iter().for_each(|words| log::warn!("{words}"));
    let orders = signals::listen()?;
    let (manager, rhythm) = (Manager::of_this_process(), notify::watchdog());
    let RelayPart { relay, socket, bound } = RelayPart::open(config.listen, &config.key)?;
    let pulse = ThreadWatchdog::new("relay", now().mono, rhythm, Duration::ZERO);
    let ((keeps_going, ordered), (silent, _)) = (bounded(ORDERS), bounded(ORDERS));
    let (waker, pulses) = (socket.waker(), vec![pulse.clone()]);
    let wiring = relay::shell::Wiring { orders: ordered, silent, waiting: None, pulse };
    let mut threads = Threads::new(config.pin);
    threads
        .start("relay", move || relay::shell::run(relay, socket, &wiring, true).map_err(|cause| cause.to_string()))?;
    let status = format!("relay at {bound}");
    log::info!("ready: {status}");
    manager.ready(&status);
    let supervisor = Supervisor { orders: &orders, threads: &threads, manager: &manager, rhythm, pulses, status };
    let early = supervisor.wait(|| log::info!("nothing to reload: a relay's key changes with a restart"));
    log::info!("stopping");
    manager.stopping();
    // The relay ends when its channel is closed, which it notices when it wakes.
    drop(keeps_going);
    waker.wake().map_err(|cause| Error::Machine("waking the relay thread".to_owned(), cause))?;
    let stopped = threads.wait(early.as_ref().map(|ended| ended.role), STOPPING);
    match early {
        Some(ended) => Err(Error::Thread(ended.role, ended.result.err().unwrap_or_else(|| "by itself".to_owned()))),
        None => stopped,
    }
}

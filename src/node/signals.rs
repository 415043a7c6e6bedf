//! Signals to the process.

use crossbeam_channel::{Receiver, TrySendError, bounded};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Error;

/// Meaning of a signal.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Signal {
    /// SIGTERM, SIGINT: stop the node. The second one ends the process at once.
    Stop,
    /// SIGHUP: reload the settings that can change.
    Reload,
}

/// Channels of received signals. Each holds one: a reload that has not begun covers later ones too.
#[derive(Debug)]
pub(super) struct SignalReceivers {
    pub(super) stop: Receiver<()>,
    pub(super) reload: Receiver<()>,
}

/// Starts the thread that receives signals.
pub(super) fn listen() -> Result<SignalReceivers, Error> {
    let failed = |cause| Error::Machine("watching for signals".to_owned(), cause);
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGHUP]).map_err(failed)?;
    let (stops, stop) = bounded(1);
    let (reloads, reload) = bounded(1);
    let watch = move || {
        let mut stopping = false;
        for signal in signals.forever() {
            match order(signal) {
                Signal::Stop if stopping || stops.try_send(()).is_err() => std::process::exit(1),
                Signal::Stop => stopping = true,
                Signal::Reload => match reloads.try_send(()) {
                    Ok(()) | Err(TrySendError::Full(())) => {}
                    Err(TrySendError::Disconnected(())) => log::debug!("no reload: the node is ending"),
                },
            }
        }
    };
    let started = std::thread::Builder::new().name("peat-signals".to_owned()).spawn(watch);
    started.map(|_| SignalReceivers { stop, reload }).map_err(failed)
}

fn order(signal: i32) -> Signal {
    if signal == SIGHUP { Signal::Reload } else { Signal::Stop }
}

//! Questions to other threads that a route needs answered before it can respond.

use std::fmt;
use std::time::Duration;

use super::message::Response;
use crate::api::Engine;
use crate::clock::Now;
use crate::sync::Measured;

/// Time after which a probe responds without the missing answers.
pub(in crate::api) const PATIENCE: Duration = Duration::from_secs(3);

type Answer = fn(&mut Engine, Now, &Probe) -> Response;

/// One probe: the questions, the answers so far, and the function that makes the response.
pub(in crate::api) struct Probe {
    /// True if the store thread is asked to show that it answers.
    pub(in crate::api) of_store: bool,
    /// True if the probe holds one of the places for control requests to the sync thread.
    pub(in crate::api) asked_sync: bool,
    /// True while the store's answer is missing.
    pub(in crate::api) store_owes: bool,
    /// True while the sync thread's answer is missing.
    pub(in crate::api) sync_owes: bool,
    /// Answer of the sync thread.
    pub(in crate::api) measured: Option<Box<Measured>>,
    pub(in crate::api) answer: Answer,
}

impl Probe {
    /// Creates a probe that asks the sync thread for its measurements.
    pub(in crate::api) fn measure(answer: Answer) -> Probe {
        Probe { of_store: false, asked_sync: false, store_owes: false, sync_owes: true, measured: None, answer }
    }

    /// Creates a probe that asks the store and sync threads to show that they answer.
    pub(in crate::api) fn all(answer: Answer) -> Probe {
        Probe { of_store: true, store_owes: true, ..Probe::measure(answer) }
    }

    /// Returns the threads that have not answered.
    pub(in crate::api) fn silent(&self) -> impl Iterator<Item = &'static str> {
        let threads = [(self.store_owes, "store"), (self.sync_owes, "sync")];
        threads.into_iter().filter(|(owes, _)| *owes).map(|(_, thread)| thread)
    }

    pub(in crate::api) fn is_complete(&self) -> bool {
        !self.store_owes && !self.sync_owes
    }
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("store", &self.store_owes).field("sync", &self.sync_owes).finish_non_exhaustive()
    }
}

//! Questions to the other threads that a route's answer is made of.

use std::fmt;
use std::time::Duration;

use super::message::Response;
use crate::api::Engine;
use crate::clock::Now;
use crate::sync::Measured;

/// From a question to the answer without what was asked.
pub(in crate::api) const PATIENCE: Duration = Duration::from_secs(3);

type Answer = fn(&mut Engine, Now, &Probe) -> Response;

/// See the module.
pub(in crate::api) struct Probe {
    /// The store is asked whether it goes round.
    pub(in crate::api) of_store: bool,
    /// The sync thread has a question that it has not answered.
    pub(in crate::api) asked_sync: bool,
    /// What was not answered yet.
    pub(in crate::api) store_owes: bool,
    pub(in crate::api) sync_owes: bool,
    /// What the sync thread says.
    pub(in crate::api) measured: Option<Box<Measured>>,
    pub(in crate::api) answer: Answer,
}

impl Probe {
    /// Asks the sync thread what it measures.
    pub(in crate::api) fn measure(answer: Answer) -> Probe {
        Probe { of_store: false, asked_sync: false, store_owes: false, sync_owes: true, measured: None, answer }
    }

    /// Asks both whether they are there.
    pub(in crate::api) fn all(answer: Answer) -> Probe {
        Probe { of_store: true, store_owes: true, ..Probe::measure(answer) }
    }

    /// The threads that have not answered.
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

//! Keeps a repeated complaint from filling the log.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::Now;

/// The same complaint is logged at most this often.
const INTERVAL: Duration = Duration::from_secs(60);
/// Complaints remembered; past it all are forgotten, so at worst one is logged too early.
const REMEMBERED: usize = 1_024;

/// When each complaint was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    logged: BTreeMap<String, Instant>,
}

impl LogLimit {
    /// Whether this complaint may be logged now.
    pub(crate) fn allows(&mut self, now: Now, complaint: &str) -> bool {
        if self.logged.get(complaint).is_some_and(|at| !now.reached(*at + INTERVAL)) {
            return false;
        }
        if self.logged.len() >= REMEMBERED {
            self.logged.clear();
        }
        self.logged.insert(complaint.to_owned(), now.mono);
        true
    }
}

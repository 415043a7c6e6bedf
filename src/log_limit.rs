//! Rate limit of repeated log messages.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::Now;

/// Minimum interval between two logs of the same message.
const INTERVAL: Duration = Duration::from_secs(60);
/// Maximum number of messages remembered, and therefore of different messages logged per [`INTERVAL`]; further ones, of a crowd
/// of peers for example, are dropped.
const REMEMBERED: usize = 1_024;

/// Time at which each message was last logged.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    logged: BTreeMap<String, Instant>,
}

impl LogLimit {
    /// Returns true if this message may be logged now, and records it.
    pub(crate) fn allows(&mut self, now: Now, complaint: &str) -> bool {
        if self.logged.get(complaint).is_some_and(|at| !now.reached(*at + INTERVAL)) {
            return false;
        }
        if self.logged.len() >= REMEMBERED {
            self.logged.retain(|_, at| !now.reached(*at + INTERVAL));
        }
        if self.logged.len() >= REMEMBERED {
            return false;
        }
        self.logged.insert(complaint.to_owned(), now.mono);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn start() -> Now {
        Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
    }

    #[test]
    fn a_complaint_is_logged_once_a_minute() {
        let (now, mut log) = (start(), LogLimit::default());
        assert!(log.allows(now, "a") && log.allows(now, "b"));
        assert!(!log.allows(now, "a"));
        assert!(log.allows(Now { mono: now.mono + INTERVAL, ..now }, "a"));
    }

    #[test]
    fn complaints_that_all_differ_are_bounded_too() {
        let (now, mut log) = (start(), LogLimit::default());
        let allowed = (0..10 * REMEMBERED).filter(|n| log.allows(now, &n.to_string())).count();
        assert_eq!(allowed, REMEMBERED);
        assert!(log.allows(Now { mono: now.mono + INTERVAL, ..now }, "later"));
    }
}

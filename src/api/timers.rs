//! Deadlines of the engine, in order of time.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::api::ConnectionId;

/// The reason for a wake-up.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wake {
    /// Streams have more to send at once, or the index has more entries to examine.
    Streams,
    /// An agent's silence, a liveness transition to store, or a presence announcement.
    Fleet,
    /// Deadline of a call.
    Call(u64),
    /// A connection is too slow with its first frame, the rest of a frame, or taking a reply.
    Connection(ConnectionId),
}

/// Deadlines ordered by time. The setter keeps the time of its deadline and passes it to change or clear the entry.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Wake)>);

impl Timers {
    /// Moves a deadline from `old` to `new`; `None` means not set.
    pub(super) fn change(&mut self, wake: Wake, old: Option<Instant>, new: Option<Instant>) {
        if old == new {
            return;
        }
        if let Some(old) = old {
            self.0.remove(&(old, wake));
        }
        if let Some(new) = new {
            self.0.insert((new, wake));
        }
    }

    /// Returns the earliest deadline.
    pub(super) fn next(&self) -> Option<(Instant, Wake)> {
        self.0.first().copied()
    }

    /// Removes and returns the earliest deadline if it has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, Wake)> {
        let first = self.next().filter(|(at, _)| *at <= now)?;
        self.0.pop_first();
        Some(first)
    }
}

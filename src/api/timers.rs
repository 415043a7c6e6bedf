//! When the engine wants to be woken, and why.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::api::ConnectionId;

/// Why the engine wants to be woken.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Wake {
    /// Streams have more to send at once, or the store's index has more to look at.
    Streams,
    /// An agent's silence, a transition to store, or an announcement.
    Fleet,
    /// A call's deadline.
    Call(u64),
    /// A connection is too slow: its first frame, the rest of a frame, or taking a reply.
    Connection(ConnectionId),
}

/// Deadlines by time. Whoever set one knows when it was for, and clears it by that.
#[derive(Debug, Default)]
pub(super) struct Timers(BTreeSet<(Instant, Wake)>);

impl Timers {
    /// Moves a deadline from `old` to `new`.
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

    /// The earliest.
    pub(super) fn next(&self) -> Option<(Instant, Wake)> {
        self.0.first().copied()
    }

    /// Takes the earliest one if it has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, Wake)> {
        let first = self.next().filter(|(at, _)| *at <= now)?;
        self.0.pop_first();
        Some(first)
    }
}

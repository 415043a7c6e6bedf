//! The clock seam: what time it is, as told by whoever drives an engine.

use std::time::{Duration, Instant};

/// One reading of the clocks, taken by a shell and handed to every `handle_*` call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Monotonic: deadlines and intervals. Never compared across nodes or processes.
    pub mono: Instant,
    /// Unix time in milliseconds: shown to people, never decides anything. May be 1970, may jump.
    pub wall_ms: i64,
}

impl Now {
    /// Whether `deadline` has come.
    #[must_use]
    pub fn reached(self, deadline: Instant) -> bool {
        self.mono >= deadline
    }

    /// The monotonic time `delay` from now.
    #[must_use]
    pub fn after(self, delay: Duration) -> Instant {
        self.mono + delay
    }
}

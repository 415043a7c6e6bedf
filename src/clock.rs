//! Clock seam: the time, as given to an engine by the shell that drives it.

pub mod shell;

use std::fmt;
use std::time::{Duration, Instant};

/// One reading of the clocks, taken by a shell and passed to every `handle_*` call.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Now {
    /// Monotonic time, for deadlines and intervals. Never compared across nodes or processes.
    pub mono: Instant,
    /// Unix time in milliseconds, shown to operators; decides nothing. May be 1970, may jump.
    pub wall_ms: i64,
    /// Milliseconds since this machine started, suspend included; the same in every process of one boot.
    pub boot_ms: u64,
}

impl Now {
    /// Returns true if `deadline` has passed.
    #[must_use]
    pub fn reached(self, deadline: Instant) -> bool {
        self.mono >= deadline
    }

    /// Returns the monotonic time `delay` from now.
    #[must_use]
    pub fn after(self, delay: Duration) -> Instant {
        self.mono + delay
    }

    /// Returns the monotonic time at which [`Now::boot_ms`] will be `boot_ms` if the machine is not suspended; at most an hour
    /// ahead.
    #[must_use]
    pub fn at_boot_ms(self, boot_ms: u64) -> Instant {
        const HOUR_MS: u64 = 3_600_000;
        self.mono + Duration::from_millis(boot_ms.saturating_sub(self.boot_ms).min(HOUR_MS))
    }
}

/// Identity of one start of the machine, as the kernel names it. Values of [`Now::boot_ms`] from different boots are not
/// comparable.
#[derive(Clone, Copy, Default, Eq, PartialEq)]
pub struct BootId(pub [u8; 16]);

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

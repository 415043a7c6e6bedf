//! Limits the transitions stored of one agent: a burst of four, then one per period. The newest is always written in the end.

use std::time::{Duration, Instant};

/// Capacity of the bucket: transitions that may be stored in direct succession.
const BURST: u32 = 4;

/// Token bucket of one agent: each stored transition takes a token, each period adds one.
#[derive(Clone, Copy, Debug)]
pub(super) struct TransitionLimiter {
    left: u32,
    /// Start of the period in progress: the time of the last token added, or of the last take from a full bucket.
    since: Instant,
}

impl TransitionLimiter {
    pub(super) fn full(now: Instant) -> TransitionLimiter {
        TransitionLimiter { left: BURST, since: now }
    }

    /// Returns an empty bucket, for an agent that a restarted node found in its store: the agent will probably reconnect within a
    /// period, and its STALE need then never be stored.
    pub(super) fn empty(now: Instant) -> TransitionLimiter {
        TransitionLimiter { left: 0, since: now }
    }

    /// Returns the earliest time at which the next transition may be stored.
    pub(super) fn ready_at(&self, now: Instant, period: Duration) -> Instant {
        if self.left > 0 { now } else { self.since + period }
    }

    /// Takes the token of a transition that is being stored.
    pub(super) fn take(&mut self, now: Instant, period: Duration) {
        while self.left < BURST && self.since + period <= now {
            self.left += 1;
            self.since += period;
        }
        if self.left == BURST {
            self.since = now;
        }
        self.left = self.left.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_a_period() {
        #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
        let start = Instant::now();
        let period = Duration::from_secs(10);
        let mut damper = TransitionLimiter::full(start);
        for _ in 0..BURST {
            assert_eq!(damper.ready_at(start, period), start);
            damper.take(start, period);
        }
        assert_eq!(damper.ready_at(start, period), start + period);
        damper.take(start + period, period);
        assert_eq!(damper.ready_at(start + period, period), start + 2 * period);
        damper.take(start + 100 * period, period);
        assert_eq!(damper.ready_at(start + 100 * period, period), start + 100 * period, "rest fills the bucket");
    }
}

//! Watchdog of the threads: detects a loop that no longer runs.
//!
//! A thread stamps its [`ThreadWatchdog`] in each iteration of its loop, and the main thread checks the stamps ([`crate::node`]). An idle
//! thread wakes up for this only under a watchdog of the service manager; without one no thread does, and silence means nothing.
//! Must never block: a stamp is one store to memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::Histogram;

/// Checks, and wake-ups of an idle thread, per watchdog interval.
pub const BEATS: u32 = 3;

/// Interval of the watchdog, in which each thread must stamp.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct WatchdogInterval {
    interval: Duration,
}

impl WatchdogInterval {
    /// Returns the rhythm of a watchdog that fires after `interval` without a sign of life.
    #[must_use]
    pub fn new(interval: Duration) -> WatchdogInterval {
        WatchdogInterval { interval }
    }

    /// Returns the time between two checks, which is also the longest wait of an idle thread.
    #[must_use]
    pub fn beat(&self) -> Duration {
        self.interval / BEATS
    }
}

/// Signs of life of one thread.
#[derive(Debug)]
pub struct ThreadWatchdog {
    role: &'static str,
    start: Instant,
    /// Time of the last stamp, in milliseconds after `start`.
    last: AtomicU64,
    /// Start of the iteration in progress, in microseconds after `start`; 0 while the thread waits.
    woke: AtomicU64,
    turns: Histogram,
    late: AtomicBool,
    rhythm: Option<WatchdogInterval>,
    patience: Duration,
}

impl ThreadWatchdog {
    /// Creates the pulse of the thread with this role. It is late after a whole interval of the watchdog, or after `patience` if
    /// that is longer. Without a rhythm it is never late.
    #[must_use]
    pub fn new(
        role: &'static str,
        now: Instant,
        rhythm: Option<WatchdogInterval>,
        patience: Duration,
    ) -> Arc<ThreadWatchdog> {
        let patience = patience.max(rhythm.map_or(Duration::ZERO, |rhythm| rhythm.interval));
        Arc::new(ThreadWatchdog {
            role,
            start: now,
            last: AtomicU64::new(0),
            woke: AtomicU64::new(0),
            turns: Histogram::default(),
            late: AtomicBool::new(false),
            rhythm,
            patience,
        })
    }

    /// Returns the role of the thread.
    #[must_use]
    pub fn role(&self) -> &'static str {
        self.role
    }

    /// Records that the loop has completed an iteration and waits for an event.
    pub fn stamp(&self, now: Instant) {
        let since = now.saturating_duration_since(self.start);
        self.last.store(u64::try_from(since.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
        let woke = self.woke.load(Ordering::Relaxed);
        if woke != 0 {
            self.woke.store(0, Ordering::Relaxed);
            self.turns.note(since.saturating_sub(Duration::from_micros(woke)));
        }
    }

    /// Records that an event has arrived. Further events wait until the next stamp.
    pub fn woke(&self, now: Instant) {
        let micros = now.saturating_duration_since(self.start).as_micros();
        self.woke.store(u64::try_from(micros).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// Returns the durations of the iterations, without waiting: the delay that the thread imposes on its callers.
    #[must_use]
    pub fn turns(&self) -> &Histogram {
        &self.turns
    }

    /// Shortens the wait of an idle loop, so that it stamps often enough.
    #[must_use]
    pub fn shorten(&self, wait: Option<Duration>) -> Option<Duration> {
        let longest = self.rhythm.map(|rhythm| rhythm.beat());
        wait.into_iter().chain(longest).min()
    }

    /// Returns the time since the last stamp if it is too long, and records the result for [`ThreadWatchdog::is_late`].
    #[must_use]
    pub fn check(&self, now: Instant) -> Option<Duration> {
        let last = self.start + Duration::from_millis(self.last.load(Ordering::Relaxed));
        let silence = now.saturating_duration_since(last);
        let late = self.rhythm.is_some() && silence > self.patience;
        self.late.store(late, Ordering::Relaxed);
        late.then_some(silence)
    }

    /// Returns true if the thread was late at the last check.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::shell::now;
    use crate::metrics::{MetricKind, Text};

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_thread_that_does_not_go_round_for_an_interval_is_late_until_it_does() {
        let start = now().mono;
        let pulse = ThreadWatchdog::new("test", start, Some(WatchdogInterval::new(30 * SECOND)), Duration::ZERO);
        assert_eq!(pulse.check(start + 30 * SECOND), None);
        assert_eq!(pulse.check(start + 31 * SECOND), Some(31 * SECOND));
        assert!(pulse.is_late());
        pulse.stamp(start + 31 * SECOND);
        assert_eq!(pulse.check(start + 60 * SECOND), None);
        assert!(!pulse.is_late());
    }

    #[test]
    fn a_turn_is_from_waking_up_to_the_next_stamp_and_waiting_is_none() {
        let start = now().mono;
        let pulse = ThreadWatchdog::new("test", start, None, Duration::ZERO);
        pulse.stamp(start + SECOND);
        pulse.woke(start + 3 * SECOND);
        pulse.stamp(start + 4 * SECOND);
        pulse.stamp(start + 9 * SECOND);
        let mut text = Text::default();
        text.family("turn_seconds", MetricKind::Histogram, "").histogram(&[], pulse.turns());
        assert!(text.finish().ends_with("_sum 1.000000\npeat_node_turn_seconds_count 1\n"));
    }

    #[test]
    fn a_thread_that_waits_for_others_may_be_given_more_patience() {
        let start = now().mono;
        let pulse = ThreadWatchdog::new("test", start, Some(WatchdogInterval::new(SECOND)), 90 * SECOND);
        assert_eq!(pulse.check(start + 90 * SECOND), None);
        assert!(pulse.check(start + 91 * SECOND).is_some());
    }

    #[test]
    fn without_a_watchdog_nobody_is_woken_and_nobody_is_late() {
        let start = now().mono;
        let pulse = ThreadWatchdog::new("test", start, None, Duration::ZERO);
        assert_eq!((pulse.shorten(None), pulse.shorten(Some(90 * SECOND))), (None, Some(90 * SECOND)));
        assert_eq!(pulse.check(start + 1000 * SECOND), None);
    }

    #[test]
    fn an_idle_thread_wakes_up_three_times_an_interval_and_not_later_than_it_wanted() {
        let pulse = ThreadWatchdog::new("test", now().mono, Some(WatchdogInterval::new(30 * SECOND)), Duration::ZERO);
        assert_eq!(pulse.shorten(None), Some(10 * SECOND));
        assert_eq!(pulse.shorten(Some(60 * SECOND)), Some(10 * SECOND));
        assert_eq!(pulse.shorten(Some(SECOND)), Some(SECOND));
    }
}

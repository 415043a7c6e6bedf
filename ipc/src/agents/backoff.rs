//! Randomised exponential delay between connection attempts.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);

/// Exponential backoff with jitter: each pause is drawn uniformly between 500 ms and an upper bound that starts at 1 s and
/// doubles up to 30 s. The jitter keeps a fleet from reconnecting all at once.
#[derive(Debug)]
pub(crate) struct Backoff {
    next: Duration,
    random: RandomState,
    pauses: u64,
}

impl Default for Backoff {
    fn default() -> Backoff {
        Backoff { next: LEAST, random: RandomState::new(), pauses: 0 }
    }
}

impl Backoff {
    pub(crate) fn reset(&mut self) {
        self.next = LEAST;
    }

    /// Raises the upper bound to its maximum, for failures that a quick retry cannot mend.
    pub(crate) fn slow_down(&mut self) {
        self.next = MOST;
    }

    pub(crate) fn pause(&mut self) -> Duration {
        self.pauses += 1;
        let span = (self.next * 2).min(MOST) - LEAST;
        self.next = (self.next * 2).min(MOST);
        // The hasher's keys come from the system's random source.
        let random = u32::try_from(self.random.hash_one(self.pauses) >> 32).unwrap_or(0);
        LEAST + span.mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_from_half_a_second_to_at_most_thirty() {
        let mut backoff = Backoff::default();
        assert!((LEAST..=2 * LEAST).contains(&backoff.pause()));
        for _ in 0..50 {
            assert!((LEAST..=MOST).contains(&backoff.pause()));
        }
        assert_eq!(backoff.next, MOST);
        backoff.reset();
        assert!((LEAST..=2 * LEAST).contains(&backoff.pause()));
    }
}

//! How long to wait before the next try.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::time::Duration;

const LEAST: Duration = Duration::from_millis(500);
const MOST: Duration = Duration::from_secs(30);

/// Half a second at first, twice as long each time up to 30 s, and a random part of that, so that a fleet does not come back
/// all at once.
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

    /// There is no hurry.
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

//! Histogram of durations in a few fixed buckets, from operations in memory to delays that a user notices.

use std::time::Duration;

use super::Figure;

/// Upper bounds of the buckets, in microseconds. One more bucket counts longer durations.
pub(super) const BOUNDS_MICROS: [u64; 8] = [100, 1_000, 5_000, 25_000, 100_000, 500_000, 2_500_000, 10_000_000];

/// Durations by bucket.
#[derive(Debug, Default)]
pub struct Histogram {
    buckets: [Figure; BOUNDS_MICROS.len() + 1],
    sum_micros: Figure,
}

impl Histogram {
    /// Records one duration.
    pub fn note(&self, duration: Duration) {
        let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS_MICROS.partition_point(|bound| *bound < micros);
        self.buckets[bucket].add(1);
        self.sum_micros.add(micros);
    }

    /// Returns true if no duration was recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|bucket| bucket.get() == 0)
    }

    /// Iterates over the number of durations up to each bound; the last is the total.
    pub(super) fn cumulated(&self) -> impl Iterator<Item = u64> {
        self.buckets.iter().scan(0, |sum, bucket| {
            *sum += bucket.get();
            Some(*sum)
        })
    }

    pub(super) fn sum_micros(&self) -> u64 {
        self.sum_micros.get()
    }
}

//! Metrics of the node, in Prometheus' format.
//!
//! Owns the counting where events occur (plain atomics, never a lock) and the output (text format 0.0.4). Must never decide
//! anything: metrics are read only to be displayed.

mod histogram;
mod instruments;
mod rpcs;
mod text;

pub use histogram::Histogram;
pub use instruments::{Channel, Instruments};
pub use rpcs::Rpcs;
pub use text::{Family, MetricKind, Text, Value};

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// Adds `count`.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// Replaces the value.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Returns the value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

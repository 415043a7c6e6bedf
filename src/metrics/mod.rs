//! Figures about the node, as Prometheus reads them.
//!
//! Owns how figures are counted where things happen (plain atomics, never a lock) and how they are written down
//! (text format 0.0.4). Must never decide anything: nothing in the node reads a figure but who shows it.

mod histogram;
mod instruments;
mod rpcs;
mod text;

pub use histogram::Histogram;
pub use instruments::{Channel, Instruments};
pub use rpcs::Rpcs;
pub use text::{Family, Kind, Text, Value};

use std::sync::atomic::{AtomicU64, Ordering};

/// A figure that one thread changes and others read.
#[derive(Debug, Default)]
pub struct Figure(AtomicU64);

impl Figure {
    /// So many more.
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    /// As it is now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

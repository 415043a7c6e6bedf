//! Metrics that only the shell can see: the depth of channels, and the progress of threads.

use std::fmt;
use std::sync::Arc;

use crate::thread_watchdog::ThreadWatchdog;

/// A channel between threads: its name, its capacity, and its current depth.
pub struct Channel {
    /// Name in the metrics, for example `store_requests`.
    pub name: &'static str,
    /// Capacity, in messages.
    pub room: usize,
    /// Returns the number of messages in it now.
    pub depth: Box<dyn Fn() -> usize + Send>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.name).field("room", &self.room).finish_non_exhaustive()
    }
}

/// Metrics passed to the engine that displays them. Reading them reads no clock.
#[derive(Debug, Default)]
pub struct Instruments {
    /// Channels between threads.
    pub channels: Vec<Channel>,
    /// Stamps and loop durations of threads.
    pub threads: Vec<Arc<ThreadWatchdog>>,
    /// Returns the number of log lines dropped so far; `None` if that is unknown.
    pub dropped_log_lines: Option<fn() -> u64>,
}

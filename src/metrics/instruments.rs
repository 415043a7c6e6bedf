//! What only the shell can see: how full channels are, and how threads go round.

use std::fmt;
use std::sync::Arc;

use crate::pulse::Pulse;

/// A channel: its name, its room, and what says how much is in it.
pub struct Channel {
    /// `store_requests`.
    pub name: &'static str,
    /// Messages it takes.
    pub room: usize,
    /// Messages in it now.
    pub depth: Box<dyn Fn() -> usize + Send>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("name", &self.name).field("room", &self.room).finish_non_exhaustive()
    }
}

/// Handed to the engine that shows them. Reading them reads no clock.
#[derive(Debug, Default)]
pub struct Instruments {
    /// Channels between threads.
    pub channels: Vec<Channel>,
    /// Threads.
    pub threads: Vec<Arc<Pulse>>,
    /// Log lines that were dropped so far; `None`: not known.
    pub dropped_log_lines: Option<fn() -> u64>,
}

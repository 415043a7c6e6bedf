//! What every row has in common.

use bench_peers::Failure;

use crate::bench::Bench;
use crate::table::Line;

/// One thing to measure.
pub(crate) trait Row: Send {
    /// For `--row`.
    fn name(&self) -> &'static str;

    /// What is measured, in a few words.
    fn about(&self) -> &'static str;

    /// Measures; every target missed is a line that says so, not an error.
    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure>;
}

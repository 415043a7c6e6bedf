//! The interface of a row.

use bench_peers::Failure;

use crate::bench::Bench;
use crate::table::Line;

/// One measurement.
pub(crate) trait Row: Send {
    /// Name for `--row`.
    fn name(&self) -> &'static str;

    /// Short description.
    fn about(&self) -> &'static str;

    /// Measures. A missed target is a line with that verdict, not an error.
    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure>;
}

//! Size of the program.

use std::fs;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

/// The stripped release binary.
pub(crate) struct Binary;

impl Row for Binary {
    fn name(&self) -> &'static str {
        "size"
    }

    fn about(&self) -> &'static str {
        "stripped release binary"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let bytes = fs::metadata(&bench.node)?.len() as f64;
        let limit = Target::AtMost(Figure::Bytes(6.0 * 1_048_576.0));
        let mut lines = vec![Line::absolute("release binary", Figure::Bytes(bytes), limit)];
        if let Some(bare) = &bench.without_http {
            let without = fs::metadata(bare)?.len() as f64;
            let figure = Figure::Bytes(bytes - without);
            let most = Target::AtMost(Figure::Bytes(500_000.0));
            lines.push(Line::absolute("of it HTTP", figure, most).beside("what --no-default-features saves"));
        }
        Ok(lines)
    }
}

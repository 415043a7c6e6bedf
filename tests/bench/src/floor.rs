//! The disk's floor: what no durable write can be faster than.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use bench_peers::Failure;

use crate::bench::Bench;

/// A file that grows by 400 bytes and a sync at a time.
pub(crate) struct Appender {
    file: File,
}

impl Appender {
    pub(crate) fn new(bench: &Bench) -> Result<Appender, Failure> {
        let path = bench.directory("append")?.join("log");
        Ok(Appender { file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// Appends 400 bytes, syncs, and says how many seconds that took.
    pub(crate) fn append(&mut self) -> Result<f64, Failure> {
        let begun = Instant::now();
        self.file.write_all(&[0x5a; 400])?;
        self.file.sync_data()?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

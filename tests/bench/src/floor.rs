//! The disk's lower bound on the duration of a durable write.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::time::Instant;

use bench_peers::Failure;

use crate::bench::Bench;

/// A file that grows by 400 bytes per sync.
pub(crate) struct Appender {
    file: File,
}

impl Appender {
    pub(crate) fn new(bench: &Bench) -> Result<Appender, Failure> {
        let path = bench.directory("append")?.join("log");
        Ok(Appender { file: OpenOptions::new().create(true).append(true).open(path)? })
    }

    /// Appends 400 bytes and syncs; returns the duration in seconds.
    pub(crate) fn append(&mut self) -> Result<f64, Failure> {
        let begun = Instant::now();
        self.file.write_all(&[0x5a; 400])?;
        self.file.sync_data()?;
        Ok(begun.elapsed().as_secs_f64())
    }
}

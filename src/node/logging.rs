//! Log lines on stderr: with a time for terminals, with a priority for the journal (sd-daemon(3)), which has its own time.
//!
//! Logging never blocks: a line enters a bounded queue, and the thread `peat-log` writes it. When the reader of stderr falls
//! behind by [`LINES`], further lines are dropped and counted; the thread logs their number once it can write again.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use log::{Level, Record};

use super::Error;
use crate::stderr;

/// Capacity of the queue, in lines.
const LINES: usize = 1_024;
/// Maximum length of a line, in bytes; the rest is cut off. A pipe accepts this size in one piece.
const LINE_BYTES: usize = stderr::CHUNK_BYTES;

/// Lines dropped since the start of the process.
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Returns the number of lines that were dropped because stderr was not ready.
#[must_use]
pub fn dropped_lines() -> u64 {
    DROPPED.load(Ordering::Relaxed)
}

#[derive(Debug)]
enum LogEntry {
    Line(Vec<u8>),
    /// Replied to once every earlier line has been written.
    Flush(Sender<()>),
}

/// Handle of the logging. Dropping it waits for queued lines, no longer than [`stderr::LAST_WORDS`].
#[derive(Debug)]
pub(super) struct Logging {
    queue: Sender<LogEntry>,
}

/// Starts logging the records that pass `filter`.
pub(super) fn start(filter: &str) -> Result<Logging, Error> {
    let (queue, entries) = bounded(LINES);
    let thread = std::thread::Builder::new().name("peat-log".to_owned());
    let started = thread.spawn(move || run(&entries, &mut |bytes| stderr::write(bytes, None)));
    started.map_err(|cause| Error::Machine("starting the thread peat-log".to_owned(), cause))?;
    let mut builder = env_logger::Builder::new();
    let target = env_logger::Target::Pipe(Box::new(Lines { queue: queue.clone(), dropped: &DROPPED }));
    builder.parse_filters(filter).target(target);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), line(record)));
    } else {
        builder.format(|out, record| {
            let time = out.timestamp_millis();
            writeln!(out, "{time} {:5} {}", record.level(), line(record))
        });
    }
    // This fails only for a second start in one process, and then logging works already.
    let _ = builder.try_init();
    Ok(Logging { queue })
}

impl Drop for Logging {
    fn drop(&mut self) {
        let (done, flushed) = bounded(1);
        if self.queue.send_timeout(LogEntry::Flush(done), stderr::LAST_WORDS).is_ok() {
            // After the timeout the lines are lost, because the process must end.
            let _ = flushed.recv_timeout(stderr::LAST_WORDS);
        }
    }
}

/// Body of the thread, which ends when no logger is left.
fn run(entries: &Receiver<LogEntry>, write: &mut dyn FnMut(&[u8])) {
    let mut reported = dropped_lines();
    for entry in entries {
        match entry {
            LogEntry::Line(line) => write(&line),
            LogEntry::Flush(done) => drop(done.send(())),
        }
        let dropped = dropped_lines();
        // The warning needs a free slot itself, so it waits until the queue is empty.
        if dropped != reported && entries.is_empty() {
            log::warn!("{} log lines dropped: standard error accepted no more", dropped - reported);
            reported = dropped;
        }
    }
}

/// Target of the logger, which calls `write` once per formatted line.
struct Lines {
    queue: Sender<LogEntry>,
    dropped: &'static AtomicU64,
}

impl Write for Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = match line.len() {
            ..=LINE_BYTES => line.to_vec(),
            _ => [&line[..LINE_BYTES - 1], b"\n"].concat(),
        };
        if self.queue.try_send(LogEntry::Line(kept)).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn line(record: &Record<'_>) -> String {
    let module = record.target().trim_start_matches("peat_node::");
    // Text of other nodes and clients may be in the message, and must not look like another line.
    let text = record.args().to_string().replace(char::is_control, " ");
    format!("{module}: {text}")
}

/// Returns the syslog priority of a level.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static COUNTED: AtomicU64 = AtomicU64::new(0);

    #[test]
    fn a_full_queue_drops_lines_and_counts_them_and_never_waits() {
        let (queue, entries) = bounded(2);
        let mut lines = Lines { queue, dropped: &COUNTED };
        for line in ["a\n", "b\n", "c\n", "d\n"] {
            assert_eq!(lines.write(line.as_bytes()).expect("taken"), 2);
        }
        assert_eq!((entries.len(), COUNTED.load(Ordering::Relaxed)), (2, 2));
    }

    #[test]
    fn a_long_line_is_cut_and_stays_one_line() {
        let (queue, entries) = bounded(1);
        let long = vec![b'x'; 3 * LINE_BYTES];
        assert_eq!(Lines { queue, dropped: &COUNTED }.write(&long).expect("taken"), long.len());
        let Ok(LogEntry::Line(kept)) = entries.try_recv() else { panic!("a line") };
        assert_eq!((kept.len(), kept.last()), (LINE_BYTES, Some(&b'\n')));
    }

    #[test]
    fn lines_are_written_in_order_before_a_flush_is_answered() {
        let (queue, entries) = bounded(3);
        let (done, flushed) = bounded(1);
        for entry in [LogEntry::Line(b"a".into()), LogEntry::Line(b"b".into()), LogEntry::Flush(done)] {
            queue.send(entry).expect("room");
        }
        drop(queue);
        let mut written = Vec::new();
        run(&entries, &mut |bytes| written.extend_from_slice(bytes));
        assert_eq!((written.as_slice(), flushed.try_recv()), (b"ab".as_slice(), Ok(())));
    }
}

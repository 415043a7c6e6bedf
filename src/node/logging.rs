//! Log lines on stderr: with a time for people, with a priority for the journal (sd-daemon(3)), which has its own time.

use std::io::Write;

use log::{Level, Record};

/// Starts logging what `filter` lets through.
pub(super) fn start(filter: &str) {
    let mut builder = env_logger::Builder::new();
    builder.parse_filters(filter).target(env_logger::Target::Stderr);
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        builder.format(|out, record| writeln!(out, "<{}>{}", priority(record.level()), line(record)));
    } else {
        builder.format(|out, record| {
            let time = out.timestamp_millis();
            writeln!(out, "{time} {:5} {}", record.level(), line(record))
        });
    }
    // Only a second start in one process fails, and then logging works already.
    let _ = builder.try_init();
}

fn line(record: &Record<'_>) -> String {
    let module = record.target().trim_start_matches("peat_node::");
    // What other nodes and clients said may end up in here; it must not look like another line.
    let text = record.args().to_string().replace(char::is_control, " ");
    format!("{module}: {text}")
}

/// The syslog priority.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

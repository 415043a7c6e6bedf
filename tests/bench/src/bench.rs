//! Runs the chosen rows and prints the table.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use bench_peers::Failure;

use crate::args::Options;
use crate::process::kill_children;
use crate::row::Row;
use crate::rows;
use crate::table::{Line, Table};

/// Time for all rows together. Rows after it are not measured.
const ALL_ROWS: Duration = Duration::from_secs(20 * 60);
/// Time for one row: four times what the slowest takes.
const ONE_ROW: Duration = Duration::from_secs(4 * 60);
/// Time in which a row ends once its nodes are gone.
const UNWIND: Duration = Duration::from_secs(10);

/// The environment of a row.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    /// The release binary.
    pub(crate) node: PathBuf,
    /// The release binary without default features.
    pub(crate) without_http: Option<PathBuf>,
    scratch: PathBuf,
}

impl Bench {
    /// Returns `full`, or a tenth of it for a quick run.
    pub(crate) fn times(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// Creates an empty directory on the measured disk.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path.canonicalize()?)
    }
}

/// Runs the rows; returns true if no line failed.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let end = Instant::now() + ALL_ROWS;
    let bench = Arc::new(Bench {
        quick: options.quick,
        node: options.node.clone(),
        without_http: options.without_http.clone(),
        scratch: options.scratch.clone(),
    });
    fs::create_dir_all(&bench.scratch)?;
    let mut table = Table::default();
    let rows = rows::all();
    if let Some(unknown) =
        options.rows.iter().find(|part| !rows.iter().any(|row| row.name().starts_with(part.as_str())))
    {
        return Err(format!("no row's name begins with '{unknown}'; --list names them").into());
    }
    for row in rows.into_iter().filter(|row| chosen(&options.rows, row.name())) {
        let name = row.name();
        eprintln!("{name}: {}", row.about());
        match measure(row, &bench, end.saturating_duration_since(Instant::now()).min(ONE_ROW)) {
            Ok(lines) => lines.into_iter().for_each(|line| table.push(line)),
            Err(cause) => table.push(Line::broken(name, cause.as_str())),
        }
    }
    clear(&bench.scratch)?;
    print!("{table}");
    Ok(table.may_stand())
}

/// Runs a row on a thread, which is given up when it takes longer than `limit`.
fn measure(row: Box<dyn Row>, bench: &Arc<Bench>, limit: Duration) -> Result<Vec<Line>, String> {
    if limit.is_zero() {
        return Err(format!("the rows before took {} minutes", ALL_ROWS.as_secs() / 60));
    }
    let (result, measured) = channel();
    let bench = Arc::clone(bench);
    std::thread::spawn(move || {
        // The receiver is gone once the row was given up.
        let _ = result.send(row.run(&bench).map_err(|cause| cause.to_string()));
    });
    within(&measured, limit)
}

fn within(measured: &Receiver<Result<Vec<Line>, String>>, limit: Duration) -> Result<Vec<Line>, String> {
    match measured.recv_timeout(limit) {
        Ok(lines) => lines,
        Err(RecvTimeoutError::Disconnected) => Err("it panicked".into()),
        Err(RecvTimeoutError::Timeout) => {
            // Without its nodes the row ends, and leaves nothing that the next one would be measured beside.
            kill_children();
            let ended = measured.recv_timeout(UNWIND).is_ok();
            let what = if ended { "" } else { "; it is still running, and disturbs the rows after it" };
            Err(format!("it took longer than {} s{what}", limit.as_secs()))
        }
    }
}

fn chosen(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| name.starts_with(part.as_str()))
}

fn clear(scratch: &Path) -> Result<(), Failure> {
    Ok(fs::remove_dir_all(scratch)?)
}

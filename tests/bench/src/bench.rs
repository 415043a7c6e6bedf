//! Runs the chosen rows and prints the table.

use std::fs;
use std::path::{Path, PathBuf};

use bench_peers::Failure;

use crate::args::Options;
use crate::rows;
use crate::table::{Line, Table};

/// What a row may ask of its surroundings.
pub(crate) struct Bench {
    pub(crate) quick: bool,
    /// The release binary.
    pub(crate) node: PathBuf,
    /// The same without its default features.
    pub(crate) without_http: Option<PathBuf>,
    scratch: PathBuf,
}

impl Bench {
    /// `full` repetitions of something, or a tenth of them when only trying things out.
    pub(crate) fn times(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(10) } else { full }
    }

    /// An empty directory, on the disk that is measured.
    pub(crate) fn directory(&self, name: &str) -> Result<PathBuf, Failure> {
        let path = self.scratch.join(name);
        if path.exists() {
            fs::remove_dir_all(&path)?;
        }
        fs::create_dir_all(&path)?;
        Ok(path.canonicalize()?)
    }
}

/// Whether every line may stand.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let bench = Bench {
        quick: options.quick,
        node: options.node.clone(),
        without_http: options.without_http.clone(),
        scratch: options.scratch.clone(),
    };
    fs::create_dir_all(&bench.scratch)?;
    let mut table = Table::default();
    let rows = rows::all();
    if let Some(unknown) =
        options.rows.iter().find(|part| !rows.iter().any(|row| row.name().starts_with(part.as_str())))
    {
        return Err(format!("no row's name begins with '{unknown}'; --list names them").into());
    }
    for row in rows.iter().filter(|row| chosen(&options.rows, row.name())) {
        eprintln!("{}: {}", row.name(), row.about());
        match row.run(&bench) {
            Ok(lines) => lines.into_iter().for_each(|line| table.push(line)),
            Err(cause) => table.push(Line::broken(row.name(), &*cause)),
        }
    }
    clear(&bench.scratch)?;
    print!("{table}");
    Ok(table.may_stand())
}

fn chosen(wanted: &[String], name: &str) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| name.starts_with(part.as_str()))
}

fn clear(scratch: &Path) -> Result<(), Failure> {
    Ok(fs::remove_dir_all(scratch)?)
}

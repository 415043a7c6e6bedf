//! Command-line arguments.

use std::path::PathBuf;

use bench_peers::{Failure, Peer, Sizes};

const USAGE: &str =
    "usage: peat-bench [--row NAME]... [--quick] [--list] [--node BINARY] [--without-http BINARY] [--dir SCRATCH]
  --row    only rows whose name begins with NAME
  --quick  a tenth of the work: shows that everything runs, not how fast
  --node   the release binary to measure (../../target/release/peat-node)
  --without-http  the same built with --no-default-features, to see what HTTP takes
  --dir    where nodes keep their data; on the disk to be measured (target/data)";

/// The action to perform.
pub(crate) enum Command {
    /// Serves a peer, for a measurement in another process.
    Serve { peer: Peer, socket: PathBuf, sizes: Sizes },
    /// Lists the rows.
    List,
    /// Measures.
    Bench(Options),
}

/// Options of a measurement.
pub(crate) struct Options {
    /// Prefixes of row names; empty for all rows.
    pub(crate) rows: Vec<String>,
    pub(crate) quick: bool,
    pub(crate) node: PathBuf,
    pub(crate) without_http: Option<PathBuf>,
    pub(crate) scratch: PathBuf,
}

impl Command {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Command, Failure> {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
        let node = here.join("../../target/release/peat-node");
        let scratch = here.join("target/data");
        let mut options = Options { rows: Vec::new(), quick: false, node, without_http: None, scratch };
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "serve" => return parse_serve(&mut args),
                "--list" => return Ok(Command::List),
                "--quick" => options.quick = true,
                "--row" => options.rows.push(value(&mut args)?),
                "--node" => options.node = value(&mut args)?.into(),
                "--without-http" => options.without_http = Some(value(&mut args)?.into()),
                "--dir" => options.scratch = value(&mut args)?.into(),
                _ => return Err(format!("unknown argument {arg}\n{USAGE}").into()),
            }
        }
        Ok(Command::Bench(options))
    }
}

fn value(args: &mut impl Iterator<Item = String>) -> Result<String, Failure> {
    args.next().ok_or_else(|| USAGE.into())
}

fn parse_serve(args: &mut impl Iterator<Item = String>) -> Result<Command, Failure> {
    let peer = value(args)?.parse()?;
    let socket = value(args)?.into();
    let sizes = Sizes { request: value(args)?.parse()?, response: value(args)?.parse()? };
    Ok(Command::Serve { peer, socket, sizes })
}

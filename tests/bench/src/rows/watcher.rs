//! Writes of the watcher for an agent without peat-node support.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bench_peers::Failure;
use peat_ipc::Client;
use peat_ipc::sidecar::SubscribeRequest;

use crate::bench::Bench;
use crate::node::Node;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const PACKAGES: usize = 500;
/// Intervals of polls and of heartbeats, in seconds.
const POLL: usize = 1;
const HEARTBEAT: usize = 3;
/// Time without writes after which the watcher counts as dead.
const LOST: Duration = Duration::from_secs(60);

/// A node that watches a fake agent in this process.
pub(crate) struct Watched;

impl Row for Watched {
    fn name(&self) -> &'static str {
        "watcher"
    }

    fn about(&self) -> &'static str {
        "what the watcher writes of 500 packages that do not change, and of one that does"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let stand_in = StandIn::start()?;
        let mut node = Node::new(bench, "watcher")?;
        let times = [POLL, HEARTBEAT].map(|seconds| seconds.to_string());
        let address = format!("http://{}", stand_in.address);
        node.flag("--agent-addr", &address);
        node.flag("--agent-poll-interval", &times[0]);
        node.flag("--heartbeat", &times[1]);
        let mut writes = Writes::of(node.start()?)?;
        while writes.packages < PACKAGES {
            writes.next()?;
        }
        let quiet = writes.count(&stand_in, bench.times(10))?;
        stand_in.change_one();
        let one = writes.count(&stand_in, 2)?;
        if one.packages == 0 {
            return Err("the package that changed was not written".into());
        }
        Ok(lines(&quiet, one.packages))
    }
}

fn lines(quiet: &Counted, changed: usize) -> Vec<Line> {
    let count = |count: usize| Figure::Count(count as f64);
    let periods = (quiet.polls * POLL) as f64 / HEARTBEAT as f64;
    vec![
        Line::absolute("watcher, 500 unchanged packages: packages written", count(quiet.packages), exactly(0))
            .beside(format!("{} polls", quiet.polls))
            .strict(),
        Line::absolute(
            "watcher, 500 unchanged packages: platform writes a heartbeat period",
            Figure::Times(quiet.platforms as f64 / periods),
            Target::at_most_times(1.0),
        )
        .beside(format!("{} in {periods:.0} periods", quiet.platforms))
        .strict(),
        Line::absolute("watcher, one package changed: packages written", count(changed), exactly(1)).strict(),
    ]
}

/// Target for an exact count: a larger one misses it, and a smaller one fails earlier.
fn exactly(count: usize) -> Target {
    Target::AtMost(Figure::Count(count as f64))
}

/// Writes between two heartbeats.
#[derive(Debug, Default)]
struct Counted {
    polls: usize,
    platforms: usize,
    packages: usize,
}

/// All changes of the node's documents, as a subscriber receives them.
struct Writes {
    changes: Receiver<String>,
    packages: usize,
}

impl Writes {
    fn of(client: Client) -> Result<Writes, Failure> {
        let all = SubscribeRequest { snapshot: true, ..SubscribeRequest::default() };
        let mut subscription = client.into_subscription(&all)?;
        let (seen, changes) = sync_channel(1_024);
        std::thread::spawn(move || {
            while let Some(Ok(change)) = subscription.next() {
                if seen.send(change.collection).is_err() {
                    return;
                }
            }
        });
        Ok(Writes { changes, packages: 0 })
    }

    /// Waits for the next write and returns its collection.
    fn next(&mut self) -> Result<String, Failure> {
        let collection = self.changes.recv_timeout(LOST).map_err(|_| "the watcher writes nothing any more")?;
        self.packages += usize::from(collection == "deployments");
        Ok(collection)
    }

    fn until_platform(&mut self) -> Result<(), Failure> {
        while self.next()? != "platforms" {}
        Ok(())
    }

    /// Counts from the next write of the platform to the one `platforms` writes later.
    fn count(&mut self, stand_in: &StandIn, platforms: usize) -> Result<Counted, Failure> {
        let before = self.packages;
        self.until_platform()?;
        let polls = stand_in.polls();
        for _ in 0..platforms {
            self.until_platform()?;
        }
        Ok(Counted { polls: stand_in.polls() - polls, platforms, packages: self.packages - before })
    }
}

/// A fake agent: a small HTTP/1.1 server that answers the watcher's three requests.
struct StandIn {
    address: String,
    said: Arc<Said>,
}

#[derive(Default)]
struct Said {
    polls: AtomicUsize,
    /// Version of the last package.
    version: Mutex<usize>,
}

impl StandIn {
    fn start() -> Result<StandIn, Failure> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?.to_string();
        let said = Arc::new(Said::default());
        let answers = Arc::clone(&said);
        std::thread::spawn(move || {
            for socket in listener.incoming().flatten() {
                // A client that disconnects midway will ask again.
                let _ = answers.serve(socket);
            }
        });
        Ok(StandIn { address, said })
    }

    fn polls(&self) -> usize {
        self.said.polls.load(Ordering::Relaxed)
    }

    fn change_one(&self) {
        *self.said.version.lock().unwrap_or_else(PoisonError::into_inner) += 1;
    }
}

impl Said {
    /// Answers one request and closes the connection.
    fn serve(&self, socket: TcpStream) -> Result<(), Failure> {
        let mut reader = BufReader::new(socket.try_clone()?);
        let head = head(&mut reader)?;
        let length =
            head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        reader.read_exact(&mut vec![0; length.unwrap_or(0)])?;
        let path = head.first().and_then(|line| line.split(' ').nth(1)).ok_or("a request without a path")?;
        let body = self.answer(path);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close";
        write!(&socket, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len())?;
        Ok(())
    }

    fn answer(&self, path: &str) -> String {
        if path == "/status" {
            self.polls.fetch_add(1, Ordering::Relaxed);
            return r#"{"version":"1.2.0","architecture":"amd64","runMode":"k8s"}"#.into();
        }
        if !path.ends_with("/ListPackages") {
            return "{}".into();
        }
        let version = *self.version.lock().unwrap_or_else(PoisonError::into_inner);
        let package = |number: usize| {
            let minor = if number + 1 == PACKAGES { version } else { 0 };
            format!(
                r#"{{"name":"package-{number:03}","version":"1.{minor}.0","status":"DEPLOY_PACKAGE_STATUS_DEPLOYED"}}"#
            )
        };
        format!(r#"{{"packages":[{}]}}"#, (0..PACKAGES).map(package).collect::<Vec<_>>().join(","))
    }
}

/// Returns the lines of a request's head.
fn head(reader: &mut impl BufRead) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            return Ok(lines);
        }
        lines.push(line);
    }
}

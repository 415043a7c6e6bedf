//! Cost of agents that listen to server-sent events and receive only pings.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use bench_peers::Failure;

use crate::bench::Bench;
use crate::node::Node;
use crate::process::memory;
use crate::row::Row;
use crate::table::{Figure, Line, Target};

const LISTENERS: usize = 1_000;
/// Time after which a ping, sent every 15 s, counts as lost.
const LOST: Duration = Duration::from_secs(60);

/// A thousand event streams on one node.
pub(crate) struct EventStreams;

impl Row for EventStreams {
    fn name(&self) -> &'static str {
        "event-streams"
    }

    fn about(&self) -> &'static str {
        "memory of 1,000 idle streams of server-sent events"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut node = Node::new(bench, "event-streams")?;
        node.start()?;
        register(&node)?;
        let before = memory(&node.proc())?.resident;
        let mut streams = (0..LISTENERS).map(|number| listen(&node, number)).collect::<Result<Vec<_>, _>>()?;
        for stream in &mut streams {
            wait_for_line(stream, "event: ping")?;
        }
        let after = memory(&node.proc())?.resident;
        let each = (after - before) / LISTENERS as f64;
        let most = Target::AtMost(Figure::Bytes(8.0 * 1024.0));
        Ok(vec![Line::absolute("memory of an idle stream of events, of 1,000", Figure::Bytes(each), most)])
    }
}

fn connect(node: &Node) -> Result<BufReader<UnixStream>, Failure> {
    let stream = UnixStream::connect(node.socket())?;
    stream.set_read_timeout(Some(LOST))?;
    Ok(BufReader::new(stream))
}

/// Registers the agents, so that registration is not part of the measurement.
fn register(node: &Node) -> Result<(), Failure> {
    let mut stream = connect(node)?;
    for number in 0..LISTENERS {
        let body = format!("{{\"agent_id\":\"a{number}\"}}");
        let head = format!("POST /api/v1/agents HTTP/1.1\r\nhost: node\r\ncontent-length: {}\r\n\r\n", body.len());
        stream.get_mut().write_all(format!("{head}{body}").as_bytes())?;
        let length = wait_for_line(&mut stream, "content-length: ")?;
        wait_for_line(&mut stream, "\r\n")?;
        stream.read_exact(&mut vec![0; length.trim().parse()?])?;
    }
    Ok(())
}

fn listen(node: &Node, number: usize) -> Result<BufReader<UnixStream>, Failure> {
    // A small buffer, so that all streams fit into this process.
    let mut stream = BufReader::with_capacity(512, connect(node)?.into_inner());
    let head = format!("GET /api/v1/agents/a{number}/events HTTP/1.1\r\nhost: node\r\n\r\n");
    stream.get_mut().write_all(head.as_bytes())?;
    wait_for_line(&mut stream, "event: config")?;
    Ok(stream)
}

/// Reads up to the line with this beginning; returns the rest of that line.
fn wait_for_line(stream: &mut impl BufRead, beginning: &str) -> Result<String, Failure> {
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line)? == 0 {
            return Err(format!("the node ended a stream before '{}'", beginning.trim()).into());
        }
        if let Some(rest) = line.strip_prefix(beginning) {
            return Ok(rest.to_owned());
        }
    }
}

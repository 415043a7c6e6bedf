//! HTTP/1.1 over a unix socket: axum with a trivial handler, and a minimal client.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::{Caller, Failure, runtime};

/// GetStatus as Connect clients send it.
const REQUEST: &[u8] = b"POST /peat.sidecar.v1.PeatSidecar/GetStatus HTTP/1.1\r\nHost: localhost\r\n\
    Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

pub(crate) fn serve(path: &Path) -> Result<(), Failure> {
    runtime()?.block_on(async {
        let listener = tokio::net::UnixListener::bind(path)?;
        let app = axum::Router::new().fallback(|| async {});
        Ok(axum::serve(listener, app).await?)
    })
}

/// A pool of open connections, one for each call in flight.
pub(crate) struct Client {
    path: PathBuf,
    connections: Vec<Connection>,
}

struct Connection {
    stream: UnixStream,
    buffer: Vec<u8>,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Result<Client, Failure> {
        Ok(Client { path: path.to_owned(), connections: vec![Connection::open(path)?] })
    }
}

impl Connection {
    fn open(path: &Path) -> Result<Connection, Failure> {
        Ok(Connection { stream: UnixStream::connect(path)?, buffer: Vec::with_capacity(4096) })
    }

    fn ask(&mut self) -> Result<(), Failure> {
        Ok(self.stream.write_all(REQUEST)?)
    }

    /// Reads one complete response.
    fn hear(&mut self) -> Result<(), Failure> {
        self.buffer.clear();
        loop {
            let mut piece = [0; 4096];
            match self.stream.read(&mut piece)? {
                0 => return Err("the connection was closed".into()),
                count => self.buffer.extend_from_slice(&piece[..count]),
            }
            if whole(&self.buffer)? {
                return Ok(());
            }
        }
    }
}

/// Returns true if a response is complete, and an error if it failed.
fn whole(answer: &[u8]) -> Result<bool, Failure> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(false) };
    let text = std::str::from_utf8(&answer[..head])?.to_ascii_lowercase();
    if !text.starts_with("http/1.1 200") {
        return Err(text.into());
    }
    let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).ok_or("no length")?;
    Ok(answer.len() - head - 4 >= length.trim().parse::<usize>()?)
}

impl Caller for Client {
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure> {
        let connection = &mut self.connections[0];
        for _ in 0..calls {
            let begun = Instant::now();
            connection.ask()?;
            connection.hear()?;
            took.push(begun.elapsed());
        }
        Ok(())
    }

    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure> {
        while self.connections.len() < width {
            self.connections.push(Connection::open(&self.path)?);
        }
        let begun = Instant::now();
        self.connections.iter_mut().try_for_each(Connection::ask)?;
        for round in 1..=calls / width {
            for connection in &mut self.connections {
                connection.hear()?;
                if round < calls / width {
                    connection.ask()?;
                }
            }
        }
        Ok(begun.elapsed())
    }
}

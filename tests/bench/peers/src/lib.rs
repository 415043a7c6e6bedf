//! What peat-node is compared with: a bare echo over a unix socket, tonic, ttrpc and axum.
//!
//! Each peer is served by a process of its own with one thread ([`serve`]) and called from the benchmark's process by one
//! connection ([`connect`]), as the node is. All of them move the same status message.

mod echo;
mod grpc;
mod http;
mod pb;
mod tt;

use std::error::Error;
use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

/// Anything that can go wrong in a measurement; it ends the row.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A thing to compare with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// An axum server whose handler does nothing, over HTTP/1.1, current-thread runtime.
    Axum,
    /// Reads as many bytes as a request has and writes as many as an answer has: the floor.
    Echo,
    /// gRPC by tonic over HTTP/2, current-thread runtime.
    Tonic,
    /// ttrpc's asynchronous client and server, current-thread runtime.
    Ttrpc,
}

impl fmt::Display for Peer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Peer::Axum => "axum",
            Peer::Echo => "echo",
            Peer::Tonic => "tonic",
            Peer::Ttrpc => "ttrpc",
        })
    }
}

impl FromStr for Peer {
    type Err = Failure;

    fn from_str(name: &str) -> Result<Peer, Failure> {
        let known = [Peer::Axum, Peer::Echo, Peer::Tonic, Peer::Ttrpc];
        known.into_iter().find(|peer| peer.to_string() == name).ok_or_else(|| format!("no peer {name}").into())
    }
}

/// How many bytes a call moves each way; the echo moves the same.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of one request on the socket.
    pub request: usize,
    /// Bytes of one answer on the socket.
    pub response: usize,
}

/// One client connection to something that answers.
pub trait Caller {
    /// Makes `calls` calls, each after the answer to the one before, and appends how long each took.
    ///
    /// # Errors
    /// A call failed.
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure>;

    /// Makes `calls` calls, keeping `width` of them unanswered, and says how long all took.
    ///
    /// # Errors
    /// A call failed.
    fn in_flight(&mut self, calls: usize, width: usize) -> Result<Duration, Failure>;
}

/// Serves `peer` on the unix socket `path` until the process is killed.
///
/// # Errors
/// The socket cannot be bound.
pub fn serve(peer: Peer, path: &Path, sizes: Sizes) -> Result<(), Failure> {
    match peer {
        Peer::Axum => http::serve(path),
        Peer::Echo => echo::serve(path, sizes),
        Peer::Tonic => grpc::serve(path),
        Peer::Ttrpc => tt::serve(path),
    }
}

/// Connects to a peer served at `path`.
///
/// # Errors
/// Nobody listens there yet.
pub fn connect(peer: Peer, path: &Path, sizes: Sizes) -> Result<Box<dyn Caller>, Failure> {
    Ok(match peer {
        Peer::Axum => connect_http(path)?,
        Peer::Echo => Box::new(echo::Client::connect(path, sizes)?),
        Peer::Tonic => Box::new(grpc::Client::connect(path)?),
        Peer::Ttrpc => Box::new(tt::Client::connect(path)?),
    })
}

/// Connects a client of HTTP/1.1, which calls GetStatus in Connect's JSON, to whoever listens at `path`.
///
/// # Errors
/// Nobody listens there.
pub fn connect_http(path: &Path) -> Result<Box<dyn Caller>, Failure> {
    Ok(Box::new(http::Client::connect(path)?))
}

/// Connects tonic's client, which calls GetStatus, to whoever listens at `path`.
///
/// # Errors
/// Nobody listens there.
pub fn connect_grpc(path: &Path) -> Result<Box<dyn Caller>, Failure> {
    Ok(Box::new(grpc::Client::connect(path)?))
}

/// A runtime as lean as tokio has it: one thread, I/O, no timer.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

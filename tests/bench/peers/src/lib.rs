//! The systems that peat-node is compared with: a bare echo over a unix socket, tonic, ttrpc and axum.
//!
//! Each peer runs in a separate process with one thread ([`serve`]) and is called from the benchmark's process over one
//! connection ([`connect`]), like the node. All of them exchange the same status message.

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

/// Any error in a measurement; it ends the row.
pub type Failure = Box<dyn Error + Send + Sync>;

/// A system to compare with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peer {
    /// An axum server with a trivial handler, over HTTP/1.1, on a current-thread runtime.
    Axum,
    /// A server that reads the bytes of a request and writes the bytes of a response: the lower bound.
    Echo,
    /// gRPC by tonic over HTTP/2, on a current-thread runtime.
    Tonic,
    /// The asynchronous client and server of ttrpc, on a current-thread runtime.
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

/// Bytes that a call moves in each direction, for the echo.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Size of one request on the socket, in bytes.
    pub request: usize,
    /// Size of one response on the socket, in bytes.
    pub response: usize,
}

/// A client connection that makes calls.
pub trait Caller {
    /// Makes `calls` calls one after the other, and appends the duration of each to `took`.
    ///
    /// # Errors
    /// A call failed.
    fn one_by_one(&mut self, calls: usize, took: &mut Vec<Duration>) -> Result<(), Failure>;

    /// Makes `calls` calls with `width` of them in flight, and returns the total duration.
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
/// No server listens there yet.
pub fn connect(peer: Peer, path: &Path, sizes: Sizes) -> Result<Box<dyn Caller>, Failure> {
    Ok(match peer {
        Peer::Axum => connect_http(path)?,
        Peer::Echo => Box::new(echo::Client::connect(path, sizes)?),
        Peer::Tonic => Box::new(grpc::Client::connect(path)?),
        Peer::Ttrpc => Box::new(tt::Client::connect(path)?),
    })
}

/// Connects an HTTP/1.1 client, which calls GetStatus in Connect's JSON, to the server at `path`.
///
/// # Errors
/// No server listens there.
pub fn connect_http(path: &Path) -> Result<Box<dyn Caller>, Failure> {
    Ok(Box::new(http::Client::connect(path)?))
}

/// Connects tonic's client, which calls GetStatus, to the server at `path`.
///
/// # Errors
/// No server listens there.
pub fn connect_grpc(path: &Path) -> Result<Box<dyn Caller>, Failure> {
    Ok(Box::new(grpc::Client::connect(path)?))
}

/// Creates a minimal tokio runtime: one thread.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

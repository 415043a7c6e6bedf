//! Queries agents that speak HTTP/2 alone, by prior knowledge or after ALPN, and those that speak gRPC alone.

use std::io;
use std::net::{TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Request, Uri};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};

use super::exchange::{self, Answer, Socket};
use crate::clock::shell::now;
use crate::watcher::{Failure, Question, grpc};

/// Framing of a method's messages.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Framing {
    /// Connect's JSON: the body is the message.
    Connect,
    /// gRPC with JSON messages, supported by servers built with connect.
    GrpcJson,
    /// gRPC with protobuf messages, supported by every gRPC server.
    Grpc,
}

impl Framing {
    fn content_type(self) -> &'static str {
        match self {
            Framing::Connect => "application/json",
            Framing::GrpcJson => "application/grpc+json",
            Framing::Grpc => "application/grpc",
        }
    }
}

/// URL and TLS configuration of one request.
#[derive(Clone, Debug)]
pub(super) struct Target {
    /// URL with the path of the request.
    pub(super) uri: Uri,
    pub(super) tls: Option<Arc<ClientConfig>>,
}

impl Target {
    /// Queries the agent until `end`.
    ///
    /// # Errors
    /// Those of [`exchange::ask`], and an HTTP or gRPC status other than success.
    pub(super) fn ask(&self, question: Question, framing: Framing, end: Instant) -> Result<Vec<u8>, Failure> {
        let request = self.request(question, framing)?;
        let body = match (question.body(), framing) {
            (None, _) => Vec::new(),
            (Some(body), Framing::Connect) => body.as_bytes().to_vec(),
            (Some(body), Framing::GrpcJson) => grpc::wrap(body.as_bytes()),
            (Some(_), Framing::Grpc) => grpc::wrap(b""),
        };
        let mut socket = self.connect(end)?;
        let answer = exchange::ask(&mut socket, request, body.into(), || left(end))?;
        read(question, framing, answer)
    }

    fn request(&self, question: Question, framing: Framing) -> Result<Request<()>, Failure> {
        let request = Request::builder().uri(self.uri.clone());
        let request = request.header("user-agent", concat!("peat-node/", env!("CARGO_PKG_VERSION")));
        let request = match (question.body(), framing) {
            (None, _) => request.method("GET").header("accept", "application/json"),
            (Some(_), Framing::Connect) => {
                request.method("POST").header("accept", "application/json").header("connect-protocol-version", "1")
            }
            (Some(_), _) => request.method("POST").header("te", "trailers"),
        };
        let request = match question.body() {
            None => request,
            Some(_) => request.header("content-type", framing.content_type()),
        };
        request.body(()).map_err(|error| Failure::Unusable(error.to_string()))
    }

    /// Connects and, over TLS, negotiates HTTP/2.
    pub(super) fn connect(&self, end: Instant) -> Result<Connected, Failure> {
        let unknown = || Failure::Unreachable("its host name is not known".into());
        let host = self.uri.host().ok_or_else(unknown)?.trim_matches(['[', ']']);
        let default = if self.tls.is_some() { 443 } else { 80 };
        let addresses = (host, self.uri.port_u16().unwrap_or(default)).to_socket_addrs().map_err(|_| unknown())?;
        let mut last = unknown();
        for address in addresses {
            match TcpStream::connect_timeout(&address, left(end).ok_or(Failure::TimedOut)?) {
                Ok(stream) => return self.secure(stream, host, end),
                Err(cause) => last = Failure::Unreachable(cause.to_string()),
            }
        }
        Err(last)
    }

    fn secure(&self, mut stream: TcpStream, host: &str, end: Instant) -> Result<Connected, Failure> {
        let Some(tls) = &self.tls else { return Ok(Connected::Plain(stream)) };
        let unreachable = |error: &dyn std::fmt::Display| Failure::Unreachable(error.to_string());
        let name = ServerName::try_from(host.to_owned()).map_err(|error| unreachable(&error))?;
        let mut config = ClientConfig::clone(tls);
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(|error| unreachable(&error))?;
        while connection.is_handshaking() {
            stream.set_timeout(left(end).ok_or(Failure::TimedOut)?).map_err(|error| unreachable(&error))?;
            connection.complete_io(&mut stream).map_err(|error| unreachable(&error))?;
        }
        match connection.alpn_protocol() {
            Some(b"h2") => Ok(Connected::Secured(Box::new(StreamOwned::new(connection, stream)))),
            _ => Err(Failure::Unusable("HTTP/2 is not agreed on".into())),
        }
    }
}

fn read(question: Question, framing: Framing, answer: Answer) -> Result<Vec<u8>, Failure> {
    match answer.status.as_u16() {
        200 => {}
        status @ 300..400 => return Err(Failure::Redirect(status)),
        status => return Err(Failure::Status(status)),
    }
    if question.body().is_none() || framing == Framing::Connect {
        return if grpc::is_answer(&answer.headers) { Err(Failure::OnlyGrpc) } else { Ok(answer.body) };
    }
    let message = grpc::unwrap(&answer.headers, &answer.body, &answer.trailers)?;
    match framing {
        Framing::Grpc => grpc::to_json(question, message),
        // A server without JSON support may ignore the content type and answer in protobuf.
        _ if message.trim_ascii_start().starts_with(b"{") => Ok(message.to_vec()),
        _ => Err(Failure::Unusable("it is not JSON".into())),
    }
}

fn left(end: Instant) -> Option<Duration> {
    end.checked_duration_since(now().mono).filter(|left| !left.is_zero())
}

/// A connection on which HTTP/2 is spoken.
pub(super) enum Connected {
    Plain(TcpStream),
    Secured(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl io::Read for Connected {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Connected::Plain(stream) => stream.read(bytes),
            Connected::Secured(stream) => stream.read(bytes),
        }
    }
}

impl io::Write for Connected {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Connected::Plain(stream) => stream.write(bytes),
            Connected::Secured(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Connected::Plain(stream) => stream.flush(),
            Connected::Secured(stream) => stream.flush(),
        }
    }
}

impl Socket for TcpStream {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        self.set_read_timeout(Some(timeout))?;
        self.set_write_timeout(Some(timeout))
    }
}

impl Socket for Connected {
    fn set_timeout(&mut self, timeout: Duration) -> io::Result<()> {
        match self {
            Connected::Plain(stream) => stream.set_timeout(timeout),
            Connected::Secured(stream) => stream.sock.set_timeout(timeout),
        }
    }
}

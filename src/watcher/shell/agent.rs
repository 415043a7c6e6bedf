//! Requests to the agent, bounded in time and bytes, that follow no redirects and use no proxy.
//!
//! HTTP/1.1 with Connect's JSON is tried first. An agent that rejects HTTP/1.1 is queried over HTTP/2; one that answers JSON with
//! 415, or in gRPC, is queried in gRPC. The protocol that worked is remembered.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;
#[cfg(feature = "http")]
use std::time::Instant;

use ureq::Error;
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

#[cfg(feature = "http")]
use super::http2::{Framing, Target};
use super::tls::Tls;
#[cfg(feature = "http")]
use crate::clock::shell::now;
use crate::config::{AgentUrl, WatcherSettings};
use crate::limits::{WATCHED_ANSWER_BYTES, WATCHED_ANSWER_TIME, WATCHED_HEAD_BYTES};
use crate::watcher::{Failure, Question};

/// First bytes of an HTTP/2 connection (RFC 9113, section 3.4): the preface and an empty SETTINGS frame.
const HTTP2_OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// Time for the other end to show that it speaks HTTP/2, per step of the probe.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// Client of the watched agent, with the protocol that worked last.
#[derive(Debug)]
pub(super) struct Agent {
    http: ureq::Agent,
    url: AgentUrl,
    #[cfg(feature = "http")]
    tls: Option<Arc<rustls::ClientConfig>>,
    /// True if the agent answered over HTTP/2.
    #[cfg(feature = "http")]
    two: bool,
    #[cfg(feature = "http")]
    framing: Framing,
}

impl Agent {
    pub(super) fn new(settings: &WatcherSettings) -> Agent {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(WATCHED_ANSWER_TIME))
            .max_response_header_size(WATCHED_HEAD_BYTES)
            .max_redirects(0)
            .http_status_as_error(false)
            // Proxies in the environment are for the internet; the agent is on this machine or next to it.
            .proxy(None)
            .user_agent(concat!("peat-node/", env!("CARGO_PKG_VERSION")))
            .accept("application/json");
        // The files were found usable when the configuration was read.
        let client = settings.tls.as_ref().and_then(|tls| tls.client().ok()).map(Arc::new);
        let connector = ().chain(TcpConnector::default()).chain(Tls(client.clone()));
        let http = ureq::Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Agent {
            http,
            url: settings.agent.clone(),
            #[cfg(feature = "http")]
            tls: client,
            #[cfg(feature = "http")]
            two: false,
            #[cfg(feature = "http")]
            framing: Framing::Connect,
        }
    }

    /// Returns the body of the answer.
    #[cfg(not(feature = "http"))]
    pub(super) fn ask(&mut self, question: Question) -> Result<Vec<u8>, Failure> {
        match self.ask_one(question) {
            Err(failure) if is_of_version(&failure) && self.speaks_only_http2() => Err(Failure::OnlyHttp2),
            answer => answer,
        }
    }

    /// Returns the body of the answer.
    #[cfg(feature = "http")]
    pub(super) fn ask(&mut self, question: Question) -> Result<Vec<u8>, Failure> {
        let end = now().after(WATCHED_ANSWER_TIME);
        let is_method = question.body().is_some();
        if is_method && self.framing != Framing::Connect {
            match self.ask_two(question, self.framing, end) {
                Ok(body) => return Ok(body),
                // The agent may have been replaced by one with another protocol.
                Err(_) => self.framing = Framing::Connect,
            }
        }
        match self.ask_in_json(question, end) {
            Err(Failure::Status(415) | Failure::OnlyGrpc) if is_method => self.ask_by_grpc(question, end),
            // A server with gRPC alone has no status page. That it answered is all that is known, and an empty status says that.
            Err(Failure::Status(400 | 404 | 405 | 415 | 501) | Failure::OnlyGrpc)
                if !is_method && self.framing != Framing::Connect =>
            {
                Ok(b"{}".to_vec())
            }
            answer => answer,
        }
    }

    #[cfg(feature = "http")]
    fn ask_in_json(&mut self, question: Question, end: Instant) -> Result<Vec<u8>, Failure> {
        if self.two {
            let answer = self.ask_two(question, Framing::Connect, end);
            self.two = is_answer(&answer);
            return answer;
        }
        let answer = self.ask_one(question);
        match &answer {
            Err(failure) if is_of_version(failure) && self.serves_two(end) => {
                let answer = self.ask_two(question, Framing::Connect, end);
                self.two = is_answer(&answer);
                answer
            }
            _ => answer,
        }
    }

    #[cfg(feature = "http")]
    fn ask_by_grpc(&mut self, question: Question, end: Instant) -> Result<Vec<u8>, Failure> {
        let mut answer = Err(Failure::Status(415));
        for framing in [Framing::GrpcJson, Framing::Grpc] {
            answer = self.ask_two(question, framing, end);
            if answer.is_ok() {
                self.framing = framing;
                break;
            }
        }
        answer
    }

    #[cfg(feature = "http")]
    fn ask_two(&self, question: Question, framing: Framing, end: Instant) -> Result<Vec<u8>, Failure> {
        self.target(question.path())?.ask(question, framing, end)
    }

    #[cfg(feature = "http")]
    fn target(&self, path: &str) -> Result<Target, Failure> {
        let uri = self.url.join(path).parse();
        let uri = uri.map_err(|error: http::uri::InvalidUri| Failure::Unreachable(error.to_string()))?;
        Ok(Target { uri, tls: self.tls.clone() })
    }

    /// Returns true if the agent serves HTTP/2.
    #[cfg(feature = "http")]
    fn serves_two(&self, end: Instant) -> bool {
        match self.tls {
            None => self.speaks_only_http2(),
            Some(_) => self.target("/").is_ok_and(|target| target.connect(end).is_ok()),
        }
    }

    fn ask_one(&self, question: Question) -> Result<Vec<u8>, Failure> {
        let url = self.url.join(question.path());
        let answer = match question.body() {
            None => self.http.get(&url).call(),
            Some(body) => {
                let request = self.http.post(&url).header("connect-protocol-version", "1");
                request.content_type("application/json").send(body)
            }
        };
        answer.map_err(failure).and_then(read)
    }

    /// Returns true if the server opens with an HTTP/2 frame, as only a server without HTTP/1.1 does when no upgrade was
    /// requested.
    fn speaks_only_http2(&self) -> bool {
        self.url.plain_authority().is_some_and(|authority| probe(&authority).unwrap_or(false))
    }
}

/// Returns true if a failure may be due to an HTTP version that the server does not speak.
fn is_of_version(failure: &Failure) -> bool {
    matches!(failure, Failure::Unreachable(_) | Failure::Unusable(_) | Failure::Status(_) | Failure::OnlyHttp2)
}

/// Returns true if the server answered, with success or an error.
#[cfg(feature = "http")]
fn is_answer(answer: &Result<Vec<u8>, Failure>) -> bool {
    matches!(answer, Ok(_) | Err(Failure::Status(_) | Failure::Redirect(_) | Failure::TooLarge | Failure::OnlyGrpc))
}

fn probe(authority: &str) -> io::Result<bool> {
    let address = authority.to_socket_addrs()?.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PROBE_TIME)?;
    stream.set_read_timeout(Some(PROBE_TIME))?;
    stream.set_write_timeout(Some(PROBE_TIME))?;
    stream.write_all(HTTP2_OPENING)?;
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    Ok(is_settings(&head))
}

/// Returns true for the head of a SETTINGS frame on stream 0, with which no HTTP/1.1 answer begins.
fn is_settings(head: &[u8; 9]) -> bool {
    head[0] == 0 && head[3] == 4 && head[5..] == [0; 4]
}

fn read(mut answer: Response<ureq::Body>) -> Result<Vec<u8>, Failure> {
    match answer.status().as_u16() {
        200 => {
            let body = answer.body_mut().with_config().limit(WATCHED_ANSWER_BYTES as u64);
            body.read_to_vec().map_err(failure)
        }
        status @ 300..400 => Err(Failure::Redirect(status)),
        status => Err(Failure::Status(status)),
    }
}

fn failure(error: Error) -> Failure {
    match error {
        Error::Timeout(_) => Failure::TimedOut,
        Error::BodyExceedsLimit(_) => Failure::TooLarge,
        Error::LargeResponseHeader(..) => {
            Failure::Unusable(format!("its head is larger than {WATCHED_HEAD_BYTES} bytes, which is the limit"))
        }
        Error::Io(cause) if wants_another_protocol(&cause) => Failure::OnlyHttp2,
        Error::Protocol(cause) => Failure::Unusable(cause.to_string()),
        Error::Io(cause) if cause.kind() == io::ErrorKind::TimedOut => Failure::TimedOut,
        Error::HostNotFound => Failure::Unreachable("its host name is not known".into()),
        error => Failure::Unreachable(error.to_string()),
    }
}

/// Returns true if the server ended the TLS handshake because it requires ALPN, and therefore HTTP/2.
fn wants_another_protocol(error: &io::Error) -> bool {
    use rustls::{AlertDescription, Error};
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
    matches!(cause, Some(Error::AlertReceived(AlertDescription::NoApplicationProtocol)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_http2_settings_frame_is_one() {
        assert!(is_settings(b"\0\0\x12\x04\0\0\0\0\0"));
        assert!(is_settings(b"\0\0\0\x04\0\0\0\0\0"));
        for other in [b"HTTP/1.1 ", b"\0\0\x08\x07\0\0\0\0\0", b"\0\0\0\x04\0\0\0\0\x01", b"\x16\x03\x01\x04\0\0\0\0\0"]
        {
            assert!(!is_settings(other), "{other:?}");
        }
    }
}

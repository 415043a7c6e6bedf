//! The agent's end: HTTP/1.1 requests, bounded in time and bytes, that go nowhere but where they are sent.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use ureq::Error;
use ureq::http::Response;
use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use super::tls::Tls;
use crate::config::{AgentUrl, WatcherSettings};
use crate::limits::{WATCHED_ANSWER_BYTES, WATCHED_ANSWER_TIME, WATCHED_HEAD_BYTES};
use crate::watcher::{Failure, Question};

/// What opens an HTTP/2 connection (RFC 9113, section 3.4): the preface and an empty SETTINGS frame.
const HTTP2_OPENING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// How long the other end may take to show that it speaks HTTP/2.
const PROBE_TIME: Duration = Duration::from_secs(1);

/// The agent as it is asked.
#[derive(Debug)]
pub(super) struct Agent {
    http: ureq::Agent,
    url: AgentUrl,
}

impl Agent {
    pub(super) fn new(settings: &WatcherSettings) -> Agent {
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(WATCHED_ANSWER_TIME))
            .max_response_header_size(WATCHED_HEAD_BYTES)
            .max_redirects(0)
            .http_status_as_error(false)
            // The environment's proxies are for the internet; the agent is next door.
            .proxy(None)
            .user_agent(concat!("peat-node/", env!("CARGO_PKG_VERSION")))
            .accept("application/json");
        // Its files were found usable when the configuration was read.
        let client = settings.tls.as_ref().and_then(|tls| tls.client().ok()).map(Arc::new);
        let connector = ().chain(TcpConnector::default()).chain(Tls(client));
        let http = ureq::Agent::with_parts(config.build(), connector, DefaultResolver::default());
        Agent { http, url: settings.agent.clone() }
    }

    /// The body of the answer.
    pub(super) fn ask(&self, question: Question) -> Result<Vec<u8>, Failure> {
        let url = self.url.join(question.path());
        let answer = match question.body() {
            None => self.http.get(&url).call(),
            Some(body) => {
                let request = self.http.post(&url).header("connect-protocol-version", "1");
                request.content_type("application/json").send(body)
            }
        };
        let answer = answer.map_err(failure).and_then(read);
        match answer {
            Err(Failure::Unreachable(_) | Failure::Unusable(_) | Failure::Status(_)) if self.speaks_only_http2() => {
                Err(Failure::OnlyHttp2)
            }
            answer => answer,
        }
    }

    /// Whether somebody answers there who opens with an HTTP/2 frame, as only a server does that was not asked to upgrade.
    fn speaks_only_http2(&self) -> bool {
        self.url.plain_authority().is_some_and(|authority| probe(&authority).unwrap_or(false))
    }
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

/// A frame of type SETTINGS on stream 0 that no answer in HTTP/1.1 begins with.
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

/// Whether the other end ended the handshake because it wants ALPN, and so HTTP/2.
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

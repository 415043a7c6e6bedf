//! RPCs over HTTP in three protocols: Connect, gRPC and gRPC-Web. Parses the head of a request and encodes the answer.

use std::time::Duration;

use peat_ipc::method::AGENT_LINK;
use peat_ipc::{CallError, Code, Method};

use super::message::{HttpRequest, Response};
use super::{envelope, status};
use crate::limits::HTTP_HEARTBEAT;
use crate::schema::{self, Described, Index};

/// The method that is called.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::api) enum Target {
    Sidecar(Method),
    AgentLink,
    HealthCheck,
    HealthWatch,
    Reflection,
}

impl Target {
    /// Parses `/package.Service/Method`; `None` if the service is not one of this node's.
    pub(in crate::api) fn find(path: &str) -> Option<Result<Target, CallError>> {
        let (service, method) = path.strip_prefix('/')?.split_once('/')?;
        let target = match (service, method) {
            ("peat.sidecar.v1.PeatSidecar", name) => {
                let found = Method::ALL.iter().find(|method| method.name() == name);
                found.map(|method| Target::Sidecar(*method))
            }
            ("peat.agent.v1.AgentLink", "Connect") => Some(Target::AgentLink),
            ("grpc.health.v1.Health", "Check") => Some(Target::HealthCheck),
            ("grpc.health.v1.Health", "Watch") => Some(Target::HealthWatch),
            (
                "grpc.reflection.v1.ServerReflection" | "grpc.reflection.v1alpha.ServerReflection",
                "ServerReflectionInfo",
            ) => Some(Target::Reflection),
            ("peat.agent.v1.AgentLink" | "grpc.health.v1.Health", _) => None,
            _ => return None,
        };
        Some(target.ok_or_else(|| CallError::new(Code::Unimplemented, format!("there is no method {path}"))))
    }

    /// Returns true if the client continues sending while it is answered.
    pub(in crate::api) fn takes_uploads(self) -> bool {
        matches!(self, Target::AgentLink | Target::Reflection)
    }

    fn is_stream(self) -> bool {
        match self {
            Target::Sidecar(method) => method.is_stream(),
            Target::HealthCheck => false,
            Target::AgentLink | Target::HealthWatch | Target::Reflection => true,
        }
    }

    /// Returns true if an empty message may be sent as a heartbeat in the answer.
    fn has_heartbeats(self) -> bool {
        matches!(self, Target::Sidecar(_) | Target::AgentLink) && self.is_stream()
    }

    /// Returns the number of the method in a frame.
    pub(in crate::api) fn number(self) -> u32 {
        match self {
            Target::Sidecar(method) => method.number(),
            _ => AGENT_LINK,
        }
    }

    /// Returns the types of request and response, for methods that support JSON.
    fn messages(self) -> Option<(Index, Index)> {
        match self {
            Target::Sidecar(method) => Some(schema::method(method)),
            Target::AgentLink => Some((peat_ipc::agent::AgentMessage::INDEX, peat_ipc::agent::NodeMessage::INDEX)),
            _ => None,
        }
    }
}

/// The framing of messages, and the place of the final status.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Protocol {
    /// The body is the message; the HTTP status is the outcome.
    ConnectUnary,
    /// Envelopes; the last one holds the outcome.
    ConnectStream,
    /// Envelopes; the trailers hold the outcome.
    Grpc,
    /// Envelopes; the last one holds the outcome, as header lines.
    Web,
    /// As `Web`, in base64.
    WebText,
}

/// One call, with the parameters of its protocol.
#[derive(Clone, Debug)]
pub(in crate::api) struct Rpc {
    protocol: Protocol,
    content_type: String,
    /// Types of request and response if they are JSON.
    json: Option<(Index, Index)>,
    /// True if received messages may be compressed.
    compressed: bool,
    /// True if sent messages may be compressed.
    may_compress: bool,
    pub(in crate::api) deadline_ms: u32,
    /// Interval after which an idle stream sends an empty message; set if the client asked for it.
    pub(in crate::api) heartbeat: Option<Duration>,
}

/// Part of an answer.
#[derive(Debug, Default)]
pub(in crate::api) struct Part {
    pub(in crate::api) bytes: Vec<u8>,
    pub(in crate::api) trailers: Vec<(&'static str, String)>,
}

/// Header by which a client asks for heartbeats, in seconds.
const HEARTBEAT: &str = "peat-heartbeat";
/// Minimum size of a message to be compressed, in bytes; smaller ones gain nothing.
const COMPRESS_BYTES: usize = 1 << 10;

impl Rpc {
    /// Parses the head of a request for `target`.
    ///
    /// # Errors
    /// The response to an invalid request: a method other than POST, or an unsupported content type.
    pub(in crate::api) fn parse(target: Target, request: &HttpRequest, streams: bool) -> Result<Rpc, Box<Response>> {
        if request.method != "POST" {
            return Err(Box::new(Response::text(405, "methods are called with POST").with("allow", "POST")));
        }
        let content_type = request.content_type();
        let unsupported = || {
            let words = format!("content-type '{content_type}' is not understood for this method");
            Box::new(
                Response::text(415, words).with("accept-post", "application/json, application/proto, application/grpc"),
            )
        };
        let (protocol, codec) = protocol(&content_type).ok_or_else(unsupported)?;
        let json = match codec {
            "json" => Some(target.messages().ok_or_else(unsupported)?),
            "proto" => None,
            _ => return Err(unsupported()),
        };
        if (protocol == Protocol::ConnectUnary && target.is_stream())
            || (protocol == Protocol::ConnectStream && !target.is_stream())
        {
            return Err(unsupported());
        }
        // Trailers, and clients that send while they are answered, need HTTP/2.
        if !streams && (protocol == Protocol::Grpc || target.takes_uploads()) {
            return Err(Box::new(Response::text(505, "this call needs HTTP/2")));
        }
        let (sent, accepted, timeout) = match protocol {
            Protocol::ConnectUnary => ("content-encoding", "accept-encoding", "connect-timeout-ms"),
            Protocol::ConnectStream => ("connect-content-encoding", "connect-accept-encoding", "connect-timeout-ms"),
            Protocol::Grpc | Protocol::Web | Protocol::WebText => {
                ("grpc-encoding", "grpc-accept-encoding", "grpc-timeout")
            }
        };
        let mut rpc = Rpc {
            protocol,
            content_type: content_type.clone(),
            json,
            compressed: request.headers.get(sent).is_some_and(|coding| coding == "gzip"),
            may_compress: request.headers.lists(accepted, "gzip"),
            deadline_ms: 0,
            heartbeat: None,
        };
        let refuse = |rpc: &Rpc, code, words: String| Err(Box::new(rpc.refusal(&CallError::new(code, words))));
        if let Some(version) = request.headers.get("connect-protocol-version")
            && version != "1"
        {
            return refuse(
                &rpc,
                Code::InvalidArgument,
                format!("Connect-Protocol-Version is '{version}'; 1 is spoken here"),
            );
        }
        if let Some(coding) = request.headers.get(sent).filter(|coding| !matches!(*coding, "gzip" | "identity" | "")) {
            return refuse(&rpc, Code::Unimplemented, format!("compression '{coding}' is not known here; gzip is"));
        }
        match request.headers.get(timeout).map(|text| milliseconds(timeout, text)) {
            Some(Some(deadline_ms)) => rpc.deadline_ms = deadline_ms,
            Some(None) => return refuse(&rpc, Code::InvalidArgument, format!("{timeout} is not a timeout")),
            None => {}
        }
        match request.headers.get(HEARTBEAT).map(heartbeat) {
            Some(None) => {
                let most = HTTP_HEARTBEAT.as_secs();
                return refuse(&rpc, Code::InvalidArgument, format!("{HEARTBEAT} takes seconds, from 1 to {most}"));
            }
            Some(heartbeat) if target.has_heartbeats() => rpc.heartbeat = heartbeat,
            Some(_) | None => {}
        }
        Ok(rpc)
    }

    /// Decodes a complete body that holds one message; returns it as protobuf.
    pub(in crate::api) fn request(&self, body: &[u8]) -> Result<Vec<u8>, CallError> {
        let message = match self.protocol {
            Protocol::ConnectUnary if self.compressed => envelope::inflate(body)?,
            Protocol::ConnectUnary => body.to_vec(),
            _ => {
                let decoded =
                    if self.protocol == Protocol::WebText { envelope::from_text(body)? } else { body.to_vec() };
                let whole = |error: &str| CallError::new(Code::InvalidArgument, error);
                match envelope::split(&decoded, self.compressed)? {
                    Some((message, used)) if used == decoded.len() => message,
                    Some(_) => return Err(whole("a request has more than one message")),
                    None => return Err(whole("a request has no whole message")),
                }
            }
        };
        self.decode(message)
    }

    /// Decodes the first message of a stream's input, with the bytes it took; `None` while it is incomplete.
    pub(in crate::api) fn upload(&self, bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, CallError> {
        match envelope::split(bytes, self.compressed)? {
            Some((message, used)) => Ok(Some((self.decode(message)?, used))),
            None => Ok(None),
        }
    }

    fn decode(&self, message: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let Some((asked, _)) = self.json else { return Ok(message) };
        // Some clients send an empty body for a message without fields.
        let text = if message.is_empty() { b"{}" } else { message.as_slice() };
        schema::read(asked, text).map_err(|why| CallError::new(Code::InvalidArgument, format!("the request: {why}")))
    }

    fn encode(&self, message: &[u8]) -> Vec<u8> {
        let Some((_, answered)) = self.json else { return message.to_vec() };
        let mut out = Vec::with_capacity(message.len() * 2);
        schema::write(answered, message, schema::Style::Plain, &mut out);
        out
    }

    /// Returns true if the answer is a single body rather than a head, messages and an end.
    pub(in crate::api) fn is_plain(&self) -> bool {
        self.protocol == Protocol::ConnectUnary
    }

    /// Returns the complete answer of a unary Connect call.
    pub(in crate::api) fn whole(&self, result: Result<&[u8], &CallError>) -> Response {
        match result {
            Ok(message) => {
                let body = self.encode(message);
                if self.may_compress && body.len() >= COMPRESS_BYTES {
                    Response::new(200, &self.content_type, envelope::deflate(&body)).with("content-encoding", "gzip")
                } else {
                    Response::new(200, &self.content_type, body)
                }
            }
            Err(error) => Response::json(status(error.code), &connect_error(error)),
        }
    }

    /// Returns an answer that consists of an error.
    pub(in crate::api) fn refusal(&self, error: &CallError) -> Response {
        if self.is_plain() {
            return self.whole(Err(error));
        }
        let end = self.end(Some(error));
        let mut response = Response::new(200, &self.content_type, end.bytes);
        response.headers.extend(end.trailers);
        response
    }

    /// Returns the head of a streamed answer.
    pub(in crate::api) fn head(&self) -> Response {
        let head = Response::stream(200, &self.content_type);
        match self.protocol {
            _ if !self.may_compress => head,
            Protocol::ConnectUnary => head,
            Protocol::ConnectStream => head.with("connect-content-encoding", "gzip"),
            Protocol::Grpc | Protocol::Web | Protocol::WebText => head.with("grpc-encoding", "gzip"),
        }
    }

    /// Encodes one message of a streamed answer.
    pub(in crate::api) fn item(&self, message: &[u8]) -> Vec<u8> {
        let body = self.encode(message);
        let packed = self.may_compress && body.len() >= COMPRESS_BYTES;
        let body = if packed { envelope::deflate(&body) } else { body };
        self.said(envelope::wrap(u8::from(packed), &body))
    }

    /// Encodes the end of a streamed answer.
    pub(in crate::api) fn end(&self, error: Option<&CallError>) -> Part {
        let bytes = match self.protocol {
            Protocol::ConnectUnary => Vec::new(),
            Protocol::ConnectStream => {
                let end = match error {
                    Some(error) => serde_json::json!({ "error": connect_error(error) }).to_string(),
                    None => "{}".to_owned(),
                };
                envelope::wrap(2, end.as_bytes())
            }
            Protocol::Grpc => return Part { bytes: Vec::new(), trailers: grpc_status(error) },
            Protocol::Web | Protocol::WebText => {
                let lines = grpc_status(error).into_iter().map(|(name, value)| format!("{name}: {value}\r\n"));
                self.said(envelope::wrap(0x80, lines.collect::<String>().as_bytes()))
            }
        };
        Part { bytes, trailers: Vec::new() }
    }

    fn said(&self, bytes: Vec<u8>) -> Vec<u8> {
        if self.protocol == Protocol::WebText { envelope::to_text(&bytes) } else { bytes }
    }
}

/// Returns the answer to a call of a method that this node does not have.
pub(in crate::api) fn unimplemented(request: &HttpRequest, error: &CallError) -> Response {
    let content_type = request.content_type();
    if !content_type.starts_with("application/grpc") {
        return Response::json(404, &connect_error(error));
    }
    let mut response = Response::new(200, &content_type, "");
    response.headers.extend(grpc_status(Some(error)));
    response
}

/// Returns protocol and codec of a content type; the codec is `proto` if not given.
fn protocol(content_type: &str) -> Option<(Protocol, &str)> {
    let rest = content_type.strip_prefix("application/")?;
    for (name, protocol) in
        [("grpc-web-text", Protocol::WebText), ("grpc-web", Protocol::Web), ("grpc", Protocol::Grpc)]
    {
        match rest.strip_prefix(name) {
            Some("") => return Some((protocol, "proto")),
            Some(codec) => return codec.strip_prefix('+').map(|codec| (protocol, codec)),
            None => {}
        }
    }
    match rest.strip_prefix("connect+") {
        Some(codec) => Some((Protocol::ConnectStream, codec)),
        None => Some((Protocol::ConnectUnary, rest)),
    }
}

/// Parses a timeout into milliseconds; at least 1, because 0 means no deadline.
fn milliseconds(header: &str, text: &str) -> Option<u32> {
    let (digits, unit) = match header {
        "grpc-timeout" => text.split_at_checked(text.len().checked_sub(1)?)?,
        _ => (text, "m"),
    };
    if digits.is_empty() || digits.len() > 10 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    let milliseconds = match unit {
        "H" => count.saturating_mul(3_600_000),
        "M" => count.saturating_mul(60_000),
        "S" => count.saturating_mul(1_000),
        "m" => count,
        "u" => count / 1_000,
        "n" => count / 1_000_000,
        _ => return None,
    };
    Some(u32::try_from(milliseconds).unwrap_or(u32::MAX).max(1))
}

/// Parses a heartbeat interval in seconds.
fn heartbeat(text: &str) -> Option<Duration> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let seconds = digits.then(|| text.parse().ok()).flatten()?;
    Some(Duration::from_secs(seconds)).filter(|time| !time.is_zero() && *time <= HTTP_HEARTBEAT)
}

/// Encodes an error as in connectrpc.com/docs/protocol, "Error end-stream".
fn connect_error(error: &CallError) -> serde_json::Value {
    let code = match error.code {
        // The only name that the two protocols spell differently.
        Code::Cancelled => "canceled".to_owned(),
        code => code.name().to_ascii_lowercase(),
    };
    serde_json::json!({ "code": code, "message": error.message })
}

fn grpc_status(error: Option<&CallError>) -> Vec<(&'static str, String)> {
    let Some(error) = error else { return vec![("grpc-status", "0".to_owned())] };
    let mut message = String::with_capacity(error.message.len());
    for byte in error.message.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => message.push(char::from(byte)),
            _ => message.push_str(&format!("%{byte:02X}")),
        }
    }
    vec![("grpc-status", error.code.number().to_string()), ("grpc-message", message)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_have_units() {
        for (text, expected) in [("5S", 5000), ("1H", 3_600_000), ("20u", 1), ("99999999H", u32::MAX), ("7m", 7)] {
            assert_eq!(milliseconds("grpc-timeout", text), Some(expected), "{text}");
        }
        for text in ["", "5", "S", "-1S", "5s", "12345678901S", "\u{e9}"] {
            assert_eq!(milliseconds("grpc-timeout", text), None, "{text}");
        }
        assert_eq!(milliseconds("connect-timeout-ms", "0"), Some(1));
        assert_eq!(milliseconds("connect-timeout-ms", "1S"), None);
    }

    #[test]
    fn heartbeats_are_whole_seconds() {
        for (text, expected) in [("1", 1), ("020", 20), ("3600", 3_600)] {
            assert_eq!(heartbeat(text), Some(Duration::from_secs(expected)), "{text}");
        }
        for text in ["", "0", "3601", "-1", "+1", "1s", "0.5", "99999999999999999999"] {
            assert_eq!(heartbeat(text), None, "{text}");
        }
    }

    #[test]
    fn content_types_name_protocol_and_codec() {
        for (text, protocol_, codec) in [
            ("application/json", Protocol::ConnectUnary, "json"),
            ("application/connect+proto", Protocol::ConnectStream, "proto"),
            ("application/grpc", Protocol::Grpc, "proto"),
            ("application/grpc+json", Protocol::Grpc, "json"),
            ("application/grpc-web", Protocol::Web, "proto"),
            ("application/grpc-web-text+proto", Protocol::WebText, "proto"),
        ] {
            assert_eq!(protocol(text), Some((protocol_, codec)), "{text}");
        }
        assert_eq!(protocol("text/plain"), None);
        assert_eq!(protocol("application/grpcx"), None);
    }

    #[test]
    fn words_outside_ascii_are_escaped_in_headers() {
        let error = CallError::new(Code::NotFound, "caf\u{e9} 100%\n");
        assert_eq!(grpc_status(Some(&error))[1].1, "caf%C3%A9 100%25%0A");
    }
}

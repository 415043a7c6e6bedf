//! The head of a request (RFC 9112), parsed by `httparse` and then checked: input that two parsers could interpret differently is
//! rejected.

use super::Refusal;
use crate::api::http::message::{Headers, HttpRequest};
use crate::limits::{HTTP_HEAD_BYTES, HTTP_HEADERS};

/// A request without its body, and the properties of the connection that its head determines.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) request: HttpRequest,
    pub(super) length: Length,
    /// True if the client waits for `100 Continue` before it sends the body.
    pub(super) expects: bool,
    /// True if the connection closes after the answer.
    pub(super) last: bool,
    /// True if the client understands chunked answers (HTTP/1.1).
    pub(super) chunks: bool,
    /// Size of the head in bytes.
    pub(super) bytes: usize,
}

/// The rule that determines the end of the body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Length {
    Bytes(usize),
    Chunked,
}

/// Parses the head at the start of `bytes`; `None` while it is incomplete.
pub(super) fn parse(bytes: &[u8]) -> Result<Option<Head>, Refusal> {
    let shown = &bytes[..bytes.len().min(HTTP_HEAD_BYTES)];
    let mut fields = [httparse::EMPTY_HEADER; HTTP_HEADERS];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(shown) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if bytes.len() >= HTTP_HEAD_BYTES => {
            return Err(Refusal::new(431, format!("the head of a request is over {HTTP_HEAD_BYTES} bytes")));
        }
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => {
            return Err(Refusal::new(431, format!("a request has more than {HTTP_HEADERS} headers")));
        }
        Err(httparse::Error::Version) => {
            return Err(Refusal::new(505, "HTTP/1.0, HTTP/1.1 and HTTP/2 are spoken here"));
        }
        Err(error) => return Err(Refusal::new(400, format!("the head of a request is malformed: {error}"))),
    };
    if bare_line_feed(&bytes[..length]) {
        return Err(Refusal::new(400, "a line of a request's head does not end with CR LF"));
    }
    let mut headers = Headers::default();
    for field in parsed.headers.iter() {
        let value = std::str::from_utf8(field.value).map_err(|_| Refusal::new(400, "a header's value is not text"))?;
        headers.push(field.name, value);
    }
    let (method, target) = (parsed.method.unwrap_or_default(), parsed.path.unwrap_or_default());
    judge(method, target, parsed.version == Some(1), headers, length).map(Some)
}

fn judge(method: &str, target: &str, newer: bool, headers: Headers, bytes: usize) -> Result<Head, Refusal> {
    let length = body_length(&headers, newer)?;
    let hosts = headers.all("host").count();
    if hosts > 1 || (hosts == 0 && newer) {
        return Err(Refusal::new(400, "a request names its host exactly once"));
    }
    let (path, query) = split(target)?;
    let request = HttpRequest {
        method: method.into(),
        path: path.into(),
        query: query.into(),
        headers,
        ..HttpRequest::default()
    };
    let headers = &request.headers;
    let expects = newer && headers.lists("expect", "100-continue") && length != Length::Bytes(0);
    let last = !newer || headers.lists("connection", "close");
    Ok(Head { length, expects, last, chunks: newer, bytes, request })
}

/// Splits a target into path and query. The absolute form, which is meant for proxies, is reduced to its path.
fn split(target: &str) -> Result<(&str, &str), Refusal> {
    let rest = match target.strip_prefix("http://") {
        Some(rest) => rest.find('/').map_or("/", |slash| &rest[slash..]),
        None => target,
    };
    if !rest.starts_with('/') {
        return Err(Refusal::new(400, "the target of a request is not a path"));
    }
    Ok(rest.split_once('?').unwrap_or((rest, "")))
}

/// Determines the length of the body (RFC 9112, section 6.3), rejecting every form that a server need not accept.
fn body_length(headers: &Headers, newer: bool) -> Result<Length, Refusal> {
    let codings: Vec<&str> = headers.all("transfer-encoding").collect();
    let lengths: Vec<&str> = headers.all("content-length").collect();
    match (codings.as_slice(), lengths.as_slice()) {
        ([], []) => Ok(Length::Bytes(0)),
        ([], [length]) => bytes(length).map(Length::Bytes),
        ([coding], []) if newer && coding.eq_ignore_ascii_case("chunked") => Ok(Length::Chunked),
        ([_], []) if newer => Err(Refusal::new(501, "the only transfer-encoding understood here is chunked")),
        _ => Err(Refusal::new(400, "a request says more than once, or in two ways, how long its body is")),
    }
}

fn bytes(text: &str) -> Result<usize, Refusal> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Refusal::new(400, "content-length is not a number"));
    }
    // A number with more digits than fit a `usize` exceeds every limit.
    Ok(text.parse().unwrap_or(usize::MAX))
}

/// Returns true if a line ends with LF alone: `httparse` accepts that, other parsers do not.
fn bare_line_feed(head: &[u8]) -> bool {
    let mut before = 0;
    // True at the first LF that does not follow a CR; `before` is the previous byte.
    head.iter().any(|&byte| {
        byte == b'\n' && std::mem::replace(&mut before, byte) != b'\r' || {
            before = byte;
            false
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(text: &str) -> Result<Head, Refusal> {
        parse(text.as_bytes()).map(|head| head.expect("complete"))
    }

    fn refused(text: &str) -> u16 {
        head(text).expect_err(text).status
    }

    #[test]
    fn a_head_is_read() {
        let head = head("POST /a/b?c=d HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello").expect("read");
        assert_eq!((head.request.path.as_str(), head.request.query.as_str()), ("/a/b", "c=d"));
        assert_eq!((head.length, head.last, head.expects), (Length::Bytes(5), false, false));
        assert_eq!(head.request.headers.get("content-length"), Some("5"));
    }

    #[test]
    fn a_body_whose_end_is_said_in_two_ways_is_refused() {
        for more in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 0x5",
            "Content-Length: -1",
            "Content-Length:",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        ] {
            assert_eq!(refused(&format!("POST / HTTP/1.1\r\nHost: x\r\n{more}\r\n\r\n")), 400, "{more}");
        }
        for coding in ["gzip", "chunked, gzip", "gzip, chunked", "xchunked", "\"chunked\""] {
            assert_eq!(refused(&format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: {coding}\r\n\r\n")), 501);
        }
        assert_eq!(refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
    }

    #[test]
    fn lines_are_folded_by_nobody_any_more() {
        for text in [
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA : b\r\n\r\n",
            "GET / HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET / HTTP/1.1\nHost: x\n\n",
            "GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
            "GET x HTTP/1.1\r\nHost: x\r\n\r\n",
        ] {
            assert_eq!(refused(text), 400, "{text:?}");
        }
    }

    #[test]
    fn what_is_too_large_is_refused_by_name() {
        let long = format!("GET /{} HTTP/1.1\r\nHost: x", "a".repeat(HTTP_HEAD_BYTES));
        assert_eq!(parse(long.as_bytes()).expect_err("long").status, 431);
        let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "a: b\r\n".repeat(HTTP_HEADERS));
        assert_eq!(refused(&many), 431);
        // The length is judged together with the path, which determines the protocol of the answer.
        let large = head("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n");
        assert_eq!(large.expect("read").length, Length::Bytes(usize::MAX));
        assert_eq!(refused("GET / HTTP/3.0\r\nHost: x\r\n\r\n"), 505);
    }
}

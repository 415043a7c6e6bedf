//! HTTP/1.x on one connection: requests in sequence, each answered before the next is read.

mod chunked;
mod head;

use bytes::BytesMut;
use peat_ipc::frame::Decoder;

use self::chunked::Chunked;
use self::head::{Head, Length};
use super::message::{Body, HttpRequest, Response};
use super::{Event, Refusal};
use crate::limits::{HTTP_BODY_BYTES, HTTP_PASSED_OVER_BYTES};

/// The input that is expected next.
#[derive(Debug)]
enum Reading {
    Head,
    Body {
        request: Box<HttpRequest>,
        body: BytesMut,
        left: Left,
        /// Bytes discarded of a body that is too large. They are read all the same, because a client that is still sending would
        /// not see an answer.
        passed: Option<usize>,
    },
    /// The request was passed on, and its answer is not complete.
    Answer,
}

/// The part of a body that is still to come.
#[derive(Debug)]
enum Left {
    Bytes(usize),
    Chunked(Chunked),
}

/// The framing of the answer that is being written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Writing {
    /// Nothing was written yet.
    Head,
    /// Chunked: the last chunk ends the body.
    Chunks,
    /// Unframed: the end of the connection ends the body (HTTP/1.0 has no chunks).
    Plain,
    /// The request was HEAD: no body is written.
    Nothing,
}

/// The codec of HTTP/1.x.
#[derive(Debug)]
pub(super) struct H1 {
    reading: Reading,
    writing: Writing,
    /// Number of requests read; the newest one's number as a call.
    requests: u64,
    /// True if the connection closes after the newest request.
    last: bool,
    /// True if the newest request's client understands chunked answers.
    chunks: bool,
    /// True if the newest request was HEAD.
    head_only: bool,
    /// Set if the newest request will not be read to its end, with the reason.
    cut: Option<(Box<HttpRequest>, Refusal)>,
    /// True once a request was cut short.
    was_cut: bool,
}

impl H1 {
    pub(super) fn new() -> H1 {
        H1 {
            reading: Reading::Head,
            writing: Writing::Head,
            requests: 0,
            last: false,
            chunks: true,
            head_only: false,
            cut: None,
            was_cut: false,
        }
    }

    /// Returns the next event of the client.
    pub(super) fn next(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<Option<Event>, Refusal> {
        if let Reading::Head = self.reading
            && !self.read_head(input, out)?
        {
            return Ok(None);
        }
        if let Reading::Body { body, left, passed, .. } = &mut self.reading {
            match read_body(input, body, left, passed)? {
                Progress::Incomplete => return Ok(None),
                Progress::Complete => {}
                Progress::Endless => self.end_early(Refusal::too_large()),
            }
        }
        if let Some((request, refusal)) = self.cut.take() {
            return Ok(Some(Event::Refused(self.requests, request, refusal)));
        }
        match std::mem::replace(&mut self.reading, Reading::Answer) {
            Reading::Body { request, passed: Some(_), .. } => {
                Ok(Some(Event::Refused(self.requests, request, Refusal::too_large())))
            }
            Reading::Body { mut request, body, .. } => {
                request.body = body.freeze();
                Ok(Some(Event::Request(self.requests, request)))
            }
            Reading::Head | Reading::Answer => Ok(None),
        }
    }

    /// Stops reading the newest request: it is answered, and then the connection closes.
    fn end_early(&mut self, refusal: Refusal) {
        match std::mem::replace(&mut self.reading, Reading::Answer) {
            Reading::Body { request, .. } => {
                self.cut = Some((request, refusal));
                (self.last, self.was_cut) = (true, true);
            }
            other => self.reading = other,
        }
    }

    /// Ends the request with the body that does not arrive; returns false if there is none.
    pub(super) fn end_stalled(&mut self) -> bool {
        let Reading::Body { passed, .. } = &self.reading else { return false };
        self.end_early(if passed.is_some() { Refusal::too_large() } else { Refusal::too_slow() });
        true
    }

    /// Returns true if a request was not read to its end, so that nothing can follow it.
    pub(super) fn is_cut(&self) -> bool {
        self.was_cut
    }

    /// Parses the head of the next request; returns false while it is incomplete.
    fn read_head(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<bool, Refusal> {
        // Some old clients send an empty line between requests (RFC 9112, section 2.2).
        while self.requests > 0 && input.peek().starts_with(b"\r\n") {
            input.skip(2);
        }
        let Some(Head { request, length, expects, last, chunks, bytes }) = head::parse(input.peek())? else {
            return Ok(false);
        };
        input.skip(bytes);
        self.requests += 1;
        (self.last, self.chunks, self.head_only) = (last, chunks, request.method == "HEAD");
        self.writing = Writing::Head;
        let large = matches!(length, Length::Bytes(count) if count > HTTP_BODY_BYTES);
        let left = match length {
            Length::Bytes(count) => Left::Bytes(count),
            Length::Chunked => Left::Chunked(Chunked::Size),
        };
        let passed = large.then_some(0);
        self.reading = Reading::Body { request: Box::new(request), body: BytesMut::new(), left, passed };
        // A client that waits for 100 Continue has not begun to send.
        if expects && large {
            self.end_early(Refusal::too_large());
        } else if expects {
            out.extend_from_slice(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        Ok(true)
    }

    /// Returns the number of bytes held of an incomplete request.
    pub(super) fn buffered(&self) -> usize {
        match &self.reading {
            Reading::Body { body, .. } => body.len(),
            _ => 0,
        }
    }

    pub(super) fn awaits_head(&self) -> bool {
        matches!(self.reading, Reading::Head)
    }

    pub(super) fn awaits_request(&self) -> bool {
        !matches!(self.reading, Reading::Answer)
    }

    /// Returns true if this call is the one that is unanswered.
    pub(super) fn is_open(&self, call: u64) -> bool {
        call == self.requests && matches!(self.reading, Reading::Answer)
    }

    /// Returns true if the last answer of this connection was written.
    pub(super) fn is_over(&self) -> bool {
        self.last && matches!(self.reading, Reading::Head) && self.requests > 0
    }

    /// Writes a complete answer, or the head of a stream.
    pub(super) fn respond(&mut self, out: &mut Vec<u8>, response: &Response) {
        let (status, reason) = (response.status, reason(response.status));
        out.extend_from_slice(format!("HTTP/1.1 {status} {reason}\r\n").as_bytes());
        for (name, value) in &response.headers {
            put_header(out, name, value);
        }
        if self.last {
            put_header(out, "connection", "close");
        }
        match &response.body {
            Body::Whole(body) => {
                put_header(out, "content-length", &body.len().to_string());
                out.extend_from_slice(b"\r\n");
                if !self.head_only {
                    out.extend_from_slice(body);
                }
                self.reading = Reading::Head;
            }
            Body::Stream => self.begin_stream(out),
        }
    }

    fn begin_stream(&mut self, out: &mut Vec<u8>) {
        self.writing = match (self.head_only, self.chunks) {
            (true, _) => Writing::Nothing,
            (false, true) => Writing::Chunks,
            (false, false) => Writing::Plain,
        };
        if self.writing == Writing::Chunks {
            put_header(out, "transfer-encoding", "chunked");
        }
        out.extend_from_slice(b"\r\n");
    }

    /// Writes more of a stream.
    pub(super) fn write(&mut self, out: &mut Vec<u8>, bytes: &[u8]) {
        match self.writing {
            _ if bytes.is_empty() => {}
            Writing::Head | Writing::Nothing => {}
            Writing::Plain => out.extend_from_slice(bytes),
            Writing::Chunks => {
                out.extend_from_slice(format!("{:x}\r\n", bytes.len()).as_bytes());
                out.extend_from_slice(bytes);
                out.extend_from_slice(b"\r\n");
            }
        }
    }

    /// Ends a stream.
    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.writing == Writing::Chunks {
            out.extend_from_slice(b"0\r\n\r\n");
        }
        self.reading = Reading::Head;
    }

    /// Answers an error that ends the connection. Nothing is written if no request is unanswered, unless `asked`: then an
    /// incomplete request is answered too.
    pub(super) fn refuse(&mut self, out: &mut Vec<u8>, response: &Response, asked: bool) {
        self.last = true;
        let unanswered = matches!(self.reading, Reading::Answer) && self.writing == Writing::Head;
        if unanswered || (asked && self.awaits_request()) {
            self.respond(out, response);
        }
    }
}

/// Progress of reading a body.
enum Progress {
    Incomplete,
    Complete,
    /// The body is too large even to be discarded.
    Endless,
}

/// Reads as much of a body as has arrived.
fn read_body(
    input: &mut Decoder,
    body: &mut BytesMut,
    left: &mut Left,
    passed: &mut Option<usize>,
) -> Result<Progress, Refusal> {
    let complete = match left {
        Left::Bytes(left) => {
            let count = input.buffered().min(*left);
            add(body, &input.peek()[..count], passed);
            input.skip(count);
            *left -= count;
            *left == 0
        }
        Left::Chunked(chunked) => loop {
            let (used, data) = chunked.read(input.peek())?;
            add(body, data, passed);
            input.skip(used);
            if used == 0 {
                break matches!(chunked, Chunked::Done);
            }
        },
    };
    Ok(match (complete, passed) {
        (true, _) => Progress::Complete,
        (false, Some(HTTP_PASSED_OVER_BYTES..)) => Progress::Endless,
        (false, _) => Progress::Incomplete,
    })
}

/// Appends to a body while it is within the limit; beyond that its bytes are counted and discarded.
fn add(body: &mut BytesMut, bytes: &[u8], passed: &mut Option<usize>) {
    if passed.is_none() && body.len() + bytes.len() > HTTP_BODY_BYTES {
        *passed = Some(body.len());
        *body = BytesMut::new();
    }
    match passed {
        Some(passed) => *passed += bytes.len(),
        None => body.extend_from_slice(bytes),
    }
}

fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        415 => "Unsupported Media Type",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        // The reason phrase has no meaning to clients (RFC 9112, section 4).
        _ => "Other",
    }
}

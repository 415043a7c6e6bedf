//! HTTP on a client's connection: a second codec over the calls that native frames make.
//!
//! Owns the requests in progress on an HTTP connection: bytes become requests, requests become calls or are answered by a route,
//! and the results of calls become bytes. Sans I/O like the rest of the engine. Must never decide what a method does
//! ([`crate::api::dispatch`]) or what a caller may do ([`crate::api::caller`]).
//!
//! `transport` selects the version: `h1`, or `h2` over [`crate::pipe`], with `authority` and `huffman` in front of it. `message`
//! holds requests and responses of either version; `guard` rejects requests of foreign web pages. `route` is the table of paths,
//! and `reply` the result of a handler in it. Calls of services are `rpc` (Connect, gRPC and gRPC-Web), with their messages in
//! `envelope`; `health` and `reflection` are the two services that gRPC's tools look for.

mod authority;
pub(super) mod body;
mod envelope;
pub(super) mod events;
pub(super) mod guard;
mod h1;
mod h2;
pub(super) mod health;
mod huffman;
pub(super) mod message;
mod openapi;
pub(super) mod page;
pub(super) mod probe;
pub(super) mod reflection;
pub(super) mod reply;
pub(super) mod route;
pub(super) mod rpc;
mod transport;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use peat_ipc::frame::{Decoder, MESSAGE_BYTES};
use peat_ipc::method;
use peat_ipc::{CallError, Code};

use self::message::{Body, HttpRequest, Response};
use self::reply::Shape;
use self::rpc::{Rpc, Target};
use self::transport::Transport;
use crate::api::dispatch::{READ, too_large};
use crate::limits::{FRAME_STALL, HTTP_BODY_BYTES, HTTP_HEAD_TIME, HTTP_PIPELINED_BYTES};

/// Connection preface of HTTP/2 (RFC 9113, section 3.4).
pub(super) const PREFACE_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// One event of a client, with the number of its call.
#[derive(Debug)]
pub(super) enum Event {
    /// A complete request, or its head if the rest arrives as uploads.
    Request(u64, Box<HttpRequest>),
    /// A request that is not read to its end, and the reason: its body is too large, or does not arrive.
    Refused(u64, Box<HttpRequest>, Refusal),
    Upload(u64, Bytes),
    HalfClose(u64),
    Cancel(u64),
}

/// The reason why a connection cannot continue.
#[derive(Clone, Debug)]
pub(super) struct Refusal {
    pub(super) status: u16,
    pub(super) message: String,
}

impl Refusal {
    fn new(status: u16, message: impl Into<String>) -> Refusal {
        Refusal { status, message: message.into() }
    }

    fn too_large() -> Refusal {
        Refusal::new(413, format!("the body of a request is over {HTTP_BODY_BYTES} bytes, which is the limit"))
    }

    fn too_slow() -> Refusal {
        let seconds = FRAME_STALL.as_secs();
        Refusal::new(408, format!("a request was begun and not completed within {seconds} s"))
    }

    /// Returns the refusal as an error with a code.
    pub(super) fn error(&self) -> CallError {
        let code = match self.status {
            408 => Code::DeadlineExceeded,
            413 => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        CallError::new(code, self.message.clone())
    }
}

/// The form of the answer to one request.
#[derive(Debug)]
pub(super) enum ResponseMode {
    /// Framed by the protocol of the RPC.
    Rpc(Target, Box<Rpc>),
    /// Built by the route from the result of its call.
    Plain(Shape),
    /// A stream of raw bytes that a route writes itself.
    Held,
}

/// A request in progress, and the state of its answer.
#[derive(Debug)]
struct Exchange {
    speech: ResponseMode,
    /// True once the head of a stream was sent.
    begun: bool,
    /// Time at which a stream with heartbeats last sent something.
    last_item: Option<Instant>,
    /// Received part of an incomplete message.
    upload: BytesMut,
}

impl Exchange {
    /// Returns the time at which the next heartbeat is due, on a stream that has any.
    fn beats_at(&self) -> Option<Instant> {
        match &self.speech {
            ResponseMode::Rpc(_, rpc) if self.begun => Some(self.last_item? + rpc.heartbeat?),
            _ => None,
        }
    }
}

/// The HTTP codec of one connection.
#[derive(Debug)]
pub(super) struct Http {
    transport: Transport,
    exchanges: BTreeMap<u64, Exchange>,
    /// Reason for which the connection is about to be closed.
    refused: Option<Refusal>,
}

impl Http {
    /// Detects the version from the first bytes; `None` while they do not suffice.
    pub(super) fn begin_with(came: &[u8]) -> Option<Http> {
        let length = came.len().min(PREFACE_2.len());
        let is_two = came[..length] == PREFACE_2[..length];
        if is_two && length < PREFACE_2.len() {
            return None;
        }
        let transport = Transport::new(is_two);
        Some(Http { transport, exchanges: BTreeMap::new(), refused: None })
    }

    /// Moves bytes between the connection's buffers and those of the `h2` crate, with HTTP/2.
    pub(super) fn pump(&mut self, now: Instant, input: &mut Decoder, out: &mut Vec<u8>) {
        self.transport.pump(now, input, out);
    }

    /// Returns the time at which the first request or answer that makes no progress times out. `None` with HTTP/1.x, where the
    /// connection's own limit applies.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        match &self.transport {
            Transport::One(_) => None,
            Transport::Two(two) => two.stalls_at(),
        }
    }

    /// Ends the requests and answers that have timed out, and no others; returns true if there was one. `overdue`: the incomplete
    /// request of an HTTP/1.x connection has timed out.
    pub(super) fn end_stalled(&mut self, now: Instant, overdue: bool) -> bool {
        match &mut self.transport {
            Transport::One(one) => overdue && one.end_stalled(),
            Transport::Two(two) => two.end_stalled(now),
        }
    }

    /// Returns true if the client may still be sending the body of a refused request.
    pub(super) fn is_cut(&self) -> bool {
        matches!(&self.transport, Transport::One(one) if one.is_cut())
    }

    /// Returns the next event of the client.
    pub(super) fn next(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<Option<Event>, CallError> {
        self.transport.next(input, out).map_err(|refusal| {
            let error = refusal.error();
            self.refused = Some(refusal);
            error
        })
    }

    /// Returns the number of bytes held of incomplete requests.
    pub(super) fn buffered(&self) -> usize {
        let uploads: usize = self.exchanges.values().map(|exchange| exchange.upload.len()).sum();
        self.transport.buffered() + uploads
    }

    /// Returns the number of answer bytes for which the client's windows have no room.
    pub(super) fn owed(&self) -> usize {
        self.transport.owed()
    }

    /// Returns true if an event or an error is waiting.
    pub(super) fn has_events(&self) -> bool {
        self.transport.has_events()
    }

    /// Returns true if more may be read while calls are in progress; pipelined requests are buffered up to a limit.
    pub(super) fn wants_bytes(&self, input: &Decoder, free: bool) -> bool {
        match &self.transport {
            // Always read while the buffer has room: the input carries the WINDOW_UPDATE frames that make room for answers.
            Transport::Two(two) => two.wants_bytes(),
            Transport::One(one) => free && (one.awaits_request() || input.buffered() < HTTP_PIPELINED_BYTES),
        }
    }

    /// Returns the time limit of the incomplete message that blocks the connection; `None` if there is none.
    pub(super) fn incomplete(&self, input: &Decoder) -> Option<Duration> {
        match &self.transport {
            Transport::Two(two) => two.is_incomplete().then_some(FRAME_STALL),
            Transport::One(one) if !one.awaits_request() => None,
            Transport::One(one) if one.awaits_head() => (input.buffered() > 0).then_some(HTTP_HEAD_TIME),
            Transport::One(_) => Some(FRAME_STALL),
        }
    }

    /// Returns true if no request is in progress.
    pub(super) fn is_idle(&self, input: &Decoder) -> bool {
        match &self.transport {
            Transport::One(one) => one.awaits_head() && input.buffered() == 0,
            Transport::Two(two) => two.is_idle(),
        }
    }

    /// Returns true if the connection ends after the answer that was written.
    pub(super) fn is_over(&self) -> bool {
        self.transport.is_over()
    }

    /// Returns true if clients may continue sending while they are answered (HTTP/2).
    pub(super) fn streams(&self) -> bool {
        matches!(self.transport, Transport::Two(_))
    }

    pub(super) fn has_room(&self, call: u64) -> bool {
        self.transport.has_room(call)
    }

    /// Sets the form in which call `call` is answered.
    pub(super) fn expect(&mut self, call: u64, speech: ResponseMode) {
        self.exchanges.insert(call, Exchange { speech, begun: false, last_item: None, upload: BytesMut::new() });
    }

    /// Drops a call that the client has cancelled.
    pub(super) fn forget(&mut self, call: u64) {
        self.exchanges.remove(&call);
    }

    /// Resets a stream and drops its pending output; returns true if the connection survives that.
    pub(super) fn reset(&mut self, call: u64) -> bool {
        self.exchanges.remove(&call);
        self.transport.reset(call)
    }

    /// Returns the RPC method of call `call`; `None` for routes.
    pub(super) fn target(&self, call: u64) -> Option<Target> {
        match self.exchanges.get(&call)?.speech {
            ResponseMode::Rpc(target, _) => Some(target),
            ResponseMode::Plain(_) | ResponseMode::Held => None,
        }
    }

    /// Appends received bytes to the upload of a call.
    pub(super) fn add_upload(&mut self, call: u64, bytes: &[u8]) {
        if let Some(exchange) = self.exchanges.get_mut(&call) {
            exchange.upload.extend_from_slice(bytes);
        }
    }

    /// Takes the next complete message from the upload of a call.
    pub(super) fn take_upload(&mut self, call: u64) -> Result<Option<Vec<u8>>, CallError> {
        let Some(Exchange { speech: ResponseMode::Rpc(_, rpc), upload, .. }) = self.exchanges.get_mut(&call) else {
            return Ok(None);
        };
        let Some((message, used)) = rpc.upload(upload)? else { return Ok(None) };
        let _ = upload.split_to(used);
        Ok(Some(message))
    }

    /// Answers a request with the response of a handler.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>, call: u64, response: &Response) {
        if self.transport.is_open(call) {
            self.transport.respond(out, call, response);
        }
    }

    /// Answers a call with its result. Call 0 is the connection, which then ends.
    pub(super) fn respond(&mut self, out: &mut Vec<u8>, call: u64, result: Result<&method::Response, &CallError>) {
        if call == 0 {
            return self.fail(out, result);
        }
        let Some(Exchange { speech, begun, .. }) = self.exchanges.remove(&call) else { return };
        match speech {
            ResponseMode::Rpc(_, rpc) => {
                let encoded = result.cloned().map_err(CallError::clone).and_then(|response| encode(&response));
                self.answer(out, call, &rpc, begun, encoded.as_deref());
            }
            ResponseMode::Plain(_) | ResponseMode::Held if begun => self.transport.finish(out, call, &[]),
            ResponseMode::Plain(shape) => self.transport.respond(out, call, &(shape.whole)(result)),
            ResponseMode::Held => {
                self.transport.respond(out, call, &Response::text(500, "a stream that did not begin"));
            }
        }
    }

    /// Answers a call with an encoded message.
    pub(super) fn respond_encoded(&mut self, out: &mut Vec<u8>, call: u64, result: Result<&[u8], &CallError>) {
        if let Some(Exchange { speech: ResponseMode::Rpc(_, rpc), begun, .. }) = self.exchanges.remove(&call) {
            self.answer(out, call, &rpc, begun, result);
        }
    }

    fn answer(&mut self, out: &mut Vec<u8>, call: u64, rpc: &Rpc, begun: bool, result: Result<&[u8], &CallError>) {
        if rpc.is_plain() {
            return self.transport.respond(out, call, &rpc.whole(result));
        }
        if !begun {
            self.transport.respond(out, call, &rpc.head());
        }
        if let Ok(message) = result {
            self.transport.write(out, call, &rpc.item(message));
        }
        self.finish(out, call, rpc, result.err());
    }

    fn finish(&mut self, out: &mut Vec<u8>, call: u64, rpc: &Rpc, error: Option<&CallError>) {
        let end = rpc.end(error);
        self.transport.write(out, call, &end.bytes);
        self.transport.finish(out, call, &end.trailers);
    }

    /// Answers every open call with the error that ends the connection, then the connection itself.
    fn fail(&mut self, out: &mut Vec<u8>, result: Result<&method::Response, &CallError>) {
        let Err(error) = result else { return };
        let status = match &self.refused {
            Some(refusal) => refusal.status,
            // The client was too slow, not the node: 408 instead of 504.
            None if error.code == Code::DeadlineExceeded => 408,
            None => status(error.code),
        };
        let open: Vec<u64> = self.exchanges.keys().copied().collect();
        open.into_iter().for_each(|call| self.respond(out, call, Err(error)));
        self.transport.refuse(out, &Response::text(status, &error.message), self.refused.is_some() || status == 408);
    }

    /// Sends the head of a call that streams from now on.
    pub(super) fn begin(&mut self, now: Instant, out: &mut Vec<u8>, call: u64, head: Option<&Response>) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        let head = match (&exchange.speech, head) {
            (ResponseMode::Rpc(_, rpc), _) => rpc.head(),
            (_, Some(head)) => head.clone(),
            (_, None) => return,
        };
        (exchange.begun, exchange.last_item) = (true, Some(now));
        // By default nginx holds back a response until its buffers are full.
        let head = head.with("x-accel-buffering", "no");
        self.transport.respond(out, call, &Response { body: Body::Stream, ..head });
    }

    /// Sends one stream item, given as encoded protobuf.
    pub(super) fn put_item(&mut self, now: Instant, out: &mut Vec<u8>, call: u64, message: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        exchange.last_item = Some(now);
        if let ResponseMode::Rpc(_, rpc) = &exchange.speech {
            self.transport.write(out, call, &rpc.item(message));
        }
    }

    /// Returns the time at which the next keep-alive is due, so that proxies do not close the connection or a stream.
    pub(super) fn keeps_alive_at(&self) -> Option<Instant> {
        let ping = match &self.transport {
            Transport::One(_) => None,
            Transport::Two(two) => two.pings_at(),
        };
        self.exchanges.values().filter_map(Exchange::beats_at).chain(ping).min()
    }

    /// Sends the keep-alives that are due; returns true if there was one.
    pub(super) fn keep_alive(&mut self, now: Instant, out: &mut Vec<u8>) -> bool {
        let due: Vec<u64> = self
            .exchanges
            .iter()
            .filter(|(_, exchange)| exchange.beats_at().is_some_and(|at| at <= now))
            .map(|(call, _)| *call)
            .collect();
        for &call in &due {
            if self.transport.has_room(call) {
                self.put_item(now, out, call, &[]);
            } else if let Some(exchange) = self.exchanges.get_mut(&call) {
                // Pending bytes serve as the keep-alive once the client takes them.
                exchange.last_item = Some(now);
            }
        }
        let pinged = match &mut self.transport {
            Transport::One(_) => false,
            Transport::Two(two) => two.ping(now),
        };
        pinged || !due.is_empty()
    }

    /// Sends bytes of a stream that a route holds open.
    pub(super) fn put_bytes(&mut self, out: &mut Vec<u8>, call: u64, bytes: &[u8]) {
        if self.exchanges.get(&call).is_some_and(|exchange| exchange.begun) {
            self.transport.write(out, call, bytes);
        }
    }

    /// Ends a stream without an error.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, call: u64) {
        match self.exchanges.remove(&call).map(|exchange| exchange.speech) {
            Some(ResponseMode::Rpc(_, rpc)) => self.finish(out, call, &rpc, None),
            Some(ResponseMode::Plain(_) | ResponseMode::Held) => self.transport.finish(out, call, &[]),
            None => {}
        }
    }
}

fn encode(response: &method::Response) -> Result<Vec<u8>, CallError> {
    match response.encoded_len() {
        length @ ..=MESSAGE_BYTES => {
            let mut message = Vec::with_capacity(length);
            response.encode(&mut message);
            Ok(message)
        }
        length => Err(too_large(length, MESSAGE_BYTES, READ)),
    }
}

/// Returns the HTTP status for a code (connectrpc.com/docs/protocol, "Error codes").
pub(super) fn status(code: Code) -> u16 {
    match code {
        Code::Cancelled => 499,
        Code::InvalidArgument | Code::FailedPrecondition | Code::OutOfRange => 400,
        Code::DeadlineExceeded => 504,
        Code::NotFound => 404,
        Code::AlreadyExists | Code::Aborted => 409,
        Code::PermissionDenied => 403,
        Code::ResourceExhausted => 429,
        Code::Unimplemented => 501,
        Code::Unavailable => 503,
        Code::Unauthenticated => 401,
        Code::Unknown | Code::Internal | Code::DataLoss => 500,
    }
}

/// Returns an error in the form of routes: a JSON object with the code's name and the message.
pub(super) fn refusal(error: &CallError) -> Response {
    let code = error.code.name().to_ascii_lowercase();
    Response::json(status(error.code), &serde_json::json!({"code": code, "message": error.message}))
}

//! HTTP on a client's connection: a second codec over the calls that native frames make.
//!
//! Owns what a connection that began as HTTP has under way: bytes become requests, requests become calls or are answered
//! by a route, and what calls give becomes bytes. Sans I/O like everything in the engine. Must never decide what a method
//! does ([`crate::api::dispatch`]) or what a caller may do ([`crate::api::caller`]).
//!
//! `transport` is the one or the other version: `h1`, and `h2` over [`crate::pipe`], after `authority` and `huffman`. `message` is what is asked and answered,
//! whatever the version; `guard` keeps web pages of elsewhere out. `route` is the table of paths, and `reply` what a handler
//! in it may say. Calls of services are `rpc`, Connect, gRPC and gRPC-Web, with their messages in `envelope`; `health` and
//! `reflection` are the two services gRPC's tools look for.

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

use self::message::{Body, Request, Response};
use self::reply::Shape;
use self::rpc::{Rpc, Target};
use self::transport::Transport;
use crate::api::dispatch::{READ, too_large};
use crate::limits::{FRAME_STALL, HTTP_BODY_BYTES, HTTP_HEAD_TIME, HTTP_PIPELINED_BYTES};

/// How a connection of HTTP/2 begins (RFC 9113, 3.4).
pub(super) const PREFACE_2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client has said, and of which call.
#[derive(Debug)]
pub(super) enum Event {
    /// A request: whole, or its head when what follows comes in uploads.
    Request(u64, Box<Request>),
    /// A request that is not read to its end, and why: its body is too large, or does not come.
    Refused(u64, Box<Request>, Refusal),
    Upload(u64, Bytes),
    HalfClose(u64),
    Cancel(u64),
}

/// Why a connection cannot go on.
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

    /// The same for callers that know codes.
    pub(super) fn error(&self) -> CallError {
        let code = match self.status {
            408 => Code::DeadlineExceeded,
            413 => Code::ResourceExhausted,
            _ => Code::InvalidArgument,
        };
        CallError::new(code, self.message.clone())
    }
}

/// How the answer to one request is said.
#[derive(Debug)]
pub(super) enum Speech {
    /// As the method's protocol wants.
    Rpc(Target, Box<Rpc>),
    /// As the handler wants.
    Plain(Shape),
    /// By the bytes themselves, which a route's own stream gives.
    Held,
}

#[derive(Debug)]
struct Exchange {
    speech: Speech,
    /// The head of a stream was sent.
    begun: bool,
    /// When something was last sent on a stream that has heartbeats.
    last_item: Option<Instant>,
    /// What came of a message that is not complete.
    upload: BytesMut,
}

impl Exchange {
    /// When the next heartbeat is due on a stream that has any.
    fn beats_at(&self) -> Option<Instant> {
        match &self.speech {
            Speech::Rpc(_, rpc) if self.begun => Some(self.last_item? + rpc.heartbeat?),
            _ => None,
        }
    }
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    transport: Transport,
    exchanges: BTreeMap<u64, Exchange>,
    /// Why it will be closed.
    refused: Option<Refusal>,
}

impl Http {
    /// Of a client whose first bytes are these; `None` while they do not tell.
    pub(super) fn begin_with(came: &[u8]) -> Option<Http> {
        let length = came.len().min(PREFACE_2.len());
        let is_two = came[..length] == PREFACE_2[..length];
        if is_two && length < PREFACE_2.len() {
            return None;
        }
        let transport = Transport::new(is_two);
        Some(Http { transport, exchanges: BTreeMap::new(), refused: None })
    }

    /// Moves bytes between the connection's buffers and the library's, where there is one.
    pub(super) fn pump(&mut self, now: Instant, input: &mut Decoder, out: &mut Vec<u8>) {
        self.transport.pump(now, input, out);
    }

    /// When the first request or answer that makes no progress has had its time; those of HTTP/1.1 are the connection's.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        match &self.transport {
            Transport::One(_) => None,
            Transport::Two(two) => two.stalls_at(),
        }
    }

    /// Gives up the requests and answers that have had their time, and nothing else; whether there was one.
    /// `overdue`: the request that is begun on the connection has.
    pub(super) fn end_stalled(&mut self, now: Instant, overdue: bool) -> bool {
        match &mut self.transport {
            Transport::One(one) => overdue && one.end_stalled(),
            Transport::Two(two) => two.end_stalled(now),
        }
    }

    /// Whether the client may still be sending what was refused.
    pub(super) fn is_cut(&self) -> bool {
        matches!(&self.transport, Transport::One(one) if one.is_cut())
    }

    /// What the client has said next.
    pub(super) fn next(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<Option<Event>, CallError> {
        self.transport.next(input, out).map_err(|refusal| {
            let error = refusal.error();
            self.refused = Some(refusal);
            error
        })
    }

    /// Bytes held of requests that are not complete.
    pub(super) fn buffered(&self) -> usize {
        let uploads: usize = self.exchanges.values().map(|exchange| exchange.upload.len()).sum();
        self.transport.buffered() + uploads
    }

    /// Bytes of answers the client's windows have no room for.
    pub(super) fn owed(&self) -> usize {
        self.transport.owed()
    }

    /// Whether something was said that is not looked at.
    pub(super) fn has_events(&self) -> bool {
        self.transport.has_events()
    }

    /// Whether more may be read while calls are under way: requests in advance are kept, so many of them.
    pub(super) fn wants_bytes(&self, input: &Decoder, free: bool) -> bool {
        match &self.transport {
            // Among what comes is what makes room.
            Transport::Two(two) => two.wants_bytes(),
            Transport::One(one) => free && (one.awaits_request() || input.buffered() < HTTP_PIPELINED_BYTES),
        }
    }

    /// Whether what has begun keeps the connection from going on, and how long it may take.
    pub(super) fn incomplete(&self, input: &Decoder) -> Option<Duration> {
        match &self.transport {
            Transport::Two(two) => two.is_incomplete().then_some(FRAME_STALL),
            Transport::One(one) if !one.awaits_request() => None,
            Transport::One(one) if one.awaits_head() => (input.buffered() > 0).then_some(HTTP_HEAD_TIME),
            Transport::One(_) => Some(FRAME_STALL),
        }
    }

    /// Whether no request is begun and none is unanswered.
    pub(super) fn is_idle(&self, input: &Decoder) -> bool {
        match &self.transport {
            Transport::One(one) => one.awaits_head() && input.buffered() == 0,
            Transport::Two(two) => two.is_idle(),
        }
    }

    /// Whether the last answer was the connection's last.
    pub(super) fn is_over(&self) -> bool {
        self.transport.is_over()
    }

    /// Whether clients may go on sending while they are answered.
    pub(super) fn streams(&self) -> bool {
        matches!(self.transport, Transport::Two(_))
    }

    pub(super) fn has_room(&self, call: u64) -> bool {
        self.transport.has_room(call)
    }

    /// How call `call` will be answered.
    pub(super) fn expect(&mut self, call: u64, speech: Speech) {
        self.exchanges.insert(call, Exchange { speech, begun: false, last_item: None, upload: BytesMut::new() });
    }

    /// The client has given a call up.
    pub(super) fn forget(&mut self, call: u64) {
        self.exchanges.remove(&call);
    }

    /// Ends a stream, whatever it is still owed; whether the connection can go on without it.
    pub(super) fn reset(&mut self, call: u64) -> bool {
        self.exchanges.remove(&call);
        self.transport.reset(call)
    }

    /// What the method of call `call` is.
    pub(super) fn target(&self, call: u64) -> Option<Target> {
        match self.exchanges.get(&call)?.speech {
            Speech::Rpc(target, _) => Some(target),
            Speech::Plain(_) | Speech::Held => None,
        }
    }

    /// Adds to what came for a call.
    pub(super) fn add_upload(&mut self, call: u64, bytes: &[u8]) {
        if let Some(exchange) = self.exchanges.get_mut(&call) {
            exchange.upload.extend_from_slice(bytes);
        }
    }

    /// The next whole message of what came for a call.
    pub(super) fn take_upload(&mut self, call: u64) -> Result<Option<Vec<u8>>, CallError> {
        let Some(Exchange { speech: Speech::Rpc(_, rpc), upload, .. }) = self.exchanges.get_mut(&call) else {
            return Ok(None);
        };
        let Some((message, used)) = rpc.upload(upload)? else { return Ok(None) };
        let _ = upload.split_to(used);
        Ok(Some(message))
    }

    /// Answers a request with what a handler said.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>, call: u64, response: &Response) {
        if self.transport.is_open(call) {
            self.transport.respond(out, call, response);
        }
    }

    /// A call is over.
    pub(super) fn respond(&mut self, out: &mut Vec<u8>, call: u64, result: Result<&method::Response, &CallError>) {
        if call == 0 {
            return self.fail(out, result);
        }
        let Some(Exchange { speech, begun, .. }) = self.exchanges.remove(&call) else { return };
        match speech {
            Speech::Rpc(_, rpc) => {
                let encoded = result.cloned().map_err(CallError::clone).and_then(|response| encode(&response));
                self.answer(out, call, &rpc, begun, encoded.as_deref());
            }
            Speech::Plain(_) | Speech::Held if begun => self.transport.finish(out, call, &[]),
            Speech::Plain(shape) => self.transport.respond(out, call, &(shape.whole)(result)),
            Speech::Held => self.transport.respond(out, call, &Response::text(500, "a stream that did not begin")),
        }
    }

    /// Answers a call with an encoded message.
    pub(super) fn respond_encoded(&mut self, out: &mut Vec<u8>, call: u64, result: Result<&[u8], &CallError>) {
        if let Some(Exchange { speech: Speech::Rpc(_, rpc), begun, .. }) = self.exchanges.remove(&call) {
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

    /// The connection cannot go on: says why, to every call and then by itself.
    fn fail(&mut self, out: &mut Vec<u8>, result: Result<&method::Response, &CallError>) {
        let Err(error) = result else { return };
        let status = match &self.refused {
            Some(refusal) => refusal.status,
            // Slow was the client.
            None if error.code == Code::DeadlineExceeded => 408,
            None => status(error.code),
        };
        let open: Vec<u64> = self.exchanges.keys().copied().collect();
        open.into_iter().for_each(|call| self.respond(out, call, Err(error)));
        self.transport.refuse(out, &Response::text(status, &error.message), self.refused.is_some() || status == 408);
    }

    /// A call streams from now on: its head is sent.
    pub(super) fn begin(&mut self, now: Instant, out: &mut Vec<u8>, call: u64, head: Option<&Response>) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        let head = match (&exchange.speech, head) {
            (Speech::Rpc(_, rpc), _) => rpc.head(),
            (_, Some(head)) => head.clone(),
            (_, None) => return,
        };
        (exchange.begun, exchange.last_item) = (true, Some(now));
        // nginx keeps what comes until its buffers are full, unless it is told otherwise.
        let head = head.with("x-accel-buffering", "no");
        self.transport.respond(out, call, &Response { body: Body::Stream, ..head });
    }

    /// One item of a stream, as encoded protobuf.
    pub(super) fn put_item(&mut self, now: Instant, out: &mut Vec<u8>, call: u64, message: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        exchange.last_item = Some(now);
        if let Speech::Rpc(_, rpc) = &exchange.speech {
            self.transport.write(out, call, &rpc.item(message));
        }
    }

    /// When a sign of life is due that keeps proxies from ending the connection or a stream.
    pub(super) fn keeps_alive_at(&self) -> Option<Instant> {
        let ping = match &self.transport {
            Transport::One(_) => None,
            Transport::Two(two) => two.pings_at(),
        };
        self.exchanges.values().filter_map(Exchange::beats_at).chain(ping).min()
    }

    /// Gives the signs of life that are due; whether there was one.
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
                // The bytes that wait are sign enough once the client takes them.
                exchange.last_item = Some(now);
            }
        }
        let pinged = match &mut self.transport {
            Transport::One(_) => false,
            Transport::Two(two) => two.ping(now),
        };
        pinged || !due.is_empty()
    }

    /// Bytes of a stream that a route holds open.
    pub(super) fn put_bytes(&mut self, out: &mut Vec<u8>, call: u64, bytes: &[u8]) {
        if self.exchanges.get(&call).is_some_and(|exchange| exchange.begun) {
            self.transport.write(out, call, bytes);
        }
    }

    /// A stream ended well.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, call: u64) {
        match self.exchanges.remove(&call).map(|exchange| exchange.speech) {
            Some(Speech::Rpc(_, rpc)) => self.finish(out, call, &rpc, None),
            Some(Speech::Plain(_) | Speech::Held) => self.transport.finish(out, call, &[]),
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

/// The status that says what a call failed with (connectrpc.com/docs/protocol, "Error codes").
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

/// An error as routes say it: an object with the code's name and the words.
pub(super) fn refusal(error: &CallError) -> Response {
    let code = error.code.name().to_ascii_lowercase();
    Response::json(status(error.code), &serde_json::json!({"code": code, "message": error.message}))
}

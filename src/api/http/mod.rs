//! HTTP on a client's connection: a second codec over the calls that native frames make.
//!
//! Owns what a connection that began as HTTP has under way: bytes become requests, requests become calls or are answered
//! by a route, and what calls give becomes bytes. Sans I/O like everything in the engine. Must never decide what a method
//! does ([`crate::api::dispatch`]) or what a caller may do ([`crate::api::caller`]).
//!
//! `h1` is HTTP/1.x; `message` what is asked and answered, whatever the version; `route` the table of paths and `reply`
//! what a handler in it may say.

pub(super) mod body;
pub(super) mod events;
mod h1;
#[allow(dead_code, reason = "routes to come use it")]
pub(super) mod message;
pub(super) mod page;
pub(super) mod probe;
#[allow(dead_code, reason = "routes to come use it")]
pub(super) mod reply;
pub(super) mod route;

use std::collections::BTreeMap;
use std::time::Duration;

use peat_ipc::frame::Decoder;
use peat_ipc::method;
use peat_ipc::{CallError, Code};

use self::h1::H1;
use self::message::{Body, Request, Response};
use self::reply::Shape;
use crate::limits::{FRAME_STALL, HTTP_HEAD_TIME, HTTP_PIPELINED_BYTES};

/// What a client has said.
#[derive(Debug)]
pub(super) enum Event {
    /// A whole request, and its number as a call.
    Request(u64, Box<Request>),
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
}

/// How the answer to one request is said.
#[derive(Debug)]
pub(super) enum Speech {
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
}

/// A connection that speaks HTTP.
#[derive(Debug)]
pub(super) struct Http {
    transport: H1,
    exchanges: BTreeMap<u64, Exchange>,
    /// Why it will be closed.
    refused: Option<Refusal>,
}

impl Http {
    pub(super) fn new() -> Http {
        Http { transport: H1::new(), exchanges: BTreeMap::new(), refused: None }
    }

    /// What the client has said next.
    pub(super) fn next(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<Option<Event>, CallError> {
        self.transport.next(input, out).map_err(|refusal| {
            let error = CallError::new(Code::InvalidArgument, refusal.message.clone());
            self.refused = Some(refusal);
            error
        })
    }

    /// Bytes held of requests that are not complete.
    pub(super) fn buffered(&self) -> usize {
        self.transport.buffered()
    }

    /// Whether more may be read while calls are under way: requests in advance are kept, so many of them.
    pub(super) fn wants_bytes(&self, input: &Decoder) -> bool {
        self.transport.awaits_request() || input.buffered() < HTTP_PIPELINED_BYTES
    }

    /// Whether a request has begun and is not complete, and how long it may take.
    pub(super) fn incomplete(&self, input: &Decoder) -> Option<Duration> {
        if !self.transport.awaits_request() || (self.transport.awaits_head() && input.buffered() == 0) {
            return None;
        }
        Some(if self.transport.awaits_head() { HTTP_HEAD_TIME } else { FRAME_STALL })
    }

    /// Whether no request is begun and none is unanswered.
    pub(super) fn is_idle(&self, input: &Decoder) -> bool {
        self.transport.awaits_head() && input.buffered() == 0
    }

    /// Whether the last answer was the connection's last.
    pub(super) fn is_over(&self) -> bool {
        self.transport.is_over()
    }

    /// How call `call` will be answered.
    pub(super) fn expect(&mut self, call: u64, speech: Speech) {
        self.exchanges.insert(call, Exchange { speech, begun: false });
    }

    /// Answers a request with what a handler said.
    pub(super) fn reply(&mut self, out: &mut Vec<u8>, call: u64, response: &Response) {
        if self.transport.is_open(call) {
            self.transport.respond(out, response);
        }
    }

    /// A call is over.
    pub(super) fn respond(&mut self, out: &mut Vec<u8>, call: u64, result: Result<&method::Response, &CallError>) {
        if call == 0 {
            return self.fail(out, result);
        }
        let Some(Exchange { speech, begun }) = self.exchanges.remove(&call) else { return };
        match speech {
            Speech::Plain(_) | Speech::Held if begun => self.transport.finish(out),
            Speech::Plain(shape) => self.transport.respond(out, &(shape.whole)(result)),
            Speech::Held => self.transport.respond(out, &Response::text(500, "a stream that did not begin")),
        }
    }

    /// The connection cannot go on: says why.
    fn fail(&mut self, out: &mut Vec<u8>, result: Result<&method::Response, &CallError>) {
        let Err(error) = result else { return };
        let status = match &self.refused {
            Some(refusal) => refusal.status,
            // Slow was the client.
            None if error.code == Code::DeadlineExceeded => 408,
            None => status(error.code),
        };
        self.transport.refuse(out, &Response::text(status, &error.message));
    }

    /// A call streams from now on: its head is sent.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>, call: u64, head: Option<&Response>) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        let head = match &exchange.speech {
            Speech::Plain(Shape { stream: Some((head, _)), .. }) => head,
            _ => match head {
                Some(head) => head,
                None => return,
            },
        };
        let head = Response { body: Body::Stream, ..head.clone() };
        exchange.begun = true;
        self.transport.respond(out, &head);
    }

    /// One item of a stream, as encoded protobuf.
    pub(super) fn put_item(&mut self, out: &mut Vec<u8>, call: u64, message: &[u8]) {
        let Some(exchange) = self.exchanges.get_mut(&call) else { return };
        if let Speech::Plain(Shape { stream: Some((_, item)), .. }) = &exchange.speech {
            self.transport.write(out, &item(message));
        }
    }

    /// Bytes of a stream that a route holds open.
    pub(super) fn put_bytes(&mut self, out: &mut Vec<u8>, call: u64, bytes: &[u8]) {
        if self.exchanges.get(&call).is_some_and(|exchange| exchange.begun) {
            self.transport.write(out, bytes);
        }
    }

    /// A stream ended well.
    pub(super) fn end(&mut self, out: &mut Vec<u8>, call: u64) {
        if self.exchanges.remove(&call).is_some() {
            self.transport.finish(out);
        }
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

//! HTTP/2 with prior knowledge on one connection: many requests at once, each with a window of its own.
//!
//! Frames, header compression and windows are the `h2` crate's, which is polled whenever bytes came or something is to be
//! said. It believes to have a socket ([`super::pipe`]).

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use peat_ipc::frame::Decoder;

use super::authority::Mender;
use super::message::{Body, Headers, Request, Response};
use super::pipe::{Flag, Pipe};
use super::rpc::Target;
use super::{Event, Refusal};
use crate::limits::{HTTP_BODY_BYTES, HTTP_HEAD_BYTES, HTTP_HEADERS, HTTP_STREAM_AHEAD_BYTES, HTTP_STREAMS};

/// Bytes in one direction that may wait within the connection.
const AHEAD_BYTES: usize = 64 << 10;
/// What one stream may send before it is told to go on, and all of a connection.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Streams that were reset and still count; more end the connection (CVE-2023-44487).
const RESET_STREAMS: usize = 32;
/// Times the library is polled for one input; each time moves something.
const TURNS: usize = 64;

enum State {
    Greeting(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Box<Connection<Pipe, Bytes>>),
    Over,
}

/// One request and its answer.
struct Stream {
    /// Until the request is whole.
    receiving: Option<RecvStream>,
    /// Until it is handed over.
    request: Option<Box<Request>>,
    body: BytesMut,
    /// What comes is handed over in pieces.
    uploads: bool,
    /// Until the head of the answer is sent.
    respond: Option<SendResponse<Bytes>>,
    sending: Option<SendStream<Bytes>>,
    /// What the client's window has no room for yet.
    pending: BytesMut,
    /// Nothing is added to `pending` any more; these follow it.
    end: Option<HeaderMap>,
    head_only: bool,
}

pub(super) struct H2 {
    state: State,
    mender: Mender,
    pipe: Pipe,
    flag: Arc<Flag>,
    waker: Waker,
    streams: BTreeMap<u64, Stream>,
    events: VecDeque<Event>,
    refused: Option<Refusal>,
}

impl std::fmt::Debug for H2 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("H2").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl H2 {
    pub(super) fn new() -> H2 {
        let (pipe, flag) = (Pipe::default(), Arc::<Flag>::default());
        let greeting = Builder::new()
            .max_concurrent_streams(HTTP_STREAMS)
            .max_header_list_size(u32::try_from(HTTP_HEAD_BYTES).unwrap_or(u32::MAX))
            .initial_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .max_send_buffer_size(AHEAD_BYTES)
            .max_concurrent_reset_streams(RESET_STREAMS)
            .max_pending_accept_reset_streams(RESET_STREAMS)
            .max_local_error_reset_streams(Some(RESET_STREAMS))
            .handshake(pipe.clone());
        let waker = Waker::from(Arc::clone(&flag));
        let state = State::Greeting(Box::pin(greeting));
        H2 {
            state,
            mender: Mender::new(),
            pipe,
            flag,
            waker,
            streams: BTreeMap::new(),
            events: VecDeque::new(),
            refused: None,
        }
    }

    /// Takes what came and gives what is to be written, as far as both go.
    pub(super) fn pump(&mut self, input: &mut Decoder, out: &mut Vec<u8>) {
        {
            let mut buffers = self.pipe.lock();
            self.mender.pass(input.peek(), &mut buffers.incoming);
            input.skip(input.buffered());
            buffers.allowance = AHEAD_BYTES.saturating_sub(out.len());
        }
        for _ in 0..TURNS {
            self.write_streams();
            // What was written asks for the turn that comes; only what happens in it asks for another.
            self.flag.take();
            self.poll();
            self.read_streams();
            if !self.flag.take() {
                break;
            }
        }
        let mut buffers = self.pipe.lock();
        if out.is_empty() {
            std::mem::swap(out, &mut buffers.outgoing);
        } else {
            out.append(&mut buffers.outgoing);
        }
    }

    pub(super) fn next(&mut self) -> Result<Option<Event>, Refusal> {
        match self.events.pop_front() {
            Some(event) => Ok(Some(event)),
            None => self.refused.take().map_or(Ok(None), Err),
        }
    }

    fn poll(&mut self) {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        if let State::Greeting(greeting) = &mut self.state {
            match greeting.as_mut().poll(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Ok(connection)) => self.state = State::Open(Box::new(connection)),
                Poll::Ready(Err(error)) => return self.give_up(&error),
            }
        }
        while let State::Open(connection) = &mut self.state {
            match connection.poll_accept(&mut context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok((request, respond)))) => self.accept(request, respond),
                Poll::Ready(Some(Err(error))) => return self.give_up(&error),
                Poll::Ready(None) => {
                    self.state = State::Over;
                    self.refused.get_or_insert(Refusal::new(400, "the client ended the connection"));
                }
            }
        }
    }

    fn give_up(&mut self, error: &h2::Error) {
        self.refused.get_or_insert(Refusal::new(400, format!("HTTP/2: {error}")));
        self.state = State::Over;
    }

    fn accept(&mut self, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
        let (head, receiving) = request.into_parts();
        let call = u64::from(respond.stream_id().as_u32());
        if head.headers.len() > HTTP_HEADERS {
            return respond.send_reset(Reason::ENHANCE_YOUR_CALM);
        }
        let mut headers = Headers::default();
        if let Some(authority) = head.uri.authority() {
            headers.push("host", authority.as_str());
        }
        for (name, value) in &head.headers {
            match value.to_str() {
                Ok(value) => headers.push(name.as_str(), value),
                Err(_) => return respond.send_reset(Reason::PROTOCOL_ERROR),
            }
        }
        if headers.all("host").count() != 1 {
            return respond.send_reset(Reason::PROTOCOL_ERROR);
        }
        let request = Request {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or("").to_owned(),
            headers,
            ..Request::default()
        };
        let uploads = matches!(Target::find(&request.path), Some(Ok(target)) if target.takes_uploads());
        let head_only = request.method == "HEAD";
        let mut request = Some(Box::new(request));
        if uploads && let Some(request) = request.take() {
            self.events.push_back(Event::Request(call, request));
        }
        let stream = Stream {
            receiving: Some(receiving),
            request,
            body: BytesMut::new(),
            uploads,
            respond: Some(respond),
            sending: None,
            pending: BytesMut::new(),
            end: None,
            head_only,
        };
        self.streams.insert(call, stream);
    }

    fn read_streams(&mut self) {
        let waker = self.waker.clone();
        let mut context = Context::from_waker(&waker);
        let mut lost = Vec::new();
        for (&call, stream) in &mut self.streams {
            match stream.read(call, &mut context, &mut self.events) {
                Ok(()) => {}
                Err(Lost) => lost.push(call),
            }
        }
        for call in lost {
            self.streams.remove(&call);
            self.events.push_back(Event::Cancel(call));
        }
    }

    fn write_streams(&mut self) {
        self.streams.retain(|_, stream| !stream.write());
    }

    pub(super) fn is_open(&self, call: u64) -> bool {
        self.streams.get(&call).is_some_and(|stream| stream.end.is_none())
    }

    pub(super) fn is_idle(&self) -> bool {
        self.streams.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.state, State::Over) && self.events.is_empty() && self.refused.is_none()
    }

    /// Whether a request is begun and not complete.
    pub(super) fn is_incomplete(&self) -> bool {
        matches!(self.state, State::Greeting(_)) || self.streams.values().any(|stream| stream.request.is_some())
    }

    pub(super) fn has_events(&self) -> bool {
        !self.events.is_empty() || self.refused.is_some()
    }

    pub(super) fn wants_bytes(&self) -> bool {
        self.pipe.lock().incoming.len() < AHEAD_BYTES
    }

    pub(super) fn has_room(&self, call: u64) -> bool {
        self.streams.get(&call).is_some_and(|stream| stream.pending.len() < HTTP_STREAM_AHEAD_BYTES)
    }

    /// Bytes of requests that are not complete.
    pub(super) fn buffered(&self) -> usize {
        let bodies: usize = self.streams.values().map(|stream| stream.body.len()).sum();
        bodies + self.pipe.lock().incoming.len()
    }

    /// Bytes of answers that no window has room for.
    pub(super) fn owed(&self) -> usize {
        self.streams.values().map(|stream| stream.pending.len()).sum()
    }

    pub(super) fn respond(&mut self, call: u64, response: &Response) {
        let Some(stream) = self.streams.get_mut(&call) else { return };
        let Some(mut respond) = stream.respond.take() else { return };
        let whole = match &response.body {
            Body::Whole(body) => Some(body.clone()),
            Body::Stream => None,
        };
        let nothing = stream.head_only || whole.as_ref().is_some_and(Bytes::is_empty);
        match respond.send_response(head(response), nothing) {
            Ok(sending) => stream.sending = Some(sending),
            // The client has reset it, which the next poll tells.
            Err(_) => return,
        }
        if let Some(body) = whole {
            stream.pending.extend_from_slice(if nothing { b"" } else { &body });
            stream.end = Some(HeaderMap::new());
        }
    }

    pub(super) fn write(&mut self, call: u64, bytes: &[u8]) {
        if let Some(stream) = self.streams.get_mut(&call).filter(|stream| !stream.head_only) {
            stream.pending.extend_from_slice(bytes);
        }
    }

    pub(super) fn finish(&mut self, call: u64, trailers: &[(&'static str, String)]) {
        let Some(stream) = self.streams.get_mut(&call) else { return };
        let mut end = HeaderMap::new();
        for (name, value) in trailers {
            if let Ok(value) = HeaderValue::from_str(value) {
                end.insert(HeaderName::from_static(name), value);
            }
        }
        stream.end.get_or_insert(end);
    }

    /// Ends one stream, whatever it is still owed.
    pub(super) fn reset(&mut self, call: u64) {
        match self.streams.remove(&call) {
            Some(Stream { sending: Some(mut sending), .. }) => sending.send_reset(Reason::ENHANCE_YOUR_CALM),
            Some(Stream { respond: Some(mut respond), .. }) => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
            _ => {}
        }
    }

    /// Ends the connection and says so.
    pub(super) fn refuse(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
    }
}

/// The client has reset a stream.
struct Lost;

impl Stream {
    fn read(&mut self, call: u64, context: &mut Context<'_>, events: &mut VecDeque<Event>) -> Result<(), Lost> {
        while let Some(receiving) = &mut self.receiving {
            match receiving.poll_data(context) {
                Poll::Pending => break,
                Poll::Ready(Some(Ok(bytes))) => {
                    // A window that cannot be widened is that of a stream that is over.
                    let _ = receiving.flow_control().release_capacity(bytes.len());
                    self.take(call, bytes, events);
                }
                Poll::Ready(Some(Err(_))) => return Err(Lost),
                Poll::Ready(None) => {
                    self.receiving = None;
                    self.complete(call, events);
                }
            }
        }
        let reset = match (&mut self.respond, &mut self.sending) {
            (Some(respond), _) => respond.poll_reset(context).is_ready(),
            (None, Some(sending)) => sending.poll_reset(context).is_ready(),
            (None, None) => false,
        };
        if reset { Err(Lost) } else { Ok(()) }
    }

    fn take(&mut self, call: u64, bytes: Bytes, events: &mut VecDeque<Event>) {
        if self.uploads {
            events.push_back(Event::Upload(call, bytes));
        } else if self.body.len() + bytes.len() > HTTP_BODY_BYTES {
            self.body.clear();
            if let Some(request) = self.request.take() {
                events.push_back(Event::TooLarge(call, request));
            }
        } else if self.request.is_some() {
            self.body.extend_from_slice(&bytes);
        }
    }

    fn complete(&mut self, call: u64, events: &mut VecDeque<Event>) {
        if self.uploads {
            events.push_back(Event::HalfClose(call));
        } else if let Some(mut request) = self.request.take() {
            request.body = self.body.split().freeze();
            events.push_back(Event::Request(call, request));
        }
    }

    /// Sends what the window has room for; whether the stream is over.
    fn write(&mut self) -> bool {
        let Some(sending) = &mut self.sending else { return false };
        while !self.pending.is_empty() {
            sending.reserve_capacity(self.pending.len());
            let count = sending.capacity().min(self.pending.len());
            if count == 0 {
                return false;
            }
            let last = count == self.pending.len() && self.end.as_ref().is_some_and(HeaderMap::is_empty);
            if sending.send_data(self.pending.split_to(count).freeze(), last).is_err() {
                return false;
            }
            if last {
                return true;
            }
        }
        match self.end.take() {
            // An end without trailers went with the head or the last bytes, unless there were none.
            Some(end) if end.is_empty() => _ = sending.send_data(Bytes::new(), true),
            Some(end) => _ = sending.send_trailers(end),
            None => return false,
        }
        true
    }
}

fn head(response: &Response) -> http::Response<()> {
    let mut head = http::Response::new(());
    *head.status_mut() = http::StatusCode::from_u16(response.status).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in &response.headers {
        if let Ok(value) = HeaderValue::from_str(value) {
            head.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    if let Body::Whole(body) = &response.body {
        head.headers_mut().insert(http::header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    }
    head
}

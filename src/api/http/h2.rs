//! HTTP/2 with prior knowledge on one connection: concurrent requests, each with its flow-control window.
//!
//! Frames, header compression and windows are implemented by the `h2` crate, which is polled whenever bytes arrived or there is
//! output. In place of a socket it gets a [`crate::pipe`]. `stream` holds one request and its answer.

mod stream;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, Connection, Handshake, SendResponse};
use h2::{Ping, PingPong, Reason, RecvStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use peat_ipc::frame::Decoder;

use self::stream::{Lost, Stream};
use super::authority::{AuthorityRewriter, FRAME_HEAD};
use super::message::{Body, Headers, HttpRequest, Response};
use super::rpc::Target;
use super::{Event, Refusal};
use crate::limits::{HTTP_HEAD_BYTES, HTTP_HEADERS, HTTP_PING, HTTP_STREAM_AHEAD_BYTES, HTTP_STREAMS};
use crate::pipe::{Flag, Pipe};

/// Bytes per direction that may wait between this connection and the library.
const AHEAD_BYTES: usize = 64 << 10;
/// Flow-control window of one stream. Bounds the memory of a body that is not consumed.
const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// Flow-control window of all streams of a connection together.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// Number of streams reset here for which late frames of the client are ignored; for older ones it is sent an error.
const ENDED_STREAMS: usize = HTTP_STREAMS as usize;
/// Number of streams that the client may have reset before they are accepted: more than fit in one read. The cost of such a
/// stream (rapid reset, CVE-2023-44487) is bounded by its bytes, because no call begins before its request is complete.
const GIVEN_UP_STREAMS: usize = 2 * AHEAD_BYTES / (2 * FRAME_HEAD);
/// Maximum number of polls of the library per event; each of them makes progress.
const TURNS: usize = 64;

enum State {
    Greeting(Pin<Box<Handshake<Pipe, Bytes>>>),
    Open(Box<Connection<Pipe, Bytes>>),
    Over,
}

/// The codec of HTTP/2.
pub(super) struct H2 {
    state: State,
    mender: AuthorityRewriter,
    pipe: Pipe,
    flag: Arc<Flag>,
    waker: Waker,
    streams: BTreeMap<u64, Stream>,
    events: VecDeque<Event>,
    refused: Option<Refusal>,
    /// Time of the latest event.
    now: Option<Instant>,
    ping: Option<PingPong>,
    /// Time at which the last PING was sent, or the connection began.
    pinged: Option<Instant>,
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
            .max_concurrent_reset_streams(ENDED_STREAMS)
            .max_pending_accept_reset_streams(GIVEN_UP_STREAMS)
            // The library counts these over the life of a connection, so a long-lived one with many legitimate calls would reach
            // any limit.
            .max_local_error_reset_streams(None)
            // Unlimited: the budget bounds the overhead of buffered small frames, and data is copied out of frames at once.
            .data_frame_budget(usize::MAX / 2)
            .handshake(pipe.clone());
        let waker = Waker::from(Arc::clone(&flag));
        let state = State::Greeting(Box::pin(greeting));
        H2 {
            state,
            mender: AuthorityRewriter::new(),
            pipe,
            flag,
            waker,
            streams: BTreeMap::new(),
            events: VecDeque::new(),
            refused: None,
            now: None,
            ping: None,
            pinged: None,
        }
    }

    /// Passes input to the library and takes its output, as far as both have room.
    pub(super) fn pump(&mut self, now: Instant, input: &mut Decoder, out: &mut Vec<u8>) {
        self.now = Some(now);
        {
            let mut buffers = self.pipe.lock();
            self.mender.pass(input.peek(), &mut buffers.incoming);
            input.skip(input.buffered());
            buffers.allowance = AHEAD_BYTES.saturating_sub(out.len());
        }
        for _ in 0..TURNS {
            self.write_streams();
            // Clears the wake-ups that writing caused, because the poll below serves them; only a wake-up during the poll asks
            // for another.
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
                Poll::Ready(Ok(mut connection)) => {
                    (self.ping, self.pinged) = (connection.ping_pong(), self.now);
                    self.state = State::Open(Box::new(connection));
                }
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
        let request = HttpRequest {
            method: head.method.as_str().to_owned(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or("").to_owned(),
            headers,
            ..HttpRequest::default()
        };
        let uploads = matches!(Target::find(&request.path), Some(Ok(target)) if target.takes_uploads());
        let head_only = request.method == "HEAD";
        let mut request = Some(Box::new(request));
        if uploads && let Some(request) = request.take() {
            self.events.push_back(Event::Request(call, request));
        }
        let stream = Stream {
            begun: self.now,
            receiving: Some(receiving),
            request,
            body: BytesMut::new(),
            uploads,
            respond: Some(respond),
            sending: None,
            pending: BytesMut::new(),
            stuck: None,
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
        let now = self.now;
        self.streams.retain(|_, stream| !stream.write(now));
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

    /// Returns true if the connection has begun and its handshake is not complete.
    pub(super) fn is_incomplete(&self) -> bool {
        matches!(self.state, State::Greeting(_))
    }

    /// Returns the time at which the first stream that makes no progress times out.
    pub(super) fn stalls_at(&self) -> Option<Instant> {
        self.streams.values().filter_map(Stream::stalls_at).min()
    }

    /// Ends the streams that have timed out; returns true if there was one. A request that does not arrive is refused; an answer
    /// that is not taken is reset.
    pub(super) fn end_stalled(&mut self, now: Instant) -> bool {
        let stalled = |stream: &Stream| stream.stalls_at().is_some_and(|at| at <= now);
        let calls: Vec<u64> =
            self.streams.iter().filter(|(_, stream)| stalled(stream)).map(|(call, _)| *call).collect();
        for &call in &calls {
            match self.streams.get_mut(&call).and_then(|stream| stream.request.take()) {
                Some(request) => self.events.push_back(Event::Refused(call, request, Refusal::too_slow())),
                None => self.reset(call),
            }
        }
        !calls.is_empty()
    }

    /// Returns the time at which the next PING is due. Proxies do not forward a PING, but count it as activity.
    pub(super) fn pings_at(&self) -> Option<Instant> {
        self.pinged.filter(|_| !self.streams.is_empty()).map(|at| at + HTTP_PING)
    }

    /// Sends a PING if one is due; returns true if so.
    pub(super) fn ping(&mut self, now: Instant) -> bool {
        if self.pings_at().is_none_or(|at| at > now) {
            return false;
        }
        self.pinged = Some(now);
        let waker = self.waker.clone();
        if let Some(ping) = &mut self.ping {
            let _ = ping.poll_pong(&mut Context::from_waker(&waker));
            // Fails while an earlier PING is unanswered, which serves as well.
            let _ = ping.send_ping(Ping::opaque());
        }
        true
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

    /// Returns the number of bytes of incomplete requests.
    pub(super) fn buffered(&self) -> usize {
        let bodies: usize = self.streams.values().map(|stream| stream.body.len()).sum();
        bodies + self.pipe.lock().incoming.len()
    }

    /// Returns the number of answer bytes for which no window has room.
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
            // The client has reset the stream, which the next poll reports.
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

    /// Resets one stream and drops its pending output.
    pub(super) fn reset(&mut self, call: u64) {
        match self.streams.remove(&call) {
            Some(Stream { sending: Some(mut sending), .. }) => sending.send_reset(Reason::ENHANCE_YOUR_CALM),
            Some(Stream { respond: Some(mut respond), .. }) => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
            _ => {}
        }
    }

    /// Ends the connection with GOAWAY.
    pub(super) fn refuse(&mut self) {
        if let State::Open(connection) = &mut self.state {
            connection.abrupt_shutdown(Reason::NO_ERROR);
        }
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

//! One client's connection: its bytes in both directions, its unfinished calls, and its deadlines.
//!
//! Decides nothing about calls. A client's bytes are read only while there is room for the requests in them (back-pressure).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{self, Decoder, PAYLOAD_BYTES};
use peat_ipc::method::Response;
use peat_ipc::{CallError, Code, PREFACE};

use crate::api::caller::{Caller, Role};
use crate::api::dispatch::{READ, too_large};
use crate::api::engine::Principal;
#[cfg(feature = "http")]
use crate::api::http::{self, Event, Http};
use crate::clock::Now;
use crate::limits::{CLIENT_IDLE, FIRST_FRAME, FRAME_STALL, HEALTH_CONNECTION, MESSAGE_BYTES};
use crate::store::Envelope;

/// Number the shell gave a connection; never reused.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

const _: () = assert!(frame::FRAME_BYTES == MESSAGE_BYTES, "a client and its node agree on the largest frame");

/// Capacity of the output buffer that is kept between answers, in bytes; a larger buffer is shrunk to this.
const KEPT_BYTES: usize = 64 << 10;
/// Output bytes above which streams of this connection pause: enough to keep the socket full, small enough that calls are not
/// delayed.
const STREAM_AHEAD_BYTES: usize = 64 << 10;
/// Time in which the final bytes of a closing connection must be written, and longest pause of a client that still sends.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// Longest time for which a closing connection discards bytes that the client still sends.
const LINGER: Duration = FRAME_STALL;

/// Codec of a connection, detected from its first bytes.
#[derive(Debug)]
enum Codec {
    Unknown,
    Frames,
    #[cfg(feature = "http")]
    Http(Box<Http>),
}

/// One item a client has sent.
#[derive(Debug)]
pub(super) enum Input {
    Frame(u64, Body),
    #[cfg(feature = "http")]
    Http(Event),
}

/// One client's connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) caller: Caller,
    /// Role of every call; `None` if each call must carry a token.
    pub(super) role: Option<Role>,
    /// Principal that this connection is counted to.
    pub(super) principal: Principal,
    /// Set on a connection over the limit: only health may be asked for, and every other call fails with this error.
    pub(super) only_health: Option<CallError>,
    pub(super) input: Decoder,
    codec: Codec,
    opened: Instant,
    /// True if the client reassembles long messages from parts.
    pub(super) takes_parts: bool,
    /// True once a first frame or request has arrived.
    served: bool,
    /// Time at which the message that is incomplete now began.
    incomplete_since: Option<Instant>,
    out: Vec<u8>,
    out_start: usize,
    /// Number of bytes written to the socket since the connection opened.
    written: u64,
    /// Position, in the same count, at which the newest reply ends.
    replies_end: u64,
    /// Time of the newest reply.
    last_reply: Instant,
    /// Position at which a reply ends, and the deadline for the client to take it. Items of a stream of frames set no deadline:
    /// such a stream may wait for credit indefinitely, and the backlog is in the index, not here.
    reply_due: Option<(u64, Instant)>,
    /// Unfinished calls: the client's number to the engine's.
    pub(super) calls: BTreeMap<u64, u64>,
    /// Sum of the request sizes of the unfinished calls.
    pub(super) request_bytes: usize,
    /// Write that the store's queue had no room for; nothing is read from the client until it is accepted.
    pub(super) held: Option<Envelope>,
    /// True while frames wait because the client does not take its answers.
    pub(super) paused: bool,
    /// Reason for closing, and the latest time at which to close; set while the final bytes are being written.
    pub(super) closing: Option<(String, Instant)>,
    /// Set if the client may still be sending: unread bytes would make the kernel reset the connection and lose the final answer,
    /// so they are discarded until the client closes, until this time at the latest.
    lingers_until: Option<Instant>,
    /// True once the final bytes are written and the connection is shut for writing.
    pub(super) is_shut: bool,
    /// Bytes in and out as last added to the engine's totals.
    pub(super) counted: (usize, usize),
    /// Deadline that the engine's timers hold for this connection.
    pub(super) timer: Option<Instant>,
    pub(super) output_queued: bool,
    pub(super) touched: bool,
}

impl Connection {
    pub(super) fn new(now: Now, caller: Caller, role: Option<Role>) -> Connection {
        Connection {
            principal: Principal::of(&caller, role),
            only_health: None,
            caller,
            role,
            input: Decoder::default(),
            codec: Codec::Unknown,
            opened: now.mono,
            takes_parts: false,
            served: false,
            incomplete_since: None,
            out: Vec::new(),
            out_start: 0,
            written: 0,
            replies_end: 0,
            last_reply: now.mono,
            reply_due: None,
            calls: BTreeMap::new(),
            request_bytes: 0,
            held: None,
            paused: false,
            closing: None,
            lingers_until: None,
            is_shut: false,
            counted: (0, 0),
            timer: None,
            output_queued: false,
            touched: false,
        }
    }

    /// Returns the next complete frame or request. Consumes the preface first.
    ///
    /// # Errors
    /// INVALID_ARGUMENT: the bytes are not a preface, a frame or a request.
    pub(super) fn next_input(&mut self, now: Now) -> Result<Option<Input>, CallError> {
        if matches!(self.codec, Codec::Unknown) && !self.greet(now)? {
            return Ok(None);
        }
        let next = match &mut self.codec {
            Codec::Unknown => None,
            Codec::Frames => {
                let frame = self.input.next_frame().map_err(|error| violation(error.to_string()))?;
                frame.map(|(call, body)| Input::Frame(call, body))
            }
            #[cfg(feature = "http")]
            Codec::Http(http) => http.next(&mut self.input, &mut self.out)?.map(Input::Http),
        };
        self.served |= next.is_some();
        // A message keeps its start time until it is complete, so that single bytes do not extend the limit.
        let whole = next.is_some() || self.stall().is_none();
        self.incomplete_since = if whole { None } else { self.incomplete_since.or(Some(now.mono)) };
        Ok(next)
    }

    /// Returns the time that the message which is incomplete now may take to complete; `None` if there is none.
    fn stall(&self) -> Option<Duration> {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.incomplete(&self.input),
            _ => (self.input.buffered() > 0).then_some(FRAME_STALL),
        }
    }

    /// Detects the codec from the first bytes; returns true once it is known.
    #[cfg_attr(not(feature = "http"), allow(unused_variables, reason = "frames have no time of their own here"))]
    fn greet(&mut self, now: Now) -> Result<bool, CallError> {
        let came = self.input.peek();
        #[cfg(feature = "http")]
        if came.first().is_some_and(u8::is_ascii_uppercase) {
            let http = Http::begin_with(came);
            let known = http.is_some();
            self.codec = http.map_or(Codec::Unknown, |http| Codec::Http(Box::new(http)));
            self.pump(now.mono);
            return Ok(known);
        }
        let length = came.len().min(PREFACE.len());
        if came[..length] != PREFACE[..length] {
            return Err(violation("this is not the preface of peat/1, and nothing else is spoken here"));
        }
        if length == PREFACE.len() {
            self.input.skip(length);
            self.codec = Codec::Frames;
        }
        Ok(length == PREFACE.len())
    }

    /// Returns true if the client would understand an error: its codec is known.
    pub(super) fn is_understood(&self) -> bool {
        match self.codec {
            Codec::Unknown => self.input.peek().first().is_some_and(|byte| *byte == PREFACE[0]),
            _ => true,
        }
    }

    /// Returns true if the client's bytes should be read.
    pub(super) fn wants_bytes(&self) -> bool {
        let free = self.held.is_none() && !self.paused;
        let wants = match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.wants_bytes(&self.input, free),
            _ => free,
        };
        match self.closing {
            Some(_) => self.lingers_until.is_some(),
            None => wants,
        }
    }

    /// Notes bytes that are discarded on a closing connection, and extends the wait for more of them, within `lingers_until`.
    pub(super) fn pass_over(&mut self, now: Now) {
        if let (Some((_, at)), Some(until)) = (&mut self.closing, self.lingers_until) {
            *at = now.after(LAST_WORDS).min(until);
        }
    }

    /// Returns true if the connection waits for the client to close it.
    pub(super) fn lingers(&self) -> bool {
        self.lingers_until.is_some()
    }

    /// Ends requests and answers that make no progress where the connection's others can continue; returns true if there was one.
    pub(super) fn end_stalled(&mut self, now: Now) -> bool {
        #[cfg(feature = "http")]
        {
            let overdue = self.rest_due().is_some_and(|at| now.reached(at));
            if let Codec::Http(http) = &mut self.codec {
                return http.end_stalled(now.mono, overdue);
            }
        }
        let _ = now;
        false
    }

    /// Returns the number of bytes of requests that are incomplete, or complete and not begun.
    pub(super) fn buffered(&self) -> usize {
        let codec = match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.buffered(),
            _ => 0,
        };
        self.input.buffered() + codec
    }

    pub(super) fn respond(&mut self, now: Now, call: u64, result: Result<&Response, &CallError>) {
        match (&mut self.codec, result) {
            #[cfg(feature = "http")]
            (Codec::Http(http), _) => http.respond(&mut self.out, call, result),
            (_, Err(error)) => frame::put_error(&mut self.out, call, error),
            (_, Ok(response)) => match response.encoded_len() {
                length @ ..=PAYLOAD_BYTES => {
                    frame::put_response(&mut self.out, call, length, |out| response.encode(out));
                }
                length @ ..=frame::MESSAGE_BYTES if self.takes_parts => {
                    frame::put_response_in_parts(&mut self.out, call, length, |out| response.encode(out));
                }
                length => {
                    let limit = if self.takes_parts { frame::MESSAGE_BYTES } else { PAYLOAD_BYTES };
                    frame::put_error(&mut self.out, call, &too_large(length, limit, READ));
                }
            },
        }
        self.replied(now);
    }

    /// Starts the deadline for the client to take the bytes just written.
    pub(super) fn replied(&mut self, now: Now) {
        self.replies_end = self.written + self.output().len() as u64;
        self.reply_due.get_or_insert((self.replies_end, now.after(FRAME_STALL)));
        self.last_reply = now.mono;
        #[cfg(feature = "http")]
        if let Codec::Http(http) = &self.codec
            && http.is_over()
        {
            let cut = http.is_cut();
            self.close(now, "the client asked for no more than this".to_owned(), cut);
        }
    }

    /// Ends a stream without an error.
    pub(super) fn end(&mut self, now: Now, call: u64) {
        match &mut self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.end(&mut self.out, call),
            _ => frame::put_end(&mut self.out, call),
        }
        self.replied(now);
    }

    /// Returns the largest stream item the client takes, in bytes; `wanted` is the `max_change_bytes` of its subscription, 0 if
    /// not given.
    pub(super) fn longest_item(&self, wanted: usize) -> usize {
        match wanted {
            _ if !self.takes_parts && !self.speaks_http() => PAYLOAD_BYTES,
            0 if self.speaks_http() => PAYLOAD_BYTES,
            0 => frame::MESSAGE_BYTES,
            wanted => wanted.min(frame::MESSAGE_BYTES),
        }
    }

    /// Appends a stream item; returns true if there is room for another.
    #[cfg_attr(not(feature = "http"), expect(unused_variables, reason = "items of frames may wait for ever"))]
    pub(super) fn put_item(&mut self, now: Now, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        match &mut self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => {
                let mut message = Vec::with_capacity(length);
                encode(&mut message);
                http.put_item(now.mono, &mut self.out, call, &message);
                self.replied(now);
            }
            _ if self.takes_parts => frame::put_item_in_parts(&mut self.out, call, length, encode),
            _ => frame::put_item(&mut self.out, call, length, encode),
        }
        self.has_room_for(call)
    }

    /// Returns true if unread requests wait behind one that is unanswered (HTTP pipelining).
    pub(super) fn has_pipelined(&self) -> bool {
        self.speaks_http() && self.input.buffered() > 0
    }

    /// Returns the HTTP codec and the buffer it writes to.
    #[cfg(feature = "http")]
    pub(super) fn http(&mut self) -> Option<(&mut Http, &mut Vec<u8>)> {
        match &mut self.codec {
            Codec::Http(http) => Some((http, &mut self.out)),
            _ => None,
        }
    }

    /// Appends bytes to a stream that a route holds open; returns true if there is room for more.
    #[cfg(feature = "http")]
    pub(super) fn put_bytes(&mut self, now: Now, call: u64, bytes: &[u8]) -> bool {
        if let Some((http, out)) = self.http() {
            http.put_bytes(out, call, bytes);
        }
        self.replied(now);
        self.has_room_for(call)
    }

    /// Answers a request with the response of a route.
    #[cfg(feature = "http")]
    pub(super) fn reply(&mut self, now: Now, call: u64, response: &http::message::Response) {
        if let Some((http, out)) = self.http() {
            http.reply(out, call, response);
        }
        self.replied(now);
    }

    pub(super) fn has_stream_room(&self) -> bool {
        self.output().len() < STREAM_AHEAD_BYTES
    }

    /// Returns true if the stream of this call may be extended: the connection and the stream's own window have room.
    pub(super) fn has_room_for(&self, call: u64) -> bool {
        self.has_stream_room()
            && match &self.codec {
                #[cfg(feature = "http")]
                Codec::Http(http) => http.has_room(call),
                _ => {
                    let _ = call;
                    true
                }
            }
    }

    /// Lets the codec move bytes; returns true if the engine should read an event from it.
    pub(super) fn pump(&mut self, now: Instant) -> bool {
        #[cfg(feature = "http")]
        if let Codec::Http(http) = &mut self.codec {
            http.pump(now, &mut self.input, &mut self.out);
            return http.has_events() && !self.paused && self.held.is_none() && self.closing.is_none();
        }
        let _ = now;
        false
    }

    /// Returns the number of bytes that wait to be written, including those for which the client's flow-control windows have no
    /// room.
    pub(super) fn owed(&self) -> usize {
        let held = match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.owed(),
            _ => 0,
        };
        self.output().len() + held
    }

    /// Returns the bytes that wait to be written.
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.out_start..]
    }

    /// Drops the first `count` bytes of the output, which were written.
    pub(super) fn wrote(&mut self, now: Now, count: usize) {
        let count = count.min(self.output().len());
        self.out_start += count;
        self.written += count as u64;
        if self.out_start == self.out.len() {
            self.out.clear();
            self.out.shrink_to(KEPT_BYTES);
            self.out_start = 0;
        } else if self.out_start > KEPT_BYTES && self.out_start > self.out.len() / 2 {
            self.out.drain(..self.out_start);
            self.out_start = 0;
        }
        // The reply with a deadline was taken; a later one has the full time from now.
        if self.reply_due.is_some_and(|(end, _)| end <= self.written) {
            let more = self.replies_end > self.written;
            self.reply_due = more.then(|| (self.replies_end, now.after(FRAME_STALL)));
        }
    }

    /// Closes the connection once its final bytes, if any, are written. `lingers`: the client may still be sending.
    pub(super) fn close(&mut self, now: Now, reason: String, lingers: bool) {
        if self.closing.is_none() {
            self.lingers_until = lingers.then(|| now.after(LINGER));
        }
        self.closing.get_or_insert((reason, now.after(LAST_WORDS)));
        self.held = None;
        self.input = Decoder::default();
        self.incomplete_since = None;
    }

    pub(super) fn speaks_http(&self) -> bool {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(_) => true,
            _ => false,
        }
    }

    /// Returns the time since which the connection is idle, if it is subject to the idle timeout. The watcher's connection is
    /// not.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => (http.is_idle(&self.input) && self.calls.is_empty()).then_some(self.last_reply),
            Codec::Frames if self.caller == Caller::Watcher => None,
            Codec::Frames => {
                let idle = self.served && self.calls.is_empty() && self.input.buffered() == 0;
                idle.then_some(self.last_reply)
            }
            Codec::Unknown => None,
        }
    }

    /// Returns the time at which a connection over the limit, kept for health alone, is closed.
    pub(super) fn health_until(&self) -> Option<Instant> {
        self.only_health.as_ref().map(|_| self.opened + HEALTH_CONNECTION)
    }

    /// Returns the earliest time at which the connection needs attention: closing, a stalled message or reply, the idle timeout,
    /// or a keep-alive that is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some((_, at)) = self.closing {
            return Some(at);
        }
        let first = (!self.served && !self.speaks_http()).then(|| self.opened + FIRST_FRAME);
        let reply = self.reply_due.map(|(_, at)| at);
        let idle = self.idle_since().map(|since| since + CLIENT_IDLE);
        [first, self.rest_due(), reply, idle, self.stalls_at(), self.health_until()].into_iter().flatten().min()
    }

    /// Returns the time at which the incomplete message exceeds its limit. `None` while paused: then the node is not reading.
    fn rest_due(&self) -> Option<Instant> {
        let stall = self.stall().filter(|_| !self.paused);
        self.incomplete_since.zip(stall).map(|(since, stall)| since + stall)
    }

    /// Returns the time at which one request or answer among others stalls, or a keep-alive is due (HTTP).
    fn stalls_at(&self) -> Option<Instant> {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.stalls_at().into_iter().chain(http.keeps_alive_at()).min(),
            _ => None,
        }
    }

    /// Sends the keep-alives that are due, so that proxies do not close idle streams; returns true if there was one.
    pub(super) fn keep_alive(&mut self, now: Now) -> bool {
        match &mut self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.keep_alive(now.mono, &mut self.out),
            _ => {
                let _ = now;
                false
            }
        }
    }

    /// Returns the error for a client that missed its deadline.
    pub(super) fn too_slow(&self) -> CallError {
        let seconds = self.stall().unwrap_or(FRAME_STALL).as_secs();
        let message = match (self.served, self.reply_due) {
            (false, _) if !self.speaks_http() => format!("no first frame within {} s", FIRST_FRAME.as_secs()),
            (_, Some(_)) => format!("a reply was not taken within {seconds} s"),
            (_, None) => format!("a message was begun and not completed within {seconds} s"),
        };
        CallError::new(Code::DeadlineExceeded, message)
    }
}

/// Returns the error for a client that broke the protocol, which closes its connection.
pub(super) fn violation(message: impl Into<String>) -> CallError {
    CallError::new(Code::InvalidArgument, message)
}

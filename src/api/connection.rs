//! One client's connection: its bytes in both directions, its unfinished calls, and how slow it may be.
//!
//! Decides nothing about calls. What a client sends is read only while there is room for what it asks for.

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
use crate::store::Submitted;

/// A connection, as the shell numbers it. Never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

const _: () = assert!(frame::FRAME_BYTES == MESSAGE_BYTES, "a client and its node agree on the largest frame");

/// A written buffer up to this size is kept for the next answer; a larger one is given back.
const KEPT_BYTES: usize = 64 << 10;
/// A stream adds nothing while more than this waits to be written.
const STREAM_AHEAD_BYTES: usize = 64 << 10;
/// How long the last words of a closing connection may take to be written, and how long a client that goes on sending may pause.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How long what a client goes on sending is passed over.
const LINGER: Duration = FRAME_STALL;

/// What a connection speaks; its first bytes say.
#[derive(Debug)]
enum Codec {
    Unknown,
    Frames,
    #[cfg(feature = "http")]
    Http(Box<Http>),
}

/// What a client has said.
#[derive(Debug)]
pub(super) enum Input {
    Frame(u64, Body),
    #[cfg(feature = "http")]
    Http(Event),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) caller: Caller,
    /// `None` where every call must show a token.
    pub(super) role: Option<Role>,
    /// Whose share it is counted to.
    pub(super) principal: Principal,
    /// Why the node's health is all that can be asked for: there is no room for the connection otherwise.
    pub(super) only_health: Option<CallError>,
    pub(super) input: Decoder,
    codec: Codec,
    opened: Instant,
    /// The client puts the parts of long messages together.
    pub(super) takes_parts: bool,
    /// Whether a first frame came.
    served: bool,
    /// When the frame that is incomplete now began.
    incomplete_since: Option<Instant>,
    out: Vec<u8>,
    out_start: usize,
    /// Bytes ever written, and where in that count the last reply ends.
    written: u64,
    replies_end: u64,
    /// When it was last answered.
    last_reply: Instant,
    /// A reply's end, and when it must have been taken. Stream items may wait for ever: what is owed is not kept here.
    reply_due: Option<(u64, Instant)>,
    /// Unfinished calls: the client's number to the engine's.
    pub(super) calls: BTreeMap<u64, u64>,
    /// Request bytes of those.
    pub(super) request_bytes: usize,
    /// A write for which the store has no room yet; nothing is read until it has.
    pub(super) held: Option<Submitted>,
    /// Frames wait because the client does not take its answers.
    pub(super) paused: bool,
    /// Why it will be closed once its last words are written, and by when at the latest.
    pub(super) closing: Option<(String, Instant)>,
    /// The client may still be sending. It would not see its last words if its bytes were left unread, so they are passed over
    /// until it ends the connection itself, until then at the latest.
    lingers_until: Option<Instant>,
    /// Its last words are written, and the other direction is shut.
    pub(super) is_shut: bool,
    /// Its share of the engine's totals, as last counted: in, out.
    pub(super) counted: (usize, usize),
    /// The deadline the engine's timers hold for it.
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

    /// The next whole frame or request. Takes the preface first.
    ///
    /// # Errors
    /// What the client sent is no preface, no frame or no request.
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
        let whole = next.is_some() || self.stall().is_none();
        self.incomplete_since = if whole { None } else { self.incomplete_since.or(Some(now.mono)) };
        Ok(next)
    }

    /// How long what is incomplete now may stay so.
    fn stall(&self) -> Option<Duration> {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.incomplete(&self.input),
            _ => (self.input.buffered() > 0).then_some(FRAME_STALL),
        }
    }

    /// Whether it is known what the client speaks.
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

    /// Whether errors would be understood: the client has shown what it speaks.
    pub(super) fn is_understood(&self) -> bool {
        match self.codec {
            Codec::Unknown => self.input.peek().first().is_some_and(|byte| *byte == PREFACE[0]),
            _ => true,
        }
    }

    /// Whether its bytes should be read.
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

    /// Bytes came that nothing looks at any more: while they do, and not for ever, they are waited for.
    pub(super) fn pass_over(&mut self, now: Now) {
        if let (Some((_, at)), Some(until)) = (&mut self.closing, self.lingers_until) {
            *at = now.after(LAST_WORDS).min(until);
        }
    }

    /// Whether its end waits for the client's.
    pub(super) fn lingers(&self) -> bool {
        self.lingers_until.is_some()
    }

    /// Gives up requests and answers that make no progress, where the others on the connection can go on; whether there was one.
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

    /// Bytes of requests that are not complete, or not begun.
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

    /// Something was written that must be taken in time.
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

    /// Ends a stream that ended well.
    pub(super) fn end(&mut self, now: Now, call: u64) {
        match &mut self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.end(&mut self.out, call),
            _ => frame::put_end(&mut self.out, call),
        }
        self.replied(now);
    }

    /// The longest item of a stream that the client takes, when it has asked for changes up to `wanted` bytes; 0: it has not
    /// asked.
    pub(super) fn longest_item(&self, wanted: usize) -> usize {
        match wanted {
            _ if !self.takes_parts && !self.speaks_http() => PAYLOAD_BYTES,
            0 if self.speaks_http() => PAYLOAD_BYTES,
            0 => frame::MESSAGE_BYTES,
            wanted => wanted.min(frame::MESSAGE_BYTES),
        }
    }

    /// Appends a stream item; whether there is room for another.
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

    /// Whether more requests came than were looked at: one waits for the answer to another.
    pub(super) fn has_pipelined(&self) -> bool {
        self.speaks_http() && self.input.buffered() > 0
    }

    /// What speaks HTTP, and where it writes to.
    #[cfg(feature = "http")]
    pub(super) fn http(&mut self) -> Option<(&mut Http, &mut Vec<u8>)> {
        match &mut self.codec {
            Codec::Http(http) => Some((http, &mut self.out)),
            _ => None,
        }
    }

    /// Appends bytes to a stream that a route holds open; whether there is room for more.
    #[cfg(feature = "http")]
    pub(super) fn put_bytes(&mut self, now: Now, call: u64, bytes: &[u8]) -> bool {
        if let Some((http, out)) = self.http() {
            http.put_bytes(out, call, bytes);
        }
        self.replied(now);
        self.has_room_for(call)
    }

    /// Answers a request with what a handler said.
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

    /// Whether a stream may be added to.
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

    /// Lets the codec move bytes; whether it has something for the engine to look at.
    pub(super) fn pump(&mut self, now: Instant) -> bool {
        #[cfg(feature = "http")]
        if let Codec::Http(http) = &mut self.codec {
            http.pump(now, &mut self.input, &mut self.out);
            return http.has_events() && !self.paused && self.held.is_none() && self.closing.is_none();
        }
        let _ = now;
        false
    }

    /// Bytes that wait to be written, those included that the client's windows have no room for.
    pub(super) fn owed(&self) -> usize {
        let held = match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.owed(),
            _ => 0,
        };
        self.output().len() + held
    }

    /// What waits to be written.
    pub(super) fn output(&self) -> &[u8] {
        &self.out[self.out_start..]
    }

    /// Drops the first `count` bytes of the output.
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
        if self.reply_due.is_some_and(|(end, _)| end <= self.written) {
            let more = self.replies_end > self.written;
            self.reply_due = more.then(|| (self.replies_end, now.after(FRAME_STALL)));
        }
    }

    /// Ends the connection once its last words, if any, are written. `lingers`: the client may still be sending.
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

    /// Since when nothing is under way on it, where that must end.
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

    /// When a connection ends that the node has no room for.
    pub(super) fn health_until(&self) -> Option<Instant> {
        self.only_health.as_ref().map(|_| self.opened + HEALTH_CONNECTION)
    }

    /// When it will have been too slow.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some((_, at)) = self.closing {
            return Some(at);
        }
        let first = (!self.served && !self.speaks_http()).then(|| self.opened + FIRST_FRAME);
        let reply = self.reply_due.map(|(_, at)| at);
        let idle = self.idle_since().map(|since| since + CLIENT_IDLE);
        [first, self.rest_due(), reply, idle, self.stalls_at(), self.health_until()].into_iter().flatten().min()
    }

    /// When what is incomplete now keeps the connection waiting for too long.
    fn rest_due(&self) -> Option<Instant> {
        let stall = self.stall().filter(|_| !self.paused);
        self.incomplete_since.zip(stall).map(|(since, stall)| since + stall)
    }

    /// The same for one request or answer among others, or when a sign of life is due on them.
    fn stalls_at(&self) -> Option<Instant> {
        match &self.codec {
            #[cfg(feature = "http")]
            Codec::Http(http) => http.stalls_at().into_iter().chain(http.keeps_alive_at()).min(),
            _ => None,
        }
    }

    /// Gives the signs of life that are due, which proxies wait for; whether there was one.
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

    /// What to tell a client whose deadline passed.
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

/// The client broke the protocol, which ends its connection.
pub(super) fn violation(message: impl Into<String>) -> CallError {
    CallError::new(Code::InvalidArgument, message)
}

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
use crate::api::dispatch::{SUBSCRIBE, too_large};
use crate::clock::Now;
use crate::limits::{FIRST_FRAME, FRAME_STALL, MESSAGE_BYTES};
use crate::store::Submitted;

/// A connection, as the shell numbers it. Never used twice.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct ConnectionId(pub u64);

const _: () = assert!(frame::FRAME_BYTES == MESSAGE_BYTES, "a client and its node agree on the largest frame");

/// A written buffer up to this size is kept for the next answer; a larger one is given back.
const KEPT_BYTES: usize = 64 << 10;
/// A stream adds nothing while more than this waits to be written.
const STREAM_AHEAD_BYTES: usize = 64 << 10;
/// How long the last words of a closing connection may take to be written.
const LAST_WORDS: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) caller: Caller,
    /// `None` where every call must show a token.
    pub(super) role: Option<Role>,
    pub(super) input: Decoder,
    greeted: bool,
    opened: Instant,
    /// Whether a first frame came.
    served: bool,
    /// When the frame that is incomplete now began.
    incomplete_since: Option<Instant>,
    out: Vec<u8>,
    out_start: usize,
    /// Bytes ever written, and where in that count the last reply ends.
    written: u64,
    replies_end: u64,
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
            caller,
            role,
            input: Decoder::default(),
            greeted: false,
            opened: now.mono,
            served: false,
            incomplete_since: None,
            out: Vec::new(),
            out_start: 0,
            written: 0,
            replies_end: 0,
            reply_due: None,
            calls: BTreeMap::new(),
            request_bytes: 0,
            held: None,
            paused: false,
            closing: None,
            counted: (0, 0),
            timer: None,
            output_queued: false,
            touched: false,
        }
    }

    /// The next whole frame. Takes the preface first.
    ///
    /// # Errors
    /// What the client sent is no preface or no frame.
    pub(super) fn next_frame(&mut self, now: Now) -> Result<Option<(u64, Body)>, CallError> {
        if !self.greet()? {
            return Ok(None);
        }
        let frame = self.input.next_frame().map_err(|error| violation(error.to_string()))?;
        self.served |= frame.is_some();
        let whole = frame.is_some() || self.input.buffered() == 0;
        self.incomplete_since = if whole { None } else { self.incomplete_since.or(Some(now.mono)) };
        Ok(frame)
    }

    /// Whether the preface is complete.
    fn greet(&mut self) -> Result<bool, CallError> {
        if self.greeted {
            return Ok(true);
        }
        let came = self.input.peek();
        let length = came.len().min(PREFACE.len());
        if came[..length] != PREFACE[..length] {
            return Err(violation("this is not the preface of peat/1, and nothing else is spoken here"));
        }
        if length == PREFACE.len() {
            self.input.skip(length);
            self.greeted = true;
        }
        Ok(self.greeted)
    }

    /// Whether error frames would be understood: the client has shown that it speaks frames.
    pub(super) fn speaks_frames(&self) -> bool {
        self.greeted || self.input.peek().first().is_none_or(|byte| *byte == PREFACE[0])
    }

    pub(super) fn respond(&mut self, now: Now, call: u64, result: Result<&Response, &CallError>) {
        match result {
            Err(error) => frame::put_error(&mut self.out, call, error),
            Ok(response) => match response.encoded_len() {
                length @ ..=PAYLOAD_BYTES => {
                    frame::put_response(&mut self.out, call, length, |out| response.encode(out));
                }
                length => frame::put_error(&mut self.out, call, &too_large(length, SUBSCRIBE)),
            },
        }
        self.replies_end = self.written + self.output().len() as u64;
        self.reply_due.get_or_insert((self.replies_end, now.after(FRAME_STALL)));
    }

    /// Ends a stream that ended well.
    pub(super) fn end(&mut self, now: Now, call: u64) {
        frame::put_end(&mut self.out, call);
        self.replies_end = self.written + self.output().len() as u64;
        self.reply_due.get_or_insert((self.replies_end, now.after(FRAME_STALL)));
    }

    /// Appends a stream item; whether there is room for another.
    pub(super) fn put_item(&mut self, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) -> bool {
        frame::put_item(&mut self.out, call, length, encode);
        self.has_stream_room()
    }

    pub(super) fn has_stream_room(&self) -> bool {
        self.output().len() < STREAM_AHEAD_BYTES
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

    /// Ends the connection once `last_words`, if any, are written.
    pub(super) fn close(&mut self, now: Now, reason: String) {
        self.closing.get_or_insert((reason, now.after(LAST_WORDS)));
        self.held = None;
        self.input = Decoder::default();
        self.incomplete_since = None;
    }

    /// When it will have been too slow.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some((_, at)) = self.closing {
            return Some(at);
        }
        let first = (!self.served).then(|| self.opened + FIRST_FRAME);
        let rest = self.incomplete_since.filter(|_| !self.paused).map(|since| since + FRAME_STALL);
        let reply = self.reply_due.map(|(_, at)| at);
        [first, rest, reply].into_iter().flatten().min()
    }

    /// What to tell a client whose deadline passed.
    pub(super) fn too_slow(&self) -> CallError {
        let seconds = FRAME_STALL.as_secs();
        let message = match (self.served, self.reply_due) {
            (false, _) => format!("no first frame within {} s", FIRST_FRAME.as_secs()),
            (true, Some(_)) => format!("a reply was not taken within {seconds} s"),
            (true, None) => format!("a frame was begun and not completed within {seconds} s"),
        };
        CallError::new(Code::DeadlineExceeded, message)
    }
}

/// The client broke the protocol, which ends its connection.
pub(super) fn violation(message: impl Into<String>) -> CallError {
    CallError::new(Code::InvalidArgument, message)
}

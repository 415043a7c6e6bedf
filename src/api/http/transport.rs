//! Dispatch to the codec of the connection's HTTP version.

use std::time::Instant;

use peat_ipc::frame::Decoder;

use super::h1::H1;
use super::h2::H2;
use super::message::Response;
use super::{Event, Refusal};

/// The codec of one HTTP version.
#[derive(Debug)]
pub(super) enum Transport {
    One(Box<H1>),
    Two(Box<H2>),
}

impl Transport {
    pub(super) fn new(two: bool) -> Transport {
        if two { Transport::Two(Box::new(H2::new())) } else { Transport::One(Box::new(H1::new())) }
    }

    pub(super) fn pump(&mut self, now: Instant, input: &mut Decoder, out: &mut Vec<u8>) {
        if let Transport::Two(two) = self {
            two.pump(now, input, out);
        }
    }

    pub(super) fn next(&mut self, input: &mut Decoder, out: &mut Vec<u8>) -> Result<Option<Event>, Refusal> {
        match self {
            Transport::One(one) => one.next(input, out),
            Transport::Two(two) => two.next(),
        }
    }

    pub(super) fn buffered(&self) -> usize {
        match self {
            Transport::One(one) => one.buffered(),
            Transport::Two(two) => two.buffered(),
        }
    }

    pub(super) fn owed(&self) -> usize {
        match self {
            Transport::One(_) => 0,
            Transport::Two(two) => two.owed(),
        }
    }

    pub(super) fn has_events(&self) -> bool {
        matches!(self, Transport::Two(two) if two.has_events())
    }

    pub(super) fn is_over(&self) -> bool {
        match self {
            Transport::One(one) => one.is_over(),
            Transport::Two(two) => two.is_over(),
        }
    }

    /// Returns true if a call's stream may be extended. Output that waits for the connection as a whole is limited by the caller.
    pub(super) fn has_room(&self, call: u64) -> bool {
        match self {
            Transport::One(_) => true,
            Transport::Two(two) => two.has_room(call),
        }
    }

    /// Returns true if `call` is still unanswered.
    pub(super) fn is_open(&self, call: u64) -> bool {
        match self {
            Transport::One(one) => one.is_open(call),
            Transport::Two(two) => two.is_open(call),
        }
    }

    pub(super) fn respond(&mut self, out: &mut Vec<u8>, call: u64, response: &Response) {
        match self {
            Transport::One(one) => one.respond(out, response),
            Transport::Two(two) => two.respond(call, response),
        }
    }

    pub(super) fn write(&mut self, out: &mut Vec<u8>, call: u64, bytes: &[u8]) {
        match self {
            Transport::One(one) => one.write(out, bytes),
            Transport::Two(two) => two.write(call, bytes),
        }
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>, call: u64, trailers: &[(&'static str, String)]) {
        match self {
            Transport::One(one) => one.finish(out),
            Transport::Two(two) => two.finish(call, trailers),
        }
    }

    /// Resets one stream and drops its pending output; returns true if the connection survives that.
    pub(super) fn reset(&mut self, call: u64) -> bool {
        match self {
            Transport::One(_) => false,
            Transport::Two(two) => {
                two.reset(call);
                true
            }
        }
    }

    /// Ends the connection. HTTP/1.x sends `response` first if a request is unanswered or, with `asked`, incomplete.
    pub(super) fn refuse(&mut self, out: &mut Vec<u8>, response: &Response, asked: bool) {
        match self {
            Transport::One(one) => one.refuse(out, response, asked),
            Transport::Two(two) => two.refuse(),
        }
    }
}

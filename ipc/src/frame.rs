//! Frames: a varint length and a [`Frame`] of that many bytes, the delimited form that protobuf libraries provide.
//!
//! [`Decoder`] accepts bytes in pieces of any size and returns whole frames. The `put_*` functions append frames to a buffer
//! without an intermediate copy of the message; the bytes equal those of `Frame::encode_length_delimited`.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use prost::bytes::Bytes;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};
use prost::{DecodeError, Message};

use crate::CallError;
use crate::envelope::frame::Body;
use crate::envelope::{Cancel, End, Error as ErrorBody, Frame};

/// Maximum size of a frame in bytes, without its length prefix.
pub const FRAME_BYTES: usize = 4 << 20;
/// Maximum size in bytes of the response, item or request message in a frame; the rest is for the envelope.
pub const PAYLOAD_BYTES: usize = FRAME_BYTES - 4096;
/// Maximum length of the varint in bytes. A length need not be written in its shortest form.
const VARINT_BYTES: usize = 10;

/// Maximum size in bytes of a response or item sent in parts.
pub const MESSAGE_BYTES: usize = 64 << 20;
/// Size in bytes of each part but the last, for a message over [`PAYLOAD_BYTES`].
const PART_BYTES: usize = 1 << 20;

/// The reason that bytes are not a frame. The connection cannot continue: the start of the next frame is unknown or not
/// trustworthy.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FrameError {
    /// The length is 0; a frame has at least a call and a body.
    Empty,
    /// The length is over [`FRAME_BYTES`].
    TooLong(u64),
    /// The length is not a varint of at most ten bytes.
    Length,
    /// The bytes are not a [`Frame`] message.
    Message(DecodeError),
    /// The frame has no body, or one unknown to this version.
    NoBody,
    /// The parts of a message are over [`MESSAGE_BYTES`].
    LongParts,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Empty => write!(f, "a frame has length 0"),
            FrameError::TooLong(bytes) => write!(f, "a frame of {bytes} bytes; the limit is {FRAME_BYTES}"),
            FrameError::Length => write!(f, "a frame's length is not a varint"),
            FrameError::Message(cause) => write!(f, "a frame is malformed: {cause}"),
            FrameError::NoBody => write!(f, "a frame has no body this version knows"),
            FrameError::LongParts => write!(f, "a message in parts over {MESSAGE_BYTES} bytes"),
        }
    }
}

impl std::error::Error for FrameError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            FrameError::Message(cause) => Some(cause),
            _ => None,
        }
    }
}

/// Returns the range of the first frame's message in `bytes`; `None` while the length or the message is incomplete.
///
/// # Errors
/// The length is 0, too long or malformed.
pub fn locate(bytes: &[u8]) -> Result<Option<Range<usize>>, FrameError> {
    let Some((length, start)) = length(bytes)? else { return Ok(None) };
    let end = start + length;
    Ok((end <= bytes.len()).then_some(start..end))
}

/// Returns the length that `bytes` begins with, and the number of bytes it takes.
fn length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut value: u64 = 0;
    for (index, byte) in bytes.iter().take(VARINT_BYTES).enumerate() {
        let digits = u64::from(byte & 0x7f);
        // Nine bytes hold 63 bits, so the tenth may only contribute one.
        if index == VARINT_BYTES - 1 && digits > 1 {
            return Err(FrameError::Length);
        }
        value |= digits << (7 * index);
        if byte & 0x80 == 0 {
            return checked(value).map(|length| Some((length, index + 1)));
        }
    }
    if bytes.len() >= VARINT_BYTES { Err(FrameError::Length) } else { Ok(None) }
}

fn checked(length: u64) -> Result<usize, FrameError> {
    match usize::try_from(length) {
        Ok(0) => Err(FrameError::Empty),
        Ok(length) if length <= FRAME_BYTES => Ok(length),
        _ => Err(FrameError::TooLong(length)),
    }
}

/// Decodes a frame's call and body from its message, without the length prefix.
///
/// # Errors
/// The bytes are not a [`Frame`], or it has no body.
pub fn decode(message: &[u8]) -> Result<(u64, Body), FrameError> {
    let frame = Frame::decode(message).map_err(FrameError::Message)?;
    let body = frame.body.ok_or(FrameError::NoBody)?;
    Ok((frame.call, body))
}

/// Assembles frames from bytes that arrive in any pieces.
///
/// ```
/// use peat_ipc::frame::{Decoder, put_credit};
///
/// let mut bytes = Vec::new();
/// put_credit(&mut bytes, 7, 32);
/// let mut decoder = Decoder::default();
/// decoder.extend(&bytes[..3]);
/// assert_eq!(decoder.next_frame(), Ok(None));
/// decoder.extend(&bytes[3..]);
/// assert_eq!(decoder.next_frame().unwrap().unwrap().0, 7);
/// assert_eq!(decoder.buffered(), 0);
/// ```
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    start: usize,
    /// Parts of unfinished messages, by call; `None`: each part is returned as its own frame.
    parts: Option<BTreeMap<u64, Vec<u8>>>,
}

impl Decoder {
    /// Capacity that an empty buffer keeps for the next frame, in bytes; more is released.
    const KEPT_BYTES: usize = 64 << 10;

    /// Creates a decoder that joins parts and returns whole responses and items.
    #[must_use]
    pub fn joining() -> Decoder {
        Decoder { parts: Some(BTreeMap::new()), ..Decoder::default() }
    }

    /// Appends received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.compact();
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next frame's call and body; `None` until more bytes arrive.
    ///
    /// # Errors
    /// The bytes are not a frame; the bytes after them cannot be decoded.
    pub fn next_frame(&mut self) -> Result<Option<(u64, Body)>, FrameError> {
        while let Some((call, body)) = self.one_frame()? {
            if let Some(body) = self.join(call, body)? {
                return Ok(Some((call, body)));
            }
        }
        Ok(None)
    }

    /// Returns the complete body; `None` while more parts are expected.
    fn join(&mut self, call: u64, body: Body) -> Result<Option<Body>, FrameError> {
        let Some(parts) = &mut self.parts else { return Ok(Some(body)) };
        let mut whole = |last: Bytes| match parts.remove(&call) {
            Some(mut begun) => {
                begun.extend_from_slice(&last);
                Bytes::from(begun)
            }
            None => last,
        };
        match body {
            Body::Part(part) => {
                // The limit applies to all unfinished messages together, which bounds the memory per connection.
                let held: usize = parts.values().map(Vec::len).sum();
                if held + part.len() > MESSAGE_BYTES {
                    return Err(FrameError::LongParts);
                }
                parts.entry(call).or_default().extend_from_slice(&part);
                Ok(None)
            }
            Body::Response(last) => Ok(Some(Body::Response(whole(last)))),
            Body::Item(last) => Ok(Some(Body::Item(whole(last)))),
            body => {
                parts.remove(&call);
                Ok(Some(body))
            }
        }
    }

    fn one_frame(&mut self) -> Result<Option<(u64, Body)>, FrameError> {
        let bytes = &self.bytes[self.start..];
        let Some(range) = locate(bytes)? else { return Ok(None) };
        let end = range.end;
        let frame = decode(&bytes[range])?;
        self.start += end;
        Ok(Some(frame))
    }

    /// Returns the bytes that have not been consumed.
    #[must_use]
    pub fn peek(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// Drops `count` bytes that [`Decoder::peek`] showed.
    pub fn skip(&mut self, count: usize) {
        self.start = (self.start + count).min(self.bytes.len());
    }

    /// Returns the number of bytes that have not been consumed.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.bytes.len() - self.start
    }

    /// Moves the unconsumed bytes to the front once more than half of the buffer is consumed, which keeps the copying linear.
    fn compact(&mut self) {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(Decoder::KEPT_BYTES);
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
        } else {
            return;
        }
        self.start = 0;
    }
}

/// The fields of a request frame besides its message.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RequestHeader<'a> {
    /// Number of the method.
    pub method: u32,
    /// Deadline in milliseconds; 0 selects the method's default.
    pub deadline_ms: u32,
    /// Number of stream items that the node may send before more are granted.
    pub credit: u32,
    /// Token for TCP listeners that require one; empty otherwise.
    pub token: &'a str,
    /// True if the client's decoder is [`Decoder::joining`].
    pub takes_parts: bool,
}

/// Appends a request frame.
pub fn put_request(out: &mut Vec<u8>, call: u64, header: RequestHeader<'_>, message: &impl Message) {
    let payload = message.encoded_len();
    let token = header.token.len();
    let fields = number_len(1, header.method.into())
        + if payload == 0 { 0 } else { bytes_len(2, payload) }
        + number_len(3, header.deadline_ms.into())
        + number_len(4, header.credit.into())
        + if token == 0 { 0 } else { bytes_len(5, token) }
        + number_len(6, header.takes_parts.into());
    put_head(out, call, bytes_len(2, fields));
    put_length(out, 2, fields);
    put_number(out, 1, header.method.into());
    if payload != 0 {
        put_length(out, 2, payload);
        message.encode_raw(out);
    }
    put_number(out, 3, header.deadline_ms.into());
    put_number(out, 4, header.credit.into());
    if token != 0 {
        put_length(out, 5, token);
        out.extend_from_slice(header.token.as_bytes());
    }
    put_number(out, 6, header.takes_parts.into());
}

/// Appends a response frame with a message of `length` bytes, which `encode` writes.
pub fn put_response(out: &mut Vec<u8>, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, call, 3, length, encode);
}

/// Appends a stream item with a message of `length` bytes, which `encode` writes.
pub fn put_item(out: &mut Vec<u8>, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    put_message(out, call, 4, length, encode);
}

/// Appends a response of up to [`MESSAGE_BYTES`], split into parts if it exceeds `PAYLOAD_BYTES`.
pub fn put_response_in_parts(out: &mut Vec<u8>, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    put_in_parts(out, call, 3, length, encode);
}

/// Appends a stream item of up to [`MESSAGE_BYTES`], split into parts if it exceeds `PAYLOAD_BYTES`.
pub fn put_item_in_parts(out: &mut Vec<u8>, call: u64, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    put_in_parts(out, call, 4, length, encode);
}

fn put_in_parts(out: &mut Vec<u8>, call: u64, field: u32, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    const PART: u32 = 11;
    if length <= PAYLOAD_BYTES {
        return put_message(out, call, field, length, encode);
    }
    let mut message = Vec::with_capacity(length);
    encode(&mut message);
    let mut chunks = message.chunks(PART_BYTES).peekable();
    while let Some(chunk) = chunks.next() {
        let field = if chunks.peek().is_some() { PART } else { field };
        put_message(out, call, field, chunk.len(), |out| out.extend_from_slice(chunk));
    }
}

/// Appends the end of a stream.
pub fn put_end(out: &mut Vec<u8>, call: u64) {
    put_body(out, call, Body::End(End {}));
}

/// Appends an error, which ends the call; on call 0 it ends the connection.
pub fn put_error(out: &mut Vec<u8>, call: u64, error: &CallError) {
    put_body(out, call, Body::Error(ErrorBody { code: error.code.number(), message: error.message.clone() }));
}

/// Appends a cancellation of the call.
pub fn put_cancel(out: &mut Vec<u8>, call: u64) {
    put_body(out, call, Body::Cancel(Cancel {}));
}

/// Appends a grant of credit for `items` more stream items.
pub fn put_credit(out: &mut Vec<u8>, call: u64, items: u32) {
    put_body(out, call, Body::Credit(items));
}

/// Appends one message of a client's stream.
pub fn put_upload(out: &mut Vec<u8>, call: u64, message: &impl Message) {
    put_message(out, call, 9, message.encoded_len(), |out| message.encode_raw(out));
}

/// Appends the end of a client's stream.
pub fn put_half_close(out: &mut Vec<u8>, call: u64) {
    put_body(out, call, Body::HalfClose(End {}));
}

fn put_body(out: &mut Vec<u8>, call: u64, body: Body) {
    let frame = Frame { call, body: Some(body) };
    encode_varint(frame.encoded_len() as u64, out);
    frame.encode_raw(out);
}

fn put_message(out: &mut Vec<u8>, call: u64, field: u32, length: usize, encode: impl FnOnce(&mut Vec<u8>)) {
    put_head(out, call, bytes_len(field, length));
    put_length(out, field, length);
    let begin = out.len();
    encode(out);
    debug_assert_eq!(out.len() - begin, length, "a message is as long as it said");
}

/// Appends the frame's length, for a body field of `body` bytes, and its call id.
fn put_head(out: &mut Vec<u8>, call: u64, body: usize) {
    let length = number_len(1, call) + body;
    // Four bytes hold the length prefix of the largest frame.
    out.reserve(length + 4);
    encode_varint(length as u64, out);
    put_number(out, 1, call);
}

fn put_number(out: &mut Vec<u8>, field: u32, value: u64) {
    if value != 0 {
        encode_key(field, WireType::Varint, out);
        encode_varint(value, out);
    }
}

fn put_length(out: &mut Vec<u8>, field: u32, length: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

fn number_len(field: u32, value: u64) -> usize {
    if value == 0 { 0 } else { key_len(field) + encoded_len_varint(value) }
}

fn bytes_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

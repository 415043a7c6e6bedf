//! Messages to bytes and back on one lane: a varint length, then that many bytes of [`Message`].
//!
//! A message over [`MESSAGE_BYTES`] travels as consecutive [`Part`]s. Nothing here knows what a message
//! means; what does not parse is an error for the whole connection.

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use crate::limits::{MESSAGE_BYTES, RECORD_BYTES};
use crate::sync::mesh::{Message, Part, message::Body};

/// Payload of one part; a frame around it stays well under the limit.
const PART_BYTES: usize = 1 << 20;
/// Ten bytes hold any 64-bit varint (protobuf encoding, "Base 128 Varints").
const VARINT_BYTES: usize = 10;

/// Why a lane's bytes are not messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FrameError {
    /// A length that is not a varint.
    Length,
    /// A frame of this many bytes; the limit is [`MESSAGE_BYTES`].
    Long(usize),
    /// Parts that add up to more than [`RECORD_BYTES`] and one frame.
    LongParts,
    /// Not a message.
    Malformed,
    /// Another message between the parts of one.
    Interleaved,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length => write!(f, "a frame's length is not a varint"),
            FrameError::Long(bytes) => write!(f, "a frame of {bytes} bytes; the limit is {MESSAGE_BYTES}"),
            FrameError::LongParts => write!(f, "a message in parts over {RECORD_BYTES} bytes"),
            FrameError::Malformed => write!(f, "a frame that is not a message"),
            FrameError::Interleaved => write!(f, "a message between the parts of another"),
        }
    }
}

/// Appends `body` as one frame, or as several parts.
pub fn encode(body: Body, out: &mut Vec<u8>) {
    let message = Message { body: Some(body) };
    if message.encoded_len() <= MESSAGE_BYTES {
        append(&message, out);
        return;
    }
    let whole = Bytes::from(message.encode_to_vec());
    let mut at = 0;
    while at < whole.len() {
        let end = (at + PART_BYTES).min(whole.len());
        let part = Part { data: whole.slice(at..end), last: end == whole.len() };
        append(&Message { body: Some(Body::Part(part)) }, out);
        at = end;
    }
}

fn append(message: &Message, out: &mut Vec<u8>) {
    message.encode_length_delimited(out).expect("a Vec grows as needed");
}

/// Collects one lane's bytes until they make messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    parts: BytesMut,
}

impl Decoder {
    /// Adds what arrived.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next message, or `None` until more bytes arrive. Unknown bodies, which later protocols may add, are skipped.
    pub fn poll(&mut self) -> Result<Option<Body>, FrameError> {
        while let Some(frame) = self.next_frame()? {
            let message = Message::decode(frame).map_err(|_| FrameError::Malformed)?;
            match message.body {
                Some(Body::Part(part)) => {
                    if let Some(body) = self.add_part(&part)? {
                        return Ok(Some(body));
                    }
                }
                Some(_) if !self.parts.is_empty() => return Err(FrameError::Interleaved),
                Some(body) => return Ok(Some(body)),
                None => {}
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some((length, header)) = read_length(&self.buffer)? else { return Ok(None) };
        if length > MESSAGE_BYTES {
            return Err(FrameError::Long(length));
        }
        if self.buffer.len() < header + length {
            return Ok(None);
        }
        self.buffer.advance(header);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn add_part(&mut self, part: &Part) -> Result<Option<Body>, FrameError> {
        if self.parts.len() + part.data.len() > RECORD_BYTES + MESSAGE_BYTES {
            return Err(FrameError::LongParts);
        }
        self.parts.extend_from_slice(&part.data);
        if !part.last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.parts).freeze();
        match Message::decode(whole).map_err(|_| FrameError::Malformed)?.body {
            Some(Body::Part(_)) => Err(FrameError::Malformed),
            body => Ok(body),
        }
    }

    /// Bytes held back for an unfinished message.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.parts.len()
    }
}

/// The frame's length and how many bytes said so.
fn read_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, FrameError> {
    let mut value = 0_u64;
    for (i, byte) in bytes.iter().take(VARINT_BYTES).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            let length = usize::try_from(value).map_err(|_| FrameError::Length)?;
            return Ok(Some((length, i + 1)));
        }
    }
    if bytes.len() >= VARINT_BYTES { Err(FrameError::Length) } else { Ok(None) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::mesh::{Batch, Document, Merged, Want, document};

    fn batch(bytes: usize) -> Body {
        let merged = Merged { chunks: Bytes::from(vec![7; bytes]), heads: Vec::new() };
        let document = Document { body: Some(document::Body::Merged(merged)), ..Document::default() };
        Body::Batch(Batch { number: 1, documents: vec![document], ..Batch::default() })
    }

    fn decode_all(bytes: &[u8], step: usize) -> Vec<Body> {
        let (mut decoder, mut bodies) = (Decoder::default(), Vec::new());
        for chunk in bytes.chunks(step) {
            decoder.extend(chunk);
            while let Some(body) = decoder.poll().expect("valid frames") {
                bodies.push(body);
            }
        }
        assert_eq!(decoder.held(), 0);
        bodies
    }

    #[test]
    fn messages_survive_any_splitting_of_their_bytes() {
        let bodies = vec![batch(10), Body::Want(Want::default()), batch(300)];
        let mut bytes = Vec::new();
        bodies.iter().cloned().for_each(|body| encode(body, &mut bytes));
        for step in [1, 2, 3, 7, bytes.len()] {
            assert_eq!(decode_all(&bytes, step), bodies);
        }
    }

    #[test]
    fn a_message_over_the_limit_travels_in_parts() {
        let mut bytes = Vec::new();
        encode(batch(MESSAGE_BYTES + 1), &mut bytes);
        assert_eq!(decode_all(&bytes, 100_000), vec![batch(MESSAGE_BYTES + 1)]);
    }

    #[test]
    fn an_overlong_frame_is_refused_before_it_is_buffered() {
        let mut decoder = Decoder::default();
        decoder.extend(&[0xff, 0xff, 0xff, 0xff, 0x0f]);
        assert_eq!(decoder.poll(), Err(FrameError::Long(0xffff_ffff)));
    }

    #[test]
    fn a_length_of_eleven_bytes_is_refused() {
        let mut decoder = Decoder::default();
        decoder.extend(&[0xff; 11]);
        assert!(decoder.poll().is_err());
    }

    #[test]
    fn a_message_between_parts_is_refused() {
        let mut bytes = Vec::new();
        append(&Message { body: Some(Body::Part(Part { data: Bytes::from_static(b"x"), last: false })) }, &mut bytes);
        encode(Body::Want(Want::default()), &mut bytes);
        let mut decoder = Decoder::default();
        decoder.extend(&bytes);
        assert_eq!(decoder.poll(), Err(FrameError::Interleaved));
    }
}

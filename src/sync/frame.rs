//! Framing of messages on one lane: a varint length, then that many bytes of [`Message`].
//!
//! A batch over [`MESSAGE_BYTES`] travels as consecutive [`Part`]s. This module interprets no message; bytes that do not parse
//! are an error of the whole connection.
//!
//! `rules` defines which messages a peer may send on which lane, and the size of each on the wire and in memory. All of it is
//! checked before the message is decoded.

mod rules;

use std::fmt;

use bytes::{Buf, Bytes, BytesMut};
use prost::Message as _;

use crate::limits::{BATCH_BYTES_MAX, MESSAGE_BYTES};
use crate::schema::CostError;
use crate::sync::link::Lane;
use crate::sync::mesh::{Message, Part, message::Body};
pub use rules::{Rule, Standing};

/// Payload of one part, in bytes.
const PART_BYTES: usize = 1 << 20;
/// Maximum length of a 64-bit varint, in bytes (protobuf encoding, "Base 128 Varints").
const VARINT_BYTES: usize = 10;

const _: () = assert!(PART_BYTES + 64 <= MESSAGE_BYTES, "a part fits a frame");

/// Reason for which a lane's bytes are not messages.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum FrameError {
    /// The length is not a varint.
    Length,
    /// The frame has this many bytes, and this is the limit for the lane and the peer.
    Long(usize, usize),
    /// The parts add up to more than [`BATCH_BYTES_MAX`].
    LongParts,
    /// The frame is not a message.
    Malformed,
    /// Another message came between the parts of one.
    Interleaved,
    /// The parts are not of a batch.
    Parted,
    /// This peer must not send the message, or not on this lane.
    Misplaced(&'static str, Lane),
    /// The message has this many bytes, over the limit of its rule.
    Large(&'static Rule, usize),
    /// The lists of the message take more memory than its rule allows.
    Costly(&'static Rule),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Length => write!(f, "a frame's length is not a varint"),
            FrameError::Long(bytes, most) => write!(f, "a frame of {bytes} bytes; the limit is {most}"),
            FrameError::LongParts => write!(f, "a batch in parts over {BATCH_BYTES_MAX} bytes"),
            FrameError::Malformed => write!(f, "a frame that is not a message"),
            FrameError::Interleaved => write!(f, "a message between the parts of another"),
            FrameError::Parted => write!(f, "parts of a message that is no batch"),
            FrameError::Misplaced(name, lane) => write!(f, "{name} on the {lane} lane, or before it was admitted"),
            FrameError::Large(rule, bytes) => {
                write!(f, "{} of {bytes} bytes; the limit is {}", rule.name, rule.bytes)
            }
            FrameError::Costly(rule) => {
                write!(f, "{} whose lists take over {} bytes of memory", rule.name, rule.list_bytes)
            }
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

/// Received message.
#[derive(Clone, Debug, PartialEq)]
pub struct Received {
    /// Its body.
    pub body: Body,
    /// Bytes of memory it may hold: its frames, which its fields share, and its lists.
    pub weight: usize,
}

/// Decoder of one lane: collects bytes until they form messages.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: BytesMut,
    parts: BytesMut,
}

impl Decoder {
    /// Adds received bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next message on `lane` of a peer of this standing, or `None` until more bytes arrive. Unknown bodies, which
    /// later protocols may add, are skipped once the peer is admitted.
    ///
    /// # Errors
    /// The bytes are not a message, or one that the peer must not send there.
    pub fn poll(&mut self, lane: Lane, standing: Standing) -> Result<Option<Received>, FrameError> {
        while let Some(frame) = self.next_frame(rules::frame_bytes(lane, standing))? {
            let Some((rule, bytes)) = rules::of(&frame)? else {
                if standing == Standing::Stranger {
                    return Err(FrameError::Misplaced("an unknown message", lane));
                }
                continue;
            };
            if !rule.allows(lane, standing) {
                return Err(FrameError::Misplaced(rule.name, lane));
            }
            if !self.parts.is_empty() && !rule.is_part() {
                return Err(FrameError::Interleaved);
            }
            let received = decode(rule, bytes, frame)?;
            let Body::Part(part) = received.body else { return Ok(Some(received)) };
            if let Some(received) = self.add_part(&part)? {
                return Ok(Some(received));
            }
        }
        Ok(None)
    }

    fn next_frame(&mut self, most: usize) -> Result<Option<Bytes>, FrameError> {
        let Some((length, header)) = read_length(&self.buffer)? else { return Ok(None) };
        if length > most {
            return Err(FrameError::Long(length, most));
        }
        if self.buffer.len() < header + length {
            return Ok(None);
        }
        self.buffer.advance(header);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    fn add_part(&mut self, part: &Part) -> Result<Option<Received>, FrameError> {
        if self.parts.len() + part.data.len() > BATCH_BYTES_MAX {
            return Err(FrameError::LongParts);
        }
        self.parts.extend_from_slice(&part.data);
        if !part.last {
            return Ok(None);
        }
        let whole = std::mem::take(&mut self.parts).freeze();
        match rules::of(&whole)? {
            Some((rule, bytes)) if rule.travels_in_parts() => decode(rule, bytes, whole).map(Some),
            _ => Err(FrameError::Parted),
        }
    }

    /// Returns the number of bytes held for an unfinished message.
    pub fn held(&self) -> usize {
        self.buffer.len() + self.parts.len()
    }
}

/// Decodes a message of `bytes` bytes under its rule.
fn decode(rule: &'static Rule, bytes: usize, frame: Bytes) -> Result<Received, FrameError> {
    if bytes > rule.bytes {
        return Err(FrameError::Large(rule, bytes));
    }
    let lists = rules::lists(&frame, rule.list_bytes).map_err(|error| match error {
        CostError::Malformed => FrameError::Malformed,
        CostError::Over => FrameError::Costly(rule),
    })?;
    let weight = frame.len() + lists;
    let message = Message::decode(frame).map_err(|_| FrameError::Malformed)?;
    Ok(Received { body: message.body.ok_or(FrameError::Malformed)?, weight })
}

/// Returns the frame's length, and the number of bytes that encode it.
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
    use crate::limits::{BATCH_DOCUMENTS, LACKING_KEYS};
    use crate::sync::mesh::{Ack, Auth, Batch, Cursor, Document, Hello, Merged, Refused, Want, document};

    fn batch(bytes: usize) -> Body {
        let merged = Merged { chunks: Bytes::from(vec![7; bytes]), heads: Vec::new() };
        let document = Document { body: Some(document::Body::Merged(merged)), ..Document::default() };
        Body::Batch(Batch { number: 1, documents: vec![document], ..Batch::default() })
    }

    fn decode_all(bytes: &[u8], step: usize) -> Vec<Body> {
        let (mut decoder, mut bodies) = (Decoder::default(), Vec::new());
        for chunk in bytes.chunks(step) {
            decoder.extend(chunk);
            while let Some(received) = decoder.poll(Lane::Merged, Standing::Member).expect("valid frames") {
                bodies.push(received.body);
            }
        }
        assert_eq!(decoder.held(), 0);
        bodies
    }

    #[test]
    fn messages_survive_any_splitting_of_their_bytes() {
        let bodies = vec![batch(10), batch(0), batch(300)];
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

    /// Returns the result of polling these bytes.
    fn poll(bytes: &[u8], lane: Lane, standing: Standing) -> Result<Option<Received>, FrameError> {
        let mut decoder = Decoder::default();
        decoder.extend(bytes);
        decoder.poll(lane, standing)
    }

    fn framed(body: Body) -> Vec<u8> {
        let mut bytes = Vec::new();
        encode(body, &mut bytes);
        bytes
    }

    #[test]
    fn an_overlong_frame_is_refused_before_it_is_buffered() {
        let length = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert_eq!(poll(&length, Lane::Bulk, Standing::Member), Err(FrameError::Long(0xffff_ffff, MESSAGE_BYTES)));
        let refused = poll(&[0x80, 0x01], Lane::Control, Standing::Stranger);
        assert!(matches!(refused, Err(FrameError::Long(128, most)) if most < 100), "{refused:?}");
    }

    #[test]
    fn a_length_of_eleven_bytes_is_refused() {
        assert!(poll(&[0xff; 11], Lane::Bulk, Standing::Member).is_err());
    }

    #[test]
    fn a_message_between_parts_is_refused() {
        let mut bytes = Vec::new();
        append(&Message { body: Some(Body::Part(Part { data: Bytes::from_static(b"x"), last: false })) }, &mut bytes);
        encode(batch(1), &mut bytes);
        assert_eq!(poll(&bytes, Lane::Bulk, Standing::Member), Err(FrameError::Interleaved));
    }

    #[test]
    fn a_stranger_may_send_a_short_auth_and_nothing_else() {
        let auth = |bytes: usize| framed(Body::Auth(Auth { proof: vec![1; bytes].into() }));
        assert!(poll(&auth(32), Lane::Control, Standing::Stranger).expect("taken").is_some());
        for bytes in
            [auth(63), framed(Body::Part(Part::default())), framed(Body::Hello(Hello::default())), vec![2, 0x7a, 0]]
        {
            assert!(poll(&bytes, Lane::Control, Standing::Stranger).is_err(), "{bytes:?}");
        }
        assert!(poll(&[3, 0xfa, 0x06, 0], Lane::Control, Standing::Stranger).is_err(), "a body of a later protocol");
        assert_eq!(poll(&[3, 0xfa, 0x06, 0], Lane::Control, Standing::Member), Ok(None));
    }

    #[test]
    fn documents_and_parts_travel_on_document_lanes_and_all_else_on_the_control_lane() {
        let documents = [batch(1), Body::Part(Part { data: Bytes::from_static(b"x"), last: false })];
        let controls = [Body::Want(Want::default()), Body::Ack(Ack::default()), Body::Refused(Refused::default())];
        for (bodies, right) in [(documents.to_vec(), Lane::Latest), (controls.to_vec(), Lane::Control)] {
            let wrong = if right == Lane::Control { Lane::Bulk } else { Lane::Control };
            for body in bodies {
                assert!(poll(&framed(body.clone()), right, Standing::Member).is_ok(), "{body:?}");
                let refused = poll(&framed(body.clone()), wrong, Standing::Member);
                assert!(matches!(refused, Err(FrameError::Misplaced(..))), "{body:?}");
            }
        }
    }

    #[test]
    fn parts_make_a_batch_and_nothing_else() {
        let want = Message { body: Some(Body::Want(Want::default())) }.encode_to_vec();
        let nested = Message { body: Some(Body::Part(Part::default())) }.encode_to_vec();
        for whole in [want, nested, vec![0xfa, 0x06, 0], vec![]] {
            let part = framed(Body::Part(Part { data: whole.into(), last: true }));
            assert_eq!(poll(&part, Lane::Bulk, Standing::Member), Err(FrameError::Parted));
        }
    }

    #[test]
    fn a_batch_of_ten_million_empty_documents_is_refused_before_it_is_decoded() {
        // Two bytes a document: encoding them as structures would take gigabytes too.
        let documents = [0x12, 0x00].repeat(10_400_000);
        let mut length = Vec::new();
        prost::encoding::encode_varint(documents.len() as u64, &mut length);
        let whole = [&[0x2a], length.as_slice(), &documents].concat();
        assert!(whole.len() < BATCH_BYTES_MAX, "small enough on the wire");
        let mut decoder = Decoder::default();
        let pieces: Vec<&[u8]> = whole.chunks(PART_BYTES).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let part = Part { data: Bytes::copy_from_slice(piece), last: index + 1 == pieces.len() };
            decoder.extend(&framed(Body::Part(part)));
            let polled = decoder.poll(Lane::Bulk, Standing::Member);
            let expected = if index + 1 == pieces.len() { polled.is_err() } else { polled == Ok(None) };
            assert!(expected, "part {index}");
        }
        assert!(
            poll(
                &framed(Body::Batch(Batch { documents: vec![Document::default(); 1_000_000], ..Batch::default() })),
                Lane::Bulk,
                Standing::Member
            )
            .is_err()
        );
    }

    #[test]
    fn lists_beyond_what_an_honest_peer_sends_are_refused_before_they_are_decoded() {
        let many = |count: usize| vec![Bytes::new(); count];
        let bodies = [
            Body::Hello(Hello { latest_collections: vec![String::new(); 100_000], ..Hello::default() }),
            Body::Hello(Hello { cursors: vec![Cursor::default(); 100_000], ..Hello::default() }),
            Body::Want(Want { have: many(100_000), ..Want::default() }),
            Body::Ack(Ack { lacking: many(400_000), ..Ack::default() }),
            Body::Refused(Refused { keys: many(16_913) }),
        ];
        for body in bodies {
            let refused = poll(&framed(body), Lane::Control, Standing::Member);
            assert!(
                matches!(refused, Err(FrameError::Costly(_) | FrameError::Large(..) | FrameError::Long(..))),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn the_largest_messages_an_honest_peer_sends_are_taken() {
        let key = || Bytes::from(vec![9; 16]);
        let ack = Body::Ack(Ack { lane: 4, number: u64::MAX, lacking: vec![key(); LACKING_KEYS] });
        assert!(poll(&framed(ack), Lane::Control, Standing::Member).expect("taken").is_some());
        let tombstone = Document { key: key(), kind: 1, incarnation: u64::MAX, ..Document::default() };
        let full =
            Batch { documents: vec![tombstone; BATCH_DOCUMENTS], answered: vec![key(); 4_096], ..Batch::default() };
        assert!(poll(&framed(Body::Batch(full)), Lane::Bulk, Standing::Member).expect("taken").is_some());
    }
}

//! Rules of messages: the lane of each, and its maximum size.
//!
//! | message | lane | bytes on the wire | of lists in memory |
//! |---|---|---|---|
//! | Auth | control | 64 | none |
//! | Hello | control | 640 KiB | 512 KiB |
//! | Plan | control | 64 | none |
//! | Reconcile | control | 60 KiB | none |
//! | Batch | documents | 20 MiB | 8 MiB |
//! | Ack | control | 1.2 MiB | 4 MiB |
//! | Want | control | 128 KiB | 256 KiB |
//! | Refused | control | 32 KiB | 128 KiB |
//! | Presence | control | 512 | none |
//! | Part | documents | 1 MiB | none |

use prost::encoding::{WireType, decode_key, decode_varint};

use super::{FrameError, PART_BYTES};
use crate::limits::{BATCH_BYTES_MAX, BATCH_LIST_BYTES, LACKING_KEYS, MESSAGE_BYTES};
use crate::schema::{CostError, Described as _};
use crate::sync::link::Lane;
use crate::sync::mesh::Message;
use crate::sync::reconcile;

/// Admission state of a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Standing {
    /// The peer has shown a key, and is neither pinned nor has proved that it knows the formation key; or this node dialled it
    /// and waits for its answer.
    Stranger,
    /// The peer is admitted.
    Member,
}

/// Rule for one kind of message.
#[derive(Debug, Eq, PartialEq)]
pub struct Rule {
    /// Field number in `message.body`.
    number: u32,
    /// Name with its article, for errors.
    pub name: &'static str,
    place: Place,
    /// Maximum bytes on the wire, without the envelope.
    pub bytes: usize,
    /// Maximum bytes of memory that its lists may take.
    pub list_bytes: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Place {
    Control,
    Documents,
}

/// Size of the envelope, in bytes: key and length of a message.
const ENVELOPE_BYTES: usize = 8;
const AUTH_BYTES: usize = 64;
/// Size of a document key in a list, in bytes: field key, length, and 16 bytes.
const KEY_BYTES: usize = 18;
const PART: u32 = 8;
const BATCH: u32 = 5;

static RULES: [Rule; 10] = [
    rule(1, "an Auth", Place::Control, AUTH_BYTES, 0),
    rule(2, "a Hello", Place::Control, 640 << 10, 512 << 10),
    rule(3, "a Plan", Place::Control, 64, 0),
    rule(4, "a Reconcile", Place::Control, reconcile::MESSAGE_BYTES + 8, 0),
    rule(BATCH, "a Batch", Place::Documents, BATCH_BYTES_MAX, BATCH_LIST_BYTES),
    rule(6, "an Ack", Place::Control, LACKING_KEYS * KEY_BYTES + 64, LACKING_KEYS * 64),
    rule(7, "a Want", Place::Control, 128 << 10, 256 << 10),
    rule(PART, "a Part", Place::Documents, PART_BYTES + 64, 0),
    rule(9, "a Refused", Place::Control, 32 << 10, 128 << 10),
    rule(15, "a Presence", Place::Control, 512, 0),
];

const fn rule(number: u32, name: &'static str, place: Place, bytes: usize, list_bytes: usize) -> Rule {
    Rule { number, name, place, bytes, list_bytes }
}

impl Rule {
    pub(super) fn allows(&self, lane: Lane, standing: Standing) -> bool {
        let placed = (lane == Lane::Control) == (self.place == Place::Control);
        placed && (standing == Standing::Member || self.number == 1)
    }

    pub(super) fn is_part(&self) -> bool {
        self.number == PART
    }

    /// Returns true if it may be longer than a frame.
    pub(super) fn travels_in_parts(&self) -> bool {
        self.number == BATCH
    }
}

/// Returns the maximum length of a frame.
pub(super) fn frame_bytes(lane: Lane, standing: Standing) -> usize {
    let allowed = RULES.iter().filter(|rule| rule.allows(lane, standing)).map(|rule| rule.bytes + ENVELOPE_BYTES);
    allowed.max().unwrap_or(0).min(MESSAGE_BYTES)
}

/// Returns the rule for the message in a frame, and its length without the envelope; `None` for an unknown body, or none.
pub(super) fn of(frame: &[u8]) -> Result<Option<(&'static Rule, usize)>, FrameError> {
    let mut rest = frame;
    if rest.is_empty() {
        return Ok(None);
    }
    let (number, wire_type) = decode_key(&mut rest).map_err(|_| FrameError::Malformed)?;
    let Some(rule) = RULES.iter().find(|rule| rule.number == number) else { return Ok(None) };
    let length = decode_varint(&mut rest).map_err(|_| FrameError::Malformed)?;
    // A second body would be merged with the first, or replace it.
    let fits = wire_type == WireType::LengthDelimited && usize::try_from(length) == Ok(rest.len());
    if fits { Ok(Some((rule, rest.len()))) } else { Err(FrameError::Malformed) }
}

/// Returns the memory that the lists in a message take.
pub(super) fn lists(frame: &[u8], most: usize) -> Result<usize, CostError> {
    Message::INDEX.cost(frame, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_of_the_protocol_has_a_rule() {
        let proto = include_str!("../../../proto/peat/mesh/v1/mesh.proto");
        let body = proto.split("oneof body {").nth(1).and_then(|rest| rest.split('}').next()).expect("a oneof");
        let fields = body.lines().filter(|line| line.contains('=') && !line.trim_start().starts_with("//"));
        let mut numbers: Vec<u32> = fields
            .map(|line| {
                line.rsplit('=').next().expect("a number").trim().trim_end_matches(';').parse().expect("a number")
            })
            .collect();
        numbers.sort_unstable();
        assert_eq!(numbers, RULES.iter().map(|rule| rule.number).collect::<Vec<_>>());
    }

    #[test]
    fn two_bodies_in_one_message_are_refused() {
        let one = [0x1a, 0];
        assert!(of(&one).expect("a plan").is_some());
        for frame in [[one, one].concat(), vec![0x1a, 1], vec![0x18, 0]] {
            assert_eq!(of(&frame), Err(FrameError::Malformed), "{frame:?}");
        }
        assert_eq!(of(&[0xfa, 0x06, 0]), Ok(None), "a body of a later protocol");
    }
}

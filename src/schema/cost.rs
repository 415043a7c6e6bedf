//! Memory that an encoded message takes once decoded, computed before decoding it.
//!
//! An empty element of a list takes two bytes on the wire and hundreds in memory, so the length of a message says little. The
//! computation needs one pass per level of nested messages, and ends when it exceeds its limit.

use std::fmt;

use bytes::Bytes;

use super::write::{Wire, next};
use super::{Field, FieldKind, Index, SIZES};

/// Factor for lists: a list that grows doubles its capacity.
const GROWTH: usize = 2;
/// Minimum size of a string on the heap, in bytes, for any allocator.
const TEXT_BYTES: usize = 32;
/// Size of a map entry, in bytes: two strings and its part of the table.
const MAP_ENTRY_BYTES: usize = 80;

/// Reason for which a message is not decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CostError {
    /// The bytes are not a valid message.
    Malformed,
    /// The message takes more memory than the limit.
    Over,
}

impl fmt::Display for CostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            CostError::Malformed => "malformed",
            CostError::Over => "more elements than the limit",
        })
    }
}

impl Index {
    /// Returns an upper bound of the memory, in bytes, that the decoded message takes in addition to its encoded size: list
    /// elements, map entries and small strings.
    ///
    /// # Errors
    /// The bytes are malformed, or the cost exceeds `most`.
    pub fn cost(self, bytes: &[u8], most: usize) -> Result<usize, CostError> {
        let mut left = most;
        self.spend(bytes, &mut left)?;
        Ok(most - left)
    }

    fn spend(self, mut bytes: &[u8], left: &mut usize) -> Result<(), CostError> {
        while !bytes.is_empty() {
            let (number, value) = next(&mut bytes).ok_or(CostError::Malformed)?;
            let Wire::Bytes(content) = value else { continue };
            let Some(field) = self.fields().iter().find(|field| u64::from(field.number) == number) else { continue };
            *left = left.checked_sub(field.element_bytes()).ok_or(CostError::Over)?;
            if let FieldKind::Message(of) | FieldKind::Map(of) = field.kind {
                of.spend(content, left)?;
            }
        }
        Ok(())
    }
}

impl Field {
    /// Returns the memory of one occurrence, in bytes, without its content.
    fn element_bytes(&self) -> usize {
        let (inline, apart) = match self.kind {
            FieldKind::Map(_) => (MAP_ENTRY_BYTES, 0),
            FieldKind::Message(of) => (SIZES[usize::from(of.0)], 0),
            FieldKind::Text => (size_of::<String>(), TEXT_BYTES),
            FieldKind::Bytes => (size_of::<Bytes>(), 0),
            FieldKind::Double
            | FieldKind::U32
            | FieldKind::U64
            | FieldKind::I64
            | FieldKind::Bool
            | FieldKind::Enum(_) => (0, 0),
        };
        if self.repeated { GROWTH * inline + apart } else { apart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mesh::{Batch, Document, Hello};
    use crate::schema::Described;
    use peat_ipc::agent::{AgentMessage, Register, agent_message};
    use peat_ipc::prost::Message;
    use peat_ipc::sidecar::SubscribeRequest;

    const MOST: usize = usize::MAX;

    #[test]
    fn a_message_costs_at_least_what_its_lists_take_in_memory() {
        let documents = vec![Document::default(); 1_000];
        let batch = Batch { documents, ..Batch::default() }.encode_to_vec();
        assert_eq!(batch.len(), 2_000, "two bytes a document");
        let cost = Batch::INDEX.cost(&batch, MOST).expect("a batch");
        assert!(cost >= 1_000 * size_of::<Document>(), "{cost}");

        let names = Hello { latest_collections: vec![String::new(); 1_000], ..Hello::default() }.encode_to_vec();
        assert!(Hello::INDEX.cost(&names, MOST).expect("a hello") >= 1_000 * size_of::<String>());

        let labels = (0..1_000).map(|n| (n.to_string(), "x".to_owned())).collect();
        let body = agent_message::Body::Register(Register { labels, ..Register::default() });
        let message = AgentMessage { body: Some(body) }.encode_to_vec();
        assert!(AgentMessage::INDEX.cost(&message, MOST).expect("a registration") >= 1_000 * 2 * size_of::<String>());
    }

    #[test]
    fn the_count_ends_at_the_limit() {
        let bytes =
            SubscribeRequest { collections: vec![String::new(); 100], ..SubscribeRequest::default() }.encode_to_vec();
        let cost = SubscribeRequest::INDEX.cost(&bytes, MOST).expect("a request");
        assert_eq!(SubscribeRequest::INDEX.cost(&bytes, cost), Ok(cost));
        assert_eq!(SubscribeRequest::INDEX.cost(&bytes, cost - 1), Err(CostError::Over));
    }

    #[test]
    fn what_is_no_message_is_refused_and_unknown_fields_are_not() {
        assert_eq!(Batch::INDEX.cost(&[0x12], MOST), Err(CostError::Malformed));
        assert_eq!(Batch::INDEX.cost(&[0x12, 5, 0], MOST), Err(CostError::Malformed));
        let unknown = [0xa5, 0x06, 1, 2, 3, 4, 0xa2, 0x06, 1, 9];
        assert_eq!(Batch::INDEX.cost(&unknown, MOST), Ok(0));
    }
}

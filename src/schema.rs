//! Messages of clients and nodes as tables that `build.rs` generates from `proto/`: their JSON, and their cost in memory.
//!
//! One reader and one writer serve all messages, instead of generated code for each: `read` converts JSON to protobuf, `write`
//! converts protobuf to JSON, both by protobuf's own rules (protobuf.dev/programming-guides/json). `cost` computes the memory
//! that a message takes before it is decoded.

mod cost;
mod read;
#[cfg(test)]
mod tests;
mod write;

use peat_ipc::prost::Message;

pub use cost::CostError;
pub use read::from_base64;
pub use write::{Style, base64};

/// Index of a message in the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Index(u16);

/// A message that is in the tables.
pub trait Described: Message {
    /// Its index.
    const INDEX: Index;
}

#[derive(Debug)]
struct Field {
    number: u16,
    /// Start in [`NAMES`], and length.
    name: (u16, u8),
    kind: FieldKind,
    repeated: bool,
    /// True if the field distinguishes absent from default.
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
enum FieldKind {
    Double,
    U32,
    U64,
    I64,
    Bool,
    Text,
    Bytes,
    /// Index into [`ENUMS`].
    Enum(u16),
    Message(Index),
    /// Index of the message of an entry.
    Map(Index),
}

#[derive(Debug)]
struct Value {
    number: i32,
    name: (u16, u8),
}

include!(concat!(env!("OUT_DIR"), "/schema.rs"));

fn text((start, length): (u16, u8)) -> &'static str {
    &NAMES[usize::from(start)..usize::from(start) + usize::from(length)]
}

impl Index {
    /// Returns the fields, ordered by number.
    fn fields(self) -> &'static [Field] {
        let (start, end) = MESSAGES[usize::from(self.0)];
        &FIELDS[usize::from(start)..usize::from(end)]
    }
}

impl Field {
    fn name(&self) -> &'static str {
        text(self.name)
    }

    /// Iterates over the letters of the name in JSON, `docId` for `doc_id`.
    fn json_name(&self) -> impl Iterator<Item = u8> {
        let mut upper = false;
        self.name().bytes().filter_map(move |byte| match byte {
            b'_' => {
                upper = true;
                None
            }
            byte if std::mem::take(&mut upper) => Some(byte.to_ascii_uppercase()),
            byte => Some(byte),
        })
    }
}

fn values(of: u16) -> &'static [Value] {
    let (start, end) = ENUMS[usize::from(of)];
    &VALUES[usize::from(start)..usize::from(end)]
}

/// Returns the request and the response of a method of `PeatSidecar`.
#[must_use]
pub fn method(method: peat_ipc::Method) -> (Index, Index) {
    METHODS[method as usize - 1]
}

/// Encodes a message as one line of JSON.
#[must_use]
pub fn json<M: Described>(message: &M, style: Style) -> String {
    let mut out = Vec::new();
    write(M::INDEX, &message.encode_to_vec(), style, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the JSON of an encoded message. Its fields must be in the order of their numbers, as prost writes them.
pub fn write(message: Index, bytes: &[u8], style: Style, out: &mut Vec<u8>) {
    write::message(message, bytes, style, out);
}

/// Encodes a message given as JSON.
///
/// # Errors
/// The JSON is not such a message; the sentence names the field and the mistake.
pub fn read(message: Index, json: &[u8]) -> Result<Vec<u8>, String> {
    read::message(message, json)
}

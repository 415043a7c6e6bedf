//! The messages of clients and nodes, as tables that `build.rs` makes of `proto/`: their JSON, and their cost in memory.
//!
//! One reader and one writer for every message, instead of generated code for each: `read` makes protobuf of JSON, `write`
//! JSON of protobuf, both by protobuf's own rules (protobuf.dev/programming-guides/json). `cost` says what a message takes
//! in memory before it is decoded.

mod cost;
mod read;
#[cfg(test)]
mod tests;
mod write;

use peat_ipc::prost::Message;

pub use cost::CostError;
pub use read::from_base64;
pub use write::{Style, base64};

/// A message's place in the tables.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Index(u16);

/// A message that is in the tables.
pub trait Described: Message {
    /// Where.
    const INDEX: Index;
}

#[derive(Debug)]
struct Field {
    number: u16,
    /// Where in [`NAMES`], and how long.
    name: (u16, u8),
    kind: Kind,
    repeated: bool,
    /// Whether absent and default differ.
    optional: bool,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Double,
    U32,
    U64,
    I64,
    Bool,
    Text,
    Bytes,
    /// Which of [`ENUMS`].
    Enum(u16),
    Message(Index),
    /// Of entries like this.
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
    /// By field number.
    fn fields(self) -> &'static [Field] {
        let (start, end) = MESSAGES[usize::from(self.0)];
        &FIELDS[usize::from(start)..usize::from(end)]
    }
}

impl Field {
    fn name(&self) -> &'static str {
        text(self.name)
    }

    /// The letters of the name in JSON, `docId` for `doc_id`.
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

/// Request and response of a method of `PeatSidecar`.
#[must_use]
pub fn method(method: peat_ipc::Method) -> (Index, Index) {
    METHODS[method as usize - 1]
}

/// A message as one line of JSON.
#[must_use]
pub fn json<M: Described>(message: &M, style: Style) -> String {
    let mut out = Vec::new();
    write(M::INDEX, &message.encode_to_vec(), style, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Appends the JSON of an encoded message, whose fields must be in the order of their numbers, as prost writes them.
pub fn write(message: Index, bytes: &[u8], style: Style, out: &mut Vec<u8>) {
    write::message(message, bytes, style, out);
}

/// Encodes a message given as JSON.
///
/// # Errors
/// It is not one; the sentence says what is wrong where.
pub fn read(message: Index, json: &[u8]) -> Result<Vec<u8>, String> {
    read::message(message, json)
}

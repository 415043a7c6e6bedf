//! JSON of documents: read strictly, patched by RFC 7396, written compactly with sorted keys.
//!
//! Owns the definition of a document's JSON: what [`parse`] accepts is kept exactly, and anything else is refused with a
//! reason. Must never accept a text with a meaning that depends on the reader (a repeated key, an integer that would be
//! rounded), nor recurse deeper than [`crate::limits::JSON_NESTING_LEVELS`].

mod error;
mod parser;

use serde_json::{Map, Value};

use crate::limits::DOCUMENT_JSON_BYTES;

pub use error::{JsonError, Problem};

/// Parses a document, which is an object.
///
/// A number without fraction and exponent is an integer of `i64` or `u64`. One with either is read as the nearest `f64`, as is
/// `-0`.
///
/// # Errors
/// [`JsonError`] has the reason and its position: not UTF-8, not JSON, not an object, a repeated key, more than
/// [`crate::limits::JSON_NESTING_LEVELS`] nested objects and arrays, an integer outside 64 bits, a number for which the
/// nearest `f64` is infinite, or is zero although the number is not, or more than [`DOCUMENT_JSON_BYTES`] of text, white space
/// between values not counted.
pub fn parse(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let (map, bytes) = read(text)?;
    if bytes > DOCUMENT_JSON_BYTES {
        return Err(JsonError::new(Problem::TooLarge { bytes }, text.len()));
    }
    Ok(map)
}

/// Parses a text of any size: one that a merge made, or one that is measured after it has been patched.
///
/// # Errors
/// Those of [`parse`] except for the size.
pub fn parse_any_size(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    read(text).map(|(map, _)| map)
}

/// Parses a text, and returns the object and the length of the text without the white space between values.
fn read(text: &[u8]) -> Result<(Map<String, Value>, usize), JsonError> {
    let text = std::str::from_utf8(text).map_err(|cause| JsonError::new(Problem::NotUtf8, cause.valid_up_to()))?;
    let mut parser = parser::Parser::new(text);
    let map = parser.document()?;
    Ok((map, parser.bytes_without_white_space()))
}

/// Counts the fields and elements, including those of nested objects and arrays.
#[must_use]
pub fn elements(object: &Map<String, Value>) -> usize {
    fn of(value: &Value) -> usize {
        match value {
            Value::Object(object) => elements(object),
            Value::Array(array) => array.iter().map(|value| 1 + of(value)).sum(),
            _ => 0,
        }
    }
    object.values().map(|value| 1 + of(value)).sum()
}

/// Applies a merge patch (RFC 7396): objects merge key by key, `null` removes, any other value replaces.
pub fn merge_patch(target: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, wanted) in patch {
        match wanted {
            Value::Null => {
                target.remove(key);
            }
            Value::Object(patch) => merge_patch(object_at(target, key), patch),
            _ => {
                target.insert(key.clone(), wanted.clone());
            }
        }
    }
}

/// Returns the object under `key`, which replaces any other value there.
fn object_at<'a>(target: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = target.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("it was made an object just above")
}

/// Returns compact text with sorted keys: equal documents have equal texts.
#[must_use]
pub fn to_text(map: &Map<String, Value>) -> String {
    serde_json::to_string(map).expect("a map with string keys always has a text")
}

/// Returns true if two values are the same document content: `1` and `1.0` differ, and so do `0.0` and `-0.0`.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b && sign(a) == sign(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_object(a, b),
        _ => a == b,
    }
}

/// Compares objects as [`same`] does.
#[must_use]
pub fn same_object(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
}

fn sign(number: &serde_json::Number) -> bool {
    number.as_f64().is_some_and(f64::is_sign_negative)
}

#[cfg(test)]
mod tests;

//! JSON as documents hold it: read strictly, patched by RFC 7396, written compactly with sorted keys.
//!
//! Owns what counts as a document's JSON: what [`parse`] returns is kept exactly, and what it cannot return is refused by
//! name. Must never accept a text whose meaning depends on the reader (a repeated key, an integer that would be rounded),
//! nor recurse deeper than [`crate::limits::JSON_NESTING_LEVELS`].

mod error;
mod parser;

use serde_json::{Map, Value};

use crate::limits::DOCUMENT_JSON_BYTES;

pub use error::{JsonError, Problem};

/// Reads a document: an object at the top.
///
/// A number without fraction and exponent is an integer of `i64` or `u64`. One with either is read as the nearest `f64`,
/// as is `-0`.
///
/// # Errors
/// [`JsonError`] says what is wrong, and where: not UTF-8, not JSON, not an object, a repeated key, more than
/// [`crate::limits::JSON_NESTING_LEVELS`] objects and arrays within each other, an integer outside 64 bits, a number
/// whose nearest `f64` is infinite or zero for one that is not, or more than [`DOCUMENT_JSON_BYTES`] of text, white space between values not counted.
pub fn parse(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    let (map, bytes) = read(text)?;
    if bytes > DOCUMENT_JSON_BYTES {
        return Err(JsonError::new(Problem::TooLarge { bytes }, text.len()));
    }
    Ok(map)
}

/// Like [`parse`] for a text of any size: what merges made, or what is measured only once it has been patched.
///
/// # Errors
/// Those of [`parse`] but for the size.
pub fn parse_any_size(text: &[u8]) -> Result<Map<String, Value>, JsonError> {
    read(text).map(|(map, _)| map)
}

/// The object, and how long its text is without the white space between values.
fn read(text: &[u8]) -> Result<(Map<String, Value>, usize), JsonError> {
    let text = std::str::from_utf8(text).map_err(|cause| JsonError::new(Problem::NotUtf8, cause.valid_up_to()))?;
    let mut parser = parser::Parser::new(text);
    let map = parser.document()?;
    Ok((map, parser.bytes_without_white_space()))
}

/// Fields and elements, those of nested objects and arrays included.
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

/// Applies a merge patch (RFC 7396): objects merge key by key, `null` removes, anything else replaces.
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

/// The object under `key`, which replaces whatever else stood there.
fn object_at<'a>(target: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    let slot = target.entry(key).or_insert(Value::Null);
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    slot.as_object_mut().expect("it was made an object just above")
}

/// Compact text with sorted keys: equal documents have equal texts.
#[must_use]
pub fn to_text(map: &Map<String, Value>) -> String {
    serde_json::to_string(map).expect("a map with string keys always has a text")
}

/// Whether two values are the same document content: `1` and `1.0` differ, and so do `0.0` and `-0.0`.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b && sign(a) == sign(b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => same_object(a, b),
        _ => a == b,
    }
}

/// [`same`] for objects.
#[must_use]
pub fn same_object(a: &Map<String, Value>, b: &Map<String, Value>) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|((k, a), (l, b))| k == l && same(a, b))
}

fn sign(number: &serde_json::Number) -> bool {
    number.as_f64().is_some_and(f64::is_sign_negative)
}

#[cfg(test)]
mod tests;

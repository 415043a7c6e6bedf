//! Mapping of JSON keys and scalars to Automerge.

use std::borrow::Cow;
use std::collections::HashMap;

use automerge::hydrate;
use automerge::{ScalarValue, ScalarValueRef};
use serde_json::{Map, Number, Value};

/// Prefix of a key that needed escaping.
const ESCAPE: char = '\0';

/// Returns the key as Automerge stores it. Not every reader of the format accepts an empty key, so it is written as a NUL;
/// keys that begin with NUL get one more.
pub(super) fn escape(key: &str) -> Cow<'_, str> {
    if key.is_empty() || key.starts_with(ESCAPE) { Cow::Owned(format!("{ESCAPE}{key}")) } else { Cow::Borrowed(key) }
}

/// Reverses [`escape`].
pub(super) fn unescape(key: &str) -> &str {
    key.strip_prefix(ESCAPE).unwrap_or(key)
}

/// Returns a stored scalar as JSON. A value that JSON cannot express (which only other software can have written) becomes
/// null.
pub(super) fn shown(scalar: &ScalarValueRef<'_>) -> Value {
    match scalar {
        ScalarValueRef::Str(text) => Value::String(text.clone().into_owned()),
        ScalarValueRef::Int(number) | ScalarValueRef::Counter(number) | ScalarValueRef::Timestamp(number) => {
            Value::from(*number)
        }
        ScalarValueRef::Uint(number) => Value::from(*number),
        ScalarValueRef::F64(number) => Number::from_f64(*number).map_or(Value::Null, Value::Number),
        ScalarValueRef::Boolean(truth) => Value::Bool(*truth),
        ScalarValueRef::Null | ScalarValueRef::Bytes(_) | ScalarValueRef::Unknown { .. } => Value::Null,
    }
}

/// Returns a whole value as it is stored.
pub(super) fn stored(value: &Value) -> hydrate::Value {
    match value {
        Value::Object(map) => hydrate::Value::Map(stored_map(map)),
        Value::Array(items) => hydrate::Value::List(items.iter().map(stored).collect::<Vec<_>>().into()),
        scalar => hydrate::Value::Scalar(stored_scalar(scalar)),
    }
}

/// Returns an object as [`stored`] does.
pub(super) fn stored_map(map: &Map<String, Value>) -> hydrate::Map {
    let fields = map.iter().map(|(key, value)| (escape(key).into_owned(), field(value)));
    let mut stored = hydrate::Map::default();
    // Automerge writes the fields sorted, so the order of this map has no effect.
    *stored = fields.collect::<HashMap<_, _>>();
    stored
}

fn field(value: &Value) -> hydrate::MapValue {
    hydrate::MapValue { value: stored(value), conflict: false }
}

/// Returns a scalar as it is stored; null for an object or array, which has no such form.
pub(super) fn stored_scalar(value: &Value) -> ScalarValue {
    match value {
        Value::Bool(truth) => ScalarValue::Boolean(*truth),
        Value::Number(number) => stored_number(number),
        Value::String(text) => ScalarValue::Str(text.as_str().into()),
        Value::Null | Value::Array(_) | Value::Object(_) => ScalarValue::Null,
    }
}

fn stored_number(number: &Number) -> ScalarValue {
    if let Some(number) = number.as_i64() {
        ScalarValue::Int(number)
    } else if let Some(number) = number.as_u64() {
        ScalarValue::Uint(number)
    } else {
        number.as_f64().map_or(ScalarValue::Null, ScalarValue::F64)
    }
}

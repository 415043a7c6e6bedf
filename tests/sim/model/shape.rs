//! Documents in the form that the model of merges interprets: scalar fields at the top and in one object, an array of objects
//! with an `id`, and an array of strings. No two writes write the same value, id or string.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// The array of objects and the array of strings.
pub const ITEMS: &str = "items";
pub const TAGS: &str = "tags";
pub const ARRAYS: [&str; 2] = [ITEMS, TAGS];
/// The object with fields that are tracked individually, like those at the top.
pub const DEEP: &str = "deep";

/// Identity of an element within its array.
pub type Id = String;

/// An element of an array, with its fields; a string has none.
pub type Element = (Id, Map<String, Value>);

/// A document split into fields and arrays.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Scalars by path.
    pub fields: BTreeMap<String, Value>,
    pub arrays: BTreeMap<&'static str, Vec<Element>>,
}

impl Shape {
    /// Splits a document; `None` gives an empty shape.
    pub fn of(document: Option<&Value>) -> Shape {
        let mut shape = Shape::default();
        for (name, value) in document.and_then(Value::as_object).into_iter().flatten() {
            match (ARRAYS.iter().find(|array| *array == name), value) {
                (Some(array), Value::Array(elements)) => {
                    shape.arrays.insert(array, elements.iter().map(element).collect());
                }
                (None, Value::Object(deep)) => {
                    let fields = deep.iter().map(|(field, value)| (format!("{name}.{field}"), value.clone()));
                    shape.fields.extend(fields);
                }
                _ => drop(shape.fields.insert(name.clone(), value.clone())),
            }
        }
        shape
    }
}

fn element(value: &Value) -> Element {
    match value {
        Value::Object(fields) => (fields.get("id").map_or_else(String::new, Value::to_string), fields.clone()),
        other => (other.to_string(), Map::new()),
    }
}

/// Returns the beginning of a text, for messages.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 600;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

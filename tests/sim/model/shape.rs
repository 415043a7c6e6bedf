//! The shape of the documents that the model of merges understands: scalar fields at the top and in one object, an array of
//! objects that have an `id`, and an array of strings. No two writes write the same value, id or string.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// An array of objects, and one of strings.
pub const ITEMS: &str = "items";
pub const TAGS: &str = "tags";
pub const ARRAYS: [&str; 2] = [ITEMS, TAGS];
/// The object whose fields are told apart like those at the top.
pub const DEEP: &str = "deep";

/// Tells an element of an array from every other.
pub type Id = String;

/// An element of an array, with its fields; a string has none.
pub type Element = (Id, Map<String, Value>);

/// A document taken apart.
#[derive(Clone, Debug, Default)]
pub struct Shape {
    /// Scalars by path.
    pub fields: BTreeMap<String, Value>,
    pub arrays: BTreeMap<&'static str, Vec<Element>>,
}

impl Shape {
    /// Takes a document apart; nothing for none.
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

/// The beginning of a text, for messages.
pub fn short(text: &str) -> String {
    const SHOWN: usize = 600;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

//! The writes of clients: documents with every JSON type, and a unique mark in each write.

use peat_node::store::{Key, Put, Version};
use serde_json::{Map, Number, Value, json};

use crate::prng::Prng;

/// Collections that the workload writes to.
pub const COLLECTIONS: [&str; 3] = ["tracks", "notes", "grow"];

/// Collection of documents that grow only: a write adds one field, and documents are deleted and compacted, so the fields that
/// must be present are known.
pub const GROW: &str = "grow";

/// Draws one of the few keys that all clients write.
pub fn key(random: &mut Prng, ids: u64) -> Key {
    let collection = *random.pick(&COLLECTIONS);
    Key::new(collection, format!("d{}", random.below(ids))).expect("a valid key")
}

/// Returns every key that [`key`] can return.
pub fn keys(ids: u64) -> Vec<Key> {
    let all = COLLECTIONS.iter().flat_map(|collection| (0..ids).map(move |id| (*collection, id)));
    all.map(|(collection, id)| Key::new(collection, format!("d{id}")).expect("a valid key")).collect()
}

const NAMES: [&str; 7] = ["", "a", "b", "status", "pos", "größe", "\u{1f681}"];

fn scalar(random: &mut Prng) -> Value {
    match random.below(9) {
        0 => Value::Null,
        1 => Value::Bool(random.chance(500)),
        2 => json!(i64::MIN + i64::try_from(random.below(3)).expect("small")),
        3 => json!(u64::MAX - random.below(3)),
        4 => Value::Number(Number::from_f64(random.below(1_000_000) as f64 / 8.0 + 0.125).expect("finite")),
        5 => json!("\u{0} \" \\ \n é \u{1f600}"),
        6 => json!(""),
        _ => json!(random.below(100)),
    }
}

fn value(random: &mut Prng, depth: u32) -> Value {
    match (depth, random.below(5)) {
        (1.., 0) => Value::Object(object(random, depth - 1)),
        (1.., 1) => (0..random.below(5)).map(|_| value(random, depth - 1)).collect(),
        _ => scalar(random),
    }
}

fn object(random: &mut Prng, depth: u32) -> Map<String, Value> {
    (0..random.below(5)).map(|_| ((*random.pick(&NAMES)).to_owned(), value(random, depth))).collect()
}

/// Creates a document with mark `mark`.
pub fn document(random: &mut Prng, mark: u64) -> Map<String, Value> {
    let mut document = object(random, 3);
    document.insert("mark".into(), json!(mark));
    document
}

/// Returns the name of the field that write `mark` adds to a [`GROW`] document.
pub fn field(mark: u64) -> String {
    format!("w{mark}")
}

/// Returns the field that a write adds, if it only adds one.
pub fn grown(put: &Put) -> Option<String> {
    let name = match put {
        Put::Fields(fields) => fields.keys().next().cloned(),
        Put::Patch { json, base: None } => {
            let patch: Map<String, Value> = serde_json::from_str(json).ok()?;
            patch.keys().next().cloned()
        }
        _ => None,
    };
    name.filter(|name| name.starts_with('w'))
}

/// Creates a write to `key`. `base`: a version that the writer has read.
pub fn put(random: &mut Prng, key: &Key, mark: u64, base: Option<Version>) -> Put {
    match random.below(100) {
        0..12 => return Put::Delete,
        12..16 => return Put::Compact,
        _ => {}
    }
    if key.collection() == GROW {
        let added = Map::from_iter([(field(mark), document(random, mark).into())]);
        return if random.chance(500) { Put::Fields(added) } else { Put::Patch { json: text(added), base: None } };
    }
    let document = document(random, mark);
    match random.below(3) {
        0 => Put::Fields(document),
        1 => Put::Patch { json: text(document), base },
        _ => Put::Whole { json: text(document), base },
    }
}

fn text(document: Map<String, Value>) -> String {
    Value::Object(document).to_string()
}

/// Copies a write.
pub fn copy(put: &Put) -> Put {
    match put {
        Put::Whole { json, base } => Put::Whole { json: json.clone(), base: base.clone() },
        Put::Patch { json, base } => Put::Patch { json: json.clone(), base: base.clone() },
        Put::Fields(fields) => Put::Fields(fields.clone()),
        Put::Delete => Put::Delete,
        Put::Compact => Put::Compact,
        Put::Command(change) => Put::Command(change.clone()),
    }
}

/// Applies a JSON merge patch (RFC 7396), independently of the store.
pub fn patched(target: Option<&Value>, patch: &Value) -> Value {
    let Value::Object(patch) = patch else { return patch.clone() };
    let mut result = target.and_then(Value::as_object).cloned().unwrap_or_default();
    for (name, change) in patch {
        match change {
            Value::Null => drop(result.remove(name)),
            change => {
                let merged = patched(result.get(name), change);
                result.insert(name.clone(), merged);
            }
        }
    }
    Value::Object(result)
}

/// Returns the content after `put` on `before`; `None` if the oracle cannot tell (a merge with concurrent writes).
pub fn expected(before: Option<&Value>, put: &Put) -> Option<Option<Value>> {
    let parse = |json: &str| serde_json::from_str::<Value>(json).expect("the workload writes JSON");
    match put {
        Put::Whole { json, base: None } => Some(Some(parse(json))),
        Put::Patch { json, base: None } => Some(Some(patched(before, &parse(json)))),
        Put::Whole { .. } | Put::Patch { .. } | Put::Command(_) => None,
        Put::Fields(fields) => {
            let mut result = before.and_then(Value::as_object).cloned().unwrap_or_default();
            result.extend(fields.clone());
            // A null removes the key.
            result.retain(|name, _| fields.get(name) != Some(&Value::Null));
            Some(Some(Value::Object(result)))
        }
        Put::Delete => Some(None),
        Put::Compact => Some(before.cloned()),
    }
}

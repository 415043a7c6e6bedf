//! The field that identifies the objects of two arrays.
//!
//! Owns the choice of the field: one with a well-known name, or else the one that matches most objects.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::hash;

/// Names of fields that identify an object, in the order of preference.
const NAMES: [&str; 6] = ["id", "_id", "uuid", "guid", "uid", "key"];

/// The chosen field.
#[derive(Debug)]
pub(super) struct Identity<'a> {
    key: &'a str,
    /// True if the field has a well-known name, so that different values mean different objects.
    pub(super) strict: bool,
}

/// Number of occurrences of a field's value in each array.
#[derive(Default)]
struct Count {
    old: usize,
    new: usize,
}

impl<'a> Identity<'a> {
    /// Returns the identifying field of the objects in `old` and `new`, if there is one.
    pub(super) fn find(old: &'a [Value], new: &'a [Value]) -> Option<Identity<'a>> {
        let mut fields: BTreeMap<&str, HashMap<u64, Count>> = BTreeMap::new();
        let objects =
            (count(old, &mut fields, |count| count.old += 1), count(new, &mut fields, |count| count.new += 1));
        for name in NAMES {
            if let Some((key, values)) = fields.get_key_value(name)
                && tells_apart(values, objects)
            {
                return Some(Identity { key, strict: true });
            }
        }
        let partners =
            |values: &HashMap<u64, Count>| values.values().filter(|count| (count.old, count.new) == (1, 1)).count();
        let found = fields.iter().map(|(key, values)| (partners(values), *key)).filter(|(partners, _)| *partners > 0);
        // Of equally good fields, take the first by name.
        let best = found.max_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(a.1)));
        best.map(|(_, key)| Identity { key, strict: false })
    }

    /// Returns the identity of an element, as a hash.
    pub(super) fn of(&self, value: &Value) -> Option<u64> {
        value.as_object()?.get(self.key).filter(|value| names(value)).map(hash)
    }
}

/// Counts the values of every field, and the objects.
fn count<'a>(
    values: &'a [Value],
    fields: &mut BTreeMap<&'a str, HashMap<u64, Count>>,
    add: impl Fn(&mut Count),
) -> usize {
    let objects = values.iter().filter_map(Value::as_object);
    objects
        .map(|object| {
            for (key, value) in object.iter().filter(|(_, value)| names(value)) {
                add(fields.entry(key).or_default().entry(hash(value)).or_default());
            }
        })
        .count()
}

/// Returns true if a value can be an identity.
fn names(value: &Value) -> bool {
    value.is_string() || value.is_number()
}

/// Returns true if at least half of the objects of each array have a unique value.
fn tells_apart(values: &HashMap<u64, Count>, objects: (usize, usize)) -> bool {
    let unique = |number: fn(&Count) -> usize| values.values().filter(|count| number(count) == 1).count();
    2 * unique(|count| count.old) >= objects.0.max(1) && 2 * unique(|count| count.new) >= objects.1.max(1)
}

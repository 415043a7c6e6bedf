//! Edits as clients make them: of the newest version or an older one, as a patch, as fields, or as the whole document.

use peat_node::store::Put;
use serde_json::{Map, Value, json};

use crate::checkers::merges::Change;
use crate::faults::Fault;
use crate::model::Sight;
use crate::model::shape::{DEEP, ITEMS, TAGS};
use crate::prng::Prng;

/// One write and its intended effect.
#[derive(Debug)]
pub struct Edit {
    pub put: Put,
    /// Heads of the version that it names as its base.
    pub base: Option<Vec<Change>>,
    /// The content that the writer started from; `None` for a compaction or a new document.
    pub view: Option<Value>,
    /// The content that the writer intends, without concurrent writes; `None` for a deletion.
    pub meant: Option<Value>,
    /// Unusual properties, for the tally.
    pub kinds: Vec<Fault>,
}

/// Generator of values that no other write uses.
#[derive(Debug)]
pub struct Marks<'a>(pub &'a mut u64);

impl Marks<'_> {
    fn next(&mut self) -> Value {
        *self.0 += 1;
        json!(*self.0)
    }
}

/// A client's knowledge of a document before it writes.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    pub now: Option<&'a Sight>,
    /// Versions read earlier, superseded or not.
    pub before: &'a [Sight],
    /// Number of elements in a new array.
    pub elements: u64,
}

/// Creates a write by a client with the knowledge `known`.
pub fn edit(random: &mut Prng, marks: &mut Marks<'_>, known: Known<'_>) -> Edit {
    let Some(now) = known.now else { return creation(random, marks, known.elements) };
    match random.below(100) {
        0..3 => Edit { put: Put::Delete, base: None, view: None, meant: None, kinds: vec![] },
        3..6 => {
            let meant = Some(now.value.clone());
            Edit { put: Put::Compact, base: None, view: None, meant, kinds: vec![Fault::Compaction] }
        }
        6..50 => whole(random, marks, known, now),
        50..90 => patch(random, marks, known, now),
        _ => fields(random, marks, now),
    }
}

/// Creates a patch of one field of the newest version, for edits at the maximum rate.
pub fn quick_patch(random: &mut Prng, marks: &mut Marks<'_>, now: &Sight) -> Edit {
    let (name, value) = (format!("f{}", random.below(3)), marks.next());
    let mut meant = now.value.clone();
    meant[&name] = value.clone();
    let put = Put::Patch { json: json!({ name: value }).to_string(), base: None };
    Edit { put, base: None, view: Some(now.value.clone()), meant: Some(meant), kinds: vec![Fault::QuickEdit] }
}

fn creation(random: &mut Prng, marks: &mut Marks<'_>, elements: u64) -> Edit {
    let mut document = json!({ "f0": marks.next(), "f1": marks.next(), DEEP: { "k0": marks.next() } });
    document[ITEMS] = (0..random.between(elements / 2, elements)).map(|_| item(marks)).collect();
    document[TAGS] = (0..random.below(6)).map(|_| tag(marks)).collect();
    let put = Put::Whole { json: document.to_string(), base: None };
    Edit { put, base: None, view: None, meant: Some(document), kinds: vec![] }
}

fn item(marks: &mut Marks<'_>) -> Value {
    json!({ "id": marks.next(), "v": marks.next() })
}

fn tag(marks: &mut Marks<'_>) -> Value {
    json!(format!("t{}", marks.next()))
}

/// Chooses the version that a write starts from, and whether the write names it.
fn start<'a>(random: &mut Prng, known: Known<'a>, now: &'a Sight) -> (&'a Sight, bool) {
    match random.below(10) {
        0..4 => (now, false),
        4..6 => (now, true),
        _ if known.before.is_empty() => (now, true),
        // The newest of them is a base that the client has already named.
        6..8 => (known.before.last().expect("there is one"), true),
        _ => (random.pick(known.before), true),
    }
}

fn kinds(start: &Sight, now: &Sight, stale: Fault) -> Vec<Fault> {
    if start.version == now.version { vec![] } else { vec![stale] }
}

fn whole(random: &mut Prng, marks: &mut Marks<'_>, known: Known<'_>, now: &Sight) -> Edit {
    let (seen, says_so) = start(random, known, now);
    let mut kinds = kinds(seen, now, Fault::StaleWhole);
    let mut meant = seen.value.clone();
    if random.chance(400) {
        change_field(random, marks, &mut meant);
    }
    if let Some(Value::Array(items)) = meant.get_mut(ITEMS) {
        kinds.extend((items.len() >= 100).then_some(Fault::LargeArray));
        edit_items(random, marks, items, &mut kinds);
    }
    if let Some(Value::Array(tags)) = meant.get_mut(TAGS) {
        edit_tags(random, marks, tags);
    }
    let base = says_so.then(|| seen.version.clone());
    let put = Put::Whole { json: meant.to_string(), base };
    let heads = says_so.then(|| seen.heads.clone());
    Edit { put, base: heads, view: Some(seen.value.clone()), meant: Some(meant), kinds }
}

fn patch(random: &mut Prng, marks: &mut Marks<'_>, known: Known<'_>, now: &Sight) -> Edit {
    let (seen, says_so) = start(random, known, now);
    let mut meant = seen.value.clone();
    let changes: Vec<_> = (0..random.between(1, 3)).map(|_| change_field(random, marks, &mut meant)).collect();
    let mut patch = Map::new();
    for (object, name, value) in changes {
        match object {
            Some(object) => {
                let inner = patch.entry(object).or_insert_with(|| json!({}));
                inner[name] = value;
            }
            None => drop(patch.insert(name, value)),
        }
    }
    let base = says_so.then(|| seen.version.clone());
    let put = Put::Patch { json: Value::Object(patch).to_string(), base };
    let (heads, kinds) = (says_so.then(|| seen.heads.clone()), kinds(seen, now, Fault::StalePatch));
    Edit { put, base: heads, view: Some(seen.value.clone()), meant: Some(meant), kinds }
}

fn fields(random: &mut Prng, marks: &mut Marks<'_>, now: &Sight) -> Edit {
    let mut meant = now.value.clone();
    let written: Map<String, Value> =
        (0..random.between(1, 3)).map(|_| (format!("f{}", random.below(6)), marks.next())).collect();
    for (name, value) in &written {
        meant[name] = value.clone();
    }
    Edit { put: Put::Fields(written), base: None, view: Some(now.value.clone()), meant: Some(meant), kinds: vec![] }
}

/// Sets or removes a field; returns the object it is in, its name, and its value, null for a removal.
fn change_field(
    random: &mut Prng,
    marks: &mut Marks<'_>,
    document: &mut Value,
) -> (Option<&'static str>, String, Value) {
    let object = random.chance(400).then_some(DEEP);
    let letter = if object.is_some() { "k" } else { "f" };
    let name = format!("{letter}{}", random.below(6));
    let fields = match object {
        Some(object) => {
            if document.get(object).is_none() {
                document[object] = json!({});
            }
            document[object].as_object_mut()
        }
        None => document.as_object_mut(),
    };
    let fields = fields.expect("documents of the model have objects there");
    let value = if fields.contains_key(&name) && fields.len() > 1 && random.chance(250) {
        fields.remove(&name);
        Value::Null
    } else {
        let value = marks.next();
        fields.insert(name.clone(), value.clone());
        value
    };
    (object, name, value)
}

/// Inserts, removes or edits elements. Never inserts and removes in one write: a removed element beside a new one may be taken
/// for a changed one.
fn edit_items(random: &mut Prng, marks: &mut Marks<'_>, items: &mut Vec<Value>, kinds: &mut Vec<Fault>) {
    match random.below(3) {
        0 => (0..random.between(1, 3)).for_each(|_| insert(random, items, item(marks))),
        1 => remove(random, items),
        _ => {}
    }
    if items.is_empty() {
        return;
    }
    if random.chance(100) {
        kinds.push(Fault::EveryElement);
        items.iter_mut().for_each(|item| item["v"] = marks.next());
        return;
    }
    for _ in 0..random.below(4) {
        let at = random.index(items.len());
        let Some(item) = items[at].as_object_mut() else { continue };
        let name = *random.pick(&["v", "a", "b"]);
        if name != "v" && item.contains_key(name) && random.chance(300) {
            item.remove(name);
        } else {
            item.insert(name.into(), marks.next());
        }
    }
}

fn edit_tags(random: &mut Prng, marks: &mut Marks<'_>, tags: &mut Vec<Value>) {
    match random.below(4) {
        0 => insert(random, tags, tag(marks)),
        1 => remove(random, tags),
        _ => {}
    }
}

fn insert(random: &mut Prng, into: &mut Vec<Value>, element: Value) {
    let anywhere = random.index(into.len() + 1);
    into.insert(*random.pick(&[0, into.len(), anywhere]), element);
}

fn remove(random: &mut Prng, from: &mut Vec<Value>) {
    if from.len() > 2 {
        from.remove(random.index(from.len()));
    }
}

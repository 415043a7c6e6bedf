//! Merge semantics: the content a merged document must show, computed from the writes alone; an independent model of
//! docs/merged.md.
//!
//! Each write is one change, identified by its hash, with the changes it depends on and its intended effect: fields set and
//! removed, elements inserted, removed and edited. A version names its heads; the model follows them back and derives the
//! values each field may have, the elements that must be present, and their order. It does not use Automerge.
//!
//! A change without dependencies is a creation. In the end every acknowledged change is present, unless a deletion or a
//! compaction had seen all the creations that it descends from.

use std::collections::{BTreeMap, BTreeSet};

use peat_node::store::Key;
use serde_json::{Map, Value};

use crate::model::shape::{self, ARRAYS, Element, Id, Shape};
use crate::seeds::Violation;

/// Hash of a change.
pub type Change = [u8; 32];

/// One write, with its intended effect.
#[derive(Debug)]
struct DocumentWrite {
    /// The changes it depends on, itself included; `None` if some of them are unknown.
    past: Option<Past>,
    /// Fields by path; `None` for a removed field.
    fields: BTreeMap<String, Option<Value>>,
    arrays: BTreeMap<&'static str, Edited>,
}

/// Number of a write and the value it gave a field; `None` if it removed the field.
type Given<'v> = (usize, Option<&'v Value>);

/// The effect of a write on an array.
#[derive(Debug, Default)]
struct Edited {
    /// True if the write created the array.
    created: bool,
    /// The elements in the order the writer left them.
    order: Vec<Id>,
    inserted: BTreeSet<Id>,
    removed: BTreeSet<Id>,
    /// Edited fields of elements; `None` for a removed field.
    fields: BTreeMap<(Id, String), Option<Value>>,
}

/// A set of changes, as a bitmap over their numbers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Past(Vec<u64>);

impl Past {
    fn insert(&mut self, number: usize) {
        let (word, bit) = (number / 64, number % 64);
        self.0.resize(self.0.len().max(word + 1), 0);
        self.0[word] |= 1 << bit;
    }

    fn has(&self, number: usize) -> bool {
        self.0.get(number / 64).is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    fn extend(&mut self, other: &Past) {
        self.0.resize(self.0.len().max(other.0.len()), 0);
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 64).filter(|number| self.has(*number))
    }
}

/// A change that was acknowledged, and the machine that acknowledged it.
#[derive(Debug)]
struct Acknowledged {
    machine: usize,
    key: Key,
    number: usize,
}

/// All changes of all documents.
#[derive(Debug, Default)]
pub struct Model {
    /// The changes in the order they were made; a change's number is its index.
    changes: Vec<DocumentWrite>,
    numbers: BTreeMap<Change, usize>,
    acknowledged: Vec<Acknowledged>,
    /// Creations that a deletion or a compaction has seen, answered or not.
    covered: Past,
    /// Documents of which a deletion removed unknown changes; they are not checked.
    obscure: BTreeSet<Key>,
}

fn violation(what: impl Into<String>) -> Violation {
    Violation::new("merge", what)
}

impl Model {
    /// Records a write at `machine` that was intended to turn `view` into `meant` and moved the document's heads from `before`
    /// to `after`; `base` are the heads of the version it named.
    pub fn wrote(
        &mut self,
        (machine, key): (usize, &Key),
        (before, after): (&[Change], &[Change]),
        base: Option<&[Change]>,
        view: Option<&Value>,
        meant: &Value,
    ) -> Result<(), Violation> {
        let made: Vec<&Change> = after.iter().filter(|head| !before.contains(head)).collect();
        let change = match made.as_slice() {
            [] => return Ok(()),
            [change] => **change,
            several => return Err(violation(format!("one write made {} changes", several.len()))),
        };
        let parents = before.iter().filter(|head| !after.contains(head)).chain(base.unwrap_or_default());
        let number = self.changes.len();
        let past = self.past(parents).map(|mut past| {
            past.insert(number);
            past
        });
        let (view, meant) = (Shape::of(view), Shape::of(Some(meant)));
        let arrays =
            ARRAYS.iter().filter_map(|name| Some((*name, edited(view.arrays.get(name), meant.arrays.get(name)?))));
        let write = DocumentWrite { past, fields: difference(&view.fields, &meant.fields), arrays: arrays.collect() };
        self.changes.push(write);
        self.numbers.insert(change, number);
        self.acknowledged.push(Acknowledged { machine, key: key.clone(), number });
        Ok(())
    }

    /// Records that a document with these heads is about to be deleted or compacted.
    pub fn removes(&mut self, key: &Key, heads: &[Change]) {
        match self.past(heads) {
            Some(past) => {
                let creations: Vec<usize> = self.creations(&past).collect();
                creations.into_iter().for_each(|creation| self.covered.insert(creation));
            }
            None => drop(self.obscure.insert(key.clone())),
        }
    }

    /// Drops the promises of a machine that has lost its disk.
    pub fn release(&mut self, machine: usize) {
        self.acknowledged.retain(|change| change.machine != machine);
    }

    /// Checks that the version with these heads (`None`: no document) contains every acknowledged change it must contain.
    pub fn kept(&self, key: &Key, heads: Option<&[Change]>) -> Result<(), Violation> {
        let Some(there) = self.past(heads.unwrap_or_default()) else { return Ok(()) };
        for change in self.acknowledged.iter().filter(|change| change.key == *key && !self.obscure.contains(key)) {
            let write = &self.changes[change.number];
            let Some(past) = write.past.as_ref().filter(|_| !there.has(change.number)) else { continue };
            if let Some(creation) = self.creations(past).find(|creation| !self.covered.has(*creation)) {
                let what = format!(
                    "{key} lacks {write:?}, acknowledged by machine {}; nothing that had seen its creation {creation} removed it",
                    change.machine
                );
                return Err(Violation::new("acknowledged", what));
            }
        }
        Ok(())
    }

    fn creations<'a>(&'a self, past: &'a Past) -> impl Iterator<Item = usize> + 'a {
        let alone = |number: &usize| self.changes[*number].past.as_ref().is_some_and(|past| past.iter().count() == 1);
        past.iter().filter(alone)
    }

    /// Checks `value` against the writes in the version with these heads. Returns false if the effect is unknown, because the
    /// version contains an unanswered write.
    pub fn check(&self, name: &str, heads: &[Change], value: &Value) -> Result<bool, Violation> {
        let Some(known) = self.past(heads) else { return Ok(false) };
        let known: Vec<usize> = known.iter().collect();
        let shown = Shape::of(Some(value));
        let wrong = |what: String| violation(format!("{name}: {what}; it shows {}", shape::short(&value.to_string())));
        self.check_fields(&known, &shown).map_err(wrong)?;
        ARRAYS.iter().try_for_each(|array| self.check_array(&known, array, &shown)).map_err(wrong)?;
        Ok(true)
    }

    /// Returns the ancestry of the heads, themselves included; `None` if part of it is unknown.
    fn past<'a>(&self, heads: impl IntoIterator<Item = &'a Change>) -> Option<Past> {
        let mut past = Past::default();
        for head in heads {
            past.extend(self.changes[*self.numbers.get(head)?].past.as_ref()?);
        }
        Some(past)
    }

    /// Returns true if `one` depends on `other` or is the same change.
    fn builds_on(&self, one: usize, other: usize) -> bool {
        self.changes[one].past.as_ref().is_some_and(|past| past.has(other))
    }

    /// Checks that `shown` is a value that one of the newest writes of a field assigned; a value wins over a concurrent
    /// removal.
    fn check_value(&self, what: &str, writes: &[Given<'_>], shown: Option<&Value>) -> Result<(), String> {
        let is_newest =
            |number: usize| !writes.iter().any(|(other, _)| *other != number && self.builds_on(*other, number));
        let newest = writes.iter().filter(|(number, _)| is_newest(*number));
        let values: Vec<&Value> = newest.filter_map(|(_, value)| *value).collect();
        match shown {
            None if values.is_empty() => Ok(()),
            Some(shown) if values.contains(&shown) => Ok(()),
            shown => Err(format!("{what} is {shown:?} and should be one of {values:?}")),
        }
    }

    fn check_fields(&self, known: &[usize], shown: &Shape) -> Result<(), String> {
        let mut writes: BTreeMap<&str, Vec<Given<'_>>> = BTreeMap::new();
        for number in known {
            for (path, value) in &self.changes[*number].fields {
                writes.entry(path).or_default().push((*number, value.as_ref()));
            }
        }
        if let Some(path) = shown.fields.keys().find(|path| !writes.contains_key(path.as_str())) {
            return Err(format!("nobody wrote {path}"));
        }
        writes.into_iter().try_for_each(|(path, writes)| self.check_value(path, &writes, shown.fields.get(path)))
    }

    /// Checks one array. Of concurrently created arrays one is shown, and the destination of each element is unknown, so those
    /// are skipped.
    fn check_array(&self, known: &[usize], array: &str, shown: &Shape) -> Result<(), String> {
        let edits = known.iter().filter_map(|number| Some((*number, self.changes[*number].arrays.get(array)?)));
        let edits: Vec<(usize, &Edited)> = edits.collect();
        if edits.iter().filter(|(_, edit)| edit.created).count() != 1 {
            return Ok(());
        }
        let Some(elements) = shown.arrays.get(array) else { return Err(format!("{array} is missing")) };
        self.check_presence(array, &edits, elements)?;
        check_order(array, &edits, elements)?;
        let mut writes: BTreeMap<&(Id, String), Vec<Given<'_>>> = BTreeMap::new();
        for (change, edit) in &edits {
            for (field, value) in &edit.fields {
                writes.entry(field).or_default().push((*change, value.as_ref()));
            }
        }
        let there: BTreeMap<&Id, &Map<String, Value>> = elements.iter().map(|(id, fields)| (id, fields)).collect();
        for ((id, field), writes) in writes {
            if let Some(fields) = there.get(id) {
                self.check_value(&format!("{field} of element {id} of {array}"), &writes, fields.get(field))?;
            }
        }
        Ok(())
    }

    /// Checks that every inserted element is present once, unless it was removed. An element edited concurrently with its
    /// removal may stay.
    fn check_presence(&self, array: &str, edits: &[(usize, &Edited)], elements: &[Element]) -> Result<(), String> {
        let mut counts: BTreeMap<&Id, usize> = BTreeMap::new();
        elements.iter().for_each(|(id, _)| *counts.entry(id).or_default() += 1);
        if let Some((id, count)) = counts.iter().find(|(_, count)| **count > 1) {
            return Err(format!("element {id} of {array} is there {count} times"));
        }
        let inserted: BTreeSet<&Id> = edits.iter().flat_map(|(_, edit)| &edit.inserted).collect();
        if let Some(id) = counts.keys().find(|id| !inserted.contains(**id)) {
            return Err(format!("nobody inserted element {id} of {array}"));
        }
        for id in inserted {
            let removals: Vec<usize> =
                edits.iter().filter(|(_, edit)| edit.removed.contains(id)).map(|(change, _)| *change).collect();
            let there = counts.contains_key(id);
            if removals.is_empty() && !there {
                return Err(format!("element {id} of {array} is missing"));
            }
            if !removals.is_empty() && there && !self.edited_meanwhile(id, &removals, edits) {
                return Err(format!("element {id} of {array} was removed and is there"));
            }
        }
        Ok(())
    }

    fn edited_meanwhile(&self, id: &Id, removals: &[usize], edits: &[(usize, &Edited)]) -> bool {
        let seen = |number: usize| removals.iter().any(|removal| self.builds_on(*removal, number));
        let edited = |edit: &Edited| edit.fields.keys().any(|(of, _)| of == id);
        edits.iter().any(|(number, edit)| !seen(*number) && edited(edit))
    }
}

/// Checks that elements keep the order in which a writer left them; no operation moves an element.
fn check_order(array: &str, edits: &[(usize, &Edited)], elements: &[Element]) -> Result<(), String> {
    let places: BTreeMap<&Id, usize> = elements.iter().enumerate().map(|(place, (id, _))| (id, place)).collect();
    for (_, edit) in edits {
        let shown: Vec<(&Id, usize)> = edit.order.iter().filter_map(|id| Some((id, *places.get(id)?))).collect();
        if let Some(pair) = shown.windows(2).find(|pair| pair[0].1 > pair[1].1) {
            return Err(format!("elements {} and {} of {array} changed places", pair[0].0, pair[1].0));
        }
    }
    Ok(())
}

/// Returns the fields that differ in `to`, and those of `from` that it lacks as `None`.
fn difference(from: &BTreeMap<String, Value>, to: &BTreeMap<String, Value>) -> BTreeMap<String, Option<Value>> {
    let set = to.iter().filter(|(path, value)| from.get(*path) != Some(value));
    let gone = from.keys().filter(|path| !to.contains_key(*path));
    set.map(|(path, value)| (path.clone(), Some(value.clone()))).chain(gone.map(|path| (path.clone(), None))).collect()
}

fn edited(from: Option<&Vec<Element>>, to: &[Element]) -> Edited {
    let mut edit = Edited { created: from.is_none(), ..Edited::default() };
    let before: BTreeMap<&Id, &Map<String, Value>> =
        from.into_iter().flatten().map(|(id, fields)| (id, fields)).collect();
    let nothing = Map::new();
    for (id, fields) in to {
        edit.order.push(id.clone());
        let old = before.get(id).copied();
        if old.is_none() {
            edit.inserted.insert(id.clone());
        }
        let old = old.unwrap_or(&nothing);
        let set = fields.iter().filter(|(name, value)| old.get(*name) != Some(value));
        edit.fields.extend(set.map(|(name, value)| ((id.clone(), name.clone()), Some(value.clone()))));
        let gone = old.keys().filter(|name| !fields.contains_key(*name));
        edit.fields.extend(gone.map(|name| ((id.clone(), name.clone()), None)));
    }
    let kept: BTreeSet<&Id> = to.iter().map(|(id, _)| id).collect();
    edit.removed = before.keys().filter(|id| !kept.contains(**id)).map(|id| (*id).clone()).collect();
    edit
}

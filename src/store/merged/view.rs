//! The visible content of a document: its JSON, and the Automerge object behind each object and array.
//!
//! Owns the choice between several values in one place. If all of them are maps, which nodes created independently, their
//! union is visible; otherwise the value with the highest operation id (counter, then actor). Both depend only on the set of
//! changes.

use std::collections::{BTreeMap, HashMap};

use automerge::iter::{DocItem, DocObjItem, ListRangeItem, MapRangeItem};
use automerge::{ObjId, ObjType, Prop, ROOT, ReadDoc, Value as Stored, ValueRef};
use serde_json::{Map, Value};

use super::scalar::{shown, unescape};
use crate::limits::JSON_NESTING_LEVELS;

/// Content of a document.
#[derive(Debug)]
pub(super) struct DocumentView {
    pub(super) root: MapNode,
    /// True if a value nests deeper than a document may; it reads as null.
    pub(super) too_deep: bool,
}

/// A visible value.
#[derive(Debug)]
pub(super) enum Node {
    Scalar(Value),
    Map(MapNode),
    List(ListNode),
}

/// An object, and the Automerge maps that it is the union of, usually one.
#[derive(Debug)]
pub(super) struct MapNode {
    /// Ids of the maps, in the order of their operations.
    pub(super) ids: Vec<ObjId>,
    pub(super) fields: BTreeMap<String, Node>,
}

/// An array, and the Automerge list behind it.
#[derive(Debug)]
pub(super) struct ListNode {
    pub(super) id: ObjId,
    pub(super) items: Vec<Node>,
}

impl DocumentView {
    /// Reads the content of `document`: the current one, or that at the heads of a transaction.
    pub(super) fn read(document: &impl ReadDoc) -> DocumentView {
        let mut reader = Reader { document, single: SINGLE_OBJECTS, gathered: None, too_deep: false };
        let root = reader.map(vec![ROOT], 1);
        DocumentView { root, too_deep: reader.too_deep }
    }
}

impl Node {
    pub(super) fn json(&self) -> Value {
        match self {
            Node::Scalar(value) => value.clone(),
            Node::Map(map) => Value::Object(map.json()),
            Node::List(list) => Value::Array(list.items.iter().map(Node::json).collect()),
        }
    }

    fn into_json(self) -> Value {
        match self {
            Node::Scalar(value) => value,
            Node::Map(map) => Value::Object(map.into_json()),
            Node::List(list) => Value::Array(list.items.into_iter().map(Node::into_json).collect()),
        }
    }
}

impl MapNode {
    /// Returns the root of a document for a flat edit ([`super::edit::is_flat`]): each value in it stays, goes or is replaced,
    /// so the document need not be read.
    pub(super) fn flat(shown: Map<String, Value>) -> MapNode {
        MapNode { ids: vec![ROOT], fields: shown.into_iter().map(|(key, value)| (key, Node::Scalar(value))).collect() }
    }

    pub(super) fn json(&self) -> Map<String, Value> {
        self.fields.iter().map(|(key, node)| (key.clone(), node.json())).collect()
    }

    pub(super) fn into_json(self) -> Map<String, Value> {
        self.fields.into_iter().map(|(key, node)| (key, node.into_json())).collect()
    }
}

/// One of the values in a place.
struct Candidate {
    id: ObjId,
    value: Found,
}

/// A stored value, with its content not read yet.
enum Found {
    Scalar(Value),
    Object(ObjType),
}

impl Found {
    fn is_map(&self) -> bool {
        matches!(self, Found::Object(ObjType::Map))
    }
}

impl From<ValueRef<'_>> for Found {
    fn from(value: ValueRef<'_>) -> Found {
        match value {
            // An abandoned type: Automerge creates such objects, but neither reads nor writes in them.
            ValueRef::Object(ObjType::Table) => Found::Scalar(Value::Null),
            ValueRef::Object(kind) => Found::Object(kind),
            ValueRef::Scalar(scalar) => Found::Scalar(shown(&scalar)),
        }
    }
}

impl From<Stored<'_>> for Found {
    fn from(value: Stored<'_>) -> Found {
        match value {
            Stored::Object(kind) => ValueRef::Object(kind).into(),
            Stored::Scalar(scalar) => Found::Scalar(shown(&scalar.into_owned().into())),
        }
    }
}

/// A place in a map or list, with the value of the highest operation id.
struct Item {
    place: Prop,
    winner: Candidate,
    /// True if there are other values in the place.
    conflict: bool,
}

impl From<MapRangeItem<'_>> for Item {
    fn from(item: MapRangeItem<'_>) -> Item {
        let winner = Candidate { id: item.id(), value: item.value.into() };
        Item { winner, place: Prop::Map(item.key.into_owned()), conflict: item.conflict }
    }
}

impl From<ListRangeItem<'_>> for Item {
    fn from(item: ListRangeItem<'_>) -> Item {
        let winner = Candidate { id: item.id(), value: item.value.into() };
        Item { winner, place: Prop::Seq(item.index), conflict: item.conflict }
    }
}

/// Number of objects that are read one by one, which suits small documents. Beyond it the whole document is read in one pass,
/// which costs more at first and much less for each object.
const SINGLE_OBJECTS: usize = 4;

struct Reader<'a, D> {
    document: &'a D,
    /// Number of objects that may still be read one by one.
    single: usize,
    /// Items of the objects not taken yet, once the document has been read in one pass.
    gathered: Option<HashMap<ObjId, Vec<Item>>>,
    too_deep: bool,
}

impl<D: ReadDoc> Reader<'_, D> {
    /// Returns the items of a map or list that is the winner in its place.
    fn items(&mut self, id: &ObjId, kind: ObjType) -> Vec<Item> {
        if self.single > 0 {
            self.single -= 1;
            return match kind {
                ObjType::List => self.document.list_range(id, ..).map(Item::from).collect(),
                _ => self.document.map_range(id, ..).map(Item::from).collect(),
            };
        }
        self.gathered().remove(id).unwrap_or_default()
    }

    /// Returns the items of a map that may not be the winner in its place. Everything in it is gathered too, because no
    /// winners lead to it from the root; its content is not read one by one.
    fn united_items(&mut self, id: &ObjId) -> Vec<Item> {
        self.single = 0;
        let document = self.document;
        let gathered = self.gathered();
        if !gathered.contains_key(id) {
            gather(document, id, gathered);
        }
        gathered.remove(id).unwrap_or_default()
    }

    fn gathered(&mut self) -> &mut HashMap<ObjId, Vec<Item>> {
        self.gathered.get_or_insert_with(|| {
            let mut all = HashMap::new();
            gather(self.document, &ROOT, &mut all);
            all
        })
    }

    /// Returns the union of the maps `ids`, at this level of nesting.
    fn map(&mut self, ids: Vec<ObjId>, level: usize) -> MapNode {
        let fields = match ids.as_slice() {
            [id] => self.fields(id, level),
            ids => self.united_fields(ids, level),
        };
        MapNode { ids, fields }
    }

    fn fields(&mut self, id: &ObjId, level: usize) -> BTreeMap<String, Node> {
        let items = self.items(id, ObjType::Map);
        let field = |item: Item| (key(&item.place), self.item(id, item, level));
        items.into_iter().map(field).collect()
    }

    fn united_fields(&mut self, ids: &[ObjId], level: usize) -> BTreeMap<String, Node> {
        let mut united: BTreeMap<String, Vec<Candidate>> = BTreeMap::new();
        for id in ids {
            for item in self.united_items(id) {
                united.entry(key(&item.place)).or_default().extend(self.candidates(id, item));
            }
        }
        united.into_iter().map(|(key, candidates)| (key, self.resolve(candidates, level))).collect()
    }

    fn list(&mut self, id: ObjId, level: usize) -> ListNode {
        let items = self.items(&id, ObjType::List);
        let items = items.into_iter().map(|item| self.item(&id, item, level)).collect();
        ListNode { id, items }
    }

    fn item(&mut self, parent: &ObjId, item: Item, level: usize) -> Node {
        if !item.conflict {
            return self.one(item.winner, level);
        }
        let candidates = self.candidates(parent, item);
        self.resolve(candidates, level)
    }

    /// Returns all values in the place of `item`.
    fn candidates(&self, parent: &ObjId, item: Item) -> Vec<Candidate> {
        if !item.conflict {
            return vec![item.winner];
        }
        let all = self.document.get_all(parent, item.place).unwrap_or_default();
        all.into_iter().map(|(value, id)| Candidate { id, value: value.into() }).collect()
    }

    /// Returns the visible one of several values.
    fn resolve(&mut self, mut candidates: Vec<Candidate>, level: usize) -> Node {
        candidates.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        if candidates.len() > 1 && candidates.iter().all(|candidate| candidate.value.is_map()) {
            let ids = candidates.into_iter().map(|candidate| candidate.id).collect();
            return self.nest(level, |reader, level| Node::Map(reader.map(ids, level)));
        }
        match candidates.pop() {
            Some(winner) => self.one(winner, level),
            None => Node::Scalar(Value::Null),
        }
    }

    /// Returns the only value that counts in its place.
    fn one(&mut self, Candidate { id, value }: Candidate, level: usize) -> Node {
        match value {
            Found::Scalar(value) => Node::Scalar(value),
            Found::Object(ObjType::Map | ObjType::Table) => {
                self.nest(level, |reader, level| Node::Map(reader.map(vec![id], level)))
            }
            Found::Object(ObjType::List) => self.nest(level, |reader, level| Node::List(reader.list(id, level))),
            Found::Object(ObjType::Text) => Node::Scalar(Value::String(self.document.text(&id).unwrap_or_default())),
        }
    }

    /// Reads a container inside one at `level`, unless it would be too deep.
    fn nest(&mut self, level: usize, read: impl FnOnce(&mut Self, usize) -> Node) -> Node {
        if level < JSON_NESTING_LEVELS {
            return read(self, level + 1);
        }
        self.too_deep = true;
        Node::Scalar(Value::Null)
    }
}

/// Adds the items of an object and of everything that winners lead to from it.
fn gather(document: &impl ReadDoc, from: &ObjId, into: &mut HashMap<ObjId, Vec<Item>>) {
    for DocObjItem { obj, item } in document.iter_at(from, None) {
        let item = match item {
            DocItem::Map(item) => item.into(),
            DocItem::List(item) => item.into(),
            DocItem::Text(_) => continue,
        };
        match into.get_mut(obj.as_ref()) {
            Some(items) => items.push(item),
            None => drop(into.insert(obj.as_ref().clone(), vec![item])),
        }
    }
}

/// Returns the visible key of a place in a map.
fn key(place: &Prop) -> String {
    match place {
        Prop::Map(key) => unescape(key).to_owned(),
        Prop::Seq(index) => index.to_string(),
    }
}

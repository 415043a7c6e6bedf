//! Documents that replicate unlike others: in a collection that is `latest` on some nodes only, larger than a link carries, and
//! with long keys.

use std::collections::BTreeSet;
use std::time::Duration;

use automerge::transaction::{CommitOptions, Transactable as _};
use automerge::{ActorId, AutoCommit, ROOT};
use peat_node::identity::EndpointId;
use peat_node::limits::RECORD_BYTES;
use peat_node::store::{
    Apply, Body, Dot, Dots, Error, Incoming, Key, KeyHash, Kind, Lineage, Merged, PeerRun, Put, RunId, Snapshot,
    StoreRequest,
};
use serde_json::{Map, Value, json};

use crate::faults::Fault;
use crate::mesh::world::World;
use crate::mesh::{Mail, Role};
use crate::seeds::Violation;

/// Collection that is `latest` on some nodes only, in worlds that have one.
pub const MIXED: &str = "mixed";
/// Collection of the document that is too large for any link.
pub const LARGE: &str = "large";
/// Size of each of its two fields, in bytes; together they exceed the limit of a link.
const FIELD_BYTES: usize = RECORD_BYTES / 2 + 1;
/// Size of the largest document, in bytes, that a subscriber compares; of larger ones it compares the presence.
pub const SHOWN_BYTES: usize = 1 << 20;

/// Number of fields that one patch of the document with long keys changes, and the length of a key in bytes.
const LONG_KEYS: u64 = 8;
const LONG_KEY_BYTES: usize = 1_000;

/// Returns the key of the document with long keys.
pub fn long_key() -> Key {
    Key::new("notes", "long").expect("a valid key")
}

pub fn large_key() -> Key {
    Key::new(LARGE, "big").expect("a valid key")
}

/// Returns the document of [`MIXED`] that nodes of this kind keep and the others delete.
fn kept(kind: &str) -> Key {
    Key::new(MIXED, kind).expect("a valid key")
}

/// Returns the documents that may differ between nodes.
pub fn apart(has_large: bool) -> BTreeSet<KeyHash> {
    let mixed = ["latest", "merged"].map(|kind| kept(kind).hash());
    mixed.into_iter().chain(has_large.then(|| large_key().hash())).collect()
}

impl World {
    /// Returns the kind of [`MIXED`] on a node.
    fn kind_of_mixed(&self, number: usize) -> &'static str {
        if self.plan.mixed_latest.contains(&number) { "latest" } else { "merged" }
    }

    fn put_mixed(&mut self, number: usize, kind: &str, put: Put) -> Result<(), Violation> {
        self.tally.count(Fault::MixedKinds);
        let mail = self.clients[number].write(kept(kind), put, false);
        self.post(number, Role::Api, Role::Store, mail)
    }

    fn of_own_kind(&mut self, number: usize) -> Put {
        let json = json!({ "kind": self.kind_of_mixed(number), "mark": self.next_mark() });
        Put::Whole { json: json.to_string(), base: None }
    }

    /// Writes one of the unusual documents.
    pub fn write_odd(&mut self, number: usize) -> Result<(), Violation> {
        if self.nodes[number].running.is_none() || self.is_stopped(number) {
            return Ok(());
        }
        if self.plan.is_mixed() && self.random.chance(400) {
            let kind = *self.random.pick(&["latest", "merged"]);
            let deletes = kind != self.kind_of_mixed(number) && self.random.chance(400);
            let put = if deletes { Put::Delete } else { self.of_own_kind(number) };
            self.put_mixed(number, kind, put)?;
        }
        if self.plan.long_keys && self.random.chance(200) {
            self.tally.count(Fault::LongKeys);
            let mark = self.next_mark();
            let field = |at: u64| (format!("{at:0>LONG_KEY_BYTES$}"), Value::from(mark));
            let fields: Map<String, Value> = (0..LONG_KEYS).map(field).collect();
            let mail = self.clients[number].write(long_key(), Put::Fields(fields), false);
            self.post(number, Role::Api, Role::Store, mail)?;
        }
        Ok(())
    }

    /// Writes, on every node, the document that its kind keeps, and deletes the other one.
    pub fn write_mixed_last(&mut self, deletes: bool) -> Result<(), Violation> {
        for number in self.core.clone() {
            let own = self.kind_of_mixed(number);
            let other = if own == "latest" { "merged" } else { "latest" };
            let put = self.of_own_kind(number);
            self.put_mixed(number, own, put)?;
            let put = if deletes { Put::Delete } else { self.of_own_kind(number) };
            self.put_mixed(number, other, put)?;
        }
        Ok(())
    }

    /// Describes a violation in the documents of [`MIXED`]: one is missing on a node of its own kind, one came from a node of
    /// the other kind, or linked nodes of a kind disagree.
    pub fn mixed_up(&self, snapshots: &[Snapshot]) -> Result<Option<String>, Error> {
        let nodes: Vec<_> = self.core.iter().copied().zip(snapshots).collect();
        for (number, snapshot) in &nodes {
            let own = self.kind_of_mixed(*number);
            for kind in ["latest", "merged"] {
                match snapshot.document(&kept(kind))? {
                    Some(document) if !document.json.contains(&format!(r#""kind":"{own}""#)) => {
                        return Ok(Some(format!("node {number}, {own}: {kind} is {}", document.json)));
                    }
                    None if kind == own => return Ok(Some(format!("node {number}: {kind} is gone"))),
                    _ => {}
                }
            }
        }
        let pairs = nodes.iter().flat_map(|one| nodes.iter().map(move |other| (one, other)));
        let alike = |one: usize, other: usize| {
            self.plan.are_linked(one, other) && self.kind_of_mixed(one) == self.kind_of_mixed(other)
        };
        for ((one, left), (other, right)) in pairs.filter(|((one, _), (other, _))| alike(*one, *other)) {
            for kind in ["latest", "merged"] {
                let read = |snapshot: &Snapshot| snapshot.document(&kept(kind)).map(|it| it.map(|it| it.json));
                let (left, right) = (read(left)?, read(right)?);
                if left != right {
                    return Ok(Some(format!("{kind}: node {one} has {left:?}, node {other} {right:?}")));
                }
            }
        }
        Ok(None)
    }

    /// Stores a document on a node that is too large for any link, as if two other nodes had each written half of it.
    pub fn bring_large(&mut self, number: usize) -> Result<(), Violation> {
        self.tally.count(Fault::TooLarge);
        let third = EndpointId([0x33; 32]);
        let Some(running) = &self.nodes[number].running else { return Ok(()) };
        let into = running.store.run();
        for writer in [1, 2] {
            let dot = Dot { writer: [writer; 8], incarnation: 1 };
            let incoming = Incoming {
                hash: large_key().hash(),
                name: Some(large_key()),
                kind: Kind::Merged,
                incarnation: 1,
                origin: third,
                lineage: Lineage { dots: Dots::one(dot), ..Lineage::default() },
                body: Body::Merged(Merged { chunks: half(writer), heads: Vec::new() }),
            };
            let from = PeerRun { node: third, run: RunId([0x33; 16]) };
            let (documents, excluded) = (vec![incoming], BTreeSet::new());
            let apply = Apply { from, into, documents, cursors: Vec::new(), flush: true, excluded };
            let mail = self.clients[number].submit(StoreRequest::Apply(apply));
            self.post(number, Role::Api, Role::Store, mail)?;
        }
        self.large = Some(number);
        Ok(())
    }

    /// Replaces the large document by a small one.
    pub fn shorten_large(&mut self, number: usize) -> Result<(), Violation> {
        self.large = None;
        let put = Put::Whole { json: r#"{"short":true}"#.into(), base: None };
        let mail: Mail = self.clients[number].write(large_key(), put, false);
        self.post(number, Role::Api, Role::Store, mail)
    }

    /// Returns true if the node holds the version of the large document that `holder` has: its halves were written one after the
    /// other, so a link may have carried each by itself.
    fn has_large(&self, number: usize, holder: usize) -> bool {
        let version = |number: usize| {
            let snapshot = self.nodes[number].running.as_ref()?.store.reader().snapshot().ok()?;
            Some(snapshot.document(&large_key()).ok()??.version)
        };
        version(number).is_some_and(|version_here| Some(version_here) == version(holder))
    }

    /// Describes a node that should name the document in its health and does not, or the reverse.
    pub fn large_unnamed(&self, holder: usize, is_named: bool) -> Option<String> {
        let name = format!("document {}", large_key());
        let lacks = |number: usize| self.plan.are_linked(number, holder) && !self.has_large(number, holder);
        let concerned = |number: &&usize| {
            if !is_named {
                **number == holder || self.plan.are_linked(**number, holder)
            } else if **number == holder {
                self.core.iter().any(|other| lacks(*other))
            } else {
                lacks(**number)
            }
        };
        let wrong = self
            .core
            .iter()
            .filter(concerned)
            .find(|number| self.nodes[**number].notices.iter().any(|notice| notice.contains(&name)) != is_named);
        wrong.map(|number| format!("health of node {number}: {:?}", self.nodes[*number].notices))
    }
}

/// Returns a document with one long field.
fn half(writer: u8) -> Vec<u8> {
    let mut document = AutoCommit::new().with_actor(ActorId::from([writer; 16]));
    let text = char::from(b'a' + writer).to_string().repeat(FIELD_BYTES);
    document.put(ROOT, format!("f{writer}"), text).expect("a put");
    document.commit_with(CommitOptions::default().with_time(1));
    document.save_nocompress()
}

/// Time within which a node must name a document that does not replicate, or stop naming it.
pub const NAMED_WITHIN: Duration = Duration::from_secs(60);

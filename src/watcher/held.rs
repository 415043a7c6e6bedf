//! Documents of the agent that the node holds, and the changes that make them equal to the agent's answers.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::{Documents, Question};
use crate::store::Key;

/// Keys that change all the time and are therefore no reason to write.
const VOLATILE: [&str; 2] = ["last_seen", "system_time"];

/// A read from the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Read {
    /// Every document of the agent: its platform, and the documents of `deployments` and `packages` with an id that begins with
    /// the agent's id and a colon.
    Everything,
    /// These documents, if they exist.
    These(Vec<Key>),
}

/// Documents as the node holds them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct StoredDocuments(pub BTreeMap<Key, HeldDocument>);

/// Document as the node holds it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeldDocument {
    /// Content of the document.
    pub fields: Map<String, Value>,
    /// Version of the document, the base of a conditional put.
    pub version: Vec<u8>,
}

/// A change to one document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum WatchedWrite {
    /// Replace the content. With a base, only if that is the version the node holds.
    Put { key: Key, fields: Map<String, Value>, base: Option<Vec<u8>> },
    /// Delete the document.
    Delete(Key),
}

impl WatchedWrite {
    /// Returns the key of the document.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            WatchedWrite::Put { key, .. } | WatchedWrite::Delete(key) => key,
        }
    }
}

impl StoredDocuments {
    /// Removes documents that only look like the agent's: `a:1:x` may belong to agent `a:1` and not to `a`.
    pub(super) fn of_agent(mut self, agent: &str) -> StoredDocuments {
        let says = |fields: &Map<String, Value>| fields.get("agent_id").and_then(Value::as_str) == Some(agent);
        self.0.retain(|key, held| is_platform(key) || says(&held.fields));
        self
    }

    /// Returns the write of the platform, if it changed or must be refreshed. Keys that the agent's status lacks are kept,
    /// because other clients wrote them.
    pub(super) fn platform(
        &self,
        key: &Key,
        said: &Map<String, Value>,
        refresh: bool,
        last_seen: i64,
    ) -> Option<WatchedWrite> {
        let held = self.0.get(key);
        let unchanged = held.is_some_and(|held| {
            said.iter().all(|(name, value)| VOLATILE.contains(&name.as_str()) || held.fields.get(name) == Some(value))
        });
        if unchanged && !refresh {
            return None;
        }
        let mut fields = held.map(|held| held.fields.clone()).unwrap_or_default();
        fields.extend(said.clone());
        fields.insert("last_seen".into(), last_seen.into());
        Some(WatchedWrite::Put { key: key.clone(), fields, base: held.map(|held| held.version.clone()) })
    }

    /// Returns the writes that make the collection of `question` equal to `said`.
    pub(super) fn changes(&self, question: Question, said: Documents, last_seen: i64) -> Vec<WatchedWrite> {
        let mut writes: Vec<WatchedWrite> = Vec::new();
        for key in self.0.keys().filter(|key| key.collection() == question.collection() && !said.contains_key(key)) {
            writes.push(WatchedWrite::Delete(key.clone()));
        }
        for (key, mut fields) in said {
            if self.0.get(&key).is_some_and(|held| same(&held.fields, &fields)) {
                continue;
            }
            fields.insert("last_seen".into(), last_seen.into());
            writes.push(WatchedWrite::Put { key, fields, base: None });
        }
        writes
    }

    /// Records a write that was carried out.
    pub(super) fn note(&mut self, write: WatchedWrite, version: Vec<u8>) {
        match write {
            WatchedWrite::Put { key, fields, .. } => _ = self.0.insert(key, HeldDocument { fields, version }),
            WatchedWrite::Delete(key) => _ = self.0.remove(&key),
        }
    }
}

fn is_platform(key: &Key) -> bool {
    key.collection() == Question::Status.collection()
}

/// Returns true if both have the same content, apart from the volatile keys.
fn same(held: &Map<String, Value>, said: &Map<String, Value>) -> bool {
    let lasting = |fields: &Map<String, Value>| -> BTreeMap<String, Value> {
        let lasting = fields.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str()));
        lasting.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    lasting(held) == lasting(said)
}

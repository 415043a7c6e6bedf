//! What the node holds of the agent, and what must change for it to hold what the agent says.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::answer::{Documents, Question};
use crate::store::Key;

/// Keys that change all the time and are no reason to write.
const VOLATILE: [&str; 2] = ["last_seen", "system_time"];

/// What is to be read from the node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Read {
    /// Every document of the agent: its platform, and those of `deployments` and `packages` whose id begins with its id and
    /// a colon.
    Everything,
    /// These, as far as they exist.
    These(Vec<Key>),
}

/// Documents as the node holds them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Held(pub BTreeMap<Key, HeldDocument>);

/// One of them.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct HeldDocument {
    /// Its content.
    pub fields: Map<String, Value>,
    /// Its version.
    pub version: Vec<u8>,
}

/// A change to one document.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Write {
    /// Make it this. With a base: only if that is what the node holds.
    Put { key: Key, fields: Map<String, Value>, base: Option<Vec<u8>> },
    /// Delete it.
    Delete(Key),
}

impl Write {
    /// Which document.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Write::Put { key, .. } | Write::Delete(key) => key,
        }
    }
}

impl Held {
    /// Leaves out what only looks like the agent's: `a:1:x` may belong to agent `a:1`, and not to `a`.
    pub(super) fn of_agent(mut self, agent: &str) -> Held {
        let says = |fields: &Map<String, Value>| fields.get("agent_id").and_then(Value::as_str) == Some(agent);
        self.0.retain(|key, held| is_platform(key) || says(&held.fields));
        self
    }

    /// The platform as it is to be written. Keys the agent's status does not have are kept: they are somebody else's.
    pub(super) fn platform(
        &self,
        key: &Key,
        said: &Map<String, Value>,
        refresh: bool,
        last_seen: i64,
    ) -> Option<Write> {
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
        Some(Write::Put { key: key.clone(), fields, base: held.map(|held| held.version.clone()) })
    }

    /// What must change in the collection of `question` for it to be `said`.
    pub(super) fn changes(&self, question: Question, said: Documents, last_seen: i64) -> Vec<Write> {
        let mut writes: Vec<Write> = Vec::new();
        for key in self.0.keys().filter(|key| key.collection() == question.collection() && !said.contains_key(key)) {
            writes.push(Write::Delete(key.clone()));
        }
        for (key, mut fields) in said {
            if self.0.get(&key).is_some_and(|held| same(&held.fields, &fields)) {
                continue;
            }
            fields.insert("last_seen".into(), last_seen.into());
            writes.push(Write::Put { key, fields, base: None });
        }
        writes
    }

    /// A write was carried out.
    pub(super) fn note(&mut self, write: Write, version: Vec<u8>) {
        match write {
            Write::Put { key, fields, .. } => _ = self.0.insert(key, HeldDocument { fields, version }),
            Write::Delete(key) => _ = self.0.remove(&key),
        }
    }
}

fn is_platform(key: &Key) -> bool {
    key.collection() == Question::Status.collection()
}

/// Whether the held document says the same, whenever it was written.
fn same(held: &Map<String, Value>, said: &Map<String, Value>) -> bool {
    let lasting = |fields: &Map<String, Value>| -> BTreeMap<String, Value> {
        let lasting = fields.iter().filter(|(name, _)| !VOLATILE.contains(&name.as_str()));
        lasting.map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    lasting(held) == lasting(said)
}

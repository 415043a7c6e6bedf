//! Documents of an agent's state, `platforms/{agent_id}` and `deployments/{agent_id}:{name}`, and the queue of their writes.
//!
//! A document has at most one write in progress and one waiting, into which later changes are merged. The executor of a write
//! compares it with the stored document first, so an unchanged state costs no write.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use peat_ipc::agent::{Capacity, Workload};
use peat_ipc::sidecar::PlatformStatus;
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value, json};

use super::profile::object;
use crate::limits::AGENT_PENDING_BYTES;
use crate::store::{Key, KeyError};

/// Delay before the next attempt after the disk failed.
pub(super) const RETRY: Duration = Duration::from_secs(5);

/// Change to one document.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Replace the content by this JSON.
    Whole(String),
    /// Set these keys, and remove those that are null.
    Fields(Map<String, Value>),
    /// Delete the document.
    Delete,
}

/// Returns true if `change` would change a document with the content `held`.
#[must_use]
pub fn changes(change: &Change, held: Option<&str>) -> bool {
    match (change, held) {
        (Change::Delete, held) => held.is_some(),
        (Change::Whole(_), _) => true,
        (Change::Fields(fields), None) => fields.values().any(|value| !value.is_null()),
        (Change::Fields(fields), Some(held)) => {
            let held: Map<String, Value> = serde_json::from_str(held).unwrap_or_default();
            fields.iter().any(|(key, value)| match held.get(key) {
                None => !value.is_null(),
                Some(held) => !same(held, value),
            })
        }
    }
}

/// Compares JSON values, numbers by value and not by spelling: 1 equals 1.0.
fn same(held: &Value, wanted: &Value) -> bool {
    match (held, wanted) {
        (Value::Number(held), Value::Number(wanted)) => held == wanted || held.as_f64() == wanted.as_f64(),
        (Value::Object(held), Value::Object(wanted)) => {
            held.len() == wanted.len()
                && wanted.iter().all(|(key, value)| held.get(key).is_some_and(|held| same(held, value)))
        }
        _ => held == wanted,
    }
}

/// Returns the key `platforms/{agent}`.
pub(super) fn platform_key(agent: &str) -> Result<Key, KeyError> {
    Key::new("platforms", agent)
}

/// Returns the key `deployments/{agent}:{name}`.
pub(super) fn deployment_key(agent: &str, name: &str) -> Result<Key, KeyError> {
    match name {
        "" => Err(KeyError::Empty("workload's name")),
        name => Key::new("deployments", format!("{agent}:{name}")),
    }
}

/// Returns the keys of a platform that an agent's state sets.
pub(super) fn platform_fields(
    agent: &str,
    status: i32,
    labels: &BTreeMap<String, String>,
    capacity: Option<&Capacity>,
) -> Result<Map<String, Value>, CallError> {
    let mut fields = Map::from_iter([("agent_id".to_owned(), agent.into())]);
    if status != 0 {
        let status = PlatformStatus::try_from(status).map_err(|_| {
            CallError::new(Code::InvalidArgument, format!("state.status {status} is no PlatformStatus"))
        })?;
        fields.insert("status".into(), status.as_str_name().into());
    }
    if !labels.is_empty() {
        fields.insert("labels".into(), object(labels));
    }
    if let Some(capacity) = capacity {
        fields.insert("capacity".into(), capacity_value(capacity)?);
    }
    Ok(fields)
}

fn capacity_value(capacity: &Capacity) -> Result<Value, CallError> {
    if !capacity.cpu_used.is_finite() || !capacity.cpu_total.is_finite() {
        return Err(CallError::new(Code::InvalidArgument, "capacity: cpu is not a finite number"));
    }
    Ok(json!({
        "cpu_used": capacity.cpu_used,
        "cpu_total": capacity.cpu_total,
        "memory_used_bytes": capacity.memory_used_bytes,
        "memory_total_bytes": capacity.memory_total_bytes,
        "disk_used_bytes": capacity.disk_used_bytes,
        "disk_total_bytes": capacity.disk_total_bytes,
    }))
}

/// Returns the keys of a deployment that a workload sets. Empty labels are null, which removes earlier ones.
pub(super) fn deployment_fields(agent: &str, workload: &Workload) -> Map<String, Value> {
    let mut fields = Map::from_iter([
        ("agent_id".to_owned(), Value::from(agent)),
        ("package".to_owned(), workload.name.as_str().into()),
        ("version".to_owned(), workload.version.as_str().into()),
        ("status".to_owned(), workload.status.as_str().into()),
    ]);
    let labels = workload.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str())));
    let labels: Map<String, Value> = labels.collect();
    fields.insert("labels".into(), if labels.is_empty() { Value::Null } else { labels.into() });
    fields
}

/// Queue of writes that wait, and the keys of those in progress.
#[derive(Debug, Default)]
pub(super) struct Writes {
    waiting: BTreeMap<Key, Change>,
    /// Keys in `waiting` without a write in progress, in order of arrival.
    ready: VecDeque<Key>,
    flying: BTreeMap<Key, Change>,
    bytes: usize,
    retry_at: Option<Instant>,
}

impl Writes {
    /// Checks that more state may be queued.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: too many bytes wait for the store.
    pub(super) fn check_room(&self) -> Result<(), CallError> {
        if self.bytes <= AGENT_PENDING_BYTES {
            return Ok(());
        }
        let message =
            format!("{} bytes of agents' state wait to be stored; the limit is {AGENT_PENDING_BYTES}", self.bytes);
        Err(CallError::new(Code::ResourceExhausted, message))
    }

    pub(super) fn add(&mut self, key: Key, change: Change) {
        let change = match self.waiting.remove(&key) {
            Some(earlier) => {
                self.bytes = self.bytes.saturating_sub(weight(&key, &earlier));
                merge(earlier, change)
            }
            None => {
                if !self.flying.contains_key(&key) {
                    self.ready.push_back(key.clone());
                }
                change
            }
        };
        self.bytes += weight(&key, &change);
        self.waiting.insert(key, change);
    }

    /// Iterates over the deployments of an agent that will exist after the queued writes and those in progress.
    pub(super) fn deployments_of<'a>(&'a self, agent: &'a str) -> impl Iterator<Item = Key> + 'a {
        let prefix = format!("{agent}:");
        let all = self.flying.iter().chain(&self.waiting);
        let kept = all.filter(|(_, change)| !matches!(change, Change::Delete));
        kept.filter(move |(key, _)| key.collection() == "deployments" && key.id().starts_with(&prefix))
            .map(|(key, _)| key.clone())
    }

    /// Returns the next write to carry out.
    pub(super) fn poll(&mut self) -> Option<(Key, Change)> {
        if self.retry_at.is_some() {
            return None;
        }
        let key = self.ready.pop_front()?;
        let change = self.waiting.remove(&key)?;
        self.flying.insert(key.clone(), change.clone());
        Some((key, change))
    }

    /// Completes a write. With `again` the disk failed, and the write is queued for a later attempt.
    pub(super) fn ended(&mut self, now: Instant, key: &Key, again: bool) {
        let Some(change) = self.flying.remove(key) else { return };
        self.bytes = self.bytes.saturating_sub(weight(key, &change));
        let later = self.waiting.remove(key);
        if let Some(later) = &later {
            self.bytes = self.bytes.saturating_sub(weight(key, later));
        }
        // After a disk failure the change is queued again, under any later one.
        let left = match (again, later) {
            (true, Some(later)) => Some(merge(change, later)),
            (true, None) => Some(change),
            (false, later) => later,
        };
        if again {
            self.retry_at = Some(now + RETRY);
        }
        left.into_iter().for_each(|change| self.add(key.clone(), change));
    }

    /// Ends the pause after a disk failure once it has passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.retry_at = self.retry_at.filter(|at| *at > now);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.retry_at
    }
}

/// Merges two changes into one.
fn merge(earlier: Change, later: Change) -> Change {
    match (earlier, later) {
        (Change::Fields(mut fields), Change::Fields(later)) => {
            fields.extend(later);
            Change::Fields(fields)
        }
        (_, later) => later,
    }
}

fn weight(key: &Key, change: &Change) -> usize {
    let content = match change {
        Change::Whole(json) => json.len(),
        Change::Fields(fields) => size(fields),
        Change::Delete => 0,
    };
    key.id().len() + content + 64
}

/// Estimates the bytes in memory.
fn size(fields: &Map<String, Value>) -> usize {
    fn value_size(value: &Value) -> usize {
        match value {
            Value::String(text) => text.len() + 24,
            Value::Object(map) => size(map),
            Value::Array(items) => items.iter().map(value_size).sum(),
            _ => 24,
        }
    }
    fields.iter().map(|(key, value)| key.len() + 24 + value_size(value)).sum()
}

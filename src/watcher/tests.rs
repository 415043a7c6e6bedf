//! The watcher in virtual time, over a stand-in agent and a stand-in node.

mod documents;
mod schedule;
mod spelling;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::held::HeldDocument;
use super::*;
use crate::clock::Now;
use crate::store::Key;

const POLL: Duration = Duration::from_secs(10);
const HEARTBEAT: Duration = Duration::from_secs(30);

/// A watcher, the agent it queries, and the node it writes to.
struct World {
    watcher: Watcher,
    now: Now,
    /// Answers of the agent; it does not answer other questions.
    answers: BTreeMap<Question, String>,
    documents: BTreeMap<Key, HeldDocument>,
    versions: u64,
    /// True while the agent pushes by itself.
    pushes: bool,
    /// Document that the node refuses to write.
    refused: Option<Key>,
    written: Vec<String>,
    reads: Vec<Read>,
    notes: Vec<String>,
}

impl World {
    fn new() -> World {
        #[expect(clippy::disallowed_methods, reason = "an origin for virtual time")]
        let now = Now { mono: Instant::now(), wall_ms: 1_000_000, boot_ms: 0 };
        let config = WatcherConfig {
            agent: "a1".into(),
            address: "http://agent".into(),
            poll_interval: POLL,
            heartbeat: HEARTBEAT,
        };
        let mut world = World {
            watcher: Watcher::new(config, now).expect("a usable id"),
            now,
            answers: BTreeMap::new(),
            documents: BTreeMap::new(),
            versions: 0,
            pushes: false,
            refused: None,
            written: Vec::new(),
            reads: Vec::new(),
            notes: Vec::new(),
        };
        world.says(Question::Status, json!({"version": "1.0", "labels": {"site": "north"}}));
        world.says(Question::Packages, json!({"packages": [{"name": "podinfo", "version": "6.4"}]}));
        world.says(Question::Pulled, json!({}));
        world
    }

    #[expect(clippy::needless_pass_by_value, reason = "tests give it what they make for it")]
    fn says(&mut self, question: Question, answer: Value) {
        self.answers.insert(question, answer.to_string());
    }

    fn is_silent(&mut self, question: Question) {
        self.answers.remove(&question);
    }

    /// Runs the next poll and returns the writes it made.
    fn poll(&mut self) -> Vec<String> {
        let wait = self.watcher.poll_deadline().saturating_duration_since(self.now.mono);
        self.pass(wait);
        self.watcher.handle_timeout(self.now);
        self.carry_out();
        std::mem::take(&mut self.written)
    }

    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.wall_ms += i64::try_from(time.as_millis()).expect("small");
    }

    fn carry_out(&mut self) {
        while let Some(task) = self.watcher.poll_task() {
            match task {
                Task::Read(read) => self.read(read),
                Task::Ask(question) => {
                    let answer = self.answers.get(&question).map(|answer| answer.clone().into_bytes());
                    self.watcher.handle_answer(self.now, question, answer.ok_or(Failure::TimedOut));
                }
                Task::Write(write) => {
                    let result = self.write(write);
                    self.watcher.handle_written(self.now, result);
                }
            }
        }
        while let Some(note) = self.watcher.poll_note() {
            self.notes.push(note.to_string());
        }
    }

    fn read(&mut self, read: Read) {
        let wanted = |key: &Key| match &read {
            Read::Everything => key.id() == "a1" || key.id().starts_with("a1:"),
            Read::These(keys) => keys.contains(key),
        };
        let held = self.documents.iter().filter(|(key, _)| wanted(key));
        self.watcher.handle_held(Ok(StoredDocuments(held.map(|(key, held)| (key.clone(), held.clone())).collect())));
        self.reads.push(read);
    }

    fn write(&mut self, write: WatchedWrite) -> Result<Vec<u8>, NotWritten> {
        if self.pushes {
            return Err(NotWritten::Pushes);
        }
        if self.refused.as_ref() == Some(write.key()) {
            return Err(NotWritten::Refused("no".into()));
        }
        match write {
            WatchedWrite::Put { key, fields, base } => {
                if base.is_some() && base.as_ref() != self.documents.get(&key).map(|held| &held.version) {
                    return Err(NotWritten::Outdated);
                }
                self.written.push(format!("put {}/{}", key.collection(), key.id()));
                self.put(key, fields)
            }
            WatchedWrite::Delete(key) => {
                self.written.push(format!("delete {}/{}", key.collection(), key.id()));
                self.documents.remove(&key);
                Ok(Vec::new())
            }
        }
    }

    fn put(&mut self, key: Key, fields: Map<String, Value>) -> Result<Vec<u8>, NotWritten> {
        self.versions += 1;
        let version = self.versions.to_be_bytes().to_vec();
        self.documents.insert(key, HeldDocument { fields, version: version.clone() });
        Ok(version)
    }

    /// Writes a document as another client of the node.
    fn somebody_puts(&mut self, collection: &str, id: &str, content: Value) {
        let Value::Object(fields) = content else { panic!("an object") };
        let _ = self.put(key(collection, id), fields);
    }

    fn document(&self, collection: &str, id: &str) -> Option<Value> {
        self.documents.get(&key(collection, id)).map(|held| held.fields.clone().into())
    }
}

fn key(collection: &str, id: &str) -> Key {
    Key::new(collection, id).expect("a usable name")
}

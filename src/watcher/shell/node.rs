//! Reads and writes on the node, as a client of the api thread.

use std::time::Duration;

use peat_ipc::sidecar::{
    ChangeType, DeleteDocumentRequest, DocumentChange, GetDocumentRequest, PutDocumentRequest, SubscribeRequest,
};
use peat_ipc::{CallError, CallOptions, Client, Code, Error};
use serde_json::{Map, Value};

use crate::store::Key;
use crate::watcher::held::HeldDocument;
use crate::watcher::{NotWritten, Question, Read, StoredDocuments, WatchedWrite};

/// Deadline of one call to the node.
const PATIENCE: CallOptions = CallOptions { deadline: Some(Duration::from_secs(60)), limit: None };

/// Connection to the node. Errors of calls go to the engine; errors of the connection end the thread.
#[derive(Debug)]
pub(super) struct Node {
    client: Client,
    agent: String,
}

impl Node {
    pub(super) fn new(client: Client, agent: String) -> Node {
        Node { client, agent }
    }

    pub(super) fn read(&mut self, read: &Read) -> Result<Result<StoredDocuments, String>, Error> {
        let held = match read {
            Read::Everything => self.read_everything(),
            Read::These(keys) => self.read_these(keys),
        };
        told(held).map(|held| held.map_err(|error| error.to_string()))
    }

    /// Reads every document of the agent from a snapshot of the collections, one by one: a list may exceed the maximum message
    /// size.
    fn read_everything(&mut self) -> Result<StoredDocuments, Error> {
        let collections = Question::ALL.map(|question| question.collection().to_owned()).to_vec();
        let request = SubscribeRequest { collections, snapshot: true, ..SubscribeRequest::default() };
        let prefix = format!("{}:", self.agent);
        let mut held = StoredDocuments::default();
        for change in self.client.subscribe(&request)? {
            let change = change?;
            if change.change_type() == ChangeType::SnapshotEnd {
                break;
            }
            let platform = change.collection == Question::Status.collection();
            let ours = if platform { change.doc_id == self.agent } else { change.doc_id.starts_with(&prefix) };
            held.0.extend(if ours { document(change) } else { None });
        }
        self.add_version(&mut held)?;
        Ok(held)
    }

    /// Adds the version of the platform, which a subscription does not contain.
    fn add_version(&mut self, held: &mut StoredDocuments) -> Result<(), Error> {
        let platform = held.0.keys().find(|key| key.collection() == Question::Status.collection()).cloned();
        let Some(platform) = platform else { return Ok(()) };
        held.0.extend(self.read_these(&[platform])?.0);
        Ok(())
    }

    fn read_these(&mut self, keys: &[Key]) -> Result<StoredDocuments, Error> {
        let mut calls = Vec::with_capacity(keys.len());
        let mut held = StoredDocuments::default();
        // Fewer than the calls that one connection may have unfinished.
        for some in keys.chunks(128) {
            for key in some {
                let request = GetDocumentRequest { collection: key.collection().into(), doc_id: key.id().into() };
                calls.push((key, self.client.start(&request)?));
            }
            for (key, call) in calls.drain(..) {
                let response = self.client.finish(call)?;
                let Some(fields) = response.json_data.and_then(|json| serde_json::from_str(&json).ok()) else {
                    continue;
                };
                held.0.insert(key.clone(), HeldDocument { fields, version: response.version });
            }
        }
        Ok(held)
    }

    pub(super) fn write(&mut self, write: &WatchedWrite) -> Result<Result<Vec<u8>, NotWritten>, Error> {
        let (collection, doc_id) = (write.key().collection().to_owned(), write.key().id().to_owned());
        let result = match write {
            WatchedWrite::Put { fields, base, .. } => {
                let json_data = Value::from(fields.clone()).to_string();
                let base = base.clone().unwrap_or_default();
                let request =
                    PutDocumentRequest { collection, doc_id, json_data, base, ..PutDocumentRequest::default() };
                self.client.call(&request, PATIENCE).map(|response| response.version)
            }
            WatchedWrite::Delete(_) => {
                self.client.call(&DeleteDocumentRequest { collection, doc_id }, PATIENCE).map(|_| Vec::new())
            }
        };
        told(result).map(|result| result.map_err(|error| not_written(&error)))
    }
}

fn not_written(error: &CallError) -> NotWritten {
    match error.code {
        Code::Aborted => NotWritten::Outdated,
        // The api engine returns this code to the watcher alone, while the agent pushes by itself.
        Code::FailedPrecondition => NotWritten::Pushes,
        _ => NotWritten::Refused(error.to_string()),
    }
}

/// Separates errors of the call from errors of the connection.
fn told<T>(result: Result<T, Error>) -> Result<Result<T, CallError>, Error> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Error::Call(error)) => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

fn document(change: DocumentChange) -> Option<(Key, HeldDocument)> {
    let fields: Map<String, Value> = serde_json::from_str(&change.json_data?).ok()?;
    let key = Key::new(change.collection, change.doc_id).ok()?;
    Some((key, HeldDocument { fields, version: Vec::new() }))
}

//! A subscriber: takes a snapshot, follows, falls behind, disconnects, and resumes.

use std::collections::BTreeMap;

use peat_ipc::Code;
use peat_ipc::envelope::frame::Body;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::{ChangeType, DocumentChange, SubscribeRequest};
use peat_node::api::Engine;
use peat_node::clock::Now;
use peat_node::store::{COMMANDS, Error, Snapshot};

use crate::checkers::bounds;
use crate::mesh::odd;
use crate::mesh::wire::Wire;
use crate::prng::Prng;
use crate::seeds::{self, Violation};
use crate::workload::COLLECTIONS;

/// Byte budget of a turn that reads everything available.
pub const WHOLE: usize = 1 << 20;

/// Collections in which nodes write the state of agents.
const OF_AGENTS: [&str; 2] = ["agents", "platforms"];

/// Documents by collection and id.
pub type Documents = BTreeMap<(String, String), String>;

/// A subscriber and the documents it knows; see the module's documentation.
#[derive(Debug, Default)]
pub struct Watcher {
    wire: Option<(Wire, u64)>,
    /// Position to resume from: run and sequence number of the last change.
    token: Option<(Vec<u8>, u64)>,
    documents: Documents,
    /// The documents of a snapshot while it is being received.
    incoming: Option<Documents>,
    pub snapshots: u64,
    pub resumes: u64,
}

impl Watcher {
    /// Drops the connection: the node is off.
    pub fn cut_off(&mut self) {
        self.wire = None;
        self.incoming = None;
    }

    /// Disconnects without cancelling.
    pub fn hang_up(&mut self, engine: &mut Engine, now: Now) {
        if let Some((wire, _)) = &self.wire {
            wire.close(engine, now);
        }
        self.cut_off();
    }

    /// Connects if necessary, and reads at most `most` bytes.
    pub fn turn(
        &mut self,
        engine: &mut Engine,
        now: Now,
        id: u64,
        random: &mut Prng,
        most: usize,
    ) -> Result<(), Violation> {
        if self.wire.is_none() {
            self.subscribe(engine, now, id, random);
        }
        while self.take_some(engine, now, random, most)? && most >= WHOLE {}
        Ok(())
    }

    /// Passes bytes both ways; returns true if any arrived.
    fn take_some(&mut self, engine: &mut Engine, now: Now, random: &mut Prng, most: usize) -> Result<bool, Violation> {
        let Some((mut wire, call)) = self.wire.take() else { return Ok(false) };
        wire.exchange(engine, now, random, most);
        bounds::client(engine, wire.id())?;
        let mut came = false;
        while let Some((_, body)) = wire.next_frame() {
            came = true;
            match body {
                Body::Item(item) => {
                    let change = DocumentChange::decode(item.as_ref());
                    self.take(change.map_err(|error| Violation::new("feed", error.to_string()))?)?;
                    wire.credit(call, 1);
                }
                Body::Error(error) => {
                    self.refused(error.code, &error.message)?;
                    wire.close(engine, now);
                    return Ok(false);
                }
                other => return Err(Violation::new("feed", format!("a subscription ended with {other:?}"))),
            }
        }
        self.wire = Some((wire, call));
        Ok(came)
    }

    fn subscribe(&mut self, engine: &mut Engine, now: Now, id: u64, random: &mut Prng) {
        let Some(mut wire) = Wire::open(engine, now, id) else { return };
        let mut request = SubscribeRequest { snapshot: self.token.is_none(), ..SubscribeRequest::default() };
        match &self.token {
            Some((run, sequence)) => {
                self.resumes += 1;
                (request.resume_run, request.resume_after) = (run.clone(), *sequence);
            }
            None => {
                self.snapshots += 1;
                self.incoming = Some(Documents::new());
            }
        }
        let credit = u32::try_from(random.between(1, 20)).expect("small");
        let call = wire.call(&request, credit);
        self.wire = Some((wire, call));
    }

    fn take(&mut self, change: DocumentChange) -> Result<(), Violation> {
        let key = (change.collection.clone(), change.doc_id.clone());
        let documents = self.incoming.as_mut().unwrap_or(&mut self.documents);
        match (change.change_type(), change.json_data) {
            (ChangeType::Upsert, Some(json)) => drop(documents.insert(key, json)),
            (ChangeType::Oversized, None) => drop(documents.insert(key, String::new())),
            (ChangeType::Delete, None) => drop(documents.remove(&key)),
            (ChangeType::SnapshotEnd, None) => match self.incoming.take() {
                Some(documents) => self.documents = documents,
                None => return Err(Violation::new("feed", "a snapshot ended that nobody asked for")),
            },
            (kind, json) => return Err(Violation::new("feed", format!("a change of type {kind:?} with {json:?}"))),
        }
        if self.incoming.is_none() {
            self.token = Some((change.run, change.sequence));
        }
        Ok(())
    }

    fn refused(&mut self, code: u32, message: &str) -> Result<(), Violation> {
        self.cut_off();
        match Code::from_number(code) {
            Code::OutOfRange => self.token = None,
            Code::Unavailable | Code::ResourceExhausted => {}
            code => return Err(Violation::new("feed", format!("{code:?}: {message}"))),
        }
        seeds::trace(|| format!("a subscriber was refused: {message}"));
        Ok(())
    }

    /// Describes the difference from the node's documents, or returns `None` if there is none.
    pub fn difference(&self, snapshot: &Snapshot) -> Result<Option<String>, Error> {
        let mut there = Documents::new();
        for collection in COLLECTIONS.into_iter().chain(OF_AGENTS).chain([COMMANDS, odd::MIXED, odd::LARGE]) {
            for id in snapshot.list(collection)? {
                let key = peat_node::store::Key::new(collection, id.as_str())?;
                if let Some(document) = snapshot.document(&key)? {
                    // Of a large document the subscriber knows only the presence.
                    let json = if document.json.len() > odd::SHOWN_BYTES { String::new() } else { document.json };
                    there.insert((collection.to_owned(), id), json);
                }
            }
        }
        if self.incoming.is_some() {
            return Ok(Some("its snapshot has not ended".into()));
        }
        let keys = there.keys().chain(self.documents.keys());
        let wrong = keys.clone().find(|key| there.get(key) != self.documents.get(key));
        Ok(wrong.map(|key| {
            format!("{key:?}: saw {:?}, there is {:?}; token {:?}", self.documents.get(key), there.get(key), self.token)
        }))
    }
}

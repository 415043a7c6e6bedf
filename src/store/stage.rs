//! Staging: requests become changes of a batch, over one snapshot of the database.
//!
//! A request that fails leaves the batch as it was. What clients ask is in `write`, what peers send in `apply`.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};

use crate::clock::Now;
use crate::store::age::Clocks;
use crate::store::batch::{Batch, Pending, Staged};
use crate::store::cache::Cache;
use crate::store::copies::Copies;
use crate::store::merged::Doc;
use crate::store::{
    Body, Config, Content, Covered, Error, History, Key, KeyHash, Kind, Put, Reader, Record, Request, RunId, Snapshot,
    Submitted, Write, json,
};

/// Who writes, and what of its own past it remembers.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) config: Config,
    pub(super) run: RunId,
    /// Every listed run by the order they began.
    pub(super) runs: BTreeMap<RunId, u64>,
    /// The writer of this run's creations.
    pub(super) writer: [u8; 8],
}

impl Writer {
    /// The Automerge actor of this run in a document whose record covers these creations. Automerge numbers an actor's changes,
    /// so no actor may write to a document that has lost changes of its own. A document loses changes only when more of its
    /// creations are covered, and then the actor is another.
    pub(super) fn actor(&self, hash: &KeyHash, covered: &Covered) -> [u8; 16] {
        let mut context = Context::new(&SHA256);
        [&b"peat-actor"[..], &self.writer, &hash.0, &covered.to_bytes()].iter().for_each(|part| context.update(part));
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&self.writer);
        actor[8..].copy_from_slice(&context.finish().as_ref()[..8]);
        actor
    }
}

/// Where a stage reads what is committed.
#[derive(Debug)]
pub(super) enum Committed {
    /// In one state for the whole batch.
    At(Snapshot),
    /// In the newest state at each look, so that old pages are not held for long: for documents that nothing else changes meanwhile.
    Newest(Reader),
}

impl Committed {
    pub(super) fn look<T>(&self, look: impl FnOnce(&Snapshot) -> Result<T, Error>) -> Result<T, Error> {
        match self {
            Committed::At(snapshot) => look(snapshot),
            Committed::Newest(reader) => look(&reader.snapshot()?),
        }
    }
}

/// One batch being filled.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    pub(super) writer: &'a Writer,
    pub(super) committed: Committed,
    pub(super) cache: &'a mut Cache,
    pub(super) batch: &'a mut Batch,
    /// Signs that two machines write under one identity.
    pub(super) copies: &'a mut Copies,
    /// Sequence numbers up to this are on disk.
    pub(super) durable: u64,
    pub(super) now: Now,
    pub(super) clocks: Clocks,
}

impl Stage<'_> {
    /// Stages a request. What it did wrong becomes its answer.
    ///
    /// # Errors
    /// The disk failed: nothing can be said of the batch.
    pub(super) fn request(&mut self, submitted: Submitted) -> Result<(), Error> {
        let pending = match submitted.request {
            Request::Write(write) => self.write(write),
            Request::Apply(apply) => self.apply(apply),
            Request::SaveLink(link) => {
                self.batch.links.insert(link.peer, link.wish);
                Ok(self.settled())
            }
            Request::SaveSync(on) => {
                self.batch.sync = Some(on);
                Ok(self.settled())
            }
            Request::Flush => Ok(self.settled()),
            Request::Nothing => Ok(Pending::Done),
        };
        let pending = match pending {
            Err(cause) => Pending::Failed(cause),
            Ok(pending) => pending,
        };
        let failed = match &pending {
            Pending::Failed(Error::Io(cause)) => Err(Error::Io(cause.clone())),
            _ => Ok(()),
        };
        self.batch.answers.push((submitted.ticket, pending));
        failed
    }

    /// Bytes of merged documents that a request reads, takes apart and writes: a measure of how long it takes.
    pub(super) fn merged_bytes(&mut self, request: &Request) -> Result<usize, Error> {
        match request {
            Request::Write(Write { key, put, .. }) if self.writer.config.kind(key.collection()) == Kind::Merged => {
                let brought = match put {
                    Put::Whole { json, .. } | Put::Patch { json, .. } => json.len(),
                    _ => 0,
                };
                Ok(brought + self.held_bytes(key.hash())?)
            }
            Request::Apply(apply) => {
                let mut bytes = 0;
                for incoming in &apply.documents {
                    if let Body::Merged(merged) = &incoming.body {
                        bytes += merged.chunks.len() + self.held_bytes(incoming.hash)?;
                    }
                }
                Ok(bytes)
            }
            _ => Ok(0),
        }
    }

    /// Bytes of a merged document that is held: what it shows, and its history if that has to be loaded.
    fn held_bytes(&mut self, hash: KeyHash) -> Result<usize, Error> {
        let is_cached = self.cache.holds(&hash);
        let staged = self.load(hash)?;
        let Some(Content::Merged { json, history, .. }) = staged.record.as_ref().map(|record| &record.content) else {
            return Ok(0);
        };
        let is_loaded = staged.doc.is_some() || (staged.changed.is_none() && is_cached);
        Ok(json.len() + if is_loaded { 0 } else { history.size() })
    }

    fn settled(&mut self) -> Pending {
        self.batch.flush = true;
        Pending::Done
    }

    /// The document as the batch has it so far.
    pub(super) fn load(&mut self, hash: KeyHash) -> Result<&mut Staged, Error> {
        use std::collections::btree_map::Entry;
        match self.batch.staged.entry(hash) {
            Entry::Occupied(staged) => Ok(staged.into_mut()),
            Entry::Vacant(vacant) => {
                Ok(vacant.insert(Staged::new(self.committed.look(|snapshot| snapshot.record(&hash))?)))
            }
        }
    }

    /// Takes the loaded document of a staged `merged` record, to be written to by this run.
    pub(super) fn take_doc(&mut self, hash: KeyHash) -> Result<Doc, Error> {
        let mut doc = self.take_loaded(hash)?;
        if let Some(record) = self.batch.staged.get(&hash).and_then(|staged| staged.record.as_ref()) {
            doc.act_as(self.writer.actor(&hash, &record.lineage.covered));
        }
        Ok(doc)
    }

    /// From the batch, the cache, or its stored bytes.
    fn take_loaded(&mut self, hash: KeyHash) -> Result<Doc, Error> {
        let staged = self.batch.staged.get_mut(&hash).expect("a document is staged before it is loaded");
        if let Some(doc) = staged.doc.take() {
            return Ok(doc);
        }
        let Some(Record { incarnation, content: Content::Merged { heads, history, .. }, name, .. }) = &staged.record
        else {
            return Err(Error::Bug("only merged records have a document to load".into()));
        };
        if staged.changed.is_none()
            && let Some(doc) = self.cache.take(hash, *incarnation, heads)
        {
            return Ok(doc);
        }
        let key = name.as_ref();
        let damaged = |reason| match key {
            Some(key) => Error::History { key: key.clone(), reason },
            None => Error::Damaged(reason),
        };
        let committed = history.parts().iter().take_while(|part| part.is_committed()).count();
        let chunks = self.committed.look(|snapshot| snapshot.chunks(&history.parts()[..committed]));
        let mut chunks = chunks.map_err(|cause| match cause {
            Error::Damaged(reason) => damaged(reason),
            cause => cause,
        })?;
        chunks.extend_from_slice(history.added());
        let mut doc = Doc::load(&chunks, [0; 16]).map_err(|cause| damaged(cause.to_string()))?;
        doc.count_expansion(&chunks);
        Ok(doc)
    }

    /// Takes the content of a staged record that is about to be changed.
    pub(super) fn take_content(&mut self, hash: KeyHash) -> Option<Content> {
        self.batch.staged.get_mut(&hash)?.record.take().map(|record| record.content)
    }

    /// Makes the answer to a request that found what it wanted in place wait until that is on disk.
    pub(super) fn await_flush_of(&mut self, hash: KeyHash) {
        let Some(staged) = self.batch.staged.get_mut(&hash) else { return };
        staged.awaited = true;
        let on_disk = match (&staged.before, staged.changed) {
            (Some(before), None) => before.sequence <= self.durable,
            (None, None) => true,
            (_, Some(_)) => false,
        };
        self.batch.flush |= !on_disk;
    }
}

/// The content of a `merged` record from its changed document: what is new since `before` (`news`, when known), or everything
/// anew once that is shorter.
pub(super) fn merged_content(doc: &Doc, before: Option<Content>, news: Option<Vec<u8>>) -> Content {
    let json = json::to_text(doc.json());
    let grown = match before {
        Some(Content::Merged { heads, mut history, .. }) => {
            history.add(&news.unwrap_or_else(|| doc.changes_after(&heads)));
            Some(history).filter(|history| !history.is_long())
        }
        _ => None,
    };
    Content::Merged { heads: doc.heads(), json, history: grown.unwrap_or_else(|| History::whole(doc.save())) }
}

/// A stored JSON text taken apart.
pub(super) fn stored_map(key: &Key, text: &str) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
    let damaged = |cause| Error::Damaged(format!("the JSON of document {key}: {cause}"));
    json::parse_any_size(text.as_bytes()).map_err(damaged)
}

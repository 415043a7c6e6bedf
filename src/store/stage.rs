//! Staging: requests become changes of a batch, over one snapshot of the database.
//!
//! A request that fails leaves the batch unchanged. Requests of clients are in `write`, documents of peers in `apply`.

use std::collections::BTreeMap;

use ring::digest::{Context, SHA256};

use crate::clock::Now;
use crate::store::batch::{Batch, Pending, StagedDocument};
use crate::store::cache::Cache;
use crate::store::copies::Copies;
use crate::store::database_clock::DatabaseClock;
use crate::store::merged::Doc;
use crate::store::{
    Body, Content, Covered, DocumentWrite, Envelope, Error, History, Key, KeyHash, Kind, Put, Reader, Record, RunId,
    Snapshot, StoreConfig, StoreRequest, json,
};

/// Identity of the writer, and the earlier runs that it remembers.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) config: StoreConfig,
    pub(super) run: RunId,
    /// Every listed run, with its position in the order in which they began.
    pub(super) runs: BTreeMap<RunId, u64>,
    /// Writer id of this run's creations.
    pub(super) writer: [u8; 8],
}

impl Writer {
    /// Returns the Automerge actor of this run in a document with these covered creations. Automerge numbers the changes of an
    /// actor, so no actor may write to a document that has lost some of its changes. A document loses changes only when more
    /// of its creations are covered, and the actor differs then.
    pub(super) fn actor(&self, hash: &KeyHash, covered: &Covered) -> [u8; 16] {
        let mut context = Context::new(&SHA256);
        [&b"peat-actor"[..], &self.writer, &hash.0, &covered.to_bytes()].iter().for_each(|part| context.update(part));
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&self.writer);
        actor[8..].copy_from_slice(&context.finish().as_ref()[..8]);
        actor
    }
}

/// Source of the committed state that a stage reads.
#[derive(Debug)]
pub(super) enum Committed {
    /// One snapshot for the whole batch.
    At(Snapshot),
    /// A new snapshot for each read, so that old pages are not retained for long. Only for documents that nothing else changes
    /// meanwhile.
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
pub(super) struct BatchStager<'a> {
    pub(super) writer: &'a Writer,
    pub(super) committed: Committed,
    pub(super) cache: &'a mut Cache,
    pub(super) batch: &'a mut Batch,
    /// Detects two machines that write under one identity.
    pub(super) copies: &'a mut Copies,
    /// Newest sequence number that is on disk.
    pub(super) durable: u64,
    pub(super) now: Now,
    pub(super) clocks: DatabaseClock,
}

impl BatchStager<'_> {
    /// Stages a request. A fault of the request becomes its answer.
    ///
    /// # Errors
    /// The disk failed: the state of the batch is unknown.
    pub(super) fn request(&mut self, submitted: Envelope) -> Result<(), Error> {
        let pending = match submitted.request {
            StoreRequest::Write(write) => self.write(write),
            StoreRequest::Apply(apply) => self.apply(apply),
            StoreRequest::SaveLink(link) => {
                self.batch.links.insert(link.peer, link.wish);
                Ok(self.settled())
            }
            StoreRequest::SaveSync(on) => {
                self.batch.sync = Some(on);
                Ok(self.settled())
            }
            StoreRequest::Flush => Ok(self.settled()),
            StoreRequest::Nothing => Ok(Pending::Done),
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

    /// Returns the bytes of merged documents that a request reads, decodes and writes: a measure of its duration.
    pub(super) fn merged_bytes(&mut self, request: &StoreRequest) -> Result<usize, Error> {
        match request {
            StoreRequest::Write(DocumentWrite { key, put, .. })
                if self.writer.config.kind(key.collection()) == Kind::Merged =>
            {
                let brought = match put {
                    Put::Whole { json, .. } | Put::Patch { json, .. } => json.len(),
                    _ => 0,
                };
                Ok(brought + self.held_bytes(key.hash())?)
            }
            StoreRequest::Apply(apply) => {
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

    /// Returns the bytes of a stored merged document: its JSON, and its history unless that is loaded.
    fn held_bytes(&mut self, hash: KeyHash) -> Result<usize, Error> {
        let is_cached = self.cache.holds(&hash);
        let staged = self.load(hash)?;
        let Some(Content::Merged { json, history, .. }) = staged.record.as_ref().map(|record| &record.content) else {
            return Ok(0);
        };
        let is_loaded = staged.doc.is_some() || (staged.changed.is_none() && is_cached);
        Ok(json.len() + if is_loaded { 0 } else { history.size() })
    }

    /// Returns the answer of a request that must be flushed, and asks for the flush.
    fn settled(&mut self) -> Pending {
        self.batch.flush = true;
        Pending::Done
    }

    /// Returns the document as the batch has it so far, staging the committed record if it is not staged yet.
    pub(super) fn load(&mut self, hash: KeyHash) -> Result<&mut StagedDocument, Error> {
        use std::collections::btree_map::Entry;
        match self.batch.staged.entry(hash) {
            Entry::Occupied(staged) => Ok(staged.into_mut()),
            Entry::Vacant(vacant) => {
                Ok(vacant.insert(StagedDocument::new(self.committed.look(|snapshot| snapshot.record(&hash))?)))
            }
        }
    }

    /// Takes the loaded document of a staged `merged` record, set up for writes by this run.
    pub(super) fn take_doc(&mut self, hash: KeyHash) -> Result<Doc, Error> {
        let mut doc = self.take_loaded(hash)?;
        if let Some(record) = self.batch.staged.get(&hash).and_then(|staged| staged.record.as_ref()) {
            doc.act_as(self.writer.actor(&hash, &record.lineage.covered));
        }
        Ok(doc)
    }

    /// Takes the loaded document from the batch or the cache, or decodes its stored bytes.
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
        // The chunks that this batch adds are not in the database yet.
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

    /// Takes the content of a staged record that is about to be replaced.
    pub(super) fn take_content(&mut self, hash: KeyHash) -> Option<Content> {
        self.batch.staged.get_mut(&hash)?.record.take().map(|record| record.content)
    }

    /// Delays the answer to a request that changed nothing until the version in place is on disk.
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

/// Returns the content of a `merged` record for its changed document: the changes since `before` (`news`, if known), or a full
/// re-encoding once the history is long enough to fold.
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

/// Parses a stored JSON text.
pub(super) fn stored_map(key: &Key, text: &str) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
    let damaged = |cause| Error::Damaged(format!("the JSON of document {key}: {cause}"));
    json::parse_any_size(text.as_bytes()).map_err(damaged)
}

//! Writes of clients: stages puts, patches, deletions and compactions in a batch.

use serde_json::{Map, Value};

use crate::contain::contain;
use crate::limits::{
    CHANGE_OPERATIONS, DOCUMENT_ELEMENTS, DOCUMENT_JSON_BYTES, HISTORY_BYTES, HISTORY_ROWS, WRITTEN_RECORD_BYTES,
    WRITTEN_ROWS,
};
use crate::store::batch::Pending;
use crate::store::chunk::Bounds;
use crate::store::merged::{Doc, MergedError};
use crate::store::record::{Base, BaseContent};
use crate::store::stage::{BatchStager, merged_content, stored_map};
use crate::store::{
    COMMANDS, CommandChange, CommandError, Content, DocumentWrite, Error, Key, KeyHash, Kind, Lineage, Put, Record,
    Stamp, Version, json,
};

type Object = Map<String, Value>;

/// Upper bound of incarnations and counters, far below overflow. Higher ones from a peer are refused.
pub(super) const MAX_COUNTER: u64 = 1 << 53;

/// A put with its content worked out.
struct Wanted {
    key: Key,
    hash: KeyHash,
    object: Object,
    base: Option<Base>,
    durable: bool,
}

impl BatchStager<'_> {
    pub(super) fn write(&mut self, write: DocumentWrite) -> Result<Pending, Error> {
        let DocumentWrite { key, put, durable } = write;
        let hash = key.hash();
        let (object, base) = match put {
            Put::Command(change) => return self.command(&key, hash, change),
            Put::Delete if key.collection() == COMMANDS => return self.command(&key, hash, CommandChange::Remove),
            Put::Whole { .. } | Put::Patch { .. } | Put::Fields(_) if key.collection() == COMMANDS => {
                let why = format!("{key} is in {COMMANDS}, whose documents are put as commands");
                return Err(CommandError::Malformed(why).into());
            }
            Put::Delete => return self.delete(&key, hash, durable),
            Put::Compact => return self.compact(&key, hash),
            Put::Whole { json, base } => (parse(&key, &json)?, base),
            Put::Patch { json, base } => {
                let mut object = self.content_seen(&key, hash, base.as_ref())?;
                json::merge_patch(&mut object, &parse(&key, &json)?);
                (object, base)
            }
            Put::Fields(fields) => {
                let mut object = self.current(&key, hash)?;
                for (field, value) in fields {
                    if value.is_null() {
                        object.remove(&field)
                    } else {
                        object.insert(field, value)
                    };
                }
                (object, None)
            }
        };
        let base = base.map(|base| Base::parse(&base).ok_or_else(|| Error::MalformedBase(key.clone()))).transpose()?;
        if base.as_ref().is_some_and(|base| !base.is_of(&hash)) {
            return Err(Error::UnknownBase(key));
        }
        self.put(Wanted { key, hash, object, base, durable })
    }

    /// Returns the content that a writer with this base saw: for a merged document the content at the base; without a base, or
    /// for a kind that accepts only the current version as the base, the current content. The put itself checks the base.
    fn content_seen(&mut self, key: &Key, hash: KeyHash, base: Option<&Version>) -> Result<Object, Error> {
        let Some(Base { content: BaseContent::Merged(base), .. }) = base.and_then(Base::parse) else {
            return self.current(key, hash);
        };
        match &self.load(hash)?.record {
            Some(record) if record.is_live() => match &record.content {
                Content::Merged { heads, .. } if *heads != base => {}
                _ => return self.current(key, hash),
            },
            _ => return self.current(key, hash),
        }
        let mut doc = self.take_doc(hash)?;
        let content = contain(|| doc.content_at(&base))
            .map_err(|panic| Error::History { key: key.clone(), reason: panic.to_string() })?;
        self.put_back(hash, doc);
        content.map_err(|cause| refused(key, &cause))
    }

    /// Returns the current content; empty for a document that does not exist.
    fn current(&mut self, key: &Key, hash: KeyHash) -> Result<Object, Error> {
        match self.load(hash)?.record.as_ref().and_then(Record::json) {
            Some(text) => stored_map(key, text),
            None => Ok(Object::new()),
        }
    }

    fn put(&mut self, wanted: Wanted) -> Result<Pending, Error> {
        let kind = self.writer.config.kind(wanted.key.collection());
        let staged = self.load(wanted.hash)?;
        match &staged.record {
            Some(record) if record.is_live() && record.kind == kind => match kind {
                Kind::Latest => self.update_latest(wanted),
                _ => {
                    let key = wanted.key.clone();
                    contain(|| self.update_merged(wanted))
                        .unwrap_or_else(|panic| Err(Error::History { key, reason: panic.to_string() }))
                }
            },
            _ => self.create(wanted, kind),
        }
    }

    /// Creates the document's first or next incarnation.
    fn create(&mut self, wanted: Wanted, kind: Kind) -> Result<Pending, Error> {
        let writer = self.writer.writer;
        let before = self.load(wanted.hash)?.record.as_ref();
        let known = before.map(|record| record.version(&wanted.hash));
        if let Some(base) = &wanted.base
            && known.as_ref().and_then(Base::parse).as_ref() != Some(base)
        {
            return Err(stale_base(kind, wanted.key));
        }
        let text = json::to_text(&wanted.object);
        check_size(&wanted.key, &text, before.and_then(Record::json))?;
        if kind == Kind::Merged {
            check_elements(&wanted, before.and_then(Record::json))?;
        }
        let lineage = Lineage::create(before.map(|record| &record.lineage), writer);
        let (content, doc) = match kind {
            Kind::Latest => (Content::Latest { stamp: self.stamp(1), json: text }, None),
            _ => self.new_document(&wanted.key, &lineage, None, &wanted.object)?,
        };
        self.store(wanted.key, kind, (lineage, content), doc, wanted.durable)
    }

    /// Makes the document that begins a creation, with its first change.
    fn new_document(
        &self,
        key: &Key,
        lineage: &Lineage,
        message: Option<&str>,
        object: &Object,
    ) -> Result<(Content, Option<Doc>), Error> {
        let actor = self.writer.actor(&key.hash(), &lineage.covered);
        let doc = Doc::create(actor, lineage.incarnation(), message, object).map_err(|cause| refused(key, &cause))?;
        Ok((merged_content(&doc, None, None), Some(doc)))
    }

    fn update_latest(&mut self, wanted: Wanted) -> Result<Pending, Error> {
        let text = json::to_text(&wanted.object);
        let record = self.staged(wanted.hash);
        let Content::Latest { stamp, json } = &record.content else { return Err(not_of_kind()) };
        if let Some(base) = &wanted.base
            && base.content != BaseContent::Latest(*stamp)
        {
            return Err(Error::BaseNotCurrent(wanted.key));
        }
        check_size(&wanted.key, &text, Some(json))?;
        if *json == text && record.lineage.siblings.is_empty() {
            return Ok(self.unchanged(wanted.hash, wanted.durable));
        }
        let (lineage, counter) = self.next_latest(&record.lineage, stamp.counter);
        let content = Content::Latest { stamp: self.stamp(counter), json: text };
        self.store(wanted.key, Kind::Latest, (lineage, content), None, wanted.durable)
    }

    /// Returns the lineage and counter of the version after one with this counter. They begin a new creation at `MAX_COUNTER`,
    /// because peers refuse counters from there on.
    pub(super) fn next_latest(&self, lineage: &Lineage, counter: u64) -> (Lineage, u64) {
        match counter + 1 {
            next if next < MAX_COUNTER => (lineage.edited(), next),
            _ => (Lineage::create(Some(&lineage.edited()), self.writer.writer), 1),
        }
    }

    fn update_merged(&mut self, wanted: Wanted) -> Result<Pending, Error> {
        let record = self.staged(wanted.hash);
        let Content::Merged { json, heads, history } = &record.content else { return Err(not_of_kind()) };
        let (base, lineage) = (merged_base(&wanted)?, record.lineage.clone());
        let text = json::to_text(&wanted.object);
        check_size(&wanted.key, &text, Some(json))?;
        check_elements(&wanted, Some(json))?;
        let (before, size) = (json.len(), history.size());
        // A merge can exceed the limits of a put. The document must then still accept a put that shrinks it.
        let is_merged_beyond = before > DOCUMENT_JSON_BYTES || size > WRITTEN_RECORD_BYTES;
        let shortens = is_merged_beyond && text.len() < before;
        let bytes = record.history_bytes();
        if bytes > HISTORY_BYTES && !shortens {
            return Err(Error::HistoryTooLarge { key: wanted.key, bytes });
        }
        let heads = heads.clone();
        let mut doc = self.take_doc(wanted.hash)?;
        let long = Bounds::of_rows(HISTORY_ROWS).exceeded(doc.expansion(), doc.authorship());
        if let Some(bound) = long.filter(|_| !shortens) {
            self.put_back(wanted.hash, doc);
            return Err(Error::HistoryTooLong { key: wanted.key, bound });
        }
        // Nodes that know of the removal would drop a change over a base that was removed since.
        if let Some(base) = base.filter(|base| **base != *heads)
            && !doc.descends_from_live(base, |dot| lineage.covered.covers(dot))
        {
            self.put_back(wanted.hash, doc);
            return Err(Error::UnknownBase(wanted.key));
        }
        // One more change would make the history too large to send, so it begins again.
        let starts_over = shortens && (size > WRITTEN_RECORD_BYTES || bytes > HISTORY_BYTES || long.is_some());
        let seen = if starts_over { doc.compaction_message() } else { None };
        let rows = doc.rows();
        doc.put(base, &wanted.object).map_err(|cause| refused(&wanted.key, &cause))?;
        let operations = doc.rows() - rows;
        if operations > CHANGE_OPERATIONS && !starts_over {
            return Err(Error::ChangeTooLarge { key: wanted.key, operations });
        }
        if doc.heads() == heads {
            self.put_back(wanted.hash, doc);
            return Ok(self.unchanged(wanted.hash, true));
        }
        if starts_over {
            let (object, lineage) = (doc.json().clone(), Lineage::create(Some(&lineage), self.writer.writer));
            let (content, doc) = self.new_document(&wanted.key, &lineage, seen.as_deref(), &object)?;
            return self.store(wanted.key, Kind::Merged, (lineage, content), doc, true);
        }
        let news = doc.changes_after(&heads);
        doc.note_change(Some(&news));
        let folds = check_growth(&wanted.key, &mut doc, size + news.len())?;
        let before = self.take_content(wanted.hash).filter(|_| !folds);
        let content = merged_content(&doc, before, Some(news));
        self.store(wanted.key, Kind::Merged, (lineage, content), Some(doc), true)
    }

    /// Replaces the document with a tombstone of its kind, which covers the creations that the document descends from.
    fn delete(&mut self, key: &Key, hash: KeyHash, durable: bool) -> Result<Pending, Error> {
        let origin = self.writer.config.node;
        let Some(record) = &self.load(hash)?.record else { return Ok(Pending::Absent) };
        let durable = durable || record.kind != Kind::Latest;
        if !record.is_live() {
            return Ok(self.unchanged(hash, durable));
        }
        log::debug!("deleting document {key}");
        let record = Record::tombstone(record.kind, origin, record.lineage.buried());
        Ok(self.change(hash, record, None, durable, 0))
    }

    /// Starts the next incarnation from the current content. It covers the creations before it, as a deletion does.
    fn compact(&mut self, key: &Key, hash: KeyHash) -> Result<Pending, Error> {
        let writer = self.writer.writer;
        let Some(record) = self.load(hash)?.record.as_ref().filter(|record| record.is_live()) else {
            return Err(Error::NotFound(key.clone()));
        };
        let Content::Merged { json, .. } = &record.content else { return Err(Error::NoHistory(key.clone())) };
        let (object, before) = (stored_map(key, json)?, record.history_bytes());
        let lineage = Lineage::create(Some(&record.lineage), writer);
        let message = self.seen(key, hash)?;
        let (content, doc) = self.new_document(key, &lineage, message.as_deref(), &object)?;
        let pending = self.store(key.clone(), Kind::Merged, (lineage, content), doc, true)?;
        let dropped = before.saturating_sub(self.staged(hash).history_bytes()) as u64;
        Ok(match pending {
            Pending::Written { hash, version, in_place, .. } => {
                Pending::Written { hash, version, dropped_bytes: dropped, in_place }
            }
            other => other,
        })
    }

    /// Returns the message by which a compaction names the changes it has seen; `None` if they cannot be loaded. A compaction
    /// also repairs a damaged history, and then drops the edits of other nodes that it has not seen.
    fn seen(&mut self, key: &Key, hash: KeyHash) -> Result<Option<String>, Error> {
        let doc = match contain(|| self.take_doc(hash)) {
            Ok(Err(cause @ Error::Io(_))) => return Err(cause),
            Ok(Ok(doc)) => doc,
            _ => return Ok(None),
        };
        let message = contain(|| doc.compaction_message()).ok().flatten();
        if message.is_none() {
            log::warn!("compacting {key}: edits that other nodes have made and this one has not seen will be dropped");
        }
        self.put_back(hash, doc);
        Ok(message)
    }

    pub(super) fn stamp(&self, counter: u64) -> Stamp {
        Stamp { counter, node: self.writer.config.node, run: self.writer.run }
    }

    /// Returns a record that the caller has staged.
    pub(super) fn staged(&self, hash: KeyHash) -> &Record {
        self.batch.staged.get(&hash).and_then(|staged| staged.record.as_ref()).expect("it was staged to be looked at")
    }

    /// Returns to the batch a document that was taken and not changed.
    pub(super) fn put_back(&mut self, hash: KeyHash, doc: Doc) {
        if let Some(staged) = self.batch.staged.get_mut(&hash) {
            staged.doc = Some(doc);
        }
    }

    fn store(
        &mut self,
        key: Key,
        kind: Kind,
        (lineage, content): (Lineage, Content),
        doc: Option<Doc>,
        durable: bool,
    ) -> Result<Pending, Error> {
        let incarnation = lineage.incarnation();
        if incarnation > MAX_COUNTER {
            return Err(Error::Exhausted(key));
        }
        let hash = key.hash();
        let origin = self.writer.config.node;
        let record = Record { kind, incarnation, sequence: 0, origin, name: Some(key), lineage, content };
        Ok(self.change(hash, record, doc, durable || kind != Kind::Latest, 0))
    }

    /// Stages a changed record.
    pub(super) fn change(
        &mut self,
        hash: KeyHash,
        record: Record,
        doc: Option<Doc>,
        durable: bool,
        from: u32,
    ) -> Pending {
        let version = record.version(&hash);
        self.batch.flush |= durable;
        self.batch.change(hash, record, doc, from);
        Pending::Written { hash, version, dropped_bytes: 0, in_place: None }
    }

    /// Returns the answer to a write that found its content in place.
    pub(super) fn unchanged(&mut self, hash: KeyHash, durable: bool) -> Pending {
        // A document that the batch has changed receives its sequence number from the commit.
        let staged = self.batch.staged.get(&hash).filter(|staged| staged.changed.is_none());
        let in_place = staged.and_then(|staged| staged.record.as_ref()).map(|record| record.sequence);
        let version = self.staged(hash).version(&hash);
        if durable {
            self.await_flush_of(hash);
        }
        Pending::Written { hash, version, dropped_bytes: 0, in_place }
    }
}

fn parse(key: &Key, text: &str) -> Result<Object, Error> {
    json::parse_any_size(text.as_bytes()).map_err(|cause| Error::Json { key: key.clone(), reason: cause.to_string() })
}

/// Checks the size limit. Above it, only a write that shrinks an already larger document passes: a merge can exceed the limit.
fn check_size(key: &Key, text: &str, before: Option<&str>) -> Result<(), Error> {
    let bytes = text.len();
    match before {
        _ if bytes <= DOCUMENT_JSON_BYTES => Ok(()),
        Some(before) if before.len() > DOCUMENT_JSON_BYTES && bytes < before.len() => Ok(()),
        _ => Err(Error::DocumentTooLarge { key: key.clone(), bytes }),
    }
}

/// Checks the number of fields and elements of a merged document, each of which costs Automerge memory, by the rule of
/// [`check_size`].
fn check_elements(wanted: &Wanted, before: Option<&str>) -> Result<(), Error> {
    let elements = json::elements(&wanted.object);
    if elements <= DOCUMENT_ELEMENTS {
        return Ok(());
    }
    let held = before.map(|text| stored_map(&wanted.key, text)).transpose()?.map_or(0, |held| json::elements(&held));
    if held > DOCUMENT_ELEMENTS && elements < held {
        Ok(())
    } else {
        Err(Error::TooManyElements { key: wanted.key.clone(), elements })
    }
}

/// Refuses a document that peers would not take after a put. `bytes` is the length of its history unless it is folded. Returns
/// true if it must be folded.
fn check_growth(key: &Key, doc: &mut Doc, bytes: usize) -> Result<bool, Error> {
    if let Some(bound) = Bounds::of_rows(WRITTEN_ROWS).exceeded(doc.expansion(), doc.authorship()) {
        return Err(Error::HistoryTooLong { key: key.clone(), bound });
    }
    if bytes <= WRITTEN_RECORD_BYTES {
        return Ok(false);
    }
    match doc.save().len() {
        bytes if bytes > WRITTEN_RECORD_BYTES => Err(Error::RecordTooLarge { key: key.clone(), bytes }),
        _ => Ok(true),
    }
}

/// Returns the heads of a put's base. The put itself checks that they are known: those of a deleted document are not.
fn merged_base(wanted: &Wanted) -> Result<Option<&[[u8; 32]]>, Error> {
    match &wanted.base {
        None => Ok(None),
        Some(Base { content: BaseContent::Merged(heads), .. }) => Ok(Some(heads)),
        Some(_) => Err(Error::UnknownBase(wanted.key.clone())),
    }
}

fn stale_base(kind: Kind, key: Key) -> Error {
    match kind {
        Kind::Latest => Error::BaseNotCurrent(key),
        _ => Error::UnknownBase(key),
    }
}

fn refused(key: &Key, cause: &MergedError) -> Error {
    match cause {
        MergedError::UnknownBase => Error::UnknownBase(key.clone()),
        MergedError::TooMuchAtBase => Error::BaseNotCurrent(key.clone()),
        _ => Error::Json { key: key.clone(), reason: cause.to_string() },
    }
}

fn not_of_kind() -> Error {
    Error::Bug("a record's content is not of its kind".into())
}

/// Version in the reply about a document that does not exist: empty.
pub(super) const NO_VERSION: Version = Version(Vec::new());

//! What peers send: versions are compared or merged with what is held, and the cursors they earn are staged beside them.

use crate::contain::contain;
use crate::identity::EndpointId;
use crate::limits::{CHUNK_ROWS, DOCUMENT_JSON_BYTES, RECORD_BYTES};
use crate::store::batch::Pending;
use crate::store::command::ONLY_INCARNATION;
use crate::store::merged::{Applied, Doc, MergedError};
use crate::store::stage::{Stage, merged_content};
use crate::store::write::HIGHEST;
use crate::store::{
    Apply, Body, COMMANDS, CommandResult, Content, Error, History, Incoming, KeyHash, Kind, Merged, PeerRun, Record,
    Stamp, chunk, json,
};

/// What became of one document.
pub(super) enum Taken {
    /// It is here, or something newer is.
    In,
    /// Its base is not; these changes are.
    Missing(Vec<[u8; 32]>),
    /// It is wrong.
    Refused(String),
}

/// A document's change hashes and those of what was merged into it.
type Heads = Vec<[u8; 32]>;

impl Stage<'_> {
    pub(super) fn apply(&mut self, apply: Apply) -> Result<Pending, Error> {
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        for incoming in apply.documents {
            let hash = incoming.hash;
            match self.take_in(incoming, apply.from)? {
                Taken::In => {}
                Taken::Missing(have) => missing.push((hash, have)),
                Taken::Refused(reason) => refused.push((hash, reason)),
            }
        }
        if missing.is_empty() && apply.into == self.writer.run {
            let keyed = apply.cursors.into_iter().map(|cursor| ((apply.from.node, cursor.kind), cursor));
            self.batch.cursors.extend(keyed);
        }
        self.batch.flush |= apply.flush;
        Ok(Pending::Applied { missing, refused })
    }

    fn take_in(&mut self, incoming: Incoming, from: PeerRun) -> Result<Taken, Error> {
        if let Err(reason) = check(&incoming) {
            return Ok(Taken::Refused(reason));
        }
        let theirs = (incoming.incarnation, matches!(incoming.body, Body::Tombstone), incoming.kind);
        let held = self.load(incoming.hash)?.record.as_ref();
        match held.map(Record::rank) {
            Some(ours) if ours > theirs => Ok(Taken::In),
            Some(ours) if ours == theirs => self.combine(incoming, from),
            _ => self.adopt(incoming, from),
        }
    }

    /// Replaces what is held, if anything, by a version that supersedes it.
    fn adopt(&mut self, incoming: Incoming, from: PeerRun) -> Result<Taken, Error> {
        let content = match incoming.body {
            Body::Tombstone => {
                self.remove_results(incoming.hash)?;
                Content::Tombstone
            }
            Body::Command(command) => {
                return self.adopt_command(incoming.hash, incoming.name, incoming.origin, command, from);
            }
            Body::Result { rank, result, error } => match CommandResult::received(rank, result, error) {
                _ if self.is_of_removed(incoming.name.as_ref())? => {
                    self.bury(incoming.hash, 0, false);
                    return Ok(Taken::In);
                }
                Ok(result) => Content::Result(Box::new(result.shown(incoming.name.as_ref()))),
                Err(reason) => return Ok(Taken::Refused(reason)),
            },
            Body::Latest { stamp, json } => match check_latest(json) {
                Ok(json) if self.is_forgotten(&incoming.hash, &stamp, &json) => {
                    return self.restamp(incoming.hash, incoming.incarnation, stamp.counter);
                }
                Ok(json) => Content::Latest { stamp, json },
                Err(reason) => return Ok(Taken::Refused(reason)),
            },
            Body::Merged(merged) => match self.load_received(merged) {
                Ok(Some(content)) => content,
                Ok(None) => return Ok(Taken::Missing(Vec::new())),
                Err(reason) => return Ok(Taken::Refused(reason)),
            },
        };
        let (kind, incarnation, origin) = (incoming.kind, incoming.incarnation, incoming.origin);
        let record = Record { kind, incarnation, sequence: 0, origin, name: incoming.name, content };
        let from = self.source(from)?;
        let in_progress = matches!(&record.content, Content::Result(result) if !result.rank.is_terminal());
        self.change(incoming.hash, record, None, kind == Kind::Command && !in_progress, from);
        Ok(Taken::In)
    }

    /// Combines two versions of one incarnation and kind.
    fn combine(&mut self, incoming: Incoming, from: PeerRun) -> Result<Taken, Error> {
        match incoming.body {
            Body::Tombstone => Ok(Taken::In),
            Body::Latest { stamp, ref json } => match self.load(incoming.hash)?.record.as_ref().map(|r| &r.content) {
                Some(Content::Latest { stamp: ours, json: text }) if !beats(&stamp, json, ours, text) => Ok(Taken::In),
                _ => self.adopt(incoming, from),
            },
            Body::Command(command) => self.combine_command(incoming.hash, incoming.origin, command, from),
            Body::Result { rank, ref result, ref error } => {
                let theirs = CommandResult::received(rank, result.clone(), error.clone());
                match (self.load(incoming.hash)?.record.as_ref().map(|r| &r.content), theirs) {
                    (_, Err(reason)) => Ok(Taken::Refused(reason)),
                    (Some(Content::Result(ours)), Ok(theirs)) if !ours.yields_to(&theirs) => Ok(Taken::In),
                    _ => self.adopt(incoming, from),
                }
            }
            Body::Merged(merged) => contain(|| self.merge(incoming.hash, merged, incoming.origin, from))
                .unwrap_or_else(|panic| Ok(Taken::Refused(panic.to_string()))),
        }
    }

    fn merge(&mut self, hash: KeyHash, merged: Merged, origin: EndpointId, from: PeerRun) -> Result<Taken, Error> {
        if let Err(cause) = chunk::check(&merged.chunks, CHUNK_ROWS) {
            return Ok(Taken::Refused(cause.to_string()));
        }
        let mut doc = self.take_doc(hash)?;
        let before = doc.heads();
        match apply_to(&mut doc, &merged) {
            Ok(Applied::AllNew) => self.store_merge(hash, doc, &before, Some(merged.chunks), (origin, from)),
            Ok(Applied::Changed) => self.store_merge(hash, doc, &before, None, (origin, from)),
            Ok(Applied::Nothing) => {
                self.put_back(hash, doc);
                Ok(Taken::In)
            }
            Ok(Applied::Missing) => {
                let doc = self.take_doc(hash)?;
                let have = doc.sample();
                self.put_back(hash, doc);
                Ok(Taken::Missing(have))
            }
            Err(cause) => Ok(Taken::Refused(cause.to_string())),
        }
    }

    fn store_merge(
        &mut self,
        hash: KeyHash,
        doc: Doc,
        before: &Heads,
        news: Option<Vec<u8>>,
        (origin, from): (EndpointId, PeerRun),
    ) -> Result<Taken, Error> {
        // When none of our heads is left, the sender had built on all of them: it holds exactly this version.
        let ours_left = doc.heads().iter().any(|head| before.contains(head));
        let from = if ours_left { 0 } else { self.source(from)? };
        let Some(record) = self.load(hash)?.record.take() else {
            return Err(Error::Bug("a merged document vanished from its batch".into()));
        };
        let content = merged_content(&doc, Some(record.content), news);
        self.change(hash, Record { origin, content, ..record }, Some(doc), false, from);
        Ok(Taken::In)
    }

    /// A received document that is not held here is kept as it came. `None`: its base is missing.
    fn load_received(&self, merged: Merged) -> Result<Option<Content>, String> {
        contain(|| self.read_received(merged)).unwrap_or_else(|panic| Err(panic.to_string()))
    }

    fn read_received(&self, merged: Merged) -> Result<Option<Content>, String> {
        chunk::check(&merged.chunks, CHUNK_ROWS).map_err(|cause| cause.to_string())?;
        let mut doc = Doc::new(self.writer.actor);
        if apply_to(&mut doc, &merged).map_err(|cause| cause.to_string())? == Applied::Missing {
            return Ok(None);
        }
        let (heads, json) = (doc.heads(), json::to_text(doc.json()));
        Ok(Some(Content::Merged { heads, json, history: History::whole(merged.chunks) }))
    }

    /// Whether a version that would replace ours is of our own making, from a past this database does not remember (a
    /// replaced disk, an old backup), while we have written since.
    fn is_forgotten(&self, hash: &KeyHash, theirs: &Stamp, text: &str) -> bool {
        let held = self.batch.staged.get(hash).and_then(|staged| staged.record.as_ref());
        let Some(Content::Latest { stamp: ours, json }) = held.map(|record| &record.content) else { return false };
        let runs = &self.writer.runs;
        let us = self.writer.config.node;
        let since = runs.get(&ours.run).is_some_and(|ours| runs.get(&theirs.run).is_none_or(|theirs| theirs < ours));
        theirs.node == us && ours.node == us && since && json != text
    }

    /// Keeps our content, under a stamp above the forgotten one.
    fn restamp(&mut self, hash: KeyHash, incarnation: u64, counter: u64) -> Result<Taken, Error> {
        let stamp = Stamp { counter: counter + 1, node: self.writer.config.node, run: self.writer.run };
        let held = self.load(hash)?.record.clone();
        let Some(Record { content: Content::Latest { json, .. }, name, origin, .. }) = held else {
            return Err(Error::Bug("a register vanished from its batch".into()));
        };
        let content = Content::Latest { stamp, json };
        let record = Record { kind: Kind::Latest, incarnation, sequence: 0, origin, name, content };
        self.change(hash, record, None, false, 0);
        Ok(Taken::In)
    }

    /// The number of a peer in its run; a new run gets a new one.
    pub(super) fn source(&mut self, peer: PeerRun) -> Result<u32, Error> {
        if let Some((number, run)) = self.batch.sources.get(&peer.node)
            && *run == peer.run
        {
            return Ok(*number);
        }
        if let Some(number) = self.snapshot.source(peer)? {
            return Ok(number);
        }
        let number = self.batch.next_source(self.snapshot.state.sources);
        self.batch.sources.insert(peer.node, (number, peer.run));
        Ok(number)
    }
}

/// Loads received chunks into a document. They may bring all they build on and still not be all the sender has.
fn apply_to(doc: &mut Doc, merged: &Merged) -> Result<Applied, MergedError> {
    let applied = doc.apply(&merged.chunks)?;
    let complete = merged.heads.iter().all(|head| doc.knows(head));
    Ok(if complete { applied } else { Applied::Missing })
}

/// Whether a received register supersedes ours of the same incarnation.
fn beats(theirs: &Stamp, their_json: &[u8], ours: &Stamp, our_json: &str) -> bool {
    let hash = |text| ring::digest::digest(&ring::digest::SHA256, text);
    let tie = || hash(their_json).as_ref().cmp(hash(our_json.as_bytes()).as_ref());
    theirs.cmp(ours).then_with(tie).is_gt()
}

fn check(incoming: &Incoming) -> Result<(), String> {
    let named = incoming.name.as_ref().map(|name| (name.hash(), name));
    let size = match &incoming.body {
        Body::Tombstone => 0,
        Body::Latest { json, .. } => json.len(),
        Body::Merged(merged) => merged.chunks.len(),
        // Looked at where they are taken apart.
        Body::Command(_) | Body::Result { .. } => 0,
    };
    match (&incoming.body, incoming.kind, named) {
        _ if !(1..=HIGHEST).contains(&incoming.incarnation) => Err(format!("incarnation {}", incoming.incarnation)),
        (_, Kind::Command, _) if incoming.incarnation != ONLY_INCARNATION => {
            Err(format!("a command of incarnation {}", incoming.incarnation))
        }
        (Body::Tombstone, _, _) => Ok(()),
        (_, _, None) => Err("a live document without a name".into()),
        (_, _, Some((hash, name))) if hash != incoming.hash => {
            Err(format!("the key of {name} does not match its name"))
        }
        (_, kind, Some((_, name))) if (kind == Kind::Command) != (name.collection() == COMMANDS) => {
            Err(format!("{name} is of kind {kind:?}; {COMMANDS}, and nothing else, holds commands"))
        }
        (Body::Command(_), Kind::Command, _) => Ok(()),
        (Body::Result { .. }, Kind::Command, Some((_, name))) => match name.id().split_once(':') {
            Some((id, agent)) if !id.is_empty() && !agent.is_empty() => Ok(()),
            _ => Err(format!("{name} names no command and agent, but is a result")),
        },
        (Body::Latest { .. }, Kind::Latest, Some((_, name))) if size > DOCUMENT_JSON_BYTES => {
            Err(format!("document {name} is {size} bytes of JSON; the limit is {DOCUMENT_JSON_BYTES}"))
        }
        (Body::Latest { stamp, .. }, Kind::Latest, _) if stamp.counter >= HIGHEST => {
            Err(format!("counter {}", stamp.counter))
        }
        (Body::Merged(_), Kind::Merged, Some((_, name))) if size > RECORD_BYTES => {
            Err(format!("document {name} is {size} bytes; the limit is {RECORD_BYTES}"))
        }
        (Body::Latest { .. }, Kind::Latest, _) | (Body::Merged(_), Kind::Merged, _) => Ok(()),
        _ => Err("the content is not of its kind".into()),
    }
}

fn check_latest(json: Vec<u8>) -> Result<String, String> {
    json::parse_any_size(&json).map_err(|cause| cause.to_string())?;
    String::from_utf8(json).map_err(|cause| cause.to_string())
}

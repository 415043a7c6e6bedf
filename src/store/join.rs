//! Joins a version from a peer with the stored one (docs/storage.md, "Which version wins").
//!
//! Owns the rule that a deletion or a compaction removes only the creations it has seen. A join of two versions gives the same
//! record on every node and in any order. The record is written, so that the peer receives it too, unless it equals the stored
//! one.

use std::collections::BTreeMap;

use ring::digest::{SHA256, digest};

use crate::contain::contain;
use crate::identity::EndpointId;
use crate::limits::{CHUNK_ROWS, DOCUMENT_JSON_BYTES, MERGED_BYTES, MERGED_ROWS};
use crate::store::apply::{ApplyOutcome, apply_to, check_latest};
use crate::store::merged::{Applied, Doc, Rebased};
use crate::store::stage::{BatchStager, merged_content};
use crate::store::write::MAX_COUNTER;
use crate::store::{
    Body, Content, Covered, Dot, Dots, Error, History, Incoming, Key, KeyHash, Kind, Lineage, Merged, PeerRun, Record,
    SIBLINGS, Sibling, Stamp, VersionHash, chunk, json,
};

/// A version from a peer, without its content.
struct ReceivedVersion {
    hash: KeyHash,
    name: Option<Key>,
    origin: EndpointId,
    kind: Kind,
    lineage: Lineage,
    /// Order of the version, which its hash begins with.
    order: u64,
    from: PeerRun,
}

impl BatchStager<'_> {
    /// Joins a document, which is not a command, with the stored record, if there is one.
    pub(super) fn join(&mut self, incoming: Incoming, from: PeerRun) -> Result<ApplyOutcome, Error> {
        let order = order(&incoming);
        let Incoming { hash, name, kind, origin, lineage, body, .. } = incoming;
        let theirs = ReceivedVersion { hash, name, origin, kind, lineage, order, from };
        let Some(ours) = &self.load(hash)?.record else {
            let covered = theirs.lineage.covered.clone();
            return self.take_theirs(theirs, body, &covered);
        };
        // Each side survives if one of its creations is covered by neither.
        let (covered, lives) = outcome(ours, &theirs);
        match (lives, body) {
            ((false, false), _) => self.join_deleted(&theirs, covered),
            ((true, false), body) => {
                self.keep_ours(&theirs, covered)?;
                self.take_edits(&theirs, body)
            }
            ((false, true), body) => self.take_theirs(theirs, body, &covered),
            ((true, true), Body::Latest { stamp, json }) => self.join_latest(&theirs, stamp, json, covered),
            ((true, true), Body::Merged(merged)) => contain(|| self.merge(&theirs, &merged, covered))
                .unwrap_or_else(|panic| Ok(ApplyOutcome::Rejected(panic.to_string()))),
            ((true, true), _) => Ok(ApplyOutcome::Rejected("the content is not of its kind".into())),
        }
    }

    /// Joins two versions of which neither survives: a tombstone that covers what both cover.
    fn join_deleted(&mut self, theirs: &ReceivedVersion, covered: Covered) -> Result<ApplyOutcome, Error> {
        let ours = self.staged(theirs.hash);
        let kind = ours.kind.max(theirs.kind);
        if !ours.is_live() && ours.lineage.covered == covered && ours.kind == kind {
            return Ok(self.held(theirs));
        }
        let origin = if ours.is_live() { theirs.origin } else { ours.origin };
        let is_theirs = theirs.lineage.dots.is_empty() && theirs.lineage.covered == covered && theirs.kind == kind;
        // A record that equals the peer's version is not sent back to it.
        let from = if is_theirs { self.source(theirs.from)? } else { 0 };
        let record = Record::tombstone(kind, origin, Lineage { covered, ..Lineage::default() });
        self.change(theirs.hash, record, None, false, from);
        Ok(ApplyOutcome::Applied)
    }

    /// Keeps the stored version, which survives, and covers what both cover.
    fn keep_ours(&mut self, theirs: &ReceivedVersion, covered: Covered) -> Result<(), Error> {
        let ours = self.staged(theirs.hash);
        if ours.lineage.covered == covered {
            self.held(theirs);
            return Ok(());
        }
        let mut record = ours.clone();
        let doc = match &record.content {
            Content::Latest { .. } => {
                let joined = joined_versions(versions_of(&record), covered);
                return self.keep_latest(theirs, record, joined, false).map(drop);
            }
            // No live creation is covered, so the content stays.
            _ if record.lineage.dots.outside(&covered) == record.lineage.dots => self.loaded(theirs.hash),
            // Remove the changes of the covered creations.
            _ => {
                let doc = self.take_doc(theirs.hash)?;
                let left = contain(|| doc.without(|dot| covered.covers(dot)));
                let left =
                    left.map_err(|panic| panic.to_string()).and_then(|left| left.map_err(|cause| cause.to_string()));
                let left = left.map_err(Error::Bug)?;
                record.content = left.as_ref().map_or(record.content, whole);
                left.or(Some(doc))
            }
        };
        record.lineage = Lineage { dots: record.lineage.dots.outside(&covered), covered, siblings: Vec::new() };
        record.incarnation = record.lineage.incarnation();
        self.change(theirs.hash, record, doc, false, 0);
        Ok(())
    }

    /// Makes the edits in the peer's version again if the stored version is a compaction that has not seen them. Their writer
    /// may never connect to do so.
    fn take_edits(&mut self, theirs: &ReceivedVersion, body: Body) -> Result<ApplyOutcome, Error> {
        let (Body::Merged(merged), Content::Merged { .. }) = (body, &self.staged(theirs.hash).content) else {
            return Ok(ApplyOutcome::Applied);
        };
        let mut doc = match self.take_doc(theirs.hash) {
            Ok(doc) => doc,
            Err(cause @ Error::Io(_)) => return Err(cause),
            Err(_) => return Ok(ApplyOutcome::Applied),
        };
        if !doc.is_compacted() {
            self.put_back(theirs.hash, doc);
            return Ok(ApplyOutcome::Applied);
        }
        let old = contain(|| read_alone(&merged)).unwrap_or_else(|panic| Err(panic.to_string()));
        let covered = self.staged(theirs.hash).lineage.covered.clone();
        match old.map(|old| old.map(|old| contain(|| doc.rebase(&old, |dot| covered.covers(dot))))) {
            Ok(Some(Ok(Ok(Rebased::Again)))) => {
                self.batch.rebased += 1;
                let mut record = self.staged(theirs.hash).clone();
                record.content = merged_content(&doc, Some(record.content), None);
                record.origin = theirs.origin;
                self.change(theirs.hash, record, Some(doc), false, 0);
                Ok(ApplyOutcome::Applied)
            }
            Ok(None) => {
                self.put_back(theirs.hash, doc);
                Ok(ApplyOutcome::MissingBase(Vec::new()))
            }
            Ok(Some(Ok(Ok(_)))) => {
                self.put_back(theirs.hash, doc);
                Ok(ApplyOutcome::Applied)
            }
            Ok(Some(_)) => Ok(ApplyOutcome::Applied),
            Err(reason) => Ok(ApplyOutcome::Rejected(reason)),
        }
    }

    /// Replaces the stored version, if there is one, with the peer's.
    fn take_theirs(&mut self, theirs: ReceivedVersion, body: Body, covered: &Covered) -> Result<ApplyOutcome, Error> {
        let (hash, lineage, mut is_theirs) = (theirs.hash, theirs.lineage.clone(), true);
        let joined = Lineage { dots: lineage.dots.outside(covered), covered: covered.clone(), siblings: Vec::new() };
        let (lineage, content, origin) = match body {
            Body::Tombstone => (joined, Content::Tombstone, theirs.origin),
            Body::Latest { stamp, json } => match check_siblings(&lineage).and_then(|()| check_latest(json)) {
                Ok(json) => {
                    let sibling = Sibling { dots: lineage.dots.clone(), origin: theirs.origin, stamp, json };
                    let versions = std::iter::once(sibling).chain(lineage.siblings);
                    let Some((newest, lineage)) = joined_versions(versions, covered.clone()) else {
                        return Err(Error::Bug("a register that survives has no version".into()));
                    };
                    (lineage, Content::Latest { stamp: newest.stamp, json: newest.json }, newest.origin)
                }
                Err(reason) => return Ok(ApplyOutcome::Rejected(reason)),
            },
            Body::Merged(merged) => match contain(|| self.read_received(merged, &theirs, &joined)) {
                Ok(Ok(Some((content, rebased)))) => {
                    is_theirs = !rebased;
                    (joined, content, theirs.origin)
                }
                Ok(Ok(None)) => return Ok(ApplyOutcome::MissingBase(Vec::new())),
                Ok(Err(reason)) => return Ok(ApplyOutcome::Rejected(reason)),
                Err(panic) => return Ok(ApplyOutcome::Rejected(panic.to_string())),
            },
            Body::Command(_) | Body::Result { .. } => {
                return Ok(ApplyOutcome::Rejected("the content is not of its kind".into()));
            }
        };
        is_theirs &= lineage == theirs.lineage;
        let from = if is_theirs { self.source(theirs.from)? } else { 0 };
        let (kind, name, incarnation) = (theirs.kind, theirs.name, lineage.incarnation());
        let record = Record { kind, incarnation, sequence: 0, origin, name, lineage, content };
        self.change(hash, record, None, false, from);
        Ok(ApplyOutcome::Applied)
    }

    /// Reads a received document with no stored creation, and makes the edits of the stored document again in it. Returns the
    /// content and true if there were such edits, or `None` if the base is missing.
    fn read_received(
        &mut self,
        merged: Merged,
        theirs: &ReceivedVersion,
        joined: &Lineage,
    ) -> Result<Option<(Content, bool)>, String> {
        let Some(mut doc) = read_alone(&merged)? else { return Ok(None) };
        let mut is_whole = true;
        if joined.dots != theirs.lineage.dots
            && let Some(left) = doc.without(|dot| joined.covered.covers(dot)).map_err(|cause| cause.to_string())?
        {
            (doc, is_whole) = (left, false);
        }
        let rebased = self.rebase_held(&mut doc, theirs, &joined.covered);
        if rebased || !is_whole {
            return Ok(Some((whole(&doc), rebased)));
        }
        let (heads, json) = (doc.heads(), json::to_text(doc.json()));
        Ok(Some((Content::Merged { heads, json, history: History::whole(merged.chunks) }, false)))
    }

    /// Makes again in `doc` the edits of the stored document, which was compacted, or deleted and created again, on another
    /// node.
    fn rebase_held(&mut self, doc: &mut Doc, theirs: &ReceivedVersion, covered: &Covered) -> bool {
        let held = self.batch.staged.get(&theirs.hash).and_then(|staged| staged.record.as_ref());
        if !held.is_some_and(|held| matches!(held.content, Content::Merged { .. })) {
            return false;
        }
        // A damaged history has no edits to offer.
        let Ok(old) = self.take_doc(theirs.hash) else { return false };
        self.rebase(doc, &old, theirs, covered)
    }

    fn rebase(&mut self, doc: &mut Doc, old: &Doc, theirs: &ReceivedVersion, covered: &Covered) -> bool {
        let name = theirs.name.as_ref().map_or_else(String::new, ToString::to_string);
        match doc.rebase(old, |dot| covered.covers(dot)) {
            Ok(Rebased::Nothing) => false,
            Ok(Rebased::Again) => {
                log::info!(
                    "document {name} was compacted on another node; the edits that it had not seen are made again"
                );
                self.batch.rebased += 1;
                true
            }
            Ok(Rebased::Dropped(changes)) => {
                log::warn!(
                    "document {name} was deleted and made again on another node; {changes} changes that it had not seen are dropped"
                );
                self.batch.dropped_changes += changes as u64;
                false
            }
            Err(cause) => {
                log::warn!("the edits of document {name} cannot be made again over its compaction: {cause}");
                false
            }
        }
    }

    /// Joins two registers: the newest version of each creation is kept, and the newest of all is visible.
    fn join_latest(
        &mut self,
        theirs: &ReceivedVersion,
        stamp: Stamp,
        text: Vec<u8>,
        covered: Covered,
    ) -> Result<ApplyOutcome, Error> {
        let json = match check_siblings(&theirs.lineage).and_then(|()| check_latest(text)) {
            Ok(json) => json,
            Err(reason) => return Ok(ApplyOutcome::Rejected(reason)),
        };
        let ours = self.staged(theirs.hash).clone();
        let received = Sibling { dots: theirs.lineage.dots.clone(), origin: theirs.origin, stamp, json: json.clone() };
        let versions = std::iter::once(received).chain(theirs.lineage.siblings.iter().cloned());
        let joined = joined_versions(versions_of(&ours).into_iter().chain(versions), covered);
        let is_theirs = joined.as_ref().is_some_and(|(newest, lineage)| {
            *lineage == theirs.lineage && newest.stamp == stamp && newest.json == json
        });
        self.keep_latest(theirs, ours, joined, is_theirs)
    }

    /// Writes the joined versions of a register unless they equal the stored ones.
    fn keep_latest(
        &mut self,
        theirs: &ReceivedVersion,
        ours: Record,
        joined: Option<(Sibling, Lineage)>,
        is_theirs: bool,
    ) -> Result<ApplyOutcome, Error> {
        let (Some((newest, lineage)), Content::Latest { stamp, json }) = (joined, &ours.content) else {
            return Err(Error::Bug("a register that survives has no version".into()));
        };
        if newest.stamp == *stamp && newest.json == *json && lineage == ours.lineage {
            return Ok(self.held(theirs));
        }
        self.copies.note(self.now, theirs.hash, stamp, &newest.stamp);
        if self.is_forgotten((stamp, json), &newest.stamp, &newest.json)
            && !self.copies.goes_on(&theirs.hash, newest.stamp.run)
        {
            // Keep the local content, under a stamp above the forgotten one.
            let (lineage, counter) = self.next_latest(&lineage, newest.stamp.counter);
            let above = self.stamp(counter);
            self.copies.note(self.now, theirs.hash, &newest.stamp, &above);
            let content = Content::Latest { stamp: above, json: json.clone() };
            let record = Record { incarnation: lineage.incarnation(), content, lineage, ..ours };
            self.change(theirs.hash, record, None, false, 0);
            return Ok(ApplyOutcome::Applied);
        }
        let from = if is_theirs { self.source(theirs.from)? } else { 0 };
        let content = Content::Latest { stamp: newest.stamp, json: newest.json };
        let (incarnation, origin) = (lineage.incarnation(), newest.origin);
        self.change(theirs.hash, Record { incarnation, origin, lineage, content, ..ours }, None, false, from);
        Ok(ApplyOutcome::Applied)
    }

    fn merge(&mut self, theirs: &ReceivedVersion, merged: &Merged, covered: Covered) -> Result<ApplyOutcome, Error> {
        if let Err(cause) = chunk::check(&merged.chunks, CHUNK_ROWS) {
            return Ok(ApplyOutcome::Rejected(cause.to_string()));
        }
        let ours = self.staged(theirs.hash);
        let size = ours.history().map_or(0, History::size);
        if size + merged.chunks.len() > MERGED_BYTES {
            let bytes = merged.chunks.len();
            return Ok(ApplyOutcome::Rejected(format!(
                "{bytes} bytes more than the {size} that are here would exceed the limit of {MERGED_BYTES}"
            )));
        }
        let ours = &ours.lineage;
        let all = ours.dots.union(&theirs.lineage.dots);
        let mut lineage = Lineage { dots: all.outside(&covered), covered, siblings: Vec::new() };
        lineage.bound();
        let (is_held, is_whole) = (lineage == *ours, lineage.dots == all);
        let mut doc = self.take_doc(theirs.hash)?;
        let before = doc.heads();
        // The edits of creations that are now covered may have to be made again.
        let old = (!is_whole).then(|| doc.clone());
        let applied = match apply_to(&mut doc, merged) {
            Ok(Applied::Missing) => {
                // `doc` has some of the changes now: load it again.
                let doc = self.take_doc(theirs.hash)?;
                let have = doc.sample();
                self.put_back(theirs.hash, doc);
                return Ok(ApplyOutcome::MissingBase(have));
            }
            Ok(_) if doc.rows() > MERGED_ROWS => {
                let rows = doc.rows();
                return Ok(ApplyOutcome::Rejected(format!(
                    "merged with what is here it would have {rows} operations; the limit is {MERGED_ROWS}"
                )));
            }
            Ok(applied) => applied,
            Err(cause) => return Ok(ApplyOutcome::Rejected(cause.to_string())),
        };
        let left = if is_whole { Ok(None) } else { doc.without(|dot| lineage.covered.covers(dot)) };
        let left = match left {
            Ok(left) => left,
            Err(cause) => return Ok(ApplyOutcome::Rejected(cause.to_string())),
        };
        let mut doc = left.unwrap_or(doc);
        if let Some(old) = old {
            self.rebase(&mut doc, &old, theirs, &lineage.covered);
        }
        if is_held && doc.heads() == before {
            self.put_back(theirs.hash, doc);
            return Ok(self.held(theirs));
        }
        // If every change was new and single, the stored history grows by exactly the received bytes.
        let news = (applied == Applied::AllNew && is_whole).then_some(&merged.chunks);
        self.store_merge(theirs, (lineage, is_whole), doc, &before, news.cloned())
    }

    fn store_merge(
        &mut self,
        theirs: &ReceivedVersion,
        (lineage, is_whole): (Lineage, bool),
        mut doc: Doc,
        before: &[[u8; 32]],
        news: Option<Vec<u8>>,
    ) -> Result<ApplyOutcome, Error> {
        doc.note_change(news.as_deref());
        // If none of the stored heads is left, the sender has built on all of them and holds exactly this version.
        let ours_left = doc.heads().iter().any(|head| before.contains(head));
        let is_theirs = !ours_left && is_whole && lineage == theirs.lineage;
        let from = if is_theirs { self.source(theirs.from)? } else { 0 };
        let Some(record) = self.load(theirs.hash)?.record.take() else {
            return Err(Error::Bug("a merged document vanished from its batch".into()));
        };
        let content = if doc.heads() == before {
            record.content
        } else if is_whole {
            merged_content(&doc, Some(record.content), news)
        } else {
            whole(&doc)
        };
        // The actor depends on the covered creations (`Writer::actor`).
        doc.act_as(self.writer.actor(&theirs.hash, &lineage.covered));
        let (origin, incarnation) = (theirs.origin, lineage.incarnation());
        let record = Record { origin, incarnation, lineage, content, ..record };
        self.change(theirs.hash, record, Some(doc), false, from);
        Ok(ApplyOutcome::Applied)
    }

    /// Keeps the stored version, which supersedes the peer's. A comparison sends only the version of the higher order; if that
    /// is the peer's, the stored one is written again, so that the peer receives it.
    fn held(&mut self, theirs: &ReceivedVersion) -> ApplyOutcome {
        let ours = self.staged(theirs.hash);
        if ours.order() < theirs.order {
            let (record, doc) = (ours.clone(), self.loaded(theirs.hash));
            self.change(theirs.hash, record, doc, false, 0);
        }
        ApplyOutcome::Applied
    }

    /// Takes the loaded document of a staged record, if it has one.
    fn loaded(&mut self, hash: KeyHash) -> Option<Doc> {
        self.batch.staged.get_mut(&hash)?.doc.take()
    }

    /// Returns true if a version that would replace the stored one was written by this node in a past that this database does
    /// not remember (a replaced disk, an old backup), while this node has written since.
    fn is_forgotten(&self, (ours, json): (&Stamp, &str), theirs: &Stamp, text: &str) -> bool {
        let runs = &self.writer.runs;
        let us = self.writer.config.node;
        let since = runs.get(&ours.run).is_some_and(|ours| runs.get(&theirs.run).is_none_or(|theirs| theirs < ours));
        theirs.node == us && ours.node == us && since && json != text
    }
}

impl Lineage {
    /// Enforces the limit of live creations: those of the lowest incarnations beyond it count as covered.
    fn bound(&mut self) {
        if self.dots.len() <= crate::store::LIVE_DOTS {
            return;
        }
        let mut all: Vec<Dot> = self.dots.iter().copied().collect();
        all.sort_unstable_by_key(|dot| std::cmp::Reverse((dot.incarnation, dot.writer)));
        let lowest = all.split_off(crate::store::LIVE_DOTS);
        self.covered = self.covered.with(&lowest);
        self.dots = self.dots.outside(&self.covered);
    }
}

/// Reads a received document on its own, or returns `None` if its base is missing.
fn read_alone(merged: &Merged) -> Result<Option<Doc>, String> {
    chunk::check(&merged.chunks, CHUNK_ROWS).map_err(|cause| cause.to_string())?;
    let mut doc = Doc::new([0; 16]);
    let applied = apply_to(&mut doc, merged).map_err(|cause| cause.to_string())?;
    Ok((applied != Applied::Missing && !doc.heads().is_empty()).then_some(doc))
}

/// Returns the creations that are covered after the join, and true for each side that survives it.
fn outcome(ours: &Record, theirs: &ReceivedVersion) -> (Covered, (bool, bool)) {
    let mut covered = ours.lineage.covered.join(&theirs.lineage.covered);
    let lives = |covered: &Covered| (ours.lineage.survives(covered), theirs.lineage.survives(covered));
    if lives(&covered) == (true, true) && ours.kind != theirs.kind {
        // The next put covers a live record of another kind than its collection's; here the other side has made that put.
        let lower = if ours.kind < theirs.kind { &ours.lineage } else { &theirs.lineage };
        covered = covered.join(&lower.buried().covered);
    }
    let lives = lives(&covered);
    (covered, lives)
}

/// Returns the content of a document as one chunk.
fn whole(doc: &Doc) -> Content {
    merged_content(doc, None, None)
}

/// Returns the order of a received version.
fn order(incoming: &Incoming) -> u64 {
    let (deleted, counter) = match &incoming.body {
        Body::Tombstone => (0x80, 0),
        Body::Latest { stamp, .. } => (0, stamp.counter),
        _ => (0, 0),
    };
    VersionHash::order_of(incoming.kind as u8 | deleted, incoming.incarnation, counter)
}

/// Returns every version of a register.
fn versions_of(record: &Record) -> Vec<Sibling> {
    let Content::Latest { stamp, json } = &record.content else { return Vec::new() };
    let (dots, origin) = (record.lineage.dots.clone(), record.origin);
    let newest = Sibling { dots, origin, stamp: *stamp, json: json.clone() };
    std::iter::once(newest).chain(record.lineage.siblings.iter().cloned()).collect()
}

/// Returns the newest version of every creation that is not covered: the newest of all, and the lineage with the others as its
/// siblings. `None` if all are covered.
fn joined_versions(versions: impl IntoIterator<Item = Sibling>, mut covered: Covered) -> Option<(Sibling, Lineage)> {
    let mut versions: Vec<Sibling> = versions.into_iter().collect();
    let rank = |version: &Sibling| (version.stamp, digest(&SHA256, version.json.as_bytes()).as_ref().to_vec());
    versions.sort_by_cached_key(|version| std::cmp::Reverse(rank(version)));
    // Versions are in order, newest first: the first one with a creation is its newest.
    let mut newest_of: BTreeMap<Dot, usize> = BTreeMap::new();
    for (place, version) in versions.iter().enumerate() {
        for dot in version.dots.iter().filter(|dot| !covered.covers(dot)) {
            newest_of.entry(*dot).or_insert(place);
        }
    }
    let mut left: BTreeMap<usize, Vec<Dot>> = BTreeMap::new();
    newest_of.into_iter().for_each(|(dot, place)| left.entry(place).or_default().push(dot));
    // Equal versions of different creations become one.
    let mut kept: Vec<Sibling> = Vec::new();
    for (place, dots) in left {
        let dots: Dots = dots.into_iter().collect();
        let version = &versions[place];
        match kept.last_mut() {
            Some(last) if last.stamp == version.stamp && last.json == version.json => {
                last.dots = last.dots.union(&dots);
            }
            _ => kept.push(Sibling { dots, ..version.clone() }),
        }
    }
    let bytes = |kept: &[Sibling]| kept.iter().skip(1).map(|sibling| sibling.json.len()).sum::<usize>();
    // Drop the oldest siblings beyond the limits. That may cover dots of the others, which are then joined again.
    while kept.len() > 1 + SIBLINGS || bytes(&kept) > DOCUMENT_JSON_BYTES {
        let Some(oldest) = kept.pop() else { break };
        covered = covered.with(oldest.dots.iter());
        if !kept.iter().flat_map(|version| version.dots.iter()).all(|dot| !covered.covers(dot)) {
            return joined_versions(kept, covered);
        }
    }
    let mut kept = kept.into_iter();
    let newest = kept.next()?;
    let (dots, siblings) = (newest.dots.clone(), kept.collect());
    Some((newest, Lineage { dots, covered, siblings }))
}

fn check_siblings(lineage: &Lineage) -> Result<(), String> {
    let bytes: usize = lineage.siblings.iter().map(|sibling| sibling.json.len()).sum();
    if bytes > DOCUMENT_JSON_BYTES {
        return Err(format!("its siblings are {bytes} bytes of JSON; the limit is {DOCUMENT_JSON_BYTES}"));
    }
    lineage.siblings.iter().try_for_each(|sibling| {
        if sibling.stamp.counter >= MAX_COUNTER {
            return Err(format!("counter {} of a sibling", sibling.stamp.counter));
        }
        json::parse_any_size(sibling.json.as_bytes()).map(drop).map_err(|cause| cause.to_string())
    })
}

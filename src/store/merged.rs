//! One `merged` document: a JSON object stored as an Automerge document, so that concurrent edits merge.
//!
//! Owns the mapping of JSON to Automerge and back, the computation of the smallest change for a put, and the form of
//! concurrent values. Must show the same JSON on every node that holds the same changes, in any order of arrival. Must never
//! trust the changes of a peer, neither in their form nor in their nesting.
//!
//! `docs/merged.md` shows by example what a merge does.

mod align;
mod chunk;
mod creation;
mod edit;
mod error;
mod rebase;
mod resident;
mod scalar;
mod view;

use std::cell::OnceCell;

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, ChangeHash, PatchLog, ReadDoc, SaveOptions};
use serde_json::{Map, Value};

pub use error::MergedError;
pub use rebase::Rebased;
use resident::Slack;
use view::{DocumentView, MapNode};

use crate::store::chunk::Expansion;
use crate::store::json::same_object;

/// SHA-256 of a change, as in heads.
pub type Hash = [u8; 32];

/// Maximum number of hashes in the description of a document's changes.
const SAMPLE_HASHES: usize = 32;
/// Number of the newest changes on a put's base that are searched for a repetition of the put.
const REPEATS: usize = 8;
/// Maximum number of elements that a put with a superseded base passes on the way to those it changes: about 3 s of work.
const PASSED_AT_BASE: usize = 1 << 24;

/// A loaded document.
#[derive(Clone, Debug)]
pub struct Doc {
    automerge: Automerge,
    /// Content, if known.
    shown: OnceCell<Map<String, Value>>,
    slack: Slack,
    /// Size of the document's chunks once expanded, if known.
    expansion: Option<Expansion>,
}

/// Effect of received changes on a document.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Applied {
    /// All changes were new, and each was a chunk: their bytes are exactly what the document gained.
    AllNew,
    /// At least one change was new.
    Changed,
    /// All changes were known.
    Nothing,
    /// Some changes build on missing ones. The document must not be used any more.
    Missing,
}

impl Doc {
    /// Returns an empty document that `actor` will write to.
    #[must_use]
    pub fn new(actor: [u8; 16]) -> Doc {
        Doc::of(Automerge::new(), actor, Slack::default())
    }

    /// Loads the document in `chunks`, which this node stored.
    ///
    /// # Errors
    /// [`MergedError::Damaged`] if they are not the stored bytes.
    pub fn load(chunks: &[u8], actor: [u8; 16]) -> Result<Doc, MergedError> {
        let damaged = |cause: &dyn std::fmt::Display| MergedError::Damaged(cause.to_string());
        let (first, rest) = chunks.split_at(chunk::whole_length(chunks).unwrap_or(0).min(chunks.len()));
        let mut automerge = Automerge::load(first).map_err(|cause| damaged(&cause))?;
        let mut slack = Slack::of_loaded(first.len());
        let changes =
            chunk::split(rest).map(|chunk| chunk.map(chunk::Chunk::into_changes)).collect::<Result<Vec<_>, _>>();
        let changes = changes.map_err(|cause| damaged(&cause))?.concat();
        slack.apply(&mut automerge, changes).map_err(|cause| damaged(&cause))?;
        if !automerge.get_missing_deps(&[]).is_empty() {
            return Err(MergedError::Damaged("some of its changes are missing".into()));
        }
        Ok(Doc::of(automerge, actor, slack))
    }

    fn of(automerge: Automerge, actor: [u8; 16], slack: Slack) -> Doc {
        let automerge = automerge.with_actor(ActorId::from(actor));
        Doc { automerge, shown: OnceCell::new(), slack, expansion: None }
    }

    /// Returns the newest changes, sorted. Two documents with equal heads are equal.
    #[must_use]
    pub fn heads(&self) -> Vec<Hash> {
        self.automerge.get_heads().into_iter().map(|head| head.0).collect()
    }

    /// Returns the content.
    #[must_use]
    pub fn json(&self) -> &Map<String, Value> {
        self.shown.get_or_init(|| DocumentView::read(&self.automerge).root.into_json())
    }

    /// Makes `wanted` the content, by one change of the fields and elements that differ from the content at `base` (or from
    /// the current one). Later changes merge with it. Makes no change if nothing differs, nor if a change on the same base
    /// made the same content, so that a put sent twice counts once.
    ///
    /// # Errors
    /// [`MergedError::UnknownBase`] if `base` names a missing change, [`MergedError::TooMuchAtBase`] if finding the
    /// differences as of `base` would take too long. After these and [`MergedError::Refused`], the document is unchanged.
    pub fn put(&mut self, base: Option<&[Hash]>, wanted: &Map<String, Value>) -> Result<(), MergedError> {
        let before = self.automerge.stats().num_ops;
        let outcome = self.put_over(base, wanted);
        let operations = self.automerge.stats().num_ops - before;
        self.slack.grew(&mut self.automerge, operations);
        outcome
    }

    fn put_over(&mut self, base: Option<&[Hash]>, wanted: &Map<String, Value>) -> Result<(), MergedError> {
        let Some(base) = base else { return self.put_now(wanted) };
        let mut base: Vec<_> = base.iter().copied().map(ChangeHash).collect();
        base.sort_unstable();
        if base == self.automerge.get_heads() {
            return self.put_now(wanted);
        }
        if !base.iter().all(|hash| self.knows(&hash.0)) {
            return Err(MergedError::UnknownBase);
        }
        self.put_at(&base, wanted)
    }

    fn put_now(&mut self, wanted: &Map<String, Value>) -> Result<(), MergedError> {
        let shown = self.shown.take();
        if shown.as_ref().is_some_and(|shown| same_object(shown, wanted)) {
            self.shown = wanted.clone().into();
            return Ok(());
        }
        if self.automerge.is_empty() {
            self.automerge.transact_with(unsigned, |tx| edit::begin(tx, wanted))
        } else {
            let root = match shown {
                Some(shown) if edit::is_flat(&shown, wanted) => MapNode::flat(shown),
                _ => DocumentView::read(&self.automerge).root,
            };
            self.automerge.transact_with(unsigned, |tx| edit::write(tx, &root, wanted))
        }
        .map_err(|failure| MergedError::refused(&failure.error))?;
        debug_assert!(
            same_object(&DocumentView::read(&self.automerge).root.into_json(), wanted),
            "a put shows as it was put"
        );
        self.shown = wanted.clone().into();
        Ok(())
    }

    /// Returns the content at `base`: the changes it names and all they build on, which a writer with this base saw.
    ///
    /// # Errors
    /// [`MergedError::UnknownBase`] if `base` names a missing change.
    pub fn content_at(&mut self, base: &[Hash]) -> Result<Map<String, Value>, MergedError> {
        if !base.iter().all(|hash| self.knows(hash)) {
            return Err(MergedError::UnknownBase);
        }
        let mut base: Vec<_> = base.iter().copied().map(ChangeHash).collect();
        base.sort_unstable();
        if base == self.automerge.get_heads() { Ok(self.json().clone()) } else { self.read_at(&base) }
    }

    fn read_at(&mut self, heads: &[ChangeHash]) -> Result<Map<String, Value>, MergedError> {
        let transaction = self.automerge.transaction_at(PatchLog::inactive(), heads);
        let transaction = transaction.map_err(|cause| MergedError::Refused(cause.to_string()))?;
        let content = DocumentView::read(&transaction).root.into_json();
        transaction.rollback();
        Ok(content)
    }

    /// Returns true if a change on exactly `base` made `wanted`: the same put, sent again.
    fn was_put(&mut self, base: &[ChangeHash], wanted: &Map<String, Value>) -> Result<bool, MergedError> {
        let changes = self.automerge.get_changes_meta(base);
        let made_on_base = changes.iter().rev().filter(|change| {
            let mut deps = change.deps.clone();
            deps.sort_unstable();
            deps == base
        });
        let made_on_base: Vec<_> = made_on_base.take(REPEATS).map(|change| change.hash).collect();
        for hash in made_on_base {
            if same_object(&self.read_at(&[hash])?, wanted) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn put_at(&mut self, base: &[ChangeHash], wanted: &Map<String, Value>) -> Result<(), MergedError> {
        if self.was_put(base, wanted)? {
            return Ok(());
        }
        self.shown.take();
        let transaction = self.automerge.transaction_at(PatchLog::inactive(), base);
        let mut transaction = transaction.map_err(|cause| MergedError::Refused(cause.to_string()))?;
        // Read through the transaction, which shows the document as it was at `base`.
        let view = DocumentView::read(&transaction);
        if edit::passed(&view.root, wanted) > PASSED_AT_BASE {
            transaction.rollback();
            return Err(MergedError::TooMuchAtBase);
        }
        edit::write(&mut transaction, &view.root, wanted)?;
        transaction.commit_with(unsigned(&()));
        Ok(())
    }

    /// Returns true if the document has the change with this hash.
    #[must_use]
    pub fn knows(&self, hash: &Hash) -> bool {
        self.automerge.get_change_meta_by_hash(&ChangeHash(*hash)).is_some()
    }

    /// Returns the whole document as one uncompressed document chunk.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        self.automerge.save_with_options(SaveOptions { deflate: false, retain_orphans: false })
    }

    /// Returns uncompressed chunks of the changes that a node lacks which holds `heads` and all they build on. Unknown heads
    /// are ignored; if none is known, the result is the whole document.
    #[must_use]
    pub fn changes_after(&self, heads: &[Hash]) -> Vec<u8> {
        let known: Vec<_> = heads.iter().filter(|hash| self.knows(hash)).copied().map(ChangeHash).collect();
        if known.is_empty() { self.save() } else { self.automerge.save_after(&known) }
    }

    /// Applies chunks from a peer.
    ///
    /// # Errors
    /// The chunks are malformed, contradict existing changes, or nest deeper than a document may. After an error, and after
    /// [`Applied::Missing`], the document is incomplete and must be dropped.
    pub fn apply(&mut self, chunks: &[u8]) -> Result<Applied, MergedError> {
        let (before, held) = (self.automerge.get_heads(), self.automerge.stats().num_changes);
        let (changes, single) = self.read_chunks(chunks)?;
        let brought = changes.len() as u64;
        self.slack.apply(&mut self.automerge, changes)?;
        if !self.automerge.get_missing_deps(&[]).is_empty() {
            return Ok(Applied::Missing);
        }
        if self.automerge.get_heads() == before {
            return Ok(Applied::Nothing);
        }
        let view = DocumentView::read(&self.automerge);
        if view.too_deep {
            return Err(MergedError::TooDeep);
        }
        self.shown = view.root.into_json().into();
        let all_new = single && self.automerge.stats().num_changes == held + brought;
        Ok(if all_new { Applied::AllNew } else { Applied::Changed })
    }

    /// Reads the changes in `chunks`; returns true with them if each is a separate chunk. A document chunk is loaded directly
    /// into an empty document, which is cheaper.
    fn read_chunks(&mut self, chunks: &[u8]) -> Result<(Vec<automerge::Change>, bool), MergedError> {
        let (mut changes, mut single) = (Vec::new(), true);
        for chunk in chunk::split(chunks) {
            match chunk? {
                chunk::Chunk::Change(change) => changes.push(*change),
                chunk::Chunk::Document(document) if self.automerge.is_empty() && changes.is_empty() => {
                    self.automerge = document.with_actor(self.automerge.get_actor().clone());
                    self.slack = Slack::of_loaded(chunks.len());
                    single = false;
                }
                chunk::Chunk::Document(document) => {
                    changes.extend(document.get_changes(&[]));
                    single = false;
                }
            }
        }
        Ok((changes, single))
    }

    /// Returns a few hashes that describe the document's changes: its heads, then older changes at exponentially growing
    /// distances.
    #[must_use]
    pub fn sample(&self) -> Vec<Hash> {
        let mut sample = self.heads();
        sample.truncate(SAMPLE_HASHES);
        let changes = self.automerge.get_changes_meta(&[]);
        let mut distance = 1;
        while sample.len() < SAMPLE_HASHES && distance <= changes.len() {
            let hash = changes[changes.len() - distance].hash.0;
            if !sample.contains(&hash) {
                sample.push(hash);
            }
            distance *= 2;
        }
        sample
    }

    /// Returns the expanded size of the document's chunks, counted once and then updated by [`Doc::note_change`].
    pub fn expansion(&mut self) -> Expansion {
        // A damaged save would be found when it is loaded, so the error is ignored here.
        *self.expansion.get_or_insert_with(|| {
            let whole = self.automerge.save_with_options(SaveOptions { deflate: false, retain_orphans: false });
            Expansion::measure(&whole).unwrap_or_default()
        })
    }

    /// Counts the expanded size of `chunks`, which are all chunks of the document.
    pub fn count_expansion(&mut self, chunks: &[u8]) {
        self.expansion = Expansion::measure(chunks).ok();
    }

    /// Adds the chunks that the document gained to its expanded size; `None` if they are unknown, and then so is the size.
    pub fn note_change(&mut self, news: Option<&[u8]>) {
        let more = news.and_then(|news| Expansion::measure(news).ok());
        self.expansion = self.expansion.zip(more).map(|(before, more)| before.and(more));
    }

    /// Returns the number of actors and the number of changes.
    #[must_use]
    pub fn authorship(&self) -> (u64, u64) {
        let stats = self.automerge.stats();
        (stats.num_actors, stats.num_changes)
    }

    /// Returns the cost of loading the document in rows: one for each operation, three for each change.
    #[must_use]
    pub fn rows(&self) -> u64 {
        let stats = self.automerge.stats();
        stats.num_ops + 3 * stats.num_changes
    }

    /// Returns the approximate memory of the document in bytes, for the cache; its history has `history_bytes`.
    #[must_use]
    pub fn resident_bytes(&self, history_bytes: usize) -> usize {
        let shown = self.shown.get().map_or(0, resident::of_object);
        resident::of_document(&self.automerge.stats(), history_bytes).saturating_add(shown)
    }
}

/// Returns options without message and time, so that the bytes of a change depend on nothing but its content.
fn unsigned(_outcome: &()) -> CommitOptions {
    CommitOptions::default().with_time(0)
}

#[cfg(test)]
mod tests;

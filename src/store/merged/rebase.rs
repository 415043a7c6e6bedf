//! Makes edits that a compaction has not seen again on top of it.
//!
//! The first change of a compaction names in its message the changes of each actor that it had seen (docs/merged.md,
//! "Compacting while others edit"). A node with further changes works out their effect and writes it as one change. The bytes
//! of that change depend only on the two documents, so nodes with the same documents write the same change.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, Change, ChangeHash};
use ring::digest::{Context, SHA256, digest};
use serde_json::{Map, Value};

use super::creation::creation;
use super::view::DocumentView;
use super::{Doc, MergedError, edit};
use crate::store::Dot;

/// First word of a message that holds a clock.
const PREFIX: &str = "seen";
/// Maximum number of actors of earlier compactions in a clock, besides those of the document; the newest are kept.
const EARLIER_ACTORS: usize = 64;
/// Maximum number of actors in a clock. A document with more is compacted without one.
const ACTORS: usize = 1_024;

/// First 8 bytes of SHA-256 over an actor.
type Tag = u64;

/// Number of seen changes of each actor.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Clock(BTreeMap<Tag, u64>);

/// Outcome for the edits that a compaction had not seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rebased {
    /// There were none.
    Nothing,
    /// They were made again.
    Again,
    /// This many changes were dropped: no compaction leads from one document to the other.
    Dropped(usize),
}

fn tag(actor: &ActorId) -> Tag {
    let mut first = [0; 8];
    first.copy_from_slice(&digest(&SHA256, actor.to_bytes()).as_ref()[..8]);
    Tag::from_be_bytes(first)
}

impl Clock {
    fn saw(&self, actor: &ActorId, sequence: u64) -> bool {
        self.0.get(&tag(actor)).is_some_and(|seen| *seen >= sequence)
    }

    /// Adds the changes that `other` has seen, for at most this many new actors.
    fn join(&mut self, other: &Clock, mut new_actors: usize) {
        for (tag, seen) in &other.0 {
            if let Some(known) = self.0.get_mut(tag) {
                *known = (*known).max(*seen);
            } else if new_actors > 0 {
                new_actors -= 1;
                self.0.insert(*tag, *seen);
            }
        }
    }

    /// Returns the clock as a message, or `None` if it has too many actors.
    fn message(&self) -> Option<String> {
        if self.0.len() > ACTORS {
            return None;
        }
        let entries = self.0.iter().map(|(tag, seen)| format!(" {tag:016x}:{seen:x}"));
        Some(PREFIX.to_owned() + &entries.collect::<String>())
    }

    fn parse(message: &str) -> Option<Clock> {
        let entry = |text: &str| {
            let (tag, seen) = text.split_once(':')?;
            Some((Tag::from_str_radix(tag, 16).ok()?, u64::from_str_radix(seen, 16).ok()?))
        };
        let entries: BTreeMap<_, _> =
            message.strip_prefix(PREFIX)?.split_ascii_whitespace().map(entry).collect::<Option<_>>()?;
        (entries.len() <= ACTORS).then_some(Clock(entries))
    }
}

/// Returns the clock in the message of a change.
fn clock_of(change: &Change) -> Option<Clock> {
    Clock::parse(change.message()?)
}

impl Doc {
    /// Returns the clock of this document, for the message of a compaction.
    fn clock(&self) -> Clock {
        let (mut clock, mut earlier) = (Clock::default(), Vec::new());
        for change in self.automerge.get_changes(&[]) {
            let seen = clock.0.entry(tag(change.actor_id())).or_default();
            *seen = (*seen).max(change.seq());
            earlier.extend(clock_of(&change));
        }
        let most = clock.0.len() + EARLIER_ACTORS;
        for older in earlier.into_iter().rev() {
            let room = most.saturating_sub(clock.0.len());
            clock.join(&older, room);
        }
        clock
    }

    /// Returns the message for a compaction of this document.
    #[must_use]
    pub fn compaction_message(&self) -> Option<String> {
        self.clock().message()
    }

    /// Returns true if the document began with a compaction that names the changes it had seen.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        self.automerge.get_changes_meta(&[]).iter().any(|change| {
            let message = change.message.as_deref().filter(|_| change.deps.is_empty());
            message.is_some_and(|message| message.starts_with(PREFIX))
        })
    }

    /// Makes again, in this document, the edits in `old` that the compactions in this one had not seen. It builds on a
    /// compaction that is not covered itself: other nodes drop a change that descends from covered creations only, by
    /// [`Doc::without`].
    ///
    /// # Errors
    /// One of the documents is damaged.
    pub fn rebase(&mut self, old: &Doc, is_covered: impl Fn(&Dot) -> bool) -> Result<Rebased, MergedError> {
        let (ours, theirs) = (old.automerge.get_changes(&[]), self.automerge.get_changes(&[]));
        let held: HashSet<ChangeHash> = theirs.iter().map(Change::hash).collect();
        let mut seen = Clock::default();
        theirs.iter().filter_map(clock_of).for_each(|clock| seen.join(&clock, usize::MAX));
        let is_known = |change: &Change| held.contains(&change.hash()) || seen.saw(change.actor_id(), change.seq());
        let unseen = ours.iter().filter(|change| !is_known(change)).count();
        if unseen == 0 {
            return Ok(Rebased::Nothing);
        }
        let compacts_ours = |change: &&Change| {
            let clock = clock_of(change).filter(|_| change.deps().is_empty() && !is_covered(&creation(change)));
            clock.is_some_and(|clock| ours.iter().any(|ours| clock.saw(ours.actor_id(), ours.seq())))
        };
        // The smallest hash, so that all nodes build on the same compaction.
        let Some(compaction) = theirs.iter().filter(compacts_ours).map(Change::hash).min() else {
            return Ok(Rebased::Dropped(unseen));
        };
        // A three-way merge: from the last content that the compactions had seen, to that of the compaction and to that of
        // `old`.
        let common = heads(ours.iter().filter(|change| is_known(change)));
        let before = at(&old.automerge, &common)?;
        let compacted = at(&self.automerge, &[compaction])?;
        let wanted = three_way(&before, &compacted, old.json())?;
        let held = self.automerge.get_heads();
        self.put_again(compaction, old, &wanted)?;
        // The change always has the same bytes: it may have arrived, or been made here, before.
        Ok(if self.automerge.get_heads() == held { Rebased::Nothing } else { Rebased::Again })
    }

    /// Writes `wanted` over a compaction, as the effect of `old`.
    fn put_again(&mut self, compaction: ChangeHash, old: &Doc, wanted: &Map<String, Value>) -> Result<(), MergedError> {
        let mut context = Context::new(&SHA256);
        context.update(b"peat-rebase");
        context.update(&compaction.0);
        old.heads().iter().for_each(|head| context.update(head));
        context.update(crate::store::json::to_text(wanted).as_bytes());
        let actor = ActorId::from(&context.finish().as_ref()[..16]);
        // Automerge numbers operations after all those of a document. The change is made in a document with only the
        // compaction, so that its bytes are the same on every node.
        let mut alone = self.automerge.fork_at(&[compaction])?.with_actor(actor);
        let view = DocumentView::read(&alone);
        let message = old.compaction_message();
        let options =
            |(): &()| message.into_iter().fold(CommitOptions::default().with_time(0), CommitOptions::with_message);
        let written = alone.transact_with(options, |tx| edit::write(tx, &view.root, wanted));
        written.map_err(|failure| MergedError::refused(&failure.error))?;
        self.shown.take();
        self.slack.apply(&mut self.automerge, alone.get_changes(&[compaction]))?;
        Ok(())
    }
}

/// Returns the changes, of a causally closed set, that no other builds on.
fn heads<'a>(changes: impl Iterator<Item = &'a Change> + Clone) -> Vec<ChangeHash> {
    let built_on: BTreeSet<ChangeHash> = changes.clone().flat_map(|change| change.deps().iter().copied()).collect();
    changes.map(Change::hash).filter(|hash| !built_on.contains(hash)).collect()
}

/// Returns the content at these heads.
fn at(document: &Automerge, heads: &[ChangeHash]) -> Result<Map<String, Value>, MergedError> {
    if heads.is_empty() {
        return Ok(Map::new());
    }
    Ok(DocumentView::read(&document.fork_at(heads)?).root.into_json())
}

/// Returns `theirs` merged with the changes that lead from `before` to `ours`.
fn three_way(
    before: &Map<String, Value>,
    theirs: &Map<String, Value>,
    ours: &Map<String, Value>,
) -> Result<Map<String, Value>, MergedError> {
    let mut scratch = Doc::create([1; 16], 1, None, before)?;
    let base = scratch.heads();
    scratch.act_as([2; 16]);
    scratch.put(Some(&base), theirs)?;
    scratch.act_as([3; 16]);
    scratch.put(Some(&base), ours)?;
    Ok(scratch.json().clone())
}

//! Edits that a compaction has not seen, made again on top of it.
//!
//! A compaction's first change names, in its message, how far it had seen the changes of each actor (docs/merged.md,
//! "Compacting while others edit"). A node that holds further changes works out what they did and writes that as one change. The
//! bytes of that change depend on nothing but the two documents, so nodes that hold the same write the same.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use automerge::transaction::CommitOptions;
use automerge::{ActorId, Automerge, Change, ChangeHash};
use ring::digest::{Context, SHA256, digest};
use serde_json::{Map, Value};

use super::creation::creation;
use super::view::View;
use super::{Doc, MergedError, edit};
use crate::store::Dot;

/// What a message that holds a clock begins with.
const PREFIX: &str = "seen";
/// Actors of earlier compactions that a clock names besides those of the document; the newest ones.
const EARLIER_ACTORS: usize = 64;
/// Actors in a clock. A document that more have written to is compacted without one.
const ACTORS: usize = 1_024;

/// The first 8 bytes of SHA-256 over an actor.
type Tag = u64;

/// How many changes of each actor were seen.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Clock(BTreeMap<Tag, u64>);

/// What became of the edits that a compaction had not seen.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rebased {
    /// There were none.
    Nothing,
    /// They are made again.
    Again,
    /// This many changes are not: no compaction leads from one document to the other.
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

    /// Sees what `other` has seen, of new actors at most this many.
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

    /// As a message; empty when there are too many actors to name.
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

/// The clock that a change has in its message.
fn clock_of(change: &Change) -> Option<Clock> {
    Clock::parse(change.message()?)
}

impl Doc {
    /// How far this document has seen every actor, for the message of a compaction.
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

    /// The message that a compaction of this document has.
    #[must_use]
    pub fn compaction_message(&self) -> Option<String> {
        self.clock().message()
    }

    /// Whether it began with a compaction that says what it had seen.
    #[must_use]
    pub fn is_compacted(&self) -> bool {
        self.automerge.get_changes_meta(&[]).iter().any(|change| {
            let message = change.message.as_deref().filter(|_| change.deps.is_empty());
            message.is_some_and(|message| message.starts_with(PREFIX))
        })
    }

    /// Makes again, in this document, what `old` holds and the compactions in this one had not seen, over a compaction that is not
    /// covered itself: a change that descends from covered creations only would be dropped by [`Doc::without`] on other nodes.
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
        let Some(compaction) = theirs.iter().filter(compacts_ours).map(Change::hash).min() else {
            return Ok(Rebased::Dropped(unseen));
        };
        let common = heads(ours.iter().filter(|change| is_known(change)));
        let before = at(&old.automerge, &common)?;
        let compacted = at(&self.automerge, &[compaction])?;
        let wanted = three_way(&before, &compacted, old.json())?;
        let held = self.automerge.get_heads();
        self.put_again(compaction, old, &wanted)?;
        // The change has the same bytes each time: it may have come, or been made here, before.
        Ok(if self.automerge.get_heads() == held { Rebased::Nothing } else { Rebased::Again })
    }

    /// Writes `wanted` over a compaction, as what `old` did.
    fn put_again(&mut self, compaction: ChangeHash, old: &Doc, wanted: &Map<String, Value>) -> Result<(), MergedError> {
        let mut context = Context::new(&SHA256);
        context.update(b"peat-rebase");
        context.update(&compaction.0);
        old.heads().iter().for_each(|head| context.update(head));
        context.update(crate::store::json::to_text(wanted).as_bytes());
        let actor = ActorId::from(&context.finish().as_ref()[..16]);
        // Automerge numbers operations after all that a document holds. So that the change has the same bytes on every node, it is made
        // where nothing but the compaction is.
        let mut alone = self.automerge.fork_at(&[compaction])?.with_actor(actor);
        let view = View::read(&alone);
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

/// Those of causally closed changes on which no other one builds.
fn heads<'a>(changes: impl Iterator<Item = &'a Change> + Clone) -> Vec<ChangeHash> {
    let built_on: BTreeSet<ChangeHash> = changes.clone().flat_map(|change| change.deps().iter().copied()).collect();
    changes.map(Change::hash).filter(|hash| !built_on.contains(hash)).collect()
}

/// The content when these were the heads.
fn at(document: &Automerge, heads: &[ChangeHash]) -> Result<Map<String, Value>, MergedError> {
    if heads.is_empty() {
        return Ok(Map::new());
    }
    Ok(View::read(&document.fork_at(heads)?).root.into_json())
}

/// `theirs` with what leads from `before` to `ours`, as a merge would have it.
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

//! Creations within a document: begins them, finds them, and removes some of them.
//!
//! A creation is a change that builds on none. Its time is its incarnation and its actor begins with its writer, so that a
//! node that merges two creations can separate them again (docs/merged.md, "Deleted and made again").

use std::collections::{HashMap, HashSet};

use automerge::transaction::CommitOptions;
use automerge::{ActorId, ChangeHash};
use serde_json::{Map, Value};

use super::{Doc, MergedError, edit};
use crate::store::Dot;

impl Doc {
    /// Returns a new document with this content. It has a first change, with `message`, even if the content is empty.
    ///
    /// # Errors
    /// The content nests too deep.
    pub fn create(
        actor: [u8; 16],
        incarnation: u64,
        message: Option<&str>,
        wanted: &Map<String, Value>,
    ) -> Result<Doc, MergedError> {
        let mut doc = Doc::new(actor);
        let time = i64::try_from(incarnation).unwrap_or(i64::MAX);
        let options =
            || message.into_iter().fold(CommitOptions::default().with_time(time), CommitOptions::with_message);
        let begun = doc.automerge.transact_with(|(): &()| options(), |tx| edit::begin(tx, wanted));
        begun.map_err(|failure| MergedError::refused(&failure.error))?;
        if doc.automerge.is_empty() {
            doc.automerge.empty_commit(options());
        }
        doc.shown = wanted.clone().into();
        Ok(doc)
    }

    /// Sets the actor of further puts. An actor must never write to two histories: see `store::stage`.
    pub fn act_as(&mut self, actor: [u8; 16]) {
        self.automerge.set_actor(ActorId::from(actor));
    }

    /// Returns the document without the changes that descend from covered creations only; `None` if that is all of it, or
    /// nothing. A change that also descends from another creation remains, and so does everything it builds on.
    ///
    /// # Errors
    /// The document is damaged.
    pub fn without(&self, is_covered: impl Fn(&Dot) -> bool) -> Result<Option<Doc>, MergedError> {
        let changes = self.automerge.get_changes(&[]);
        let places: HashMap<_, _> = changes.iter().enumerate().map(|(place, change)| (change.hash(), place)).collect();
        let builds_on = |place: usize| changes[place].deps().iter().filter_map(|hash| places.get(hash).copied());
        let mut kept = vec![false; changes.len()];
        // Changes are in causal order: first keep what descends from a live creation, then, backwards, all that it builds on.
        for place in 0..changes.len() {
            kept[place] = match changes[place].deps() {
                [] => !is_covered(&creation(&changes[place])),
                _ => builds_on(place).any(|before| kept[before]),
            };
        }
        for place in (0..changes.len()).rev().filter(|place| kept[*place]).collect::<Vec<_>>() {
            let mut open: Vec<usize> = builds_on(place).filter(|before| !kept[*before]).collect();
            while let Some(before) = open.pop() {
                if !std::mem::replace(&mut kept[before], true) {
                    open.extend(builds_on(before).filter(|before| !kept[*before]));
                }
            }
        }
        if kept.iter().all(|kept| *kept) || !kept.contains(&true) {
            return Ok(None);
        }
        let left = changes.into_iter().zip(kept).filter_map(|(change, kept)| kept.then_some(change));
        let mut doc = Doc::new([0; 16]);
        doc.slack.apply(&mut doc.automerge, left.collect())?;
        Ok(Some(doc))
    }

    /// Returns true if one of these changes descends from a creation that is not covered. Other nodes drop a change that
    /// descends from none by [`Doc::without`].
    #[must_use]
    pub fn descends_from_live(&self, heads: &[[u8; 32]], is_covered: impl Fn(&Dot) -> bool) -> bool {
        let changes = self.automerge.get_changes_meta(&[]);
        let creations = changes.iter().filter(|change| change.deps.is_empty());
        let covered: Vec<bool> =
            creations.map(|change| is_covered(&creation_of(&change.actor, change.timestamp))).collect();
        if !covered.contains(&true) {
            return true;
        }
        let by_hash: HashMap<ChangeHash, _> = changes.iter().map(|change| (change.hash, change)).collect();
        let (mut open, mut visited): (Vec<_>, HashSet<_>) =
            (heads.iter().copied().map(ChangeHash).collect(), HashSet::new());
        while let Some(hash) = open.pop() {
            let Some(change) = by_hash.get(&hash).filter(|_| visited.insert(hash)) else { continue };
            if change.deps.is_empty() && !is_covered(&creation_of(&change.actor, change.timestamp)) {
                return true;
            }
            open.extend(&change.deps);
        }
        false
    }
}

/// Returns the creation that a change without predecessors stands for.
pub(super) fn creation(change: &automerge::Change) -> Dot {
    creation_of(change.actor_id(), change.timestamp())
}

/// Returns the creation made by an actor at a time, which is its incarnation. Changes of other software yield an arbitrary
/// dot.
fn creation_of(actor: &ActorId, time: i64) -> Dot {
    let mut writer = [0; 8];
    let actor = actor.to_bytes();
    let known = actor.len().min(writer.len());
    writer[..known].copy_from_slice(&actor[..known]);
    Dot { writer, incarnation: u64::try_from(time).unwrap_or(0).max(1) }
}

//! Documents from peers: compares or merges each version with the stored one, and stages the cursors that the batch completes.

use std::collections::{BTreeMap, BTreeSet};

use crate::limits::{DOCUMENT_JSON_BYTES, RECORD_BYTES};
use crate::store::batch::Pending;
use crate::store::command::ONLY_INCARNATION;
use crate::store::merged::{Applied, Doc, MergedError};
use crate::store::stage::BatchStager;
use crate::store::write::MAX_COUNTER;
use crate::store::{
    Apply, Body, COMMANDS, CommandResult, Content, Cursor, Error, Incoming, Key, KeyHash, Kind, Lineage, Merged,
    PeerRun, Record, json,
};

/// Number of creations of a name that a peer may claim regardless of the local state: one a second for 136 years.
const PLAUSIBLE: u64 = 1 << 32;
/// Number of creations that a peer may claim beyond those known here, if that is more than `PLAUSIBLE`.
const STEP: u64 = 1 << 16;

/// Result of applying one document.
pub(super) enum ApplyOutcome {
    /// The version, or a newer one, is stored.
    Applied,
    /// The version's base is missing; these changes are here.
    MissingBase(Vec<[u8; 32]>),
    /// The version is invalid, for this reason.
    Rejected(String),
}

impl BatchStager<'_> {
    pub(super) fn apply(&mut self, apply: Apply) -> Result<Pending, Error> {
        let mut versions: BTreeMap<KeyHash, usize> = BTreeMap::new();
        apply.documents.iter().for_each(|incoming| *versions.entry(incoming.hash).or_default() += 1);
        let (mut taken, mut overtaken) = (BTreeMap::new(), Vec::new());
        for incoming in apply.documents {
            let hash = incoming.hash;
            let copy = versions.get(&hash).filter(|count| **count > 1).map(|_| incoming.clone());
            let became = self.take_version(incoming, (apply.from, &apply.excluded))?;
            if let (ApplyOutcome::MissingBase(_), Some(copy)) = (&became, copy) {
                overtaken.push(copy);
            }
            taken.insert(hash, became);
        }
        // Lanes overtake each other: a version may arrive before the one it builds on, so those without a base are tried once
        // more.
        let mut lacking = BTreeSet::new();
        for incoming in overtaken {
            let hash = incoming.hash;
            match self.take_version(incoming, (apply.from, &apply.excluded))? {
                // Another version of the document still lacks its base.
                ApplyOutcome::Applied if lacking.contains(&hash) => {}
                ApplyOutcome::Applied => {
                    if matches!(taken.get(&hash), Some(ApplyOutcome::MissingBase(_))) {
                        taken.insert(hash, ApplyOutcome::Applied);
                    }
                }
                became => {
                    lacking.insert(hash);
                    taken.insert(hash, became);
                }
            }
        }
        let (mut missing, mut refused) = (Vec::new(), Vec::new());
        for (hash, taken) in taken {
            match taken {
                ApplyOutcome::Applied => {}
                ApplyOutcome::MissingBase(have) => missing.push((hash, have)),
                ApplyOutcome::Rejected(reason) => refused.push((hash, reason)),
            }
        }
        // A store that was opened again during the session may have lost what the cursors count on.
        if apply.into == self.writer.run {
            let earned = |cursor: &Cursor| cursor.kind != Kind::Merged || missing.is_empty();
            let cursors = apply.cursors.into_iter().filter(earned);
            self.batch.cursors.extend(cursors.map(|cursor| ((apply.from.node, cursor.kind), cursor)));
        }
        self.batch.flush |= apply.flush;
        let copied = self.copies.take_found();
        Ok(Pending::Applied { missing, refused, copied })
    }

    fn take_version(
        &mut self,
        incoming: Incoming,
        (from, excluded): (PeerRun, &BTreeSet<String>),
    ) -> Result<ApplyOutcome, Error> {
        let name = incoming.name.clone();
        let became = match self.foreign(&incoming, excluded)? {
            Some(reason) => ApplyOutcome::Rejected(reason),
            None => self.take_in(incoming, from)?,
        };
        Ok(match became {
            ApplyOutcome::Rejected(reason) => ApplyOutcome::Rejected(refusal(name.as_ref(), &reason)),
            taken => taken,
        })
    }

    fn take_in(&mut self, incoming: Incoming, from: PeerRun) -> Result<ApplyOutcome, Error> {
        if let Err(reason) = check(&incoming).and_then(|()| check_lineage(&incoming)) {
            return Ok(ApplyOutcome::Rejected(reason));
        }
        let held = self.load(incoming.hash)?.record.as_ref();
        if let Err(reason) = check_incarnation(&incoming, held) {
            return Ok(ApplyOutcome::Rejected(reason));
        }
        match held.map(|held| (held.kind, held.is_live())) {
            _ if incoming.kind != Kind::Command && held.is_none_or(|held| held.kind != Kind::Command) => {
                self.join(incoming, from)
            }
            Some((Kind::Command, _)) if incoming.kind != Kind::Command => {
                Ok(ApplyOutcome::Rejected("a document where a command is".into()))
            }
            Some((kind, _)) if kind != Kind::Command => {
                Ok(ApplyOutcome::Rejected("a command where a document is".into()))
            }
            Some((_, false)) => Ok(ApplyOutcome::Applied),
            Some(_) if !matches!(incoming.body, Body::Tombstone) => self.combine(incoming, from),
            _ => self.adopt(incoming, from),
        }
    }

    /// Stores a command or a result that is not stored yet, or its deletion.
    fn adopt(&mut self, incoming: Incoming, from: PeerRun) -> Result<ApplyOutcome, Error> {
        let content = match incoming.body {
            Body::Tombstone => {
                self.remove_results(incoming.hash)?;
                Content::Tombstone
            }
            Body::Command(command) => {
                return self.adopt_command(incoming.hash, incoming.name, incoming.origin, command, from);
            }
            Body::Result { rank, result, error } => match CommandResult::received(rank, result, error) {
                // A result that arrives after the removal of its command becomes a tombstone, too.
                _ if self.is_of_removed(incoming.name.as_ref())? => {
                    self.bury(incoming.hash, 0, false);
                    return Ok(ApplyOutcome::Applied);
                }
                Ok(result) => Content::Result(Box::new(result.shown(incoming.name.as_ref()))),
                Err(reason) => return Ok(ApplyOutcome::Rejected(reason)),
            },
            Body::Latest { .. } | Body::Merged(_) => {
                return Ok(ApplyOutcome::Rejected("the content is not of its kind".into()));
            }
        };
        let (kind, incarnation, origin) = (incoming.kind, incoming.incarnation, incoming.origin);
        let lineage = Lineage::default();
        let record = Record { kind, incarnation, sequence: 0, origin, name: incoming.name, lineage, content };
        let from = self.source(from)?;
        let in_progress = matches!(&record.content, Content::Result(result) if !result.rank.is_terminal());
        self.change(incoming.hash, record, None, !in_progress, from);
        Ok(ApplyOutcome::Applied)
    }

    /// Combines two versions of a command or of a result.
    fn combine(&mut self, incoming: Incoming, from: PeerRun) -> Result<ApplyOutcome, Error> {
        match incoming.body {
            Body::Command(command) => self.combine_command(incoming.hash, incoming.origin, command, from),
            Body::Result { rank, ref result, ref error } => {
                let theirs = CommandResult::received(rank, result.clone(), error.clone());
                match (self.load(incoming.hash)?.record.as_ref().map(|r| &r.content), theirs) {
                    (_, Err(reason)) => Ok(ApplyOutcome::Rejected(reason)),
                    (Some(Content::Result(ours)), Ok(theirs)) if !ours.yields_to(&theirs) => Ok(ApplyOutcome::Applied),
                    _ => self.adopt(incoming, from),
                }
            }
            _ => Ok(ApplyOutcome::Rejected("the content is not of its kind".into())),
        }
    }

    /// Returns the number of a peer in its current run; a new run is assigned a new number.
    pub(super) fn source(&mut self, peer: PeerRun) -> Result<u32, Error> {
        if let Some((number, run)) = self.batch.sources.get(&peer.node)
            && *run == peer.run
        {
            return Ok(*number);
        }
        if let Some(number) = self.committed.look(|snapshot| snapshot.source(peer))? {
            return Ok(number);
        }
        let number = self.batch.next_source(self.committed.look(|snapshot| Ok(snapshot.state.sources))?);
        self.batch.sources.insert(peer.node, (number, peer.run));
        Ok(number)
    }
}

/// Returns the reason for a refusal, with the name of the document.
fn refusal(name: Option<&Key>, reason: &str) -> String {
    match name {
        Some(name) => format!("document {name} was not taken: {reason}"),
        None => format!("a deletion was not taken: {reason}"),
    }
}

/// Loads received chunks into a document. Chunks with a complete base can still lack some of the sender's heads; then the
/// result is `Missing`, too.
pub(super) fn apply_to(doc: &mut Doc, merged: &Merged) -> Result<Applied, MergedError> {
    let applied = doc.apply(&merged.chunks)?;
    let complete = merged.heads.iter().all(|head| doc.knows(head));
    Ok(if complete { applied } else { Applied::Missing })
}

fn check(incoming: &Incoming) -> Result<(), String> {
    let named = incoming.name.as_ref().map(|name| (name.hash(), name));
    let size = match &incoming.body {
        Body::Tombstone => 0,
        Body::Latest { json, .. } => json.len(),
        Body::Merged(merged) => merged.chunks.len(),
        // Their sizes are checked when they are decoded.
        Body::Command(_) | Body::Result { .. } => 0,
    };
    match (&incoming.body, incoming.kind, named) {
        _ if !(1..=MAX_COUNTER).contains(&incoming.incarnation) => Err(format!("incarnation {}", incoming.incarnation)),
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
        (Body::Latest { .. }, Kind::Latest, _) if size > DOCUMENT_JSON_BYTES => {
            Err(format!("it is {size} bytes of JSON; the limit is {DOCUMENT_JSON_BYTES}"))
        }
        (Body::Latest { stamp, .. }, Kind::Latest, _) if stamp.counter >= MAX_COUNTER => {
            Err(format!("counter {}", stamp.counter))
        }
        (Body::Merged(_), Kind::Merged, _) if size > RECORD_BYTES => {
            Err(format!("it is {size} bytes; the limit is {RECORD_BYTES}"))
        }
        (Body::Latest { .. }, Kind::Latest, _) | (Body::Merged(_), Kind::Merged, _) => Ok(()),
        _ => Err("the content is not of its kind".into()),
    }
}

/// Checks that a name can have been created as often as a peer claims: [`PLAUSIBLE`] times, or [`STEP`] times more than is
/// known here. No single message can therefore exhaust the incarnations of a name.
fn check_incarnation(incoming: &Incoming, held: Option<&Record>) -> Result<(), String> {
    let known = held.map_or(0, |record| record.incarnation);
    if incoming.incarnation <= PLAUSIBLE.max(known.saturating_add(STEP)) {
        Ok(())
    } else {
        Err(format!("incarnation {} of a name that this node knows {known} of", incoming.incarnation))
    }
}

/// Checks that the lineage of a received document fits its kind and incarnation.
fn check_lineage(incoming: &Incoming) -> Result<(), String> {
    let lineage = &incoming.lineage;
    match incoming.kind {
        Kind::Command if *lineage != Lineage::default() => Err("a command with creations".into()),
        Kind::Command => Ok(()),
        Kind::Merged if !lineage.siblings.is_empty() => Err("siblings of a document that is not of kind latest".into()),
        _ => {
            let live = !matches!(incoming.body, Body::Tombstone);
            lineage.check(live, incoming.incarnation).map_err(str::to_owned)
        }
    }
}

pub(super) fn check_latest(json: Vec<u8>) -> Result<String, String> {
    json::parse_any_size(&json).map_err(|cause| cause.to_string())?;
    String::from_utf8(json).map_err(|cause| cause.to_string())
}

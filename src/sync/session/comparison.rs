//! Comparison: determines which documents the peer lacks when its cursors do not suffice.

use std::collections::BTreeSet;

use super::{LocalNode, Session, SessionError};
use crate::store::{self, Kind, Snapshot};
use crate::sync::link::Lane;
use crate::sync::mesh::{Reconcile, message::Body};
use crate::sync::reconcile::{Differences, Item, Reconciler, Set};

/// Maximum number of index entries gathered per call, so that the thread returns to its other peers before they time out.
const GATHERED_A_TURN: usize = 8_192;

/// Comparison in progress.
#[derive(Debug)]
pub(super) struct Comparison {
    step: ComparisonState,
    /// Message of the peer that waits until the documents found so far have been sent.
    held: Option<bytes::Bytes>,
    /// Newest sequence number in the snapshot that the set was built from.
    visible: u64,
    /// True if this end sends the first message.
    begins: bool,
    /// True if the plans show that the sets differ.
    differs: bool,
}

#[derive(Debug)]
enum ComparisonState {
    Gathering(Box<Gathering>),
    Talking(Reconciler),
}

impl Session {
    /// Begins to compare everything in `snapshot` with the records of the peer.
    pub(super) fn compare(&mut self, ours: &LocalNode, snapshot: Snapshot, differs: bool) {
        let visible = snapshot.visible();
        let gathering = Gathering { snapshot, kinds: &Kind::ALL, after: 0, items: Vec::new() };
        let step = ComparisonState::Gathering(Box::new(gathering));
        self.comparison = Some(Comparison { step, held: None, visible, begins: ours.id < self.peer, differs });
    }

    /// Continues to gather the records to compare; returns true if there are more.
    pub(super) fn gather(&mut self) -> Result<bool, store::Error> {
        let Some(Comparison { step: ComparisonState::Gathering(gathering), .. }) = &mut self.comparison else {
            return Ok(false);
        };
        let excluded = self.met.as_ref().map(|met| &met.excluded.0).filter(|names| !names.is_empty());
        if gathering.go_on(excluded)? {
            return Ok(true);
        }
        let set = Set::build(std::mem::take(&mut gathering.items));
        let (begins, differs) = self.comparison.as_ref().map_or((false, false), |it| (it.begins, it.differs));
        let reconciler = if begins {
            let (reconciler, first) =
                if differs { Reconciler::initiate_differing(set) } else { Reconciler::initiate(set) };
            self.say(Lane::Control, Body::Reconcile(Reconcile { ranges: first.into() }));
            reconciler
        } else {
            Reconciler::respond(set)
        };
        if let Some(comparison) = &mut self.comparison {
            comparison.step = ComparisonState::Talking(reconciler);
        }
        self.end_comparison();
        Ok(false)
    }

    pub(super) fn on_reconcile(&mut self, message: bytes::Bytes) -> Result<(), SessionError> {
        let Some(comparison) = &mut self.comparison else {
            return Err(SessionError::protocol("compares without a plan to"));
        };
        if comparison.held.replace(message).is_some() {
            return Err(SessionError::protocol("compares without waiting for the answer"));
        }
        self.continue_comparison()
    }

    /// Takes the next step of the comparison, unless documents found so far are still to be sent.
    pub(super) fn continue_comparison(&mut self) -> Result<(), SessionError> {
        let (Some(comparison), Some(outbox)) = (&mut self.comparison, &mut self.outbox) else { return Ok(()) };
        if !outbox.takes_found() {
            return Ok(());
        }
        let ComparisonState::Talking(reconciler) = &mut comparison.step else { return Ok(()) };
        let Some(message) = comparison.held.take() else { return Ok(()) };
        let mut found = Differences::default();
        let answer = reconciler.handle(&message, &mut found);
        let answer = answer.map_err(|error| SessionError::protocol(&format!("compares wrongly: {error}")))?;
        outbox.found(found.send);
        if let Some(ranges) = answer {
            self.say(Lane::Control, Body::Reconcile(Reconcile { ranges: ranges.into() }));
        }
        self.end_comparison();
        Ok(())
    }

    fn end_comparison(&mut self) {
        let is_done =
            |step: &ComparisonState| matches!(step, ComparisonState::Talking(reconciler) if reconciler.is_done());
        let done = self.comparison.as_ref().filter(|comparison| is_done(&comparison.step));
        if let (Some(visible), Some(outbox)) = (done.map(|comparison| comparison.visible), &mut self.outbox) {
            outbox.compared(visible);
            self.comparison = None;
        }
    }
}

/// Incremental reader of every record that may cross this link, from one snapshot, as items of a comparison.
#[derive(Debug)]
struct Gathering {
    snapshot: Snapshot,
    /// Kinds with an index that is not read to its end.
    kinds: &'static [Kind],
    after: u64,
    items: Vec<Item>,
}

impl Gathering {
    /// Reads the next entries; returns false once everything is read.
    fn go_on(&mut self, excluded: Option<&BTreeSet<String>>) -> Result<bool, store::Error> {
        let mut left = GATHERED_A_TURN;
        while let Some((kind, rest)) = self.kinds.split_first() {
            for entry in self.snapshot.entries(*kind, self.after)?.take(left) {
                let entry = entry?;
                (self.after, left) = (entry.sequence, left - 1);
                let leave_out = match excluded {
                    Some(names) => is_in(&self.snapshot, &entry, names)?,
                    None => false,
                };
                if !leave_out {
                    self.items.push(Item { hash: entry.hash, version: entry.version });
                }
            }
            // The budget may end exactly with the index; the next call then finds it read.
            if left == 0 {
                return Ok(true);
            }
            (self.kinds, self.after) = (rest, 0);
        }
        Ok(false)
    }
}

fn is_in(snapshot: &Snapshot, entry: &store::IndexEntry, names: &BTreeSet<String>) -> Result<bool, store::Error> {
    Ok(snapshot.name(entry)?.is_some_and(|name| names.contains(name.collection())))
}

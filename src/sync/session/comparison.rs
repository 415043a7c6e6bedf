//! Finding out what the other side lacks when its cursors cannot tell.

use std::collections::BTreeSet;

use super::{Fault, Ours, Session};
use crate::store::{self, Kind, Snapshot};
use crate::sync::link::Lane;
use crate::sync::mesh::{Reconcile, message::Body};
use crate::sync::reconcile::{Differences, Item, Reconciler, Set};

/// A comparison under way.
#[derive(Debug)]
pub(super) struct Comparison {
    reconciler: Reconciler,
    /// A message that waits until what was found has been sent.
    held: Option<bytes::Bytes>,
    /// What the set was built from.
    visible: u64,
}

impl Session {
    pub(super) fn compare(&mut self, ours: &Ours, snapshot: &Snapshot) -> Result<(), store::Error> {
        let excluded = self.met.as_ref().map(|met| &met.excluded.0);
        let set = comparable(snapshot, excluded)?;
        let reconciler = if ours.id < self.peer {
            let (reconciler, first) = Reconciler::initiate(set);
            self.say(Lane::Control, Body::Reconcile(Reconcile { ranges: first.into() }));
            reconciler
        } else {
            Reconciler::respond(set)
        };
        self.comparison = Some(Comparison { reconciler, held: None, visible: snapshot.visible() });
        self.end_comparison();
        Ok(())
    }

    pub(super) fn on_reconcile(&mut self, message: bytes::Bytes) -> Result<(), Fault> {
        let Some(comparison) = &mut self.comparison else {
            return Err(Fault::protocol("compares without a plan to"));
        };
        if comparison.held.replace(message).is_some() {
            return Err(Fault::protocol("compares without waiting for the answer"));
        }
        self.continue_comparison()
    }

    /// Takes the next step of the comparison, unless what was found so far is still to be sent.
    pub(super) fn continue_comparison(&mut self) -> Result<(), Fault> {
        let (Some(comparison), Some(outbox)) = (&mut self.comparison, &mut self.outbox) else { return Ok(()) };
        if !outbox.takes_found() {
            return Ok(());
        }
        let Some(message) = comparison.held.take() else { return Ok(()) };
        let mut found = Differences::default();
        let answer = comparison.reconciler.handle(&message, &mut found);
        let answer = answer.map_err(|error| Fault::protocol(&format!("compares wrongly: {error}")))?;
        outbox.found(found.send);
        if let Some(ranges) = answer {
            self.say(Lane::Control, Body::Reconcile(Reconcile { ranges: ranges.into() }));
        }
        self.end_comparison();
        Ok(())
    }

    pub(super) fn end_comparison(&mut self) {
        let done = self.comparison.as_ref().filter(|comparison| comparison.reconciler.is_done());
        if let (Some(visible), Some(outbox)) = (done.map(|comparison| comparison.visible), &mut self.outbox) {
            outbox.compared(visible);
            self.comparison = None;
        }
    }
}

/// Every record that may travel on this link, as reconciliation sees it.
fn comparable(snapshot: &Snapshot, excluded: Option<&BTreeSet<String>>) -> Result<Set, store::Error> {
    let excluded = excluded.filter(|names| !names.is_empty());
    let mut items = Vec::new();
    for kind in Kind::ALL {
        for entry in snapshot.entries(kind, 0)? {
            let entry = entry?;
            let leave_out = match excluded {
                Some(names) => is_in(snapshot, &entry.hash, names)?,
                None => false,
            };
            if !leave_out {
                items.push(Item { hash: entry.hash, version: entry.version });
            }
        }
    }
    Ok(Set::build(items))
}

fn is_in(snapshot: &Snapshot, hash: &store::KeyHash, names: &BTreeSet<String>) -> Result<bool, store::Error> {
    let record = snapshot.record(hash)?;
    Ok(record.and_then(|record| record.name).is_some_and(|name| names.contains(name.collection())))
}

//! Writes a wanted content over the current one, with the fewest operations that express the difference.
//!
//! Owns the rule that a union is edited as a whole: a field set in it is set in the oldest and the newest of its maps and
//! removed from the others; a field removed from it is removed from each. If another node concurrently removes one of the
//! maps, the edit remains in the other. An edit costs no more in a union of many maps than in one of two.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, Prop};
use serde_json::{Map, Value};

use super::align::{AlignmentStep, IN_PLACE, align};
use super::scalar::{escape, stored, stored_map, stored_scalar};
use super::view::{ListNode, MapNode, Node};
use crate::store::json::same;

/// Fraction of elements that must stay: a long array with less than one in 16 is set as a whole.
const STAYING: usize = 16;

type Outcome = Result<(), AutomergeError>;

/// Makes `wanted` the content of a document that never had one.
pub(super) fn begin(tx: &mut Transaction<'_>, wanted: &Map<String, Value>) -> Outcome {
    tx.init_root_from_hydrate(&stored_map(wanted))
}

/// Returns true if no existing object or array changes from within.
pub(super) fn is_flat(shown: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, wanted)| match (shown.get(key), wanted) {
        (Some(shown @ Value::Object(_)), Value::Object(_)) | (Some(shown @ Value::Array(_)), Value::Array(_)) => {
            same(shown, wanted)
        }
        _ => true,
    })
}

/// Makes the object at `node` equal to `wanted`.
pub(super) fn write(tx: &mut Transaction<'_>, node: &MapNode, wanted: &Map<String, Value>) -> Outcome {
    for key in node.fields.keys().filter(|key| !wanted.contains_key(*key)) {
        for id in &node.ids {
            tx.delete(id, escape(key).as_ref())?;
        }
    }
    for (key, wanted) in wanted {
        let known = node.fields.get(key);
        if let Some(changed) = inside(tx, known, wanted) {
            changed?;
            continue;
        }
        // In a union, the oldest and the newest map have the field (see the module documentation).
        for (index, id) in node.ids.iter().enumerate() {
            if index == 0 || index + 1 == node.ids.len() {
                set(tx, id, escape(key).as_ref().into(), known, wanted)?;
            } else {
                tx.delete(id, escape(key).as_ref())?;
            }
        }
    }
    Ok(())
}

/// Returns the number of elements that Automerge passes, one by one, on the way to those that differ. It does so only as of an
/// earlier time; for the current content it has an index.
pub(super) fn passed(node: &MapNode, wanted: &Map<String, Value>) -> usize {
    let fields = wanted.iter().filter_map(|(key, wanted)| Some(passed_within(node.fields.get(key)?, wanted)));
    fields.fold(0, usize::saturating_add)
}

fn passed_within(node: &Node, wanted: &Value) -> usize {
    match (node, wanted) {
        (Node::Map(node), Value::Object(wanted)) => passed(node, wanted),
        (Node::List(node), Value::Array(wanted)) => passed_in_list(node, wanted),
        _ => 0,
    }
}

fn passed_in_list(node: &ListNode, wanted: &[Value]) -> usize {
    let Some(steps) = steps(node, wanted) else { return 0 };
    let passed = steps.into_iter().map(|step| match step {
        AlignmentStep::Keep { old, new } => match (&node.items[old], &wanted[new]) {
            (Node::Scalar(known), wanted) if same(known, wanted) => 0,
            (known @ Node::Map(_), wanted @ Value::Object(_)) | (known @ Node::List(_), wanted @ Value::Array(_)) => {
                passed_within(known, wanted)
            }
            _ => old,
        },
        AlignmentStep::Replace { old, .. } => old.end.saturating_mul(old.len() + 1),
    });
    passed.fold(0, usize::saturating_add)
}

/// Changes a value from within, or returns `None` if it must be set as a whole.
fn inside(tx: &mut Transaction<'_>, known: Option<&Node>, wanted: &Value) -> Option<Outcome> {
    match (known?, wanted) {
        (Node::Map(node), Value::Object(wanted)) => Some(write(tx, node, wanted)),
        (Node::List(node), Value::Array(wanted)) => write_list(tx, node, wanted),
        (Node::Scalar(known), wanted) if same(known, wanted) => Some(Ok(())),
        _ => None,
    }
}

/// Sets a value as a whole.
fn set(tx: &mut Transaction<'_>, id: &ObjId, place: Prop, known: Option<&Node>, wanted: &Value) -> Outcome {
    if wanted.is_object() || wanted.is_array() {
        return tx.batch_create_object(id, place, &stored(wanted), false).map(|_id| ());
    }
    if let Some(Node::Scalar(known)) = known
        && known == wanted
    {
        // Equal but not the same: 0.0 and -0.0. Automerge takes them for one value and would write nothing.
        tx.put(id, place.clone(), ())?;
    }
    tx.put(id, place, stored_scalar(wanted))
}

/// Changes an array from within, or returns `None` for a long one of which little stays: it is set as a whole, at a fraction
/// of the cost.
fn write_list(tx: &mut Transaction<'_>, node: &ListNode, wanted: &[Value]) -> Option<Outcome> {
    // From the end, so that the positions before it remain valid. It also takes Automerge half the time.
    let steps = steps(node, wanted)?;
    Some(steps.into_iter().rev().try_for_each(|step| write_step(tx, node, wanted, step)))
}

/// Returns the steps that change an array from within; `None` if it is to be set as a whole.
fn steps(node: &ListNode, wanted: &[Value]) -> Option<Vec<AlignmentStep>> {
    let shown: Vec<Value> = node.items.iter().map(Node::json).collect();
    let steps = align(&shown, wanted);
    let kept = steps.iter().filter(|step| matches!(step, AlignmentStep::Keep { .. })).count();
    let is_set = shown.len() > IN_PLACE && !wanted.is_empty() && kept < shown.len() / STAYING;
    (!is_set).then_some(steps)
}

fn write_step(tx: &mut Transaction<'_>, node: &ListNode, wanted: &[Value], step: AlignmentStep) -> Outcome {
    match step {
        AlignmentStep::Keep { old, new } => {
            let (known, wanted) = (&node.items[old], &wanted[new]);
            inside(tx, Some(known), wanted).unwrap_or_else(|| set(tx, &node.id, old.into(), Some(known), wanted))
        }
        AlignmentStep::Replace { old, new } => {
            let place = old.start;
            old.rev().try_for_each(|index| tx.delete(&node.id, index))?;
            if new.is_empty() { Ok(()) } else { tx.splice(&node.id, place, 0, wanted[new].iter().map(stored)) }
        }
    }
}

//! Writes a wanted content over what is shown, with as few operations as say the difference.
//!
//! Owns the rule that a union is edited as a whole: a field set in it is set in each of its maps, a field removed from it
//! is removed from each. Whatever another node concurrently does to one of the maps, the edit stands in the others.

use automerge::transaction::{Transactable, Transaction};
use automerge::{AutomergeError, ObjId, Prop};
use serde_json::{Map, Value};

use super::align::{Step, align};
use super::scalar::{escape, stored, stored_map, stored_scalar};
use super::view::{ListNode, MapNode, Node};
use crate::store::json::same;

type Outcome = Result<(), AutomergeError>;

/// Makes `wanted` the content of a document that never had one.
pub(super) fn begin(tx: &mut Transaction<'_>, wanted: &Map<String, Value>) -> Outcome {
    tx.init_root_from_hydrate(&stored_map(wanted))
}

/// Whether no object or array that is shown changes from within.
pub(super) fn is_flat(shown: &Map<String, Value>, wanted: &Map<String, Value>) -> bool {
    wanted.iter().all(|(key, wanted)| match (shown.get(key), wanted) {
        (Some(shown @ Value::Object(_)), Value::Object(_)) | (Some(shown @ Value::Array(_)), Value::Array(_)) => {
            same(shown, wanted)
        }
        _ => true,
    })
}

/// Makes the object shown as `node` equal to `wanted`.
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
        for id in &node.ids {
            set(tx, id, escape(key).as_ref().into(), known, wanted)?;
        }
    }
    Ok(())
}

/// Changes a value from within, or says by `None` that it must be set as a whole.
fn inside(tx: &mut Transaction<'_>, known: Option<&Node>, wanted: &Value) -> Option<Outcome> {
    match (known?, wanted) {
        (Node::Map(node), Value::Object(wanted)) => Some(write(tx, node, wanted)),
        (Node::List(node), Value::Array(wanted)) => Some(write_list(tx, node, wanted)),
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
        // Equal but not the same: 0.0 and -0.0. Automerge would take the second for the first and write nothing.
        tx.put(id, place.clone(), ())?;
    }
    tx.put(id, place, stored_scalar(wanted))
}

fn write_list(tx: &mut Transaction<'_>, node: &ListNode, wanted: &[Value]) -> Outcome {
    let shown: Vec<Value> = node.items.iter().map(Node::json).collect();
    let mut index = 0;
    for step in align(&shown, wanted) {
        match step {
            Step::Keep { old, new } => {
                let (known, wanted) = (&node.items[old], &wanted[new]);
                match inside(tx, Some(known), wanted) {
                    Some(changed) => changed?,
                    None => set(tx, &node.id, index.into(), Some(known), wanted)?,
                }
                index += 1;
            }
            Step::Insert { new } => {
                let count = new.len();
                tx.splice(&node.id, index, 0, wanted[new].iter().map(stored))?;
                index += count;
            }
            Step::Delete { count } => delete(tx, &node.id, index, count)?,
        }
    }
    Ok(())
}

fn delete(tx: &mut Transaction<'_>, list: &ObjId, index: usize, count: usize) -> Outcome {
    (0..count).try_for_each(|_| tx.delete(list, index))
}

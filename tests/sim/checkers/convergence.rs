//! Convergence: nodes that can reach each other end with the same documents, versions and tombstones.

use std::collections::{BTreeMap, BTreeSet};

use peat_node::store::{Content, Error, Key, KeyHash, Kind, Snapshot, VersionHash};

use crate::seeds::Violation;

/// All records of a node, tombstones included, by key.
pub type Records = BTreeMap<KeyHash, (Kind, VersionHash)>;

/// Returns all records of a snapshot.
pub fn records(snapshot: &Snapshot) -> Result<Records, Error> {
    let mut records = Records::new();
    for kind in Kind::ALL {
        for entry in snapshot.entries(kind, 0)? {
            let entry = entry?;
            records.insert(entry.hash, (kind, entry.version));
        }
    }
    Ok(records)
}

/// Describes the first difference between two nodes, or returns `None` if they agree. Documents in `apart` may differ.
pub fn difference(
    left: &Snapshot,
    right: &Snapshot,
    keys: &[Key],
    apart: &BTreeSet<KeyHash>,
) -> Result<Option<String>, Error> {
    let (ours, theirs) = (records(left)?, records(right)?);
    let all: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differing = all.into_iter().filter(|hash| !apart.contains(hash) && ours.get(hash) != theirs.get(hash));
    let describe = |hash: &KeyHash| {
        let name = keys.iter().find(|key| key.hash() == *hash).map_or_else(|| format!("{hash:?}"), ToString::to_string);
        format!("{name}: {} / {}", summary(left, hash), summary(right, hash))
    };
    let words: Vec<String> = differing.map(describe).take(5).collect();
    Ok((!words.is_empty()).then(|| words.join("; ")))
}

/// Summarises a record on one line.
fn summary(snapshot: &Snapshot, hash: &KeyHash) -> String {
    let short = |bytes: &[u8]| bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
    let Ok(Some(record)) = snapshot.record(hash) else { return "nothing".into() };
    let content = match record.content {
        Content::Tombstone => "deleted".into(),
        Content::Latest { stamp, json } => {
            format!("{} by {} in {}, {json}", stamp.counter, short(&stamp.node.0), short(&stamp.run.0))
        }
        Content::Merged { heads, json, .. } => {
            format!("heads {}, {json}", heads.iter().map(|head| short(head)).collect::<Vec<_>>().join("+"))
        }
        Content::Command(command) => command.json,
        Content::Result(result) => result.json,
    };
    format!("[{:?} incarnation {} at {}: {content}]", record.kind, record.incarnation, record.sequence)
}

/// Checks that equal versions have equal content on both nodes.
pub fn same_content(left: &Snapshot, right: &Snapshot, keys: &[Key]) -> Result<(), Violation> {
    for key in keys {
        let read = |snapshot: &Snapshot| {
            snapshot.document(key).map_err(|error| Violation::new("convergence", error.to_string()))
        };
        let (one, other) = (read(left)?.map(|document| document.json), read(right)?.map(|document| document.json));
        if one != other {
            return Err(Violation::new(
                "convergence",
                format!("{key} has equal versions and differs: {one:?} / {other:?}"),
            ));
        }
    }
    Ok(())
}

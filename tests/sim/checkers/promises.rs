//! Promises: after everything has healed, every acknowledged durable write is present on all nodes, or superseded by a later
//! incarnation, a deletion of the same incarnation, or a higher stamp.

use peat_node::store::{Content, Error, Key, Lineage, Snapshot, Stamp, Version};

use crate::seeds::Violation;
use crate::workload::GROW;

/// One acknowledged durable write.
#[derive(Clone, Debug)]
struct Promise {
    /// Number of the node that acknowledged it.
    node: usize,
    key: Key,
    lineage: Lineage,
    what: Promised,
}

#[derive(Clone, Debug)]
enum Promised {
    Deleted,
    Register(Stamp),
    /// Field that a write to a [`GROW`] document added.
    Field(String),
    /// A merged document, which other writers may have overwritten since.
    Exists,
}

/// All promises made by all nodes.
#[derive(Debug, Default)]
pub struct Promises {
    made: Vec<Promise>,
}

impl Promises {
    /// Records that `node` acknowledged as durable a write that produced `version`; `field` is the field it added to a
    /// grow-only document. Records nothing if `snapshot` already shows another version.
    pub fn made(
        &mut self,
        node: usize,
        snapshot: &Snapshot,
        key: &Key,
        version: &Version,
        field: Option<String>,
    ) -> Result<(), Error> {
        let Some(record) = snapshot.record(&key.hash())? else { return Ok(()) };
        if record.version(&key.hash()) != *version {
            return Ok(());
        }
        let what = match (record.content, field) {
            (Content::Tombstone, _) => Promised::Deleted,
            (Content::Latest { stamp, .. }, _) => Promised::Register(stamp),
            (Content::Merged { .. }, Some(field)) if key.collection() == GROW => Promised::Field(field),
            (Content::Merged { .. } | Content::Command(_) | Content::Result(_), _) => Promised::Exists,
        };
        self.made.push(Promise { node, key: key.clone(), lineage: record.lineage, what });
        Ok(())
    }

    /// Drops the promises of a node that has lost its disk.
    pub fn release(&mut self, node: usize) {
        self.made.retain(|promise| promise.node != node);
    }

    /// Returns the number of outstanding promises.
    pub fn len(&self) -> usize {
        self.made.len()
    }

    /// Checks that `snapshot`, of any node after convergence, keeps every promise.
    pub fn kept(&self, snapshot: &Snapshot) -> Result<(), Violation> {
        self.made.iter().try_for_each(|promise| {
            let kept = promise.is_kept(snapshot).map_err(|error| Violation::new("promises", error.to_string()))?;
            let record = || {
                snapshot
                    .record(&promise.key.hash())
                    .map(|record| record.map(|record| (record.incarnation, record.content)))
            };
            if kept {
                Ok(())
            } else {
                Err(Violation::new("promises", format!("{promise:?} was broken: {:?}", record())))
            }
        })
    }
}

impl Promise {
    fn is_kept(&self, snapshot: &Snapshot) -> Result<bool, Error> {
        let Some(record) = snapshot.record(&self.key.hash())? else { return Ok(false) };
        // A deletion or a compaction that had seen the write supersedes it.
        let covered = &record.lineage.covered;
        if covered.includes(&self.lineage.covered) && self.lineage.all_dots().outside(covered).is_empty() {
            return Ok(true);
        }
        let descends = self.lineage.dots.iter().any(|dot| record.lineage.all_dots().iter().any(|held| held == dot));
        Ok(match (&self.what, record.content) {
            (_, Content::Tombstone) | (Promised::Deleted, _) => false,
            _ if !descends => false,
            (Promised::Register(stamp), Content::Latest { stamp: held, .. }) => held >= *stamp,
            (Promised::Field(field), _) => self.has(snapshot, field)?,
            (Promised::Exists, _) => true,
            (Promised::Register(_), _) => false,
        })
    }

    fn has(&self, snapshot: &Snapshot, field: &str) -> Result<bool, Error> {
        let Some(document) = snapshot.document(&self.key)? else { return Ok(false) };
        let value: serde_json::Value =
            serde_json::from_str(&document.json).map_err(|error| Error::Bug(error.to_string()))?;
        Ok(value.get(field).is_some())
    }
}

//! Refuses documents of collections that have another kind at the sender.
//!
//! A live document has a name, so its collection is known. A tombstone has none: its collection is that of the document it
//! would delete.

use std::collections::BTreeSet;

use crate::store::stage::BatchStager;
use crate::store::{Error, Incoming, Kind};

impl BatchStager<'_> {
    /// Returns the reason to refuse a received document as one of a collection that has another kind at the sender, or `None`.
    pub(super) fn foreign(
        &mut self,
        incoming: &Incoming,
        excluded: &BTreeSet<String>,
    ) -> Result<Option<String>, Error> {
        let foreign = |collection: &str| format!("collection '{collection}' is of another kind at the sender");
        if let Some(name) = &incoming.name {
            return Ok(excluded.contains(name.collection()).then(|| foreign(name.collection())));
        }
        let Some(held) = self.load(incoming.hash)?.record.as_ref().filter(|record| record.is_live()) else {
            return Ok(None);
        };
        let (held, Some(name)) = (held.kind, held.name.clone()) else { return Ok(None) };
        // Documents keep their kind if the kind of their collection changes, so a deletion may have either.
        let fits = incoming.kind == held || incoming.kind == self.writer.config.kind(name.collection());
        if fits && !excluded.contains(name.collection()) {
            return Ok(None);
        }
        Ok(Some(format!("it would delete {name} as {}: {}", named(incoming.kind), foreign(name.collection()))))
    }
}

fn named(kind: Kind) -> &'static str {
    match kind {
        Kind::Merged => "merged",
        Kind::Latest => "latest",
        Kind::Command => "a command",
    }
}

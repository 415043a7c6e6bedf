//! Order of all held commands by creation, for lists.
//!
//! The time of creation is signed and never changes, so a position in the order stays valid while commands change and disappear.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::limits::COMMANDS_LISTED;

/// Position in the order: the creation time given by the issuer, in Unix seconds, and the id.
pub type Place = (i64, Arc<str>);

/// Commands in order of creation; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Listed {
    made: BTreeMap<Arc<str>, i64>,
    order: BTreeSet<Place>,
    /// True if a command did not fit. The order is then incomplete.
    overflowed: bool,
}

impl Listed {
    /// Clears the order before all records are reported again.
    pub(super) fn clear(&mut self) {
        *self = Listed::default();
    }

    pub(super) fn put(&mut self, id: &str, made: i64) {
        if self.made.get(id) == Some(&made) {
            return;
        }
        self.remove(id);
        if self.made.len() >= COMMANDS_LISTED {
            self.overflowed = true;
            return;
        }
        let id: Arc<str> = id.into();
        self.made.insert(id.clone(), made);
        self.order.insert((made, id));
    }

    pub(super) fn remove(&mut self, id: &str) {
        if let Some((id, made)) = self.made.remove_entry(id) {
            self.order.remove(&(made, id));
        }
    }

    /// Iterates over the commands after a place, oldest first. `None`: the order is incomplete.
    pub(super) fn after(&self, place: Option<&Place>) -> Option<impl Iterator<Item = &Place> + use<'_>> {
        let start = place.map_or(Bound::Unbounded, |place| Bound::Excluded(place.clone()));
        (!self.overflowed).then(|| self.order.range((start, Bound::Unbounded)))
    }
}

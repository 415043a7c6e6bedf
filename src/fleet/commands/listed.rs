//! Every command that is held, in the order in which they were made: what lists go by.
//!
//! The order never changes, since what it goes by is signed. So a place in it stays valid whatever becomes of the commands.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;

use crate::limits::COMMANDS_LISTED;

/// When its issuer says a command was made, Unix seconds, and its id.
pub type Place = (i64, Arc<str>);

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Listed {
    made: BTreeMap<Arc<str>, i64>,
    order: BTreeSet<Place>,
    /// There were more commands than this holds.
    overflowed: bool,
}

impl Listed {
    /// Everything is shown again from here on.
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

    /// The commands after a place, oldest first; `None`: this does not hold all of them.
    pub(super) fn after(&self, place: Option<&Place>) -> Option<impl Iterator<Item = &Place> + use<'_>> {
        let start = place.map_or(Bound::Unbounded, |place| Bound::Excluded(place.clone()));
        (!self.overflowed).then(|| self.order.range((start, Bound::Unbounded)))
    }
}

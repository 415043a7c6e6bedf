//! A bounded set of creations that deletions have seen.

use super::{Dot, Dots};
use crate::store::codec::{Bytes, put_varint};

/// Maximum number of writers in a covered set. A set of more covers every creation up to some incarnation, including ones it
/// has not seen.
pub const COVERED_DOTS: usize = 64;

/// A set of covered creations. It only grows, and unions in any order give the same set.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Covered {
    /// Incarnation up to which every creation is covered; 0 while the set is within its bound.
    pub(super) floor: u64,
    /// Highest covered incarnation of each writer, all above the floor.
    pub(super) dots: Dots,
}

impl Covered {
    /// Returns true if the creation is covered.
    #[must_use]
    pub fn covers(&self, dot: &Dot) -> bool {
        let at = self.dots.0.binary_search_by_key(&dot.writer, |known| known.writer);
        dot.incarnation <= self.floor || at.is_ok_and(|at| dot.incarnation <= self.dots.0[at].incarnation)
    }

    /// Returns true if everything that `other` covers is covered.
    #[must_use]
    pub fn includes(&self, other: &Covered) -> bool {
        let is_below = self.floor >= other.floor;
        is_below && other.dots.iter().all(|dot| self.covers(dot))
    }

    /// Returns the set extended by these creations.
    #[must_use]
    pub fn with<'a>(&self, dots: impl IntoIterator<Item = &'a Dot>) -> Covered {
        Covered::of(self.floor, self.dots.iter().copied().chain(dots.into_iter().copied()).collect())
    }

    /// Returns the union of both sets.
    #[must_use]
    pub fn join(&self, other: &Covered) -> Covered {
        Covered::of(self.floor.max(other.floor), self.dots.union(&other.dots))
    }

    /// Returns the set in its only form, so that equal sets have equal bytes.
    fn of(floor: u64, dots: Dots) -> Covered {
        let mut highest: Vec<Dot> = Vec::new();
        for dot in dots.0.into_iter().filter(|dot| dot.incarnation > floor) {
            match highest.last_mut().filter(|last| last.writer == dot.writer) {
                // The dots are sorted, so this one is higher.
                Some(last) => *last = dot,
                None => highest.push(dot),
            }
        }
        if highest.len() <= COVERED_DOTS {
            return Covered { floor, dots: Dots(highest) };
        }
        // Raise the floor to the highest incarnation that no longer fits.
        let mut incarnations: Vec<u64> = highest.iter().map(|dot| dot.incarnation).collect();
        incarnations.sort_unstable_by(|one, other| other.cmp(one));
        let floor = incarnations[COVERED_DOTS];
        highest.retain(|dot| dot.incarnation > floor);
        Covered { floor, dots: Dots(highest) }
    }

    /// Returns the highest covered incarnation; 0 if nothing is covered.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.dots.highest().max(self.floor)
    }

    /// Returns true if nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.highest() == 0
    }

    /// Encodes the floor and the dots.
    pub(in crate::store) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.floor);
        self.dots.put(out);
    }

    /// Parses the set, the inverse of [`Covered::put`]; `None` for a set that is not in its only form.
    pub(in crate::store) fn parse(rest: &mut Bytes) -> Option<Covered> {
        let (floor, dots) = (rest.varint()?, Dots::parse(rest, COVERED_DOTS)?);
        let covered = Covered { floor, dots };
        (covered == Covered::of(floor, covered.dots.clone())).then_some(covered)
    }

    /// Encodes the set for messages, as [`Covered::put`] does; empty if nothing is covered.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.is_empty() {
            self.put(&mut bytes);
        }
        bytes
    }

    /// Parses the set, the inverse of [`Covered::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Covered> {
        let mut rest = Bytes(bytes);
        match bytes {
            [] => Some(Covered::default()),
            _ => Covered::parse(&mut rest).filter(|covered| rest.is_empty() && !covered.is_empty()),
        }
    }
}

//! A bounded set of creations that deletions have seen.

use super::{Dot, Dots};
use crate::store::codec::{Bytes, put_varint};

/// Writers in a covered set. Beyond them it covers every creation up to some incarnation, also ones it has not seen.
pub const COVERED_DOTS: usize = 64;

/// See the module.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Covered {
    /// Every creation up to this incarnation is covered; 0 while the set is within its bound.
    pub(super) floor: u64,
    /// Of each writer the highest covered incarnation, all above the floor.
    pub(super) dots: Dots,
}

impl Covered {
    /// Whether the creation is covered.
    #[must_use]
    pub fn covers(&self, dot: &Dot) -> bool {
        let at = self.dots.0.binary_search_by_key(&dot.writer, |known| known.writer);
        dot.incarnation <= self.floor || at.is_ok_and(|at| dot.incarnation <= self.dots.0[at].incarnation)
    }

    /// Whether everything `other` covers is covered.
    #[must_use]
    pub fn includes(&self, other: &Covered) -> bool {
        let is_below = self.floor >= other.floor;
        is_below && other.dots.iter().all(|dot| self.covers(dot))
    }

    /// With these.
    #[must_use]
    pub fn with<'a>(&self, dots: impl IntoIterator<Item = &'a Dot>) -> Covered {
        Covered::of(self.floor, self.dots.iter().copied().chain(dots.into_iter().copied()).collect())
    }

    /// What either covers.
    #[must_use]
    pub fn join(&self, other: &Covered) -> Covered {
        Covered::of(self.floor.max(other.floor), self.dots.union(&other.dots))
    }

    /// In the one form that each set has.
    fn of(floor: u64, dots: Dots) -> Covered {
        let mut highest: Vec<Dot> = Vec::new();
        for dot in dots.0.into_iter().filter(|dot| dot.incarnation > floor) {
            match highest.last_mut().filter(|last| last.writer == dot.writer) {
                // They are sorted, so this one is higher.
                Some(last) => *last = dot,
                None => highest.push(dot),
            }
        }
        if highest.len() <= COVERED_DOTS {
            return Covered { floor, dots: Dots(highest) };
        }
        let mut incarnations: Vec<u64> = highest.iter().map(|dot| dot.incarnation).collect();
        incarnations.sort_unstable_by(|one, other| other.cmp(one));
        let floor = incarnations[COVERED_DOTS];
        highest.retain(|dot| dot.incarnation > floor);
        Covered { floor, dots: Dots(highest) }
    }

    /// The highest covered incarnation; 0 when nothing is covered.
    #[must_use]
    pub fn highest(&self) -> u64 {
        self.dots.highest().max(self.floor)
    }

    /// Whether nothing is covered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.highest() == 0
    }

    /// The floor, then the dots.
    pub(in crate::store) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.floor);
        self.dots.put(out);
    }

    /// The inverse of [`Covered::put`]; `None` for a set in another form than its only one.
    pub(in crate::store) fn parse(rest: &mut Bytes) -> Option<Covered> {
        let (floor, dots) = (rest.varint()?, Dots::parse(rest, COVERED_DOTS)?);
        let covered = Covered { floor, dots };
        (covered == Covered::of(floor, covered.dots.clone())).then_some(covered)
    }

    /// As it travels: see [`Covered::put`]. Empty when nothing is covered.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        if !self.is_empty() {
            self.put(&mut bytes);
        }
        bytes
    }

    /// The inverse of [`Covered::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Covered> {
        let mut rest = Bytes(bytes);
        match bytes {
            [] => Some(Covered::default()),
            _ => Covered::parse(&mut rest).filter(|covered| rest.is_empty() && !covered.is_empty()),
        }
    }
}

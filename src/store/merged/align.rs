//! Aligns the elements of a wanted array with those of the current one.
//!
//! Owns the guess of a writer's edits from their result only: the elements that stayed, that changed inside, and that are new.
//! Objects are matched by a field ([`identity`]), other elements by their content. Must never match two different objects if
//! the identifying field of one occurs in both arrays. The work is nearly linear in the length of the arrays: comparisons of
//! all elements with all are bounded by [`CELLS`] and [`ALL_CELLS`], comparisons in order by [`diff::shortest`].

mod diff;
mod identity;

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use serde_json::Value;

use crate::store::json::same;
use identity::Identity;

/// Maximum length of two stretches without identities in which elements change in place. Each change costs an operation in the
/// middle of the array; a longer stretch is replaced, at a tenth of the cost.
pub(super) const IN_PLACE: usize = 4_096;
/// Maximum number of pairs compared in one stretch: 256 elements with 256.
const CELLS: usize = 1 << 16;
/// Maximum number of pairs compared in all stretches of two arrays.
const ALL_CELLS: usize = 1 << 22;
/// Maximum number of times a stretch is divided at elements that occur once in each array.
const CUTS: usize = 8;
/// Number of hashes kept of an element's fields: the smallest, so that those of two elements are comparable.
const SKETCH_HASHES: usize = 32;

/// Scores of a pair: equal elements; elements of one kind that share everything (in addition to the next); elements of one
/// kind; elements of different kinds.
const EQUAL_SCORE: usize = 32;
const SHARED_SCORE: usize = 12;
const KIND_SCORE: usize = 2;
const LEAST_SCORE: usize = 1;

/// One step along both arrays, from their beginnings.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum AlignmentStep {
    /// The element `new` is `old`, perhaps changed inside or replaced in its place.
    Keep { old: usize, new: usize },
    /// The elements `old` are removed, and `new` are inserted in their place. One of the two may be empty.
    Replace { old: Range<usize>, new: Range<usize> },
}

/// Returns the steps that turn `old` into `new`.
pub(super) fn align(old: &[Value], new: &[Value]) -> Vec<AlignmentStep> {
    let head = old.iter().zip(new).take_while(|(old, new)| same(old, new)).count();
    let (old_rest, new_rest) = (&old[head..], &new[head..]);
    let tail = old_rest.iter().rev().zip(new_rest.iter().rev()).take_while(|(old, new)| same(old, new)).count();
    let (old_end, new_end) = (old.len() - tail, new.len() - tail);
    let mut pairs: Vec<_> = (0..head).zip(0..head).collect();
    pairs.extend(Aligner::pairs(&old[head..old_end], &new[head..new_end]).map(|(old, new)| (head + old, head + new)));
    pairs.extend((old_end..old.len()).zip(new_end..new.len()));
    steps(&pairs, old.len(), new.len())
}

/// Returns the steps at and between these pairs of indices, which must increase in both.
fn steps(pairs: &[(usize, usize)], olds: usize, news: usize) -> Vec<AlignmentStep> {
    let mut steps = Vec::with_capacity(pairs.len());
    let (mut old, mut new) = (0, 0);
    for &(next_old, next_new) in pairs.iter().chain([&(olds, news)]) {
        if old < next_old || new < next_new {
            steps.push(AlignmentStep::Replace { old: old..next_old, new: new..next_new });
        }
        if next_old < olds {
            steps.push(AlignmentStep::Keep { old: next_old, new: next_new });
        }
        (old, new) = (next_old + 1, next_new + 1);
    }
    steps
}

/// Compared features of an element.
struct ElementFingerprint {
    whole: u64,
    kind: std::mem::Discriminant<Value>,
    /// Smallest hashes of its fields or elements, sorted.
    sketch: Vec<u64>,
    /// Hash of the value of its identifying field.
    id: Option<u64>,
    /// True if that value occurs in both arrays.
    shared: bool,
}

impl ElementFingerprint {
    fn of(value: &Value, identity: Option<&Identity<'_>>) -> ElementFingerprint {
        let mut sketch: Vec<u64> = match value {
            Value::Object(map) => map.iter().map(hash).collect(),
            Value::Array(items) => items.iter().map(hash).collect(),
            _ => Vec::new(),
        };
        sketch.sort_unstable();
        sketch.truncate(SKETCH_HASHES);
        let id = identity.and_then(|identity| identity.of(value));
        ElementFingerprint { whole: hash(value), kind: std::mem::discriminant(value), sketch, id, shared: false }
    }

    /// Returns the score of matching `new` with this element.
    fn score(&self, new: &ElementFingerprint) -> usize {
        if self.whole == new.whole {
            return EQUAL_SCORE;
        }
        if self.kind != new.kind {
            return LEAST_SCORE;
        }
        let most = self.sketch.len().max(new.sketch.len()).max(1);
        KIND_SCORE + SHARED_SCORE * shared(&self.sketch, &new.sketch) / most
    }
}

/// Hashes with fixed keys, so that the same arrays are always aligned in the same way.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Counts the numbers that two sorted lists have in common.
fn shared(a: &[u64], b: &[u64]) -> usize {
    let (mut at, mut count) = (0, 0);
    for number in a {
        at += b[at..].iter().take_while(|other| *other < number).count();
        if b.get(at) == Some(number) {
            (at, count) = (at + 1, count + 1);
        }
    }
    count
}

struct Aligner {
    old: Vec<ElementFingerprint>,
    new: Vec<ElementFingerprint>,
    /// True if different values of the identifying field always mean different elements.
    strict: bool,
    /// Number of pairs that may still be compared.
    cells: usize,
    pairs: Vec<(usize, usize)>,
}

impl Aligner {
    fn pairs(old: &[Value], new: &[Value]) -> impl Iterator<Item = (usize, usize)> {
        let identity = Identity::find(old, new);
        let prints =
            |values: &[Value]| values.iter().map(|value| ElementFingerprint::of(value, identity.as_ref())).collect();
        let strict = identity.as_ref().is_some_and(|identity| identity.strict);
        let mut aligner = Aligner { old: prints(old), new: prints(new), strict, cells: ALL_CELLS, pairs: Vec::new() };
        if !old.is_empty() && !new.is_empty() {
            let anchors = aligner.identified();
            aligner.pair_between(anchors, 0..old.len(), 0..new.len(), CUTS);
        }
        aligner.pairs.into_iter()
    }

    /// Returns the longest series of pairs with the same identifying field, or equal elements without one, that occur once in
    /// each array. Marks the elements with a field that occurs in both.
    fn identified(&mut self) -> Vec<(usize, usize)> {
        let mut places: HashMap<(bool, u64), Places> = HashMap::new();
        let name = |print: &ElementFingerprint| print.id.map_or((false, print.whole), |id| (true, id));
        self.old.iter().enumerate().for_each(|(index, print)| places.entry(name(print)).or_default().old.add(index));
        self.new.iter().enumerate().for_each(|(index, print)| places.entry(name(print)).or_default().new.add(index));
        for print in self.old.iter_mut().chain(&mut self.new).filter(|print| print.id.is_some()) {
            print.shared = places.get(&name(print)).is_some_and(Places::in_both);
        }
        rising(places.into_values())
    }

    fn same(&self, old: usize, new: usize) -> bool {
        self.old[old].whole == self.new[new].whole
    }

    /// Returns true unless the identifying fields show that the elements are different.
    fn may_pair(&self, old: usize, new: usize) -> bool {
        let (old, new) = (&self.old[old], &self.new[new]);
        match (old.id, new.id) {
            (Some(a), Some(b)) if a == b => true,
            (Some(_), Some(_)) if self.strict => false,
            _ => !old.shared && !new.shared,
        }
    }

    /// Pairs elements of two stretches, in order.
    fn pair(&mut self, old: Range<usize>, new: Range<usize>, cuts: usize) {
        let head = old.clone().zip(new.clone()).take_while(|&(old, new)| self.same(old, new)).count();
        self.pairs.extend(old.clone().zip(new.clone()).take(head));
        let (old, new) = (old.start + head..old.end, new.start + head..new.end);
        let tail = old.clone().rev().zip(new.clone().rev()).take_while(|&(old, new)| self.same(old, new)).count();
        let (old_end, new_end) = (old.end - tail, new.end - tail);
        self.pair_middle(old.start..old_end, new.start..new_end, cuts);
        self.pairs.extend((old_end..old.end).zip(new_end..new.end));
    }

    /// Pairs elements of two stretches that neither begin nor end with equal elements.
    fn pair_middle(&mut self, old: Range<usize>, new: Range<usize>, cuts: usize) {
        if old.is_empty() || new.is_empty() || self.pair_best(&old, &new) {
            return;
        }
        let anchors = if cuts > 0 { self.anchors(&old, &new) } else { Vec::new() };
        if !anchors.is_empty() {
            return self.pair_between(anchors, old, new, cuts - 1);
        }
        let wholes = |prints: &[ElementFingerprint]| prints.iter().map(|print| print.whole).collect::<Vec<_>>();
        let equal = diff::shortest(&wholes(&self.old[old.clone()]), &wholes(&self.new[new.clone()]));
        let equal = equal.into_iter().map(|(a, b)| (old.start + a, new.start + b)).collect::<Vec<_>>();
        let (mut from_old, mut from_new) = (old.start, new.start);
        for (next_old, next_new) in equal.into_iter().chain([(old.end, new.end)]) {
            self.pair_unlike(from_old..next_old, from_new..next_new);
            if next_old < old.end && next_new < new.end {
                self.pairs.push((next_old, next_new));
            }
            (from_old, from_new) = (next_old + 1, next_new + 1);
        }
    }

    /// Pairs elements before, at, between and after the anchors.
    fn pair_between(&mut self, anchors: Vec<(usize, usize)>, old: Range<usize>, new: Range<usize>, cuts: usize) {
        let (mut from_old, mut from_new) = (old.start, new.start);
        for (next_old, next_new) in anchors {
            self.pair(from_old..next_old, from_new..next_new, cuts);
            self.pairs.push((next_old, next_new));
            (from_old, from_new) = (next_old + 1, next_new + 1);
        }
        self.pair(from_old..old.end, from_new..new.end, cuts);
    }

    /// Pairs elements of two stretches without common elements.
    fn pair_unlike(&mut self, old: Range<usize>, new: Range<usize>) {
        if self.pair_best(&old, &new) || old.len() != new.len() || old.len() > IN_PLACE {
            return;
        }
        let pairs: Vec<_> = old.zip(new).filter(|&(old, new)| self.may_pair(old, new)).collect();
        self.pairs.extend(pairs);
    }

    /// Finds the pairing of the highest score, by dynamic programming over all pairs. Returns false if there are too many.
    fn pair_best(&mut self, old: &Range<usize>, new: &Range<usize>) -> bool {
        let cells = old.len().saturating_mul(new.len());
        if cells > CELLS.min(self.cells) {
            return false;
        }
        self.cells -= cells;
        let width = new.len() + 1;
        let cell = |i: usize, j: usize| i * width + j;
        // `scores`: for each pair the score of pairing it, 0 if it must not be; `best`: for each pair of suffixes the best
        // total.
        let mut scores = vec![0; (old.len() + 1) * width];
        let mut best = vec![0; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                let (a, b) = (old.start + i, new.start + j);
                let score = if self.may_pair(a, b) { self.old[a].score(&self.new[b]) } else { 0 };
                scores[cell(i, j)] = score;
                let paired = if score > 0 { score + best[cell(i + 1, j + 1)] } else { 0 };
                best[cell(i, j)] = paired.max(best[cell(i + 1, j)]).max(best[cell(i, j + 1)]);
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < old.len() && j < new.len() {
            let score = scores[cell(i, j)];
            if score > 0 && best[cell(i, j)] == score + best[cell(i + 1, j + 1)] {
                self.pairs.push((old.start + i, new.start + j));
                (i, j) = (i + 1, j + 1);
            } else if best[cell(i, j)] == best[cell(i + 1, j)] {
                i += 1;
            } else {
                j += 1;
            }
        }
        true
    }

    /// Returns the longest series of equal elements that occur once in each stretch, in the same order.
    fn anchors(&self, old: &Range<usize>, new: &Range<usize>) -> Vec<(usize, usize)> {
        let mut places: HashMap<u64, Places> = HashMap::new();
        for index in old.clone() {
            places.entry(self.old[index].whole).or_default().old.add(index);
        }
        for index in new.clone() {
            places.entry(self.new[index].whole).or_default().new.add(index);
        }
        rising(places.into_values())
    }
}

/// Positions of equal elements in both arrays.
#[derive(Default)]
struct Places {
    old: Place,
    new: Place,
}

#[derive(Clone, Copy, Default)]
enum Place {
    #[default]
    Nowhere,
    Once(usize),
    Repeated,
}

impl Place {
    fn add(&mut self, index: usize) {
        *self = if let Place::Nowhere = self { Place::Once(index) } else { Place::Repeated };
    }
}

impl Places {
    fn in_both(&self) -> bool {
        !matches!((self.old, self.new), (Place::Nowhere, _) | (_, Place::Nowhere))
    }
}

/// Returns the longest series of elements that occur once in each array.
fn rising(places: impl Iterator<Item = Places>) -> Vec<(usize, usize)> {
    let once = places.filter_map(|places| match (places.old, places.new) {
        (Place::Once(old), Place::Once(new)) => Some((old, new)),
        _ => None,
    });
    let mut once: Vec<_> = once.collect();
    once.sort_unstable();
    diff::longest_rising(&once)
}

#[cfg(test)]
mod tests;

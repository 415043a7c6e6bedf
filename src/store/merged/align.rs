//! Which elements of a wanted array are which elements of the one shown.
//!
//! Owns the guess of what a writer did who only handed in the result: which elements stayed, which changed inside, which
//! are new. A bad guess costs bytes and may merge less well; it never costs correctness, because every element that is
//! kept is compared and changed as needed. The work is bounded by [`CELLS`], whatever the arrays.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use serde_json::Value;

/// Pairs of elements compared at once. Longer stretches are first cut at elements that occur once in each.
const CELLS: usize = 1 << 16;
/// How often a stretch is cut before its elements are paired by position.
const CUTS: usize = 8;
/// Hashes kept of an element's fields: the smallest ones, so that those of two elements can be compared.
const SKETCH_HASHES: usize = 32;

/// What it is worth to pair two equal elements, two of one kind that share everything, and two of one kind.
const EQUAL_SCORE: usize = 32;
const SHARED_SCORE: usize = 12;
const KIND_SCORE: usize = 2;

/// One step along both arrays, from their beginnings.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// `new` is `old`, perhaps changed inside or replaced in its place.
    Keep { old: usize, new: usize },
    /// These elements of the wanted array are new here.
    Insert { new: Range<usize> },
    /// This many elements are gone here.
    Delete { count: usize },
}

/// The steps that turn `old` into `new`.
pub(super) fn align(old: &[Value], new: &[Value]) -> Vec<Step> {
    let aligner = Aligner { old: old.iter().map(Print::of).collect(), new: new.iter().map(Print::of).collect() };
    let mut pairs = Vec::new();
    aligner.pair(0..old.len(), 0..new.len(), CUTS, &mut pairs);
    steps(&pairs, old.len(), new.len())
}

/// The steps between and at these pairs of indices, both of which rise.
fn steps(pairs: &[(usize, usize)], olds: usize, news: usize) -> Vec<Step> {
    let mut steps = Vec::new();
    let (mut old, mut new) = (0, 0);
    for &(next_old, next_new) in pairs.iter().chain([&(olds, news)]) {
        if old < next_old {
            steps.push(Step::Delete { count: next_old - old });
        }
        if new < next_new {
            steps.push(Step::Insert { new: new..next_new });
        }
        if next_old < olds {
            steps.push(Step::Keep { old: next_old, new: next_new });
        }
        (old, new) = (next_old + 1, next_new + 1);
    }
    steps
}

/// What is looked at of an element.
struct Print {
    whole: u64,
    kind: std::mem::Discriminant<Value>,
    /// The smallest hashes of its fields or elements, sorted.
    sketch: Vec<u64>,
}

impl Print {
    fn of(value: &Value) -> Print {
        let mut sketch: Vec<u64> = match value {
            Value::Object(map) => map.iter().map(hash).collect(),
            Value::Array(items) => items.iter().map(hash).collect(),
            _ => Vec::new(),
        };
        sketch.sort_unstable();
        sketch.truncate(SKETCH_HASHES);
        Print { whole: hash(value), kind: std::mem::discriminant(value), sketch }
    }

    /// What it is worth to take `new` for this element.
    fn score(&self, new: &Print) -> usize {
        if self.whole == new.whole {
            return EQUAL_SCORE;
        }
        if self.kind != new.kind {
            return 1;
        }
        let most = self.sketch.len().max(new.sketch.len()).max(1);
        KIND_SCORE + SHARED_SCORE * shared(&self.sketch, &new.sketch) / most
    }
}

/// Hashes with fixed keys: the same arrays are aligned the same way every time.
fn hash(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// How many numbers two sorted lists have in common.
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
    old: Vec<Print>,
    new: Vec<Print>,
}

impl Aligner {
    fn same(&self, old: usize, new: usize) -> bool {
        self.old[old].whole == self.new[new].whole
    }

    /// Pairs elements of two stretches, in order.
    fn pair(&self, old: Range<usize>, new: Range<usize>, cuts: usize, pairs: &mut Vec<(usize, usize)>) {
        let head = old.clone().zip(new.clone()).take_while(|&(old, new)| self.same(old, new)).count();
        pairs.extend(old.clone().zip(new.clone()).take(head));
        let (old, new) = (old.start + head..old.end, new.start + head..new.end);
        let tail = old.clone().rev().zip(new.clone().rev()).take_while(|&(old, new)| self.same(old, new)).count();
        let (old_end, new_end) = (old.end - tail, new.end - tail);
        self.pair_middle(old.start..old_end, new.start..new_end, cuts, pairs);
        pairs.extend((old_end..old.end).zip(new_end..new.end));
    }

    /// Pairs elements of two stretches that neither begin nor end alike.
    fn pair_middle(&self, old: Range<usize>, new: Range<usize>, cuts: usize, pairs: &mut Vec<(usize, usize)>) {
        if old.len().saturating_mul(new.len()) <= CELLS {
            return self.pair_best(old, new, pairs);
        }
        let anchors = if cuts > 0 { self.anchors(old.clone(), new.clone()) } else { Vec::new() };
        if anchors.is_empty() {
            return pairs.extend(old.zip(new));
        }
        let (mut from_old, mut from_new) = (old.start, new.start);
        for (next_old, next_new) in anchors {
            self.pair(from_old..next_old, from_new..next_new, cuts - 1, pairs);
            pairs.push((next_old, next_new));
            (from_old, from_new) = (next_old + 1, next_new + 1);
        }
        self.pair(from_old..old.end, from_new..new.end, cuts - 1, pairs);
    }

    /// The pairing of highest score, by dynamic programming over all pairs.
    fn pair_best(&self, old: Range<usize>, new: Range<usize>, pairs: &mut Vec<(usize, usize)>) {
        let width = new.len() + 1;
        let cell = |i: usize, j: usize| i * width + j;
        // Of each pair of rests of the two stretches, the best score.
        let mut best = vec![0; (old.len() + 1) * width];
        for i in (0..old.len()).rev() {
            for j in (0..new.len()).rev() {
                let paired = self.old[old.start + i].score(&self.new[new.start + j]) + best[cell(i + 1, j + 1)];
                best[cell(i, j)] = paired.max(best[cell(i + 1, j)]).max(best[cell(i, j + 1)]);
            }
        }
        let (mut i, mut j) = (0, 0);
        while i < old.len() && j < new.len() {
            let score = self.old[old.start + i].score(&self.new[new.start + j]);
            if best[cell(i, j)] == score + best[cell(i + 1, j + 1)] {
                pairs.push((old.start + i, new.start + j));
                (i, j) = (i + 1, j + 1);
            } else if best[cell(i, j)] == best[cell(i + 1, j)] {
                i += 1;
            } else {
                j += 1;
            }
        }
    }

    /// Elements that occur once in each stretch and in the same order: the longest such series.
    fn anchors(&self, old: Range<usize>, new: Range<usize>) -> Vec<(usize, usize)> {
        let mut places: BTreeMap<u64, (Vec<usize>, Vec<usize>)> = BTreeMap::new();
        for index in old {
            places.entry(self.old[index].whole).or_default().0.push(index);
        }
        for index in new {
            places.entry(self.new[index].whole).or_default().1.push(index);
        }
        let mut unique: Vec<(usize, usize)> = places
            .into_values()
            .filter_map(|(olds, news)| match (olds.as_slice(), news.as_slice()) {
                ([old], [new]) => Some((*old, *new)),
                _ => None,
            })
            .collect();
        unique.sort_unstable();
        longest_rising(&unique)
    }
}

/// The longest subsequence whose second numbers rise, by patience sorting.
fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // For each length, the index of the pair that ends such a series lowest; and each pair's predecessor in its series.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(pairs.len());
    for (index, pair) in pairs.iter().enumerate() {
        let length = ends.partition_point(|&end| pairs[end].1 < pair.1);
        before.push(length.checked_sub(1).map(|shorter| ends[shorter]));
        match ends.get_mut(length) {
            Some(end) => *end = index,
            None => ends.push(index),
        }
    }
    let mut series: Vec<_> = std::iter::successors(ends.last().copied(), |&index| before[index]).collect();
    series.reverse();
    series.into_iter().map(|index| pairs[index]).collect()
}

#[cfg(test)]
mod tests;

//! Longest common series of two arrays.

/// Maximum number of removed or inserted elements in one stretch; the work grows with its square.
const EDITS: usize = 512;
/// Maximum number of comparisons in one stretch.
const COMPARISONS: usize = 1 << 23;

/// Returns the longest subsequence with increasing second numbers, by patience sorting.
pub(super) fn longest_rising(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    // `ends`: for each length, the pair that ends such a series lowest; `before`: the predecessor of each pair in its series.
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

/// Returns the pairs of equal elements that remain after the fewest removals and insertions (Myers, "An O(ND) difference
/// algorithm"), or none if that exceeds [`EDITS`] or [`COMPARISONS`].
pub(super) fn shortest(old: &[u64], new: &[u64]) -> Vec<(usize, usize)> {
    if old.len().abs_diff(new.len()) > EDITS {
        return Vec::new();
    }
    let mut front = Front { reached: vec![0; 2 * EDITS + 3], comparisons: 0 };
    let mut fronts = Vec::new();
    for edits in 0..=EDITS {
        fronts.push(front.reached[EDITS + 1 - edits..=EDITS + 1 + edits].to_vec());
        if front.advance(edits, old, new) {
            return trace(&fronts, old.len(), new.len());
        }
        if front.comparisons > COMPARISONS {
            break;
        }
    }
    Vec::new()
}

/// The farthest points that a number of edits reaches.
///
/// A point is a number of handled elements of `old` and one of `new`; a diagonal is their difference. The table holds the
/// first number, for the diagonals from `-EDITS - 1` to `EDITS + 1`.
struct Front {
    reached: Vec<usize>,
    comparisons: usize,
}

/// Returns true if diagonal number `at` of `edits` (every second one is used) is reached by an insertion, from the diagonal
/// above.
fn by_insertion(at: usize, edits: usize, below: impl FnOnce() -> usize, above: impl FnOnce() -> usize) -> bool {
    at == 0 || (at != 2 * edits && below() < above())
}

impl Front {
    /// Advances every diagonal by one edit. Returns true once the end of both arrays is reached.
    fn advance(&mut self, edits: usize, old: &[u64], new: &[u64]) -> bool {
        let first = EDITS + 1 - edits;
        for at in (0..=2 * edits).step_by(2) {
            let place = first + at;
            let inserted = by_insertion(at, edits, || self.reached[place - 1], || self.reached[place + 1]);
            let start = if inserted { self.reached[place + 1] } else { self.reached[place - 1] + 1 };
            // The diagonal is `place - (EDITS + 1)`. Points beyond the edge of `new` have no second number.
            let Some(other) = (start + EDITS + 1).checked_sub(place) else { continue };
            let rests = old.get(start..).unwrap_or_default().iter().zip(new.get(other..).unwrap_or_default());
            let equal = rests.take_while(|(old, new)| old == new).count();
            self.comparisons += equal + 1;
            self.reached[place] = start + equal;
            if start + equal == old.len() && other + equal == new.len() {
                return true;
            }
        }
        false
    }
}

/// Follows the path from the end back to the beginning.
fn trace(fronts: &[Vec<usize>], olds: usize, news: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut old, mut new) = (olds, news);
    for (edits, front) in fronts.iter().enumerate().skip(1).rev() {
        // `front` has the points that fewer edits had reached, for the diagonals from `-edits` to `edits`.
        let at = old + edits - new;
        let inserted = by_insertion(at, edits, || front[at - 1], || front[at + 1]);
        let (from, below) = if inserted { (front[at + 1], at + 1) } else { (front[at - 1], at - 1) };
        let other = from + edits - below;
        while old > from && new > other {
            (old, new) = (old - 1, new - 1);
            pairs.push((old, new));
        }
        (old, new) = (from, other);
    }
    pairs.extend((0..old.min(new)).rev().map(|index| (index, index)));
    pairs.reverse();
    pairs
}

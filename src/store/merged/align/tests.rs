use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{AlignmentStep, IN_PLACE, align, diff};
use crate::store::merged::tests::Seeded;

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => panic!("{other} is not an array"),
    }
}

/// Returns the steps in short form: `=` kept, `~` kept but changed, `+` inserted, `-` deleted.
fn picture(old: &[Value], new: &[Value]) -> String {
    let mut picture = String::new();
    for step in align(old, new) {
        match step {
            AlignmentStep::Keep { old: o, new: n } => picture.push(if old[o] == new[n] { '=' } else { '~' }),
            AlignmentStep::Replace { old, new } => picture.extend(old.map(|_| '-').chain(new.map(|_| '+'))),
        }
    }
    picture
}

/// Returns the kept pairs of indices, after checking that the steps lead from `old` to `new`.
fn kept(old: &[Value], new: &[Value]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    let (mut next_old, mut next_new) = (0, 0);
    for step in align(old, new) {
        match step {
            AlignmentStep::Keep { old, new } => {
                assert_eq!((old, new), (next_old, next_new));
                pairs.push((old, new));
                (next_old, next_new) = (old + 1, new + 1);
            }
            AlignmentStep::Replace { old, new } => {
                assert_eq!((old.start, new.start), (next_old, next_new));
                assert!(!old.is_empty() || !new.is_empty());
                (next_old, next_new) = (old.end, new.end);
            }
        }
    }
    assert_eq!((next_old, next_new), (old.len(), new.len()));
    pairs
}

#[test]
fn elements_are_recognised_where_they_moved_to() {
    let cases = [
        (json!([1, 2, 3]), json!([1, 2, 3]), "==="),
        (json!([]), json!([1]), "+"),
        (json!([1]), json!([]), "-"),
        (json!([]), json!([]), ""),
        (json!([1, 2, 3]), json!([0, 1, 2, 3]), "+==="),
        (json!([1, 2, 3]), json!([2, 3, 4]), "-==+"),
        (json!([1, 2, 3]), json!([1, 9, 3]), "=~="),
        (json!([1, 2, 3, 4, 5]), json!([1, 3, 9, 5]), "=-=~="),
        (json!([{"id": 1, "n": 1}, {"id": 2, "n": 1}]), json!([{"id": 2, "n": 7}]), "-~"),
        (json!([{"id": 1, "n": 1}]), json!([{"id": 0, "n": 0}, {"id": 1, "n": 9}]), "+~"),
    ];
    for (old, new, steps) in cases {
        let (old, new) = (array(old), array(new));
        assert_eq!(picture(&old, &new), steps, "{old:?} {new:?}");
        kept(&old, &new);
    }
}

#[test]
fn an_object_is_never_taken_for_one_with_another_id() {
    let cases = [
        // Replaced by a different object, although the rest is equal.
        (json!([{"id": 1, "n": 1, "m": 1}]), json!([{"id": 2, "n": 1, "m": 1}]), "-+"),
        // Swapped, and each looks more like the other one did.
        (
            json!([{"id": 1, "n": 1, "m": 1}, {"id": 2, "n": 2, "m": 2}]),
            json!([{"id": 2, "n": 1, "m": 1}, {"id": 1, "n": 2, "m": 2}]),
            "-~+",
        ),
        // All other fields shift by one.
        (
            json!([{"id": 1, "n": 1}, {"id": 2, "n": 2}, {"id": 3, "n": 3}]),
            json!([{"id": 0, "n": 1}, {"id": 1, "n": 2}, {"id": 2, "n": 3}, {"id": 3, "n": 4}]),
            "+~~~",
        ),
        (json!([{"uuid": "a", "n": 1}, {"uuid": "b", "n": 2}]), json!([{"uuid": "b", "n": 1}]), "-~"),
        // Among fields with other names, the one with the most partners identifies the objects.
        (
            json!([{"seq": 1, "n": 1}, {"seq": 2, "n": 2}, {"seq": 3, "n": 3}]),
            json!([{"seq": 1, "n": 2}, {"seq": 2, "n": 3}, {"seq": 3, "n": 9}]),
            "~~~",
        ),
        // An object with a value that neither array repeats may have been edited.
        (json!([{"name": "x", "n": 1}]), json!([{"name": "y", "n": 1}]), "~"),
    ];
    for (old, new, steps) in cases {
        let (old, new) = (array(old), array(new));
        assert_eq!(picture(&old, &new), steps, "{old:?} {new:?}");
    }
}

#[test]
fn objects_keep_their_identity_in_arrays_of_any_length() {
    for length in [1, 2, 254, 255, 256, 257, 10_000, 100_000] {
        let old: Vec<Value> = (0..length).map(|id| json!({"id": id, "v": 0})).collect();
        let mut new: Vec<Value> = (0..length).map(|id| json!({"id": id, "v": 1})).collect();
        new.insert(0, json!({"id": length, "v": 1}));
        let shifted: Vec<_> = (0..length).map(|index| (index, index + 1)).collect();
        assert_eq!(kept(&old, &new), shifted, "{length}");
        let back: Vec<_> = (0..length).map(|index| (index + 1, index)).collect();
        assert_eq!(kept(&new, &old), back, "{length}");
    }
}

/// Returns an array of objects with the given ids and random other fields.
fn objects(ids: &[u64], seeded: &mut Seeded, key: &str) -> Vec<Value> {
    ids.iter().map(|id| json!({key: id, "a": seeded.below(3), "b": [seeded.below(2)]})).collect()
}

/// Returns the length of the longest common subsequence, by the textbook algorithm.
fn longest_common<T: Eq>(old: &[T], new: &[T]) -> usize {
    let mut best = vec![0; new.len() + 1];
    for a in old {
        let mut diagonal = 0;
        for (j, b) in new.iter().enumerate() {
            let next = if a == b { diagonal + 1 } else { best[j].max(best[j + 1]) };
            diagonal = best[j + 1];
            best[j + 1] = next;
        }
    }
    best[new.len()]
}

#[test]
fn identified_objects_are_paired_with_themselves_as_a_naive_model_has_it() {
    for seed in 0..300 {
        let mut seeded = Seeded(seed);
        let length = [3, 20, 300, 700][seeded.below(4)];
        let mut ids: Vec<u64> = (0..length).collect();
        let key = ["id", "uuid", "key"][seeded.below(3)];
        let old = objects(&ids, &mut seeded, key);
        let edits = seeded.below(40) as u64;
        for next in length..length + edits {
            let at = seeded.below(ids.len() + 1);
            match seeded.below(3) {
                0 => ids.insert(at, next),
                1 if at < ids.len() => drop(ids.remove(at)),
                _ if at < ids.len() => {
                    let moved = ids.remove(at);
                    ids.insert(seeded.below(ids.len() + 1), moved);
                }
                _ => {}
            }
        }
        let new = objects(&ids, &mut seeded, key);
        let pairs = kept(&old, &new);
        assert!(pairs.iter().all(|&(a, b)| old[a][key] == new[b][key]), "seed {seed}: {pairs:?}");
        let names = |array: &[Value]| array.iter().map(|item| item[key].as_u64()).collect::<Vec<_>>();
        assert_eq!(pairs.len(), longest_common(&names(&old), &names(&new)), "seed {seed}");
    }
}

#[test]
fn steps_lead_from_any_array_to_any_other() {
    for seed in 0..300 {
        let mut seeded = Seeded(seed);
        let mut some = || (0..seeded.below(40)).map(|_| seeded.value(2)).collect::<Vec<_>>();
        let (old, new) = (some(), some());
        kept(&old, &new);
        assert!(kept(&old, &old).len() == old.len());
    }
}

#[test]
fn the_shortest_difference_is_as_short_as_a_naive_model_has_it() {
    for seed in 0..500 {
        let mut seeded = Seeded(seed);
        let letters = seeded.below(6) + 1;
        let mut word = || (0..seeded.below(30)).map(|_| seeded.below(letters) as u64).collect::<Vec<_>>();
        let (old, new) = (word(), word());
        let pairs = diff::shortest(&old, &new);
        assert!(pairs.iter().all(|&(a, b)| old[a] == new[b]), "{old:?} {new:?}");
        assert!(pairs.windows(2).all(|two| two[0].0 < two[1].0 && two[0].1 < two[1].1), "{old:?} {new:?}");
        assert_eq!(pairs.len(), longest_common(&old, &new), "{old:?} {new:?}");
    }
}

#[test]
fn long_arrays_keep_what_did_not_change() {
    let old: Vec<Value> = (0..3_000).map(|n| json!({"n": n})).collect();
    let mut new = old.clone();
    new.remove(2_500);
    new[1_500] = json!({"n": "changed"});
    new.insert(10, json!({"n": "new"}));
    let changes: String = picture(&old, &new).chars().filter(|step| *step != '=').collect();
    assert_eq!(changes, "+~-");
}

#[test]
fn long_arrays_without_anything_unique_keep_what_did_not_change() {
    let old: Vec<Value> = (0..20_000).map(|n| json!(n % 3 == 0)).collect();
    let mut new = old.clone();
    new.insert(0, json!(null));
    new.insert(9_000, json!(true));
    new.remove(19_000);
    new.push(json!(null));
    let mut steps = BTreeMap::new();
    picture(&old, &new).chars().for_each(|step| *steps.entry(step).or_insert(0) += 1);
    assert_eq!(steps, BTreeMap::from([('=', 19_999), ('+', 3), ('-', 1)]));
}

#[test]
fn where_nothing_is_recognised_the_length_decides() {
    let numbers = |range: std::ops::Range<usize>, factor: usize| range.map(|n| json!(n % factor)).collect::<Vec<_>>();
    let (low, high) = (numbers(0..IN_PLACE, 3), (0..IN_PLACE).map(|n| json!(n % 3 + 3)).collect::<Vec<_>>());
    assert_eq!(picture(&low, &high), "~".repeat(IN_PLACE), "each may have changed in place");
    let longer: Vec<_> = high.iter().cloned().chain([json!(7)]).collect();
    let replaced = [AlignmentStep::Replace { old: 0..IN_PLACE, new: 0..IN_PLACE + 1 }];
    assert_eq!(align(&low, &longer), replaced);
    let (low, high) = (vec![json!(1); IN_PLACE + 1], vec![json!(2); IN_PLACE + 1]);
    assert_eq!(align(&low, &high), [AlignmentStep::Replace { old: 0..IN_PLACE + 1, new: 0..IN_PLACE + 1 }]);
}

use serde_json::{Value, json};

use super::{Step, align};

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(items) => items,
        other => panic!("{other} is not an array"),
    }
}

/// The steps in short: `=` kept, `~` kept but changed, `+` inserted, `-` deleted.
fn picture(old: &[Value], new: &[Value]) -> String {
    let mut picture = String::new();
    for step in align(old, new) {
        match step {
            Step::Keep { old: o, new: n } => picture.push(if old[o] == new[n] { '=' } else { '~' }),
            Step::Insert { new } => picture.extend(new.map(|_| '+')),
            Step::Delete { count } => picture.extend((0..count).map(|_| '-')),
        }
    }
    picture
}

/// What the steps make of `old`.
fn follow(old: &[Value], new: &[Value]) -> Vec<Value> {
    let mut out = Vec::new();
    let mut next = 0;
    for step in align(old, new) {
        match step {
            Step::Keep { old, new: index } => {
                assert_eq!(old, next);
                out.push(new[index].clone());
                next += 1;
            }
            Step::Insert { new: range } => out.extend_from_slice(&new[range]),
            Step::Delete { count } => next += count,
        }
    }
    assert_eq!(next, old.len());
    out
}

#[test]
fn elements_are_recognised_where_they_moved_to() {
    let cases = [
        (json!([1, 2, 3]), json!([1, 2, 3]), "==="),
        (json!([]), json!([1]), "+"),
        (json!([1]), json!([]), "-"),
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
        assert_eq!(follow(&old, &new), new);
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
    assert_eq!(follow(&old, &new), new);
}

#[test]
fn long_arrays_without_anything_unique_are_paired_by_position() {
    let old: Vec<Value> = (0..1_000).map(|n| json!(n % 3)).collect();
    let new: Vec<Value> = (0..1_001).map(|n| json!(n % 2 + 3)).collect();
    assert_eq!(follow(&old, &new), new);
    assert_eq!(follow(&new, &old), old);
}

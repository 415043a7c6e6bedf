mod arrays;
mod documented;
mod hostile;
mod property;
mod unions;

use serde_json::{Map, Value, json};

pub(super) use property::Seeded;

use super::{Applied, Doc, MergedError, edit};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other} is not an object"),
    }
}

fn doc(node: u8) -> Doc {
    Doc::new([node; 16])
}

fn put(doc: &mut Doc, value: Value) {
    doc.put(None, &object(value)).unwrap();
}

#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "most callers write the value where they call")]
fn assert_shows(doc: &Doc, value: Value) {
    assert_eq!(Value::Object(doc.json().clone()), value);
}

/// Lets each document apply the changes that only the other has.
fn meet(a: &mut Doc, b: &mut Doc) {
    let (from_a, from_b) = (a.changes_after(&b.heads()), b.changes_after(&a.heads()));
    assert_ne!(a.apply(&from_b).unwrap(), Applied::Missing);
    assert_ne!(b.apply(&from_a).unwrap(), Applied::Missing);
    assert_eq!(a.heads(), b.heads());
    assert_eq!(a.json(), b.json());
}

/// Returns two nodes that hold `value` and can be edited independently.
fn pair(value: Value) -> (Doc, Doc) {
    let mut a = doc(1);
    put(&mut a, value);
    let b = Doc::load(&a.save(), [2; 16]).unwrap();
    (a, b)
}

#[test]
fn edits_of_different_fields_both_survive() {
    let (mut a, mut b) = pair(json!({"x": 1, "y": 1, "in": {"x": 1, "y": 1}}));
    put(&mut a, json!({"x": 2, "y": 1, "in": {"x": 2, "y": 1}}));
    put(&mut b, json!({"x": 1, "y": 3, "in": {"x": 1}, "z": 0}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"x": 2, "y": 3, "in": {"x": 2}, "z": 0}));
}

#[test]
fn edits_of_different_elements_both_survive() {
    let (mut a, mut b) = pair(json!({"l": [1, 2, 3, {"n": 1, "m": 1}]}));
    put(&mut a, json!({"l": [0, 1, 9, 3, {"n": 2, "m": 1}]}));
    put(&mut b, json!({"l": [1, 2, {"n": 1, "m": 2}, 4]}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"l": [0, 1, 9, {"n": 2, "m": 2}, 4]}));
}

#[test]
fn a_flat_edit_of_what_is_shown_is_the_edit_of_what_was_read() {
    let before = json!({"a": 1, "b": "x", "c": {"d": [1]}, "e": [1, 2], "f": 0.0, "": true, "g": null});
    let edits = [
        json!({"a": 2, "b": "x", "c": {"d": [1]}, "e": [1, 2], "f": 0.0, "": true, "g": null}),
        json!({"a": {"n": 1}, "b": [1], "c": {"d": [1]}, "e": 5, "f": -0.0, "": 1, "h": {"i": []}}),
        json!({"e": [1, 2]}),
        json!({}),
    ];
    for edit in edits {
        let mut hot = doc(1);
        put(&mut hot, before.clone());
        let mut cold = Doc::load(&hot.save(), [1; 16]).unwrap();
        assert!(edit::is_flat(&object(before.clone()), &object(edit.clone())));
        put(&mut hot, edit.clone());
        put(&mut cold, edit.clone());
        assert_eq!(hot.heads(), cold.heads());
        assert_shows(&Doc::load(&hot.save(), [2; 16]).unwrap(), edit);
    }
}

#[test]
fn an_edit_within_an_object_or_an_array_is_not_flat() {
    let before = object(json!({"a": 1, "c": {"d": [1]}, "e": [1, 2]}));
    for edit in [json!({"a": 1, "c": {"d": [2]}, "e": [1, 2]}), json!({"a": 1, "c": {"d": [1]}, "e": [1]})] {
        assert!(!edit::is_flat(&before, &object(edit)));
    }
}

#[test]
fn edits_of_the_same_field_end_the_same() {
    let (mut a, mut b) = pair(json!({"x": 1}));
    put(&mut a, json!({"x": "a"}));
    put(&mut b, json!({"x": "b"}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"x": "b"}));
}

#[test]
fn an_edit_of_a_field_beats_its_removal() {
    let (mut a, mut b) = pair(json!({"x": 1, "y": 1}));
    put(&mut a, json!({"y": 1}));
    put(&mut b, json!({"x": 2, "y": 1}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"x": 2, "y": 1}));
}

#[test]
fn first_writes_of_one_map_on_two_nodes_both_survive() {
    let (mut a, mut b) = (doc(1), doc(2));
    put(&mut a, json!({"m": {"x": 1, "both": "a", "deep": {"a": 1}}}));
    put(&mut b, json!({"m": {"y": 2, "both": "b", "deep": {"b": 2}}}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"m": {"x": 1, "y": 2, "both": "b", "deep": {"a": 1, "b": 2}}}));
}

#[test]
fn a_map_made_again_on_two_nodes_keeps_both_contents() {
    let (mut a, mut b) = pair(json!({"m": {"old": 1}}));
    for (node, field) in [(&mut a, "a"), (&mut b, "b")] {
        put(node, json!({}));
        put(node, json!({"m": {field: 1}}));
    }
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"m": {"a": 1, "b": 1}}));
}

/// Returns two nodes that agree on `{"m": {"a": 1, "b": 1}}`, a union.
fn union() -> (Doc, Doc) {
    let (mut a, mut b) = (doc(1), doc(2));
    put(&mut a, json!({"m": {"a": 1}}));
    put(&mut b, json!({"m": {"b": 1}}));
    meet(&mut a, &mut b);
    (a, b)
}

#[test]
fn a_union_is_edited_as_one_map() {
    let (mut a, mut b) = union();
    put(&mut a, json!({"m": {"a": 2, "new": {"n": [1]}}}));
    assert_shows(&a, json!({"m": {"a": 2, "new": {"n": [1]}}}));
    meet(&mut a, &mut b);
    put(&mut b, json!({"m": {"a": 2, "new": {"n": [1, 2], "k": 1}}}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"m": {"a": 2, "new": {"n": [1, 2], "k": 1}}}));
}

#[test]
fn an_edit_of_a_union_survives_the_removal_of_one_of_its_maps() {
    let (mut a, mut b) = (doc(1), doc(2));
    put(&mut a, json!({"m": {"a": 1}}));
    put(&mut b, json!({"m": {"b": 1}}));
    let mut c = Doc::load(&a.save(), [3; 16]).unwrap();
    put(&mut c, json!({}));
    meet(&mut a, &mut b);
    put(&mut a, json!({"m": {"a": 5, "b": 1}}));
    meet(&mut a, &mut c);
    assert_shows(&a, json!({"m": {"a": 5, "b": 1}}));
}

#[test]
fn of_a_map_and_a_scalar_one_is_shown() {
    let (mut a, mut b) = (doc(1), doc(2));
    put(&mut a, json!({"m": {"a": 1}}));
    put(&mut b, json!({"m": 7}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"m": 7}));
    put(&mut a, json!({"m": {"c": 1}}));
    assert_shows(&a, json!({"m": {"c": 1}}));
    meet(&mut a, &mut b);
}

#[test]
fn a_put_merges_with_what_came_since_its_base() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1, "y": 1, "l": [1, 2, 3], "m": {"a": 1}}));
    let base = a.heads();
    put(&mut a, json!({"x": 2, "y": 1, "l": [9, 2, 3], "m": {"a": 1, "b": 1}}));
    let wanted = object(json!({"x": 1, "y": 5, "l": [1, 2, 8], "m": {}}));
    a.put(Some(&base), &wanted).unwrap();
    assert_shows(&a, json!({"x": 2, "y": 5, "l": [9, 2, 8], "m": {"b": 1}}));
    // Repeat, now that the actor of concurrent puts is known.
    a.put(Some(&base), &object(json!({"x": 1, "y": 6, "l": [1, 2, 3], "m": {"a": 1}}))).unwrap();
    let mut b = Doc::load(&a.save(), [2; 16]).unwrap();
    assert_eq!(b.json(), a.json());
    put(&mut b, json!({}));
    meet(&mut a, &mut b);
}

#[test]
fn a_put_of_what_is_shown_changes_nothing() {
    let (mut a, _) = union();
    let (heads, bytes) = (a.heads(), a.save());
    let shown = a.json().clone();
    a.put(None, &shown).unwrap();
    a.put(Some(&heads), &shown).unwrap();
    let mut again = Doc::load(&bytes, [9; 16]).unwrap();
    again.put(None, &shown).unwrap();
    put(&mut a, json!({"m": 1}));
    a.put(Some(&heads), &shown).unwrap();
    assert_eq!((again.heads(), again.save()), (heads, bytes));
    assert_shows(&a, json!({"m": 1}));
}

#[test]
fn an_unknown_base_is_refused() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1}));
    assert_eq!(a.put(Some(&[[7; 32]]), &object(json!({}))), Err(MergedError::UnknownBase));
    assert_shows(&a, json!({"x": 1}));
}

#[test]
fn values_are_kept_exactly() {
    let values = [
        json!(null),
        json!(true),
        json!(0),
        json!(0.0),
        json!(-0.0),
        json!(1),
        json!(1.0),
        json!(i64::MIN),
        json!(i64::MAX),
        json!(u64::MAX),
        json!(1e300),
        json!(""),
        json!("\u{0}é😀"),
        json!({}),
        json!([]),
        json!({"a": [{}]}),
    ];
    let mut a = doc(1);
    for before in &values {
        for after in &values {
            put(&mut a, json!({"v": before, "l": [before]}));
            put(&mut a, json!({"v": after, "l": [after]}));
            let read = Doc::load(&a.save(), [2; 16]).unwrap().json().clone();
            assert_eq!(serde_json::to_string(&read).unwrap(), json!({"l": [after], "v": after}).to_string());
        }
    }
}

#[test]
fn every_key_is_possible() {
    let (mut a, mut b) = pair(json!({"": 1, "\0": 2, "\0\0x": 3, "x": {"": {"": 4}}}));
    assert_shows(&b, json!({"": 1, "\0": 2, "\0\0x": 3, "x": {"": {"": 4}}}));
    put(&mut a, json!({"": 5, "\0\0x": 3, "x": {"": {}}}));
    meet(&mut a, &mut b);
    assert_shows(&b, json!({"": 5, "\0\0x": 3, "x": {"": {}}}));
}

#[test]
fn one_actor_writes_the_same_bytes_everywhere() {
    let write = || {
        let mut a = doc(1);
        put(&mut a, json!({"b": {"z": 1, "y": [1, {"k": 2}]}, "a": 1}));
        let base = a.heads();
        put(&mut a, json!({"b": {"z": 2, "y": [{"k": 2}, {"q": 1, "p": 2}]}, "c": {"d": 1}}));
        a.put(Some(&base), &object(json!({"n": {"e": 1, "f": 2}}))).unwrap();
        (a.save(), a.changes_after(&base), a.heads())
    };
    assert_eq!(write(), write());
}

#[test]
fn stored_chunks_load_one_after_the_other() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1}));
    let mut stored = a.save();
    for n in 0..5 {
        let heads = a.heads();
        put(&mut a, json!({"x": n, "y": n}));
        stored.extend(a.changes_after(&heads));
    }
    let b = Doc::load(&stored, [1; 16]).unwrap();
    assert_eq!((a.heads(), a.json()), (b.heads(), b.json()));
}

#[test]
fn a_node_is_sent_what_it_lacks_and_no_more() {
    let (mut a, b) = pair(json!({"text": "x".repeat(1_000)}));
    assert!(a.changes_after(&b.heads()).is_empty());
    put(&mut a, json!({"text": "y"}));
    let known = [b.heads()[0], [7; 32]];
    assert!(a.changes_after(&known).len() < 200);
    assert!(a.changes_after(&[[7; 32]]).len() > 1_000);
}

#[test]
fn a_sample_reaches_from_the_heads_to_the_beginning() {
    let (mut a, b) = pair(json!({"n": -1}));
    for n in 0..1_000 {
        put(&mut a, json!({"n": n}));
    }
    let sample = a.sample();
    assert_eq!(sample[0], a.heads()[0]);
    assert!(sample.len() <= 32 && sample.len() > 8);
    assert!(sample.iter().all(|hash| a.knows(hash)));
    // A node that stopped at any point finds a known change not far before that point.
    let mut b = b;
    let missing = a.changes_after(&b.heads());
    assert_eq!(b.apply(&missing).unwrap(), Applied::AllNew);
    assert!(sample.iter().all(|hash| b.knows(hash)));
}

#[test]
fn the_size_in_memory_grows_with_the_history() {
    let mut a = doc(1);
    let empty = a.resident_bytes(a.save().len());
    for n in 0..100 {
        put(&mut a, json!({"n": n}));
    }
    assert!(a.resident_bytes(a.save().len()) > empty + 5_000);
}

#[test]
fn an_empty_document_is_one() {
    let (mut a, mut b) = (doc(1), doc(2));
    put(&mut a, json!({}));
    assert!(a.heads().is_empty());
    let stored = a.save();
    assert_shows(&Doc::load(&stored, [3; 16]).unwrap(), json!({}));
    assert_eq!(b.apply(&stored).unwrap(), Applied::Nothing);
    put(&mut a, json!({"x": 1}));
    assert_eq!(b.apply(&a.changes_after(&b.heads())).unwrap(), Applied::Changed);
    // A put based on the empty document merges with later changes.
    b.put(Some(&[]), &object(json!({"y": 2}))).unwrap();
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"x": 1, "y": 2}));
}

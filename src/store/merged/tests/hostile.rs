//! Input from peers that no node of this project writes.

use automerge::transaction::Transactable;
use automerge::{AutoCommit, ObjType, ROOT, ScalarValue};

use super::{Applied, Doc, MergedError, assert_shows, doc, json, meet, put};
use crate::limits::JSON_NESTING_LEVELS;

fn foreign(write: impl FnOnce(&mut AutoCommit)) -> Vec<u8> {
    let mut document = AutoCommit::new();
    write(&mut document);
    document.save_nocompress()
}

fn nested(levels: usize) -> Vec<u8> {
    foreign(|document| {
        let mut object = ROOT;
        for _ in 1..levels {
            object = document.put_object(&object, "a", ObjType::Map).unwrap();
        }
    })
}

#[test]
fn changes_without_what_they_build_on_are_told_apart() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1}));
    let first = a.heads();
    put(&mut a, json!({"x": 2}));
    let second = a.heads();
    put(&mut a, json!({"x": 3}));
    let mut b = doc(2);
    assert_eq!(b.apply(&a.changes_after(&second)).unwrap(), Applied::Missing);
    let mut b = doc(2);
    put(&mut b, json!({"y": 1}));
    assert_eq!(b.apply(&a.changes_after(&first)).unwrap(), Applied::Missing);
    assert!(matches!(Doc::load(&a.changes_after(&first), [1; 16]), Err(MergedError::Damaged(_))));
}

#[test]
fn what_is_known_already_is_told_apart() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1}));
    let old = a.save();
    put(&mut a, json!({"x": 2}));
    assert_eq!(a.apply(&old).unwrap(), Applied::Nothing);
    assert_eq!(a.apply(&a.save()).unwrap(), Applied::Nothing);
    assert_eq!(a.apply(&[]).unwrap(), Applied::Nothing);
}

#[test]
fn only_changes_that_are_all_new_are_told_to_be_what_was_gained() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1}));
    let mut b = Doc::load(&a.save(), [2; 16]).unwrap();
    let base = a.heads();
    put(&mut a, json!({"x": 2}));
    let (first, middle) = (a.changes_after(&base), a.heads());
    put(&mut a, json!({"x": 3}));
    let second = a.changes_after(&middle);
    let held = b.save();
    assert_eq!(b.apply(&first).unwrap(), Applied::AllNew);
    assert_eq!(b.apply(&[first.clone(), second.clone()].concat()).unwrap(), Applied::Changed);
    let swapped = [second, first].concat();
    let mut d = Doc::load(&held, [4; 16]).unwrap();
    assert_eq!(d.apply(&swapped).unwrap(), Applied::AllNew);
    let loaded = Doc::load(&[held, swapped].concat(), [5; 16]).unwrap();
    assert_eq!((loaded.heads(), loaded.json()), (a.heads(), a.json()), "in whatever order they came");
    let mut c = Doc::load(&a.save(), [3; 16]).unwrap();
    put(&mut a, json!({"x": 4}));
    assert_eq!(c.apply(&a.save()).unwrap(), Applied::Changed, "a whole document brings old changes too");
    put(&mut a, json!({"x": 5}));
    let last = a.changes_after(&c.heads());
    assert_eq!(c.apply(&[last.clone(), last].concat()).unwrap(), Applied::Changed, "one of them was said twice");
}

#[test]
fn broken_chunks_are_refused() {
    let mut a = doc(1);
    put(&mut a, json!({"x": 1, "long": "text ".repeat(20)}));
    let heads = a.heads();
    put(&mut a, json!({"x": 2}));
    for good in [a.save(), a.changes_after(&heads)] {
        for end in 1..good.len() {
            assert!(matches!(doc(2).apply(&good[..end]), Err(MergedError::Malformed(_))), "cut at {end}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 0x10;
            assert!(matches!(doc(2).apply(&bad), Err(MergedError::Malformed(_))), "flipped at {at}");
        }
        let mut more = good.clone();
        more.push(0);
        assert!(matches!(doc(2).apply(&more), Err(MergedError::Malformed(_))));
    }
}

#[test]
fn compressed_changes_are_refused() {
    let mut document = AutoCommit::new();
    document.put(ROOT, "x", "y".repeat(2_000)).unwrap();
    let change = document.get_last_local_change().unwrap().bytes().into_owned();
    assert_eq!(change[8], 2, "long changes are compressed");
    assert!(matches!(doc(1).apply(&change), Err(MergedError::Malformed(_))));
}

#[test]
fn nesting_is_bounded_where_changes_arrive() {
    let mut a = doc(1);
    assert_eq!(a.apply(&nested(JSON_NESTING_LEVELS)).unwrap(), Applied::Changed);
    assert_eq!(doc(1).apply(&nested(JSON_NESTING_LEVELS + 1)), Err(MergedError::TooDeep));
    assert_eq!(doc(1).apply(&nested(20_000)), Err(MergedError::TooDeep));
    assert_eq!(a.apply(&nested(20_000)), Err(MergedError::TooDeep));
}

#[test]
fn nesting_that_is_here_already_is_shown_as_far_as_it_may_go() {
    let mut a = Doc::load(&nested(20_000), [1; 16]).unwrap();
    let text = serde_json::to_string(&a.json()).unwrap();
    assert_eq!(text.matches('{').count(), JSON_NESTING_LEVELS);
    let shown = a.json().clone();
    a.put(None, &shown).unwrap();
    put(&mut a, json!({"b": 1}));
    assert_shows(&a, json!({"b": 1}));
}

#[test]
fn what_json_has_no_word_for_is_shown_and_can_be_replaced() {
    let bytes = foreign(|document| {
        document.put(ROOT, "bytes", ScalarValue::Bytes(vec![1, 2])).unwrap();
        document.put(ROOT, "count", ScalarValue::counter(5)).unwrap();
        document.increment(ROOT, "count", 2).unwrap();
        document.put(ROOT, "nan", f64::NAN).unwrap();
        document.put(ROOT, "time", ScalarValue::Timestamp(7)).unwrap();
        let text = document.put_object(ROOT, "text", ObjType::Text).unwrap();
        document.splice_text(&text, 0, 0, "hé").unwrap();
        document.put_object(ROOT, "table", ObjType::Table).unwrap();
        document.put(ROOT, "", 1).unwrap();
    });
    let (mut a, mut b) = (doc(1), doc(2));
    assert_eq!(a.apply(&bytes).unwrap(), Applied::Changed);
    assert_shows(&a, json!({"bytes": null, "count": 7, "nan": null, "time": 7, "text": "hé", "table": null, "": 1}));
    put(&mut a, json!({"bytes": 1, "count": 8, "nan": 1.5, "time": 8, "text": "h", "table": {"x": 1}, "": 2}));
    assert_shows(&a, json!({"bytes": 1, "count": 8, "nan": 1.5, "time": 8, "text": "h", "table": {"x": 1}, "": 2}));
    meet(&mut a, &mut b);
}

#[test]
fn a_number_used_twice_is_refused() {
    let (mut a, mut b) = (doc(1), doc(1));
    put(&mut a, json!({"x": 1}));
    put(&mut b, json!({"x": 2}));
    assert!(matches!(a.apply(&b.save()), Err(MergedError::Refused(_))));
}

//! Long arrays.

use serde_json::{Value, json};

use super::super::align::IN_PLACE;
use super::{Doc, Map, MergedError, assert_shows, doc, meet, object, pair, put};

fn numbers(range: std::ops::Range<usize>) -> Value {
    range.collect()
}

fn objects(length: usize, v: usize) -> Vec<Value> {
    (0..length).map(|id| json!({"id": id, "v": v})).collect()
}

/// Returns the element with this id.
fn with_id(doc: &Doc, id: usize) -> Map<String, Value> {
    let found = doc.json()["l"].as_array().unwrap().iter().filter(|item| item["id"] == id).collect::<Vec<_>>();
    assert_eq!(found.len(), 1, "id {id}");
    object(found[0].clone())
}

#[test]
fn an_edit_finds_its_element_in_arrays_of_any_length_though_all_shift_and_change() {
    for length in [51, 255, 256, 257, 3_000] {
        let (mut a, mut b) = pair(json!({"l": objects(length, 0)}));
        let mut shifted = objects(length, 1);
        shifted.insert(0, json!({"id": length, "v": 1}));
        put(&mut a, json!({"l": shifted}));
        let mut marked = objects(length, 0);
        marked[50]["mark"] = json!(true);
        put(&mut b, json!({"l": marked}));
        meet(&mut a, &mut b);
        assert_eq!(a.json()["l"].as_array().unwrap().len(), length + 1);
        assert_eq!(with_id(&a, 50), object(json!({"id": 50, "v": 1, "mark": true})));
        assert_eq!(with_id(&a, 49), object(json!({"id": 49, "v": 1})));
    }
}

#[test]
fn an_edit_of_a_removed_object_does_not_land_on_another() {
    let (mut a, mut b) = pair(json!({"l": objects(300, 0)}));
    let mut without = objects(300, 0);
    without[50] = json!({"id": 900, "v": 0});
    put(&mut a, json!({"l": without}));
    let mut marked = objects(300, 0);
    marked[50]["mark"] = json!(true);
    put(&mut b, json!({"l": marked}));
    meet(&mut a, &mut b);
    assert_eq!(with_id(&a, 900), object(json!({"id": 900, "v": 0})));
    assert!(!serde_json::to_string(a.json()).unwrap().contains("mark"));
}

#[test]
fn a_long_array_of_which_next_to_nothing_stays_is_set_as_a_whole() {
    let (mut a, mut b) = pair(json!({"l": numbers(0..IN_PLACE + 1)}));
    let before = a.rows();
    let mut changed: Vec<usize> = (100_000..100_001 + IN_PLACE).collect();
    changed[0] = 0;
    put(&mut a, json!({"l": changed}));
    assert!(a.rows() - before <= IN_PLACE as u64 + 10, "one operation for each new element: {}", a.rows() - before);
    put(&mut b, json!({"l": numbers(200_000..200_001 + IN_PLACE)}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"l": numbers(200_000..200_001 + IN_PLACE)}));
}

#[test]
fn a_put_with_a_superseded_base_that_changes_too_much_of_a_long_array_is_refused_and_changes_nothing() {
    let mut a = doc(1);
    let content = |changed: usize| {
        let number = |n: usize| if n.is_multiple_of(2) && n < changed { n + 100_000 } else { n };
        object(json!({"l": (0..20_000).map(number).collect::<Vec<_>>()}))
    };
    a.put(None, &content(0)).unwrap();
    let base = a.heads();
    a.put(None, &object(json!({"l": [1]}))).unwrap();
    let (heads, saved) = (a.heads(), a.save());
    assert_eq!(a.put(Some(&base), &content(20_000)), Err(MergedError::TooMuchAtBase));
    assert_eq!((a.heads(), a.save()), (heads, saved));
    assert_shows(&a, json!({"l": [1]}));
    a.put(Some(&base), &content(100)).unwrap();
    a.put(Some(&base), &object(json!({"l": numbers(200_000..220_000)}))).unwrap();
    a.put(None, &content(20_000)).unwrap();
}

#[test]
fn a_short_array_of_which_all_changed_is_changed_in_place() {
    let (mut a, mut b) = pair(json!({"l": numbers(0..1_000)}));
    put(&mut a, json!({"l": numbers(10_000..11_000)}));
    let mut one: Vec<usize> = (0..1_000).collect();
    one[7] = 77;
    put(&mut b, json!({"l": one}));
    meet(&mut a, &mut b);
    let shown = a.json()["l"].as_array().unwrap();
    assert_eq!((shown.len(), &shown[6], &shown[8]), (1_000, &json!(10_006), &json!(10_008)));
    assert!(shown[7] == 77 || shown[7] == 10_007);
}

#[test]
fn a_stretch_in_the_middle_of_a_long_array_is_replaced_and_the_rest_stays() {
    let (mut a, mut b) = pair(json!({"l": numbers(0..20_000)}));
    let mut changed: Vec<usize> = (0..20_000).collect();
    changed.splice(5_000..15_000, 50_000..59_999);
    put(&mut a, json!({"l": changed.clone()}));
    let mut ends: Vec<usize> = (0..20_000).collect();
    (ends[0], ends[19_999]) = (70_000, 70_001);
    put(&mut b, json!({"l": ends}));
    meet(&mut a, &mut b);
    changed[0] = 70_000;
    *changed.last_mut().unwrap() = 70_001;
    assert_shows(&a, json!({"l": changed}));
    let mut c = doc(3);
    meet(&mut a, &mut c);
}

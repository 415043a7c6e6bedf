//! Documents that many nodes created independently.

use serde_json::{Value, json};

use super::{Doc, assert_shows, meet, put};

const ORIGINS: u8 = 25;

fn content(n: usize) -> Value {
    json!({"n": n, "status": {"gps": "ok", "n": n, "pose": {"lat": n, "tags": [n]}}})
}

/// Returns a document that this number of nodes created independently, and a second copy.
fn made_on(origins: u8) -> (Doc, Doc) {
    let (mut a, mut b) = (Doc::new([1; 16]), Doc::new([2; 16]));
    for origin in 3..=origins {
        let mut other = Doc::new([origin; 16]);
        put(&mut other, content(0));
        a.apply(&other.save()).unwrap();
    }
    let mut own = Doc::new([1; 16]);
    put(&mut own, content(0));
    a.apply(&own.save()).unwrap();
    meet(&mut a, &mut b);
    (a, b)
}

#[test]
fn an_edit_of_a_document_made_on_many_nodes_writes_hardly_more_than_one_made_on_two() {
    let cost = |origins| {
        let (mut a, mut b) = made_on(origins);
        for n in 1..5 {
            put(&mut a, content(n));
        }
        let before = a.rows();
        for n in 5..55 {
            put(&mut a, content(n));
        }
        assert_shows(&a, content(54));
        meet(&mut a, &mut b);
        a.rows() - before
    };
    assert!(cost(ORIGINS) <= cost(4), "{} and {}", cost(ORIGINS), cost(4));
}

#[test]
fn a_union_of_many_is_edited_as_one_on_every_node() {
    let (mut a, mut b) = made_on(ORIGINS);
    put(&mut a, json!({"n": 1, "status": {"gps": "lost", "pose": {"tags": []}, "new": {"x": 1}}}));
    put(&mut b, json!({"n": 0, "status": {"gps": "ok", "n": 0, "pose": {"lat": 5, "tags": [0, 1]}}}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"n": 1, "status": {"gps": "lost", "pose": {"lat": 5, "tags": [1]}, "new": {"x": 1}}}));
    put(&mut b, json!({"n": 1, "status": {}}));
    meet(&mut a, &mut b);
    assert_shows(&a, json!({"n": 1, "status": {}}));
}

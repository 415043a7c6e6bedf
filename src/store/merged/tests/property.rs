//! Properties that hold for any edits in any order. Seeds decide everything; a failure names the seed.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::super::Hash;
use super::{Applied, Doc};
use crate::store::json::{same_object, to_text};

/// A small generator (SplitMix64), with the same numbers on every machine.
pub(in crate::store::merged) struct Seeded(pub(in crate::store::merged) u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    pub(in crate::store::merged) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound as u64).unwrap()
    }

    pub(in crate::store::merged) fn value(&mut self, depth: usize) -> Value {
        match self.below(if depth == 0 { 7 } else { 12 }) {
            0 => json!(null),
            1 => json!(0.0),
            2 => json!(-0.0),
            3 => json!(1.0),
            4 => json!(["a", "b", ""][self.below(3)]),
            5 | 6 => json!(self.below(3)),
            7 | 8 => Value::Array((0..self.below(5)).map(|_| self.value(depth - 1)).collect()),
            _ => Value::Object(self.map(depth - 1)),
        }
    }

    fn map(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(4)).map(|_| (self.key(), self.value(depth))).collect()
    }

    /// Picks one of a few keys, so that nodes often choose the same.
    fn key(&mut self) -> String {
        ["a", "b", "c", "", "\0"][self.below(5)].to_owned()
    }

    /// Makes one small edit at a random place.
    fn edit(&mut self, map: &mut Map<String, Value>) {
        let key = self.key();
        match map.get_mut(&key) {
            Some(Value::Object(inner)) if self.below(4) > 0 => self.edit(inner),
            Some(Value::Array(items)) if self.below(4) > 0 => self.edit_items(items),
            Some(_) if self.below(4) == 0 => drop(map.remove(&key)),
            _ => drop(map.insert(key, self.value(3))),
        }
    }

    fn edit_items(&mut self, items: &mut Vec<Value>) {
        let index = self.below(items.len() + 1);
        match (self.below(4), items.get_mut(index)) {
            (0, _) | (_, None) => items.insert(index, self.value(2)),
            (1, Some(_)) => drop(items.remove(index)),
            (_, Some(Value::Object(inner))) => self.edit(inner),
            (_, Some(Value::Array(inner))) => self.edit_items(inner),
            (_, Some(item)) => *item = self.value(1),
        }
    }
}

/// A few nodes that edit one document, and every content that was ever visible.
struct World {
    seeded: Seeded,
    docs: Vec<Doc>,
    shown: BTreeMap<Vec<Hash>, String>,
    bases: Vec<Vec<Hash>>,
}

impl World {
    fn new(seed: u64) -> World {
        let docs = (1..=4).map(|node| Doc::new([node; 16])).collect();
        World { seeded: Seeded(seed), docs, shown: BTreeMap::new(), bases: Vec::new() }
    }

    fn step(&mut self) {
        let node = self.seeded.below(self.docs.len());
        match self.seeded.below(8) {
            0..4 => self.put(node),
            4 => self.put_at_a_base(node),
            5 | 6 => {
                let from = self.seeded.below(self.docs.len());
                self.receive(node, from);
            }
            _ => self.restart(node),
        }
        self.look(node);
    }

    fn put(&mut self, node: usize) {
        let doc = &mut self.docs[node];
        let mut wanted = doc.json().clone();
        for _ in 0..=self.seeded.below(3) {
            self.seeded.edit(&mut wanted);
        }
        doc.put(None, &wanted).unwrap();
        assert!(same_object(doc.json(), &wanted), "a put shows as it was put");
        self.bases.push(doc.heads());
    }

    fn put_at_a_base(&mut self, node: usize) {
        if self.bases.is_empty() {
            return;
        }
        let base = &self.bases[self.seeded.below(self.bases.len())];
        let doc = &mut self.docs[node];
        if base.iter().all(|hash| doc.knows(hash)) {
            let mut wanted: Map<String, Value> = serde_json::from_str(&self.shown[base]).unwrap();
            self.seeded.edit(&mut wanted);
            doc.put(Some(base), &wanted).unwrap();
        }
    }

    fn receive(&mut self, node: usize, from: usize) {
        let heads = if self.seeded.below(4) == 0 { self.docs[node].sample() } else { self.docs[node].heads() };
        let chunks = self.docs[from].changes_after(&heads);
        assert_ne!(self.docs[node].apply(&chunks).unwrap(), Applied::Missing);
    }

    /// Restarts a node: with a new actor, from its stored bytes.
    fn restart(&mut self, node: usize) {
        let mut actor = [0; 16];
        actor[..8].copy_from_slice(&self.seeded.next().to_le_bytes());
        self.docs[node] = Doc::load(&self.docs[node].save(), actor).unwrap();
    }

    /// Checks that equal heads have the same content, on all nodes and at all times.
    fn look(&mut self, node: usize) {
        let doc = &self.docs[node];
        let text = to_text(doc.json());
        let before = self.shown.entry(doc.heads()).or_insert_with(|| text.clone());
        assert_eq!(*before, text);
        let again = Doc::load(&doc.save(), [9; 16]).unwrap();
        assert_eq!((to_text(again.json()), again.heads()), (text, doc.heads()));
    }

    fn meet(&mut self) {
        for _round in 0..2 {
            for node in 1..self.docs.len() {
                self.receive(0, node);
                self.receive(node, 0);
            }
        }
        for node in 0..self.docs.len() {
            self.look(node);
            assert_eq!(self.docs[node].heads(), self.docs[0].heads());
        }
    }
}

#[test]
fn nodes_that_hold_the_same_changes_show_the_same() {
    for seed in 0..60 {
        let outcome = std::panic::catch_unwind(|| {
            let mut world = World::new(seed);
            for _ in 0..40 {
                world.step();
            }
            world.meet();
        });
        assert!(outcome.is_ok(), "seed {seed}");
    }
}

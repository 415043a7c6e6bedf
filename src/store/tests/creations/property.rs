//! Random creations, edits, deletions, compactions and exchanges on three nodes, compared with what each can have seen.

use std::collections::BTreeSet;

use super::*;

/// SplitMix64: a sequence determined by its seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % sides as u64).unwrap()
    }
}

/// One run: the nodes, every version that any of them ever held, and the acknowledged writes.
struct Run {
    name: &'static str,
    nodes: Vec<Bench>,
    versions: Vec<Incoming>,
    /// Acknowledged fields, with the creations that the document descended from at that time.
    fields: Vec<(String, Lineage)>,
    /// Creations that a deletion has seen.
    seen: BTreeSet<Dot>,
    /// Compacted creations, each with the creation that its compaction is.
    compacted: Vec<(Dot, Dot)>,
}

impl Run {
    fn new(name: &'static str) -> Run {
        let nodes = (1..=3).map(Bench::of).collect();
        let (versions, fields, compacted) = (Vec::new(), Vec::new(), Vec::new());
        Run { name, nodes, versions, fields, seen: BTreeSet::new(), compacted }
    }

    fn lineage(&self, node: usize) -> Option<Lineage> {
        Some(self.nodes[node].snapshot().record(&key(self.name).hash()).unwrap()?.lineage)
    }

    fn note(&mut self, node: usize) {
        if self.lineage(node).is_some() {
            self.versions.push(self.nodes[node].outgoing(self.name));
        }
    }

    fn step(&mut self, number: usize, dice: &mut Dice) {
        let (node, other) = (dice.below(3), dice.below(3));
        match dice.below(10) {
            0..4 => {
                let field = format!("f{number}");
                let json = format!(r#"{{"{field}":1}}"#);
                self.nodes[node].write(self.name, Put::Patch { json, base: None }).unwrap();
                self.fields.push((field, self.lineage(node).unwrap()));
            }
            4 => self.delete(node),
            5..7 if self.name.starts_with("cells") => self.compact(node),
            _ if node != other && self.lineage(node).is_some() => {
                let sent = self.nodes[node].outgoing(self.name);
                let from = self.nodes[node].peer_run();
                let applied = self.nodes[other].take_in(from, vec![sent]);
                assert!(applied.refused.is_empty() && applied.missing.is_empty(), "{applied:?}");
                self.note(other);
            }
            _ => {}
        }
        self.note(node);
    }

    fn delete(&mut self, node: usize) {
        let before = self.lineage(node);
        self.nodes[node].delete(self.name);
        self.seen.extend(before.iter().flat_map(|lineage| lineage.all_dots().iter().copied().collect::<Vec<_>>()));
    }

    fn compact(&mut self, node: usize) {
        let before = self.lineage(node);
        if self.nodes[node].write(self.name, Put::Compact).is_ok() {
            let (before, after) = (before.unwrap(), self.lineage(node).unwrap());
            let compaction = *after.dots.iter().next().unwrap();
            self.compacted.extend(before.dots.iter().map(|dot| (*dot, compaction)));
        }
    }

    /// Returns true if a deletion has seen the creation, or a compaction of it.
    fn is_seen(&self, dot: &Dot) -> bool {
        let compactions = self.compacted.iter().filter(|(compacted, _)| compacted == dot);
        self.seen.contains(dot) || compactions.map(|(_, compaction)| compaction).any(|later| self.is_seen(later))
    }

    /// Lets every node send its version to every other, until nothing changes.
    fn converge(&mut self) {
        for _ in 0..4 {
            for (from, to) in [(0, 1), (1, 2), (2, 0), (1, 0), (2, 1), (0, 2)] {
                if self.lineage(from).is_some() {
                    let sent = self.nodes[from].outgoing(self.name);
                    let run = self.nodes[from].peer_run();
                    let applied = self.nodes[to].take_in(run, vec![sent]);
                    assert!(applied.refused.is_empty() && applied.missing.is_empty(), "{applied:?}");
                    self.note(to);
                }
            }
        }
    }

    fn check(&self, seed: u64) {
        let Some(lineage) = self.lineage(0) else { return };
        let versions: BTreeSet<_> = self.nodes.iter().map(|node| node.version_hash(self.name).0).collect();
        let contents: BTreeSet<_> = self.nodes.iter().map(|node| node.json(self.name)).collect();
        assert_eq!((versions.len(), contents.len()), (1, 1), "seed {seed}: {contents:?}");
        let shown = self.nodes[0].json(self.name).unwrap_or_default();
        for (field, made) in &self.fields {
            let is_shown = shown.contains(&format!(r#""{field}""#));
            let is_seen = made.all_dots().iter().all(|dot| self.is_seen(dot));
            // A register holds only its newest version.
            let is_replaced = self.name.starts_with("platforms") && !shown.is_empty();
            assert!(is_shown || is_seen || is_replaced, "seed {seed}: {field} of {made:?} is gone from {shown}");
        }
        let made = self.fields.iter().flat_map(|(_, made)| made.all_dots().iter().copied().collect::<Vec<_>>());
        for dot in made.filter(|dot| lineage.covered.covers(dot)) {
            let is_compacted = self.compacted.iter().any(|(compacted, _)| *compacted == dot);
            assert!(
                is_compacted || self.seen.contains(&dot),
                "seed {seed}: {dot:?} is covered by what has not seen it"
            );
        }
    }

    /// Checks that a node that receives all versions in random order ends where the others did. With compactions, it may have
    /// made edits again that another node deleted while the compaction was in transit; it then has more content than they do,
    /// and they take it over.
    fn deliver(&mut self, number: u8, dice: &mut Dice, seed: u64) {
        if self.versions.is_empty() {
            return;
        }
        let mut late = Bench::of(number);
        let mut order: Vec<usize> = (0..self.versions.len()).collect();
        (1..order.len()).for_each(|at| order.swap(at, dice.below(at + 1)));
        for at in order {
            let applied = late.take_in(PEER, vec![self.versions[at].clone()]);
            assert!(applied.refused.is_empty() && applied.missing.is_empty(), "{applied:?}");
            if dice.below(3) == 0 {
                late.take_in(PEER, vec![self.versions[at].clone()]);
            }
        }
        if self.compacted.is_empty() {
            assert_eq!(late.json(self.name), self.nodes[0].json(self.name), "seed {seed}");
            assert_eq!(late.version_hash(self.name), self.nodes[0].version_hash(self.name), "seed {seed}");
            return;
        }
        // Edits made again over a compaction are a change of that node; no field of the other nodes is missing.
        let (shown, lates) = (self.nodes[0].json(self.name), late.json(self.name));
        let fields = |json: &str| json.matches('"').count();
        for (field, _) in &self.fields {
            let has = |json: &Option<String>| json.as_ref().is_some_and(|json| json.contains(&format!(r#""{field}""#)));
            assert!(!has(&shown) || has(&lates), "seed {seed}: {field} of {shown:?} is not in {lates:?}");
        }
        assert_eq!(shown.is_some(), lates.is_some(), "seed {seed}");
        meet(&mut self.nodes[0], &mut late, self.name);
        assert!(late.json(self.name).as_deref().map(fields) >= lates.as_deref().map(fields), "seed {seed}");
    }
}

const PEER: PeerRun = PeerRun { node: EndpointId([99; 32]), run: crate::store::RunId([99; 16]) };

#[test]
fn whatever_the_order_all_nodes_end_with_the_same_and_only_deletions_that_saw_a_document_remove_it() {
    for seed in 0..40 {
        for name in KINDS {
            let (mut run, mut dice) = (Run::new(name), Dice(seed));
            (0..14).for_each(|number| run.step(number, &mut dice));
            run.converge();
            run.check(seed);
            (5..7).for_each(|number| run.deliver(number, &mut dice, seed));
        }
    }
}

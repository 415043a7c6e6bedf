//! Deletions remove what they have seen; a creation that one has not seen survives it.

use super::*;
use crate::store::{COVERED_DOTS, Dot, Dots, LIVE_DOTS, Sibling};

/// Lets two nodes exchange a document until both hold the same.
fn meet(one: &mut Bench, other: &mut Bench, name: &str) {
    for _ in 0..4 {
        let held = |bench: &Bench| bench.snapshot().record(&key(name).hash()).unwrap().is_some();
        if held(one) {
            other.take(one, name);
        }
        if held(other) {
            one.take(other, name);
        }
    }
    assert_eq!(one.version_hash(name), other.version_hash(name), "{name}");
}

fn lineage(bench: &Bench, name: &str) -> Lineage {
    bench.snapshot().record(&key(name).hash()).unwrap().unwrap().lineage
}

const KINDS: [&str; 2] = ["cells/x", "platforms/x"];

#[test]
fn a_document_made_where_a_deletion_was_not_known_survives_it_on_every_node() {
    for name in KINDS {
        let (mut fleet, mut newcomer) = (Bench::of(1), Bench::of(2));
        fleet.put(name, r#"{"of":"fleet"}"#);
        fleet.delete(name);
        newcomer.put(name, r#"{"of":"newcomer"}"#);
        meet(&mut fleet, &mut newcomer, name);
        for bench in [&fleet, &newcomer] {
            assert_eq!(bench.json(name).unwrap(), r#"{"of":"newcomer"}"#);
        }
        newcomer.delete(name);
        meet(&mut fleet, &mut newcomer, name);
        assert_eq!((fleet.json(name), newcomer.json(name)), (None, None));
    }
}

#[test]
fn a_document_made_where_a_compaction_was_not_known_merges_with_it() {
    let (mut fleet, mut newcomer) = (Bench::of(1), Bench::of(2));
    fleet.put("cells/x", r#"{"fleet":1}"#);
    fleet.write("cells/x", Put::Compact).unwrap();
    newcomer.put("cells/x", r#"{"newcomer":1}"#);
    meet(&mut fleet, &mut newcomer, "cells/x");
    assert_eq!(newcomer.json("cells/x").unwrap(), r#"{"fleet":1,"newcomer":1}"#);
}

#[test]
fn a_deletion_that_has_seen_one_of_two_creations_leaves_the_other() {
    for name in KINDS {
        for merges_first in [false, true] {
            let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
            a.put(name, r#"{"a":1}"#);
            a.put(name, r#"{"a":2}"#);
            c.take(&a, name);
            b.put(name, r#"{"b":1}"#);
            if merges_first {
                meet(&mut a, &mut b, name);
            }
            c.delete(name);
            meet(&mut b, &mut c, name);
            meet(&mut a, &mut b, name);
            meet(&mut a, &mut c, name);
            for bench in [&a, &b, &c] {
                assert_eq!(bench.json(name).unwrap(), r#"{"b":1}"#, "{name}, {merges_first}");
            }
        }
    }
}

#[test]
fn a_put_over_two_creations_descends_from_both_and_a_deletion_of_it_removes_both() {
    for name in KINDS {
        let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
        a.put(name, r#"{"a":1}"#);
        b.put(name, r#"{"b":1}"#);
        c.take(&b, name);
        meet(&mut a, &mut b, name);
        a.put(name, r#"{"both":1}"#);
        assert_eq!((lineage(&a, name).dots.len(), lineage(&a, name).siblings.len()), (2, 0));
        a.delete(name);
        meet(&mut a, &mut c, name);
        assert_eq!((a.json(name), c.json(name)), (None, None), "{name}");
    }
}

#[test]
fn a_node_restored_from_a_backup_brings_nothing_back_that_was_deleted_since() {
    for name in KINDS {
        let (mut a, mut b) = (Bench::of(1), Bench::of(2));
        written(a.request(durable(name, whole(r#"{"n":1}"#)))).unwrap();
        b.take(&a, name);
        let backup = a.disk.crash();
        b.delete(name);
        let mut restored = Bench::over(1, backup, 7);
        assert!(restored.json(name).is_some());
        meet(&mut restored, &mut b, name);
        assert_eq!((restored.json(name), b.json(name)), (None, None), "{name}");
    }
}

#[test]
fn documents_made_again_and_again_by_one_run_leave_a_tombstone_of_one_size() {
    for name in KINDS {
        let mut bench = Bench::new();
        for n in 0..2 * COVERED_DOTS {
            bench.put(name, &format!(r#"{{"n":{n}}}"#));
            bench.delete(name);
        }
        let record = bench.snapshot().record(&key(name).hash()).unwrap().unwrap();
        assert_eq!(record.incarnation, 2 * COVERED_DOTS as u64);
        assert!(record.encode().len() + 16 <= 64);
    }
}

/// The edit of each node has number 1, so an actor that writes to two histories would be noticed.
#[test]
fn histories_that_were_apart_merge_whatever_was_deleted_and_made_again_between() {
    let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    b.take(&a, name);
    b.put(name, r#"{"a":1,"b":1}"#);
    c.put(name, r#"{"c":1}"#);
    c.take(&b, name);
    let both = c.outgoing(name);
    a.delete(name);
    b.take(&a, name);
    assert_eq!(b.json(name), None);
    a.put(name, r#"{"a":2}"#);
    b.take(&a, name);
    b.put(name, r#"{"a":2,"b":2}"#);
    assert!(b.take_in(c.peer_run(), vec![both]).refused.is_empty());
    meet(&mut b, &mut c, name);
    assert_eq!(c.json(name).unwrap(), r#"{"a":2,"b":2,"c":1}"#);
}

#[test]
fn the_side_that_orders_lower_gives_what_the_other_lacks() {
    let (mut fleet, mut newcomer) = (Bench::of(1), Bench::of(2));
    for _ in 0..3 {
        fleet.put("cells/x", r#"{"n":1}"#);
        fleet.delete("cells/x");
    }
    newcomer.put("cells/x", r#"{"n":2}"#);
    let before = (fleet.entry("cells/x").sequence, fleet.version_hash("cells/x").order());
    assert!(before.1 > newcomer.version_hash("cells/x").order());
    // A comparison makes the fleet send; the result is a change of the newcomer.
    newcomer.take(&fleet, "cells/x");
    assert_eq!(newcomer.entry("cells/x").from, 0);
    fleet.take(&newcomer, "cells/x");
    assert_eq!(fleet.json("cells/x").unwrap(), r#"{"n":2}"#);
    // A superseded version of a higher order makes its receiver send its own again.
    let old = Record::tombstone(Kind::Merged, node(1), lineage(&fleet, "cells/x").buried());
    let old = Record { lineage: Lineage { covered: lineage(&fleet, "cells/x").covered, ..old.lineage }, ..old };
    let old = Record { incarnation: old.lineage.incarnation(), ..old };
    let sequence = fleet.entry("cells/x").sequence;
    fleet.take_in(newcomer.peer_run(), vec![incoming(key("cells/x").hash(), old, Vec::new())]);
    assert!(fleet.entry("cells/x").sequence >= sequence);
    assert_eq!(fleet.json("cells/x").unwrap(), r#"{"n":2}"#);
}

#[test]
fn creations_that_do_not_fit_their_document_are_refused() {
    let mut a = Bench::of(1);
    a.put("platforms/x", "{}");
    a.put("cells/x", "{}");
    let dot = |writer: u8| Dot { writer: [writer; 8], incarnation: 1 };
    let sibling = |writer: u8| {
        let Body::Latest { stamp, .. } = a.outgoing("platforms/x").body else { panic!() };
        Sibling { dots: Dots::one(dot(writer)), origin: node(9), stamp, json: "{}".into() }
    };
    let good = lineage(&a, "platforms/x");
    let many = |count: u64| (1..=count).map(|incarnation| Dot { writer: [7; 8], incarnation }).collect::<Dots>();
    let wrong = [
        ("platforms/x", Lineage::default()),
        ("platforms/x", Lineage { covered: good.buried().covered, ..good.clone() }),
        ("platforms/x", Lineage { siblings: vec![sibling(8), sibling(8)], ..good.clone() }),
        ("platforms/x", Lineage { siblings: vec![Sibling { dots: Dots::default(), ..sibling(8) }], ..good.clone() }),
        ("platforms/x", Lineage { siblings: (0..9).map(sibling).collect(), ..good.clone() }),
        ("platforms/x", Lineage { siblings: vec![Sibling { json: "[".into(), ..sibling(8) }], ..good.clone() }),
        ("cells/x", Lineage { siblings: vec![sibling(8)], ..lineage(&a, "cells/x") }),
        ("cells/x", Lineage { dots: many(LIVE_DOTS as u64 + 1), ..good }),
    ];
    let mut bench = Bench::of(2);
    for (name, lineage) in wrong {
        let incarnation = lineage.incarnation();
        let sent = Incoming { lineage, incarnation, ..a.outgoing(name) };
        assert_eq!(bench.take_in(a.peer_run(), vec![sent]).refused.len(), 1, "{name}");
    }
    let sent = Incoming { incarnation: 2, ..a.outgoing("cells/x") };
    assert_eq!(bench.take_in(a.peer_run(), vec![sent]).refused.len(), 1, "an incarnation of its own");
}

#[test]
fn a_version_of_one_document_is_no_base_of_another_with_the_same_content() {
    let mut bench = Bench::new();
    for collection in ["cells", "platforms"] {
        let [one, other] = ["one", "other"].map(|id| format!("{collection}/{id}"));
        let written = [&one, &other].map(|name| bench.put(name, r#"{"n":1}"#).version);
        assert_ne!(written[0], written[1]);
        let refused = bench.write(&other, based("{}", &written[0])).unwrap_err();
        assert!(matches!(refused, Error::UnknownBase(_)), "{refused:?}");
        let deleted = [&one, &other].map(|name| bench.delete(name).version);
        assert_ne!(deleted[0], deleted[1]);
        let refused = bench.write(&other, based("{}", &deleted[0])).unwrap_err();
        assert!(matches!(refused, Error::UnknownBase(_)), "{refused:?}");
        bench.write(&other, based("{}", &deleted[1])).unwrap();
    }
}

#[test]
fn edits_that_a_compaction_has_not_seen_are_made_again_over_it_by_every_node_that_holds_them() {
    let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
    let name = "cells/x";
    a.put(name, r#"{"a":1,"list":["x"],"pose":{"lat":1,"lon":1},"b":1,"gone":1}"#);
    b.take(&a, name);
    a.put(name, r#"{"a":2,"list":["x"],"pose":{"lat":2,"lon":1},"b":1,"gone":1}"#);
    b.put(name, r#"{"a":1,"list":["x","of b"],"pose":{"lat":1,"lon":9},"b":2}"#);
    c.take(&b, name);
    a.write(name, Put::Compact).unwrap();
    b.take(&a, name);
    c.take(&a, name);
    assert_eq!(b.version_hash(name), c.version_hash(name), "both write the same change");
    a.take(&c, name);
    let json = r#"{"a":2,"b":2,"list":["x","of b"],"pose":{"lat":2,"lon":9}}"#;
    for bench in [&a, &b, &c] {
        assert_eq!(bench.json(name).unwrap(), json);
        assert_eq!(bench.version_hash(name), a.version_hash(name));
    }
    assert_eq!(b.store.reader().figures().rebased.get(), 1);
    // A second compaction knows the changes that the first had seen.
    a.write(name, Put::Compact).unwrap();
    a.write(name, Put::Compact).unwrap();
    c.put(name, r#"{"a":2,"b":2,"list":["x","of b"],"pose":{"lat":2,"lon":9},"late":1}"#);
    meet(&mut a, &mut c, name);
    assert!(a.json(name).unwrap().contains("late"));
    meet(&mut a, &mut b, name);
    assert_eq!(a.json(name), b.json(name));
}

#[test]
fn edits_made_again_are_one_change_whatever_else_a_node_holds_of_the_compacted_document() {
    let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    b.take(&a, name);
    b.put(name, r#"{"a":1,"list":["of b"]}"#);
    c.take(&b, name);
    a.write(name, Put::Compact).unwrap();
    b.take(&a, name);
    a.put(name, r#"{"a":2,"more":{"x":1}}"#);
    c.take(&a, name);
    meet(&mut b, &mut c, name);
    assert_eq!(b.json(name).unwrap(), r#"{"a":2,"list":["of b"],"more":{"x":1}}"#);
}

#[test]
fn an_edit_that_reached_the_compacting_node_late_is_kept_though_its_writer_never_comes_back() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    b.take(&a, name);
    let held = a.snapshot().sample(&key(name).hash()).unwrap();
    b.put(name, r#"{"a":1,"b":1}"#);
    a.write(name, Put::Compact).unwrap();
    let chunks = b.snapshot().changes_since(&key(name).hash(), &held).unwrap().unwrap();
    let delta = Incoming { body: Body::Merged(Merged { chunks, heads: Vec::new() }), ..b.outgoing(name) };
    let applied = a.take_in(b.peer_run(), vec![delta]);
    assert_eq!(applied.missing, [(key(name).hash(), vec![])], "what the delta builds on was compacted away");
    a.take(&b, name);
    assert_eq!(a.json(name).unwrap(), r#"{"a":1,"b":1}"#);
    b.take(&a, name);
    assert_eq!(a.version_hash(name), b.version_hash(name));
}

#[test]
fn edits_that_were_made_again_already_change_nothing_when_they_come_a_second_time() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    b.take(&a, name);
    b.put(name, r#"{"a":1,"b":1}"#);
    a.write(name, Put::Compact).unwrap();
    let superseded = b.outgoing(name);
    a.take_in(b.peer_run(), vec![superseded.clone()]);
    let record = |bench: &Bench| bench.snapshot().record(&key(name).hash()).unwrap().unwrap();
    let once = record(&a);
    a.take_in(b.peer_run(), vec![superseded]);
    assert_eq!(record(&a), once);
    assert_eq!(a.store.reader().figures().rebased.get(), 1);
    assert_eq!(a.json(name).unwrap(), r#"{"a":1,"b":1}"#);
    b.take(&a, name);
    assert_eq!(a.version_hash(name), b.version_hash(name));
}

#[test]
fn an_edit_that_was_seen_is_not_made_again_when_a_later_value_stands() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "cells/x";
    a.put(name, r#"{"n":1}"#);
    b.take(&a, name);
    b.put(name, r#"{"n":2}"#);
    a.take(&b, name);
    a.put(name, r#"{"n":3}"#);
    a.write(name, Put::Compact).unwrap();
    meet(&mut a, &mut b, name);
    assert_eq!((b.json(name).unwrap().as_str(), b.store.reader().figures().rebased.get()), (r#"{"n":3}"#, 0));
}

mod property;

#[test]
fn a_version_that_was_removed_is_no_base_though_its_changes_are_still_here() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    b.take(&a, name);
    let removed = a.document(name).unwrap().version;
    b.delete(name);
    // A creation that did not know of the deletion, merged with the deleted one: its changes build on those of both.
    let mut c = Bench::of(3);
    c.put(name, r#"{"c":1}"#);
    c.take(&a, name);
    c.put(name, r#"{"a":1,"c":2}"#);
    b.take(&c, name);
    assert_eq!(b.json(name).unwrap(), r#"{"a":1,"c":2}"#);
    let refused = b.write(name, based(r#"{"a":2}"#, &removed)).unwrap_err();
    assert!(matches!(refused, Error::UnknownBase(_)), "{refused:?}");
    let version = b.document(name).unwrap().version;
    c.put(name, r#"{"a":1,"c":3}"#);
    b.take(&c, name);
    b.write(name, based(r#"{"a":2,"c":2}"#, &version)).unwrap();
    meet(&mut b, &mut c, name);
    assert_eq!(c.json(name).unwrap(), r#"{"a":2,"c":3}"#);
}

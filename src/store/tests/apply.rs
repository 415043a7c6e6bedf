//! Documents from peers.

use super::*;
use crate::store::{Cursor, Dot, Dots, RunId, Stamp};

fn cursor(sequence: u64) -> Cursor {
    Cursor { kind: Kind::Latest, database: [4; 16], run: RunId([5; 16]), sequence, horizon: 8, excluded: 6 }
}

fn latest(name: &str, counter: u64, writer: u8, run: RunId, json: &str) -> Incoming {
    let stamp = Stamp { counter, node: node(writer), run };
    Incoming {
        hash: key(name).hash(),
        name: Some(key(name)),
        kind: Kind::Latest,
        incarnation: 1,
        origin: node(writer),
        lineage: created_by(writer),
        body: Body::Latest { stamp, json: json.as_bytes().to_vec() },
    }
}

/// Returns the lineage of a creation by `writer`.
fn created_by(writer: u8) -> Lineage {
    Lineage { dots: Dots::from_iter([Dot { writer: [writer; 8], incarnation: 1 }]), ..Lineage::default() }
}

const PEER: PeerRun = PeerRun { node: crate::identity::EndpointId([9; 32]), run: RunId([9; 16]) };

#[test]
fn concurrent_edits_of_different_fields_both_win_on_both_nodes() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"one":1,"two":1}"#);
    b.take(&a, "cells/x");
    a.put("cells/x", r#"{"one":2,"two":1}"#);
    b.put("cells/x", r#"{"one":1,"two":2}"#);
    let from_a = a.outgoing("cells/x");
    a.take(&b, "cells/x");
    b.take_in(a.peer_run(), vec![from_a]);
    for bench in [&a, &b] {
        assert_eq!(bench.json("cells/x").unwrap(), r#"{"one":2,"two":2}"#);
    }
    assert_eq!(a.version_hash("cells/x"), b.version_hash("cells/x"));
}

#[test]
fn a_deleted_document_never_comes_back() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    for name in ["cells/x", "platforms/x"] {
        a.put(name, r#"{"n":1}"#);
        b.take(&a, name);
        b.put(name, r#"{"n":2}"#);
        a.delete(name);
        let before = b.outgoing(name);
        b.take(&a, name);
        a.take_in(b.peer_run(), vec![before]);
        for bench in [&a, &b] {
            assert_eq!(bench.json(name), None);
        }
        assert_eq!(a.version_hash(name), b.version_hash(name));
        a.put(name, r#"{"n":3}"#);
        b.take(&a, name);
        assert_eq!(b.json(name).unwrap(), r#"{"n":3}"#);
        assert_eq!(b.document(name).unwrap().incarnation, 2);
    }
}

#[test]
fn the_highest_stamp_wins_whatever_the_order_and_the_content_breaks_ties() {
    let run = RunId([3; 16]);
    let versions = [
        latest("platforms/x", 1, 9, run, r#"{"n":1}"#),
        latest("platforms/x", 2, 5, run, r#"{"n":2}"#),
        latest("platforms/x", 2, 6, run, r#"{"n":3}"#),
        latest("platforms/x", 2, 6, run, r#"{"n":4}"#),
    ];
    let mut winners = std::collections::BTreeSet::new();
    for rotation in 0..versions.len() {
        let mut bench = Bench::new();
        for at in 0..versions.len() {
            let Incoming { hash, name, kind, incarnation, origin, lineage, body } =
                &versions[(at + rotation) % versions.len()];
            let Body::Latest { stamp, json } = body else { panic!() };
            let body = Body::Latest { stamp: *stamp, json: json.clone() };
            let (hash, kind, incarnation, origin) = (*hash, *kind, *incarnation, *origin);
            let (name, lineage) = (name.clone(), lineage.clone());
            bench.take_in(PEER, vec![Incoming { hash, name, kind, incarnation, origin, lineage, body }]);
        }
        winners.insert(bench.json("platforms/x").unwrap());
    }
    assert_eq!(winners.len(), 1);
    assert!(!winners.contains(r#"{"n":1}"#) && !winners.contains(r#"{"n":2}"#));
}

#[test]
fn cursors_are_written_with_the_documents_they_cover() {
    let mut bench = Bench::new();
    let documents = vec![latest("platforms/x", 1, 9, PEER.run, "{}")];
    let applied = bench.apply(Apply {
        from: PEER,
        into: bench.store.run(),
        documents,
        cursors: vec![cursor(7)],
        flush: true,
        excluded: Default::default(),
    });
    assert_eq!(bench.store.tip().durable, applied.sequence);
    let bench = bench.crash();
    assert_eq!(bench.snapshot().cursors(&PEER.node).unwrap(), [cursor(7)]);
    assert_eq!(bench.json("platforms/x").unwrap(), "{}");
}

#[test]
fn an_unflushed_batch_is_lost_together_with_its_cursor() {
    let mut bench = Bench::new();
    let documents = vec![latest("platforms/x", 1, 9, PEER.run, "{}")];
    bench.apply(Apply {
        from: PEER,
        into: bench.store.run(),
        documents,
        cursors: vec![cursor(7)],
        flush: false,
        excluded: Default::default(),
    });
    assert_eq!(bench.snapshot().cursors(&PEER.node).unwrap(), [cursor(7)]);
    let bench = bench.crash();
    assert_eq!(bench.snapshot().cursors(&PEER.node).unwrap(), []);
    assert_eq!(bench.json("platforms/x"), None);
}

#[test]
fn a_delta_whose_base_is_missing_says_what_is_here_and_moves_no_cursor_of_its_kind() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"n":1}"#);
    b.take(&a, "cells/x");
    let held = a.snapshot().sample(&key("cells/x").hash()).unwrap();
    a.put("cells/x", r#"{"n":2}"#);
    let missed = a.snapshot().sample(&key("cells/x").hash()).unwrap();
    a.put("cells/x", r#"{"n":3}"#);
    let delta = |have: &[[u8; 32]]| {
        let chunks = a.snapshot().changes_since(&key("cells/x").hash(), have).unwrap().unwrap();
        Incoming { body: Body::Merged(Merged { chunks, heads: Vec::new() }), ..a.outgoing("cells/x") }
    };
    let cursors = vec![Cursor { kind: Kind::Merged, ..cursor(9) }, cursor(8)];
    let applied = b.apply(Apply {
        from: PEER,
        into: b.store.run(),
        documents: vec![delta(&missed)],
        cursors,
        flush: false,
        excluded: Default::default(),
    });
    assert_eq!(applied.missing, [(key("cells/x").hash(), held.clone())]);
    assert_eq!(b.snapshot().cursors(&PEER.node).unwrap(), [cursor(8)]);
    assert_eq!(b.json("cells/x").unwrap(), r#"{"n":1}"#);
    assert!(b.take_in(PEER, vec![delta(&held)]).missing.is_empty());
    assert_eq!(b.json("cells/x").unwrap(), r#"{"n":3}"#);
    let applied = Bench::of(3).take_in(PEER, vec![delta(&missed)]);
    assert_eq!(applied.missing, [(key("cells/x").hash(), vec![])]);
}

#[test]
fn the_index_says_who_delivered_exactly_this_version() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"one":1,"two":1}"#);
    assert_eq!(a.entry("cells/x").from, 0);
    b.take(&a, "cells/x");
    let source = b.snapshot().source(a.peer_run()).unwrap().unwrap();
    assert_eq!(b.entry("cells/x").from, source);
    a.put("cells/x", r#"{"one":2,"two":1}"#);
    b.take(&a, "cells/x");
    assert_eq!(b.entry("cells/x").from, source, "a fast-forward");
    a.put("cells/x", r#"{"one":3,"two":1}"#);
    b.put("cells/x", r#"{"one":2,"two":3}"#);
    b.take(&a, "cells/x");
    assert_eq!(b.entry("cells/x").from, 0, "merged here");
    let a = a.crash();
    assert_eq!(b.snapshot().source(a.peer_run()).unwrap(), None, "a new run has delivered nothing");
}

#[test]
fn what_is_known_already_takes_no_sequence_number_and_no_disk() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"n":1}"#);
    a.put("platforms/x", r#"{"n":1}"#);
    for name in ["cells/x", "platforms/x"] {
        b.take(&a, name);
    }
    let (tip, bytes) = (b.store.tip(), b.disk.bytes());
    for name in ["cells/x", "platforms/x"] {
        assert_eq!(b.take(&a, name).sequence, tip.visible);
    }
    assert_eq!(b.store.tip(), tip);
    assert!(b.disk.bytes() == bytes);
}

#[test]
fn a_register_of_a_forgotten_run_of_ours_is_written_over_by_what_we_wrote_since() {
    let mut bench = Bench::new();
    bench.put("platforms/x", r#"{"new":true}"#);
    bench.take_in(PEER, vec![latest("platforms/x", 40, 1, RunId([77; 16]), r#"{"old":true}"#)]);
    assert_eq!(bench.json("platforms/x").unwrap(), r#"{"new":true}"#);
    let Body::Latest { stamp, .. } = bench.outgoing("platforms/x").body else { panic!() };
    assert_eq!((stamp.counter, stamp.run), (41, bench.store.run()));
    assert_eq!(bench.entry("platforms/x").from, 0);
    // A version without a later local write is taken back.
    bench.take_in(PEER, vec![latest("platforms/y", 40, 1, RunId([77; 16]), r#"{"old":true}"#)]);
    assert_eq!(bench.json("platforms/y").unwrap(), r#"{"old":true}"#);
}

#[test]
fn our_own_run_that_is_ahead_of_a_backup_is_taken_back() {
    let mut bench = Bench::new();
    let run = bench.store.run();
    written(bench.request(durable("platforms/x", whole(r#"{"n":1}"#)))).unwrap();
    let mut restored = bench.crash();
    restored.take_in(PEER, vec![latest("platforms/x", 7, 1, run, r#"{"n":7}"#)]);
    assert_eq!(restored.json("platforms/x").unwrap(), r#"{"n":7}"#);
    restored.put("platforms/x", r#"{"n":8}"#);
    restored.take_in(PEER, vec![latest("platforms/x", 70, 1, run, r#"{"n":70}"#)]);
    assert_eq!(restored.json("platforms/x").unwrap(), r#"{"n":8}"#);
}

#[test]
fn documents_that_are_wrong_are_refused_one_by_one() {
    let (mut a, mut bench) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"n":1}"#);
    let mut flipped = a.outgoing("cells/x");
    if let Body::Merged(merged) = &mut flipped.body {
        let last = merged.chunks.len() - 1;
        merged.chunks[last] ^= 1;
    }
    let wrong = vec![
        Incoming { hash: KeyHash([0; 16]), ..latest("platforms/a", 1, 9, PEER.run, "{}") },
        Incoming { name: None, ..latest("platforms/b", 1, 9, PEER.run, "{}") },
        Incoming { incarnation: 0, ..latest("platforms/c", 1, 9, PEER.run, "{}") },
        Incoming { incarnation: u64::MAX, ..latest("platforms/d", 1, 9, PEER.run, "{}") },
        Incoming { kind: Kind::Merged, ..latest("platforms/e", 1, 9, PEER.run, "{}") },
        latest("platforms/f", u64::MAX, 9, PEER.run, "{}"),
        latest("platforms/g", 1, 9, PEER.run, "[]"),
        latest("platforms/h", 1, 9, PEER.run, r#"{"a":1,"a":2}"#),
        flipped,
    ];
    let count = wrong.len();
    let good = latest("platforms/good", 1, 9, PEER.run, "{}");
    let documents = wrong.into_iter().chain([good]).collect();
    let applied = bench.apply(Apply {
        from: PEER,
        into: bench.store.run(),
        documents,
        cursors: vec![cursor(3)],
        flush: false,
        excluded: Default::default(),
    });
    assert_eq!(applied.refused.len(), count, "{:?}", applied.refused);
    assert!(bench.json("platforms/good").is_some());
    assert_eq!(bench.snapshot().counts().live, 1);
    assert_eq!(bench.snapshot().cursors(&PEER.node).unwrap(), [cursor(3)]);
}

#[test]
fn a_local_write_over_an_unflushed_remote_one_makes_both_durable() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"one":1}"#);
    b.take(&a, "cells/x");
    assert!(b.store.tip().durable < b.store.tip().visible);
    let same = b.put("cells/x", r#"{"one":1}"#);
    assert!(same.durable);
    assert_eq!(b.crash().json("cells/x").unwrap(), r#"{"one":1}"#);
}

#[test]
fn first_writes_of_the_same_map_on_two_nodes_keep_both() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", r#"{"m":{"a":1}}"#);
    b.put("cells/x", r#"{"m":{"b":2}}"#);
    let from_a = a.outgoing("cells/x");
    a.take(&b, "cells/x");
    b.take_in(a.peer_run(), vec![from_a]);
    for bench in [&a, &b] {
        assert_eq!(bench.json("cells/x").unwrap(), r#"{"m":{"a":1,"b":2}}"#);
    }
}

#[test]
fn changes_beside_those_that_came_are_missed_though_nothing_builds_on_them() {
    let (mut a, mut b, mut c) = (Bench::of(1), Bench::of(2), Bench::of(3));
    a.put("cells/x", r#"{"a":1}"#);
    b.take(&a, "cells/x");
    c.take(&a, "cells/x");
    a.put("cells/x", r#"{"a":2}"#);
    let only_a =
        a.snapshot().changes_since(&key("cells/x").hash(), &c.snapshot().sample(&key("cells/x").hash()).unwrap());
    b.write("cells/x", Put::Patch { json: r#"{"b":1}"#.into(), base: None }).unwrap();
    b.take(&a, "cells/x");
    // B serves C with A's change only, as if C had B's change already.
    let whole = b.outgoing("cells/x");
    let Body::Merged(Merged { heads, .. }) = &whole.body else { panic!("not merged") };
    let body = Body::Merged(Merged { chunks: only_a.unwrap().unwrap(), heads: heads.clone() });
    let documents = vec![Incoming { body, ..b.outgoing("cells/x") }];
    let applied = c.apply(Apply {
        from: PEER,
        into: c.store.run(),
        documents,
        cursors: vec![cursor(9)],
        flush: false,
        excluded: Default::default(),
    });
    assert_eq!(applied.missing.len(), 1, "{applied:?}");
    c.take(&b, "cells/x");
    assert_eq!(c.json("cells/x").unwrap(), r#"{"a":2,"b":1}"#);
}

#[test]
fn a_cursor_that_counts_on_what_a_reopening_lost_is_not_written() {
    let mut bench = Bench::new();
    let documents = vec![latest("platforms/x", 1, 9, PEER.run, "{}")];
    bench.apply(Apply {
        from: PEER,
        into: RunId([9; 16]),
        documents,
        cursors: vec![cursor(7)],
        flush: false,
        excluded: Default::default(),
    });
    assert_eq!(bench.json("platforms/x").as_deref(), Some("{}"), "the documents stand by themselves");
    assert_eq!(bench.snapshot().cursors(&PEER.node).unwrap(), []);
}

/// Returns a deletion of the document that `bench` holds, with this kind.
fn deletion(bench: &Bench, name: &str, kind: Kind) -> Incoming {
    let mut other = Bench::of(2);
    other.take(bench, name);
    other.delete(name);
    Incoming { kind, ..other.outgoing(name) }
}

#[test]
fn a_deletion_that_fits_neither_the_document_nor_its_collection_is_refused() {
    for (name, own, other) in [("cells/x", Kind::Merged, Kind::Latest), ("platforms/x", Kind::Latest, Kind::Merged)] {
        let mut bench = Bench::new();
        bench.put(name, r#"{"n":1}"#);
        let foreign = deletion(&bench, name, other);
        let refused = bench.take_in(PEER, vec![foreign]).refused;
        assert!(refused.len() == 1 && refused[0].1.contains(name), "{refused:?}");
        assert_eq!(bench.json(name).as_deref(), Some(r#"{"n":1}"#));
        let own = deletion(&bench, name, own);
        assert!(bench.take_in(PEER, vec![own]).refused.is_empty());
        assert_eq!(bench.json(name), None);
    }
}

#[test]
fn nothing_of_an_excluded_collection_is_taken() {
    let mut bench = Bench::new();
    bench.put("platforms/x", r#"{"n":1}"#);
    let deleted = deletion(&bench, "platforms/x", Kind::Latest);
    let documents = vec![deleted, latest("platforms/y", 1, 9, PEER.run, "{}")];
    let excluded = ["platforms".to_owned()].into();
    let into = bench.store.run();
    let applied = bench.apply(Apply { from: PEER, into, documents, cursors: vec![], flush: false, excluded });
    assert_eq!(applied.refused.len(), 2, "{:?}", applied.refused);
    assert_eq!((bench.json("platforms/x").as_deref(), bench.json("platforms/y")), (Some(r#"{"n":1}"#), None));
}

#[test]
fn a_version_that_overtakes_the_one_it_builds_on_is_in_once_both_are_here() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "cells/x";
    a.put(name, r#"{"a":1}"#);
    let older = a.outgoing(name);
    let held = a.snapshot().sample(&key(name).hash()).unwrap();
    a.put(name, r#"{"a":2}"#);
    let chunks = a.snapshot().changes_since(&key(name).hash(), &held).unwrap().unwrap();
    let newer = Incoming { body: Body::Merged(Merged { chunks, heads: Vec::new() }), ..a.outgoing(name) };
    let applied = b.take_in(a.peer_run(), vec![newer.clone(), older.clone()]);
    assert_eq!((applied.missing.len(), applied.refused.len()), (0, 0));
    assert_eq!(b.version_hash(name), a.version_hash(name));
    // A base that nothing in the batch brings is missing, even if other versions follow.
    let mut c = Bench::of(3);
    a.put(name, r#"{"a":3}"#);
    let held = a.snapshot().sample(&key(name).hash()).unwrap();
    a.put(name, r#"{"a":4}"#);
    let chunks = a.snapshot().changes_since(&key(name).hash(), &held).unwrap().unwrap();
    let newest = Incoming { body: Body::Merged(Merged { chunks, heads: Vec::new() }), ..a.outgoing(name) };
    let applied = c.take_in(a.peer_run(), vec![newest, older]);
    assert_eq!(applied.missing.iter().map(|(hash, _)| *hash).collect::<Vec<_>>(), [key(name).hash()]);
    assert_eq!(c.json(name).unwrap(), r#"{"a":1}"#);
}

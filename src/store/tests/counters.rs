//! Counters from peers: no single one exhausts a name.

use super::*;
use crate::store::codec::put_varint;
use crate::store::write::MAX_COUNTER;
use crate::store::{Covered, Dot, Dots, RunId, Sibling, Stamp};

const PEER: PeerRun = PeerRun { node: EndpointId([9; 32]), run: RunId([9; 16]) };

/// Returns a deletion that claims to have seen creations up to this incarnation: of one writer, or of all.
fn tombstone(name: &str, kind: Kind, incarnation: u64, of_all: bool) -> Incoming {
    let covered = if of_all {
        let mut bytes = Vec::new();
        put_varint(&mut bytes, incarnation);
        put_varint(&mut bytes, 0);
        Covered::from_bytes(&bytes).expect("well-formed")
    } else {
        Covered::default().with([&Dot { writer: [9; 8], incarnation }])
    };
    let lineage = Lineage { covered, ..Lineage::default() };
    let (hash, origin) = (key(name).hash(), PEER.node);
    Incoming { hash, name: None, kind, incarnation, origin, lineage, body: Body::Tombstone }
}

/// Creates, changes, deletes and creates a document again on one node; the other applies each version.
fn is_usable(a: &mut Bench, b: &mut Bench, name: &str) {
    for round in 0..3 {
        for n in 0..2 {
            a.put(name, &format!(r#"{{"n":[{round},{n}]}}"#));
            let applied = b.take(a, name);
            assert!(applied.refused.is_empty(), "{name}: {:?}", applied.refused);
            assert_eq!(b.json(name), a.json(name));
        }
        a.delete(name);
        assert!(b.take(a, name).refused.is_empty());
        assert_eq!(b.json(name), None);
    }
}

#[test]
fn no_deletion_makes_a_name_unusable_whatever_it_claims_to_have_seen() {
    let highest = [
        1 << 32,
        (1 << 32) + 1,
        1 << 40,
        1 << 52,
        MAX_COUNTER - 1,
        MAX_COUNTER,
        MAX_COUNTER + 1,
        u64::MAX - 1,
        u64::MAX,
    ];
    for (index, incarnation) in highest.into_iter().enumerate() {
        for of_all in [false, true] {
            let (mut a, mut b) = (Bench::of(1), Bench::of(2));
            for (name, kind) in [("cells/x", Kind::Merged), ("platforms/x", Kind::Latest)] {
                if index % 2 == 0 {
                    a.put(name, "{}");
                    b.take(&a, name);
                }
                for bench in [&mut a, &mut b] {
                    bench.take_in(PEER, vec![tombstone(name, kind, incarnation, of_all)]);
                }
                is_usable(&mut a, &mut b, name);
            }
        }
    }
}

#[test]
fn a_name_does_not_run_out_by_a_few_thousand_deletions_either() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let name = "platforms/x";
    for round in 0..2_000 {
        let highest = (1 << 32) + round * (1 << 16);
        let documents = vec![tombstone(name, Kind::Latest, highest, false)];
        assert!(a.take_in(PEER, documents.clone()).refused.is_empty(), "a step is plausible");
        b.take_in(PEER, documents);
    }
    is_usable(&mut a, &mut b, name);
}

#[test]
fn a_live_document_that_claims_a_far_creation_does_not_use_its_name_up() {
    for incarnation in [1 << 32, 1 << 52, MAX_COUNTER, u64::MAX] {
        let (mut a, mut b) = (Bench::of(1), Bench::of(2));
        let name = "platforms/x";
        let lineage = Lineage { dots: Dots::one(Dot { writer: [9; 8], incarnation }), ..Lineage::default() };
        let stamp = Stamp { counter: 1, node: PEER.node, run: PEER.run };
        let body = Body::Latest { stamp, json: b"{}".to_vec() };
        let (hash, origin) = (key(name).hash(), PEER.node);
        let document = Incoming { hash, name: Some(key(name)), kind: Kind::Latest, incarnation, origin, lineage, body };
        for bench in [&mut a, &mut b] {
            bench.take_in(PEER, vec![document.clone()]);
        }
        is_usable(&mut a, &mut b, name);
    }
}

fn version(name: &str, counter: u64, sibling: Option<u64>) -> Incoming {
    let stamp = |counter| Stamp { counter, node: PEER.node, run: PEER.run };
    let dots = |writer: u8| Dots::one(Dot { writer: [writer; 8], incarnation: 1 });
    let siblings = sibling.map(|counter| Sibling {
        dots: dots(8),
        origin: PEER.node,
        stamp: stamp(counter),
        json: r#"{"sibling":1}"#.to_owned(),
    });
    Incoming {
        hash: key(name).hash(),
        name: Some(key(name)),
        kind: Kind::Latest,
        incarnation: 1,
        origin: PEER.node,
        lineage: Lineage { dots: dots(9), siblings: siblings.into_iter().collect(), ..Lineage::default() },
        body: Body::Latest { stamp: stamp(counter), json: b"{}".to_vec() },
    }
}

#[test]
fn the_highest_counter_a_peer_may_send_is_followed_by_a_version_that_peers_take() {
    for counter in [MAX_COUNTER - 2, MAX_COUNTER - 1] {
        let (mut a, mut b) = (Bench::of(1), Bench::of(2));
        for bench in [&mut a, &mut b] {
            let applied = bench.take_in(PEER, vec![version("platforms/x", counter, None)]);
            assert!(applied.refused.is_empty(), "{:?}", applied.refused);
        }
        is_usable(&mut a, &mut b, "platforms/x");
    }
}

#[test]
fn a_counter_beyond_the_highest_is_refused_of_a_version_and_of_its_siblings() {
    let mut bench = Bench::new();
    for (counter, sibling) in [(MAX_COUNTER, None), (u64::MAX, None), (1, Some(MAX_COUNTER)), (1, Some(u64::MAX))] {
        let applied = bench.take_in(PEER, vec![version("platforms/x", counter, sibling)]);
        assert_eq!(applied.refused.len(), 1, "{counter} {sibling:?}");
    }
    assert!(bench.take_in(PEER, vec![version("platforms/x", 1, Some(MAX_COUNTER - 1))]).refused.is_empty());
    bench.put("platforms/x", r#"{"n":1}"#);
    assert_eq!(bench.json("platforms/x").as_deref(), Some(r#"{"n":1}"#));
}

/// Returns a change that builds on `document`, with its one operation numbered `number`.
fn change_numbered(document: &Incoming, number: u64) -> Incoming {
    let Body::Merged(merged) = &document.body else { panic!("not merged") };
    let held = automerge::Automerge::load(&merged.chunks).expect("loads");
    let mut other =
        automerge::AutoCommit::load(&merged.chunks).expect("loads").with_actor(automerge::ActorId::from([7; 16]));
    automerge::transaction::Transactable::put(&mut other, automerge::ROOT, "far", 1).expect("put");
    let change = other.get_last_local_change().expect("made").decode();
    let far = automerge::ExpandedChange { start_op: number.try_into().expect("not 0"), hash: None, ..change };
    let far = automerge::Change::from(far);
    assert_eq!(far.deps(), held.get_heads().as_slice());
    let chunks = far.raw_bytes().to_vec();
    Incoming { body: Body::Merged(Merged { chunks, heads: Vec::new() }), ..document.clone() }
}

#[test]
fn operations_numbered_at_the_end_of_the_range_leave_a_document_that_can_be_made_again() {
    for number in [1 << 31, u64::from(u32::MAX) - 3, u64::from(u32::MAX) - 2] {
        let (mut a, mut b) = (Bench::of(1), Bench::of(2));
        a.put("cells/x", r#"{"n":1}"#);
        b.take(&a, "cells/x");
        let far = change_numbered(&a.outgoing("cells/x"), number);
        for bench in [&mut a, &mut b] {
            bench.take_in(PEER, vec![far.clone()]);
        }
        let put = a.write("cells/x", whole(r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#));
        if let Err(refused) = put {
            assert!(refused.to_string().contains("delete it"), "{number}: {refused}");
        }
        a.delete("cells/x");
        b.take(&a, "cells/x");
        is_usable(&mut a, &mut b, "cells/x");
    }
}

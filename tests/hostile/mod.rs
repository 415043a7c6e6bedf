//! A hostile peer beside honest traffic, against a real node; in a memory cgroup with the chart's limit, where one can be
//! created.
//!
//! Each test is one attack. All of them require that the node's memory stays within the limit, that honest puts and honest
//! replication stay within their time limits, and that the node works normally afterwards.

mod attacker;
mod scene;

use attacker::Attacker;
use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, ObjType, ROOT, ScalarValue};
use bytes::Bytes;
use peat_node::store::Key;
use peat_node::sync::link::Lane;
use peat_node::sync::mesh::message::Body;
use peat_node::sync::mesh::{Batch, Cursor, Document, Hello, Merged, Part, Refused, Tombstone, Want, document};
use scene::Scene;

/// Number of connections in a crowd.
const CROWD: u8 = 60;

/// Encodes a message with `count` empty documents, without creating the documents.
fn empty_documents(count: usize) -> Vec<u8> {
    let documents = [0x12, 0x00].repeat(count);
    let mut length = Vec::new();
    prost::encoding::encode_varint(documents.len() as u64, &mut length);
    [&[0x2a], length.as_slice(), &documents].concat()
}

/// Sends the bytes of a message as parts.
fn in_parts(attacker: &mut Attacker, lane: Lane, bytes: &[u8]) {
    let pieces = bytes.chunks(1 << 20).count();
    for (index, piece) in bytes.chunks(1 << 20).enumerate() {
        let part = Part { data: Bytes::copy_from_slice(piece), last: index + 1 == pieces };
        attacker.say(lane, Body::Part(part));
    }
}

fn is_thrown_out(attacker: &mut Attacker) {
    attacker.wait("the node closes the link", |attacker| attacker.gone.is_some());
}

#[test]
fn a_stranger_who_sends_a_batch_of_millions_in_parts_is_thrown_out() {
    Scene::new().withstands(|scene| {
        for seed in 1..=8 {
            let mut stranger = Attacker::dial("127.0.0.1:0", &scene.victim, seed);
            in_parts(&mut stranger, Lane::Control, &empty_documents(10_400_000));
            is_thrown_out(&mut stranger);
        }
    });
}

#[test]
fn a_stranger_who_says_anything_but_a_proof_is_thrown_out() {
    let scene = Scene::new();
    scene.withstands(|scene| {
        let bodies = [
            Body::Hello(Hello::default()),
            Body::Batch(Batch::default()),
            Body::Part(Part { data: Bytes::from_static(&[0; 9]), last: false }),
            Body::Auth(peat_node::sync::mesh::Auth { proof: vec![1; 63].into() }),
        ];
        for (seed, body) in (20..).zip(bodies) {
            let mut stranger = Attacker::dial("127.0.0.1:0", &scene.victim, seed);
            stranger.say(Lane::Control, body);
            is_thrown_out(&mut stranger);
        }
    });
}

#[test]
fn a_crowd_of_strangers_of_one_network_leaves_room_for_an_honest_newcomer() {
    let scene = Scene::new();
    scene.withstands(|scene| {
        let mut crowd: Vec<Attacker> =
            (1..=CROWD).map(|seed| Attacker::begin("127.0.0.1:0", &scene.victim, seed)).collect();
        for stranger in &mut crowd {
            stranger.is_gone();
        }
        // This member comes from another network.
        let newcomer = Attacker::member("127.0.3.1:0", &scene.victim, 99, &scene.key);
        assert_eq!(newcomer.gone, None);
    });
}

#[test]
fn a_member_who_sends_a_batch_of_millions_of_documents_is_thrown_out() {
    Scene::new().withstands(|scene| {
        let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 1, &scene.key);
        in_parts(&mut member, Lane::Bulk, &empty_documents(10_400_000));
        is_thrown_out(&mut member);
    });
}

#[test]
fn a_member_whose_hello_has_hundreds_of_thousands_of_collections_or_cursors_is_thrown_out_with_a_line_in_the_log() {
    let scene = Scene::new();
    scene.withstands(|scene| {
        let hellos = [
            Hello { latest_collections: (0..100_000).map(|n| format!("{n}")).collect(), ..Hello::default() },
            Hello { latest_collections: vec![String::new(); 300_000], ..Hello::default() },
            Hello { cursors: vec![Cursor::default(); 300_000], ..Hello::default() },
            Hello { cursors: vec![Cursor::default(); 9_000_000], ..Hello::default() },
        ];
        for (seed, lists) in (1..).zip(hellos) {
            let mut member = Attacker::dial("127.0.0.1:0", &scene.victim, seed);
            member.prove(&scene.key);
            let hello =
                Hello { latest_collections: lists.latest_collections, cursors: lists.cursors, ..member.hello() };
            member.say(Lane::Control, Body::Hello(hello));
            is_thrown_out(&mut member);
        }
    });
    let log = scene.victim.log();
    assert!(log.len() < 20_000, "{} bytes of log", log.len());
}

#[test]
fn a_member_who_refuses_and_asks_for_what_it_was_never_sent_is_thrown_out_or_answered_in_bounds() {
    Scene::new().withstands(|scene| {
        let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 1, &scene.key);
        member.say(Lane::Control, Body::Refused(Refused { keys: vec![vec![7; 16].into(); 16_913] }));
        is_thrown_out(&mut member);
        let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 2, &scene.key);
        for number in 0..100_000_u128 {
            let key = number.to_be_bytes().to_vec().into();
            member.say(Lane::Control, Body::Want(Want { key, ..Want::default() }));
            if member.gone.is_some() {
                break;
            }
        }
    });
}

/// Creates a merged document with a list that grows by the given number of nulls in each of several changes.
fn nulls(id: &str, writer: &Attacker, lengths: &[usize]) -> Document {
    let name = Key::new("missions", id).expect("a name");
    let mut document = AutoCommit::new().with_actor(ActorId::from([9; 16]));
    let list = document.put_object(ROOT, "list", ObjType::List).expect("a list");
    for length in lengths {
        document.splice(&list, 0, 0, std::iter::repeat_n(ScalarValue::Null, *length)).expect("a splice");
        document.commit();
    }
    let chunks: Bytes = document.save_nocompress().into();
    assert!(chunks.len() < 400, "{} bytes", chunks.len());
    Document {
        key: name.hash().0.to_vec().into(),
        kind: 1,
        incarnation: 1,
        collection: "missions".into(),
        doc_id: id.into(),
        origin: writer.id().0.to_vec().into(),
        dots: [&[1][..], &[9; 8], &[1]].concat().into(),
        body: Some(document::Body::Merged(Merged { chunks, heads: Vec::new() })),
        ..Document::default()
    }
}

#[test]
fn forty_documents_of_a_few_bytes_that_stand_for_more_than_nodes_put_are_refused() {
    let scene = Scene::new();
    scene.withstands(|scene| {
        let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 1, &scene.key);
        let bomb = nulls("bomb", &member, &[300_000, 300_000]);
        let named = |n: usize| {
            let id = format!("bomb{n}");
            let name = Key::new("missions", id.as_str()).expect("a name");
            Document { doc_id: id, key: name.hash().0.to_vec().into(), ..bomb.clone() }
        };
        member.send((0..40).map(named).collect());
        crate::node::eventually("the log says why", || {
            assert!(!member.is_gone(), "a document that is wrong costs itself: {:?}", member.gone);
            scene.victim.log().contains("fields and elements").then_some(())
        });
    });
    assert_eq!(scene.victim.get("missions", "bomb0"), None);
}

#[test]
fn documents_that_expand_as_far_as_they_may_stay_within_the_memory_limit() {
    let scene = Scene::new();
    let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 1, &scene.key);
    for round in 0..3 {
        let id = format!("large{round}");
        let document = nulls(&id, &member, &[250_000, 250_000]);
        member.send(vec![document]);
        crate::node::eventually("it arrives", || {
            assert!(!member.is_gone(), "{:?}", member.gone);
            scene.victim.get("missions", &id)
        });
    }
    scene.is_well();
}

#[test]
fn a_deletion_that_claims_to_have_seen_everything_leaves_the_name_usable_on_every_node() {
    let scene = Scene::new();
    scene.withstands(|scene| {
        let mut member = Attacker::member("127.0.0.1:0", &scene.victim, 1, &scene.key);
        let key: Bytes = Key::new("missions", "target").expect("a name").hash().0.to_vec().into();
        let highest = [1_u64 << 32, 1 << 40, 1 << 53, u64::MAX];
        let tombstone = |incarnation: u64| {
            let mut covered = Vec::new();
            prost::encoding::encode_varint(incarnation, &mut covered);
            covered.push(0);
            let body = Some(document::Body::Tombstone(Tombstone {}));
            Document { key: key.clone(), kind: 1, incarnation, covered: covered.into(), body, ..Document::default() }
        };
        member.send(highest.map(tombstone).to_vec());
        member.wait("it is sent", |_| true);
        for n in 0..3 {
            let text = format!(r#"{{"n":{n}}}"#);
            scene.victim.run("put", &["missions", "target", &text]).ok();
            scene.honest.shows("missions", "target", &text);
            assert!(!member.is_gone());
        }
    });
}

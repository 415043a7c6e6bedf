//! Documents arrive at every node that should have them, once.

use std::time::Duration;

use super::measure::measure;
use super::mesh::{Mesh, Setup};
use crate::store::{Key, Put};
use crate::sync::link::Lane;
use crate::sync::{Answer, ByteCounts, Control};

fn line(length: usize) -> Mesh {
    let dials = |node: usize| if node == 0 { vec![] } else { vec![node - 1] };
    Mesh::new((0..length).map(|node| Setup { dials: dials(node), ..Setup::default() }).collect())
}

#[test]
fn what_one_node_writes_every_node_of_a_line_gets() {
    let mut mesh = line(3);
    mesh.put(0, "platforms", "before", r#"{"n":1}"#);
    mesh.connect_all();
    mesh.put(0, "platforms", "a1", r#"{"status":"READY"}"#);
    mesh.put(2, "notes", "plan", r#"{"text":"go"}"#);
    mesh.converge();
    assert_eq!(mesh.get(2, "platforms", "a1").as_deref(), Some(r#"{"status":"READY"}"#));
    assert_eq!(mesh.get(0, "notes", "plan").as_deref(), Some(r#"{"text":"go"}"#));
    assert_eq!(mesh.get(2, "platforms", "before").as_deref(), Some(r#"{"n":1}"#));
}

/// The plans of both sides describe what each held then; later writes are in neither plan.
#[test]
fn what_is_written_while_two_nodes_meet_arrives_whenever_it_is_written() {
    for millis in 0..40 {
        for writes_first in [None, Some(0), Some(1)] {
            let mut mesh = Mesh::pair();
            writes_first.into_iter().for_each(|node| _ = mesh.put(node, "notes", "before", r#"{"n":1}"#));
            mesh.run_for(Duration::from_millis(millis));
            mesh.put(0, "notes", "of 0", r#"{"n":2}"#);
            mesh.put(1, "platforms", "of 1", r#"{"n":3}"#);
            mesh.converge();
        }
    }
}

#[test]
fn edits_of_different_fields_on_both_sides_of_a_cut_both_survive() {
    let mut mesh = Mesh::pair();
    mesh.put(0, "notes", "n", r#"{"a":1,"b":1,"list":[{"x":1},{"x":2}]}"#);
    mesh.connect_all();
    mesh.converge();
    mesh.cut(0, 1);
    mesh.put(0, "notes", "n", r#"{"a":2,"b":1,"list":[{"x":10},{"x":2}]}"#);
    mesh.put(1, "notes", "n", r#"{"a":1,"b":2,"list":[{"x":1},{"x":20}]}"#);
    mesh.run_for(Duration::from_secs(40));
    mesh.heal();
    mesh.converge();
    assert_eq!(mesh.get(1, "notes", "n").as_deref(), Some(r#"{"a":2,"b":2,"list":[{"x":10},{"x":20}]}"#));
}

#[test]
fn what_a_newcomer_made_before_it_met_the_fleet_survives_a_deletion_there_and_counts_as_held() {
    for collection in ["notes", "platforms"] {
        let mut mesh = line(3);
        mesh.cut(1, 2);
        for _ in 0..3 {
            mesh.put(0, collection, "x", r#"{"of":"fleet"}"#);
            mesh.write(0, collection, "x", Put::Delete);
        }
        mesh.put(2, collection, "x", r#"{"of":"newcomer"}"#);
        mesh.run_for(Duration::from_secs(20));
        mesh.heal();
        assert!(mesh.run_until(Duration::from_secs(60), |mesh| mesh.is_connected(2)));
        let sequence = mesh.put(2, collection, "y", r#"{"of":"newcomer"}"#);
        let key = Key::new(collection, "y").expect("a valid key").hash();
        let call = mesh.ask(2, Control::WaitPeers { key, sequence, peers: 1 });
        mesh.converge();
        mesh.run_for(Duration::from_secs(1));
        assert_eq!(mesh.nodes[2].answers.get(&call), Some(&Ok(Answer::Done)));
        for node in 0..3 {
            for id in ["x", "y"] {
                assert_eq!(
                    mesh.get(node, collection, id).as_deref(),
                    Some(r#"{"of":"newcomer"}"#),
                    "{collection}/{id}"
                );
            }
        }
    }
}

#[test]
fn a_large_document_that_a_newcomer_made_survives_a_deletion_too() {
    let mut mesh = Mesh::pair();
    mesh.put(0, "notes", "x", r#"{"of":"fleet"}"#);
    mesh.write(0, "notes", "x", Put::Delete);
    let text = format!(r#"{{"text":"{}"}}"#, "long ".repeat(4_000));
    mesh.put(1, "notes", "x", &text);
    mesh.connect_all();
    mesh.converge();
    assert_eq!(mesh.get(0, "notes", "x"), Some(text));
}

#[test]
fn a_deleted_document_never_comes_back() {
    let mut mesh = line(3);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    mesh.connect_all();
    mesh.converge();
    mesh.cut(1, 2);
    mesh.write(0, "notes", "n", Put::Delete);
    mesh.put(2, "notes", "n", r#"{"a":1,"edited":"while it was deleted"}"#);
    mesh.run_for(Duration::from_secs(40));
    mesh.heal();
    mesh.converge();
    assert_eq!(mesh.get(2, "notes", "n"), None);
    mesh.put(2, "notes", "n", r#"{"a":3}"#);
    mesh.converge();
    assert_eq!(mesh.get(0, "notes", "n").as_deref(), Some(r#"{"a":3}"#));
}

#[test]
fn a_long_history_travels_as_what_is_new() {
    let mut mesh = Mesh::pair();
    let text = "x".repeat(40_000);
    mesh.put(0, "notes", "n", &format!(r#"{{"text":"{text}"}}"#));
    mesh.connect_all();
    mesh.converge();
    mesh.run_for(Duration::from_secs(10));
    mesh.take_carried();
    mesh.put(0, "notes", "n", &format!(r#"{{"a":1,"text":"{text}"}}"#));
    mesh.converge();
    let (bytes, _) = mesh.take_carried();
    assert!(bytes < 2_000, "{bytes} bytes for one field");
}

#[test]
fn documents_near_the_size_limit_arrive() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    for i in 0..5 {
        let text = format!("{i}").repeat(900_000);
        mesh.put(0, "notes", &format!("n{i}"), &format!(r#"{{"text":"{text}"}}"#));
    }
    mesh.converge();
}

#[test]
fn nothing_is_sent_back_to_where_it_came_from() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.take_carried();
    let text = "y".repeat(20_000);
    for i in 0..20 {
        mesh.put(0, "platforms", &format!("p{i}"), &format!(r#"{{"text":"{text}"}}"#));
    }
    mesh.converge();
    mesh.run_for(Duration::from_secs(15));
    let back: u64 = mesh.carried.get(&(1, 0)).expect("acknowledgements at least").0;
    assert!(back < 40_000, "{back} bytes came back of 400,000 sent");
}

#[test]
fn a_reconnect_with_nothing_new_costs_a_handshake_and_no_documents() {
    let mut mesh = Mesh::pair();
    for i in 0..2_000 {
        mesh.put(0, "platforms", &format!("p{i}"), r#"{"status":"READY","latitude":1.25}"#);
    }
    mesh.connect_all();
    mesh.converge();
    mesh.run_for(Duration::from_secs(20));
    mesh.cut(0, 1);
    mesh.run_for(Duration::from_secs(60));
    mesh.heal();
    mesh.take_carried();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(2));
    let (bytes, _) = mesh.take_carried();
    assert!(bytes < 8_192, "{bytes} bytes to reconnect");
}

/// Creates a pair with three hundred documents of each kind, in sync.
fn filled() -> Mesh {
    let mut mesh = Mesh::pair();
    for i in 0..300 {
        mesh.put(0, "notes", &format!("n{i}"), &format!(r#"{{"i":{i}}}"#));
        mesh.put(1, "platforms", &format!("p{i}"), &format!(r#"{{"i":{i}}}"#));
    }
    mesh.connect_all();
    mesh.converge();
    mesh
}

#[test]
fn a_replaced_disk_is_filled_again_and_what_it_had_alone_is_not_resurrected() {
    let mut mesh = filled();
    mesh.write(0, "notes", "n7", Put::Delete);
    mesh.converge();
    let before = mesh.state(0);
    mesh.replace_disk(1, &Setup { dials: vec![0], ..Setup::default() });
    mesh.put(1, "platforms", "new", r#"{"after":"the replacement"}"#);
    mesh.converge();
    assert_eq!(mesh.state(1).len(), before.len() + 1);
    assert_eq!(mesh.get(1, "notes", "n7"), None);
}

/// Returns the bytes on the control lane from the moment that two nodes, `apart` for this time, can reach each other.
fn said_after(mesh: &mut Mesh, apart: Duration, meanwhile: impl FnOnce(&mut Mesh)) -> u64 {
    let said = |mesh: &mut Mesh| {
        let ByteCounts { sent, received } = measure(mesh, 0).peers[0].traffic[Lane::Control];
        sent + received
    };
    mesh.cut(0, 1);
    mesh.run_for(apart);
    meanwhile(mesh);
    let before = said(mesh);
    mesh.heal();
    mesh.connect_all();
    mesh.run_for(Duration::from_secs(8));
    said(mesh) - before
}

#[test]
fn nodes_that_hold_the_same_see_it_from_their_plans_and_compare_nothing() {
    const DAY: Duration = Duration::from_secs(25 * 3_600);
    let mut mesh = filled();
    mesh.run_for(Duration::from_secs(8));
    let usual = said_after(&mut mesh, Duration::from_secs(60), |_| ());
    let equal = said_after(&mut mesh, DAY, |_| ());
    // The plans themselves, and the confirmation of both cursors.
    assert!(equal <= usual + 20, "{equal} bytes, {usual} where cursors suffice");
    let differing = said_after(&mut mesh, DAY, |mesh| _ = mesh.put(1, "platforms", "p7", r#"{"i":"another"}"#));
    assert!(differing > usual + 100, "{differing} bytes for a comparison");
    mesh.converge();
}

#[test]
fn collections_of_different_kinds_do_not_sync_and_the_rest_does() {
    let mut mesh = Mesh::pair();
    let odd = Setup {
        dials: vec![0],
        latest: vec!["platforms", "tracks", "deployments", "packages", "notes"],
        ..Setup::default()
    };
    mesh.replace_disk(1, &odd);
    mesh.connect_all();
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    mesh.put(0, "tracks", "t", r#"{"a":1}"#);
    mesh.run_for(Duration::from_secs(10));
    assert_eq!(mesh.get(1, "tracks", "t").as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(mesh.get(1, "notes", "n"), None);
    mesh.replace_disk(1, &Setup { dials: vec![0], ..Setup::default() });
    mesh.converge();
    assert_eq!(mesh.get(1, "notes", "n").as_deref(), Some(r#"{"a":1}"#));
}

/// Creates a line of nodes at which `notes` has these kinds.
fn of_kinds(latest: &[bool]) -> Mesh {
    let collections = |latest: bool| if latest { vec!["platforms", "notes"] } else { vec!["platforms"] };
    let dials = |node: usize| if node == 0 { vec![] } else { vec![node - 1] };
    let setup =
        |(node, latest): (usize, &bool)| Setup { dials: dials(node), latest: collections(*latest), ..Setup::default() };
    Mesh::new(latest.iter().enumerate().map(setup).collect())
}

#[test]
fn a_deletion_in_a_collection_of_another_kind_deletes_nothing_whatever_came_first() {
    const ALL: [(usize, [bool; 3]); 4] =
        [(0, [true, false, false]), (0, [false, true, true]), (2, [false, false, true]), (2, [true, true, false])];
    for (deletes, kinds) in ALL {
        for (linked_first, created_first) in [(true, true), (true, false), (false, true), (false, false)] {
            let mut mesh = of_kinds(&kinds);
            if linked_first {
                mesh.connect_all();
            } else {
                mesh.cut(0, 1);
                mesh.cut(1, 2);
            }
            let keep = |mesh: &mut Mesh| _ = mesh.put(2 - deletes, "notes", "one", r#"{"of":"the others"}"#);
            if created_first {
                keep(&mut mesh);
                mesh.run_for(Duration::from_secs(3));
            }
            mesh.put(deletes, "notes", "one", r#"{"to":"delete"}"#);
            mesh.run_for(Duration::from_secs(2));
            mesh.write(deletes, "notes", "one", Put::Delete);
            mesh.run_for(Duration::from_secs(2));
            if !created_first {
                keep(&mut mesh);
            }
            mesh.heal();
            mesh.connect_all();
            mesh.run_for(Duration::from_secs(60));
            for node in [1, 2 - deletes] {
                let case = format!("{kinds:?}, linked first {linked_first}, created first {created_first}");
                assert_eq!(mesh.get(node, "notes", "one").as_deref(), Some(r#"{"of":"the others"}"#), "{case}");
            }
            assert_eq!(mesh.get(deletes, "notes", "one"), None);
        }
    }
}

#[test]
fn a_clock_in_1970_or_2099_changes_nothing_and_is_shown() {
    let mut mesh = Mesh::pair();
    mesh.set_clock(1, -1_700_000_000_000);
    mesh.put(0, "platforms", "a", r#"{"by":0}"#);
    mesh.connect_all();
    mesh.converge();
    mesh.put(1, "platforms", "a", r#"{"by":1}"#);
    mesh.converge();
    assert_eq!(mesh.get(0, "platforms", "a").as_deref(), Some(r#"{"by":1}"#));
    let skew = mesh.peers(0)[0].clock_skew_ms;
    assert!((skew + 1_700_000_000_000).abs() < 1_000, "{skew}");
}

#[test]
fn pending_counts_what_a_peer_lacks_and_falls_to_nothing() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    mesh.cut(0, 1);
    mesh.put(0, "notes", "n", r#"{"a":1}"#);
    assert_eq!(mesh.peers(0)[0].pending_documents, 1);
    mesh.heal();
    mesh.converge();
    let settled = mesh.run_until(Duration::from_secs(20), |mesh| mesh.peers(0)[0].pending_documents == 0);
    assert!(settled, "{:?}", mesh.peers(0));
}

#[test]
fn a_disconnected_peer_stays_away_until_it_is_connected_again() {
    let mut mesh = Mesh::pair();
    mesh.connect_all();
    let id = mesh.id(1);
    mesh.ask(0, Control::Disconnect(id));
    mesh.run_for(Duration::from_secs(40));
    assert!(!mesh.is_connected(0) && !mesh.is_connected(1));
    mesh.ask(0, Control::Connect { peer: id, addresses: vec![super::mesh::address(1).to_string()], wait: None });
    mesh.connect_all();
}

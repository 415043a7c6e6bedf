use super::*;
use crate::identity::EndpointId;
use crate::store::{PerKind, RunId};

const GOOD: KeyHash = KeyHash([1; 16]);
const BAD: KeyHash = KeyHash([2; 16]);

fn outbox() -> Outbox {
    let peer = PeerRun { node: EndpointId([3; 32]), run: RunId([4; 16]) };
    Outbox::new(peer, Start::After(PerKind::default()), 0, false, BTreeSet::new())
}

/// Pretends that a batch with these documents was sent.
fn send(outbox: &mut Outbox, documents: &[(KeyHash, u64)]) -> u64 {
    let lane = &mut outbox.lanes[Lane::Latest];
    lane.last_number += 1;
    let moved = documents.iter().map(|(_, sequence)| (Kind::Latest, *sequence)).collect();
    let sent = Sent { number: lane.last_number, documents: documents.to_vec(), lowest: PerKind::filled(NONE), moved };
    lane.in_flight.push_back(sent);
    let number = lane.last_number;
    for (hash, sequence) in documents {
        outbox.on_way.entry(*hash).or_default().versions.push(*sequence);
    }
    number
}

fn acked(outbox: &mut Outbox, number: u64, lacking: &[KeyHash]) -> Vec<(KeyHash, u64)> {
    let mut acked = Vec::new();
    let lacking = lacking.iter().copied().collect();
    outbox.ack(Lane::Latest, number, &lacking, |hash, sequence| acked.push((hash, sequence))).expect("it was sent");
    acked
}

#[test]
fn a_document_the_peer_refused_does_not_count_as_held_until_it_keeps_a_newer_version() {
    let mut outbox = outbox();
    let first = send(&mut outbox, &[(BAD, 5), (GOOD, 6)]);
    assert_eq!(acked(&mut outbox, first, &[BAD]), [(GOOD, 6)]);
    assert!(outbox.has(&GOOD, Kind::Latest, 6) && !outbox.has(&BAD, Kind::Latest, 5));
    let second = send(&mut outbox, &[(BAD, 7)]);
    assert_eq!(acked(&mut outbox, second, &[]), [(BAD, 7)]);
    assert!(outbox.has(&BAD, Kind::Latest, 7));
}

#[test]
fn nothing_of_an_offered_document_is_sent_until_the_peer_has_answered() {
    let mut outbox = outbox();
    let offered = OutOfOrder { kind: Kind::Merged, sequence: 5, owed: Owed::Offered { passed: false, incarnation: 1 } };
    outbox.exceptions.insert(GOOD, offered);
    assert!(outbox.leave_to_answer(&GOOD, Kind::Merged) && !outbox.leave_to_answer(&BAD, Kind::Merged));
    outbox.satisfied(&GOOD);
    assert!(matches!(outbox.exceptions[&GOOD].owed, Owed::Newer(5)), "{:?}", outbox.exceptions);
    assert_eq!(outbox.due[Kind::Merged], [GOOD]);
    outbox.want(GOOD, Vec::new()).expect("it may ask");
    assert!(outbox.is_consistent() && outbox.due[Kind::Merged] == [GOOD], "due once: {:?}", outbox.due);
}

#[test]
fn a_cursor_says_how_far_the_node_was_flushed_when_that_is_further() {
    assert_eq!(cursor(Kind::Latest, 5, 9), Cursor { kind: 2, sequence: 5, horizon: 9, ..Cursor::default() });
    assert_eq!(cursor(Kind::Latest, 9, 9), Cursor { kind: 2, sequence: 9, ..Cursor::default() });
}

#[test]
fn a_declined_offer_is_not_owed_any_more_and_what_passed_since_is() {
    let mut outbox = outbox();
    for (hash, passed) in [(GOOD, false), (BAD, true)] {
        let owed = Owed::Offered { passed, incarnation: 1 };
        outbox.exceptions.insert(hash, OutOfOrder { kind: Kind::Merged, sequence: 5, owed });
        outbox.decline(hash, || None).expect("it was offered");
    }
    assert!(!outbox.exceptions.contains_key(&GOOD) && outbox.due[Kind::Merged] == [BAD] && outbox.is_consistent());
    assert_eq!(outbox.declined.len(), 2);
    assert!(!outbox.has(&GOOD, Kind::Merged, 0), "it lacks what it declined");
    assert!(outbox.decline(GOOD, || None).is_err(), "it was not offered again");
}

#[test]
fn a_peer_that_asks_for_what_it_was_never_sent_is_bounded() {
    let mut outbox = outbox();
    let key = |n: usize| KeyHash((n as u128).to_be_bytes());
    let asked = (0..=2 * EXCEPTIONS).map(|n| outbox.want(key(n), Vec::new()));
    assert_eq!(asked.filter(Result::is_err).count(), 1);
    send(&mut outbox, &[(GOOD, 9)]);
    assert_eq!(outbox.want(GOOD, Vec::new()), Ok(()), "it was sent this one");
    assert_eq!(outbox.exceptions[&GOOD].sequence, 9);
}

#[test]
fn a_document_edited_faster_than_the_peer_confirms_is_due_once_half_has_arrived() {
    let mut outbox = outbox();
    for version in 1..=VERSIONS as u64 {
        send(&mut outbox, &[(GOOD, version)]);
    }
    let crowded = OutOfOrder { kind: Kind::Latest, sequence: 9, owed: Owed::Crowded(8) };
    outbox.exceptions.insert(GOOD, crowded);
    acked(&mut outbox, 3, &[]);
    assert!(outbox.due[Kind::Latest].is_empty(), "five are on their way");
    acked(&mut outbox, 4, &[]);
    assert_eq!(outbox.due[Kind::Latest], [GOOD]);
    assert!(matches!(outbox.exceptions[&GOOD].owed, Owed::Newer(8)) && outbox.is_consistent());
}

#[test]
fn each_version_on_its_way_is_refused_once() {
    let mut outbox = outbox();
    let first = send(&mut outbox, &[(BAD, 5)]);
    send(&mut outbox, &[(BAD, 6)]);
    assert!(outbox.decline(BAD, || Some((6, 1))).expect("it was sent"));
    assert!(outbox.decline(BAD, || Some((6, 1))).expect("two versions are"));
    let again = |outbox: &mut Outbox| outbox.decline(BAD, || panic!("nothing is read for a repetition"));
    (0..100_000).for_each(|_| assert_eq!(again(&mut outbox), Ok(false)));
    acked(&mut outbox, first, &[BAD]);
    assert_eq!(again(&mut outbox), Ok(false), "the other one was refused too");
    send(&mut outbox, &[(BAD, 7)]);
    assert_eq!(outbox.decline(BAD, || Some((7, 1))), Ok(true));
}

#[test]
fn what_peers_say_they_have_is_kept_up_to_a_bound_and_answered_whole_past_it() {
    let mut outbox = outbox();
    let key = |n: usize| KeyHash((n as u128).to_be_bytes());
    let have = vec![[7; 32]; HAVE_HASHES / 4];
    for n in (0..8).chain(0..8) {
        outbox.want(key(n), have.clone()).expect("few are asked for");
        assert!(outbox.is_consistent() && outbox.have_hashes <= HAVE_HASHES);
    }
    let kept = |n: usize| match &outbox.exceptions[&key(n)].owed {
        Owed::Wanted(have) => have.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!((0..8).filter(|n| kept(*n) == 0).count(), 4, "asked for all the same");
}

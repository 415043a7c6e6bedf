#![expect(clippy::cast_possible_truncation, reason = "random numbers, cut to size")]

use std::collections::BTreeMap;

use super::*;
use crate::store::VersionHash;

/// Key to version: the model that an exchange is compared with.
type Records = BTreeMap<[u8; 16], [u8; 16]>;

/// SplitMix64 generator.
struct Seeded(u64);

impl Seeded {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self) -> [u8; 16] {
        (u128::from(self.next()) << 64 | u128::from(self.next())).to_be_bytes()
    }

    /// Returns a key of one of the shapes that a store, or an attacker who selects ids, can produce.
    fn key(&mut self, shape: u64) -> [u8; 16] {
        let number = u128::from(self.below(3_000));
        match shape {
            0 => self.bytes(),
            1 => number.to_be_bytes(),
            2 => (number << 112).to_be_bytes(),
            3 => (u128::MAX - number).to_be_bytes(),
            4 => (u128::from(self.below(7)) << 120 | number).to_be_bytes(),
            _ => (u128::from(self.below(5)) << 64 | u128::from(self.below(200)) << 3).to_be_bytes(),
        }
    }

    fn records(&mut self, count: usize, shape: u64) -> Records {
        (0..count).map(|_| (self.key(shape), self.bytes())).collect()
    }
}

fn set(records: &Records) -> Set {
    Set::build(
        records.iter().map(|(key, version)| Item { hash: KeyHash(*key), version: VersionHash(*version) }).collect(),
    )
}

/// Returns the records that `ours` has to send to a node that holds `theirs`.
fn expected(ours: &Records, theirs: &Records) -> Vec<(KeyHash, RemoteHas)> {
    let missing = |(key, version): (&[u8; 16], &[u8; 16])| match theirs.get(key) {
        None => Some((KeyHash(*key), RemoteHas::Lacks)),
        Some(other) if other == version || VersionHash(*other).order() > VersionHash(*version).order() => None,
        Some(_) => Some((KeyHash(*key), RemoteHas::Differs)),
    };
    ours.iter().filter_map(missing).collect()
}

#[derive(Debug)]
struct Exchange {
    /// Bytes of each message, in order.
    messages: Vec<Vec<u8>>,
    a: Vec<(KeyHash, RemoteHas)>,
    b: Vec<(KeyHash, RemoteHas)>,
}

impl Exchange {
    fn bytes(&self) -> usize {
        self.messages.iter().map(Vec::len).sum()
    }
}

/// Runs an exchange to its end and sorts the findings of both sides.
fn exchange(a: &Records, b: &Records) -> Exchange {
    exchange_from(Reconciler::initiate(set(a)), b)
}

/// Runs an exchange from a first message on.
fn exchange_from((mut side_a, first): (Reconciler, Vec<u8>), b: &Records) -> Exchange {
    let (mut found_a, mut found_b) = (Differences::default(), Differences::default());
    let mut side_b = Reconciler::respond(set(b));
    let mut messages = vec![first];
    loop {
        let message = messages.last().expect("there is a first message");
        assert!(message.len() <= MESSAGE_BYTES);
        let to_b = messages.len() % 2 == 1;
        let (side, found) = if to_b { (&mut side_b, &mut found_b) } else { (&mut side_a, &mut found_a) };
        match side.handle(message, found).expect("an honest message") {
            Some(reply) => messages.push(reply),
            None => break,
        }
        if side_a.is_done() && side_b.is_done() {
            break;
        }
    }
    assert!(side_a.is_done() && side_b.is_done(), "both sides know that it is over");
    found_a.send.sort_unstable();
    found_b.send.sort_unstable();
    Exchange { messages, a: found_a.send, b: found_b.send }
}

fn assert_right(a: &Records, b: &Records) -> Exchange {
    let differing = exchange_from(Reconciler::initiate_differing(set(a)), b);
    let done = exchange(a, b);
    for done in [&done, &differing] {
        assert!(done.a == expected(a, b), "what the initiator has to send");
        assert!(done.b == expected(b, a), "what the responder has to send");
    }
    done
}

/// Returns the records of two nodes, related in one of the possible ways.
fn pair(random: &mut Seeded) -> (Records, Records) {
    let (shape, count) = (random.below(6), [0, 1, 2, 16, 17, 40, 300, 2_500][random.below(8) as usize]);
    let a = random.records(count, shape);
    let mut b = a.clone();
    match random.below(6) {
        0 => {}
        1 => b = random.records(count / 2 + 1, shape),
        2 => b.clear(),
        3 => b.values_mut().for_each(|version| version[15] ^= 1),
        4 => {
            let odds = random.below(30) + 1;
            b.retain(|_, _| random.below(odds) != 0);
            b.extend(random.records(count / 20 + 1, shape));
        }
        _ => {
            let odds = random.below(200) + 1;
            b.values_mut().filter(|_| random.below(odds) == 0).for_each(|version| *version = [9; 16]);
        }
    }
    if random.below(2) == 0 { (a, b) } else { (b, a) }
}

#[test]
fn both_sides_learn_exactly_what_they_must_send() {
    let mut random = Seeded(1);
    for _ in 0..1_500 {
        let (a, b) = pair(&mut random);
        assert_right(&a, &b);
    }
}

#[test]
fn equal_sets_cost_one_message_and_an_empty_reply() {
    let records = Seeded(2).records(100_000, 0);
    let done = assert_right(&records, &records);
    assert_eq!(done.messages.iter().map(Vec::len).collect::<Vec<_>>(), [9, 0]);
}

#[test]
fn ten_scattered_differences_of_a_hundred_thousand_are_found_in_seven_messages() {
    let mut random = Seeded(3);
    for _ in 0..8 {
        let a = random.records(100_000, 0);
        let mut b = a.clone();
        let changed: Vec<_> =
            (0..10).map(|_| *a.keys().nth(random.below(100_000) as usize).expect("in range")).collect();
        for (number, key) in changed.iter().enumerate() {
            if number < 4 {
                b.remove(key);
            } else {
                b.insert(*key, [1; 16]);
            }
        }
        let done = assert_right(&a, &b);
        println!("10 of 100,000: {} bytes in {} messages", done.bytes(), done.messages.len());
        assert!(done.messages.len() <= 7 && done.bytes() <= 8 << 10, "{} in {}", done.bytes(), done.messages.len());
    }
}

#[test]
fn figures_for_other_differences() {
    let mut random = Seeded(4);
    for (count, differences) in [(10_000, 10), (100_000, 1), (100_000, 100), (100_000, 1_000), (250_000, 10)] {
        let a = random.records(count, 0);
        let mut b = a.clone();
        b.values_mut()
            .filter(|_| random.below((count / differences) as u64) == 0)
            .for_each(|version| *version = [1; 16]);
        let done = assert_right(&a, &b);
        println!("{} of {count}: {} bytes in {} messages", done.a.len(), done.bytes(), done.messages.len());
        assert!(done.bytes() < 1_000 * (done.a.len() + 1));
    }
}

#[test]
fn a_node_with_nothing_asks_in_a_few_bytes() {
    let (full, empty) = (Seeded(5).records(100_000, 0), Records::new());
    let asks = assert_right(&empty, &full);
    assert_eq!(asks.messages, [vec![0b1011_1100, 0]]);
    let is_asked = assert_right(&full, &empty);
    assert_eq!(is_asked.messages[1], [0b1011_1100, 0]);
}

#[test]
fn disjoint_sets_cost_little_more_than_one_of_them() {
    let mut random = Seeded(6);
    let (a, b) = (random.records(50_000, 0), random.records(50_000, 0));
    let done = assert_right(&a, &b);
    println!("disjoint, 50,000 each: {} bytes in {} messages", done.bytes(), done.messages.len());
    assert!(done.bytes() < 50_000 * 48);
    assert!(done.messages.len() < 200);
}

#[test]
fn a_hundred_thousand_items_take_four_and_a_half_megabytes_at_most() {
    assert!(set(&Seeded(9).records(100_000, 0)).heap_bytes() <= 4_500_000);
}

/// Returns an honest message with a few bytes changed, dropped or repeated.
fn mutate(random: &mut Seeded, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len() as u64 + 1) as usize;
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, random.next() as u8),
            2 => bytes.extend_from_within(..at),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

#[test]
fn no_message_makes_a_side_panic_loop_or_repeat_itself() {
    let mut random = Seeded(7);
    for _ in 0..3_000 {
        let (a, b) = pair(&mut random);
        let (mut found_a, mut found_b) = (Differences::default(), Differences::default());
        let (mut side_a, mut message) = Reconciler::initiate(set(&a));
        let mut side_b = Reconciler::respond(set(&b));
        loop {
            if random.below(3) == 0 {
                message = mutate(&mut random, &message);
            }
            let Ok(Some(reply)) = side_b.handle(&message, &mut found_b) else { break };
            assert!(reply.len() <= MESSAGE_BYTES);
            let Ok(Some(next)) = side_a.handle(&reply, &mut found_a) else { break };
            message = next;
        }
        for (found, records) in [(&mut found_a, &a), (&mut found_b, &b)] {
            let count = found.send.len();
            found.send.sort_unstable();
            found.send.dedup_by_key(|(key, _)| *key);
            assert!(found.send.len() == count && found.send.iter().all(|(key, _)| records.contains_key(&key.0)));
        }
    }
}

#[test]
fn an_exchange_that_goes_round_in_circles_is_given_up() {
    let records = Seeded(8).records(1_000, 0);
    let mut side = Reconciler::respond(set(&records));
    let mut different = vec![0b0111_1100];
    different.extend_from_slice(&[0; 8]);
    let mut found = Differences::default();
    let turns = (0..).take_while(|_| side.handle(&different, &mut found).is_ok()).count();
    assert_eq!(turns, BASE_TURNS + 1_000 / 64);
    assert_eq!(side.handle(&different, &mut found), Err(ReconcileError::Endless));
}

#[test]
fn messages_that_contradict_themselves_or_the_exchange_are_refused() {
    use ReconcileError::{Inconsistent, Malformed};
    let one = [7; 16];
    let item = [one, [1; 16]].concat();
    let refused = [
        (vec![0b0100_0001, 9], Malformed("it ends within an entry")),
        (vec![0b0100_0001, 0], Malformed("bounds that do not ascend")),
        (vec![0b0000_0001, 9, 0b0000_0001, 9], Malformed("bounds that do not ascend")),
        (vec![0b0000_0000, 17], Malformed("a bound longer than a key")),
        (vec![0b1011_1100, 1], Malformed("it ends within an entry")),
        ([vec![0b1011_1100, 2], item.clone(), item.clone()].concat(), Malformed("items that do not ascend")),
        ([vec![0b1000_0001, 7, 1], item.clone()].concat(), Malformed("an item outside its range")),
        ([vec![0b1011_1100], vec![0xff; 11]].concat(), Malformed("a number that is none")),
        (vec![0b1011_1100, 0, 0b0000_0001, 9], Malformed("an entry after the last key")),
        (vec![0b0011_1100, 1], Malformed("bytes after its end")),
        (vec![0b1111_1100, 0], Inconsistent("an answer to a list that was not sent")),
        (vec![0; MESSAGE_BYTES + 1], ReconcileError::Long(MESSAGE_BYTES + 1)),
    ];
    for (message, error) in refused {
        let mut side = Reconciler::respond(set(&Records::from([(one, [2; 16])])));
        let mut found = Differences::default();
        assert_eq!(side.handle(&message, &mut found), Err(error), "{message:02x?}");
        assert_eq!(side.handle(&[], &mut found), Err(error), "a failure is final");
    }
}

#[test]
fn an_answer_beyond_the_list_is_refused() {
    let (mut side, _) = Reconciler::initiate(set(&Records::from([([7; 16], [2; 16])])));
    let error = side.handle(&[0b1111_1100, 1, 2], &mut Differences::default());
    assert_eq!(error, Err(ReconcileError::Inconsistent("an answer about more items than were listed")));
}

#[test]
fn nothing_is_taken_after_the_end() {
    let (mut side, _) = Reconciler::initiate(set(&Records::new()));
    assert!(side.is_done());
    assert_eq!(side.handle(&[], &mut Differences::default()), Err(ReconcileError::Finished));
}

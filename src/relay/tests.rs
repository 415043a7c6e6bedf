//! What a relay does for those who know the key, and does not do for anybody else.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Relay;
use super::wire::{Answer, HEADER_BYTES, Handle, Header, REQUEST_BYTES, Refusal, RelayKey, Request};
use crate::clock::Now;
use crate::identity::Identity;
use crate::limits::{RELAY_ALLOCATIONS, RELAY_BURST_BYTES, RELAY_IDLE, RELAYED_BYTES};
use crate::random::Random;
use crate::sync::proof::FormationKey;

/// Counts up; enough to tell bytes apart.
#[derive(Debug)]
struct Counting(u8);

impl Random for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(1);
            *byte = self.0;
        }
    }
}

fn key(byte: u8) -> RelayKey {
    RelayKey::new(&FormationKey::new(vec![byte; 32]).expect("long enough"))
}

fn node(number: u8) -> (Identity, SocketAddr) {
    (Identity::from_seed([number; 32]), SocketAddr::from(([10, 0, 0, number], 4242)))
}

struct World {
    now: Now,
    relay: Relay,
}

impl World {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to begin somewhere")]
    fn new() -> World {
        let now = Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 };
        World { now, relay: Relay::new(key(7), Box::new(Counting(0)), now) }
    }

    fn later(&mut self, time: Duration) {
        self.now.mono += time;
        if self.relay.poll_deadline().is_some_and(|at| self.now.reached(at)) {
            self.relay.handle_timeout(self.now);
        }
    }

    /// What leaves because of a datagram.
    fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.relay.handle_datagram(self.now, from, datagram);
        std::iter::from_fn(|| self.relay.poll_transmit()).collect()
    }

    fn ask(&mut self, (identity, from): &(Identity, SocketAddr), cookie: [u8; 16]) -> Answer {
        let sent = self.send(*from, &Request::new(identity, [3; 8], cookie).to_bytes(&key(7)));
        let [(to, answer)] = sent.as_slice() else { panic!("one answer, not {sent:?}") };
        assert_eq!(to, from);
        assert!(answer.len() < REQUEST_BYTES);
        let (nonce, answer) = Answer::parse(answer, &identity.id(), &key(7)).expect("an answer");
        assert_eq!(nonce, [3; 8]);
        answer
    }

    fn cookie(&mut self, node: &(Identity, SocketAddr)) -> [u8; 16] {
        match self.ask(node, [0; 16]) {
            Answer::Cookie(cookie) => cookie,
            other => panic!("{other:?}"),
        }
    }

    /// Asks as a node does, and returns the token.
    fn place(&mut self, node: &(Identity, SocketAddr)) -> [u8; 2] {
        let cookie = self.cookie(node);
        match self.ask(node, cookie) {
            Answer::Allocated { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }
}

fn data(token: [u8; 2], to: &(Identity, SocketAddr), payload: &[u8]) -> Vec<u8> {
    [&Header { token, node: Handle::of(&to.0.id()) }.to_bytes()[..], payload].concat()
}

#[test]
fn two_nodes_with_places_reach_each_other_through_eight_bytes() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let (ours, theirs) = (world.place(&a), world.place(&b));
    let payload = [0x40; 1_200];
    let sent = world.send(a.1, &data(ours, &b, &payload));
    assert_eq!(sent, [(b.1, data(theirs, &a, &payload))]);
    assert_eq!(sent[0].1.len(), 1_208);
    assert_eq!(world.send(b.1, &data(theirs, &a, b"back")), [(a.1, data(ours, &b, b"back"))]);
}

#[test]
fn who_does_not_know_the_relays_key_is_not_answered() {
    let (mut world, a) = (World::new(), node(1));
    let request = Request::new(&a.0, [3; 8], [0; 16]);
    assert_eq!(world.send(a.1, &request.to_bytes(&key(8))), []);
    let good = request.to_bytes(&key(7));
    for length in 0..good.len() {
        assert_eq!(world.send(a.1, &good[..length]), []);
    }
    for bit in 0..good.len() * 8 {
        let mut wrong = good.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(world.send(a.1, &wrong), [], "bit {bit}");
    }
}

#[test]
fn a_stranger_cannot_use_a_relay() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let (ours, _) = (world.place(&a), world.place(&b));
    let stranger = node(9).1;
    assert_eq!(world.send(stranger, &data(ours, &b, b"hello")), [], "from another address");
    assert_eq!(world.send(a.1, &data([ours[0], ours[1] ^ 1], &b, b"hello")), [], "without the token");
    assert_eq!(world.send(a.1, &data(ours, &node(9), b"hello")), [], "to somebody who has no place");
    assert_eq!(world.send(a.1, &data(ours, &a, b"hello")), [], "to itself");
}

#[test]
fn nothing_is_forwarded_to_an_address_that_has_not_returned_a_cookie() {
    let (mut world, a, victim) = (World::new(), node(1), node(2));
    let ours = world.place(&a);
    let asks = |world: &mut World, cookie| world.ask(&victim, cookie);
    assert!(matches!(asks(&mut world, [0; 16]), Answer::Cookie(_)));
    let of_another = world.cookie(&a);
    assert!(matches!(asks(&mut world, of_another), Answer::Cookie(_)), "a cookie is good for its address only");
    assert_eq!(world.send(a.1, &data(ours, &victim, b"hello")), []);
    let cookie = world.cookie(&victim);
    world.later(Duration::from_secs(130));
    assert!(matches!(asks(&mut world, cookie), Answer::Cookie(_)), "and not for ever");
}

#[test]
fn a_place_is_given_only_to_the_node_itself() {
    let (mut world, a, thief) = (World::new(), node(1), node(9));
    let cookie = world.cookie(&thief);
    let mut stolen = Request::new(&thief.0, [3; 8], cookie);
    stolen.id = a.0.id();
    let sent = world.send(thief.1, &stolen.to_bytes(&key(7)));
    let answer = Answer::parse(&sent[0].1, &a.0.id(), &key(7)).expect("an answer").1;
    assert!(matches!(answer, Answer::Cookie(_)), "{answer:?}");
    assert_eq!(world.relay.counts().0, 0);
}

#[test]
fn a_node_that_has_moved_takes_its_place_along() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let theirs = world.place(&b);
    world.place(&a);
    let moved = (Identity::from_seed([1; 32]), SocketAddr::from(([10, 0, 1, 1], 99)));
    let ours = world.place(&moved);
    assert_eq!(world.send(b.1, &data(theirs, &a, b"hello")), [(moved.1, data(ours, &b, b"hello"))]);
    assert_eq!(world.send(a.1, &data(ours, &b, b"hello")), [], "the old address is nobody's");
    assert_eq!(world.relay.counts().0, 2);
}

#[test]
fn a_place_that_is_not_asked_for_again_ends() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let ours = world.place(&a);
    world.place(&b);
    world.later(RELAY_IDLE - Duration::from_secs(1));
    assert_eq!(world.place(&a), ours, "asked for again, it stays the same");
    world.later(Duration::from_secs(2));
    assert_eq!(world.send(a.1, &data(ours, &b, b"hello")), []);
    world.later(RELAY_IDLE * 2);
    assert_eq!(world.relay.counts().0, 0);
    assert_eq!(world.relay.poll_deadline(), None, "nothing wakes an empty relay");
}

#[test]
fn places_and_rates_are_bounded() {
    let (mut world, b) = (World::new(), node(2));
    world.place(&b);
    for number in 0..RELAY_ALLOCATIONS as u64 - 1 {
        let mut seed = [3; 32];
        seed[..8].copy_from_slice(&number.to_be_bytes());
        let port = u16::try_from(number).expect("few");
        world.place(&(Identity::from_seed(seed), SocketAddr::from(([10, 1, 0, 1], 1 + port))));
    }
    let late = node(1);
    let cookie = world.cookie(&late);
    assert_eq!(world.ask(&late, cookie), Answer::Refused(Refusal::Full));
    world.later(RELAY_IDLE + Duration::from_secs(1));
    let (ours, _) = (world.place(&late), world.place(&b));
    let datagram = data(ours, &b, &[0x40; 1_200]);
    let passed = (0..10_000).take_while(|_| !world.send(late.1, &datagram).is_empty()).count() as u64;
    let most = RELAY_BURST_BYTES / datagram.len() as u64;
    assert!((most..=most + 2).contains(&passed), "{passed} of {most}");
    world.later(Duration::from_millis(1));
    assert!(!world.send(late.1, &datagram).is_empty(), "a millisecond later there is room again");
    assert_eq!(world.send(late.1, &data(ours, &b, &[0x40; RELAYED_BYTES + 1])), [], "too long");
    assert_eq!(world.send(late.1, &data(ours, &b, &[])).len() + HEADER_BYTES, HEADER_BYTES, "empty");
}

#[test]
fn a_silent_relay_forgets_everybody() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let ours = world.place(&a);
    world.place(&b);
    world.relay.handle_datagram(world.now, a.1, &data(ours, &b, b"hello"));
    world.relay.forget_all();
    assert_eq!(world.relay.poll_transmit(), None);
    assert_eq!(world.send(a.1, &data(ours, &b, b"hello")), []);
}

//! Service of a relay to holders of the key, and its refusal to all others.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Relay;
use super::wire::{
    AllocationClaim, AllocationRequest, Answer, HEADER_BYTES, Handle, Header, REQUEST_BYTES, Refusal, RelayKey, Token,
};
use crate::clock::Now;
use crate::identity::Identity;
use crate::limits::{
    RELAY_ADDRESS_SHARE, RELAY_ALLOCATIONS, RELAY_BURST_BYTES, RELAY_IDLE, RELAY_NETWORK_SHARE, RELAYED_BYTES,
};
use crate::random::Random;
use crate::sync::proof::FormationKey;

/// Random source that counts up, enough to tell values apart.
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

    /// Delivers a datagram; returns the datagrams that leave because of it.
    fn send(&mut self, from: SocketAddr, datagram: &[u8]) -> Vec<(SocketAddr, Vec<u8>)> {
        self.relay.handle_datagram(self.now, from, datagram);
        std::iter::from_fn(|| self.relay.poll_transmit()).collect()
    }

    fn ask(&mut self, (identity, from): &(Identity, SocketAddr), claim: AllocationClaim) -> Answer {
        let sent = self.send(*from, &AllocationRequest::new(identity, [3; 8], claim).to_bytes(&key(7)));
        let [(to, answer)] = sent.as_slice() else { panic!("one answer, not {sent:?}") };
        assert_eq!(to, from);
        assert!(answer.len() < REQUEST_BYTES);
        let (nonce, answer) = Answer::parse(answer, &identity.id(), &key(7)).expect("an answer");
        assert_eq!(nonce, [3; 8]);
        answer
    }

    /// Returns the claim of a node after its first request.
    fn claim(&mut self, node: &(Identity, SocketAddr)) -> AllocationClaim {
        match self.ask(node, AllocationClaim::default()) {
            Answer::Cookie { relay, cookie } => AllocationClaim { relay, cookie, ..AllocationClaim::default() },
            other => panic!("{other:?}"),
        }
    }

    /// Requests an allocation as a node that held `token`.
    fn ask_again(&mut self, node: &(Identity, SocketAddr), token: Token) -> Answer {
        let claim = self.claim(node);
        self.ask(node, AllocationClaim { token, ..claim })
    }

    /// Requests an allocation and returns its token.
    fn place(&mut self, node: &(Identity, SocketAddr)) -> Token {
        match self.ask_again(node, [0; 5]) {
            Answer::Allocated { token, .. } => token,
            other => panic!("{other:?}"),
        }
    }
}

fn data(token: Token, to: &(Identity, SocketAddr), payload: &[u8]) -> Vec<u8> {
    [&Header { token, node: Handle::of(&to.0.id()) }.to_bytes()[..], payload].concat()
}

/// Returns the `number`th of a series of identities, at an address.
fn minted(number: usize, ip: [u8; 4], port: u16) -> (Identity, SocketAddr) {
    let mut seed = [3; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    (Identity::from_seed(seed), SocketAddr::from((ip, port)))
}

#[test]
fn two_nodes_with_allocations_reach_each_other_through_sixteen_bytes() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let (ours, theirs) = (world.place(&a), world.place(&b));
    let payload = [0x40; 1_200];
    let sent = world.send(a.1, &data(ours, &b, &payload));
    assert_eq!(sent, [(b.1, data(theirs, &a, &payload))]);
    assert_eq!(sent[0].1.len(), 1_216);
    assert_eq!(world.send(b.1, &data(theirs, &a, b"back")), [(a.1, data(ours, &b, b"back"))]);
}

#[test]
fn who_does_not_know_the_relays_key_is_not_answered() {
    let (mut world, a) = (World::new(), node(1));
    let request = AllocationRequest::new(&a.0, [3; 8], AllocationClaim::default());
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
    assert_eq!(world.send(a.1, &data(ours.map(|byte| byte ^ 1), &b, b"hello")), [], "without the token");
    assert_eq!(world.send(a.1, &data(ours, &node(9), b"hello")), [], "to somebody who has no place");
    assert_eq!(world.send(a.1, &data(ours, &a, b"hello")), [], "to itself");
}

#[test]
fn nothing_is_forwarded_to_an_address_that_has_not_returned_a_cookie() {
    let (mut world, a, victim) = (World::new(), node(1), node(2));
    let ours = world.place(&a);
    let asks = |world: &mut World, claim| world.ask(&victim, claim);
    assert!(matches!(asks(&mut world, AllocationClaim::default()), Answer::Cookie { .. }));
    let of_another = world.claim(&a);
    assert!(matches!(asks(&mut world, of_another), Answer::Cookie { .. }), "a cookie is good for its address only");
    assert_eq!(world.send(a.1, &data(ours, &victim, b"hello")), []);
    let claim = world.claim(&victim);
    world.later(Duration::from_secs(130));
    assert!(matches!(asks(&mut world, claim), Answer::Cookie { .. }), "and not for ever");
}

#[test]
fn a_place_is_given_only_to_the_node_itself() {
    let (mut world, a, thief) = (World::new(), node(1), node(9));
    let claim = world.claim(&thief);
    let mut stolen = AllocationRequest::new(&thief.0, [3; 8], claim);
    stolen.id = a.0.id();
    let sent = world.send(thief.1, &stolen.to_bytes(&key(7)));
    let answer = Answer::parse(&sent[0].1, &a.0.id(), &key(7)).expect("an answer").1;
    assert!(matches!(answer, Answer::Cookie { .. }), "{answer:?}");
    assert_eq!(world.relay.counts().0, 0);
}

#[test]
fn a_node_that_has_moved_takes_its_place_along() {
    let (mut world, a, b) = (World::new(), node(1), node(2));
    let theirs = world.place(&b);
    let held = world.place(&a);
    let moved = (Identity::from_seed([1; 32]), SocketAddr::from(([10, 0, 1, 1], 99)));
    let Answer::Allocated { token: ours, .. } = world.ask_again(&moved, held) else { panic!("it named its token") };
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
fn a_live_allocation_moves_to_another_host_only_with_its_token() {
    let (mut world, a) = (World::new(), node(1));
    let held = world.place(&a);
    let restarted = (Identity::from_seed([1; 32]), SocketAddr::from(([10, 0, 0, 1], 99)));
    let held = match world.ask_again(&restarted, [0; 5]) {
        Answer::Allocated { token, .. } => token,
        other => panic!("{other:?}; held {held:?} at the same host before"),
    };
    let thief = (Identity::from_seed([1; 32]), SocketAddr::from(([10, 9, 9, 9], 1)));
    for guess in [[0; 5], held.map(|byte| !byte)] {
        assert_eq!(world.ask_again(&thief, guess), Answer::Refused(Refusal::Elsewhere));
    }
    world.later(RELAY_IDLE + Duration::from_secs(1));
    assert!(matches!(world.ask_again(&thief, [0; 5]), Answer::Allocated { .. }), "nothing is live any more");
}

#[test]
fn a_request_signed_for_another_relay_is_of_no_use() {
    let (mut honest, mut other, a) = (World::new(), World::new(), node(1));
    // The operator of the other relay forwards this relay's cookie under its own id.
    other.relay.handle_datagram(other.now, a.1, b"draws no randomness");
    let (ours, mut passed_on) = (honest.claim(&a), honest.claim(&a));
    passed_on.relay = [0xee; 16];
    assert!(matches!(honest.ask(&a, passed_on), Answer::Cookie { .. }));
    assert_eq!(honest.relay.counts().0, 0);
    assert!(matches!(honest.ask(&a, ours), Answer::Allocated { .. }));
}

#[test]
fn one_address_and_one_network_have_a_share_of_the_allocations() {
    let mut world = World::new();
    let mut number = 0;
    let mut fill = |world: &mut World, ip: [u8; 4], count: usize| {
        for port in 0..count {
            world.place(&minted(number, ip, 1 + u16::try_from(port).expect("few")));
            number += 1;
        }
    };
    for host in 1..=RELAY_NETWORK_SHARE / RELAY_ADDRESS_SHARE {
        let ip = [127, 1, 0, u8::try_from(host).expect("few")];
        fill(&mut world, ip, RELAY_ADDRESS_SHARE);
        let one_more = minted(usize::MAX, ip, 60_000);
        assert_eq!(world.ask_again(&one_more, [0; 5]), Answer::Refused(Refusal::Share), "of the address");
    }
    let one_more = minted(usize::MAX, [127, 1, 200, 1], 1);
    assert_eq!(world.ask_again(&one_more, [0; 5]), Answer::Refused(Refusal::Share), "of the network");
    assert!(matches!(world.ask_again(&node(1), [0; 5]), Answer::Allocated { .. }), "another network has its own");
}

/// Takes every allocation, from as many networks as that needs.
fn fill(world: &mut World) {
    for number in world.relay.counts().0..RELAY_ALLOCATIONS {
        let network = u8::try_from(number / (RELAY_NETWORK_SHARE - 1)).expect("few");
        let host = u8::try_from(number % 200).expect("few");
        world.place(&minted(number, [172, network, 0, host], 1 + u16::try_from(number).expect("few")));
    }
}

#[test]
fn a_network_with_few_allocations_is_served_when_all_are_taken() {
    let (mut world, first) = (World::new(), node(2));
    let theirs = world.place(&first);
    fill(&mut world);
    let late = minted(usize::MAX, [192, 0, 2, 1], 1);
    let ours = world.place(&late);
    assert_eq!(world.relay.counts().0, RELAY_ALLOCATIONS);
    assert_eq!(world.send(late.1, &data(ours, &first, b"hello")), [(first.1, data(theirs, &late, b"hello"))]);
}

#[test]
fn allocations_and_rates_are_bounded() {
    let (mut world, b, late) = (World::new(), node(2), node(1));
    fill(&mut world);
    assert_eq!(world.relay.counts().0, RELAY_ALLOCATIONS);
    let greedy = minted(usize::MAX, [172, 0, 0, 250], 1);
    assert_eq!(world.ask_again(&greedy, [0; 5]), Answer::Refused(Refusal::Full));
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

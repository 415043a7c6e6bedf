//! In-memory network: every datagram takes a fixed time, unless a rule of the test drops it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::BytesMut;

use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::random::Random;
use crate::sync::link::{Lane, LinkEvent, LinkId, Links};

/// One-way delay.
pub(super) const DELAY: Duration = Duration::from_millis(5);

/// Small seeded generator; enough to tell values apart.
#[derive(Debug)]
pub(super) struct Seeded(pub(super) u64);

impl Random for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = self.0.to_be_bytes()[0];
        }
    }
}

/// Returns the address of a node; each node is in a separate network.
pub(super) fn address(number: u8) -> SocketAddr {
    SocketAddr::from(([10, 0, number, 1], 7000))
}

pub(super) struct Node {
    pub(super) links: Links,
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) events: Vec<LinkEvent>,
    pub(super) wakes: usize,
}

type Rule = Box<dyn FnMut(&Datagram) -> bool>;

#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Datagram {
    pub(super) at: Duration,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    pub(super) data: Vec<u8>,
}

pub(super) struct Net {
    pub(super) now: Now,
    pub(super) started: Instant,
    pub(super) nodes: Vec<Node>,
    flying: BTreeMap<(Instant, u64), Datagram>,
    sent: u64,
    pub(super) passes: Rule,
    /// Every datagram sent, dropped ones included.
    pub(super) trace: Vec<Datagram>,
}

impl Net {
    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to begin somewhere")]
    pub(super) fn new(seed: u64, nodes: u8) -> Net {
        let now = Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 };
        let nodes = (1..=nodes).map(|number| Node::new(seed, number, now)).collect();
        let passes: Rule = Box::new(|_| true);
        Net { now, started: now.mono, nodes, flying: BTreeMap::new(), sent: 0, passes, trace: Vec::new() }
    }

    /// Creates a net in which node 0 has a link to node 1.
    pub(super) fn linked(seed: u64) -> (Net, LinkId, LinkId) {
        let mut net = Net::new(seed, 2);
        let dialled = net.dial(0, 1);
        net.run(Duration::from_millis(100));
        net.write_all(0, dialled, Lane::Control, b"hello");
        net.run(Duration::from_millis(100));
        let accepted = net.up(1).expect("the acceptor's link is up");
        assert_eq!(net.up(0), Some(dialled));
        net.links(0).admitted(dialled);
        net.links(1).admitted(accepted);
        assert_eq!(net.read_all(1, accepted, Lane::Control), b"hello");
        net.run(Duration::from_millis(100));
        net.nodes.iter_mut().for_each(|node| node.events.clear());
        (net, dialled, accepted)
    }

    pub(super) fn links(&mut self, node: usize) -> &mut Links {
        &mut self.nodes[node].links
    }

    pub(super) fn dial(&mut self, from: usize, to: usize) -> LinkId {
        let (peer, address) = (self.nodes[to].id, self.nodes[to].address);
        let now = self.now;
        self.links(from).dial(now, peer, &[address]).expect("a dial begins")
    }

    pub(super) fn up(&self, node: usize) -> Option<LinkId> {
        self.nodes[node].events.iter().find_map(|event| match event {
            LinkEvent::Up { link, .. } => Some(*link),
            _ => None,
        })
    }

    pub(super) fn down(&self, node: usize) -> Option<String> {
        self.nodes[node].events.iter().find_map(|event| match event {
            LinkEvent::Down { reason, .. } => Some(reason.to_string()),
            _ => None,
        })
    }

    pub(super) fn write_all(&mut self, node: usize, link: LinkId, lane: Lane, bytes: &[u8]) {
        let now = self.now;
        assert_eq!(self.links(node).write(now, link, lane, bytes), bytes.len());
    }

    pub(super) fn read_all(&mut self, node: usize, link: LinkId, lane: Lane) -> Vec<u8> {
        let (now, mut bytes) = (self.now, Vec::new());
        while self.links(node).read(now, link, lane, &mut bytes, 1000) {}
        bytes
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now.mono - self.started
    }

    /// Runs everything that happens within `time`.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        for step in 0.. {
            assert!(step < 1_000_000, "the network does not come to rest");
            self.drain();
            let timer = self.nodes.iter_mut().filter_map(|node| node.links.poll_deadline()).min();
            let arrival = self.flying.first_key_value().map(|((at, _), _)| *at);
            let Some(next) = timer.into_iter().chain(arrival).min().filter(|next| *next <= end) else { break };
            self.now.mono = self.now.mono.max(next);
            self.arrive();
            self.fire();
        }
        self.now.mono = end;
    }

    fn drain(&mut self) {
        let mut out = Vec::new();
        for node in 0..self.nodes.len() {
            while let Some(event) = self.nodes[node].links.poll_event() {
                self.nodes[node].events.push(event);
            }
            while let Some(to) = self.nodes[node].links.poll_transmit(self.now, &mut out) {
                let from = self.nodes[node].address;
                self.send(from, to, &out);
            }
        }
    }

    pub(super) fn send(&mut self, from: SocketAddr, to: SocketAddr, data: &[u8]) {
        let datagram = Datagram { at: self.elapsed(), from, to, data: data.to_vec() };
        self.trace.push(datagram.clone());
        if (self.passes)(&datagram) {
            self.sent += 1;
            self.flying.insert((self.now.mono + DELAY, self.sent), datagram);
        }
    }

    fn arrive(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now.mono) {
            let Datagram { from, to, data, .. } = entry.remove();
            if let Some(node) = self.nodes.iter_mut().find(|node| node.address == to) {
                node.wakes += 1;
                node.links.handle_datagram(self.now, from, BytesMut::from(&data[..]));
            }
        }
    }

    fn fire(&mut self) {
        for node in &mut self.nodes {
            if node.links.poll_deadline().is_some_and(|at| self.now.reached(at)) {
                node.wakes += 1;
                node.links.handle_timeout(self.now);
            }
        }
    }
}

impl Node {
    pub(super) fn new(seed: u64, number: u8, now: Now) -> Node {
        let identity = Identity::from_seed([number; 32]);
        let links = Links::new(&identity, &mut Seeded(seed.wrapping_add(u64::from(number))), now);
        Node { links, id: identity.id(), address: address(number), events: Vec::new(), wakes: 0 }
    }
}

//! A network of one-way links that lose, duplicate, delay, reorder and throttle datagrams, or drop all of them.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use crate::faults::{Fault, Tally};
use crate::prng::Prng;
use crate::time::Time;

/// The behaviour of one direction between two nodes.
#[derive(Clone, Debug)]
pub struct Weather {
    pub loss_per_mille: u64,
    pub duplicate_per_mille: u64,
    pub delay: Duration,
    /// Maximum random addition to the delay, drawn for each datagram, so that datagrams overtake each other.
    pub jitter: Duration,
    /// Rate limit; `None`: unlimited.
    pub bytes_per_second: Option<u64>,
    /// Maximum number of bytes that a throttled link queues; further datagrams are lost.
    pub queue_bytes: u64,
    /// Maximum datagram size in bytes; longer ones are lost.
    pub mtu: usize,
    pub cut: bool,
}

impl Weather {
    /// Returns the behaviour of a link without impairments.
    pub fn fair() -> Weather {
        Weather {
            loss_per_mille: 0,
            duplicate_per_mille: 0,
            delay: Duration::from_micros(300),
            jitter: Duration::ZERO,
            bytes_per_second: None,
            queue_bytes: 0,
            mtu: 1_452,
            cut: false,
        }
    }

    /// Draws the behaviour of a link with some impairments.
    pub fn foul(random: &mut Prng) -> Weather {
        let some = |random: &mut Prng, most: u64| if random.chance(500) { random.below(most) } else { 0 };
        let least = if random.chance(100) { 500 } else { 1_232 };
        Weather {
            loss_per_mille: some(random, 250),
            duplicate_per_mille: some(random, 100),
            delay: Duration::from_micros(random.between(50, 200_000)),
            jitter: Duration::from_micros(some(random, 150_000)),
            bytes_per_second: random.chance(300).then(|| random.between(4_000, 64_000)),
            queue_bytes: random.between(1_500, 8_000),
            mtu: usize::try_from(random.between(least, 1_452)).expect("small"),
            cut: false,
        }
    }
}

#[derive(Debug)]
struct Link {
    weather: Weather,
    /// Time at which a throttled link has sent everything it accepted.
    free_at: Time,
    /// Latest arrival scheduled so far.
    latest: Time,
}

/// All links. A node is identified by its number.
#[derive(Debug)]
pub struct Net {
    links: BTreeMap<(usize, usize), Link>,
    /// Network of each node; 0 is the one in which it is dialled.
    networks: Vec<u8>,
    random: Prng,
    tally: Arc<Tally>,
    pub sent: u64,
}

/// Number of networks a node can move between.
pub const NETWORKS: u8 = 4;

/// Returns the address at which node `number` is dialled.
pub fn address(number: usize) -> SocketAddr {
    address_in(0, number)
}

fn address_in(network: u8, number: usize) -> SocketAddr {
    let last = u8::try_from(number).expect("few nodes") + 1;
    SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, network, last), 4242))
}

impl Net {
    /// Creates fair links between all of `nodes`.
    pub fn new(nodes: usize, random: Prng, tally: &Arc<Tally>) -> Net {
        let pairs = (0..nodes).flat_map(|from| (0..nodes).map(move |to| (from, to)));
        let link = |pair| (pair, Link { weather: Weather::fair(), free_at: Time::ZERO, latest: Time::ZERO });
        Net { links: pairs.map(link).collect(), networks: vec![0; nodes], random, tally: Arc::clone(tally), sent: 0 }
    }

    /// Moves a node to another network; returns true if it was in a different one.
    pub fn carry(&mut self, number: usize, network: u8) -> bool {
        std::mem::replace(&mut self.networks[number], network) != network
    }

    /// Returns a node's current address.
    pub fn place(&self, number: usize) -> SocketAddr {
        address_in(self.networks[number], number)
    }

    /// Returns the node at address `at`, if there is one.
    pub fn listener(&self, at: SocketAddr) -> Option<usize> {
        let found = (0..self.networks.len()).find(|number| self.place(*number) == at);
        if found.is_none() {
            self.tally.count(Fault::Stranded);
        }
        found
    }

    /// Sets the behaviour of one direction.
    pub fn set(&mut self, from: usize, to: usize, weather: Weather) {
        self.link(from, to).weather = weather;
    }

    /// Cuts or restores one direction.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        self.link(from, to).weather.cut = cut;
    }

    /// Makes all links fair.
    pub fn calm(&mut self) {
        self.links.values_mut().for_each(|link| link.weather = Weather::fair());
    }

    fn link(&mut self, from: usize, to: usize) -> &mut Link {
        self.links.get_mut(&(from, to)).expect("every pair has its links")
    }

    /// Sends a datagram of `bytes` at `now`; returns its arrival times: none, one or two.
    pub fn send(&mut self, now: Time, from: usize, to: usize, bytes: usize) -> Vec<Time> {
        self.sent += 1;
        let weather = self.link(from, to).weather.clone();
        if let Some(fault) = self.drops(&weather, bytes) {
            self.tally.count(fault);
            return Vec::new();
        }
        let Some(leaves) = self.throttle(now, from, to, bytes as u64) else {
            self.tally.count(Fault::QueueFull);
            return Vec::new();
        };
        let mut arrivals = vec![self.arrival(leaves, from, to)];
        if self.random.chance(weather.duplicate_per_mille) {
            self.tally.count(Fault::Duplicated);
            arrivals.push(self.arrival(leaves, from, to));
        }
        arrivals
    }

    fn drops(&mut self, weather: &Weather, bytes: usize) -> Option<Fault> {
        match () {
            () if weather.cut => Some(Fault::Cut),
            () if bytes > weather.mtu => Some(Fault::TooLong),
            () if self.random.chance(weather.loss_per_mille) => Some(Fault::Lost),
            () => None,
        }
    }

    /// Returns the time at which the datagram leaves a throttled link; `None` if the queue is full.
    fn throttle(&mut self, now: Time, from: usize, to: usize, bytes: u64) -> Option<Time> {
        let link = self.links.get_mut(&(from, to)).expect("every pair has its links");
        let Some(rate) = link.weather.bytes_per_second else { return Some(now) };
        let waiting = link.free_at.saturating_sub(now);
        if waiting > Duration::from_nanos(link.weather.queue_bytes * 1_000_000_000 / rate) {
            return None;
        }
        if !waiting.is_zero() {
            self.tally.count(Fault::Throttled);
        }
        link.free_at = now + waiting + Duration::from_nanos(bytes * 1_000_000_000 / rate);
        Some(link.free_at)
    }

    fn arrival(&mut self, leaves: Time, from: usize, to: usize) -> Time {
        let weather = &self.links.get(&(from, to)).expect("every pair has its links").weather;
        let jitter = u64::try_from(weather.jitter.as_micros()).expect("short");
        let arrives = leaves + weather.delay + Duration::from_micros(self.random.below(jitter + 1));
        let link = self.links.get_mut(&(from, to)).expect("every pair has its links");
        if arrives < link.latest {
            self.tally.count(Fault::Reordered);
        }
        link.latest = link.latest.max(arrives);
        arrives
    }
}

//! The relay between nodes that cannot reach each other, and its failures.

use std::net::SocketAddr;
use std::time::Duration;

use peat_node::limits;
use peat_node::relay::Relay;
use peat_node::relay::wire::RelayKey;
use peat_node::sync::proof::FormationKey;

use crate::faults::Fault;
use crate::mesh::Event;
use crate::mesh::world::World;
use crate::time::Clock;

/// The machine that runs the relay.
#[derive(Debug)]
pub struct RelayAt {
    clock: Clock,
    /// `Some` while it is on.
    running: Option<Relay>,
    lives: u64,
}

impl RelayAt {
    pub fn new(clock: Clock) -> RelayAt {
        RelayAt { clock, running: None, lives: 0 }
    }
}

/// Returns the formation key that the relay accepts.
pub fn key() -> FormationKey {
    FormationKey::new(vec![9; limits::FORMATION_KEY_BYTES]).expect("long enough")
}

impl World {
    /// Switches the relay on, if there is one and it is off.
    pub fn start_relay(&mut self) {
        if !self.plan.has_relay() || self.relay.running.is_some() {
            return;
        }
        if self.relay.lives > 0 {
            self.tally.count(Fault::RelayRestart);
        }
        self.relay.lives += 1;
        let now = self.relay.clock.at(self.time());
        let random = Box::new(self.random.fork("relay", self.relay.lives));
        self.relay.running = Some(Relay::new(RelayKey::new(&key()), random, now));
    }

    /// Delivers a datagram to the relay.
    pub fn relay(&mut self, from: SocketAddr, data: &[u8]) {
        let now = self.relay.clock.at(self.time());
        let Some(relay) = &mut self.relay.running else { return };
        if relay.poll_deadline().is_some_and(|at| now.reached(at)) {
            relay.handle_timeout(now);
        }
        let before = relay.counts().1;
        relay.handle_datagram(now, from, data);
        (before..relay.counts().1).for_each(|_| self.tally.count(Fault::Relayed));
        let sent: Vec<_> = std::iter::from_fn(|| relay.poll_transmit()).collect();
        for (to, datagram) in sent {
            self.transmit(self.plan.relay(), to, &datagram);
        }
    }

    /// Crashes the relay, or cuts or restores the direct path between two nodes that it connects.
    pub fn break_relay(&mut self) {
        let pairs = self.plan.with_both();
        match self.random.below(5) {
            0 if self.relay.running.is_some() => {
                self.tally.count(Fault::RelayCrash);
                self.relay.running = None;
                let delay = Duration::from_millis(self.random.between(50, 8_000));
                self.queue.after(delay, Event::StartRelay);
            }
            1..4 if !pairs.is_empty() => self.set_direct(&pairs, true),
            _ if !pairs.is_empty() => self.set_direct(&pairs, false),
            _ => {}
        }
    }

    fn set_direct(&mut self, pairs: &[(usize, usize)], cut: bool) {
        self.tally.count(if cut { Fault::DirectCut } else { Fault::DirectRestored });
        let (one, other) = *self.random.pick(pairs);
        self.net.cut(one, other, cut);
        self.net.cut(other, one, cut);
    }
}

//! Paths through relays: allocations, datagrams through them, and silence of this node's own relay.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bytes::BytesMut;

use super::Engine;
use crate::clock::Now;
use crate::random::RandomExt;
use crate::relay::shell::RelayControl;
use crate::relay::wire::RelayKey;
use crate::sync::link::relay_of;
use crate::sync::peers::Address;
use crate::sync::proof::FormationKey;
use crate::sync::relays::{self, RelayInput};
use crate::sync::session::Session;

/// Returns true if a datagram's first byte is QUIC's (RFC 9000, section 17); this protocol's own are below 0x40.
pub(super) fn is_quic(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|first| first & 0xc0 != 0)
}

impl Engine {
    /// Updates the set of relays in use from the addresses of the peers.
    pub(super) fn know_relays(&mut self, now: Now) {
        let wanted = self.peers.iter().filter(|(_, peer)| !peer.refused);
        let named = wanted.flat_map(|(_, peer)| &peer.addresses).filter_map(|at| match at {
            Address::Relay(host) => Some(host.as_str()),
            _ => None,
        });
        let hosts: BTreeSet<&str> = named.collect();
        if !hosts.is_empty() || self.relays.is_used() {
            let nonce = u64::from_le_bytes(self.random.array());
            self.relays.want(now, &hosts, nonce);
            self.links.set_relays(self.relays.up(now));
        }
    }

    pub(super) fn look_up_relays(&mut self, now: Now) {
        for name in self.relays.look_ups(now) {
            self.look_up(now, name);
        }
        if self.links.take_doubt() {
            self.relays.hurry(now);
        }
    }

    /// Handles a datagram that is not QUIC's: from a relay, or about a link's path.
    pub(super) fn on_other(&mut self, now: Now, from: SocketAddr, mut data: BytesMut) {
        match self.relays.handle(now, from, &data) {
            RelayInput::Through(way) => {
                relays::payload(&mut data);
                self.links.handle_datagram(now, way, data);
            }
            RelayInput::Up => self.on_relay_up(now),
            RelayInput::Stranger => self.links.handle_datagram(now, from, data),
            RelayInput::Done => {}
        }
    }

    /// Handles a new allocation, which adds a path to some peers.
    fn on_relay_up(&mut self, now: Now) {
        self.links.set_relays(self.relays.up(now));
        for (id, peer) in self.peers.iter_mut() {
            let ways = self.relays.ways(now, id, &peer.addresses);
            match peer.dialling.or(peer.session) {
                _ if ways.is_empty() => {}
                Some(link) => self.links.add_ways(now, link, &ways),
                None => peer.dial_now(now),
            }
        }
    }

    /// Lets a peer that dialled through a relay learn, by probes, that this node can reach it directly.
    pub(super) fn tell_addresses(&mut self, now: Now, session: &Session) {
        let through = self.links.way(session.link).is_some_and(|(through, _)| through);
        let Some(peer) = self.peers.get(&session.peer).filter(|_| through && !session.dialled) else { return };
        let literal = |at: &Address| if let Address::Literal(at) = at { Some(*at) } else { None };
        let known: Vec<SocketAddr> = peer.addresses.iter().filter_map(literal).collect();
        self.links.add_candidates(now, session.link, &known);
    }

    pub(super) fn next_datagram(&mut self, now: Now, out: &mut Vec<u8>) -> Option<SocketAddr> {
        if let Some(to) = self.relays.poll_transmit(now, out) {
            return Some(to);
        }
        loop {
            let to = self.links.poll_transmit(now, out)?;
            if relay_of(to).is_none() {
                return Some(to);
            }
            // Without an allocation there the datagram is lost, as on any path.
            if let Some(relay) = self.relays.wrap(now, to, out) {
                return Some(relay);
            }
        }
    }

    pub(super) fn reload_relay_key(&mut self, now: Now, shared: Option<&FormationKey>) {
        let known = |key: Option<&FormationKey>| key.map(|key| key.derive(b"which"));
        if self.own_relay_key || known(shared) == known(self.formation_key.as_ref()) {
            return;
        }
        self.relays.set_key(now, shared.map(RelayKey::new));
        if let (Some(orders), Some(shared)) = (&mut self.relay_orders, shared) {
            orders.push_back(RelayControl::Key(RelayKey::new(shared)));
        }
    }

    pub(super) fn silence_relays(&mut self, now: Now) {
        self.relays.forget_all(now);
        self.links.set_relays(Vec::new());
        if let Some(orders) = &mut self.relay_orders {
            orders.push_back(RelayControl::Active(false));
            self.relay_owes += 1;
        }
    }

    pub(super) fn wake_relays(&mut self, now: Now) {
        self.relays.forget_all(now);
        if let Some(orders) = &mut self.relay_orders {
            orders.push_back(RelayControl::Active(true));
        }
    }
}

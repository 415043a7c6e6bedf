//! Allocations of this node at relays, and the datagrams that travel through them.
//!
//! Owns the table of relays. A path through a relay has an address made of the relay's number here and the other node's handle
//! there, so that the layers above deal in addresses only; this module converts them to headers and back. Must send nothing
//! under radio silence: it is not polled then.

mod client;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use self::client::{Client, Progress};
use crate::clock::Now;
use crate::identity::{EndpointId, Identity};
use crate::limits::RELAYS;
use crate::relay::wire::{HEADER_BYTES, Handle, Header, RelayKey};
use crate::sync::link::{RelayNumber, relay_of, relayed};
use crate::sync::peers::Address;

/// Result of a datagram that is not QUIC's.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum RelayInput {
    /// It is not from a relay.
    Stranger,
    /// It was an answer that changes nothing for other parts.
    Done,
    /// An allocation was granted.
    Up,
    /// A forwarded datagram from this address; the payload follows the header.
    Through(SocketAddr),
}

/// Table of relays; see the module documentation.
#[derive(Debug)]
pub(super) struct Relays {
    identity: Identity,
    key: Option<RelayKey>,
    clients: BTreeMap<RelayNumber, Client>,
    next: RelayNumber,
}

impl Relays {
    pub(super) fn new(identity: Identity, key: Option<RelayKey>) -> Relays {
        Relays { identity, key, clients: BTreeMap::new(), next: 1 }
    }

    pub(super) fn set_key(&mut self, now: Now, key: Option<RelayKey>) {
        self.key = key;
        self.forget_all(now);
    }

    /// Returns true if any relay is in use.
    pub(super) fn is_used(&self) -> bool {
        !self.clients.is_empty()
    }

    /// Replaces the set of relays to use.
    pub(super) fn want(&mut self, now: Now, hosts: &BTreeSet<&str>, nonce: u64) {
        self.clients.retain(|_, client| hosts.contains(client.host.as_str()));
        for host in hosts {
            if self.clients.values().any(|client| client.host == *host) {
                continue;
            }
            if self.clients.len() >= RELAYS {
                log::warn!("relay {host} is not used: {RELAYS} relays at once are the limit");
                continue;
            }
            self.clients.insert(self.next, Client::new((*host).to_owned(), nonce, now));
            self.next = self.next.wrapping_add(1);
        }
    }

    /// Gives up every allocation without notice to the relay.
    pub(super) fn forget_all(&mut self, now: Now) {
        self.clients.values_mut().for_each(|client| client.forget(now));
    }

    // Names.

    /// Returns the names to look up.
    pub(super) fn look_ups(&mut self, now: Now) -> Vec<String> {
        if self.key.is_none() {
            return Vec::new();
        }
        let due = self.clients.values_mut().filter(|client| client.wants_look_up(now));
        due.map(|client| {
            client.looking_up = true;
            client.host.clone()
        })
        .collect()
    }

    pub(super) fn on_resolved(&mut self, now: Now, name: &str, result: Result<&[SocketAddr], &String>) {
        let waiting = self.clients.values_mut().filter(|client| client.looking_up && client.host == name);
        waiting.for_each(|client| client.on_resolved(now, result));
    }

    // Datagrams.

    /// Handles a datagram that is not QUIC's.
    pub(super) fn handle(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) -> RelayInput {
        let Some(key) = &self.key else { return RelayInput::Stranger };
        let asked = self.clients.iter_mut().find(|(_, client)| client.address() == Some(from));
        let Some((number, client)) = asked else { return RelayInput::Stranger };
        match Header::parse(datagram) {
            Some((header, _)) if client.token(now) == Some(header.token) => {
                RelayInput::Through(relayed(*number, header.node))
            }
            Some(_) => RelayInput::Done,
            None => match client.on_answer(now, datagram, &self.identity.id(), key) {
                Progress::Up => RelayInput::Up,
                Progress::None => RelayInput::Done,
                Progress::Elsewhere => {
                    let number = *number;
                    self.suspend_imitations(now, number);
                    RelayInput::Done
                }
            },
        }
    }

    /// Suspends relays that imitate this one. Another relay may have forwarded this one's cookie, and hold an allocation here
    /// in this node's name. Relays that present this one's id get no further signatures for a while.
    fn suspend_imitations(&mut self, now: Now, number: RelayNumber) {
        let Some((host, id)) = self.clients.get(&number).map(|client| (client.host.clone(), client.relay())) else {
            return;
        };
        for (_, client) in self.clients.iter_mut().filter(|(other, client)| **other != number && client.relay() == id) {
            log::warn!("relay {} passes on the answers of relay {host}: it is not used for 3 minutes", client.host);
            client.suspend(now, &host);
        }
    }

    /// Prepends the header to a datagram for a path through a relay, and returns the relay's own address; `None` without an
    /// allocation there.
    pub(super) fn wrap(&self, now: Now, to: SocketAddr, datagram: &mut Vec<u8>) -> Option<SocketAddr> {
        let (number, node) = relay_of(to)?;
        let client = self.clients.get(&number)?;
        let header = Header { token: client.token(now)?, node };
        datagram.splice(..0, header.to_bytes());
        client.address()
    }

    /// Returns the destination of a request that is due, and writes the request to `out`.
    pub(super) fn poll_transmit(&mut self, now: Now, out: &mut Vec<u8>) -> Option<SocketAddr> {
        let key = self.key.as_ref()?;
        let due =
            self.clients.values_mut().find_map(|client| Some((client.poll_request(now, &self.identity, key)?, client)));
        let (request, client) = due?;
        out.clear();
        out.extend_from_slice(&request);
        client.address()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.key.as_ref()?;
        self.clients.values().filter_map(Client::deadline).min()
    }

    /// Repeats all requests at once, because this node's address may have changed.
    pub(super) fn ask_again(&mut self, now: Now) {
        self.clients.values_mut().for_each(|client| client.ask_again(now));
    }

    /// Verifies soon that the allocations still exist, because a link is unanswered.
    pub(super) fn hurry(&mut self, now: Now) {
        self.clients.values_mut().for_each(|client| client.hurry(now));
    }

    // Paths.

    /// Returns the relays at which there is an allocation.
    pub(super) fn up(&self, now: Now) -> Vec<RelayNumber> {
        self.clients.iter().filter(|(_, client)| client.token(now).is_some()).map(|(number, _)| *number).collect()
    }

    /// Returns the paths to a peer through those of its relays at which there is an allocation.
    pub(super) fn ways(&self, now: Now, id: &EndpointId, addresses: &[Address]) -> Vec<SocketAddr> {
        let named =
            |client: &Client| addresses.iter().any(|at| matches!(at, Address::Relay(host) if *host == client.host));
        let usable = self.clients.iter().filter(|(_, client)| named(client) && client.token(now).is_some());
        usable.map(|(number, _)| relayed(*number, Handle::of(id))).collect()
    }

    /// Returns the error of the first of these relays, as text.
    pub(super) fn trouble(&self, addresses: &[Address]) -> Option<String> {
        let host = addresses.iter().find_map(|at| if let Address::Relay(host) = at { Some(host) } else { None })?;
        if self.key.is_none() {
            return Some(format!("relay {host}: takes a key, --relay-key-file or --shared-key-file"));
        }
        let client = self.clients.values().find(|client| client.host == *host);
        if client.is_some_and(Client::is_up) {
            return None;
        }
        let words = client.map_or("too many relays are named", Client::trouble);
        Some(format!("relay {host}: {words}"))
    }

    /// Returns the display form of an address.
    pub(super) fn show(&self, address: SocketAddr) -> String {
        let relay = relay_of(address).and_then(|(number, _)| self.clients.get(&number));
        relay.map_or_else(|| address.to_string(), |client| format!("relay:{}", client.host))
    }
}

/// Removes the relay's header from a forwarded datagram.
pub(super) fn payload(datagram: &mut bytes::BytesMut) {
    bytes::Buf::advance(datagram, HEADER_BYTES);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::Relay;
    use crate::relay::wire::Answer;
    use crate::sync::proof::FormationKey;

    /// Random source that counts up, enough to tell values apart.
    #[derive(Debug)]
    struct Counting(u8);

    impl crate::random::Random for Counting {
        fn fill(&mut self, bytes: &mut [u8]) {
            for byte in bytes {
                self.0 = self.0.wrapping_add(1);
                *byte = self.0;
            }
        }
    }

    const HONEST: &str = "10.0.0.1:1";
    const IMITATION: &str = "10.0.0.2:1";

    fn key() -> RelayKey {
        RelayKey::new(&FormationKey::new(vec![7; 32]).expect("long enough"))
    }

    #[expect(clippy::disallowed_methods, reason = "a virtual clock has to begin somewhere")]
    fn now() -> Now {
        Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
    }

    /// Delivers every request that is due: to the honest relay as from `node`, and through the imitation as from its address,
    /// which keeps grants to itself.
    fn exchange(relays: &mut Relays, relay: &mut Relay, now: Now, node: SocketAddr) {
        let imitation: SocketAddr = IMITATION.parse().expect("an address");
        let mut request = Vec::new();
        while let Some(to) = relays.poll_transmit(now, &mut request) {
            let source = if to == imitation { imitation } else { node };
            relay.handle_datagram(now, source, &request);
            let (_, answer) = relay.poll_transmit().expect("each request is answered");
            let granted =
                matches!(Answer::parse(&answer, &relays.identity.id(), &key()), Some((_, Answer::Allocated { .. })));
            if to != imitation || !granted {
                relays.handle(now, to, &answer);
            }
        }
    }

    #[test]
    fn a_relay_that_imitates_another_gets_no_further_signatures() {
        let (mut at, node) = (now(), SocketAddr::from(([10, 0, 0, 9], 1)));
        let mut relay = Relay::new(key(), Box::new(Counting(0)), at);
        let mut relays = Relays::new(Identity::from_seed([1; 32]), Some(key()));
        relays.want(at, &BTreeSet::from([IMITATION]), 1);
        (0..4).for_each(|_| exchange(&mut relays, &mut relay, at, node));
        assert_eq!(relay.counts().0, 1, "the imitation has an allocation in the node's name");
        relays.want(at, &BTreeSet::from([HONEST, IMITATION]), 1);
        let mut seconds = 0;
        while relays.up(at).is_empty() {
            at.mono += std::time::Duration::from_secs(1);
            seconds += 1;
            assert!(seconds < 180, "the node never gets its own allocation");
            if relay.poll_deadline().is_some_and(|deadline| at.reached(deadline)) {
                relay.handle_timeout(at);
            }
            exchange(&mut relays, &mut relay, at, node);
        }
        let honest = relays.clients.values().find(|client| client.host == HONEST).expect("wanted");
        assert!(honest.token(at).is_some());
        let imitation = [Address::Relay(IMITATION.to_owned())];
        let trouble = relays.trouble(&imitation).expect("it is not used");
        assert!(trouble.contains("passes on the answers of relay 10.0.0.1:1"), "{trouble}");
    }
}

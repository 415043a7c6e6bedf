//! Dialling: peers that are due, names to look up, attempts that take too long.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Engine;
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::{ADMISSION, FIRST_ANSWER};
use crate::sync::link::{CloseCode, LinkId};
use crate::sync::peers::{Address, Peer};

/// Time that a dial waits for the addresses of a name; a later answer is used if the dial still needs it.
pub const LOOKUP_DEADLINE: Duration = Duration::from_secs(5);

impl Engine {
    /// Starts an attempt for every peer that is due.
    pub(super) fn dial_due(&mut self, now: Now) {
        for id in self.peers.due(now) {
            self.dial(now, id);
        }
    }

    fn dial(&mut self, now: Now, id: EndpointId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut literals = Vec::new();
        for address in &peer.addresses {
            match address {
                Address::Literal(address) => literals.push(*address),
                Address::Name(name) => peer.resolving.push(name.clone()),
                Address::Relay(_) => {}
            }
        }
        literals.extend(peer.contact.take());
        literals.extend(self.relays.ways(now, &id, &peer.addresses));
        let names = peer.resolving.clone();
        if literals.is_empty() && names.is_empty() {
            // Every path leads through relays at which there is no allocation; the peer is dialled once there is one.
            peer.last_error = self.relays.trouble(&peer.addresses).unwrap_or_default();
            peer.back_off(now, &mut *self.random);
        }
        for name in names {
            self.look_up(now, name);
        }
        if !literals.is_empty() {
            self.start_attempt(now, id, &literals);
        }
    }

    pub(super) fn look_up(&mut self, now: Now, name: String) {
        if !self.looking_up.contains_key(&name) {
            self.looking_up.insert(name.clone(), now.mono);
            self.lookups.push_back(name);
        }
    }

    fn start_attempt(&mut self, now: Now, id: EndpointId, candidates: &[SocketAddr]) {
        let dialled = self.links.dial(now, id, candidates);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        match dialled {
            Ok(link) => {
                peer.dialling = Some(link);
                peer.dialled_at = Some(now.mono);
            }
            Err(error) => {
                peer.last_error = error.to_string();
                peer.back_off(now, &mut *self.random);
            }
        }
    }

    pub(super) fn on_resolved(&mut self, now: Now, name: &str, result: Result<&[SocketAddr], &String>) {
        self.looking_up.remove(name);
        if !self.active {
            self.answer_silence();
            return;
        }
        self.tell_waiting(now, name, result);
    }

    fn tell_waiting(&mut self, now: Now, name: &str, result: Result<&[SocketAddr], &String>) {
        self.relays.on_resolved(now, name, result);
        let waits = |peer: &Peer| peer.resolving.iter().any(|waiting| waiting == name);
        let waiting: Vec<EndpointId> = self.peers.iter().filter(|(_, peer)| waits(peer)).map(|(id, _)| *id).collect();
        for id in waiting {
            self.continue_dial(now, id, name, result);
        }
    }

    fn check_lookups(&mut self, now: Now) {
        let late = self.looking_up.iter().filter(|(_, since)| now.reached(**since + LOOKUP_DEADLINE));
        for name in late.map(|(name, _)| name.clone()).collect::<Vec<_>>() {
            self.tell_waiting(now, &name, Err(&"no answer within 5 s".to_owned()));
        }
    }

    fn continue_dial(&mut self, now: Now, id: EndpointId, name: &str, result: Result<&[SocketAddr], &String>) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.resolving.retain(|waiting| waiting != name);
        let addresses = result.unwrap_or_default();
        match (peer.dialling, peer.session) {
            (_, Some(link)) | (Some(link), None) => self.links.add_candidates(now, link, addresses),
            (None, None) if !addresses.is_empty() => self.start_attempt(now, id, addresses),
            (None, None) if peer.resolving.is_empty() => {
                let why = result.err().map_or("it has no address", String::as_str);
                let reason = format!("looking up {name}: {why}");
                peer.last_error.clone_from(&reason);
                peer.back_off(now, &mut *self.random);
                self.complain(now, id, &reason);
            }
            (None, None) => {}
        }
    }

    /// Gives up look-ups, and attempts that have not become a session in time.
    pub(super) fn check_dials(&mut self, now: Now) {
        self.check_lookups(now);
        let late: Vec<(EndpointId, LinkId)> = self
            .peers
            .iter()
            .filter(|(_, peer)| self.patience_ends(peer).is_some_and(|at| now.reached(at)))
            .filter_map(|(id, peer)| peer.dialling.map(|link| (*id, link)))
            .filter(|(_, link)| !self.sessions.contains_key(link))
            .collect();
        for (id, link) in late {
            self.links.close(now, link, CloseCode::Silent, "no answer in time");
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.dialling = None;
                "no answer at any of its addresses".clone_into(&mut peer.last_error);
                peer.back_off(now, &mut *self.random);
            }
        }
    }

    /// Returns the time at which an attempt is given up: earlier if no datagram has arrived.
    fn patience_ends(&self, peer: &Peer) -> Option<Instant> {
        let answered = peer.dialling.is_some_and(|link| self.links.was_heard(link));
        Some(peer.dialled_at? + if answered { ADMISSION } else { FIRST_ANSWER })
    }

    pub(super) fn dial_deadline(&self, now: Now) -> Option<Instant> {
        let attempts =
            self.peers.iter().filter(|(_, peer)| peer.dialling.is_some_and(|link| !self.sessions.contains_key(&link)));
        let late = attempts.filter_map(|(_, peer)| self.patience_ends(peer));
        let waiting =
            self.looking_up.iter().filter(|(name, _)| self.peers.iter().any(|(_, peer)| peer.resolving.contains(name)));
        late.chain(waiting.map(|(_, since)| *since + LOOKUP_DEADLINE)).chain(self.peers.next_dial(now)).min()
    }
}

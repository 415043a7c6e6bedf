//! Datagrams and time in, datagrams and events out.
//!
//! Must never let a datagram cost more than the link it belongs to, nor send an unvalidated address more than three times the
//! bytes received from it.

use std::net::SocketAddr;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{ConnectionEvent, ConnectionHandle, DatagramEvent, EndpointEvent, Incoming};

use crate::clock::Now;
use crate::limits::UNPROVEN_CONNECTIONS;
use crate::sync::link::candidates::{canonical, virtual_address};
use crate::sync::link::connection::{Link, Phase};
use crate::sync::link::keys::destination_cid;
use crate::sync::link::pace::Rate;
use crate::sync::link::probe;
use crate::sync::link::shares::Place;
use crate::sync::link::{DownReason, LinkEvent, LinkId, Links, Ready};

/// Maximum number of finished datagrams that wait to be sent; more are dropped.
const READY: usize = 256;
/// Number of unproven connections from which new ones must first validate their address (a QUIC retry).
const RETRY_AFTER: usize = UNPROVEN_CONNECTIONS / 2;

impl Links {
    /// Handles a datagram from the socket. A malicious one affects at most the link it belongs to.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, data: BytesMut) {
        self.received_bytes += data.len() as u64;
        self.clock.set(now.mono);
        let from = canonical(from);
        if let Some(subject) = probe::subject(&data) {
            return self.on_way_message(now, from, subject, &data);
        }
        let Some((long, cid)) = destination_cid(&data) else { return };
        // By connection id, not by address: datagrams of a dialled link come from any of its candidates.
        if let Some(link) = self.cids.link(cid) {
            self.deliver_to(now, link, from, data);
        } else if long || self.cids.is_ours(cid) {
            self.deliver(now, from, from, data);
        } else {
            self.deliver_reset(now, from, data);
        }
    }

    fn deliver_to(&mut self, now: Now, link: LinkId, from: SocketAddr, data: BytesMut) {
        let Some(known) = self.links.get_mut(&link) else { return };
        let remote = match &mut known.dial {
            None => from,
            Some(dial) => {
                if !dial.route.accepts(from) {
                    return;
                }
                virtual_address(link)
            }
        };
        self.deliver(now, remote, from, data);
    }

    /// Delivers a short datagram with a foreign connection id, which can only be a stateless reset. QUIC matches resets by
    /// their sender: the virtual address for a dialled link.
    fn deliver_reset(&mut self, now: Now, from: SocketAddr, data: BytesMut) {
        let dialled = |link: &&Link| link.dial.as_ref().is_some_and(|dial| dial.route.is_chosen(from));
        for link in self.links.values().filter(dialled).map(|link| link.id).collect::<Vec<_>>() {
            self.deliver(now, virtual_address(link), from, data.clone());
        }
        self.deliver(now, from, from, data);
    }

    /// Delivers a datagram to QUIC. `remote` is the sender as QUIC knows it, `from` as the socket does.
    fn deliver(&mut self, now: Now, remote: SocketAddr, from: SocketAddr, data: BytesMut) {
        let (bytes, mut response) = (data.len() as u64, Vec::new());
        match self.endpoint.handle(now.mono, remote, None, None, data, &mut response) {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => self.deliver_event(now, handle, event, from, bytes),
            Some(DatagramEvent::NewConnection(incoming)) => self.accept(now, incoming, from, bytes),
            Some(DatagramEvent::Response(_)) => self.respond(from, response),
            None => {}
        }
    }

    fn deliver_event(
        &mut self,
        now: Now,
        handle: ConnectionHandle,
        event: ConnectionEvent,
        from: SocketAddr,
        bytes: u64,
    ) {
        let Some(id) = self.handles.get(&handle.0).copied() else { return };
        let Some(link) = self.links.get_mut(&id) else { return };
        link.heard = Some((now.mono, from));
        link.received_bytes += bytes;
        link.heard_by(now.mono, from);
        link.conn.handle_event(event);
        self.drive(now, id);
    }

    fn accept(&mut self, now: Now, incoming: Incoming, from: SocketAddr, bytes: u64) {
        let mut response = Vec::new();
        self.cids.issue_for(None);
        let place = self.unproven.place_for(from);
        if place == Place::None {
            let _ = self.endpoint.refuse(incoming, &mut response);
            return self.respond(from, response);
        }
        if self.unproven.len() >= RETRY_AFTER && !incoming.remote_address_validated() {
            // A retry can always be sent to an address that is not validated.
            if self.endpoint.retry(incoming, &mut response).is_ok() {
                self.respond(from, response);
            }
            return;
        }
        if let Place::After(crowded) = place {
            self.give_way(crowded);
        }
        let Some(id) = self.vacant() else {
            let _ = self.endpoint.refuse(incoming, &mut response);
            return self.respond(from, response);
        };
        self.cids.issue_for(Some(id));
        let rate = Rate::default();
        rate.set(self.rates.all);
        match self.endpoint.accept(incoming, now.mono, &mut response, self.server_config(&rate)) {
            Ok((handle, conn)) => {
                self.unproven.insert(id, from);
                self.insert(now, id, (handle, conn, rate), None);
                if let Some(link) = self.links.get_mut(&id) {
                    link.heard = Some((now.mono, from));
                    link.received_bytes += bytes;
                }
            }
            Err(error) => {
                self.cids.forget(id);
                if error.response.is_some() {
                    self.respond(from, response);
                }
            }
        }
    }

    /// Ends a link that is not admitted, to make room for one from a network with fewer.
    fn give_way(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        link.down(DownReason::Crowded, &mut self.events);
        self.endpoint.handle_event(link.handle, EndpointEvent::drained());
        self.remove(id);
    }

    fn respond(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.send_ready(None, to, datagram);
    }

    pub(super) fn send_ready(&mut self, link: Option<LinkId>, to: SocketAddr, datagram: Vec<u8>) {
        if self.ready.len() < READY && !datagram.is_empty() {
            self.ready.push_back(Ready { link, to, datagram });
        }
    }

    /// Handles the expiry of [`Links::poll_deadline`]; harmless at any time.
    pub fn handle_timeout(&mut self, now: Now) {
        self.clock.set(now.mono);
        let due = self.deadlines.iter().take_while(|(at, _)| *at <= now.mono);
        for id in due.map(|(_, id)| *id).collect::<Vec<_>>() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.is_late(now.mono) {
                link.down(DownReason::NoAnswer, &mut self.events);
                self.endpoint.handle_event(link.handle, EndpointEvent::drained());
                self.remove(id);
                continue;
            }
            link.conn.handle_timeout(now.mono);
            self.check_way(now, id);
            self.drive(now, id);
        }
    }

    /// Exchanges events between a connection, the endpoint and the caller until none is left.
    pub(super) fn drive(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let mut drained = false;
        loop {
            while let Some(event) = link.conn.poll_endpoint_events() {
                drained |= event.is_drained();
                self.cids.issue_for(Some(id));
                if let Some(answer) = self.endpoint.handle_event(link.handle, event) {
                    link.conn.handle_event(answer);
                }
            }
            let Some(event) = link.conn.poll() else { break };
            link.on_event(now.mono, event, &mut self.events);
            if let Some(peer) = link.peer() {
                link.rate.set(self.rates.of(&peer));
            }
        }
        link.agree_on_ways(&mut self.subjects);
        if let Some((at, found)) = link.misled.take() {
            self.residents.note(now.mono, at, found);
        }
        if drained { self.remove(id) } else { self.reschedule(id) }
    }

    /// Updates the deadline of a changed link, and queues it as it may have a datagram to send.
    pub(super) fn reschedule(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.queued {
            link.queued = true;
            self.senders.push_back(id);
        }
        self.set_deadline(id);
    }

    fn set_deadline(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let deadline = link.next_deadline();
        if deadline == link.deadline {
            return;
        }
        if let Some(before) = std::mem::replace(&mut link.deadline, deadline) {
            self.deadlines.remove(&(before, id));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, id));
        }
    }

    /// Writes the next datagram to `out` (cleared first) and returns its destination.
    #[must_use]
    pub fn poll_transmit(&mut self, now: Now, out: &mut Vec<u8>) -> Option<SocketAddr> {
        out.clear();
        let to = self.next_datagram(now, out)?;
        self.sent_bytes += out.len() as u64;
        Some(to)
    }

    fn next_datagram(&mut self, now: Now, out: &mut Vec<u8>) -> Option<SocketAddr> {
        if let Some(ready) = self.ready.pop_front() {
            out.extend_from_slice(&ready.datagram);
            if let Some(link) = ready.link.and_then(|link| self.links.get_mut(&link)) {
                link.sent(now.mono, ready.datagram.len());
            }
            return Some(ready.to);
        }
        while let Some(id) = self.senders.pop_front() {
            let Some(link) = self.links.get_mut(&id) else { continue };
            if link.phase != Phase::Closing && link.holds(now.mono) {
                link.queued = false;
                self.set_deadline(id);
                continue;
            }
            let to = link.conn.poll_transmit(now.mono, 1, out).map(|transmit| transmit.destination);
            if to.is_some() {
                link.note_sent(now.mono, !self.relays.is_empty());
            }
            link.queued = to.is_some();
            self.set_deadline(id);
            if let Some(to) = to {
                self.senders.push_back(id);
                return self.address(now, id, to, out);
            }
        }
        None
    }

    /// Converts the address QUIC sends to into a real one: the first of several, with copies queued for the others.
    fn address(&mut self, now: Now, id: LinkId, to: SocketAddr, datagram: &[u8]) -> Option<SocketAddr> {
        let link = self.links.get_mut(&id)?;
        link.sent(now.mono, datagram.len());
        let Some(dial) = &mut link.dial else { return Some(to) };
        if dial.first.is_empty() {
            dial.first.extend_from_slice(datagram);
        }
        let targets = dial.route.targets().to_vec();
        let (first, others) = targets.split_first()?;
        for path in others {
            self.send_ready(Some(id), *path, datagram.to_vec());
        }
        Some(*first)
    }

    /// Returns the next event.
    #[must_use]
    pub fn poll_event(&mut self) -> Option<LinkEvent> {
        let event = self.events.pop_front()?;
        if let Some(link) = self.links.get_mut(&event.link()) {
            link.delivered(&event);
        }
        Some(event)
    }

    /// Returns the time at which to call [`Links::handle_timeout`].
    #[must_use]
    pub fn poll_deadline(&mut self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }
}

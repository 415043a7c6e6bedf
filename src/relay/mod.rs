//! A relay: forwards datagrams between nodes that cannot reach each other, without I/O. Like TURN (RFC 8656), but allocations
//! are granted to endpoint ids, and a holder reaches every other holder.
//!
//! Owns the allocations. Holds no documents and sees ciphertext only. Replies only to holders of the key, with one reply no
//! longer than the request; forwards only to addresses validated by a returned cookie.
//!
//! After [`Relay::handle_datagram`] drain [`Relay::poll_transmit`] until `None`; then wait for the next datagram or for
//! [`Relay::poll_deadline`].
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | datagrams in, datagrams out |
//! | `table.rs` | allocations and their shares |
//! | `wire.rs` | bytes, and the key |
//! | `shell.rs` | the thread |

pub mod shell;
mod table;
#[cfg(test)]
mod tests;
pub mod wire;

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use ring::hmac;

use self::table::Table;
use self::wire::{AllocationRequest, Answer, DATA, HEADER_BYTES, Header, RelayId, RelayKey};
use crate::clock::Now;
use crate::limits::{RELAY_IDLE, RELAY_QUEUE, RELAYED_BYTES};
use crate::random::{Random, RandomExt};

/// Minimum lifetime of a cookie; the maximum is twice as long.
const COOKIE_EPOCH: Duration = Duration::from_secs(60);

/// Relay engine; see the module documentation.
#[derive(Debug)]
pub struct Relay {
    key: RelayKey,
    id: RelayId,
    cookies: hmac::Key,
    random: Box<dyn Random>,
    started: Instant,
    table: Table,
    ready: VecDeque<(SocketAddr, Vec<u8>)>,
    forwarded: u64,
}

impl Relay {
    /// Creates a relay for the holders of `key`, without allocations.
    #[must_use]
    pub fn new(key: RelayKey, mut random: Box<dyn Random>, now: Now) -> Relay {
        let cookies = hmac::Key::new(hmac::HMAC_SHA256, &random.array::<32>());
        let id = random.array();
        let (table, ready) = (Table::default(), VecDeque::new());
        Relay { key, id, cookies, random, started: now.mono, table, ready, forwarded: 0 }
    }

    /// Replaces the key that requests are verified against; existing allocations last until they have to be renewed.
    pub fn set_key(&mut self, key: RelayKey) {
        self.key = key;
    }

    /// Handles a datagram from the socket. Drops it unless it is a request under the key, or data from the holder of an
    /// allocation.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        if datagram.first() == Some(&DATA) {
            self.forward(now, from, datagram);
        } else if let Some(request) = AllocationRequest::parse(datagram, &self.key) {
            let answer = self.answer(now, from, &request).to_bytes(&request, &self.key);
            self.send(from, answer);
        }
    }

    fn forward(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        let Some((header, payload)) = Header::parse(datagram) else { return };
        if payload.is_empty() || payload.len() > RELAYED_BYTES {
            return;
        }
        if let Some((to, header)) = self.table.forward(now.mono, from, header, datagram.len()) {
            let mut copy = Vec::with_capacity(HEADER_BYTES + payload.len());
            copy.extend_from_slice(&header.to_bytes());
            copy.extend_from_slice(payload);
            self.forwarded += 1;
            self.send(to, copy);
        }
    }

    fn answer(&mut self, now: Now, from: SocketAddr, request: &AllocationRequest) -> Answer {
        let epoch = self.epoch(now);
        let known = [epoch, epoch.wrapping_sub(1)].map(|epoch| self.cookie(epoch, from));
        let is_known = known.iter().any(|cookie| wire::same(cookie, &request.claim.cookie));
        if request.claim.relay != self.id || !is_known || !request.is_signed() {
            return Answer::Cookie { relay: self.id, cookie: known[0] };
        }
        let fresh = self.random.array();
        let seconds = u16::try_from(RELAY_IDLE.as_secs()).expect("minutes at most");
        match self.table.allocate(now.mono, request.id, from, request.claim.token, fresh) {
            Ok(token) => Answer::Allocated { token, seconds },
            Err(reason) => Answer::Refused(reason),
        }
    }

    fn epoch(&self, now: Now) -> u64 {
        now.mono.saturating_duration_since(self.started).as_secs() / COOKIE_EPOCH.as_secs()
    }

    fn cookie(&self, epoch: u64, address: SocketAddr) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.cookies);
        context.update(&epoch.to_be_bytes());
        match address.ip() {
            IpAddr::V4(ip) => context.update(&ip.octets()),
            IpAddr::V6(ip) => context.update(&ip.octets()),
        }
        context.update(&address.port().to_be_bytes());
        context.sign().as_ref()[..16].try_into().expect("SHA-256 is longer")
    }

    fn send(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        if self.ready.len() < RELAY_QUEUE {
            self.ready.push_back((to, datagram));
        }
    }

    /// Returns the next datagram to send, and its destination.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.ready.pop_front()
    }

    /// Returns the latest time for the next call of [`Relay::handle_timeout`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.table.next_sweep()
    }

    /// Ends the allocations that have expired.
    pub fn handle_timeout(&mut self, now: Now) {
        self.table.expire(now.mono);
    }

    /// Ends every allocation and drops all datagrams that wait to be sent.
    pub fn forget_all(&mut self) {
        self.table.clear();
        self.ready.clear();
    }

    /// Returns the number of allocations, and of datagrams forwarded since the start.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.table.len(), self.forwarded)
    }
}

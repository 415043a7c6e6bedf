//! A relay: forwards datagrams between nodes that cannot reach each other, without I/O.
//!
//! Owns who has a place and for how long. Holds no documents and sees ciphertext only. Must never send anything to somebody
//! who has not shown that he knows the key, nor more than one shorter answer to somebody who has; nor forward anything to an
//! address that has not proved, by returning a cookie, that it receives.
//!
//! After [`Relay::handle_datagram`] drain [`Relay::poll_transmit`] until `None`; then wait for the next datagram or for
//! [`Relay::poll_deadline`].
//!
//! | file | idea |
//! |---|---|
//! | `mod.rs` | datagrams in, datagrams out |
//! | `table.rs` | places |
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
use self::wire::{Answer, DATA, HEADER_BYTES, Header, RelayKey, Request};
use crate::clock::Now;
use crate::limits::{RELAY_IDLE, RELAY_QUEUE, RELAYED_BYTES};
use crate::random::{Random, RandomExt};

/// A cookie is good for this long at least, and twice as long at most.
const COOKIE_EPOCH: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Debug)]
pub struct Relay {
    key: RelayKey,
    cookies: hmac::Key,
    random: Box<dyn Random>,
    started: Instant,
    table: Table,
    ready: VecDeque<(SocketAddr, Vec<u8>)>,
    forwarded: u64,
}

impl Relay {
    /// A relay for those who know `key`, without allocations.
    #[must_use]
    pub fn new(key: RelayKey, mut random: Box<dyn Random>, now: Now) -> Relay {
        let cookies = hmac::Key::new(hmac::HMAC_SHA256, &random.array::<32>());
        let (table, ready) = (Table::default(), VecDeque::new());
        Relay { key, cookies, random, started: now.mono, table, ready, forwarded: 0 }
    }

    /// Another key counts for requests from now on; who has a place keeps it until it has to ask again.
    pub fn set_key(&mut self, key: RelayKey) {
        self.key = key;
    }

    /// Takes a datagram from the socket. What is neither a request under the key nor from an allocation is dropped.
    pub fn handle_datagram(&mut self, now: Now, from: SocketAddr, datagram: &[u8]) {
        if datagram.first() == Some(&DATA) {
            self.forward(now, from, datagram);
        } else if let Some(request) = Request::parse(datagram, &self.key) {
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

    fn answer(&mut self, now: Now, from: SocketAddr, request: &Request) -> Answer {
        let epoch = self.epoch(now);
        let known = [epoch, epoch.wrapping_sub(1)].map(|epoch| self.cookie(epoch, from));
        if !known.iter().any(|cookie| wire::same(cookie, &request.cookie)) || !request.is_signed() {
            return Answer::Cookie(known[0]);
        }
        let token = self.random.array();
        let seconds = u16::try_from(RELAY_IDLE.as_secs()).expect("minutes at most");
        match self.table.place(now.mono, request.id, from, token) {
            Ok(token) => Answer::Allocated { token, seconds },
            Err(why) => Answer::Refused(why),
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

    /// The next datagram, and where it goes.
    #[must_use]
    pub fn poll_transmit(&mut self) -> Option<(SocketAddr, Vec<u8>)> {
        self.ready.pop_front()
    }

    /// When to call [`Relay::handle_timeout`] at the latest.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        self.table.next_sweep()
    }

    /// Allocations whose time is over end.
    pub fn handle_timeout(&mut self, now: Now) {
        self.table.expire(now.mono);
    }

    /// Ends every allocation and drops what was to be sent.
    pub fn forget_all(&mut self) {
        self.table.clear();
        self.ready.clear();
    }

    /// Allocations, and datagrams forwarded since the start.
    #[must_use]
    pub fn counts(&self) -> (usize, u64) {
        (self.table.len(), self.forwarded)
    }
}

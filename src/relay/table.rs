//! Who has a place at the relay, where, and how much it has sent lately.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::wire::{Handle, Header, Refusal};
use crate::identity::EndpointId;
use crate::limits::{RELAY_ALLOCATIONS, RELAY_BURST_BYTES, RELAY_BYTES_PER_SECOND, RELAY_IDLE};

#[derive(Debug)]
struct Allocation {
    id: EndpointId,
    address: SocketAddr,
    token: [u8; 2],
    expires: Instant,
    /// When everything it has sent would have gone out at the rate it may have.
    paid: Instant,
}

/// All allocations.
#[derive(Debug, Default)]
pub(super) struct Table {
    places: BTreeMap<Handle, Allocation>,
    addresses: BTreeMap<SocketAddr, Handle>,
    /// When to look for those who have not come back.
    sweep: Option<Instant>,
}

/// Expired places are found so much later at most; nothing is forwarded for them meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

fn cost(bytes: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / RELAY_BYTES_PER_SECOND)
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    /// A place for a node that receives at `address`: a new one, its own again, or its own at another address. Returns its
    /// token; a new allocation gets `token`.
    pub(super) fn place(
        &mut self,
        now: Instant,
        id: EndpointId,
        address: SocketAddr,
        token: [u8; 2],
    ) -> Result<[u8; 2], Refusal> {
        let handle = Handle::of(&id);
        let held = self.places.get(&handle);
        if held.is_some_and(|held| held.id != id && now < held.expires) {
            return Err(Refusal::Taken);
        }
        if held.is_none() && self.places.len() >= RELAY_ALLOCATIONS {
            self.expire(now);
            if self.places.len() >= RELAY_ALLOCATIONS {
                return Err(Refusal::Full);
            }
        }
        let expires = now + RELAY_IDLE;
        self.sweep.get_or_insert(expires);
        if let Some(held) = self.places.get_mut(&handle).filter(|held| held.id == id && held.address == address) {
            held.expires = expires;
            return Ok(held.token);
        }
        if let Some(before) = self.addresses.insert(address, handle).filter(|before| *before != handle) {
            self.places.remove(&before);
        }
        let place = Allocation { id, address, token, expires, paid: now };
        if let Some(before) = self.places.insert(handle, place) {
            self.addresses.retain(|at, known| *known != handle || *at == address);
            log::info!("{id} has moved from {} to {address}", before.address);
        } else {
            log::info!("{id} has a place, at {address}; {} in all", self.places.len());
        }
        Ok(token)
    }

    /// Where a datagram goes, and under which header; `None`: nowhere.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: Header,
        bytes: usize,
    ) -> Option<(SocketAddr, Header)> {
        let sender = *self.addresses.get(&from)?;
        let place = self.places.get_mut(&sender).filter(|place| place.token == header.token && now < place.expires)?;
        let paid = place.paid.max(now);
        if paid - now > cost(RELAY_BURST_BYTES) {
            return None;
        }
        place.paid = paid + cost(bytes as u64);
        let to = self.places.get(&header.node).filter(|to| now < to.expires && header.node != sender)?;
        Some((to.address, Header { token: to.token, node: sender }))
    }

    /// Forgets who has not come back.
    pub(super) fn expire(&mut self, now: Instant) {
        let addresses = &mut self.addresses;
        self.places.retain(|_, place| {
            let stays = now < place.expires;
            if !stays {
                addresses.remove(&place.address);
                log::info!("{} has left its place", place.id);
            }
            stays
        });
        self.sweep = (!self.places.is_empty()).then_some(now + SWEEP);
    }

    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.sweep
    }

    pub(super) fn clear(&mut self) {
        *self = Table::default();
    }
}

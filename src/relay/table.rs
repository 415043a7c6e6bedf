//! Allocations of a relay: the address of each node, its expiry, and the bytes it has sent lately.
//!
//! Owns their number. One address has at most [`RELAY_ADDRESS_SHARE`] of them, one network (IPv4 /16, IPv6 /48) at most
//! [`RELAY_NETWORK_SHARE`]. When all are taken, the network that holds most gives up its youngest one to a network that holds
//! fewer. Identities cost nothing; an attacker therefore gains no more allocations than its addresses are worth.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::wire::{Handle, Header, Refusal, Token};
use crate::identity::EndpointId;
use crate::limits::{
    RELAY_ADDRESS_SHARE, RELAY_ALLOCATIONS, RELAY_BURST_BYTES, RELAY_BYTES_PER_SECOND, RELAY_IDLE, RELAY_NETWORK_SHARE,
};

#[derive(Debug)]
struct Allocation {
    id: EndpointId,
    address: SocketAddr,
    token: Token,
    expires: Instant,
    /// Serial number since the start; a higher one is younger.
    number: u64,
    /// Token bucket: the time at which everything sent so far is paid for at the permitted rate.
    paid: Instant,
}

/// Table of all allocations.
#[derive(Debug, Default)]
pub(super) struct Table {
    allocations: BTreeMap<Handle, Allocation>,
    by_address: BTreeMap<SocketAddr, Handle>,
    shares: Shares,
    made: u64,
    /// Time of the next removal of expired allocations.
    sweep: Option<Instant>,
}

/// Interval of removals. An expired allocation stays in the table this long at most; nothing is forwarded for it meanwhile.
const SWEEP: Duration = Duration::from_secs(10);

fn cost(bytes: u64) -> Duration {
    Duration::from_nanos(bytes * 1_000_000_000 / RELAY_BYTES_PER_SECOND)
}

/// Network with a common share of allocations: IPv4 /16 or IPv6 /48.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Network {
    V4([u8; 2]),
    V6([u8; 6]),
}

impl Network {
    fn of(ip: IpAddr) -> Network {
        match ip {
            IpAddr::V4(ip) => {
                let [a, b, ..] = ip.octets();
                Network::V4([a, b])
            }
            IpAddr::V6(ip) => {
                let [a, b, c, d, e, f, ..] = ip.octets();
                Network::V6([a, b, c, d, e, f])
            }
        }
    }
}

/// Number of allocations by address and by network.
#[derive(Debug, Default)]
struct Shares {
    addresses: BTreeMap<IpAddr, usize>,
    networks: BTreeMap<Network, usize>,
}

impl Shares {
    fn add(&mut self, ip: IpAddr) {
        *self.addresses.entry(ip).or_default() += 1;
        *self.networks.entry(Network::of(ip)).or_default() += 1;
    }

    fn remove(&mut self, ip: IpAddr) {
        subtract(&mut self.addresses, ip);
        subtract(&mut self.networks, Network::of(ip));
    }

    fn of_network(&self, network: Network) -> usize {
        self.networks.get(&network).copied().unwrap_or(0)
    }

    fn is_used_up(&self, ip: IpAddr) -> bool {
        self.addresses.get(&ip).is_some_and(|count| *count >= RELAY_ADDRESS_SHARE)
            || self.of_network(Network::of(ip)) >= RELAY_NETWORK_SHARE
    }

    /// Returns the network with most allocations, if it would still hold no fewer than `network` after giving one to it.
    fn donor(&self, network: Network) -> Option<Network> {
        let (largest, count) = self.networks.iter().max_by_key(|(_, count)| **count)?;
        (*count > self.of_network(network) + 1).then_some(*largest)
    }
}

fn subtract<K: Ord>(counts: &mut BTreeMap<K, usize>, key: K) {
    if let std::collections::btree_map::Entry::Occupied(mut count) = counts.entry(key) {
        *count.get_mut() -= 1;
        if *count.get() == 0 {
            count.remove();
        }
    }
}

impl Table {
    pub(super) fn len(&self) -> usize {
        self.allocations.len()
    }

    /// Grants a node that receives at `address` a new allocation with the token `fresh`, or renews or moves its existing one,
    /// and returns its token. A live allocation moves to another host only with its token, `held`: a relay that forwards
    /// another relay's cookies cannot take it over.
    pub(super) fn allocate(
        &mut self,
        now: Instant,
        id: EndpointId,
        address: SocketAddr,
        held: Token,
        fresh: Token,
    ) -> Result<Token, Refusal> {
        let handle = Handle::of(&id);
        let live = self.allocations.get_mut(&handle).filter(|allocation| now < allocation.expires);
        if let Some(live) = live {
            if live.id != id {
                return Err(Refusal::Taken);
            }
            if live.address == address {
                live.expires = now + RELAY_IDLE;
                return Ok(live.token);
            }
            if live.address.ip() != address.ip() && live.token != held {
                return Err(Refusal::Elsewhere);
            }
        }
        self.remove(handle, "its node asked from another address");
        self.make_room(now, address.ip())?;
        if let Some(previous) = self.by_address.get(&address).copied() {
            self.remove(previous, "another node asked from its address");
        }
        self.insert(
            now,
            handle,
            Allocation { id, address, token: fresh, expires: now + RELAY_IDLE, number: self.made, paid: now },
        );
        Ok(fresh)
    }

    fn make_room(&mut self, now: Instant, ip: IpAddr) -> Result<(), Refusal> {
        if self.shares.is_used_up(ip) || self.len() >= RELAY_ALLOCATIONS {
            self.expire(now);
        }
        if self.shares.is_used_up(ip) {
            return Err(Refusal::Share);
        }
        if self.len() >= RELAY_ALLOCATIONS {
            let donor = self.shares.donor(Network::of(ip)).ok_or(Refusal::Full)?;
            let of_donor = self.allocations.iter().filter(|(_, held)| Network::of(held.address.ip()) == donor);
            let youngest = of_donor.max_by_key(|(_, held)| held.number).map(|(handle, _)| *handle);
            self.remove(youngest.ok_or(Refusal::Full)?, "its network has the most, and another one has few");
        }
        Ok(())
    }

    fn insert(&mut self, now: Instant, handle: Handle, allocation: Allocation) {
        self.made += 1;
        self.sweep.get_or_insert(now + RELAY_IDLE);
        log::debug!("{} has an allocation for {}; {} in all", allocation.id, allocation.address, self.len() + 1);
        self.shares.add(allocation.address.ip());
        self.by_address.insert(allocation.address, handle);
        self.allocations.insert(handle, allocation);
        debug_assert_eq!(self.by_address.len(), self.allocations.len(), "one address each");
    }

    fn remove(&mut self, handle: Handle, reason: &str) {
        let Some(allocation) = self.allocations.remove(&handle) else { return };
        log::debug!("the allocation of {} for {} ends: {reason}", allocation.id, allocation.address);
        self.by_address.remove(&allocation.address);
        self.shares.remove(allocation.address.ip());
    }

    /// Returns the destination of a datagram and its new header; `None` if it is dropped.
    pub(super) fn forward(
        &mut self,
        now: Instant,
        from: SocketAddr,
        header: Header,
        bytes: usize,
    ) -> Option<(SocketAddr, Header)> {
        let sender = *self.by_address.get(&from)?;
        let held = self.allocations.get_mut(&sender)?;
        if held.token != header.token || now >= held.expires {
            return None;
        }
        // A holder may run ahead of its rate by one burst; unused time is not credited.
        let paid = held.paid.max(now);
        if paid - now > cost(RELAY_BURST_BYTES) {
            return None;
        }
        held.paid = paid + cost(bytes as u64);
        let to = self.allocations.get(&header.node).filter(|to| now < to.expires && header.node != sender)?;
        Some((to.address, Header { token: to.token, node: sender }))
    }

    /// Removes expired allocations.
    pub(super) fn expire(&mut self, now: Instant) {
        let expired = self.allocations.iter().filter(|(_, held)| now >= held.expires).map(|(handle, _)| *handle);
        for handle in expired.collect::<Vec<_>>() {
            self.remove(handle, "its node has not asked again");
        }
        self.sweep = (!self.allocations.is_empty()).then_some(now + SWEEP);
    }

    pub(super) fn next_sweep(&self) -> Option<Instant> {
        self.sweep
    }

    pub(super) fn clear(&mut self) {
        *self = Table { made: self.made, ..Table::default() };
    }
}

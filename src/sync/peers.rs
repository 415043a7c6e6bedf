//! Peers with which this node links: addresses, settings, redial times.
//!
//! Owns the table of peers. Knows nothing of documents, and never dials: it reports which peers are due.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::PEERS;
use crate::random::{Random, RandomExt};
use crate::store::RunId;
use crate::sync::control::Traffic;
use crate::sync::link::LinkId;

/// First redial delay; doubles with each failure.
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// Longest redial delay.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// Number of runs remembered per peer, to notice two machines that alternate under one key.
const RUNS_REMEMBERED: usize = 4;

/// Address of a peer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Address {
    /// Literal address; never looked up.
    Literal(SocketAddr),
    /// `HOST:PORT`, resolved at each dial.
    Name(String),
    /// `relay:HOST:PORT`: the peer has an allocation at that relay. `HOST:PORT` is as in the other two.
    Relay(String),
}

impl Address {
    /// Parses `HOST:PORT` or `relay:HOST:PORT`; IPv6 literals are in brackets.
    #[must_use]
    pub fn parse(text: &str) -> Option<Address> {
        let relay = text.strip_prefix("relay:").filter(|rest| rest.contains(':'));
        match relay {
            Some(relay) => Address::parse_direct(relay).map(|at| Address::Relay(at.to_string())),
            None => Address::parse_direct(text),
        }
    }

    fn parse_direct(text: &str) -> Option<Address> {
        if let Ok(literal) = text.parse() {
            return Some(Address::Literal(literal));
        }
        let (host, port) = text.rsplit_once(':')?;
        let host_is_plain = !host.is_empty() && !host.contains([':', '@', '/', '[', ']', ' ', '+', ',']);
        let port: u16 = port.parse().ok()?;
        (host_is_plain && port != 0).then(|| Address::Name(text.to_owned()))
    }

    /// Returns true if it is the address of a relay.
    #[must_use]
    pub fn is_relay(&self) -> bool {
        matches!(self, Address::Relay(_))
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Literal(address) => write!(f, "{address}"),
            Address::Name(name) => write!(f, "{name}"),
            Address::Relay(relay) => write!(f, "relay:{relay}"),
        }
    }
}

/// Maximum length kept of a peer's name, in characters.
pub(crate) const NAME_CHARACTERS: usize = 64;

/// State of one peer.
#[derive(Debug, Default)]
pub(crate) struct Peer {
    /// True if it is admitted by its id alone.
    pub(crate) pinned: bool,
    /// True if the operator disconnected it.
    pub(crate) refused: bool,
    pub(crate) addresses: Vec<Address>,
    /// Current connection attempt.
    pub(crate) dialling: Option<LinkId>,
    /// Names being resolved for the attempt.
    pub(crate) resolving: Vec<String>,
    /// Admitted session.
    pub(crate) session: Option<LinkId>,
    /// Reason why it is not connected, as text.
    pub(crate) last_error: String,
    pub(crate) dialled_at: Option<Instant>,
    pub(crate) last_ack: Option<Instant>,
    pub(crate) last_audit: Option<Instant>,
    pub(crate) skew_ms: i64,
    /// Node id from its hello.
    pub(crate) name: String,
    pub(crate) traffic: Traffic,
    /// Address at which it was last seen.
    pub(crate) seen_at: Option<SocketAddr>,
    /// Address at which it was seen before this node started, to be dialled once: a peer that dials this node may not notice
    /// for long that it was gone.
    pub(crate) contact: Option<SocketAddr>,
    /// Address from which it dials, as saved by the store.
    pub(crate) saved_place: Option<SocketAddr>,
    next_dial: Option<Instant>,
    failures: u32,
    /// True once an attempt or a session has ended.
    tried: bool,
    runs: Vec<RunId>,
}

impl Peer {
    /// Returns true if its name is known and not truncated, so that it can be compared.
    fn has_whole_name(&self) -> bool {
        !self.name.is_empty() && self.name.chars().count() < NAME_CHARACTERS
    }

    pub(crate) fn is_wanted(&self) -> bool {
        !self.refused && !self.addresses.is_empty()
    }

    /// Returns true if an attempt should be made while there is none: repeatedly, or once for `contact`.
    fn is_to_be_dialled(&self) -> bool {
        self.is_wanted() || (self.contact.is_some() && !self.refused)
    }

    fn is_busy(&self) -> bool {
        self.session.is_some() || self.dialling.is_some() || !self.resolving.is_empty()
    }

    /// Makes the peer due at once and resets the backoff.
    pub(crate) fn dial_now(&mut self, now: Now) {
        self.failures = 0;
        self.next_dial = Some(now.mono);
    }

    /// Makes the peer due at once; if the attempt fails, the backoff continues where it was.
    pub(crate) fn try_now(&mut self, now: Now) {
        self.next_dial = Some(now.mono);
    }

    /// Schedules the next dial after an attempt or a session has ended.
    pub(crate) fn back_off(&mut self, now: Now, random: &mut dyn Random) {
        let delay = BACKOFF_MIN.saturating_mul(1 << self.failures.min(6)).min(BACKOFF_MAX);
        self.failures += 1;
        self.tried = true;
        let half = u64::try_from(delay.as_micros() / 2).unwrap_or(u64::MAX);
        let jittered = Duration::from_micros(half + random.below(half.max(1)));
        self.next_dial = Some(now.after(jittered));
    }

    /// Records that a session reached the exchange of documents.
    pub(crate) fn succeeded(&mut self) {
        self.failures = 0;
        self.last_error.clear();
    }

    /// Records the run in a hello. Returns true if an earlier run came back: two machines share this key.
    pub(crate) fn met_run(&mut self, run: RunId) -> bool {
        if self.runs.last() == Some(&run) {
            return false;
        }
        let alternating = self.runs.contains(&run);
        self.runs.push(run);
        if self.runs.len() > RUNS_REMEMBERED {
            self.runs.remove(0);
        }
        alternating
    }
}

/// Table of all known peers.
#[derive(Debug, Default)]
pub(crate) struct Peers {
    table: BTreeMap<EndpointId, Peer>,
}

impl Peers {
    pub(crate) fn get(&self, id: &EndpointId) -> Option<&Peer> {
        self.table.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &EndpointId) -> Option<&mut Peer> {
        self.table.get_mut(id)
    }

    /// Returns true if a dial of some wanted peer has ended, or there is no such peer.
    pub(crate) fn are_tried(&self) -> bool {
        let mut wanted = self.table.values().filter(|peer| peer.is_wanted()).peekable();
        wanted.peek().is_none() || wanted.any(|peer| peer.tried)
    }

    /// Returns two nodes that share a node id: this one and a connected peer, or two connected peers.
    pub(crate) fn namesakes(&self, ours: EndpointId, our_name: &str) -> Option<[EndpointId; 2]> {
        let connected = self.table.iter().filter(|(_, peer)| peer.session.is_some());
        let mut seen = BTreeMap::from([(our_name, ours)]);
        connected.filter(|(_, peer)| peer.has_whole_name()).find_map(|(id, peer)| {
            let other = seen.insert(&peer.name, *id)?;
            Some([other, *id])
        })
    }

    /// Returns the other node that has the node id of peer `id`: this one or a connected peer.
    pub(crate) fn namesake_of(&self, id: EndpointId, ours: EndpointId, our_name: &str) -> Option<EndpointId> {
        let peer = self.table.get(&id).filter(|peer| peer.has_whole_name())?;
        if peer.name == our_name {
            return Some(ours);
        }
        let is_other = |other: &EndpointId, at: &Peer| *other != id && at.session.is_some() && at.name == peer.name;
        self.table.iter().find(|(other, at)| is_other(other, at)).map(|(other, _)| *other)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&EndpointId, &Peer)> {
        self.table.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (&EndpointId, &mut Peer)> {
        self.table.iter_mut()
    }

    /// Returns the entry for a peer, created if necessary. A full table drops an idle peer that is neither pinned nor refused;
    /// `None` if there is none.
    pub(crate) fn entry(&mut self, id: EndpointId) -> Option<&mut Peer> {
        if !self.table.contains_key(&id) && self.table.len() >= PEERS {
            let idle = self.table.iter().find(|(_, peer)| !peer.pinned && !peer.refused && !peer.is_busy());
            let idle = *idle?.0;
            self.table.remove(&idle);
        }
        Some(self.table.entry(id).or_default())
    }

    /// Returns the peers to dial now.
    pub(crate) fn due(&self, now: Now) -> Vec<EndpointId> {
        let due =
            |peer: &Peer| peer.is_to_be_dialled() && !peer.is_busy() && peer.next_dial.is_none_or(|at| now.reached(at));
        self.table.iter().filter(|(_, peer)| due(peer)).map(|(id, _)| *id).collect()
    }

    /// Returns the time of the next dial.
    pub(crate) fn next_dial(&self, now: Now) -> Option<Instant> {
        let idle = self.table.values().filter(|peer| peer.is_to_be_dialled() && !peer.is_busy());
        idle.map(|peer| peer.next_dial.unwrap_or(now.mono)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::System;

    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn start() -> Now {
        Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
    }

    fn delays(failures: u32) -> Duration {
        let (now, mut peer) = (start(), Peer::default());
        for _ in 0..failures {
            peer.back_off(now, &mut System::default());
        }
        peer.next_dial.expect("backing off sets a time") - now.mono
    }

    #[test]
    fn redials_back_off_from_half_a_second_to_half_a_minute_with_jitter() {
        let first = delays(1);
        assert!(first >= BACKOFF_MIN / 2 && first <= BACKOFF_MIN, "{first:?}");
        let late = delays(40);
        assert!(late >= BACKOFF_MAX / 2 && late <= BACKOFF_MAX, "{late:?}");
    }

    #[test]
    fn a_key_used_by_two_machines_is_noticed_when_a_run_comes_back() {
        let mut peer = Peer::default();
        let (a, b) = (RunId([1; 16]), RunId([2; 16]));
        assert!(!peer.met_run(a));
        assert!(!peer.met_run(a), "a reconnect is no news");
        assert!(!peer.met_run(b), "a restart is no news");
        assert!(peer.met_run(a), "an ended run does not come back by itself");
    }

    #[test]
    fn addresses_parse_or_are_refused() {
        assert!(matches!(Address::parse("127.0.0.1:4242"), Some(Address::Literal(_))));
        assert!(matches!(Address::parse("[::1]:4242"), Some(Address::Literal(_))));
        assert!(matches!(Address::parse("hub.example:4242"), Some(Address::Name(_))));
        let relay = Address::parse("relay:[::1]:4243").expect("a relay");
        assert!(relay.is_relay() && relay.to_string() == "relay:[::1]:4243");
        for bad in [
            "relay:",
            "relay:h",
            "relay:relay:h:1",
            "",
            "hub",
            "hub:",
            ":1",
            "hub:0",
            "hub:70000",
            "a:b:1",
            "h st:1",
            "::1:4242",
        ] {
            assert_eq!(Address::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_full_table_forgets_strangers_before_it_refuses() {
        let mut peers = Peers::default();
        for i in 0..PEERS {
            let mut id = [0; 32];
            id[..8].copy_from_slice(&(i as u64).to_be_bytes());
            peers.entry(EndpointId(id)).expect("room").pinned = i != 7;
        }
        assert!(peers.entry(EndpointId([9; 32])).is_some());
        peers.get_mut(&EndpointId([9; 32])).expect("just made").pinned = true;
        assert!(peers.entry(EndpointId([8; 32])).is_none());
    }
}

//! Path failover: selects the path of a link, direct or through a relay, and changes it when it fails.
//!
//! Owns, for each link, the reason for its path, the time since which a packet is unanswered, and the secret of path messages.
//! Must never move a link because of a datagram that does not verify, nor end a session because a path has failed.
//!
//! # The problem
//!
//! A fleet moves: a vehicle leaves one network for another, a firewall drops UDP in one direction, a relay restarts. A link
//! must then carry data again within about two seconds, and return to a direct path when that works, because a relay costs
//! bandwidth and delay. Neither the session nor the data in flight may be lost.
//!
//! QUIC alone does not do this. Connection migration (RFC 9000 section 9) is started by a client that knows its address has
//! changed; a path that fails inside the network looks like loss, backs off, and ends in the idle timeout of 30 s. A new
//! connection costs a handshake, a proof and the state of the session. And the acceptor of a connection cannot migrate at all.
//!
//! # The algorithm
//!
//! Only the dialler selects. Its QUIC connection knows one virtual address (see `candidates.rs`), so a change of path below it is
//! not a migration there; the acceptor sees the source address change and validates the new path as for any migrating client.
//!
//! 1. *First path.* The first datagrams go to every direct candidate at once. Relays join after 300 ms without an answer. The
//!    first candidate that answers is selected.
//! 2. *Detection.* When a datagram leaves with new frames that the peer must acknowledge, a timer starts; any datagram on the
//!    selected path stops it. It expires after three round trips, at least `ANSWER_MIN` and at most `ANSWER_MAX`.
//! 3. *Failover.* On expiry the dialler takes the next candidate: from a direct path the first relay, otherwise the next in
//!    order. Nothing is probed first, because the current path is known not to work and QUIC retransmits on the new one.
//!    Congestion control restarts with the first datagram that arrives on it.
//! 4. *One-way failure.* An acceptor that sends and hears nothing cannot select a path. It sends *deaf* through every relay at
//!    which it has an allocation; the dialler takes the path by which that arrived. Numbers that increase make a replayed one
//!    harmless.
//! 5. *Return.* While a relay is in use, the dialler probes every direct address, after 1 s and then with exponential backoff
//!    up to 15 s. Two consecutive answers from one address, 100 ms apart, select it. See `probe.rs`.
//! 6. *Learning.* An acceptor that knows addresses of the dialler probes them. A probe that arrives directly adds its source to
//!    the dialler's candidates, which finds the address behind a NAT that neither end was configured with.
//!
//! # Bounds
//!
//! A link has at most `CANDIDATES` direct addresses and as many through relays, one probe round at a time, and one timer. An
//! answer is never longer than its probe. A message costs one HMAC to reject. An oscillating path changes the link at most once
//! per timeout in one direction and once per confirmed probe in the other.
//!
//! # Tests
//!
//! `sync/tests/relay.rs` (dead, one-way and returning paths within two seconds), `sync/tests/roaming.rs`,
//! `link/tests/dialling.rs`. The bytes are in `docs/wire.md`, section *Paths*.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::limits::CANDIDATES;
use crate::relay::wire::Handle;
use crate::sync::link::candidates::{is_relayed, relayed};
use crate::sync::link::connection::{Link, Phase};
use crate::sync::link::probe::{EXPORT_LABEL, Message, PROBE_BYTES, ProbeKind, Prober, SECRET_BYTES, Secret};
use crate::sync::link::{LinkId, Links, RelayNumber};

/// Minimum time without an answer after which a packet counts as lost on its path; between the bounds it is three round trips.
const ANSWER_MIN: Duration = Duration::from_millis(600);
/// Maximum of the same time.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Reason for the current path of a link.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reason {
    /// The path is direct, and direct paths are preferred.
    #[default]
    Preferred,
    /// It was the first path that answered.
    First,
    /// The previous path no longer answered.
    NoAnswer,
    /// The peer reported that it receives nothing on the previous path.
    NotHeard,
    /// A direct path answers again.
    Back,
    /// The peer dialled, so it selected the path.
    Peer,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Preferred => "direct is preferred",
            Reason::First => "no direct address answered",
            Reason::NoAnswer => "the way before did not answer any more",
            Reason::NotHeard => "the peer did not hear us on the way before",
            Reason::Back => "a direct address answers again",
            Reason::Peer => "the peer, which dialled, decides",
        })
    }
}

/// Path state of one link; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct PathState {
    reason: Reason,
    /// Time since which a sent packet is unanswered.
    owed: Option<Instant>,
    /// Number of ack-eliciting frames sent so far.
    eliciting: u64,
    /// True if the path was changed and no datagram has arrived on the new one yet.
    fresh: bool,
    secret: Option<Secret>,
    prober: Prober,
    /// Addresses at which the peer of an accepted link may be reached.
    known: Vec<SocketAddr>,
}

impl PathState {
    /// Records the path `by` on which the handshake completed.
    pub(super) fn settle(&mut self, now: Instant, by: SocketAddr) {
        if is_relayed(by) {
            self.reason = Reason::First;
            self.prober.start(now);
        }
    }

    /// Adds addresses at which the peer of an accepted link may be reached. Probes tell the peer that they work.
    pub(super) fn know(&mut self, now: Instant, addresses: &[SocketAddr]) {
        self.known = addresses.iter().copied().filter(|at| !is_relayed(*at)).take(CANDIDATES).collect();
        if !self.known.is_empty() {
            self.prober.start(now);
        }
    }

    pub(super) fn subject(&self) -> Option<[u8; 8]> {
        self.secret.as_ref().map(Secret::subject)
    }
}

fn patience(link: &Link) -> Duration {
    (link.conn.rtt() * 3).clamp(ANSWER_MIN, ANSWER_MAX)
}

impl Link {
    /// Derives the secret of path messages at both ends, once the link is up.
    pub(super) fn agree_on_ways(&mut self, subjects: &mut BTreeMap<[u8; 8], LinkId>) {
        if self.phase == Phase::Up && self.way.secret.is_none() {
            let mut bytes = [0; SECRET_BYTES];
            if self.conn.crypto_session().export_keying_material(&mut bytes, EXPORT_LABEL, b"").is_ok() {
                let secret = Secret::new(bytes);
                subjects.insert(secret.subject(), self.id);
                self.way.secret = Some(secret);
            }
        }
    }

    /// Starts the answer timer when a datagram has left. `relays`: this node has an allocation at a relay.
    pub(super) fn note_sent(&mut self, now: Instant, relays: bool) {
        let choice = self.dial.as_ref().map_or(relays, |dial| dial.route.alternative().is_some());
        if self.phase != Phase::Up || !choice {
            return;
        }
        // Counts ack-eliciting frames: a datagram with acknowledgements alone is not answered.
        let sent = self.conn.stats().frame_tx;
        let eliciting = sent.stream + sent.ping + sent.crypto + sent.new_connection_id + sent.path_challenge;
        if std::mem::replace(&mut self.way.eliciting, eliciting) != eliciting {
            self.way.owed.get_or_insert(now);
        }
    }

    /// Stops the answer timer when a datagram arrives on the selected path. On a path just taken, QUIC's estimates restart.
    pub(super) fn heard_by(&mut self, now: Instant, from: SocketAddr) {
        if self.dial.as_ref().is_some_and(|dial| !dial.route.is_chosen(from)) {
            return;
        }
        self.way.owed = None;
        if std::mem::take(&mut self.way.fresh) {
            self.conn.path_changed(now);
        }
    }

    /// Returns the time at which `check_way` is due.
    pub(super) fn way_deadline(&self) -> Option<Instant> {
        let relays = self.dial.as_ref().and_then(|dial| dial.route.relays_from());
        let up = self.phase == Phase::Up;
        let owed = self.way.owed.filter(|_| up).map(|since| since + patience(self));
        let probe = self.way.prober.deadline().filter(|_| up);
        relays.into_iter().chain(owed).chain(probe).min()
    }

    fn take(&mut self, now: Instant, way: SocketAddr, reason: Reason) {
        let Some(dial) = &mut self.dial else { return };
        dial.route.choose(way);
        self.way.reason = reason;
        self.way.fresh = true;
        self.way.owed = Some(now);
        if is_relayed(way) {
            self.way.prober.start(now);
        } else {
            self.way.prober.stop();
        }
        log::debug!("link: path changed to {way} ({reason})");
        self.conn.local_address_changed();
    }

    /// Restarts probing: a direct address may answer on the changed network.
    pub(super) fn network_changed(&mut self, now: Instant) {
        if self.way.prober.deadline().is_some() {
            self.way.prober.start(now);
        }
    }

    /// Returns the direct addresses to probe while a relay is in use.
    fn to_probe(&self) -> Vec<SocketAddr> {
        match &self.dial {
            Some(dial) => dial.route.direct().collect(),
            None => self.way.known.clone(),
        }
    }
}

impl Links {
    /// Sets the relays at which this node has an allocation.
    pub fn set_relays(&mut self, relays: Vec<RelayNumber>) {
        self.relays = relays;
    }

    /// Returns true if a link was recently unanswered, so that an allocation may be lost; clears the mark.
    #[must_use]
    pub fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    /// Returns true if a link has an alternative path, should the current one not answer.
    #[must_use]
    pub fn has_choice(&self, link: LinkId) -> bool {
        let dial = self.links.get(&link).and_then(|link| link.dial.as_ref());
        dial.map_or(!self.relays.is_empty(), |dial| dial.route.alternative().is_some())
    }

    /// Returns whether a link goes through a relay, and the reason for its path.
    #[must_use]
    pub fn way(&self, link: LinkId) -> Option<(bool, Reason)> {
        let link = self.links.get(&link)?;
        let through = is_relayed(link.remote()?);
        let reason = if through && link.dial.is_none() { Reason::Peer } else { link.way.reason };
        Some((through, reason))
    }

    /// Handles the path deadline of a link: relays join a dial, an unanswered path is left, probes are sent.
    pub(super) fn check_way(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(dial) = &mut link.dial
            && dial.route.relays_from().is_some_and(|at| now.reached(at))
        {
            // No direct address has answered in time: the first datagram goes through the relays too.
            let (relays, datagram) = (dial.route.join_relays(), dial.first.clone());
            relays.into_iter().for_each(|way| self.send_ready(Some(id), way, datagram.clone()));
            return;
        }
        if link.phase != Phase::Up {
            return;
        }
        if link.way.owed.is_some_and(|since| now.reached(since + patience(link))) {
            self.doubt = true;
            self.not_answered(now, id);
        }
        self.probe_ways(now, id);
    }

    fn not_answered(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        match &link.dial {
            Some(dial) => match dial.route.alternative() {
                Some(way) => link.take(now.mono, way, Reason::NoAnswer),
                None => link.way.owed = None,
            },
            None => {
                link.way.owed = Some(now.mono);
                self.say_deaf(id);
            }
        }
    }

    /// Tells the peer, which dialled, through every relay that nothing is received from it.
    fn say_deaf(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Some(secret), Some(peer)) = (&link.way.secret, &link.peer) else { return };
        let message = Message { kind: ProbeKind::Deaf, number: link.way.prober.number() };
        let (datagram, handle) = (secret.write(false, message, 0), Handle::of(peer));
        for relay in self.relays.clone() {
            self.send_ready(Some(id), relayed(relay, handle), datagram.clone());
        }
    }

    fn probe_ways(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if !link.remote().is_some_and(is_relayed) {
            return link.way.prober.stop();
        }
        let (Some(number), Some(secret)) = (link.way.prober.poll(now.mono), &link.way.secret) else { return };
        let message = Message { kind: ProbeKind::Probe, number };
        let datagram = secret.write(link.dial.is_some(), message, PROBE_BYTES);
        for way in link.to_probe() {
            self.send_ready(Some(id), way, datagram.clone());
        }
    }

    /// Handles a message of the path protocol.
    pub(super) fn on_way_message(&mut self, now: Now, from: SocketAddr, subject: [u8; 8], datagram: &[u8]) {
        let Some(id) = self.subjects.get(&subject).copied() else { return };
        let Some(link) = self.links.get_mut(&id).filter(|link| link.phase == Phase::Up) else { return };
        let (Some(secret), dialled) = (&link.way.secret, link.dial.is_some()) else { return };
        let Some(Message { kind, number }) = secret.read(!dialled, datagram) else { return };
        match kind {
            ProbeKind::Probe => {
                let answer = secret.write(dialled, Message { kind: ProbeKind::Answer, number }, datagram.len());
                // A new source may be the address of a NAT binding, so probing starts over.
                let learned = !is_relayed(from) && link.dial.as_mut().is_some_and(|dial| dial.route.learn(from));
                if learned && link.way.prober.deadline().is_some() {
                    link.way.prober.start(now.mono);
                }
                self.send_ready(Some(id), from, answer);
            }
            ProbeKind::Answer => {
                if dialled && !is_relayed(from) && link.way.prober.on_answer(now.mono, number, from) {
                    link.take(now.mono, from, Reason::Back);
                }
            }
            ProbeKind::Deaf => {
                let deaf = dialled && is_relayed(from) && link.way.prober.is_news(number);
                if deaf && link.remote() != Some(from) {
                    link.take(now.mono, from, Reason::NotHeard);
                }
            }
        }
        self.drive(now, id);
    }
}

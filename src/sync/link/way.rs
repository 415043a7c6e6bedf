//! Which way a link goes, direct or through a relay, and when that changes.
//!
//! The end that dialled decides: it takes another way when what it sent is not answered, or when the other end says that it
//! hears nothing, and goes back to a direct one once that has answered two probes. QUIC at the other end follows, as it does
//! any peer whose address changes. Neither the session nor anything in it is lost by it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::limits::CANDIDATES;
use crate::relay::wire::Handle;
use crate::sync::link::connection::{Link, Phase};
use crate::sync::link::probe::{EXPORT_LABEL, Kind, Message, PROBE_BYTES, Prober, SECRET_BYTES, Secret};
use crate::sync::link::route::{is_relayed, relayed};
use crate::sync::link::{LinkId, Links, RelayNumber};

/// What is not answered for three round trips, within these bounds, is taken not to have arrived.
const ANSWER_MIN: Duration = Duration::from_millis(600);
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why a link goes the way it goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Reason {
    /// It is the direct one, which is preferred.
    #[default]
    Preferred,
    /// It was the first that answered.
    First,
    /// The one before did not answer any more.
    NoAnswer,
    /// The peer did not hear us on the one before.
    NotHeard,
    /// A direct one answers again.
    Back,
    /// The peer, who dialled, decided.
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

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Way {
    reason: Reason,
    /// Since when something that was sent has not been answered.
    owed: Option<Instant>,
    /// Frames sent so far that the peer must acknowledge.
    eliciting: u64,
    /// It was changed, and nothing has come by the new one yet.
    fresh: bool,
    secret: Option<Secret>,
    prober: Prober,
    /// Where the peer may be reached, for a link that it dialled.
    known: Vec<SocketAddr>,
}

impl Way {
    /// The handshake is complete.
    pub(super) fn settle(&mut self, now: Instant, by: SocketAddr) {
        if is_relayed(by) {
            self.reason = Reason::First;
            self.prober.start(now);
        }
    }

    /// The peer, which dialled, may be reached at these addresses too: it is told so by probes.
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
    /// Once it is up, both ends know what messages about ways are proved by.
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

    /// A datagram has left. `relays`: there is a place at one at least.
    pub(super) fn note_sent(&mut self, now: Instant, relays: bool) {
        let choice = self.dial.as_ref().map_or(relays, |dial| dial.route.alternative().is_some());
        if self.phase != Phase::Up || !choice {
            return;
        }
        let sent = self.conn.stats().frame_tx;
        let eliciting = sent.stream + sent.ping + sent.crypto + sent.new_connection_id + sent.path_challenge;
        if std::mem::replace(&mut self.way.eliciting, eliciting) != eliciting {
            self.way.owed.get_or_insert(now);
        }
    }

    /// A datagram is about to be read. On a way that was just taken QUIC begins to measure anew.
    pub(super) fn heard_by(&mut self, now: Instant, from: SocketAddr) {
        if self.dial.as_ref().is_some_and(|dial| !dial.route.is_chosen(from)) {
            return;
        }
        self.way.owed = None;
        if std::mem::take(&mut self.way.fresh) {
            self.conn.path_changed(now);
        }
    }

    /// When the way is to be looked at.
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
        log::debug!("a link takes another way, {way}: {reason}");
        self.conn.local_address_changed();
    }

    /// A direct address may answer now that did not before.
    pub(super) fn network_changed(&mut self, now: Instant) {
        if self.way.prober.deadline().is_some() {
            self.way.prober.start(now);
        }
    }

    /// Direct addresses to probe while a relay is in use.
    fn to_probe(&self) -> Vec<SocketAddr> {
        match &self.dial {
            Some(dial) => dial.route.direct().collect(),
            None => self.way.known.clone(),
        }
    }
}

impl Links {
    /// The relays there is a place at now.
    pub fn set_relays(&mut self, relays: Vec<RelayNumber>) {
        self.relays = relays;
    }

    /// Whether a link was not answered lately, so that relays may be gone.
    #[must_use]
    pub fn take_doubt(&mut self) -> bool {
        std::mem::take(&mut self.doubt)
    }

    /// Whether a link has another way to go, should the one in use not answer.
    #[must_use]
    pub fn has_choice(&self, link: LinkId) -> bool {
        let dial = self.links.get(&link).and_then(|link| link.dial.as_ref());
        dial.map_or(!self.relays.is_empty(), |dial| dial.route.alternative().is_some())
    }

    /// Whether a link goes through a relay, and why it goes the way it goes.
    #[must_use]
    pub fn way(&self, link: LinkId) -> Option<(bool, Reason)> {
        let link = self.links.get(&link)?;
        let through = is_relayed(link.remote()?);
        let reason = if through && link.dial.is_none() { Reason::Peer } else { link.way.reason };
        Some((through, reason))
    }

    /// A link's way is due to be looked at.
    pub(super) fn check_way(&mut self, now: Now, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        if let Some(dial) = &mut link.dial
            && dial.route.relays_from().is_some_and(|at| now.reached(at))
        {
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

    /// Tells the peer, which dialled, through every relay that it is not heard.
    fn say_deaf(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (Some(secret), Some(peer)) = (&link.way.secret, &link.peer) else { return };
        let message = Message { kind: Kind::Deaf, number: link.way.prober.number() };
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
        let message = Message { kind: Kind::Probe, number };
        let datagram = secret.write(link.dial.is_some(), message, PROBE_BYTES);
        for way in link.to_probe() {
            self.send_ready(Some(id), way, datagram.clone());
        }
    }

    /// A message about ways came.
    pub(super) fn on_way_message(&mut self, now: Now, from: SocketAddr, subject: [u8; 8], datagram: &[u8]) {
        let Some(id) = self.subjects.get(&subject).copied() else { return };
        let Some(link) = self.links.get_mut(&id).filter(|link| link.phase == Phase::Up) else { return };
        let (Some(secret), dialled) = (&link.way.secret, link.dial.is_some()) else { return };
        let Some(Message { kind, number }) = secret.read(!dialled, datagram) else { return };
        match kind {
            Kind::Probe => {
                let answer = secret.write(dialled, Message { kind: Kind::Answer, number }, datagram.len());
                let learned = !is_relayed(from) && link.dial.as_mut().is_some_and(|dial| dial.route.learn(from));
                if learned && link.way.prober.deadline().is_some() {
                    link.way.prober.start(now.mono);
                }
                self.send_ready(Some(id), from, answer);
            }
            Kind::Answer => {
                if dialled && !is_relayed(from) && link.way.prober.on_answer(now.mono, number, from) {
                    link.take(now.mono, from, Reason::Back);
                }
            }
            Kind::Deaf => {
                let deaf = dialled && is_relayed(from) && link.way.prober.is_news(number);
                if deaf && link.remote() != Some(from) {
                    link.take(now.mono, from, Reason::NotHeard);
                }
            }
        }
        self.drive(now, id);
    }
}

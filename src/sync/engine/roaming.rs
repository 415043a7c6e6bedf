//! Reaction to changes of this machine's network: what is retried at once, and how often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::controls::DIALLED_ANEW;
use crate::clock::Now;
use crate::sync::link::{CloseCode, LinkId};
use crate::sync::peers::Peer;
use crate::sync::session::SessionError;

/// Pause after acting on a change. Changes come in bursts: a link, then its address, then its routes. Doubles while they
/// continue, up to `PAUSE_MAX`.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause, for an interface that flaps.
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// Time without a change after which the pause returns to its minimum.
const CALM: Duration = Duration::from_secs(10);
/// Time that a link has to answer after a change, or [`ROUND_TRIPS`] if those take longer.
const ANSWER: Duration = Duration::from_secs(1);
/// Number of round trips, see [`ANSWER`]: a lost ping is repeated after about three.
const ROUND_TRIPS: u32 = 5;

/// Ping sent to a link after a change.
#[derive(Clone, Copy, Debug)]
struct ProbedLink {
    at: Instant,
    until: Instant,
}

/// Changes not acted on yet, and links that have not answered since the last one.
#[derive(Debug, Default)]
pub(super) struct Roaming {
    due: Option<Instant>,
    acted: Option<Instant>,
    pause: Duration,
    asked: BTreeMap<LinkId, ProbedLink>,
}

impl Roaming {
    /// Records a change.
    pub(super) fn news(&mut self, now: Now) {
        let rested = self.acted.map_or(now.mono, |acted| now.mono.max(acted + self.pause));
        self.due.get_or_insert(rested);
    }

    /// Returns true if a change is to be acted on now.
    fn is_due(&mut self, now: Now) -> bool {
        if !self.due.is_some_and(|at| now.reached(at)) {
            return false;
        }
        // Backs off while changes continue, and starts over after a calm period.
        let calm = self.acted.is_none_or(|acted| now.reached(acted + CALM));
        self.pause = if calm { PAUSE_MIN } else { (2 * self.pause).min(PAUSE_MAX) };
        self.acted = Some(now.mono);
        self.due = None;
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asked.values().map(|asked| asked.until).chain(self.due).min()
    }
}

impl Engine {
    /// Acts on changes once they are due, and closes links that have not answered since.
    pub(super) fn check_network(&mut self, now: Now) {
        if self.roaming.is_due(now) {
            self.relays.ask_again(now);
            self.ask_links(now);
            self.try_everyone(now);
        }
        self.give_up_unanswered(now);
    }

    fn ask_links(&mut self, now: Now) {
        for (link, session) in &self.sessions {
            self.links.probe(now, *link);
            let answer = ANSWER.max(self.links.rtt(*link) * ROUND_TRIPS);
            // Failover to another path comes before the link is given up.
            let wait = if self.links.has_choice(*link) { 3 * answer } else { answer };
            // A peer that cannot be dialled must not lose its link: only it can dial.
            if session.is_live() && self.peers.get(&session.peer).is_some_and(Peer::is_wanted) {
                self.roaming.asked.entry(*link).or_insert(ProbedLink { at: now.mono, until: now.mono + wait });
            }
        }
    }

    /// Dials peers in backoff now, and restarts attempts under way, which may have begun without a network.
    fn try_everyone(&mut self, now: Now) {
        for (_, peer) in self.peers.iter_mut() {
            if let Some(attempt) = peer.dialling.take_if(|link| !self.sessions.contains_key(link)) {
                self.links.close(now, attempt, CloseCode::Replaced, DIALLED_ANEW);
            }
            peer.try_now(now);
        }
    }

    fn give_up_unanswered(&mut self, now: Now) {
        let over = self.roaming.asked.iter().filter(|(_, asked)| now.reached(asked.until));
        for (link, asked) in over.map(|(link, asked)| (*link, *asked)).collect::<Vec<_>>() {
            self.roaming.asked.remove(&link);
            let Some(session) = self.sessions.get(&link).filter(|_| self.links.last_heard(link) < asked.at) else {
                continue;
            };
            let id = session.peer;
            self.end(now, link, &SessionError::new(CloseCode::Silent, "no answer since the network changed"));
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.try_now(now);
            }
        }
    }
}

//! The network under this node has changed: what is tried at once, and how often.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Engine;
use super::controls::DIALLED_ANEW;
use crate::clock::Now;
use crate::sync::link::{CloseCode, LinkId};
use crate::sync::peers::Peer;
use crate::sync::session::Fault;

/// Changes come in bursts: a link, then its address, then its routes. After one was acted on the next ones wait this long,
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// twice as long each time while they go on, up to this (an interface that flaps),
const PAUSE_MAX: Duration = Duration::from_secs(4);
/// until nothing has changed for this long.
const CALM: Duration = Duration::from_secs(10);
/// A link that is asked for a sign of life after a change has this long to answer, or [`ROUND_TRIPS`] if those take longer.
const ANSWER: Duration = Duration::from_secs(1);
/// See [`ANSWER`]. A lost question is asked again after about three.
const ROUND_TRIPS: u32 = 5;

/// A link that was asked.
#[derive(Clone, Copy, Debug)]
struct Asked {
    at: Instant,
    until: Instant,
}

/// What has changed and was not acted on, and which links have not answered since.
#[derive(Debug, Default)]
pub(super) struct Roaming {
    due: Option<Instant>,
    acted: Option<Instant>,
    pause: Duration,
    asked: BTreeMap<LinkId, Asked>,
}

impl Roaming {
    /// Something has changed.
    pub(super) fn news(&mut self, now: Now) {
        let rested = self.acted.map_or(now.mono, |acted| now.mono.max(acted + self.pause));
        self.due.get_or_insert(rested);
    }

    /// Whether a change is to be acted on now.
    fn is_due(&mut self, now: Now) -> bool {
        if !self.due.is_some_and(|at| now.reached(at)) {
            return false;
        }
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
    /// Acts on changes once they are due, and gives up links that have not answered since.
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
            // Another way is taken before the link is given up.
            let wait = if self.links.has_choice(*link) { 3 * answer } else { answer };
            // Who cannot be dialled is left to dial us.
            if session.is_live() && self.peers.get(&session.peer).is_some_and(Peer::is_wanted) {
                self.roaming.asked.entry(*link).or_insert(Asked { at: now.mono, until: now.mono + wait });
            }
        }
    }

    /// Peers that wait for their backoff are dialled now, and attempts under way, which may have begun where nobody could
    /// answer, begin anew.
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
            self.end(now, link, &Fault::new(CloseCode::Silent, "no answer since the network changed"));
            if let Some(peer) = self.peers.get_mut(&id) {
                peer.try_now(now);
            }
        }
    }
}

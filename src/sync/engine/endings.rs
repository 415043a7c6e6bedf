//! End of sessions: a fault, a close by the peer, or silence.

use std::time::{Duration, Instant};

use super::Engine;
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::ADMISSION;
use crate::sync::link::{CloseCode, LinkId};
use crate::sync::session::{Session, SessionError};

/// Silence after which a link with an answer outstanding is pinged: the larger of a duration and a number of round trips.
const SILENCE_PING: (Duration, u32) = (Duration::from_secs(5), 3);
/// Silence after which it is closed, likewise. Without an answer outstanding, QUIC's idle timeout (30 s) decides.
const SILENCE_DEAD: (Duration, u32) = (Duration::from_secs(10), 8);

impl Engine {
    /// Closes a session after a fault of this node or of the peer.
    pub(super) fn end(&mut self, now: Now, link: LinkId, fault: &SessionError) {
        let Some(session) = self.drop_session(link) else { return };
        self.close(now, link, session.peer, fault);
    }

    pub(super) fn close(&mut self, now: Now, link: LinkId, id: EndpointId, fault: &SessionError) {
        self.links.close(now, link, fault.code, &fault.reason);
        if fault.code != CloseCode::Replaced {
            self.complain(now, id, &fault.reason);
        }
        self.after_end(now, link, id, &fault.reason);
    }

    pub(super) fn on_down(&mut self, now: Now, link: LinkId, reason: &str) {
        let dialled = self.peers.iter().find(|(_, peer)| peer.dialling == Some(link)).map(|(id, _)| *id);
        let session = self.drop_session(link);
        let Some(id) = session.map(|session| session.peer).or(dialled) else { return };
        self.complain(now, id, reason);
        self.after_end(now, link, id, reason);
    }

    pub(super) fn complain(&mut self, now: Now, id: EndpointId, reason: &str) {
        if self.log.allows(now, &format!("{id} {reason}")) {
            log::warn!("{id}: {reason}");
        }
    }

    /// Removes a session from the tables.
    pub(super) fn drop_session(&mut self, link: LinkId) -> Option<Session> {
        let session = self.sessions.remove(&link)?;
        if let Some(peer) = self.peers.get_mut(&session.peer)
            && peer.session == Some(link)
        {
            peer.session = None;
        }
        Some(session)
    }

    fn after_end(&mut self, now: Now, link: LinkId, id: EndpointId, reason: &str) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.dialling == Some(link) {
            peer.dialling = None;
        }
        if peer.session.is_none() && peer.dialling.is_none() {
            peer.last_error = reason.to_owned();
            peer.back_off(now, &mut *self.random);
        }
    }

    pub(super) fn wake_sessions(&mut self, now: Now) {
        let due = |session: &Session| session.deadline().is_some_and(|at| now.reached(at));
        self.dirty.extend(self.sessions.values().filter(|session| due(session)).map(|session| session.link));
    }

    pub(super) fn check_silence(&mut self, now: Now) {
        let expecting = self.sessions.values().filter(|session| session.expects_answer());
        let quiet: Vec<(LinkId, Duration)> = expecting
            .map(|session| (session.link, now.mono.saturating_duration_since(self.quiet_since(session))))
            .collect();
        for (link, silence) in quiet {
            if silence >= self.patience(link, SILENCE_DEAD) {
                self.end(
                    now,
                    link,
                    &SessionError::new(CloseCode::Silent, format!("no answer for {} s", silence.as_secs())),
                );
            } else if silence >= self.patience(link, SILENCE_PING) {
                self.links.ping(now, link);
            }
        }
        let late = |session: &&Session| !session.is_live() && now.reached(session.since + ADMISSION);
        for link in self.sessions.values().filter(late).map(|session| session.link).collect::<Vec<_>>() {
            self.end(now, link, &SessionError::new(CloseCode::NotAdmitted, "no admission within 20 s"));
        }
    }

    /// Reports each stall once, and closes the link if it lasts: a new session resumes from the state on disk at both ends.
    pub(super) fn check_stalls(&mut self, now: Now) {
        let mut stalled = Vec::new();
        for session in self.sessions.values_mut() {
            let stall = session.take_stall(now, self.links.rtt(session.link));
            stalled.extend(stall.map(|stall| (session.link, session.peer, stall)));
        }
        for (link, id, stall) in stalled {
            if stall.is_final {
                self.end(now, link, &SessionError::new(CloseCode::Silent, stall.to_string()));
            } else if self.log.allows(now, &format!("stalled {id}")) {
                log::warn!("{id}: {stall}");
            }
        }
    }

    pub(super) fn stall_deadline(&self) -> Option<Instant> {
        self.sessions.values().filter_map(|session| session.stall_deadline(self.links.rtt(session.link))).min()
    }

    /// Returns the time since which the peer of a session owed an answer and was not heard.
    fn quiet_since(&self, session: &Session) -> Instant {
        self.links.last_heard(session.link).max(session.expects_since())
    }

    /// Returns the larger of a duration and a number of round trips: a satellite link is slow, not dead.
    fn patience(&self, link: LinkId, (time, round_trips): (Duration, u32)) -> Duration {
        time.max(self.links.rtt(link) * round_trips)
    }

    pub(super) fn silence_deadline(&self) -> Option<Instant> {
        let expecting = self.sessions.values().filter(|session| session.expects_answer());
        let at = expecting.map(|session| {
            let heard = self.quiet_since(session);
            // A ping counts only if it was sent after the peer was last heard.
            let pinged = self.links.last_pinged(session.link).is_some_and(|at| at >= heard);
            let silence = heard + self.patience(session.link, if pinged { SILENCE_DEAD } else { SILENCE_PING });
            if session.is_live() { silence } else { silence.min(session.since + ADMISSION) }
        });
        at.min()
    }
}

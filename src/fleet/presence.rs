//! Which nodes with agents are there: what others flood is remembered, and when this node has to say so itself.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Times;
use super::liveness::Vitals;
use crate::identity::EndpointId;
use crate::limits::PRESENCE_NODES;

/// When each other node was last heard, and this node's own announcements.
#[derive(Debug, Default)]
pub(super) struct Presence {
    heard: BTreeMap<EndpointId, Instant>,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Presence {
    /// `node` is there. Whether it had been silent for long enough that its agents are no longer shown LIVE.
    pub(super) fn handle(&mut self, now: Instant, node: EndpointId, times: &Times) -> bool {
        if !self.heard.contains_key(&node) && self.heard.len() >= PRESENCE_NODES {
            let oldest = self.heard.iter().min_by_key(|(_, at)| **at).map(|(node, _)| *node);
            oldest.into_iter().for_each(|oldest| _ = self.heard.remove(&oldest));
        }
        let before = self.heard.insert(node, now);
        before.is_none_or(|at| at + times.stale_after <= now)
    }

    /// See [`super::Fleet::handle_gap`].
    pub(super) fn spare(&mut self, since: Instant, now: Instant, times: &Times, grace: Duration) {
        for at in self.heard.values_mut() {
            if let Vitals::Heard(spared) = Vitals::Heard(*at).spared(since, now, times, grace) {
                *at = spared;
            }
        }
    }

    pub(super) fn heard(&self, node: &EndpointId) -> Option<Instant> {
        self.heard.get(node).copied()
    }

    /// An agent became LIVE here: others need to hear of this node soon, to believe it.
    pub(super) fn announce_soon(&mut self, now: Instant, times: &Times) {
        let earliest = self.last.map_or(now, |last| (last + times.heartbeat / 6).max(now));
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// No agent is LIVE here any more.
    pub(super) fn fall_silent(&mut self) {
        self.next = None;
    }

    /// Whether this node is to announce itself now; when it may not, it tries again soon.
    pub(super) fn poll(&mut self, now: Instant, times: &Times, may: bool) -> bool {
        if self.next.is_none_or(|at| at > now) {
            return false;
        }
        if may {
            self.last = Some(now);
        }
        self.next = Some(now + if may { times.heartbeat } else { times.heartbeat / 6 });
        may
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }
}

//! Nodes that are present: the presence heard from other nodes, and the schedule of this node's own announcements.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Times;
use super::liveness::Vitals;
use crate::identity::EndpointId;
use crate::limits::PRESENCE_NODES;

/// Time of the last presence of each other node, and this node's own schedule.
#[derive(Debug, Default)]
pub(super) struct Presence {
    heard: BTreeMap<EndpointId, Instant>,
    last: Option<Instant>,
    next: Option<Instant>,
}

impl Presence {
    /// Records that `node` is present. Returns true if it was silent for so long that its agents no longer counted as LIVE.
    pub(super) fn handle(&mut self, now: Instant, node: EndpointId, times: &Times) -> bool {
        if !self.heard.contains_key(&node) && self.heard.len() >= PRESENCE_NODES {
            let oldest = self.heard.iter().min_by_key(|(_, at)| **at).map(|(node, _)| *node);
            oldest.into_iter().for_each(|oldest| _ = self.heard.remove(&oldest));
        }
        let before = self.heard.insert(node, now);
        before.is_none_or(|at| at + times.stale_after <= now)
    }

    /// Extends presence by a gap in which this process could not listen; see [`super::Fleet::handle_gap`].
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

    /// Schedules an early announcement because an agent became LIVE: other nodes need this node's presence to show it LIVE.
    pub(super) fn announce_soon(&mut self, now: Instant, times: &Times) {
        let earliest = self.last.map_or(now, |last| (last + times.heartbeat / 6).max(now));
        self.next = Some(self.next.map_or(earliest, |next| next.min(earliest)));
    }

    /// Stops the announcements: no agent of this node is LIVE.
    pub(super) fn fall_silent(&mut self) {
        self.next = None;
    }

    /// Returns true if this node should announce itself now. If it is due but not allowed to, it tries again soon.
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

//! Gossip of presence: each node that has agents announces itself at intervals, and every other node forwards each announcement
//! once.
//!
//! Owns the announcements already received and forwarded. Stores none of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::PRESENCE_NODES;
use crate::store::RunId;
use crate::sync::mesh;

/// Minimum interval between accepted announcements of one node; faster ones are neither reported nor forwarded.
const LEAST_INTERVAL: Duration = Duration::from_millis(100);
/// Time without an announcement after which a node makes room for another.
const FORGET: Duration = Duration::from_secs(600);
/// Maximum age of this node's own announcement at which it is repeated to a peer that connects.
const FRESH: Duration = Duration::from_secs(30);

/// Announcements received of one node.
#[derive(Debug)]
struct LastPresence {
    /// Its newest two runs, with the highest counter of each, by which a late message of the earlier run is recognised.
    runs: [(RunId, u64); 2],
    at: Instant,
}

/// Announcements received of every node, and this node's last own one.
#[derive(Debug, Default)]
pub(super) struct PresenceGossip {
    nodes: BTreeMap<EndpointId, LastPresence>,
    said: Option<(u64, Instant)>,
}

impl PresenceGossip {
    /// Returns a new announcement of this node.
    pub(super) fn announce(&mut self, now: Now, node: EndpointId, run: RunId) -> mesh::Presence {
        let counter = self.said.map_or(1, |(counter, _)| counter + 1);
        self.said = Some((counter, now.mono));
        message(node, run, counter)
    }

    /// Returns this node's last announcement for a peer that has just connected, while it is fresh.
    pub(super) fn again(&self, now: Now, node: EndpointId, run: RunId) -> Option<mesh::Presence> {
        let (counter, at) = self.said?;
        (!now.reached(at + FRESH)).then(|| message(node, run, counter))
    }

    /// Returns the node if this is news of another one, to be reported and forwarded. Malformed messages are not news.
    pub(super) fn take(&mut self, now: Now, ours: EndpointId, message: &mesh::Presence) -> Option<EndpointId> {
        let node = EndpointId(message.node.as_ref().try_into().ok()?);
        let run = RunId(message.run.as_ref().try_into().ok()?);
        if node == ours || !self.has_room(now, &node) {
            return None;
        }
        let fresh = LastPresence { runs: [(run, 0), (run, 0)], at: now.mono };
        let known = self.nodes.contains_key(&node);
        let heard = self.nodes.entry(node).or_insert(fresh);
        if known && !now.reached(heard.at + LEAST_INTERVAL) {
            return None;
        }
        let slot = match heard.runs.iter().position(|(known, _)| *known == run) {
            Some(slot) => slot,
            None => {
                // Replaces the older of the two runs.
                heard.runs.swap(0, 1);
                heard.runs[0] = (run, 0);
                0
            }
        };
        if known && message.counter <= heard.runs[slot].1 {
            return None;
        }
        heard.runs[slot].1 = message.counter;
        heard.at = now.mono;
        Some(node)
    }

    fn has_room(&mut self, now: Now, node: &EndpointId) -> bool {
        if self.nodes.len() < PRESENCE_NODES || self.nodes.contains_key(node) {
            return true;
        }
        self.nodes.retain(|_, heard| !now.reached(heard.at + FORGET));
        self.nodes.len() < PRESENCE_NODES
    }
}

fn message(node: EndpointId, run: RunId, counter: u64) -> mesh::Presence {
    mesh::Presence { node: node.0.to_vec().into(), run: run.0.to_vec().into(), counter }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: EndpointId = EndpointId([1; 32]);
    const OTHER: EndpointId = EndpointId([2; 32]);

    fn start() -> Now {
        #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
        let mono = Instant::now();
        Now { mono, wall_ms: 0, boot_ms: 0 }
    }

    fn later(now: Now, millis: u64) -> Now {
        Now { mono: now.after(Duration::from_millis(millis)), ..now }
    }

    #[test]
    fn each_presence_is_passed_on_once() {
        let (mut flood, now) = (PresenceGossip::default(), start());
        let first = message(OTHER, RunId([1; 16]), 1);
        assert_eq!(flood.take(now, OURS, &first), Some(OTHER));
        assert_eq!(flood.take(later(now, 500), OURS, &first), None);
        assert_eq!(flood.take(later(now, 500), OURS, &message(OTHER, RunId([1; 16]), 2)), Some(OTHER));
        assert_eq!(flood.take(later(now, 900), OURS, &message(OTHER, RunId([2; 16]), 1)), Some(OTHER), "a new run");
        assert_eq!(flood.take(later(now, 1_900), OURS, &message(OTHER, RunId([1; 16]), 2)), None, "of the old run");
        assert_eq!(flood.take(now, OURS, &message(OURS, RunId([9; 16]), 9)), None, "our own comes back");
    }

    #[test]
    fn a_flood_of_made_up_nodes_is_bounded() {
        let (mut flood, now) = (PresenceGossip::default(), start());
        for number in 0..2 * PRESENCE_NODES {
            let mut node = [0; 32];
            node[..8].copy_from_slice(&number.to_le_bytes());
            flood.take(now, OURS, &message(EndpointId(node), RunId([1; 16]), 1));
        }
        assert_eq!(flood.nodes.len(), PRESENCE_NODES);
        assert_eq!(flood.take(later(now, 700_000), OURS, &message(OTHER, RunId([1; 16]), 1)), Some(OTHER));
    }

    #[test]
    fn what_is_malformed_or_too_fast_is_no_news() {
        let (mut flood, now) = (PresenceGossip::default(), start());
        assert_eq!(flood.take(now, OURS, &mesh::Presence::default()), None);
        assert_eq!(flood.take(now, OURS, &message(OTHER, RunId([1; 16]), 1)), Some(OTHER));
        assert_eq!(flood.take(later(now, 10), OURS, &message(OTHER, RunId([1; 16]), 2)), None);
    }
}

//! Calls that wait until peers hold a version durably.

use std::collections::{BTreeMap, BTreeSet};

use crate::identity::EndpointId;
use crate::store::KeyHash;

#[derive(Debug)]
struct Wait {
    key: KeyHash,
    sequence: u64,
    peers: u32,
    have: BTreeSet<EndpointId>,
}

/// All waiting calls. The api engine bounds their number and abandons each at its deadline.
#[derive(Debug, Default)]
pub(crate) struct DurabilityWaiters {
    calls: BTreeMap<u64, Wait>,
}

impl DurabilityWaiters {
    /// Adds a call that waits for `peers` peers to hold version `sequence` of `key`.
    pub(crate) fn add(&mut self, call: u64, key: KeyHash, sequence: u64, peers: u32) {
        self.calls.insert(call, Wait { key, sequence, peers, have: BTreeSet::new() });
    }

    /// Removes a call that ended before it was satisfied.
    pub(crate) fn abandon(&mut self, call: u64) {
        self.calls.remove(&call);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// Returns the documents and versions waited for.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (KeyHash, u64)> {
        self.calls.values().map(|wait| (wait.key, wait.sequence))
    }

    /// Records that `peer` holds version `sequence` of `key`, or a superseding one. Returns the calls that this satisfies.
    pub(crate) fn held(&mut self, peer: EndpointId, key: KeyHash, sequence: u64) -> Vec<u64> {
        let mut done = Vec::new();
        for (call, wait) in &mut self.calls {
            if wait.key == key && sequence >= wait.sequence {
                wait.have.insert(peer);
                if wait.have.len() >= wait.peers as usize {
                    done.push(*call);
                }
            }
        }
        done.iter().for_each(|call| _ = self.calls.remove(call));
        done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_counts_peers_that_hold_this_or_a_later_version_once_each() {
        let (key, mut waits) = (KeyHash([1; 16]), DurabilityWaiters::default());
        waits.add(7, key, 5, 2);
        assert!(waits.held(EndpointId([1; 32]), key, 4).is_empty(), "an earlier version");
        assert!(waits.held(EndpointId([1; 32]), key, 5).is_empty());
        assert!(waits.held(EndpointId([1; 32]), key, 6).is_empty(), "the same peer again");
        assert_eq!(waits.held(EndpointId([2; 32]), key, 9), vec![7]);
        assert!(waits.is_empty());
    }
}

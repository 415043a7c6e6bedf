//! Nodes with an identity that two machines use, as far as this node has noticed.
//!
//! Owns the lifetime of a finding. Stores none of them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::EndpointId;

/// Lifetime of a finding after the last sign of it.
const STANDS: Duration = Duration::from_secs(600);
/// Maximum number of nodes remembered.
const NODES: usize = 64;

/// Current findings; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Copied(BTreeMap<EndpointId, Instant>);

impl Copied {
    /// Notes a sign that two machines use the identity of `node`. Returns true if that is new.
    pub(super) fn note(&mut self, now: Now, node: EndpointId) -> bool {
        self.forget(now);
        if self.0.len() >= NODES && !self.0.contains_key(&node) {
            return false;
        }
        self.0.insert(node, now.mono).is_none()
    }

    pub(super) fn forget(&mut self, now: Now) {
        self.0.retain(|_, at| !now.reached(*at + STANDS));
    }

    /// Returns one of these nodes, `ours` if it is among them, and their number.
    pub(super) fn summary(&self, ours: EndpointId) -> (Option<EndpointId>, u32) {
        let first = self.0.get_key_value(&ours).or_else(|| self.0.first_key_value()).map(|(id, _)| *id);
        (first, u32::try_from(self.0.len()).unwrap_or(u32::MAX))
    }
}

/// Returns the message for the operator.
pub(crate) fn words(node: EndpointId, ours: EndpointId) -> String {
    let whose = if node == ours { "this node's identity".to_owned() } else { format!("the identity of node {node}") };
    format!(
        "two machines run with {whose}: its data directory was copied; stop one of them, and let it begin with an empty data directory and a key of its own"
    )
}

//! Room in the roster: the share of each user, and eviction when the roster is full.
//!
//! An agent of this node always evicts an agent of another node, and an agent of a present node evicts one of a node that is not
//! heard. Records of agents can be forged, so writing a record must not suffice to gain a place in the roster.

use peat_ipc::{CallError, Code};

use super::Fleet;
use super::attachments::Owner;
use super::roster::AgentEntry;
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits::{AGENTS, AGENTS_OF_USER};

impl Fleet {
    /// Checks that one more agent of `owner` may be registered here.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: the user has used its share, or the roster is full of agents of this node.
    pub(super) fn check_room(&self, now: Now, owner: Owner) -> Result<(), CallError> {
        let refused = |message: String| Err(CallError::new(Code::ResourceExhausted, message));
        let is_its = |entry: &AgentEntry| entry.local().is_some_and(|local| local.owner == owner);
        // The scan is needed only once the roster holds at least one share.
        let full = self.roster.len() >= AGENTS_OF_USER;
        if full && self.roster.iter().filter(|(_, entry)| is_its(entry)).count() >= AGENTS_OF_USER {
            return refused(format!(
                "{AGENTS_OF_USER} agents of this user are known here, which is its share; delete dead ones from `agents`"
            ));
        }
        if self.roster.len() < AGENTS || self.giving_way(now, true).is_some() {
            return Ok(());
        }
        refused(format!("{AGENTS} agents are known, which is the limit; delete dead ones from `agents`"))
    }

    /// Makes room for an agent that is not in the roster, of this node or of a present one. Returns false if there is none.
    pub(super) fn make_room(&mut self, now: Now, node: EndpointId) -> bool {
        if self.roster.len() < AGENTS {
            return true;
        }
        let ours = node == self.ours;
        if !ours && !self.is_there(now, &node) {
            return false;
        }
        let Some(id) = self.giving_way(now, ours) else { return false };
        self.forget(&id);
        true
    }

    /// Returns the agent to evict: one of a node that is not heard, or else, for an agent of this node, any agent of another
    /// node.
    fn giving_way(&self, now: Now, ours: bool) -> Option<String> {
        let foreign = || self.roster.iter().filter(|(_, entry)| entry.local().is_none());
        let silent = foreign().find(|(_, entry)| !self.is_there(now, &entry.claim.endpoint));
        silent.or_else(|| foreign().next().filter(|_| ours)).map(|(id, _)| id.clone())
    }

    fn is_there(&self, now: Now, node: &EndpointId) -> bool {
        let times = &self.settings.times;
        self.presence.heard(node).is_some_and(|at| !now.reached(at + times.stale_after))
    }

    /// Removes an agent from the roster, with its timer and its pending writes.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(entry) = self.roster.remove(id) {
            entry.timer.into_iter().for_each(|at| _ = self.timers.remove(&(at, id.to_owned())));
            self.to_store.remove(id);
            self.unsaid.remove(id);
        }
    }
}

//! The principal that an agent belongs to, and what others may do in its name.
//!
//! Owns the decision; it uses what the whole fleet knows, not only what is attached here. An agent belongs to the principal that
//! registered it, or put its platform first, at the node that owns it, and stays its own after a restart of that node. A user id
//! stands for the same user on every node of a fleet.

use peat_ipc::{CallError, Code};

use super::Fleet;
use super::attachments::Owner;
use super::liveness::Liveness;
use super::roster::Entry;
use crate::clock::Now;
use crate::store::Key;

/// Collections whose documents belong to agents: `platforms/{agent}`, `deployments/{agent}:*`, `packages/{agent}:*`.
const OWNED: [&str; 3] = ["platforms", "deployments", "packages"];

fn refused(id: &str, place: &str) -> CallError {
    CallError::new(Code::PermissionDenied, format!("agent {id} belongs to another user {place}"))
}

impl Fleet {
    /// Checks that `owner` may register the agent, or give signs of life for it, at this node. An id changes hands here once its
    /// agent is no longer LIVE, and from another node once it is DEAD.
    ///
    /// # Errors
    /// PERMISSION_DENIED: it belongs to another principal. RESOURCE_EXHAUSTED: it would be one agent too many.
    pub(super) fn check_claim(&self, now: Now, id: &str, owner: Owner) -> Result<(), CallError> {
        let Some(entry) = self.roster.get(id) else {
            return self.check_room(now, owner);
        };
        let (holder, liveness) = (entry.owner(), self.liveness_of(now, entry));
        if entry.local().is_some() {
            let taken = liveness == Liveness::Live && holder != Owner::Watcher && !holder.is(owner);
            return if taken { Err(refused(id, "here and is LIVE")) } else { Ok(()) };
        }
        let gone = match holder {
            Owner::Nobody => liveness != Liveness::Live,
            _ => liveness == Liveness::Dead,
        };
        if gone || holder.is(owner) { Ok(()) } else { Err(refused(id, &self.place(entry))) }
    }

    /// Checks that `owner` may report on the commands of `agent`, and listen to its events.
    ///
    /// # Errors
    /// PERMISSION_DENIED: the agent belongs to another principal.
    pub fn check_speaker(&self, now: Now, agent: &str, owner: Owner) -> Result<(), CallError> {
        let Some(entry) = self.roster.get(agent) else { return Ok(()) };
        let holder = entry.owner();
        let allowed = match entry.local() {
            Some(_) => holder == owner || holder == Owner::Watcher,
            None => self.check_claim(now, agent, owner).is_ok(),
        };
        if allowed { Ok(()) } else { Err(refused(agent, &self.place(entry))) }
    }

    /// Checks that `owner` may write a document: one that belongs to an agent is written in the agent's name.
    ///
    /// # Errors
    /// PERMISSION_DENIED: the agent belongs to another principal.
    pub fn check_document(&self, key: &Key, owner: Owner) -> Result<(), CallError> {
        let Some((agent, entry)) = self.agent_of_document(key) else { return Ok(()) };
        if entry.owner() == owner || owner == Owner::Watcher {
            return Ok(());
        }
        let message = format!(
            "document {key} belongs to agent {agent}, and that to another user {}; its user and admins may write it (or \
             everyone, with --open-documents)",
            self.place(entry)
        );
        Err(CallError::new(Code::PermissionDenied, message))
    }

    /// The agent that a document belongs to: of several whose ids it begins with, the one with the longest id.
    fn agent_of_document<'a>(&'a self, key: &'a Key) -> Option<(&'a str, &'a Entry)> {
        let id = key.id();
        if !OWNED.contains(&key.collection()) {
            return None;
        }
        if key.collection() == "platforms" {
            return self.roster.get(id).map(|entry| (id, entry));
        }
        let mut prefixes = id.rmatch_indices(':').map(|(colon, _)| &id[..colon]);
        prefixes.find_map(|agent| Some((agent, self.roster.get(agent)?)))
    }

    fn liveness_of(&self, now: Now, entry: &Entry) -> Liveness {
        entry.vitals(&self.presence).liveness(now.mono, &self.settings.times)
    }

    fn place(&self, entry: &Entry) -> String {
        if entry.local().is_some() { "here".to_owned() } else { format!("at node {}", entry.via) }
    }
}

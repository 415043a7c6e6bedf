//! Decides which principal an agent belongs to, and what other principals may do in its name.
//!
//! # The problem
//!
//! An agent id is a name that a client chooses, and the rights to `platforms/{id}`, `deployments/{id}:*`, `packages/{id}:*` and
//! to the commands of the agent follow from it. Two users of one machine, or two users of two machines, may choose the same id,
//! and an agent legitimately moves: its process restarts, it reconnects to another node, its node dies.
//!
//! # Why the simple ways fail
//!
//! * *The first to register keeps the id for ever.* A replaced machine could never take over from the one that burnt down.
//! * *The last to register takes the id.* Any local user could take a running agent's commands by registering its id.
//! * *Compare only with the streams attached here.* The id could then be taken at every other node, at any time.
//!
//! # The rule
//!
//! Two questions are kept apart. Which *node* owns an agent is decided by `OwnershipClaim` (`transition.rs`): each move to another node
//! adds one to the attach counter; the higher counter wins, then the larger endpoint id. Each node evaluates this alone, on the
//! replicated records in `agents`, so two nodes that claim an agent during a partition agree as soon as they exchange records.
//! Which *principal* owns it is recorded by the owning node: the one that registered the agent, or put its platform first. The
//! record is stored with the transition, so an agent keeps its principal across a restart of its node.
//!
//! | agent | the id may be claimed by |
//! |---|---|
//! | unknown | any principal, within its share of the roster (`room.rs`) |
//! | owned by this node, LIVE | its principal; any principal, if only the watcher has reported on it so far |
//! | owned by this node, STALE or DEAD | any principal |
//! | owned by another node, principal known | its principal at any time; any principal once it is DEAD |
//! | owned by another node, principal unknown | any principal once it is no longer LIVE |
//!
//! An agent at another node must be DEAD, not merely STALE, before another principal can take it: STALE is also what a partition
//! of a minute and a half looks like, and the agent is then still running. A user id stands for the same user on all nodes of a
//! fleet. `Owner::Nobody`, a user id without a meaning here, claims nothing from another `Nobody`: they may be two users.
//!
//! Writing a document of an agent needs the same principal but claims nothing; reporting on its commands needs it too, or, at a
//! node that does not own the agent, the right to claim it. A put to `platforms/{id}` by its principal counts as a sign of life
//! (`link.rs`); a correction by an admin does not take the agent over.
//!
//! # Bounds
//!
//! Principals restrict the *local* clients of each node. They do not restrict other members of the formation, which hold its key
//! and can write any record. A check costs one look-up in the roster, or one per colon in a document's id; the claim of an
//! unknown agent costs at most three scans of the roster.
//!
//! Tested in `fleet/tests.rs`, from `an_agent_that_moves_belongs_to_its_new_node` to
//! `an_admin_who_corrects_a_platform_does_not_become_its_owner`.

use peat_ipc::{CallError, Code};

use super::Fleet;
use super::attachments::Owner;
use super::liveness::Liveness;
use super::roster::AgentEntry;
use crate::clock::Now;
use crate::store::Key;

/// Collections of documents that belong to agents: `platforms/{agent}`, `deployments/{agent}:*`, `packages/{agent}:*`.
const OWNED: [&str; 3] = ["platforms", "deployments", "packages"];

fn refused(id: &str, place: &str) -> CallError {
    CallError::new(Code::PermissionDenied, format!("agent {id} belongs to another user {place}"))
}

impl Fleet {
    /// Checks that `owner` may claim the agent at this node, by registering it or by a sign of life. The table above gives the
    /// rule.
    ///
    ///
    /// # Errors
    /// PERMISSION_DENIED: the agent belongs to another principal. RESOURCE_EXHAUSTED: a new agent would exceed a limit.
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

    /// Checks that `owner` may report on the commands of `agent` and listen to its events.
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

    /// Checks that `owner` may write a document. A document that belongs to an agent is written in the agent's name.
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

    /// Returns the agent that a document belongs to: of the agents with an id that the document's id begins with, the longest.
    fn agent_of_document<'a>(&'a self, key: &'a Key) -> Option<(&'a str, &'a AgentEntry)> {
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

    fn liveness_of(&self, now: Now, entry: &AgentEntry) -> Liveness {
        entry.vitals(&self.presence).liveness(now.mono, &self.settings.times)
    }

    fn place(&self, entry: &AgentEntry) -> String {
        if entry.local().is_some() { "here".to_owned() } else { format!("at node {}", entry.via) }
    }
}

//! Table of every agent that this node knows of, and the order of their changes.
//!
//! A watcher of the fleet is a position in that order and receives each change after it, so a slow watcher costs no memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::attachments::{Owner, StreamId};
use super::liveness::{Liveness, Times, Vitals};
use super::presence::Presence;
use super::profile::Profile;
use super::transition::{OwnershipClaim, Transition};
use super::transition_limiter::TransitionLimiter;
use crate::limits::REMOVED_AGENTS;

/// State of one agent.
#[derive(Debug)]
pub(super) struct AgentEntry {
    pub(super) profile: Profile,
    pub(super) claim: OwnershipClaim,
    /// node_id of the node that owns the agent.
    pub(super) via: String,
    /// Status in `platforms/{id}`, as a number of `PlatformStatus`.
    pub(super) status: i32,
    pub(super) home: Location,
    /// Liveness that watchers of the fleet received last.
    pub(super) shown: Liveness,
    changed: u64,
    /// Time under which the agent is in the fleet's timers.
    pub(super) timer: Option<Instant>,
}

/// Location of an agent, which decides the source of its liveness.
#[derive(Debug)]
pub(super) enum Location {
    /// This node owns the agent: it receives the signs of life and writes the transitions.
    Local(Box<Local>),
    /// Another node owns the agent. `said` and `owner` are from its last stored transition, which arrived at `seen`; `older` is
    /// how much earlier the last sign of life was.
    Remote { said: Liveness, seen: Instant, older: Duration, owner: Owner },
}

/// State of an agent that this node owns.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) vitals: Vitals,
    /// Arrival of the last sign of life, or the start of ownership.
    pub(super) heard: Instant,
    /// Additional age of that sign, when it came before this node started.
    pub(super) older: Duration,
    /// True if the agent described itself by registering; false if its document in `platforms` describes it.
    pub(super) registered: bool,
    pub(super) owner: Owner,
    pub(super) stream: Option<StreamId>,
    /// Transition that the store holds, as far as known.
    pub(super) stored: Option<Transition>,
    pub(super) writing: Option<Transition>,
    /// True if a different transition was seen in the store while one was being written: which of the two is newer is unknown, so
    /// it is written again.
    pub(super) crossed: bool,
    pub(super) damper: TransitionLimiter,
    /// Earliest time of the next write after the disk failed.
    pub(super) retry_at: Option<Instant>,
}

impl Local {
    /// Returns the state of an agent at the start of this node's ownership.
    pub(super) fn new(now: Instant, vitals: Vitals, owner: Owner, damper: TransitionLimiter) -> Local {
        Local {
            vitals,
            heard: now,
            older: Duration::ZERO,
            registered: false,
            owner,
            stream: None,
            stored: None,
            writing: None,
            crossed: false,
            damper,
            retry_at: None,
        }
    }
}

impl AgentEntry {
    pub(super) fn new(now: Instant) -> AgentEntry {
        AgentEntry {
            profile: Profile::default(),
            claim: OwnershipClaim::default(),
            via: String::new(),
            status: 0,
            home: Location::Remote { said: Liveness::Dead, seen: now, older: Duration::ZERO, owner: Owner::Nobody },
            shown: Liveness::Dead,
            changed: 0,
            timer: None,
        }
    }

    pub(super) fn local(&self) -> Option<&Local> {
        match &self.home {
            Location::Local(local) => Some(local),
            Location::Remote { .. } => None,
        }
    }

    pub(super) fn local_mut(&mut self) -> Option<&mut Local> {
        match &mut self.home {
            Location::Local(local) => Some(local),
            Location::Remote { .. } => None,
        }
    }

    /// Returns the principal that the agent belongs to, as recorded by the node that owns it.
    pub(super) fn owner(&self) -> Owner {
        match &self.home {
            Location::Local(local) => local.owner,
            Location::Remote { owner, .. } => *owner,
        }
    }

    /// Returns the evidence of the agent's life. LIVE in another node's record counts only while that node's presence is heard.
    pub(super) fn vitals(&self, presence: &Presence) -> Vitals {
        match &self.home {
            Location::Local(local) => local.vitals,
            Location::Remote { said: Liveness::Dead, .. } => Vitals::Dead,
            Location::Remote { said: Liveness::Stale, seen, .. } => Vitals::Gone(*seen),
            Location::Remote { said: Liveness::Live, seen, .. } => {
                presence.heard(&self.claim.endpoint).map_or(Vitals::Gone(*seen), Vitals::Heard)
            }
        }
    }

    /// Extends the agent's time by a gap in which this process could not listen; see [`super::Fleet::handle_gap`].
    pub(super) fn spare(&mut self, since: Instant, now: Instant, times: &Times, grace: Duration) {
        match &mut self.home {
            Location::Local(local) => local.vitals = local.vitals.spared(since, now, times, grace),
            Location::Remote { said: Liveness::Stale | Liveness::Live, seen, older, .. } => {
                if let Vitals::Gone(later) = Vitals::Gone(*seen).spared(since, now, times, grace) {
                    *older += later - *seen;
                    *seen = later;
                }
            }
            Location::Remote { .. } => {}
        }
    }

    /// Returns the milliseconds since the last sign of life: the agent's, or, where its node reports it LIVE, that node's.
    pub(super) fn age_ms(&self, now: Instant, presence: &Presence) -> u64 {
        let (heard, older) = match &self.home {
            Location::Local(local) => (local.heard, local.older),
            Location::Remote { said: Liveness::Live, seen, .. } => {
                (presence.heard(&self.claim.endpoint).map_or(*seen, |heard| heard.max(*seen)), Duration::ZERO)
            }
            Location::Remote { seen, older, .. } => (*seen, *older),
        };
        u64::try_from((now.saturating_duration_since(heard) + older).as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns the transition that the store should hold, for an agent that this node owns.
    pub(super) fn wanted(&self, now: Instant, times: &Times) -> Option<Transition> {
        let local = self.local()?;
        Some(Transition {
            profile: self.profile.clone(),
            liveness: local.vitals.liveness(now, times),
            via: self.via.clone(),
            claim: self.claim,
            owner: local.owner,
        })
    }
}

/// A change: its number, the agent's id, and the agent, or `None` if it was removed.
pub(super) type Changed<'a> = (u64, &'a String, Option<&'a AgentEntry>);

/// Error of a watcher that is too far behind: removals after its position have been discarded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forgotten;

/// All agents by id, with the order of their changes.
#[derive(Debug, Default)]
pub(super) struct Roster {
    agents: BTreeMap<String, AgentEntry>,
    changes: BTreeMap<u64, String>,
    removed: BTreeMap<u64, String>,
    /// Number of the newest discarded removal. A watcher at a lower position must start over.
    forgotten: u64,
    last_change: u64,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&AgentEntry> {
        self.agents.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut AgentEntry> {
        self.agents.get_mut(id)
    }

    /// Returns the agent, inserting it if it is new.
    pub(super) fn entry(&mut self, now: Instant, id: &str) -> &mut AgentEntry {
        if !self.agents.contains_key(id) {
            self.agents.insert(id.to_owned(), AgentEntry::new(now));
            self.touch(id);
        }
        self.agents.entry(id.to_owned()).or_insert_with(|| AgentEntry::new(now))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut AgentEntry)> {
        self.agents.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &AgentEntry)> {
        self.agents.iter()
    }

    /// Iterates over the agents with ids that order after `id`; over all of them for `None`.
    pub(super) fn after<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = (&'a String, &'a AgentEntry)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.agents.range::<str, _>((start, Bound::Unbounded))
    }

    /// Gives the agent the newest change number, so that watchers receive it.
    pub(super) fn touch(&mut self, id: &str) {
        let Some(entry) = self.agents.get_mut(id) else { return };
        self.changes.remove(&entry.changed);
        self.last_change += 1;
        entry.changed = self.last_change;
        self.changes.insert(self.last_change, id.to_owned());
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<AgentEntry> {
        let entry = self.agents.remove(id)?;
        self.changes.remove(&entry.changed);
        self.last_change += 1;
        // Removals are kept apart, because there is no entry left that could hold their number.
        self.removed.insert(self.last_change, id.to_owned());
        if self.removed.len() > REMOVED_AGENTS
            && let Some((number, _)) = self.removed.pop_first()
        {
            self.forgotten = number;
        }
        Some(entry)
    }

    /// Returns the number of the latest change.
    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    /// Returns the first change after `position`.
    ///
    /// # Errors
    /// Removals after `position` were discarded.
    pub(super) fn change_after(&self, position: u64) -> Result<Option<Changed<'_>>, Forgotten> {
        if position < self.forgotten {
            return Err(Forgotten);
        }
        let after = (Bound::Excluded(position), Bound::Unbounded);
        let changed = self.changes.range(after).next().map(|(number, id)| (*number, id, self.agents.get(id)));
        let removed = self.removed.range(after).next().map(|(number, id)| (*number, id, None));
        Ok([changed, removed].into_iter().flatten().min_by_key(|(number, ..)| *number))
    }
}

//! Every agent this node knows of, and the order in which they changed.
//!
//! A watcher is a position in that order: what it is owed is what changed after it, so a slow one costs no memory.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::attachments::{Owner, StreamId};
use super::damper::Damper;
use super::liveness::{Liveness, Times, Vitals};
use super::presence::Presence;
use super::profile::Profile;
use super::transition::{Claim, Transition};
use crate::limits::REMOVED_AGENTS;

/// One agent.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) profile: Profile,
    pub(super) claim: Claim,
    /// node_id of its owner.
    pub(super) via: String,
    /// The status in `platforms/{id}`.
    pub(super) status: i32,
    pub(super) home: Home,
    /// What watchers were told last.
    pub(super) shown: Liveness,
    changed: u64,
    /// The time in the fleet's timers.
    pub(super) timer: Option<Instant>,
}

/// Where the news of an agent come from.
#[derive(Debug)]
pub(super) enum Home {
    /// This node hears it itself, and writes its transitions.
    Here(Box<Local>),
    /// Another node does. The state and the owner it stored last, when they arrived, and how much longer ago the last sign of life was.
    Elsewhere { said: Liveness, seen: Instant, older: Duration, owner: Owner },
}

/// An agent that this node owns.
#[derive(Debug)]
pub(super) struct Local {
    pub(super) vitals: Vitals,
    /// The last sign of life,
    pub(super) heard: Instant,
    /// and how much longer ago than that it was, for one before this node started.
    pub(super) older: Duration,
    /// It said on its own what it is; otherwise its document in `platforms` does.
    pub(super) registered: bool,
    pub(super) owner: Owner,
    pub(super) stream: Option<StreamId>,
    /// What the store holds, and what it is being given.
    pub(super) stored: Option<Transition>,
    pub(super) writing: Option<Transition>,
    /// The store was seen to hold another word since the last one was given to it: which of the two came last is not known.
    pub(super) crossed: bool,
    pub(super) damper: Damper,
    /// After the disk failed: not before.
    pub(super) retry_at: Option<Instant>,
}

impl Local {
    /// An agent this node begins to own.
    pub(super) fn new(now: Instant, vitals: Vitals, owner: Owner, damper: Damper) -> Local {
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

impl Entry {
    pub(super) fn new(now: Instant) -> Entry {
        Entry {
            profile: Profile::default(),
            claim: Claim::default(),
            via: String::new(),
            status: 0,
            home: Home::Elsewhere { said: Liveness::Dead, seen: now, older: Duration::ZERO, owner: Owner::Nobody },
            shown: Liveness::Dead,
            changed: 0,
            timer: None,
        }
    }

    pub(super) fn local(&self) -> Option<&Local> {
        match &self.home {
            Home::Here(local) => Some(local),
            Home::Elsewhere { .. } => None,
        }
    }

    pub(super) fn local_mut(&mut self) -> Option<&mut Local> {
        match &mut self.home {
            Home::Here(local) => Some(local),
            Home::Elsewhere { .. } => None,
        }
    }

    /// The principal that it belongs to, as the node that owns it knows it.
    pub(super) fn owner(&self) -> Owner {
        match &self.home {
            Home::Here(local) => local.owner,
            Home::Elsewhere { owner, .. } => *owner,
        }
    }

    /// What is known of its life. Another node's word that it is LIVE is worth as much as that node's presence.
    pub(super) fn vitals(&self, presence: &Presence) -> Vitals {
        match &self.home {
            Home::Here(local) => local.vitals,
            Home::Elsewhere { said: Liveness::Dead, .. } => Vitals::Dead,
            Home::Elsewhere { said: Liveness::Stale, seen, .. } => Vitals::Gone(*seen),
            Home::Elsewhere { said: Liveness::Live, seen, .. } => {
                presence.heard(&self.claim.endpoint).map_or(Vitals::Gone(*seen), Vitals::Heard)
            }
        }
    }

    /// See [`super::Fleet::handle_gap`].
    pub(super) fn spare(&mut self, since: Instant, now: Instant, times: &Times, grace: Duration) {
        match &mut self.home {
            Home::Here(local) => local.vitals = local.vitals.spared(since, now, times, grace),
            Home::Elsewhere { said: Liveness::Stale | Liveness::Live, seen, older, .. } => {
                if let Vitals::Gone(later) = Vitals::Gone(*seen).spared(since, now, times, grace) {
                    *older += later - *seen;
                    *seen = later;
                }
            }
            Home::Elsewhere { .. } => {}
        }
    }

    /// Since this node last heard a sign of it: its own, or its node's.
    pub(super) fn age_ms(&self, now: Instant, presence: &Presence) -> u64 {
        let (heard, older) = match &self.home {
            Home::Here(local) => (local.heard, local.older),
            Home::Elsewhere { said: Liveness::Live, seen, .. } => {
                (presence.heard(&self.claim.endpoint).map_or(*seen, |heard| heard.max(*seen)), Duration::ZERO)
            }
            Home::Elsewhere { seen, older, .. } => (*seen, *older),
        };
        u64::try_from((now.saturating_duration_since(heard) + older).as_millis()).unwrap_or(u64::MAX)
    }

    /// What the store should hold of an agent that this node owns.
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

/// A change: its number, the agent's id, and the agent unless it was removed.
pub(super) type Changed<'a> = (u64, &'a String, Option<&'a Entry>);

/// Agents were removed that are no longer known.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Forgotten;

/// All agents, by id.
#[derive(Debug, Default)]
pub(super) struct Roster {
    agents: BTreeMap<String, Entry>,
    changes: BTreeMap<u64, String>,
    removed: BTreeMap<u64, String>,
    /// A watcher that has heard of less has missed removals that were forgotten.
    forgotten: u64,
    last_change: u64,
}

impl Roster {
    pub(super) fn len(&self) -> usize {
        self.agents.len()
    }

    pub(super) fn get(&self, id: &str) -> Option<&Entry> {
        self.agents.get(id)
    }

    pub(super) fn get_mut(&mut self, id: &str) -> Option<&mut Entry> {
        self.agents.get_mut(id)
    }

    /// The agent, made when it is new.
    pub(super) fn entry(&mut self, now: Instant, id: &str) -> &mut Entry {
        if !self.agents.contains_key(id) {
            self.agents.insert(id.to_owned(), Entry::new(now));
            self.touch(id);
        }
        self.agents.entry(id.to_owned()).or_insert_with(|| Entry::new(now))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&String, &mut Entry)> {
        self.agents.iter_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&String, &Entry)> {
        self.agents.iter()
    }

    /// The agents after `id`, all of them for `None`.
    pub(super) fn after<'a>(&'a self, id: Option<&'a str>) -> impl Iterator<Item = (&'a String, &'a Entry)> {
        let start = id.map_or(Bound::Unbounded, Bound::Excluded);
        self.agents.range::<str, _>((start, Bound::Unbounded))
    }

    /// Something that watchers are told has changed.
    pub(super) fn touch(&mut self, id: &str) {
        let Some(entry) = self.agents.get_mut(id) else { return };
        self.changes.remove(&entry.changed);
        self.last_change += 1;
        entry.changed = self.last_change;
        self.changes.insert(self.last_change, id.to_owned());
    }

    pub(super) fn remove(&mut self, id: &str) -> Option<Entry> {
        let entry = self.agents.remove(id)?;
        self.changes.remove(&entry.changed);
        self.last_change += 1;
        self.removed.insert(self.last_change, id.to_owned());
        if self.removed.len() > REMOVED_AGENTS
            && let Some((number, _)) = self.removed.pop_first()
        {
            self.forgotten = number;
        }
        Some(entry)
    }

    /// The number of the latest change.
    pub(super) fn last_change(&self) -> u64 {
        self.last_change
    }

    /// The first change after `position`.
    ///
    /// # Errors
    /// Removals after `position` were forgotten.
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

//! The commands that are kept, by id, by agent and by when to look at them again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Trust;
use crate::limits;
use crate::store::{CommandView, Rank};

/// What is remembered of a command.
#[derive(Debug)]
pub(super) struct Tracked {
    /// Its issuer may command here.
    pub(super) trusted: bool,
    /// Issued by this node.
    pub(super) ours: bool,
    pub(super) cancel_requested: bool,
    /// Boot time, milliseconds.
    pub(super) until: Option<u64>,
    ended: Option<i64>,
    /// Of all its targets, as last stored.
    overall: Rank,
    pub(super) targets: BTreeMap<String, Rank>,
    wake: Option<u64>,
}

impl Tracked {
    /// The boot time at which it need not be kept longer.
    pub(super) fn forget_at(&self, retention: Duration) -> Option<u64> {
        let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
        self.ended.map(|ended| u64::try_from(ended.saturating_add(retention)).unwrap_or(0))
    }
}

/// See the module's documentation. Holds [`limits::COMMANDS`] at most.
#[derive(Debug, Default)]
pub(super) struct Table {
    commands: BTreeMap<String, Tracked>,
    /// What each agent has neither ended nor missed.
    by_agent: BTreeMap<String, BTreeSet<String>>,
    wakes: BTreeSet<(u64, String)>,
    by_status: BTreeMap<Rank, usize>,
    /// A command found no place.
    overflowed: bool,
}

impl Table {
    pub(super) fn put(&mut self, id: &str, view: &CommandView, trust: &Trust) {
        self.take_out(id);
        if self.commands.len() >= limits::COMMANDS {
            if !self.overflowed {
                log::warn!("{} commands are kept, which is the limit; some wait for others to end", limits::COMMANDS);
            }
            self.overflowed = true;
            return;
        }
        let issuer = view.issuer();
        let tracked = Tracked {
            trusted: trust.allows(&issuer),
            ours: issuer == trust.node,
            cancel_requested: view.cancel_requested,
            until: view.until,
            ended: view.ended,
            overall: Rank::overall(view.targets().map(|(_, rank)| rank)),
            targets: view.targets().map(|(agent, rank)| (agent.to_owned(), rank)).collect(),
            wake: None,
        };
        for (agent, _) in tracked.targets.iter().filter(|(_, rank)| !rank.is_terminal()) {
            self.by_agent.entry(agent.clone()).or_default().insert(id.to_owned());
        }
        *self.by_status.entry(tracked.overall).or_default() += 1;
        self.commands.insert(id.to_owned(), tracked);
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.take_out(id);
    }

    fn take_out(&mut self, id: &str) {
        let Some(tracked) = self.commands.remove(id) else { return };
        *self.by_status.entry(tracked.overall).or_default() -= 1;
        for agent in tracked.targets.keys() {
            if let Some(ids) = self.by_agent.get_mut(agent) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_agent.remove(agent);
                }
            }
        }
        if let Some(wake) = tracked.wake {
            self.wakes.remove(&(wake, id.to_owned()));
        }
    }

    pub(super) fn get(&self, id: &str) -> Option<&Tracked> {
        self.commands.get(id)
    }

    /// How many commands have come how far.
    pub(super) fn by_status(&self) -> &BTreeMap<Rank, usize> {
        &self.by_status
    }

    /// The commands that are not over.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &String> {
        self.commands.iter().filter(|(_, tracked)| !tracked.overall.is_terminal()).map(|(id, _)| id)
    }

    pub(super) fn len(&self) -> usize {
        self.commands.len()
    }

    /// The commands an agent has neither ended nor missed.
    pub(super) fn of_agent(&self, agent: &str) -> Vec<String> {
        self.by_agent.get(agent).into_iter().flatten().cloned().collect()
    }

    /// How many those are.
    pub(super) fn pending(&self, agent: &str) -> usize {
        self.by_agent.get(agent).map_or(0, BTreeSet::len)
    }

    pub(super) fn wake_at(&mut self, id: &str, at: Option<u64>) {
        let Some(tracked) = self.commands.get_mut(id) else { return };
        if let Some(before) = std::mem::replace(&mut tracked.wake, at) {
            self.wakes.remove(&(before, id.to_owned()));
        }
        if let Some(at) = at {
            self.wakes.insert((at, id.to_owned()));
        }
    }

    pub(super) fn next_due(&self) -> Option<u64> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn take_due(&mut self, boot_ms: u64) -> Option<String> {
        let (_, id) = self.wakes.first().filter(|(at, _)| *at <= boot_ms)?.clone();
        self.wake_at(&id, None);
        Some(id)
    }

    /// Whether something that found no place would find one now.
    pub(super) fn take_rescan(&mut self) -> bool {
        let again = self.overflowed && self.commands.len() < limits::COMMANDS;
        self.overflowed &= !again;
        again
    }
}

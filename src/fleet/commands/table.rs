//! Table of the commands that are delivered here, by id, by agent and by time of the next evaluation.
//!
//! Holds [`COMMANDS`] commands that are not over and as many that are. Once there are more than [`COMMANDS`] of both together,
//! the oldest of those that are over are removed. `shares.rs` decides among those that are not over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Trust;
use super::shares::{Ask, Shares};
use super::untrusted::reached;
use crate::limits::{COMMAND_DELIVERIES, COMMANDS};
use crate::store::{CommandView, Rank};

/// Free places from which commands without room are looked for at once; fewer are not worth a scan of all records.
const RESCAN_ROOM: usize = COMMANDS / 16;
/// Time after which a scan is made for a single free place, in milliseconds.
const RESCAN_MS: u64 = 60_000;

/// Tracked state of a command.
#[derive(Debug)]
pub(super) struct Tracked {
    /// True if this node issued it.
    pub(super) ours: bool,
    pub(super) cancel_requested: bool,
    /// Boot time of its deadline, in milliseconds; `None`: it has none.
    pub(super) until: Option<u64>,
    /// Boot time from which no target is expected to change: all have ended, or can no longer accept.
    over: Option<i64>,
    /// Overall status of its targets, as last stored.
    overall: Rank,
    pub(super) targets: BTreeMap<String, Rank>,
    wake: Option<u64>,
    ask: Ask,
    /// Order of arrival.
    number: u64,
}

impl Tracked {
    fn new(view: &CommandView, trust: &Trust, number: u64) -> Tracked {
        let issuer = view.issuer();
        let ask = Ask { issuer, named: trust.names(&issuer), deliveries: view.body.targets.len() };
        Tracked {
            ours: issuer == trust.node,
            cancel_requested: view.cancel_requested,
            until: view.until,
            over: over(view),
            overall: Rank::overall(view.targets().map(|(_, rank)| rank)),
            targets: view.targets().map(|(agent, rank)| (agent.to_owned(), rank)).collect(),
            wake: None,
            ask,
            number,
        }
    }

    /// Returns the boot time from which it need not be kept.
    pub(super) fn forget_at(&self, retention: Duration) -> Option<u64> {
        self.over.map(|over| forget_at(over, retention))
    }

    fn is_over(&self, boot_ms: u64) -> bool {
        self.over.is_some_and(|at| reached(at, boot_ms))
    }
}

/// Returns the boot time from which no target of a command is expected to change; `None` while that is unknown.
pub(super) fn over(view: &CommandView) -> Option<i64> {
    let runs = view.ranks.contains(&Rank::Executing);
    let missed = || view.until.filter(|_| !runs).map(|until| i64::try_from(until).unwrap_or(i64::MAX));
    view.ended.or_else(missed)
}

/// Returns the boot time from which a command that is over since `over` need not be kept.
pub(super) fn forget_at(over: i64, retention: Duration) -> u64 {
    let retention = i64::try_from(retention.as_millis()).unwrap_or(i64::MAX);
    u64::try_from(over.saturating_add(retention)).unwrap_or(0)
}

/// Indexes of the tracked commands; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Table {
    commands: BTreeMap<String, Tracked>,
    /// Commands that each agent has neither ended nor missed.
    by_agent: BTreeMap<String, BTreeSet<String>>,
    wakes: BTreeSet<(u64, String)>,
    by_status: BTreeMap<Rank, usize>,
    /// Commands that are not over, by issuer.
    shares: Shares,
    /// Commands that are over, by the time since which they are, and the number of their targets.
    over: BTreeSet<(i64, String)>,
    over_deliveries: usize,
    /// Those of `over` with a removal in progress.
    leaving: BTreeSet<String>,
    leaving_deliveries: usize,
    /// True if a command found no room.
    waiting: bool,
    /// Boot time before which a single free place causes no rescan, in milliseconds.
    rescan_at: u64,
    last_number: u64,
}

impl Table {
    /// Inserts or updates a command. Returns false if there is no room and it must wait.
    pub(super) fn put(&mut self, boot_ms: u64, id: &str, view: &CommandView, trust: &Trust) -> bool {
        // An update keeps its place in the order of arrival.
        let number = self.take_out(id).map_or(self.last_number + 1, |tracked| tracked.number);
        self.last_number = self.last_number.max(number);
        let tracked = Tracked::new(view, trust, number);
        let room = if tracked.is_over(boot_ms) {
            self.over.len() < COMMANDS && self.over_deliveries + tracked.targets.len() <= COMMAND_DELIVERIES
        } else {
            self.make_room(tracked.ask)
        };
        if !room {
            self.wait(boot_ms);
            return false;
        }
        for (agent, _) in tracked.targets.iter().filter(|(_, rank)| !rank.is_terminal()) {
            self.by_agent.entry(agent.clone()).or_default().insert(id.to_owned());
        }
        *self.by_status.entry(tracked.overall).or_default() += 1;
        self.shares.add(tracked.ask, number, id);
        self.commands.insert(id.to_owned(), tracked);
        self.note_over(boot_ms, id);
        true
    }

    /// Evicts commands of other issuers until there is room. Returns false if none may be evicted.
    fn make_room(&mut self, ask: Ask) -> bool {
        while !self.shares.fits(ask.deliveries, 0) {
            let Some(victim) = self.shares.victim(ask) else { return false };
            self.take_out(&victim);
            self.waiting = true;
        }
        true
    }

    fn wait(&mut self, boot_ms: u64) {
        if !self.waiting {
            log::warn!(
                "{COMMANDS} commands are not over, which is the limit; further ones wait (peat-node commands --pending)"
            );
            self.rescan_at = boot_ms + RESCAN_MS;
        }
        self.waiting = true;
    }

    /// Moves a command to those that are over once it is.
    pub(super) fn note_over(&mut self, boot_ms: u64, id: &str) {
        let Some(tracked) = self.commands.get(id).filter(|tracked| tracked.is_over(boot_ms)) else { return };
        let Some(since) = tracked.over else { return };
        self.shares.remove(tracked.ask, tracked.number, id);
        if self.over.insert((since, id.to_owned())) {
            self.over_deliveries += tracked.ask.deliveries;
        }
    }

    /// Returns a command to remove because there are too many: the oldest of those that are over.
    pub(super) fn take_surplus(&mut self) -> Option<String> {
        // Commands with a removal in progress do not count: otherwise more would be removed than necessary.
        let kept = self.commands.len() - self.leaving.len();
        let deliveries = self.shares.deliveries() + self.over_deliveries - self.leaving_deliveries;
        if kept <= COMMANDS && deliveries <= COMMAND_DELIVERIES {
            return None;
        }
        let (_, id) = self.over.iter().find(|(_, id)| !self.leaving.contains(id))?.clone();
        self.leaving.insert(id.clone());
        self.leaving_deliveries += self.commands.get(&id).map_or(0, |tracked| tracked.ask.deliveries);
        Some(id)
    }

    /// Returns true if a command is being removed to make room.
    pub(super) fn is_leaving(&self, id: &str) -> bool {
        self.leaving.contains(id)
    }

    pub(super) fn remove(&mut self, id: &str) {
        self.take_out(id);
    }

    fn take_out(&mut self, id: &str) -> Option<Tracked> {
        let tracked = self.commands.remove(id)?;
        *self.by_status.entry(tracked.overall).or_default() -= 1;
        for agent in tracked.targets.keys() {
            if let Some(ids) = self.by_agent.get_mut(agent) {
                ids.remove(id);
                if ids.is_empty() {
                    self.by_agent.remove(agent);
                }
            }
        }
        self.shares.remove(tracked.ask, tracked.number, id);
        if let Some(since) = tracked.over
            && self.over.remove(&(since, id.to_owned()))
        {
            self.over_deliveries -= tracked.ask.deliveries;
        }
        if self.leaving.remove(id) {
            self.leaving_deliveries -= tracked.ask.deliveries;
        }
        if let Some(wake) = tracked.wake {
            self.wakes.remove(&(wake, id.to_owned()));
        }
        Some(tracked)
    }

    pub(super) fn get(&self, id: &str) -> Option<&Tracked> {
        self.commands.get(id)
    }

    /// Returns the number of commands by overall status.
    pub(super) fn by_status(&self) -> &BTreeMap<Rank, usize> {
        &self.by_status
    }

    /// Iterates over the commands that have not ended.
    pub(super) fn in_flight(&self) -> impl Iterator<Item = &String> {
        self.commands.iter().filter(|(_, tracked)| !tracked.overall.is_terminal()).map(|(id, _)| id)
    }

    /// Returns true if one more command would be accepted.
    pub(super) fn admits(&self, ask: Ask) -> bool {
        self.shares.admits(ask)
    }

    /// Returns the number of commands that are not over, and the number of all.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.shares.commands(), self.commands.len())
    }

    /// Returns true if commands without room are waiting.
    pub(super) fn has_waiting(&self) -> bool {
        self.waiting
    }

    /// Returns the commands that an agent has neither ended nor missed.
    pub(super) fn of_agent(&self, agent: &str) -> Vec<String> {
        self.by_agent.get(agent).into_iter().flatten().cloned().collect()
    }

    /// Counts the commands that an agent may still accept or end. Below `few` the result may include some that are over.
    pub(super) fn pending(&self, boot_ms: u64, agent: &str, few: usize) -> usize {
        let Some(ids) = self.by_agent.get(agent) else { return 0 };
        let is_open = |id: &&String| self.commands.get(*id).is_some_and(|tracked| !tracked.is_over(boot_ms));
        // Near the limit the exact number matters; below it, an upper bound suffices.
        if ids.len() < few { ids.len() } else { ids.iter().filter(is_open).count() }
    }

    /// Returns the agent with the most commands that it may still accept or end, if it has at least `few`.
    pub(super) fn most_pending(&self, boot_ms: u64, few: usize) -> Option<(&String, usize)> {
        let many = self.by_agent.iter().filter(|(_, ids)| ids.len() >= few);
        let counted = many.map(|(agent, _)| (agent, self.pending(boot_ms, agent, few)));
        counted.filter(|(_, count)| *count >= few).max_by_key(|(_, count)| *count)
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
        let rescan = self.waiting && self.shares.fits(1, 0);
        self.wakes.first().map(|(at, _)| *at).into_iter().chain(rescan.then_some(self.rescan_at)).min()
    }

    pub(super) fn take_due(&mut self, boot_ms: u64) -> Option<String> {
        let (_, id) = self.wakes.first().filter(|(at, _)| *at <= boot_ms)?.clone();
        self.wake_at(&id, None);
        Some(id)
    }

    /// Returns true if all records should be reported again for the commands that wait, and resets the wait.
    pub(super) fn take_rescan(&mut self, boot_ms: u64) -> bool {
        let due = self.rescan_at <= boot_ms && self.shares.fits(1, 0);
        let again = self.waiting && (due || self.shares.fits(1, RESCAN_ROOM));
        if again {
            self.waiting = false;
            self.rescan_at = boot_ms + RESCAN_MS;
        }
        again
    }
}

//! Which command is due to which agent, and what becomes of those nobody answers.
//!
//! Owns a table of the commands that are delivered here and of the agents whose streams end here, and how many commands are kept.
//! Must never decide what a report comes to: the store does, in the commit, where two that race meet. Holds no payload: what is
//! pushed is named, and read from a snapshot when it is sent.
//!
//! Commands of issuers that this node does not trust stay out of that table. Of the others, those that are over make room, the
//! oldest first; see `table.rs`, `shares.rs` and `untrusted.rs`.
//!
//! Tell it of every record of collection `commands`, of streams and of reports (`handle_*`); then drain
//! [`Commands::poll_push`] and [`Commands::poll_write`], and wait for [`Commands::poll_deadline`].

mod listed;
mod message;
mod progress;
mod shares;
mod table;
#[cfg(test)]
mod tests;
mod untrusted;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use peat_ipc::agent::CommandUpdate;
use peat_ipc::agent::command_update::Stage;

pub use listed::Place;
pub use message::{push_message, shown};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits;
use crate::store::{CommandChange, CommandError, CommandView, CommandWrite, Progress, Rank, Report};
use listed::Listed;
use progress::Notes;
use shares::Ask;
use table::{Table, Tracked};
use untrusted::Untrusted;

/// A write that came to nothing (a full disk) is asked for again after this.
const RETRY_MS: u64 = 30_000;

/// What a report is refused for.
pub type Refused = CommandError;

/// Whose commands a node delivers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trust {
    /// This node, which trusts itself.
    pub node: EndpointId,
    /// Whom else; empty: every member.
    pub issuers: BTreeSet<EndpointId>,
}

impl Trust {
    /// Whether commands of `issuer` are delivered.
    #[must_use]
    pub fn allows(&self, issuer: &EndpointId) -> bool {
        self.issuers.is_empty() || self.names(issuer)
    }

    /// Whether `issuer` is this node or one that was named: its commands find room before those of others.
    #[must_use]
    pub fn names(&self, issuer: &EndpointId) -> bool {
        self.node == *issuer || self.issuers.contains(issuer)
    }
}

/// What a node does with commands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Whose commands it delivers.
    pub trust: Trust,
    /// How long a command is kept after nothing more is expected of it.
    pub retention: Duration,
    /// How long a command that names no time may be accepted.
    pub ttl: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { trust: Trust::default(), retention: Duration::from_secs(7 * 86_400), ttl: Duration::from_secs(60) }
    }
}

/// Something for an agent's stream.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Push {
    /// A command it has not accepted; [`push_message`] reads it.
    Command { id: String },
    /// It is asked to end this one.
    Cancel { id: String },
}

/// An agent whose stream ends here.
#[derive(Debug, Default)]
struct Attached {
    pushed: BTreeSet<String>,
    cancelled: BTreeSet<String>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Commands {
    settings: Settings,
    table: Table,
    untrusted: Untrusted,
    listed: Listed,
    attached: BTreeMap<String, Attached>,
    pushes: VecDeque<(String, Push)>,
    writes: VecDeque<CommandWrite>,
    progress: Notes,
    /// The last time that was told, to turn boot time into deadlines.
    latest: Option<Now>,
}

impl Commands {
    /// An empty table.
    #[must_use]
    pub fn new(settings: Settings) -> Commands {
        Commands {
            settings,
            table: Table::default(),
            untrusted: Untrusted::default(),
            listed: Listed::default(),
            attached: BTreeMap::new(),
            pushes: VecDeque::new(),
            writes: VecDeque::new(),
            progress: Notes::default(),
            latest: None,
        }
    }

    /// The settings were reloaded. True when they are others: every record is to be shown again.
    #[must_use]
    pub fn set_settings(&mut self, settings: Settings) -> bool {
        let changed = self.settings != settings;
        self.settings = settings;
        changed
    }

    /// All records are shown again, as at the start.
    pub fn handle_restart(&mut self) {
        self.listed.clear();
    }

    /// Looks at one record of collection `commands` that is new or changed: all of them at the start, then each that changes.
    /// `None`: it was removed. Results are no concern of this table.
    pub fn handle_record(&mut self, now: Now, id: &str, record: Option<&CommandView>) {
        self.latest = Some(now);
        if id.contains(':') {
            return;
        }
        let Some(view) = record else {
            self.listed.remove(id);
            self.table.remove(id);
            return self.untrusted.remove(id);
        };
        self.listed.put(id, view.body.created_at);
        if !self.settings.trust.allows(&view.issuer()) {
            self.table.remove(id);
            return self.hold_untrusted(now, id, view);
        }
        self.untrusted.remove(id);
        self.table.put(now.boot_ms, id, view, &self.settings.trust);
        self.review(now, id);
        while let Some(oldest) = self.table.take_surplus() {
            self.remove(now, &oldest);
        }
    }

    fn hold_untrusted(&mut self, now: Now, id: &str, view: &CommandView) {
        let over = table::over(view);
        let forget = over.map(|over| table::forget_at(over, self.settings.retention));
        if let Some(surplus) = self.untrusted.put(now.boot_ms, id, view.issuer(), over, forget) {
            self.remove(now, &surplus);
        }
    }

    /// Has a command removed, and looks at it again in case the disk fails.
    fn remove(&mut self, now: Now, id: &str) {
        self.writes.extend(CommandWrite::new(id, CommandChange::Remove));
        self.table.wake_at(id, Some(now.boot_ms + RETRY_MS));
        self.untrusted.wake_at(id, now.boot_ms + RETRY_MS);
    }

    /// The agent is reachable through this node from now on: what is pending for it is pushed, again if need be.
    pub fn handle_attached(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        self.attached.insert(agent.to_owned(), Attached::default());
        for id in self.table.of_agent(agent) {
            self.review(now, &id);
        }
    }

    /// The agent is reachable from now on, by events that are not replayed: what is pending for it stays so, and only what
    /// comes from here on is pushed.
    pub fn handle_listening(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        let ids = self.table.of_agent(agent);
        let asked = |id: &&String| self.table.get(id).is_some_and(|tracked| tracked.cancel_requested);
        let cancelled = ids.iter().filter(asked).cloned().collect();
        let missed = Attached { pushed: ids.iter().cloned().collect(), cancelled };
        self.attached.insert(agent.to_owned(), missed);
        for id in ids {
            self.review(now, &id);
        }
    }

    /// The agent is reachable no more. What it accepted goes on, what it did not stays pending.
    pub fn handle_detached(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        self.attached.remove(agent);
        self.pushes.retain(|(to, _)| to != agent);
    }

    /// What an agent says of a command: the report to store, if it is news. Whether the report stands is said by the store's
    /// answer to it.
    ///
    /// # Errors
    /// The command is not known, not for this agent, not from a trusted issuer, or the report is malformed.
    pub fn handle_update(
        &mut self,
        now: Now,
        agent: &str,
        update: &CommandUpdate,
    ) -> Result<Option<CommandWrite>, Refused> {
        self.latest = Some(now);
        let id = &update.command_id;
        if self.untrusted.contains(id) {
            return Err(CommandError::Untrusted(id.clone()));
        }
        let tracked = self.table.get(id).ok_or_else(|| CommandError::Unknown(id.clone()))?;
        let held = tracked.targets.get(agent).copied();
        let elsewhere = || CommandError::NotForAgent { command: id.clone(), agent: agent.to_owned() };
        let held = held.ok_or_else(elsewhere)?;
        let report = report(agent, update)?;
        report.check()?;
        if update.stage() == Stage::Progress {
            self.note_progress(now, agent, update, held)?;
        } else if report.rank.is_terminal() {
            self.progress.remove(id, agent);
        }
        if report.rank <= held && (report.begun || report.rank == held) {
            return Ok(None);
        }
        let write = CommandWrite::new(id, CommandChange::Report(report));
        write.map(Some).map_err(|cause| CommandError::Malformed(cause.to_string()))
    }

    fn note_progress(&mut self, now: Now, agent: &str, update: &CommandUpdate, held: Rank) -> Result<(), Refused> {
        let (words, percent) = (update.progress.clone(), update.percent.min(100));
        if words.len() > limits::COMMAND_PROGRESS_BYTES {
            return Err(CommandError::TooLarge("progress", words.len()));
        }
        if matches!(held, Rank::Pending | Rank::Executing) {
            self.progress.add(now.mono, &update.command_id, Progress { agent: agent.to_owned(), words, percent });
        }
        Ok(())
    }

    /// A deadline came.
    pub fn handle_timeout(&mut self, now: Now) {
        self.latest = Some(now);
        while let Some(id) = self.table.take_due(now.boot_ms) {
            self.review(now, &id);
        }
        while let Some(id) = self.untrusted.take_due(now.boot_ms) {
            self.remove(now, &id);
        }
        // While the store is slow the newest words wait here, where newer ones take their place.
        self.writes.extend(self.progress.poll(now.mono, self.writes.is_empty()));
    }

    /// The next thing for an agent's stream.
    #[must_use]
    pub fn poll_push(&mut self) -> Option<(String, Push)> {
        self.pushes.pop_front()
    }

    /// The next change to store: a target that missed it, a cancellation confirmed, a command to forget, how far one is.
    #[must_use]
    pub fn poll_write(&mut self) -> Option<CommandWrite> {
        self.writes.pop_front()
    }

    /// When to call [`Commands::handle_timeout`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let due = self.table.next_due().into_iter().chain(self.untrusted.next_due()).min();
        let due = self.latest.zip(due).map(|(latest, due)| latest.at_boot_ms(due));
        due.into_iter().chain(self.progress.deadline()).min()
    }

    /// Whether the records should be shown again: some found no place in the table, and now there is room.
    #[must_use]
    pub fn poll_rescan(&mut self, now: Now) -> bool {
        self.untrusted.take_rescan() || self.table.take_rescan(now.boot_ms)
    }

    /// Whether an agent's stream ends here.
    #[must_use]
    pub fn is_attached(&self, agent: &str) -> bool {
        self.attached.contains_key(agent)
    }

    /// How long a command that names no time may be accepted.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// How many commands have come how far, as last stored.
    #[must_use]
    pub fn by_status(&self) -> &BTreeMap<Rank, usize> {
        self.table.by_status()
    }

    /// The ids of the commands that have not ended.
    pub fn in_flight(&self) -> impl Iterator<Item = &String> {
        self.table.in_flight()
    }

    /// Whether commands of this issuer are delivered here.
    #[must_use]
    pub fn trusts(&self, issuer: &EndpointId) -> bool {
        self.settings.trust.allows(issuer)
    }

    /// Every command that is held, trusted or not, after a place in the order in which they were made; `None`: there are too many
    /// for that order to be known.
    pub fn listed(&self, after: Option<&Place>) -> Option<impl Iterator<Item = &Place> + use<'_>> {
        self.listed.after(after)
    }

    /// What an agent may still accept or end, if all of it is known; in no order.
    #[must_use]
    pub fn open_of(&self, agent: &str) -> Option<Vec<String>> {
        (!self.table.has_waiting()).then(|| self.table.of_agent(agent))
    }

    /// Whether one more command for these agents would be within the limits.
    ///
    /// # Errors
    /// Which limit it would pass, a sentence.
    pub fn room(&self, now: Now, targets: &[String]) -> Result<(), String> {
        let ask = Ask { issuer: self.settings.trust.node, named: true, deliveries: targets.len() };
        if !self.table.admits(ask) {
            return Err(format!(
                "{} commands for {} agents are not over, which is the limit: cancel or delete some (peat-node commands \
                 --pending)",
                limits::COMMANDS,
                limits::COMMAND_DELIVERIES
            ));
        }
        let few = limits::COMMAND_PENDING;
        match targets.iter().find(|agent| self.table.pending(now.boot_ms, agent, few) >= few) {
            Some(agent) => Err(format!(
                "agent '{agent}' has {few} commands it has neither ended nor missed, which is the limit: cancel some \
                 (peat-node commands --pending --agent '{agent}')"
            )),
            None => Ok(()),
        }
    }

    /// What an operator is to look at before a limit is reached, a sentence each.
    #[must_use]
    pub fn problems(&self, now: Now) -> Vec<String> {
        let (open, kept) = self.table.counts();
        let few = limits::COMMAND_PENDING / 4 * 3;
        let agent = self.table.most_pending(now.boot_ms, few).map(|(agent, count)| {
            format!(
                "agent '{agent}' has {count} commands it has neither ended nor missed; at {} no more is issued to it \
                 (peat-node commands --pending --agent '{agent}')",
                limits::COMMAND_PENDING
            )
        });
        let table = match (open, kept) {
            _ if self.table.has_waiting() => Some(format!(
                "{open} commands are not over, which is the limit; further ones wait (peat-node commands --pending)"
            )),
            (limits::COMMANDS_WARNING.., _) => Some(format!(
                "{open} commands are not over; at {} no more is issued (peat-node commands --pending)",
                limits::COMMANDS
            )),
            (_, limits::COMMANDS_WARNING..) => Some(format!(
                "{kept} commands are kept; at {} those that have been over for longest are forgotten before \
                 --command-retention has passed",
                limits::COMMANDS
            )),
            _ => None,
        };
        table.into_iter().chain(agent).collect()
    }

    /// Does what is due for one command, and notes when to look at it again.
    fn review(&mut self, now: Now, id: &str) {
        let Some(tracked) = self.table.get(id) else { return };
        let is_due = |at: u64| at <= now.boot_ms;
        let expired = tracked.until.is_some_and(is_due);
        let forget = if self.table.is_leaving(id) { Some(0) } else { tracked.forget_at(self.settings.retention) };
        let (mut missed, mut confirmed) = (Vec::new(), Vec::new());
        for (agent, rank) in &tracked.targets {
            let attached = self.attached.get_mut(agent);
            match due(tracked, id, *rank, attached, expired) {
                Some(Due::Expiry) => missed.push(agent.clone()),
                Some(Due::Cancellation) => confirmed.push(agent.clone()),
                Some(Due::Push(push)) => self.pushes.push_back((agent.clone(), push)),
                None => {}
            }
        }
        let changes = [
            (!missed.is_empty()).then_some(CommandChange::Expire { agents: missed }),
            (!confirmed.is_empty()).then_some(CommandChange::ConfirmCancel { agents: confirmed }),
            forget.is_some_and(is_due).then_some(CommandChange::Remove),
        ];
        let before = self.writes.len();
        self.writes.extend(changes.into_iter().flatten().filter_map(|change| CommandWrite::new(id, change).ok()));
        let wake = if self.writes.len() > before {
            Some(now.boot_ms + RETRY_MS)
        } else {
            tracked.until.filter(|_| !expired).into_iter().chain(forget).min()
        };
        self.table.note_over(now.boot_ms, id);
        self.table.wake_at(id, wake);
    }
}

/// What is due for one target.
enum Due {
    Expiry,
    Cancellation,
    Push(Push),
}

fn due(tracked: &Tracked, id: &str, rank: Rank, attached: Option<&mut Attached>, expired: bool) -> Option<Due> {
    let id = || id.to_owned();
    match rank {
        Rank::Pending if expired => (tracked.ours || attached.is_some()).then_some(Due::Expiry),
        Rank::Pending if tracked.cancel_requested => attached.map(|_| Due::Cancellation),
        Rank::Pending => attached?.pushed.insert(id()).then(|| Due::Push(Push::Command { id: id() })),
        Rank::Executing if tracked.cancel_requested => {
            attached?.cancelled.insert(id()).then(|| Due::Push(Push::Cancel { id: id() }))
        }
        _ => None,
    }
}

/// An agent's words as a report.
fn report(agent: &str, update: &CommandUpdate) -> Result<Report, Refused> {
    let (rank, begun) = match update.stage() {
        Stage::Accepted => (Rank::Executing, false),
        Stage::Progress => (Rank::Executing, true),
        Stage::Completed => (Rank::Completed, true),
        Stage::Failed => (Rank::Failed, true),
        Stage::Cancelled => (Rank::Cancelled, true),
        Stage::Unspecified => return Err(CommandError::Malformed("a report without a stage".into())),
    };
    let (result, error) = (update.result_json.clone(), update.error.clone());
    Ok(Report { agent: agent.to_owned(), rank, begun, result, error })
}

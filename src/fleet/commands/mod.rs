//! Which command is due to which agent, and what becomes of those nobody answers.
//!
//! Owns a table of the commands that are not over and of the agents whose streams end here. Must never decide what a report
//! comes to: the store does, in the commit, where two that race meet. Holds no payload: what is pushed is named, and read
//! from a snapshot when it is sent.
//!
//! Tell it of every record of collection `commands`, of streams and of reports (`handle_*`); then drain
//! [`Commands::poll_push`] and [`Commands::poll_write`], and wait for [`Commands::poll_deadline`].

mod message;
mod progress;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use peat_ipc::agent::CommandUpdate;
use peat_ipc::agent::command_update::Stage;

pub use message::{push_message, shown};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::limits;
use crate::store::{CommandChange, CommandError, CommandView, CommandWrite, Progress, Rank, Report};
use progress::Notes;
use table::{Table, Tracked};

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
        self.issuers.is_empty() || self.node == *issuer || self.issuers.contains(issuer)
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

    /// Looks at one record of collection `commands` that is new or changed: all of them at the start, then each that changes.
    /// `None`: it was removed. Results are no concern of this table.
    pub fn handle_record(&mut self, now: Now, id: &str, record: Option<&CommandView>) {
        self.latest = Some(now);
        match record {
            _ if id.contains(':') => {}
            Some(view) => {
                self.table.put(id, view, &self.settings.trust);
                self.review(now, id);
            }
            None => self.table.remove(id),
        }
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
        let tracked = self.table.get(id).ok_or_else(|| CommandError::Unknown(id.clone()))?;
        let held = tracked.targets.get(agent).copied();
        let elsewhere = || CommandError::NotForAgent { command: id.clone(), agent: agent.to_owned() };
        let held = held.ok_or_else(elsewhere)?;
        if !tracked.trusted {
            return Err(CommandError::Untrusted(id.clone()));
        }
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
        let due = self.latest.zip(self.table.next_due()).map(|(latest, due)| latest.at_boot_ms(due));
        due.into_iter().chain(self.progress.deadline()).min()
    }

    /// Whether the records should be shown again: some found no place in the table, and now there is room.
    #[must_use]
    pub fn poll_rescan(&mut self) -> bool {
        self.table.take_rescan()
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

    /// The ids of the commands that are not over.
    pub fn in_flight(&self) -> impl Iterator<Item = &String> {
        self.table.in_flight()
    }

    /// Whether commands of this issuer are delivered here.
    #[must_use]
    pub fn trusts(&self, issuer: &EndpointId) -> bool {
        self.settings.trust.allows(issuer)
    }

    /// Whether one more command for these agents would be within the limits.
    ///
    /// # Errors
    /// Which limit it would pass, a sentence.
    pub fn room(&self, targets: &[String]) -> Result<(), String> {
        if self.table.len() >= limits::COMMANDS {
            return Err(format!(
                "{} commands are kept, which is the limit: delete some, or shorten --command-retention",
                limits::COMMANDS
            ));
        }
        match targets.iter().find(|agent| self.table.pending(agent) >= limits::COMMAND_PENDING) {
            Some(agent) => Err(format!(
                "agent '{agent}' has {} commands it has not accepted, which is the limit: cancel some",
                limits::COMMAND_PENDING
            )),
            None => Ok(()),
        }
    }

    /// Does what is due for one command, and notes when to look at it again.
    fn review(&mut self, now: Now, id: &str) {
        let Some(tracked) = self.table.get(id) else { return };
        let is_due = |at: u64| at <= now.boot_ms;
        let expired = tracked.until.is_some_and(is_due);
        let forget = tracked.forget_at(self.settings.retention);
        let (mut missed, mut confirmed, mut waits) = (Vec::new(), Vec::new(), false);
        for (agent, rank) in &tracked.targets {
            let attached = self.attached.get_mut(agent);
            waits |= *rank == Rank::Pending && (tracked.ours || attached.is_some());
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
        let wake = match self.writes.len() > before {
            true => Some(now.boot_ms + RETRY_MS),
            false => tracked.until.filter(|_| waits && !expired).into_iter().chain(forget).min(),
        };
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
        Rank::Pending if tracked.trusted => {
            attached?.pushed.insert(id()).then(|| Due::Push(Push::Command { id: id() }))
        }
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

//! Routes commands to the agents attached here, and expires, cancels and removes them when they are due.
//!
//! Owns a table of the commands that are delivered here and of the agents attached here, and the number of commands that are
//! kept. Must never decide the outcome of a report: the store does, in the commit, where concurrent reports meet. Holds no
//! payloads: a push names a command, which is read from a snapshot when it is sent.
//!
//! # The problem
//!
//! A command issued at any node must reach each target agent at whichever node the agent is attached, run there at most once, and
//! end with the same status on all nodes. Agents move between nodes, nodes are partitioned for hours, machines restart, and their
//! wall clocks disagree. One issuer that fills the table must not stop the commands of others.
//!
//! # Why the simple ways fail
//!
//! * *The issuing node queues for each agent.* The agent may be attached to a node that the issuer never reaches directly.
//! * *The newest status wins.* EXPIRED, written by a partitioned issuer, would overwrite EXECUTING of an agent that accepted in
//!   time.
//! * *A push counts as delivery.* A stream that breaks after the push loses the command; pushing again blindly runs it twice.
//! * *An absolute expiry.* A node with a clock that is an hour ahead expires each command on arrival; one that is behind runs it
//!   late.
//!
//! # The algorithm
//!
//! *Routing.* The targets are fixed when a command is signed, a group is resolved then, and the record replicates to every node.
//! Each node looks only at the targets attached to it. `review` evaluates one command after each change, attachment and deadline:
//!
//! | stored status of a target | condition | action |
//! |---|---|---|
//! | PENDING | no time left; this node issued it, or the agent is attached here | store EXPIRED |
//! | PENDING | cancellation requested; agent attached here | store CANCELLED |
//! | PENDING | agent attached here | push it, once per attachment |
//! | EXECUTING | cancellation requested; agent attached here | push the cancellation, once per attachment |
//! | any other | | none |
//!
//! *Status.* Statuses are ordered PENDING < EXPIRED < EXECUTING < CANCELLED < FAILED < COMPLETED, and copies of a record join to
//! the higher one, so all nodes agree in any order of delivery. An agent begins only once its acceptance, EXECUTING, is committed
//! and acknowledged: a push repeated after a reconnection cannot run a command twice, and PENDING at the agent's node means that
//! nothing has begun. Reports that would not advance a status are dropped here; all others are checked again in the commit.
//!
//! *Remaining time.* A deadline counts on the clock of this boot, suspend included, and peers exchange the time left, never a
//! time of day. Of two copies the one with less time wins (docs/storage.md, *Commands and time*). After a restart of the machine,
//! the time it was off is unknown and nothing is left. A push has the time left in milliseconds. Deadlines here are boot times;
//! [`Commands::poll_deadline`] converts the earliest one.
//!
//! *Removal.* A command is over once its targets have ended, or once its time has passed and none of them is executing. It is
//! removed after the retention. The disk may refuse any write, so after each one the command is evaluated again in 30 s.
//!
//! # Bounds
//!
//! The table holds at most `limits::COMMANDS` commands that are not over, for `limits::COMMAND_DELIVERIES` targets; those of the
//! issuer with the largest share wait outside of it (`shares.rs`). Commands that are over are removed, the oldest first, once
//! both kinds together exceed that (`table.rs`). Commands of untrusted issuers are kept out of it (`untrusted.rs`). A change of
//! one command costs its number of targets.
//!
//! Tested in `fleet/commands/tests.rs`; the simulator checks that no command runs twice (`tests/sim/checkers/commands.rs`).
//!
//! # The order of calls
//!
//! Report every record of collection `commands`, every attachment and every report with `handle_*`; then drain
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

/// Delay before a write that failed, on a full disk for example, is requested again, in milliseconds of boot time.
const RETRY_MS: u64 = 30_000;

/// Reason for which a report is rejected.
pub type Refused = CommandError;

/// Issuers with commands that this node delivers.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Trust {
    /// This node, which always trusts itself.
    pub node: EndpointId,
    /// Other trusted issuers; empty: every member of the formation.
    pub issuers: BTreeSet<EndpointId>,
}

impl Trust {
    /// Returns true if commands of `issuer` are delivered.
    #[must_use]
    pub fn allows(&self, issuer: &EndpointId) -> bool {
        self.issuers.is_empty() || self.names(issuer)
    }

    /// Returns true if `issuer` is this node or was named explicitly: its commands have priority in the table.
    #[must_use]
    pub fn names(&self, issuer: &EndpointId) -> bool {
        self.node == *issuer || self.issuers.contains(issuer)
    }
}

/// Settings of a node for commands.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settings {
    /// Issuers to deliver for.
    pub trust: Trust,
    /// Time for which a command is kept after it is over.
    pub retention: Duration,
    /// Time in which a command without a time to live may be accepted.
    pub ttl: Duration,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings { trust: Trust::default(), retention: Duration::from_secs(7 * 86_400), ttl: Duration::from_secs(60) }
    }
}

/// A message for an attached agent.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Push {
    /// A command to run, which the agent has not accepted; [`push_message`] builds the message.
    Command { id: String },
    /// A request to end this command.
    Cancel { id: String },
}

/// Messages already pushed to an agent on its present attachment.
#[derive(Debug, Default)]
struct Attached {
    pushed: BTreeSet<String>,
    cancelled: BTreeSet<String>,
}

/// Engine of the commands; see the module's documentation.
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
    /// Time of the last call, which converts boot times into deadlines.
    latest: Option<Now>,
}

impl Commands {
    /// Returns an engine with an empty table.
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

    /// Applies reloaded settings. Returns true if they differ: every record must then be reported again.
    #[must_use]
    pub fn set_settings(&mut self, settings: Settings) -> bool {
        let changed = self.settings != settings;
        self.settings = settings;
        changed
    }

    /// Prepares for a report of all records, as at the start.
    pub fn handle_restart(&mut self) {
        self.listed.clear();
    }

    /// Processes a record of collection `commands`: all of them at the start, then each that changes. `None`: it was removed.
    /// Records of results are ignored.
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

    /// Requests the removal of a command, and re-evaluates it later in case the disk fails.
    fn remove(&mut self, now: Now, id: &str) {
        self.writes.extend(CommandWrite::new(id, CommandChange::Remove));
        self.table.wake_at(id, Some(now.boot_ms + RETRY_MS));
        self.untrusted.wake_at(id, now.boot_ms + RETRY_MS);
    }

    /// Attaches an agent with an empty delivery state: everything pending for it is pushed, repeatedly if need be.
    pub fn handle_attached(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        self.attached.insert(agent.to_owned(), Attached::default());
        for id in self.table.of_agent(agent) {
            self.review(now, &id);
        }
    }

    /// Attaches an agent by an event stream that is not replayed: commands pending for it are not pushed, only those that arrive
    /// from now on.
    pub fn handle_listening(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        // Pending commands count as pushed, so that `review` pushes only what arrives later.
        let ids = self.table.of_agent(agent);
        let asked = |id: &&String| self.table.get(id).is_some_and(|tracked| tracked.cancel_requested);
        let cancelled = ids.iter().filter(asked).cloned().collect();
        let missed = Attached { pushed: ids.iter().cloned().collect(), cancelled };
        self.attached.insert(agent.to_owned(), missed);
        for id in ids {
            self.review(now, &id);
        }
    }

    /// Detaches an agent. Accepted commands continue; others stay pending.
    pub fn handle_detached(&mut self, now: Now, agent: &str) {
        self.latest = Some(now);
        self.attached.remove(agent);
        self.pushes.retain(|(to, _)| to != agent);
    }

    /// Processes an agent's report on a command. Returns the write to store, if the report is news; the store decides in the
    /// commit whether it is valid.
    ///
    /// # Errors
    /// The command is unknown, does not target this agent or is of an untrusted issuer, or the report is malformed.
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
        // An acceptance of an ended command is no news but is passed on: the store rejects it, and the agent must not begin.
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

    /// Processes a deadline of [`Commands::poll_deadline`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.latest = Some(now);
        while let Some(id) = self.table.take_due(now.boot_ms) {
            self.review(now, &id);
        }
        while let Some(id) = self.untrusted.take_due(now.boot_ms) {
            self.remove(now, &id);
        }
        // While the store is slow, the newest report stays in `progress`, where later ones replace it.
        self.writes.extend(self.progress.poll(now.mono, self.writes.is_empty()));
    }

    /// Returns the next message for an agent.
    #[must_use]
    pub fn poll_push(&mut self) -> Option<(String, Push)> {
        self.pushes.pop_front()
    }

    /// Returns the next change to store: an expiry, a confirmed cancellation, a removal, or progress.
    #[must_use]
    pub fn poll_write(&mut self) -> Option<CommandWrite> {
        self.writes.pop_front()
    }

    /// Returns the time to call [`Commands::handle_timeout`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let due = self.table.next_due().into_iter().chain(self.untrusted.next_due()).min();
        let due = self.latest.zip(due).map(|(latest, due)| latest.at_boot_ms(due));
        due.into_iter().chain(self.progress.deadline()).min()
    }

    /// Returns true if all records should be reported again: some found no room, and now there is some.
    #[must_use]
    pub fn poll_rescan(&mut self, now: Now) -> bool {
        self.untrusted.take_rescan() || self.table.take_rescan(now.boot_ms)
    }

    /// Returns true if the agent is attached here.
    #[must_use]
    pub fn is_attached(&self, agent: &str) -> bool {
        self.attached.contains_key(agent)
    }

    /// Returns the default time to live of a command.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.settings.ttl
    }

    /// Returns the number of commands by overall status, as last stored.
    #[must_use]
    pub fn by_status(&self) -> &BTreeMap<Rank, usize> {
        self.table.by_status()
    }

    /// Iterates over the ids of commands that have not ended.
    pub fn in_flight(&self) -> impl Iterator<Item = &String> {
        self.table.in_flight()
    }

    /// Returns true if commands of this issuer are delivered here.
    #[must_use]
    pub fn trusts(&self, issuer: &EndpointId) -> bool {
        self.settings.trust.allows(issuer)
    }

    /// Iterates over every command that is held, trusted or not, after a place in order of creation. `None`: there are more
    /// commands than are kept in that order.
    pub fn listed(&self, after: Option<&Place>) -> Option<impl Iterator<Item = &Place> + use<'_>> {
        self.listed.after(after)
    }

    /// Returns the commands that an agent may still accept or end, in no order; `None` while some wait outside of the table.
    #[must_use]
    pub fn open_of(&self, agent: &str) -> Option<Vec<String>> {
        (!self.table.has_waiting()).then(|| self.table.of_agent(agent))
    }

    /// Checks that one more command for these agents is within the limits.
    ///
    /// # Errors
    /// The limit that would be exceeded, as a sentence.
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

    /// Returns warnings for the operator about limits that are nearly reached, a sentence each.
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

    /// Re-evaluates one command: queues the messages and writes that are due, and sets the time of the next evaluation.
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
        // A write may fail, so the command is evaluated again after a while; without writes, at its deadline or removal.
        let wake = if self.writes.len() > before {
            Some(now.boot_ms + RETRY_MS)
        } else {
            tracked.until.filter(|_| !expired).into_iter().chain(forget).min()
        };
        self.table.note_over(now.boot_ms, id);
        self.table.wake_at(id, wake);
    }
}

/// Action due for one target.
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

/// Converts an agent's update to a report.
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

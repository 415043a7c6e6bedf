//! Commands on their way through an agent: pushed, accepted, begun, ended, confirmed.
//!
//! Owns the order of things and the ledger. Sans I/O but for the ledger's file: it is told what the node says and what
//! the workers do, and says what the node is to be told. Must never let a command begin twice, nor begin before the node has
//! confirmed that it may.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Open};
use crate::agent::command_update::Stage;
use crate::agent::{CommandPush, CommandUpdate, UpdateAck};
use crate::sidecar::Command;

/// Commands that are not over, at once; more are left with the node, which pushes them again.
const JOBS: usize = 1_024;
/// Bytes of results and words that travel in a registration; the others follow it one by one.
const REGISTER_BYTES: usize = 512 << 10;
/// How long the result of interrupted work is used again.
const REUSE_SECONDS: i64 = 3_600;
/// After a node has said that it does not hold a command: how long until it is told again, twice as long each time,
const AGAIN_MIN: Duration = Duration::from_secs(5);
/// up to this.
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// How long a command may be unknown to every node the agent meets before its report is dropped.
const ABSENT: Duration = Duration::from_secs(24 * 3_600);
/// What a command fails with whose agent was restarted in the middle of it.
pub(super) const RESTARTED: &str = "the agent was restarted while the command ran";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum At {
    /// To be taken by a worker.
    Waiting,
    /// The node was or will be asked whether it may begin.
    Accepting,
    Running,
    /// Over; the node is to be told.
    Done,
}

#[derive(Debug)]
struct Job {
    command: Command,
    at: At,
    /// When it can no longer be accepted.
    deadline: Option<Instant>,
    /// The ledger has it as accepted.
    accepted: bool,
    /// What the node is to be told until it confirms that.
    update: Option<CommandUpdate>,
    /// It was, on this link.
    sent: bool,
    /// The node's word on ACCEPTED: it may begin.
    confirmed: bool,
    /// The ledger has it as begun, ahead of that.
    prepared: bool,
    /// The link was lost between acceptance and the confirmation of the end.
    interrupted: bool,
    /// The node does not hold the command: when it is told again, since when that is so, and how often it was told.
    again: Option<Instant>,
    absent: Option<Instant>,
    told: u32,
    keys: Vec<String>,
    cancel: Arc<AtomicBool>,
}

impl Job {
    fn new(command: Command, deadline: Option<Instant>) -> Job {
        Job {
            command,
            at: At::Waiting,
            deadline,
            accepted: false,
            update: None,
            sent: false,
            confirmed: false,
            prepared: false,
            interrupted: false,
            again: None,
            absent: None,
            told: 0,
            keys: Vec::new(),
            cancel: Arc::default(),
        }
    }

    /// Whether the node is to be told again, because the command may come to it yet; notes when.
    fn outlasts(&mut self, now: Instant) -> bool {
        let absent = *self.absent.get_or_insert(now);
        self.again = Some(now + AGAIN_MIN.saturating_mul(1 << self.told.min(10)).min(AGAIN_MAX));
        self.told += 1;
        now.saturating_duration_since(absent) < ABSENT
    }

    /// The newest of what the node should know.
    fn said(&self) -> CommandUpdate {
        self.update.clone().unwrap_or_else(|| update(&self.command.id, Stage::Accepted))
    }
}

/// What a worker that wants to begin is told.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Permit {
    /// The node has not answered yet.
    Wait,
    Begin,
    /// Expired, cancelled, or not for this agent.
    Refused,
}

/// Takes back that a command begins, when that will not be soon.
fn unprepare(ledger: &mut Ledger, job: &mut Job) -> io::Result<()> {
    if job.prepared && job.at < At::Running {
        ledger.accept(&job.command)?;
        job.prepared = false;
    }
    Ok(())
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Jobs {
    ledger: Ledger,
    jobs: BTreeMap<String, Job>,
    inbox: VecDeque<String>,
    progress: Vec<CommandUpdate>,
    /// Answers to repeated pushes, which no job stands for.
    replies: Vec<CommandUpdate>,
}

pub(super) fn update(id: &str, stage: Stage) -> CommandUpdate {
    CommandUpdate { command_id: id.to_owned(), stage: stage.into(), ..CommandUpdate::default() }
}

impl Jobs {
    /// Takes up what the ledger has from before: what was accepted and not begun is run, what was begun has failed.
    pub(super) fn new(ledger: Ledger) -> io::Result<Jobs> {
        let found: Vec<(String, Open)> = ledger.unfinished().map(|(id, open)| (id.clone(), open.clone())).collect();
        let mut jobs =
            Jobs { ledger, jobs: BTreeMap::new(), inbox: VecDeque::new(), progress: Vec::new(), replies: Vec::new() };
        for (id, open) in found {
            let command = Command { id: id.clone(), ..Command::default() };
            let mut job = Job { accepted: true, interrupted: true, ..Job::new(command, None) };
            match open {
                Open::Accepted(command) => {
                    (job.command, job.update) = (command, Some(update(&id, Stage::Accepted)));
                    jobs.inbox.push_back(id.clone());
                }
                Open::Started => {
                    let failed = CommandUpdate { error: RESTARTED.into(), ..update(&id, Stage::Failed) };
                    jobs.ledger.finish(&failed)?;
                    (job.at, job.update) = (At::Done, Some(failed));
                }
                Open::Done(said) => (job.at, job.update) = (At::Done, Some(said)),
            }
            jobs.jobs.insert(id, job);
        }
        Ok(jobs)
    }

    // What the node says.

    /// A command was pushed, perhaps not for the first time.
    pub(super) fn handle_push(&mut self, now: Instant, push: CommandPush) {
        let Some(command) = push.command.filter(|command| !command.id.is_empty()) else { return };
        let deadline = (push.time_left_ms > 0).then(|| now + Duration::from_millis(push.time_left_ms.min(1 << 42)));
        if let Some(stage) = self.ledger.settled(&command.id) {
            self.replies.push(update(&command.id, stage));
        } else if let Some(job) = self.jobs.get_mut(&command.id) {
            job.deadline = deadline;
            // Said again: the node does not know it.
            job.sent = false;
            if job.at > At::Accepting && job.update.is_none() {
                self.replies.push(job.said());
            }
        } else if self.jobs.len() < JOBS {
            self.inbox.push_back(command.id.clone());
            self.jobs.insert(command.id.clone(), Job::new(command, deadline));
        }
    }

    /// The command's sender wants it to end.
    pub(super) fn handle_cancel(&mut self, id: &str) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(id) else {
            let stage = match self.ledger.settled(id) {
                Some(stage) => stage,
                None => {
                    self.ledger.settle(id, Some(Stage::Cancelled), false)?;
                    Stage::Cancelled
                }
            };
            self.replies.push(update(id, stage));
            return Ok(());
        };
        match job.at {
            At::Running => job.cancel.store(true, Ordering::Release),
            At::Done => job.sent = false,
            At::Waiting | At::Accepting => {
                job.cancel.store(true, Ordering::Release);
                self.end(update(id, Stage::Cancelled))?;
            }
        }
        Ok(())
    }

    /// The node has stored or refused an update.
    pub(super) fn handle_ack(&mut self, now: Instant, ack: &UpdateAck) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(&ack.command_id) else { return Ok(()) };
        if job.update.as_ref().is_none_or(|update| update.stage != ack.stage) {
            return Ok(());
        }
        if ack.not_here && job.outlasts(now) {
            // No worker waits for a command that may come in hours.
            if job.at == At::Accepting {
                job.at = At::Waiting;
                return unprepare(&mut self.ledger, job);
            }
            return Ok(());
        }
        (job.again, job.absent, job.told) = (None, None, 0);
        match (job.at, ack.refused.is_empty()) {
            (At::Done, false) if ack.stage == i32::from(Stage::Completed) && !ack.not_here => {
                let error = format!("the node refused the result: {}", ack.refused);
                self.end(CommandUpdate { error, ..update(&ack.command_id, Stage::Failed) })
            }
            (At::Done, _) => self.settle(&ack.command_id, Stage::try_from(ack.stage).ok()),
            (_, false) => self.settle(&ack.command_id, None),
            (_, true) => {
                (job.update, job.confirmed) = (None, true);
                Ok(())
            }
        }
    }

    /// What was said may not have arrived.
    pub(super) fn handle_link_lost(&mut self) {
        self.progress.clear();
        self.replies.clear();
        for job in self.jobs.values_mut() {
            job.sent = false;
            job.interrupted |= job.accepted;
            // If that cannot be written down, a restart counts it as interrupted.
            let _ = unprepare(&mut self.ledger, job);
        }
        self.again(|_| true);
    }

    /// What the node did not hold it may hold by now.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.again(|at| at <= now);
    }

    fn again(&mut self, due: impl Fn(Instant) -> bool) {
        for (id, job) in &mut self.jobs {
            if job.again.take_if(|at| due(*at)).is_some() {
                job.sent = false;
                if job.at == At::Waiting && !self.inbox.contains(id) {
                    self.inbox.push_back(id.clone());
                }
            }
        }
    }

    // What the node is to be told.

    /// What a registration lists: every command that was accepted and whose end the node has not confirmed.
    pub(super) fn registered(&mut self) -> Vec<CommandUpdate> {
        let mut bytes = 0;
        let listed = self.jobs.values_mut().filter(|job| job.accepted).map(|job| {
            let said = job.said();
            let size = said.result_json.len() + said.error.len();
            if bytes + size > REGISTER_BYTES {
                return update(&job.command.id, Stage::Accepted);
            }
            bytes += size;
            job.sent = true;
            said
        });
        listed.collect()
    }

    /// What is to be said on this link now.
    #[must_use]
    pub(super) fn poll_updates(&mut self) -> Vec<CommandUpdate> {
        let mut updates = std::mem::take(&mut self.replies);
        updates.append(&mut self.progress);
        for job in self.jobs.values_mut().filter(|job| !job.sent) {
            if let Some(update) = &job.update {
                job.sent = true;
                updates.push(update.clone());
            }
        }
        updates
    }

    // What the workers do.

    /// The next command a worker may ask for; from then on the node knows that it is accepted.
    pub(super) fn take(&mut self, now: Instant) -> io::Result<Option<(Command, Arc<AtomicBool>)>> {
        while let Some(id) = self.inbox.pop_front() {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.at == At::Waiting) else { continue };
            if !job.accepted {
                if job.deadline.is_some_and(|deadline| now >= deadline) {
                    // Its node has it expire; nobody is told anything.
                    self.jobs.remove(&id);
                    continue;
                }
                if let Err(cause) = self.ledger.accept(&job.command) {
                    self.inbox.push_back(id);
                    return Err(cause);
                }
                (job.accepted, job.update, job.sent) = (true, Some(update(&id, Stage::Accepted)), false);
            }
            job.at = At::Accepting;
            return Ok(Some((job.command.clone(), Arc::clone(&job.cancel))));
        }
        Ok(None)
    }

    /// Writes down that a command that was taken begins, while the node makes up its mind about it: neither waits for the
    /// other's disk. An agent that is restarted just then reports work interrupted that had not begun.
    pub(super) fn prepare(&mut self, id: &str) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.at == At::Accepting && !job.prepared) else {
            return Ok(());
        };
        self.ledger.start(id)?;
        job.prepared = true;
        Ok(())
    }

    /// Whether a command that was taken may begin. Once it says so the work may have had effects.
    pub(super) fn permit(&mut self, id: &str) -> io::Result<Permit> {
        match self.jobs.get_mut(id).filter(|job| job.at == At::Accepting) {
            None => Ok(Permit::Refused),
            Some(job) if !job.confirmed => Ok(Permit::Wait),
            Some(job) => {
                if !job.prepared {
                    self.ledger.start(id)?;
                }
                job.at = At::Running;
                Ok(Permit::Begin)
            }
        }
    }

    /// Shown to whoever watches the command, if the node is there to hear it.
    pub(super) fn report(&mut self, progress: CommandUpdate) {
        self.progress.retain(|other| other.command_id != progress.command_id);
        self.progress.push(progress);
    }

    /// A command ended.
    pub(super) fn end(&mut self, update: CommandUpdate) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(&update.command_id) else { return Ok(()) };
        (job.at, job.sent, job.accepted) = (At::Done, false, true);
        self.progress.retain(|progress| progress.command_id != update.command_id);
        let recorded = self.ledger.finish(&update);
        job.update = Some(update);
        recorded
    }

    fn settle(&mut self, id: &str, stage: Option<Stage>) -> io::Result<()> {
        // What is written down as begun, and was not, must not be found so.
        let prepared = self.jobs.get(id).is_some_and(|job| job.prepared && job.at < At::Running);
        self.ledger.settle(id, stage, prepared)?;
        let Some(job) = self.jobs.remove(id) else { return Ok(()) };
        self.inbox.retain(|waiting| waiting != id);
        for key in job.keys.iter().filter(|_| !job.interrupted) {
            if !self.jobs.values().any(|other| other.keys.contains(key)) {
                self.ledger.forget_result(key)?;
            }
        }
        Ok(())
    }

    /// Whether work is under way, or the end of some is not known to the node.
    pub(super) fn unsettled(&self) -> bool {
        self.jobs.values().any(|job| job.at >= At::Running)
    }

    // Work done once.

    /// Command `id` does what `key` names; the result when that was done already by one that did not get through.
    pub(super) fn claim(&mut self, id: &str, key: &str, now_seconds: i64) -> Option<String> {
        if let Some(job) = self.jobs.get_mut(id) {
            job.keys.push(key.to_owned());
        }
        let (result, at) = self.ledger.result(key)?;
        (now_seconds.saturating_sub(at) <= REUSE_SECONDS).then(|| String::from_utf8_lossy(result).into_owned())
    }

    pub(super) fn keep_result(&mut self, key: &str, result: &str, now_seconds: i64) -> io::Result<()> {
        self.ledger.keep_result(key, result.as_bytes(), now_seconds)
    }
}

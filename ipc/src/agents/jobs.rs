//! The life of a command in an agent: pushed, accepted, started, ended, confirmed.
//!
//! Owns the state machine of each command and the ledger. Sans I/O except for the ledger's file: `handle_*` methods report
//! messages of the node and other events, workers call `take`, `permit` and `end`, and `poll_updates` returns what to send.
//! Must never let a command begin twice, nor before the node has confirmed the acceptance: the node decides between a command's
//! expiry and its start, so an agent that began earlier could run a command that was reported as expired.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::ledger::{Ledger, Open};
use crate::agent::command_update::Stage;
use crate::agent::{CommandPush, CommandUpdate, UpdateAck};
use crate::sidecar::Command;

/// Maximum number of unfinished commands. The node keeps further ones and pushes them again.
const JOBS: usize = 1_024;
/// Maximum size of the results and errors in a registration, in bytes; the others follow it one by one.
const REGISTER_BYTES: usize = 512 << 10;
/// Time for which the result of interrupted work is reused.
const REUSE_SECONDS: i64 = 3_600;
/// Delay before an update is repeated to a node that does not hold its command; doubles with each repetition up to
/// `AGAIN_MAX`.
const AGAIN_MIN: Duration = Duration::from_secs(5);
/// Upper bound of that delay.
const AGAIN_MAX: Duration = Duration::from_secs(600);
/// Time after which the report of a command is dropped if no node the agent connects to has held the command.
const ABSENT: Duration = Duration::from_secs(24 * 3_600);
/// Error of commands that were running when the agent was restarted.
pub(super) const RESTARTED: &str = "the agent was restarted while the command ran";

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum At {
    /// Queued; no worker has taken it.
    Waiting,
    /// Taken by a worker; ACCEPTED is or will be sent to the node and awaits confirmation.
    Accepting,
    Running,
    /// Ended; the node has not confirmed the end.
    Done,
}

#[derive(Debug)]
struct Job {
    command: Command,
    at: At,
    /// Time after which it can no longer be accepted.
    deadline: Option<Instant>,
    /// True if the ledger has it as accepted.
    accepted: bool,
    /// Update to send until the node confirms it.
    update: Option<CommandUpdate>,
    /// True if the update was sent on this stream.
    sent: bool,
    /// True if the node has confirmed ACCEPTED: the command may begin.
    confirmed: bool,
    /// True if the ledger has it as started, ahead of the confirmation.
    prepared: bool,
    /// True if the stream was lost between acceptance and confirmation of the end.
    interrupted: bool,
    /// Time of the next repetition to a node that does not hold the command.
    again: Option<Instant>,
    /// Time of the first answer that the node does not hold the command.
    absent: Option<Instant>,
    /// Number of such answers, which sets the next delay.
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

    /// Schedules a repetition of the update and returns true, unless the command has been missing at the node for `ABSENT`.
    fn outlasts(&mut self, now: Instant) -> bool {
        let absent = *self.absent.get_or_insert(now);
        self.again = Some(now + AGAIN_MIN.saturating_mul(1 << self.told.min(10)).min(AGAIN_MAX));
        self.told += 1;
        now.saturating_duration_since(absent) < ABSENT
    }

    /// Returns the newest update for the node.
    fn said(&self) -> CommandUpdate {
        self.update.clone().unwrap_or_else(|| update(&self.command.id, Stage::Accepted))
    }
}

/// Answer to a worker that wants to begin a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Permit {
    /// The node has not confirmed the acceptance yet.
    Wait,
    Begin,
    /// The command expired, was cancelled, or is not for this agent.
    Refused,
}

/// Withdraws the ledger's early start record of a command that will not begin soon.
fn unprepare(ledger: &mut Ledger, job: &mut Job) -> io::Result<()> {
    if job.prepared && job.at < At::Running {
        ledger.accept(&job.command)?;
        job.prepared = false;
    }
    Ok(())
}

/// The commands of an agent and their ledger; see the module's documentation.
#[derive(Debug)]
pub(super) struct Jobs {
    ledger: Ledger,
    jobs: BTreeMap<String, Job>,
    inbox: VecDeque<String>,
    progress: Vec<CommandUpdate>,
    /// Updates that no job holds: answers to repeated pushes and to cancellations.
    replies: Vec<CommandUpdate>,
}

pub(super) fn update(id: &str, stage: Stage) -> CommandUpdate {
    CommandUpdate { command_id: id.to_owned(), stage: stage.into(), ..CommandUpdate::default() }
}

impl Jobs {
    /// Loads the ledger: commands that were accepted but not started are queued, started ones are reported as failed.
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

    // Messages of the node and other events.

    /// Handles a pushed command, which may be a repetition.
    pub(super) fn handle_push(&mut self, now: Instant, push: CommandPush) {
        let Some(command) = push.command.filter(|command| !command.id.is_empty()) else { return };
        let deadline = (push.time_left_ms > 0).then(|| now + Duration::from_millis(push.time_left_ms.min(1 << 42)));
        if let Some(stage) = self.ledger.settled(&command.id) {
            self.replies.push(update(&command.id, stage));
        } else if let Some(job) = self.jobs.get_mut(&command.id) {
            job.deadline = deadline;
            // A repeated push shows that the node has not stored the update.
            job.sent = false;
            // A running command has no pending update, so its acceptance is repeated here.
            if job.at > At::Accepting && job.update.is_none() {
                self.replies.push(job.said());
            }
        } else if self.jobs.len() < JOBS {
            self.inbox.push_back(command.id.clone());
            self.jobs.insert(command.id.clone(), Job::new(command, deadline));
        }
    }

    /// Handles a cancellation by the command's sender.
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

    /// Handles the node's answer to an update, which it has stored or rejected.
    pub(super) fn handle_ack(&mut self, now: Instant, ack: &UpdateAck) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(&ack.command_id) else { return Ok(()) };
        if job.update.as_ref().is_none_or(|update| update.stage != ack.stage) {
            return Ok(());
        }
        if ack.not_here && job.outlasts(now) {
            // The node may receive the command only in hours, so no worker is blocked for it.
            if job.at == At::Accepting {
                job.at = At::Waiting;
                return unprepare(&mut self.ledger, job);
            }
            return Ok(());
        }
        // The node holds the command, or its report is given up: no more repetitions.
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

    /// Handles the loss of the stream: updates sent on it may not have arrived.
    pub(super) fn handle_link_lost(&mut self) {
        self.progress.clear();
        self.replies.clear();
        for job in self.jobs.values_mut() {
            job.sent = false;
            job.interrupted |= job.accepted;
            // If this write fails, a restart treats the command as interrupted, which is safe.
            let _ = unprepare(&mut self.ledger, job);
        }
        self.again(|_| true);
    }

    /// Repeats updates that are due to a node that did not hold their commands.
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

    // Messages to the node.

    /// Returns the updates to list in a registration: one for every accepted command that the node has not confirmed as ended.
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

    /// Returns the updates to send on this stream now.
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

    // Calls of the workers.

    /// Returns the next command for a worker and queues its acceptance for the node.
    pub(super) fn take(&mut self, now: Instant) -> io::Result<Option<(Command, Arc<AtomicBool>)>> {
        while let Some(id) = self.inbox.pop_front() {
            let Some(job) = self.jobs.get_mut(&id).filter(|job| job.at == At::Waiting) else { continue };
            if !job.accepted {
                if job.deadline.is_some_and(|deadline| now >= deadline) {
                    // The node expires the command by itself, so no report is needed.
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

    /// Records that a taken command starts, while the node decides on its acceptance, so that the two disk writes overlap. An
    /// agent restarted at this point reports the command as interrupted although it had not begun.
    pub(super) fn prepare(&mut self, id: &str) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.at == At::Accepting && !job.prepared) else {
            return Ok(());
        };
        self.ledger.start(id)?;
        job.prepared = true;
        Ok(())
    }

    /// Returns the permit of a taken command. After `Permit::Begin` the work may have had effects.
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

    /// Queues a progress report, replacing an older one. It is lost if there is no stream.
    pub(super) fn report(&mut self, progress: CommandUpdate) {
        self.progress.retain(|other| other.command_id != progress.command_id);
        self.progress.push(progress);
    }

    /// Records the end of a command.
    pub(super) fn end(&mut self, update: CommandUpdate) -> io::Result<()> {
        let Some(job) = self.jobs.get_mut(&update.command_id) else { return Ok(()) };
        (job.at, job.sent, job.accepted) = (At::Done, false, true);
        self.progress.retain(|progress| progress.command_id != update.command_id);
        let recorded = self.ledger.finish(&update);
        job.update = Some(update);
        recorded
    }

    fn settle(&mut self, id: &str, stage: Option<Stage>) -> io::Result<()> {
        // A start record of a command that never began must not survive a crash, so this settlement is synced.
        let prepared = self.jobs.get(id).is_some_and(|job| job.prepared && job.at < At::Running);
        self.ledger.settle(id, stage, prepared)?;
        let Some(job) = self.jobs.remove(id) else { return Ok(()) };
        self.inbox.retain(|waiting| waiting != id);
        // Results of an interrupted command stay for its retry; others are dropped with the last command that shares the key.
        for key in job.keys.iter().filter(|_| !job.interrupted) {
            if !self.jobs.values().any(|other| other.keys.contains(key)) {
                self.ledger.forget_result(key)?;
            }
        }
        Ok(())
    }

    /// Returns true while a command runs or its end is unconfirmed.
    pub(super) fn unsettled(&self) -> bool {
        self.jobs.values().any(|job| job.at >= At::Running)
    }

    // Shared work.

    /// Attaches `key` to command `id`, and returns the stored result if interrupted work under that key left one within the
    /// last hour.
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

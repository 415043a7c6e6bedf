//! Changes of commands by agents, issuers and nodes: stages them in a batch, or refuses them.

use super::change::Judgement;
use super::signed::{result_key, same_time};
use super::{Command, CommandChange, CommandError, CommandResult, Deadline, Progress, Rank, Report, Signed};
use crate::mesh::CommandBody;
use crate::store::batch::Pending;
use crate::store::stage::BatchStager;
use crate::store::{Content, Error, Key, KeyHash, Kind, Lineage, Record};

/// Incarnation of every command: a removed command is never put again.
pub(in crate::store) const ONLY_INCARNATION: u64 = 1;

impl BatchStager<'_> {
    pub(in crate::store) fn command(
        &mut self,
        key: &Key,
        hash: KeyHash,
        change: CommandChange,
    ) -> Result<Pending, Error> {
        match change {
            CommandChange::Issue(signed) => self.issue(key, hash, signed),
            CommandChange::Report(report) => self.report(key, hash, report),
            CommandChange::RequestCancel { attached } => self.change_command(key, hash, |command, targets| {
                command.cancel_requested = !command.has_ended() || command.cancel_requested;
                lift(command, targets, &attached, Rank::Cancelled);
            }),
            CommandChange::ConfirmCancel { agents } => self.change_command(key, hash, |command, targets| {
                if command.cancel_requested {
                    lift(command, targets, &agents, Rank::Cancelled);
                }
            }),
            CommandChange::Progress(progress) => self.progress(key, hash, &progress),
            CommandChange::Expire { agents } => self.change_command(key, hash, |command, targets| {
                lift(command, targets, &agents, Rank::Expired);
            }),
            CommandChange::Remove => self.remove_command(hash),
        }
    }

    fn issue(&mut self, key: &Key, hash: KeyHash, signed: Signed) -> Result<Pending, Error> {
        let body = signed.check(key).map_err(CommandError::Malformed)?;
        match self.load(hash)?.record.as_ref().map(|record| &record.content) {
            None => {}
            Some(Content::Command(held)) if same_words(&held.signed.read(), &body) => {
                return Ok(self.unchanged(hash, true));
            }
            Some(_) => return Err(CommandError::Exists(key.clone()).into()),
        }
        let boot_ms = self.now.boot_ms.saturating_add(body.ttl_ms);
        let deadline =
            if body.ttl_ms == 0 { Deadline::Never } else { Deadline::At { boot: self.clocks.boot, boot_ms } };
        let command = Command::issued(signed, &body, deadline);
        Ok(self.change_to(key, hash, Content::Command(Box::new(command))))
    }

    /// Applies an agent's report. One that comes too late is refused, and the status that makes it late is written all the
    /// same.
    fn report(&mut self, key: &Key, hash: KeyHash, report: Report) -> Result<Pending, Error> {
        report.check()?;
        let mut command = self.held_command(key, hash)?;
        let body = command.signed.read();
        let Some(at) = body.targets.iter().position(|agent| *agent == report.agent) else {
            return Err(CommandError::NotForAgent { command: key.id().to_owned(), agent: report.agent }.into());
        };
        let expired = command.deadline.until(self.clocks.boot).is_some_and(|until| until <= self.now.boot_ms);
        let (rank, answer) = match report.judge(key, command.ranks[at], expired, command.cancel_requested) {
            Judgement::Stands => return Ok(self.unchanged(hash, true)),
            Judgement::Climbs => (report.rank, Ok(())),
            Judgement::Refused(cause, Some(rank)) => (rank, Err(cause)),
            Judgement::Refused(cause, None) => return Err(cause.into()),
        };
        command.ranks[at] = rank;
        if answer.is_ok() && rank.is_terminal() {
            self.add_result(key, report)?;
        }
        let pending = self.change_to(key, hash, Content::Command(command));
        answer.map(|()| pending).map_err(Error::from)
    }

    fn add_result(&mut self, command: &Key, report: Report) -> Result<(), Error> {
        let key = result_key(command, &report.agent).map_err(CommandError::Malformed)?;
        let hash = key.hash();
        let silent = report.result.is_empty() && report.error.is_empty();
        let result = CommandResult::new(&key, report.rank, report.result, report.error);
        let supersedes = match self.load(hash)?.record.as_ref().map(|record| &record.content) {
            // A result without content is stored only to replace progress.
            None => !silent,
            Some(Content::Result(held)) => held.yields_to(&result),
            Some(_) => false,
        };
        if supersedes {
            self.change_result(&key, hash, result, true);
        }
        Ok(())
    }

    /// Stores the newest progress of an agent that executes the command. It is not flushed, and its result replaces it.
    fn progress(&mut self, command: &Key, hash: KeyHash, progress: &Progress) -> Result<Pending, Error> {
        let held = self.held_command(command, hash)?;
        let targets = held.signed.read().targets;
        let rank = targets.iter().position(|agent| *agent == progress.agent).map(|at| held.ranks[at]);
        if rank != Some(Rank::Executing) {
            return Ok(self.unchanged(hash, false));
        }
        let key = result_key(command, &progress.agent).map_err(CommandError::Malformed)?;
        let before = match self.load(key.hash())?.record.as_ref().map(|record| &record.content) {
            Some(Content::Result(before)) => Some(before.clone()),
            _ => None,
        };
        let number = before.as_ref().map_or(0, |before| before.progress_number()).saturating_add(1);
        let result = CommandResult::in_progress(&key, number, progress);
        if before.is_none_or(|before| before.yields_to(&result)) {
            self.change_result(&key, key.hash(), result, false);
        }
        Ok(self.unchanged(hash, false))
    }

    fn change_command(
        &mut self,
        key: &Key,
        hash: KeyHash,
        change: impl FnOnce(&mut Command, &[String]),
    ) -> Result<Pending, Error> {
        let before = self.held_command(key, hash)?;
        let mut command = before.clone();
        change(&mut command, &before.signed.read().targets);
        if command == before {
            Ok(self.unchanged(hash, true))
        } else {
            Ok(self.change_to(key, hash, Content::Command(command)))
        }
    }

    /// Removes the command and its results for good.
    fn remove_command(&mut self, hash: KeyHash) -> Result<Pending, Error> {
        match self.load(hash)?.record.as_ref().map(|record| &record.content) {
            None => return Ok(Pending::Absent),
            Some(Content::Tombstone) => return Ok(self.unchanged(hash, true)),
            Some(_) => {}
        }
        self.remove_results(hash)?;
        Ok(self.bury(hash, 0, true))
    }

    /// Replaces the results of a command that is about to be removed with tombstones. The node that removed it may not have
    /// had them, so the tombstones are changes of this node and are sent to all peers.
    pub(in crate::store) fn remove_results(&mut self, hash: KeyHash) -> Result<(), Error> {
        let Some(Record { name: Some(key), content: Content::Command(command), .. }) = &self.load(hash)?.record else {
            return Ok(());
        };
        let (key, targets) = (key.clone(), command.signed.read().targets);
        for agent in targets {
            let Ok(result) = result_key(&key, &agent).map(|key| key.hash()) else { continue };
            if self.load(result)?.record.as_ref().is_some_and(Record::is_live) {
                self.bury(result, 0, false);
            }
        }
        Ok(())
    }

    /// Replaces a staged record with a tombstone.
    pub(in crate::store) fn bury(&mut self, hash: KeyHash, from: u32, durable: bool) -> Pending {
        let origin = self.writer.config.node;
        let (kind, incarnation) = (Kind::Command, ONLY_INCARNATION);
        let record = Record {
            kind,
            incarnation,
            sequence: 0,
            origin,
            name: None,
            lineage: Lineage::default(),
            content: Content::Tombstone,
        };
        self.change(hash, record, None, durable, from)
    }

    fn held_command(&mut self, key: &Key, hash: KeyHash) -> Result<Box<Command>, Error> {
        match self.load(hash)?.record.as_ref().map(|record| &record.content) {
            Some(Content::Command(command)) => Ok(command.clone()),
            _ => Err(CommandError::Unknown(key.id().to_owned()).into()),
        }
    }

    fn change_result(&mut self, key: &Key, hash: KeyHash, result: CommandResult, durable: bool) -> Pending {
        let (kind, incarnation, origin) = (Kind::Command, ONLY_INCARNATION, self.writer.config.node);
        let content = Content::Result(Box::new(result));
        let record = Record {
            kind,
            incarnation,
            sequence: 0,
            origin,
            name: Some(key.clone()),
            lineage: Lineage::default(),
            content,
        };
        self.change(hash, record, None, durable, 0)
    }

    fn change_to(&mut self, key: &Key, hash: KeyHash, content: Content) -> Pending {
        let content = self.finished(content);
        let (kind, incarnation, origin) = (Kind::Command, ONLY_INCARNATION, self.writer.config.node);
        let record = Record {
            kind,
            incarnation,
            sequence: 0,
            origin,
            name: Some(key.clone()),
            lineage: Lineage::default(),
            content,
        };
        self.change(hash, record, None, true, 0)
    }

    /// Updates the JSON of a command, and the time at which it ended, from its other fields.
    pub(in crate::store) fn finished(&self, content: Content) -> Content {
        match content {
            Content::Command(mut command) => {
                command.note_end(self.clocks.age_ms(self.now));
                command.show();
                Content::Command(command)
            }
            other => other,
        }
    }
}

/// Returns true if two bodies under one id are the same request. Their times of creation and their resolved targets may
/// differ.
fn same_words(held: &CommandBody, body: &CommandBody) -> bool {
    held.addressed == body.addressed
        && held.command_type == body.command_type
        && held.payload == body.payload
        && same_time((held.created_at, held.expires_at), (body.created_at, body.expires_at))
}

/// Raises the status of those of `agents` that have not accepted the command.
fn lift(command: &mut Command, targets: &[String], agents: &[String], to: Rank) {
    for (agent, rank) in targets.iter().zip(&mut command.ranks) {
        if *rank == Rank::Pending && agents.contains(agent) {
            *rank = to;
        }
    }
}

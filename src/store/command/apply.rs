//! Commands from peers: verifies a body when it first arrives, and joins the copy with the stored one.

use super::signed::is_long_past;
use super::{Command, CommandResult, Deadline, Rank};
use crate::identity::EndpointId;
use crate::limits::{COMMAND_ERROR_BYTES, COMMAND_RESULT_BYTES};
use crate::mesh::CommandBody;
use crate::store::apply::ApplyOutcome;
use crate::store::stage::BatchStager;
use crate::store::{COMMANDS, Content, Error, IncomingCommand, Key, KeyHash, Kind, Lineage, PeerRun, Record};

impl BatchStager<'_> {
    /// Stores a command that is not stored yet, if its issuer signed it.
    pub(in crate::store) fn adopt_command(
        &mut self,
        hash: KeyHash,
        name: Option<Key>,
        origin: EndpointId,
        incoming: IncomingCommand,
        from: PeerRun,
    ) -> Result<ApplyOutcome, Error> {
        let Some(key) = &name else { return Ok(ApplyOutcome::Rejected("a command without a name".into())) };
        let body = match incoming.signed.check(key) {
            Ok(body) => body,
            Err(reason) => return Ok(ApplyOutcome::Rejected(reason)),
        };
        let command = match self.received(incoming, &body) {
            Ok(command) => command,
            Err(reason) => return Ok(ApplyOutcome::Rejected(format!("command {key} {reason}"))),
        };
        let from = self.source(from)?;
        self.take_command(hash, name, origin, command, from);
        Ok(ApplyOutcome::Applied)
    }

    /// Joins a command with the stored copy.
    pub(in crate::store) fn combine_command(
        &mut self,
        hash: KeyHash,
        origin: EndpointId,
        incoming: IncomingCommand,
        from: PeerRun,
    ) -> Result<ApplyOutcome, Error> {
        let held = self.load(hash)?.record.clone();
        let Some(Record { name: Some(key), content: Content::Command(ours), .. }) = held else {
            return Ok(ApplyOutcome::Rejected("a command where a result is".into()));
        };
        // The stored body was verified when it arrived.
        let same = ours.signed == incoming.signed;
        let body = if same { Ok(ours.signed.read()) } else { incoming.signed.check(&key) };
        let theirs =
            body.and_then(|body| self.received(incoming, &body).map_err(|reason| format!("command {key} {reason}")));
        let theirs = match theirs {
            Ok(theirs) => theirs,
            Err(reason) => return Ok(ApplyOutcome::Rejected(reason)),
        };
        let Some(joined) = ours.join(&theirs) else { return Ok(ApplyOutcome::Applied) };
        // A copy that equals the sender's is not sent back to it; a joined one is.
        let from = if joined.state() == theirs.state() { self.source(from)? } else { 0 };
        self.take_command(hash, Some(key), origin, joined, from);
        Ok(ApplyOutcome::Applied)
    }

    fn take_command(&mut self, hash: KeyHash, name: Option<Key>, origin: EndpointId, command: Command, from: u32) {
        let content = self.finished(Content::Command(Box::new(command)));
        let incarnation = super::ONLY_INCARNATION;
        let record = Record {
            kind: Kind::Command,
            incarnation,
            sequence: 0,
            origin,
            name,
            lineage: Lineage::default(),
            content,
        };
        self.change(hash, record, None, true, from);
    }

    /// Converts a received command, and the time it has left to this machine's clock: at most what its issuer signed, and none
    /// if that has long passed.
    fn received(&self, incoming: IncomingCommand, body: &CommandBody) -> Result<Command, String> {
        let ranks: Option<Vec<Rank>> = incoming.ranks.iter().map(|rank| Rank::from_number(*rank)).collect();
        let ranks = ranks.ok_or("has a status this node does not know")?;
        if ranks.len() != body.targets.len() {
            return Err(format!("has {} statuses for {} targets", ranks.len(), body.targets.len()));
        }
        let most = self.now.boot_ms.saturating_add(body.ttl_ms);
        let deadline = match incoming.until {
            _ if body.ttl_ms == 0 => Deadline::Never,
            _ if is_long_past(body.expires_at, self.now.wall_ms) => Deadline::PAST,
            None => Deadline::PAST,
            Some(until) => Deadline::At { boot: self.clocks.boot, boot_ms: until.min(most) },
        };
        Ok(Command::new(incoming.signed, body, ranks, incoming.cancel_requested, deadline))
    }

    /// Returns true if the command of a result was removed here.
    pub(in crate::store) fn is_of_removed(&mut self, result: Option<&Key>) -> Result<bool, Error> {
        let Some((id, _)) = result.and_then(|key| key.id().split_once(':')) else { return Ok(false) };
        let Ok(command) = Key::new(COMMANDS, id) else { return Ok(false) };
        Ok(self.load(command.hash())?.record.as_ref().is_some_and(|record| !record.is_live()))
    }
}

impl CommandResult {
    /// Checks and converts a received result.
    pub(in crate::store) fn received(rank: u8, result: Vec<u8>, error: String) -> Result<CommandResult, String> {
        let rank = Rank::from_number(rank).filter(|rank| !matches!(rank, Rank::Pending | Rank::Expired));
        let rank = rank.ok_or("a result with a status that is no end")?;
        match (result.len(), error.len()) {
            (bytes, _) if bytes > COMMAND_RESULT_BYTES => {
                return Err(format!("a result of {bytes} bytes; the limit is {COMMAND_RESULT_BYTES}"));
            }
            (_, bytes) if bytes > COMMAND_ERROR_BYTES => {
                return Err(format!("an error of {bytes} bytes; the limit is {COMMAND_ERROR_BYTES}"));
            }
            _ if !result.is_empty() && !super::is_json(&result) => return Err("a result that is not JSON".into()),
            _ => {}
        }
        let result = String::from_utf8(result).map_err(|_| "a result that is not UTF-8")?;
        let received = CommandResult { rank, result, error, json: String::new() };
        if rank == Rank::Executing && (received.words().is_none() || !received.error.is_empty()) {
            return Err("a progress that is not words and percent".into());
        }
        Ok(received)
    }

    /// Returns the result with the JSON that reads return.
    pub(in crate::store) fn shown(self, key: Option<&Key>) -> CommandResult {
        match key {
            Some(key) => CommandResult::new(key, self.rank, self.result, self.error),
            None => self,
        }
    }
}

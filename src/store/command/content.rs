//! What a command record holds, and how two copies of one combine.

use super::json;
use super::signed::Signed;
use super::{Deadline, Rank};
use crate::mesh::CommandBody;
use crate::store::Key;

/// A command. What is behind `deadline` and `ended` is this node's own: no part of the version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// What the issuer signed.
    pub signed: Signed,
    /// One for each target, in the body's order.
    pub ranks: Vec<Rank>,
    /// Somebody asked for its end.
    pub cancel_requested: bool,
    /// Until when it may be accepted.
    pub deadline: Deadline,
    /// This node's age ([`crate::store`]'s own clock, milliseconds) when it first held it with nothing more expected.
    pub ended: Option<u64>,
    /// What a read returns.
    pub json: String,
}

/// What one target made of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandResult {
    /// Cancelled, failed or completed; or executing, for how far it is.
    pub rank: Rank,
    /// JSON, or empty. Of what is executing, the words and their number (`progress.rs`).
    pub result: String,
    /// Words.
    pub error: String,
    /// What a read returns.
    pub json: String,
}

/// Differences below this are the time copies spend on their way, and no reason to write.
const NOTICED_MS: u64 = 1_000;

impl Command {
    /// A command nobody has answered yet.
    #[must_use]
    pub(crate) fn issued(signed: Signed, body: &CommandBody, deadline: Deadline) -> Command {
        let ranks = vec![Rank::Pending; body.targets.len()];
        Command::new(signed, body, ranks, false, deadline)
    }

    pub(crate) fn new(
        signed: Signed,
        body: &CommandBody,
        ranks: Vec<Rank>,
        cancel_requested: bool,
        deadline: Deadline,
    ) -> Command {
        let json = json::command(&signed, body, &ranks, cancel_requested);
        Command { signed, ranks, cancel_requested, deadline, ended: None, json }
    }

    /// Writes anew what a read returns.
    pub(crate) fn show(&mut self) {
        self.json = json::command(&self.signed, &self.signed.read(), &self.ranks, self.cancel_requested);
    }

    /// Whether nothing more is expected of any target.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ranks.iter().all(|rank| rank.is_terminal())
    }

    /// Notes when it ended, or that it has not.
    pub(crate) fn note_end(&mut self, age_ms: u64) {
        self.ended = if self.has_ended() { self.ended.or(Some(age_ms)) } else { None };
    }

    /// What tells two versions apart beside the incarnation: the body, the statuses, the wish to cancel.
    pub(crate) fn state(&self) -> Vec<u8> {
        state(&self.signed.digest(), self.ranks.iter().map(|rank| *rank as u8), self.cancel_requested)
    }

    /// Both copies in one: of two bodies the one with the smaller digest, of each status the higher, of the time left the less.
    /// `None`: nothing in `theirs` is new.
    #[must_use]
    pub fn join(&self, theirs: &Command) -> Option<Command> {
        if self.signed != theirs.signed {
            return (theirs.signed.digest() < self.signed.digest()).then(|| theirs.clone());
        }
        let ranks: Vec<Rank> = self.ranks.iter().zip(&theirs.ranks).map(|(ours, theirs)| *ours.max(theirs)).collect();
        let cancel_requested = self.cancel_requested || theirs.cancel_requested;
        let deadline = sooner(self.deadline, theirs.deadline);
        let same = ranks == self.ranks && cancel_requested == self.cancel_requested;
        if same && deadline == self.deadline {
            return None;
        }
        let json = if same {
            self.json.clone()
        } else {
            json::command(&self.signed, &self.signed.read(), &ranks, cancel_requested)
        };
        Some(Command { signed: self.signed.clone(), ranks, cancel_requested, deadline, ended: self.ended, json })
    }
}

/// The deadline that comes first. What is not known here stays unknown, and what is not known there says nothing.
fn sooner(ours: Deadline, theirs: Deadline) -> Deadline {
    match (ours, theirs) {
        (Deadline::At { boot, boot_ms }, Deadline::At { boot: there, boot_ms: at })
            if boot == there && at.saturating_add(NOTICED_MS) <= boot_ms =>
        {
            theirs
        }
        _ => ours,
    }
}

/// See [`Command::state`].
pub(crate) fn state(digest: &[u8; 32], ranks: impl Iterator<Item = u8>, cancel_requested: bool) -> Vec<u8> {
    let mut out = digest.to_vec();
    out.extend(ranks);
    out.push(u8::from(cancel_requested));
    out
}

impl CommandResult {
    /// Of one target of the command in `key`'s id.
    pub(crate) fn new(key: &Key, rank: Rank, result: String, error: String) -> CommandResult {
        let json = json::result(key, rank, &result, &error);
        CommandResult { rank, result, error, json }
    }

    /// What tells two versions apart: the status, the result, the error.
    pub(crate) fn state(&self) -> Vec<u8> {
        result_state(self.rank as u8, &self.result, &self.error)
    }

    /// Whether `theirs` replaces this one: a higher rank, then newer words, then the greater state.
    pub(crate) fn yields_to(&self, theirs: &CommandResult) -> bool {
        let order = |result: &CommandResult| (result.rank, result.progress_number(), result.state());
        order(self) < order(theirs)
    }
}

/// See [`CommandResult::state`].
pub(crate) fn result_state(rank: u8, result: &str, error: &str) -> Vec<u8> {
    use ring::digest::{SHA256, digest};
    let mut out = vec![rank];
    out.extend_from_slice(digest(&SHA256, result.as_bytes()).as_ref());
    out.extend_from_slice(digest(&SHA256, error.as_bytes()).as_ref());
    out
}

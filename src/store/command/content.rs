//! The content of a command record, and the join of two copies.

use super::json;
use super::signed::Signed;
use super::{Deadline, Rank};
use crate::mesh::CommandBody;
use crate::store::Key;

/// A command. `deadline` and `ended` are local to this node and not part of the version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Command {
    /// Body and signature by the issuer.
    pub signed: Signed,
    /// Status of each target, in the order of the body.
    pub ranks: Vec<Rank>,
    /// True if the end of the command was requested.
    pub cancel_requested: bool,
    /// Time until which the command may be accepted.
    pub deadline: Deadline,
    /// Age of this node's database (`database_clock.rs`), in milliseconds, when it first held the command with all targets at their end.
    pub ended: Option<u64>,
    /// JSON of the command, as reads return it.
    pub json: String,
}

/// Progress or result of one target of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandResult {
    /// Cancelled, failed or completed; or executing, for progress.
    pub rank: Rank,
    /// Result as JSON, or empty. While executing: the progress and its number (`progress.rs`).
    pub result: String,
    /// Error message, or empty.
    pub error: String,
    /// JSON of the result, as reads return it.
    pub json: String,
}

/// Smallest difference between two deadlines that is stored, in milliseconds. Smaller ones are the transit times of copies.
const NOTICED_MS: u64 = 1_000;

impl Command {
    /// Returns a new command with all targets pending.
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

    /// Updates the JSON from the other fields.
    pub(crate) fn show(&mut self) {
        self.json = json::command(&self.signed, &self.signed.read(), &self.ranks, self.cancel_requested);
    }

    /// Returns true if no further status of any target is expected.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ranks.iter().all(|rank| rank.is_terminal())
    }

    /// Sets the time at which the command ended, or clears it if it has not.
    pub(crate) fn note_end(&mut self, age_ms: u64) {
        self.ended = if self.has_ended() { self.ended.or(Some(age_ms)) } else { None };
    }

    /// Returns the bytes that distinguish two versions of one incarnation: the body's digest, the statuses, the request to
    /// cancel.
    pub(crate) fn state(&self) -> Vec<u8> {
        state(&self.signed.digest(), self.ranks.iter().map(|rank| *rank as u8), self.cancel_requested)
    }

    /// Joins two copies: of different bodies the one with the smaller digest, of each status the higher, of the time left the
    /// shorter. Returns `None` if `theirs` adds nothing.
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

/// Returns the earlier deadline. A local one of another boot stays unknown, and a remote one of another boot is ignored.
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

/// Encodes [`Command::state`] from its parts.
pub(crate) fn state(digest: &[u8; 32], ranks: impl Iterator<Item = u8>, cancel_requested: bool) -> Vec<u8> {
    let mut out = digest.to_vec();
    out.extend(ranks);
    out.push(u8::from(cancel_requested));
    out
}

impl CommandResult {
    /// Returns the result of one target, which the id of `key` names together with the command.
    pub(crate) fn new(key: &Key, rank: Rank, result: String, error: String) -> CommandResult {
        let json = json::result(key, rank, &result, &error);
        CommandResult { rank, result, error, json }
    }

    /// Returns the bytes that distinguish two versions: the status, the result, the error.
    pub(crate) fn state(&self) -> Vec<u8> {
        result_state(self.rank as u8, &self.result, &self.error)
    }

    /// Returns true if `theirs` replaces this one: a higher rank, then newer progress, then the greater state.
    pub(crate) fn yields_to(&self, theirs: &CommandResult) -> bool {
        let order = |result: &CommandResult| (result.rank, result.progress_number(), result.state());
        order(self) < order(theirs)
    }
}

/// Encodes [`CommandResult::state`] from its parts.
pub(crate) fn result_state(rank: u8, result: &str, error: &str) -> Vec<u8> {
    use ring::digest::{SHA256, digest};
    let mut out = vec![rank];
    out.extend_from_slice(digest(&SHA256, result.as_bytes()).as_ref());
    out.extend_from_slice(digest(&SHA256, error.as_bytes()).as_ref());
    out
}

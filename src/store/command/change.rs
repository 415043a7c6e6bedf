//! Changes of commands that a node requests of the store.

use super::{COMMANDS, CommandError, Rank, Signed, is_json};
use crate::limits::{COMMAND_ERROR_BYTES, COMMAND_RESULT_BYTES};
use crate::store::{DocumentWrite, Key, KeyError, Put};

/// A change of one command. It is checked in the commit that makes it, so that of two conflicting changes only one passes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandWrite {
    /// Key of the command, in collection `commands` and without a colon in its id.
    pub key: Key,
    /// Change to make.
    pub change: CommandChange,
}

/// Kinds of changes; see [`CommandWrite`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandChange {
    /// Issues a new command. Issuing the same body again succeeds without a change.
    Issue(Signed),
    /// Records an agent's status.
    Report(Report),
    /// Records the progress of an agent that executes the command.
    Progress(Progress),
    /// Requests the end of the command. Those of the locally attached agents in `attached` that have not accepted it are
    /// CANCELLED at once.
    RequestCancel { attached: Vec<String> },
    /// Sets these locally attached agents, which have not accepted the command, to CANCELLED if its end was requested.
    ConfirmCancel { agents: Vec<String> },
    /// Sets these agents, which did not accept it in time, to EXPIRED.
    Expire { agents: Vec<String> },
    /// Removes the command and its results for good.
    Remove,
}

/// An agent's report on a command addressed to it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Id of the agent.
    pub agent: String,
    /// Executing, cancelled, failed or completed.
    pub rank: Rank,
    /// True if execution began earlier, so that the report is not an acceptance and the deadline does not apply.
    pub begun: bool,
    /// Result as JSON, or empty.
    pub result: String,
    /// Error message, or empty.
    pub error: String,
}

/// Progress of an agent that executes a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Id of the agent.
    pub agent: String,
    /// Text of at most [`crate::limits::COMMAND_PROGRESS_BYTES`] bytes.
    pub words: String,
    /// Percentage, 0 to 100.
    pub percent: u32,
}

impl CommandWrite {
    /// Returns a change of command `id`.
    ///
    /// # Errors
    /// `id` is not a valid document id.
    pub fn new(id: &str, change: CommandChange) -> Result<CommandWrite, KeyError> {
        Ok(CommandWrite { key: Key::new(COMMANDS, id)?, change })
    }
}

impl From<CommandWrite> for DocumentWrite {
    fn from(write: CommandWrite) -> DocumentWrite {
        let durable = !matches!(write.change, CommandChange::Progress(_));
        DocumentWrite { key: write.key, put: Put::Command(write.change), durable }
    }
}

/// Effect of a report.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Judgement {
    /// The status advances.
    Climbs,
    /// The status is the reported one already, or higher.
    Stands,
    /// The report is refused. The status advances to the given rank, if there is one.
    Refused(CommandError, Option<Rank>),
}

impl Report {
    /// Checks that an agent may make this report.
    ///
    /// # Errors
    /// The first fault found.
    pub(crate) fn check(&self) -> Result<(), CommandError> {
        let malformed = |why: &str| Err(CommandError::Malformed(why.into()));
        match self {
            _ if self.result.len() > COMMAND_RESULT_BYTES => Err(CommandError::TooLarge("result", self.result.len())),
            _ if self.error.len() > COMMAND_ERROR_BYTES => Err(CommandError::TooLarge("error", self.error.len())),
            _ if !self.result.is_empty() && !is_json(self.result.as_bytes()) => malformed("the result is not JSON"),
            _ if matches!(self.rank, Rank::Pending | Rank::Expired) => {
                malformed("an agent does not report this status")
            }
            _ => Ok(()),
        }
    }

    /// Decides the effect of the report on a target with status `held` of the command in `key`.
    pub(crate) fn judge(&self, key: &Key, held: Rank, expired: bool, cancel_requested: bool) -> Judgement {
        let key = || key.clone();
        let accepts = self.rank == Rank::Executing && !self.begun;
        match held {
            Rank::Pending if accepts && expired => {
                Judgement::Refused(CommandError::Expired(key()), Some(Rank::Expired))
            }
            Rank::Pending if accepts && cancel_requested => {
                Judgement::Refused(CommandError::Cancelled(key()), Some(Rank::Cancelled))
            }
            Rank::Expired if accepts => Judgement::Refused(CommandError::Expired(key()), None),
            Rank::Cancelled if accepts => Judgement::Refused(CommandError::Cancelled(key()), None),
            Rank::Failed | Rank::Completed if accepts => Judgement::Refused(CommandError::Ended(key()), None),
            // Any other report states what has happened, so it counts even if it is late.
            held if self.rank > held => Judgement::Climbs,
            _ => Judgement::Stands,
        }
    }
}

//! What a node asks the store to do with a command.

use super::{COMMANDS, CommandError, Rank, Signed, is_json};
use crate::limits::{COMMAND_ERROR_BYTES, COMMAND_RESULT_BYTES};
use crate::store::{Key, KeyError, Put, Write};

/// A change of one command. It is checked and carried out as one with the commit, so two that race cannot both pass.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommandWrite {
    /// In `commands`, without a colon.
    pub key: Key,
    /// What is to change.
    pub change: CommandChange,
}

/// See [`CommandWrite`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum CommandChange {
    /// A new command. The same body again is answered as done already.
    Issue(Signed),
    /// What an agent says of it.
    Report(Report),
    /// What an agent that runs it says meanwhile.
    Progress(Progress),
    /// Ask for its end. Of these agents, which are attached here, those that have not accepted it are CANCELLED at once.
    RequestCancel { attached: Vec<String> },
    /// These agents, which are attached here, have not accepted what is to be cancelled.
    ConfirmCancel { agents: Vec<String> },
    /// These did not accept it in time.
    Expire { agents: Vec<String> },
    /// Forget it, results included, for good.
    Remove,
}

/// What an agent says of a command that is for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Report {
    /// Who.
    pub agent: String,
    /// Executing, cancelled, failed or completed.
    pub rank: Rank,
    /// It began earlier, and this is no acceptance: the time left no longer matters.
    pub begun: bool,
    /// JSON, or empty.
    pub result: String,
    /// Words.
    pub error: String,
}

/// How far an agent is with a command it runs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Progress {
    /// Who.
    pub agent: String,
    /// At most [`crate::limits::COMMAND_PROGRESS_BYTES`].
    pub words: String,
    /// 0 to 100.
    pub percent: u32,
}

impl CommandWrite {
    /// A change of command `id`.
    ///
    /// # Errors
    /// That is no document id.
    pub fn new(id: &str, change: CommandChange) -> Result<CommandWrite, KeyError> {
        Ok(CommandWrite { key: Key::new(COMMANDS, id)?, change })
    }
}

impl From<CommandWrite> for Write {
    fn from(write: CommandWrite) -> Write {
        let durable = !matches!(write.change, CommandChange::Progress(_));
        Write { key: write.key, put: Put::Command(write.change), durable }
    }
}

/// What a report comes to.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Judgement {
    /// The status climbs.
    Climbs,
    /// It stands there already, or higher.
    Stands,
    /// The report is refused; the status climbs to the second, if that is not known yet.
    Refused(CommandError, Option<Rank>),
}

impl Report {
    /// Whether it is one an agent may make.
    ///
    /// # Errors
    /// What is wrong with it.
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

    /// What it comes to for a target at `held` of the command in `key`.
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
            held if self.rank > held => Judgement::Climbs,
            _ => Judgement::Stands,
        }
    }
}

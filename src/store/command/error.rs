//! Refusals of changes of commands.

use std::fmt;

use peat_ipc::Code;

use crate::limits::{COMMAND_ERROR_BYTES, COMMAND_PROGRESS_BYTES, COMMAND_RESULT_BYTES};
use crate::store::Key;

/// Reason for refusing a change of a command. The caller is to blame.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CommandError {
    /// The id is taken, by another body or by a removed command.
    Exists(Key),
    /// The command is not stored here.
    Unknown(String),
    /// The command is not addressed to this agent.
    NotForAgent { command: String, agent: String },
    /// This node does not trust the issuer of the command.
    Untrusted(String),
    /// The command was not accepted in time.
    Expired(Key),
    /// The command was cancelled, or its end was requested, before it was accepted.
    Cancelled(Key),
    /// The command was accepted and has ended; it must not begin again.
    Ended(Key),
    /// A body or a report is invalid, for this reason; a sentence without a full stop.
    Malformed(String),
    /// A result, an error or progress exceeds its limit ([`COMMAND_RESULT_BYTES`], [`COMMAND_ERROR_BYTES`],
    /// `COMMAND_PROGRESS_BYTES`): the name of the part, and its length in bytes.
    TooLarge(&'static str, usize),
}

impl CommandError {
    /// Returns the error code for the client.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            CommandError::Exists(_) => Code::AlreadyExists,
            CommandError::Unknown(_) | CommandError::NotForAgent { .. } => Code::NotFound,
            CommandError::Untrusted(_) => Code::PermissionDenied,
            CommandError::Expired(_) | CommandError::Cancelled(_) | CommandError::Ended(_) => Code::FailedPrecondition,
            CommandError::Malformed(_) => Code::InvalidArgument,
            CommandError::TooLarge(..) => Code::ResourceExhausted,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            CommandError::Exists(key) => {
                write!(f, "{key} exists with another body, or did; give a new command a new id")
            }
            CommandError::Unknown(id) => write!(f, "there is no command '{id}' here"),
            CommandError::NotForAgent { command, agent } => {
                write!(f, "command '{command}' is not for agent '{agent}'")
            }
            CommandError::Untrusted(id) => write!(f, "this node does not trust the issuer of '{id}' (--trust-issuer)"),
            CommandError::Expired(key) => write!(f, "{key} was not accepted in time; it must not be begun"),
            CommandError::Cancelled(key) => write!(f, "{key} was cancelled; it must not be begun"),
            CommandError::Ended(key) => write!(f, "{key} has ended; it must not be begun again"),
            CommandError::Malformed(why) => f.write_str(why),
            CommandError::TooLarge(what, bytes) => {
                let limit = match *what {
                    "error" => COMMAND_ERROR_BYTES,
                    "progress" => COMMAND_PROGRESS_BYTES,
                    _ => COMMAND_RESULT_BYTES,
                };
                write!(f, "the {what} is {bytes} bytes; the limit is {limit}: put what is larger into a document")
            }
        }
    }
}

impl std::error::Error for CommandError {}

//! Errors of calls: rejected by the node, or failed in transit.

use std::fmt;
use std::io;

use prost::DecodeError;

use crate::Code;
use crate::frame::FrameError;

/// The node's answer to a call that failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CallError {
    /// One of the sixteen codes.
    pub code: Code,
    /// The cause, the limit involved, and the remedy.
    pub message: String,
}

impl CallError {
    /// Creates an error with this code and message.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> CallError {
        CallError { code, message: message.into() }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for CallError {}

/// The reason that a call has no response.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The node answered with an error. The connection remains usable.
    Call(CallError),
    /// The node closed the connection and gave a reason. Every unfinished call is lost.
    Closed(CallError),
    /// The connection failed, or the node closed it without a reason. Every unfinished call is lost.
    Transport(io::Error),
    /// The node sent bytes that are not a frame.
    Frame(FrameError),
    /// The node sent a response that is not the message this method returns.
    Response(DecodeError),
    /// The node sent a frame that does not fit the call; the text names the frame and the call.
    Unexpected(&'static str),
}

impl Error {
    /// Returns the node's error, if the node answered the call.
    #[must_use]
    pub fn call(&self) -> Option<&CallError> {
        match self {
            Error::Call(error) => Some(error),
            _ => None,
        }
    }

    /// Returns true if the error is the answer to this call, so that the connection can carry further calls.
    #[must_use]
    pub fn is_call(&self) -> bool {
        matches!(self, Error::Call(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Call(error) => write!(f, "{error}"),
            Error::Closed(error) => write!(f, "the node closed the connection: {error}"),
            Error::Transport(cause) => write!(f, "the connection to the node failed: {cause}"),
            Error::Frame(cause) => write!(f, "the node does not speak peat/1: {cause}"),
            Error::Response(cause) => write!(f, "the node's response cannot be read: {cause}"),
            Error::Unexpected(what) => write!(f, "the node sent {what}"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Call(error) | Error::Closed(error) => Some(error),
            Error::Transport(cause) => Some(cause),
            Error::Frame(cause) => Some(cause),
            Error::Response(cause) => Some(cause),
            Error::Unexpected(_) => None,
        }
    }
}

impl From<CallError> for Error {
    fn from(error: CallError) -> Error {
        Error::Call(error)
    }
}

impl From<io::Error> for Error {
    fn from(cause: io::Error) -> Error {
        Error::Transport(cause)
    }
}

impl From<FrameError> for Error {
    fn from(cause: FrameError) -> Error {
        Error::Frame(cause)
    }
}

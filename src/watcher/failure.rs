//! Failures of a poll, or of a part of it.

use std::fmt;

use crate::limits::{WATCHED_ANSWER_BYTES, WATCHED_ANSWER_TIME};

/// Reason for which the agent gave no usable answer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Failure {
    /// The connection failed or broke; the cause.
    Unreachable(String),
    /// The answer was not complete within [`WATCHED_ANSWER_TIME`].
    TimedOut,
    /// The answer is larger than [`WATCHED_ANSWER_BYTES`].
    TooLarge,
    /// An HTTP status that is not 200.
    Status(u16),
    /// A redirect to another address, which is not followed.
    Redirect(u16),
    /// The server speaks HTTP/2 and nothing else.
    OnlyHttp2,
    /// The answer is gRPC, to a request that was not.
    OnlyGrpc,
    /// The answer is invalid; the cause.
    Unusable(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(why) => f.write_str(why),
            Failure::TimedOut => write!(f, "no complete answer within {WATCHED_ANSWER_TIME:?}"),
            Failure::TooLarge => {
                write!(f, "the answer is larger than {WATCHED_ANSWER_BYTES} bytes, which is the limit")
            }
            Failure::Status(status) => write!(f, "the answer has HTTP status {status}"),
            Failure::Redirect(status) => write!(
                f,
                "the answer is a redirect (HTTP status {status}), which is not followed; give --agent-addr the address \
                 that answers"
            ),
            Failure::OnlyHttp2 => {
                f.write_str("the agent speaks only HTTP/2, and this node cannot with it; let the agent allow HTTP/1.1")
            }
            Failure::OnlyGrpc => f.write_str("the answer is one of gRPC, which the request was not"),
            Failure::Unusable(why) => write!(f, "the answer cannot be used: {why}"),
        }
    }
}

impl std::error::Error for Failure {}

/// Reason for which the node did not accept a write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum NotWritten {
    /// The agent pushes its state by itself.
    Pushes,
    /// Another client changed the document since it was read.
    Outdated,
    /// Any other error, as a sentence.
    Refused(String),
}

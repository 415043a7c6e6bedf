//! Failures of subcommands: the message on stderr and the exit code.

use std::fmt;
use std::io;

use peat_ipc::{Code, Error};

use crate::config;

/// Exit codes, a stable interface for scripts.
pub(super) mod exit {
    /// Any other failure.
    pub(in crate::cli) const FAILED: u8 = 1;
    /// The command line is invalid.
    pub(in crate::cli) const USAGE: u8 = 2;
    /// The document does not exist.
    pub(in crate::cli) const NOT_FOUND: u8 = 3;
    /// No node answers.
    pub(in crate::cli) const UNREACHABLE: u8 = 4;
    /// The caller lacks the right.
    pub(in crate::cli) const NOT_ALLOWED: u8 = 5;
    /// The configuration is invalid and needs the operator (`EX_CONFIG`).
    pub(in crate::cli) const CONFIGURATION: u8 = 78;
}

/// Reason for which a subcommand ends early.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Failure {
    /// Exit code; 0 when the reader of stdout is gone.
    pub(super) code: u8,
    /// Message for the user; empty if none is needed.
    pub(super) words: String,
}

impl Failure {
    pub(super) fn new(code: u8, words: impl fmt::Display) -> Failure {
        Failure { code, words: words.to_string() }
    }

    pub(super) fn failed(words: impl fmt::Display) -> Failure {
        Failure::new(exit::FAILED, words)
    }

    pub(super) fn usage(words: impl fmt::Display) -> Failure {
        Failure::new(exit::USAGE, words)
    }

    pub(super) fn configuration(words: impl fmt::Display) -> Failure {
        Failure::new(exit::CONFIGURATION, words)
    }
}

impl From<config::Error> for Failure {
    fn from(error: config::Error) -> Failure {
        Failure::configuration(error)
    }
}

impl From<Error> for Failure {
    /// Converts the result of a call. Failures to connect are converted in [`super::remote`].
    fn from(error: Error) -> Failure {
        let code = match &error {
            Error::Call(call) => call_exit(call.code),
            Error::Closed(closed) if call_exit(closed.code) == exit::NOT_ALLOWED => exit::NOT_ALLOWED,
            Error::Closed(_) | Error::Transport(_) => exit::UNREACHABLE,
            _ => exit::FAILED,
        };
        match &error {
            Error::Call(call) => Failure::new(code, &call.message),
            error => Failure::new(code, error),
        }
    }
}

fn call_exit(code: Code) -> u8 {
    match code {
        Code::NotFound => exit::NOT_FOUND,
        Code::PermissionDenied | Code::Unauthenticated => exit::NOT_ALLOWED,
        _ => exit::FAILED,
    }
}

/// Converts a failure to write to stdout. A closed pipe is no failure: `peat-node list platforms | head -1` is fine.
pub(super) fn output_failed(cause: &io::Error) -> Failure {
    match cause.kind() {
        io::ErrorKind::BrokenPipe => Failure { code: 0, words: String::new() },
        _ => Failure::failed(format!("standard output: {cause}")),
    }
}

#[cfg(test)]
mod tests {
    use peat_ipc::CallError;

    use super::*;

    #[test]
    fn every_code_has_its_documented_exit() {
        for code in Code::ALL {
            let failure = Failure::from(Error::Call(CallError::new(code, "words")));
            let expected = match code {
                Code::NotFound => 3,
                Code::PermissionDenied | Code::Unauthenticated => 5,
                _ => 1,
            };
            assert_eq!((failure.code, failure.words.as_str()), (expected, "words"), "{code:?}");
        }
        let lost = Error::Transport(io::ErrorKind::ConnectionReset.into());
        assert_eq!(Failure::from(lost).code, 4);
    }
}

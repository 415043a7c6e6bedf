//! Positions in the index that a reader resumes from, and the check that they are still valid.
//!
//! A scan that has not reached the end of its snapshot has passed the places of records that moved behind it, and has returned
//! versions that a crash may take back. Its position alone proves nothing: it is valid as long as the whole snapshot is part
//! of the database's history (docs/storage.md, "Tokens").

use crate::store::{Error, RunId, Snapshot};

/// Length of a run's id, in bytes.
const RUN_BYTES: usize = 16;

/// A position from which a reader of the index can resume.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Token {
    /// Run that both numbers belong to.
    pub run: RunId,
    /// Sequence number up to which the reader has every record that has not moved since.
    pub sequence: u64,
    /// Newest sequence number of the snapshots that the reader has read. If a commit up to here is undone, by a crash or by a
    /// restored backup, the reader would lack what returned and keep what was undone.
    pub horizon: u64,
}

impl Token {
    /// Encodes the run for clients: its id, followed by the horizon, big-endian, if that is above the sequence number.
    #[must_use]
    pub fn run_bytes(&self) -> Vec<u8> {
        let mut bytes = self.run.0.to_vec();
        if self.horizon > self.sequence {
            bytes.extend(self.horizon.to_be_bytes());
        }
        bytes
    }

    /// Parses the run, the inverse of [`Token::run_bytes`]; `None` for any other bytes.
    #[must_use]
    pub fn parse(run: &[u8], sequence: u64) -> Option<Token> {
        let (run, rest) = run.split_first_chunk::<RUN_BYTES>()?;
        let horizon = match rest {
            [] => sequence,
            rest => u64::from_be_bytes(rest.try_into().ok()?),
        };
        Some(Token { run: RunId(*run), sequence, horizon })
    }
}

impl Snapshot {
    /// Returns the token of a reader in run `run` that has read this snapshot up to `sequence`.
    #[must_use]
    pub fn token(&self, run: RunId, sequence: u64) -> Token {
        Token { run, sequence, horizon: self.visible() }
    }

    /// Returns true if a reader that resumes from `token` misses nothing and keeps nothing that was undone.
    ///
    /// # Errors
    /// The disk failed.
    pub fn knows(&self, token: &Token) -> Result<bool, Error> {
        self.token_is_known(token.run, token.sequence.max(token.horizon))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_comes_back_as_it_was_given() {
        let run = RunId([7; RUN_BYTES]);
        for (sequence, horizon, length) in [(5, 5, 16), (5, 9, 24), (0, u64::MAX, 24)] {
            let token = Token { run, sequence, horizon };
            let bytes = token.run_bytes();
            assert_eq!((bytes.len(), Token::parse(&bytes, sequence)), (length, Some(token)));
        }
        for wrong in [0, 15, 17, 23, 25] {
            assert_eq!(Token::parse(&vec![7; wrong], 5), None, "{wrong} bytes");
        }
    }
}

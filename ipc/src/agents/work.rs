//! The worker threads, and the command as a handler sees it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::clock;
use super::jobs::{Permit, update};
use super::once::{self, Attempt};
use super::shared::Shared;
use crate::agent::CommandUpdate;
use crate::agent::command_update::Stage;
use crate::sidecar::Command;

/// Function that runs a command.
pub(super) type Handler = Box<dyn Fn(&Work<'_>) -> Outcome + Send + Sync>;

/// Interval at which a waiting worker retries after a failure of the ledger; any change wakes it earlier.
const LOOK: Duration = Duration::from_secs(1);

/// The node's limits on a result, an error message and a progress message.
const RESULT_BYTES: usize = 256 << 10;
const ERROR_BYTES: usize = 4 << 10;
const PROGRESS_BYTES: usize = 1 << 10;

/// The end of a command.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The command succeeded; the result is JSON or empty.
    Completed(String),
    /// The command failed; the text is the error message.
    Failed(String),
    /// The command ended because its sender cancelled it.
    Cancelled,
}

impl<E: fmt::Display> From<Result<String, E>> for Outcome {
    fn from(result: Result<String, E>) -> Outcome {
        match result {
            Ok(json) => Outcome::Completed(json),
            Err(words) => Outcome::Failed(words.to_string()),
        }
    }
}

impl Outcome {
    fn update(self, id: &str) -> CommandUpdate {
        match self {
            Outcome::Completed(result) if result.len() > RESULT_BYTES => {
                let error = format!("the result has {} bytes; the limit is {RESULT_BYTES}", result.len());
                CommandUpdate { error, ..update(id, Stage::Failed) }
            }
            Outcome::Completed(result_json) => CommandUpdate { result_json, ..update(id, Stage::Completed) },
            Outcome::Failed(mut error) => {
                error.truncate(boundary(&error, ERROR_BYTES));
                CommandUpdate { error, ..update(id, Stage::Failed) }
            }
            Outcome::Cancelled => update(id, Stage::Cancelled),
        }
    }
}

/// Returns the longest prefix length of `text` that is at most `most` bytes and ends on a character boundary.
fn boundary(text: &str, most: usize) -> usize {
    (0..=text.len().min(most)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A command while it runs.
#[derive(Debug)]
pub struct Work<'a> {
    shared: &'a Shared,
    command: Command,
    cancel: Arc<AtomicBool>,
}

impl Work<'_> {
    /// Returns the command's id. A command with this id never runs a second time.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.command.id
    }

    /// Returns the command's type.
    #[must_use]
    pub fn command_type(&self) -> &str {
        &self.command.command_type
    }

    /// Returns the command's payload, which is JSON.
    #[must_use]
    pub fn payload_json(&self) -> &str {
        &self.command.payload_json
    }

    /// Returns the whole command.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Returns true if the sender has cancelled the command. A handler that stops for this reason returns
    /// [`Outcome::Cancelled`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// Reports progress, up to 1 KiB of text. The node publishes the newest report, at most one every five seconds; reports are
    /// lost while the node is unreachable.
    pub fn progress(&self, words: impl Into<String>, percent: u32) {
        let mut progress = words.into();
        progress.truncate(boundary(&progress, PROGRESS_BYTES));
        let mut inner = self.shared.lock();
        inner.jobs.report(CommandUpdate { progress, percent, ..update(self.id(), Stage::Progress) });
        if inner.terms.is_some() {
            inner.tell();
        }
    }

    /// Runs work under a key that names its effect, so that a retry of it under a new command id does not repeat it. While
    /// another command runs work under the same key, this one waits for it and shares its result. If the agent lost its node or
    /// was restarted before the node confirmed that command, the result is reused for an hour. Once the node has confirmed the
    /// command, the key is free and the work runs again. Failures are not reused.
    ///
    /// # Errors
    /// The work failed, or this command was cancelled while it waited; the text is the error message.
    pub fn once(
        &self,
        content_key: &str,
        work: impl FnOnce(&Attempt) -> Result<String, String>,
    ) -> Result<String, String> {
        once::once(self.shared, self.id(), &self.cancel, content_key, work)
    }
}

/// Runs one worker: takes commands until the agent leaves.
pub(super) fn run(shared: &Shared) {
    while let Some(work) = next(shared) {
        let Some(handler) = &shared.handler else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| handler(&work)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed("the handler panicked".into()));
        let mut inner = shared.lock();
        // An outcome that the ledger could not record is reported all the same; after a restart the command counts as
        // interrupted.
        let ended = inner.jobs.end(outcome.update(work.id()));
        inner.recorded(ended);
        inner.tell();
        drop(inner);
        shared.notify();
    }
}

/// Blocks until a command may begin, and returns it; `None` once the agent is leaving.
fn next(shared: &Shared) -> Option<Work<'_>> {
    let mut inner = shared.lock();
    loop {
        if inner.leaving {
            return None;
        }
        let handed = inner.handed.pop_front();
        let taken = handed.map_or_else(|| inner.jobs.take(clock::now()), |handed| Ok(Some(handed)));
        let Some((command, cancel)) = inner.recorded(taken).flatten() else {
            inner = shared.wait_for_work(inner, LOOK);
            continue;
        };
        inner.tell();
        let prepared = inner.jobs.prepare(&command.id);
        inner.recorded(prepared);
        loop {
            if inner.leaving {
                return None;
            }
            let permit = inner.jobs.permit(&command.id);
            match inner.recorded(permit) {
                Some(Permit::Begin) => return Some(Work { shared, command, cancel }),
                Some(Permit::Refused) => break,
                Some(Permit::Wait) | None => inner = shared.wait(inner, LOOK),
            }
        }
    }
}

//! The threads that run commands, and what a handler is given.

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

/// What runs commands.
pub(super) type Handler = Box<dyn Fn(&Work<'_>) -> Outcome + Send + Sync>;

/// How long to wait before the ledger is tried again; every change wakes a worker earlier.
const LOOK: Duration = Duration::from_secs(1);

/// What a node takes of a result, and of words.
const RESULT_BYTES: usize = 256 << 10;
const ERROR_BYTES: usize = 4 << 10;
const PROGRESS_BYTES: usize = 1 << 10;

/// How a command ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// Well; the result is JSON, or empty.
    Completed(String),
    /// Not well; in words.
    Failed(String),
    /// Because its sender asked for that.
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

/// How much of `text` is kept.
fn boundary(text: &str, most: usize) -> usize {
    (0..=text.len().min(most)).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// A command that is being run.
#[derive(Debug)]
pub struct Work<'a> {
    shared: &'a Shared,
    command: Command,
    cancel: Arc<AtomicBool>,
}

impl Work<'_> {
    /// The command's id: nothing with this id runs a second time.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.command.id
    }

    /// What kind of command it is.
    #[must_use]
    pub fn command_type(&self) -> &str {
        &self.command.command_type
    }

    /// What it brings, JSON.
    #[must_use]
    pub fn payload_json(&self) -> &str {
        &self.command.payload_json
    }

    /// The whole of it.
    #[must_use]
    pub fn command(&self) -> &Command {
        &self.command
    }

    /// Whether its sender wants it to end. A handler that ends for that reason says [`Outcome::Cancelled`].
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancel.load(Ordering::Acquire)
    }

    /// Shows how far it is to whoever watches: the newest words, every five seconds at most, up to 1 KiB. Lost when the node
    /// cannot be reached.
    pub fn progress(&self, words: impl Into<String>, percent: u32) {
        let mut progress = words.into();
        progress.truncate(boundary(&progress, PROGRESS_BYTES));
        let mut inner = self.shared.lock();
        inner.jobs.report(CommandUpdate { progress, percent, ..update(self.id(), Stage::Progress) });
        if inner.terms.is_some() {
            inner.tell();
        }
    }

    /// Does work under a key that says what is done, so that a retry under a new id does not do it again: while the work of
    /// another command runs under the key, this one waits for it and shares its result. When the agent lost its node, or was
    /// restarted, before the command of that result got through, the result is used again for an hour. A command that got
    /// through is over: the same key then begins anew. A failure is not used again.
    ///
    /// # Errors
    /// The work failed, or this command was cancelled while it waited; in words.
    pub fn once(
        &self,
        content_key: &str,
        work: impl FnOnce(&Attempt) -> Result<String, String>,
    ) -> Result<String, String> {
        once::once(self.shared, self.id(), &self.cancel, content_key, work)
    }
}

/// One worker: takes commands until the agent leaves.
pub(super) fn run(shared: &Shared) {
    while let Some(work) = next(shared) {
        let Some(handler) = &shared.handler else { return };
        let outcome = catch_unwind(AssertUnwindSafe(|| handler(&work)));
        let outcome = outcome.unwrap_or_else(|_| Outcome::Failed("the handler panicked".into()));
        let mut inner = shared.lock();
        // What could not be written down is told all the same; after a restart the command counts as interrupted.
        let ended = inner.jobs.end(outcome.update(work.id()));
        inner.recorded(ended);
        inner.tell();
        drop(inner);
        shared.notify();
    }
}

/// Waits for a command that may begin; `None`: the agent leaves.
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

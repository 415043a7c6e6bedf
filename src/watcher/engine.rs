//! Schedule of the polls, and the writes that follow an answer. The order of calls is in [`crate::watcher`].

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::answer::{self, Question};
use super::failure::{Failure, NotWritten};
use super::held::{Read, StoredDocuments, WatchedWrite};
use crate::clock::Now;
use crate::log_limit::LogLimit;
use crate::store::{Key, KeyError};

/// Configuration of the watcher.
#[derive(Clone, Debug)]
pub struct WatcherConfig {
    /// Id of the agent in documents: the node's own id.
    pub agent: String,
    /// Address of the agent, for the log.
    pub address: String,
    /// Interval between polls.
    pub poll_interval: Duration,
    /// Interval at which an unchanged platform is written, as the agent's sign of life.
    pub heartbeat: Duration,
}

/// Next step of a poll.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// Read from the node; report the result with [`Watcher::handle_held`].
    Read(Read),
    /// Query the agent; report the answer with [`Watcher::handle_answer`].
    Ask(Question),
    /// Write to the node; report the result with [`Watcher::handle_written`].
    Write(WatchedWrite),
}

/// A line for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// A failure began or continues.
    Warning(String),
    /// A failure ended, or the agent's mode changed.
    Info(String),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Note::Warning(words) | Note::Info(words)) = self;
        f.write_str(words)
    }
}

/// Engine that watches one agent. Sans I/O.
#[derive(Debug)]
pub struct Watcher {
    config: WatcherConfig,
    platform: Key,
    next_poll: Instant,
    /// Time at which the current poll was due. Periods of writes count from it, so that slow answers do not stretch them.
    begun: Instant,
    tasks: VecDeque<Task>,
    /// The write given out as the last task, until its result is reported.
    writing: Option<WatchedWrite>,
    /// Documents that the node holds; `None`: they must be read first.
    held: Option<StoredDocuments>,
    /// Time at which `held` was last compared with the node.
    read_at: Option<Instant>,
    /// Time of the last write of the platform.
    refreshed: Option<Instant>,
    failing: BTreeSet<Question>,
    quiet: bool,
    notes: VecDeque<Note>,
    limit: LogLimit,
}

impl Watcher {
    /// Returns a watcher that polls for the first time at once.
    ///
    /// # Errors
    /// The node's id cannot be the id of a document.
    pub fn new(config: WatcherConfig, now: Now) -> Result<Watcher, KeyError> {
        Ok(Watcher {
            platform: Key::new(Question::Status.collection(), config.agent.as_str())?,
            config,
            next_poll: now.mono,
            begun: now.mono,
            tasks: VecDeque::new(),
            writing: None,
            held: None,
            read_at: None,
            refreshed: None,
            failing: BTreeSet::new(),
            quiet: false,
            notes: VecDeque::new(),
            limit: LogLimit::default(),
        })
    }

    /// Changes the interval at which an unchanged platform is written.
    pub fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.config.heartbeat = heartbeat;
    }

    /// Returns the time at which the next poll begins.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        self.next_poll
    }

    /// Begins a poll when one is due. Polls missed because the agent was slow are skipped.
    pub fn handle_timeout(&mut self, now: Now) {
        if !now.reached(self.next_poll) {
            return;
        }
        self.begun = self.next_poll;
        while now.reached(self.next_poll) {
            self.begun = self.next_poll;
            self.next_poll += self.config.poll_interval;
        }
        self.tasks.clear();
        self.tasks.extend(self.what_to_read().map(Task::Read));
        self.tasks.extend(Question::ALL.map(Task::Ask));
    }

    /// Returns the next step; `None`: the poll is over.
    #[must_use]
    pub fn poll_task(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        if let Task::Write(write) = &task {
            self.writing = Some(write.clone());
        }
        Some(task)
    }

    /// Returns the next line for the log.
    #[must_use]
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// Processes the documents that the node holds, or the reason for which they cannot be read.
    pub fn handle_held(&mut self, held: Result<StoredDocuments, String>) {
        match held {
            Ok(held) => {
                self.held = Some(held.of_agent(&self.config.agent));
                self.read_at = Some(self.begun);
            }
            Err(why) => {
                self.held = None;
                self.tasks.clear();
                self.notes
                    .push_back(Note::Warning(format!("what is known of the watched agent cannot be read: {why}")));
            }
        }
    }

    /// Processes the agent's answer, or the failure to get one.
    pub fn handle_answer(&mut self, now: Now, question: Question, answer: Result<Vec<u8>, Failure>) {
        let said = answer.and_then(|body| answer::read(&self.config.agent, question, &body));
        let said = match said {
            Ok(said) => said,
            Err(failure) => return self.note_failure(now, question, &failure),
        };
        self.note_answer(now, question, said.nameless);
        let Some(held) = &self.held else { return };
        let last_seen = now.wall_ms.div_euclid(1000);
        let writes = match question {
            Question::Status => {
                let refresh = self.refreshed.is_none_or(|at| self.begun >= at + self.config.heartbeat);
                let fields = said.documents.get(&self.platform);
                let write = fields.and_then(|fields| held.platform(&self.platform, fields, refresh, last_seen));
                write.into_iter().collect()
            }
            Question::Packages | Question::Pulled => held.changes(question, said.documents, last_seen),
        };
        // Writes come before the next question, so that a slow answer to it does not delay them.
        for write in writes.into_iter().rev() {
            self.tasks.push_front(Task::Write(write));
        }
    }

    /// Processes the result of the last write: the new version of the document, or the reason for which it was not written.
    pub fn handle_written(&mut self, now: Now, result: Result<Vec<u8>, NotWritten>) {
        let Some(write) = self.writing.take() else { return };
        match result {
            Ok(version) => self.note_written(write, version),
            Err(NotWritten::Pushes) => self.give_way(),
            // Another client writes here too: compare with the node at the next poll.
            Err(NotWritten::Outdated) => self.read_at = None,
            Err(NotWritten::Refused(why)) => {
                let complaint =
                    format!("{}/{} of the watched agent is not written", write.key().collection(), write.key().id());
                if self.limit.allows(now, &complaint) {
                    self.notes.push_back(Note::Warning(format!("{complaint}: {why}")));
                }
            }
        }
    }

    fn note_written(&mut self, write: WatchedWrite, version: Vec<u8>) {
        if std::mem::take(&mut self.quiet) {
            // The agent's own writes of the meantime are unknown: read everything with the next poll.
            self.held = None;
            self.tasks.clear();
            self.notes
                .push_back(Note::Info("the watched agent no longer pushes by itself; it is watched again".into()));
            return;
        }
        if *write.key() == self.platform {
            self.refreshed = Some(self.begun);
        }
        if let Some(held) = &mut self.held {
            held.note(write, version);
        }
    }

    /// Yields to an agent that pushes by itself. Each poll then tries the platform, and ends when that is rejected too.
    fn give_way(&mut self) {
        self.tasks.clear();
        self.held = Some(StoredDocuments::default());
        (self.read_at, self.refreshed) = (None, None);
        if !std::mem::replace(&mut self.quiet, true) {
            self.notes.push_back(Note::Info("the watched agent pushes by itself; nothing is written for it".into()));
        }
    }

    /// Returns the read of this poll: everything before the first comparison; then, once per heartbeat interval, the documents
    /// that should exist, so that a change by another client is corrected.
    fn what_to_read(&self) -> Option<Read> {
        let Some(held) = &self.held else { return Some(Read::Everything) };
        let due = self.read_at.is_none_or(|at| self.begun >= at + self.config.heartbeat);
        due.then(|| Read::These(held.0.keys().cloned().chain([self.platform.clone()]).collect()))
    }

    fn note_failure(&mut self, now: Now, question: Question, failure: &Failure) {
        self.failing.insert(question);
        let complaint = format!("watched agent {}: {question}: {failure}", self.config.address);
        if self.limit.allows(now, &complaint) {
            self.notes.push_back(Note::Warning(complaint));
        }
    }

    fn note_answer(&mut self, now: Now, question: Question, nameless: usize) {
        let words = format!("watched agent {}: {question} is answered again", self.config.address);
        if self.failing.remove(&question) && self.limit.allows(now, &words) {
            self.notes.push_back(Note::Info(words));
        }
        let complaint =
            format!("watched agent {}: {question}: entries without a usable name are left out", self.config.address);
        if nameless > 0 && self.limit.allows(now, &complaint) {
            self.notes.push_back(Note::Warning(format!("{complaint}, {nameless} of them")));
        }
    }
}

//! The schedule, and what follows an answer. The order of calls is in [`crate::watcher`].

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::answer::{self, Question};
use super::failure::{Failure, NotWritten};
use super::held::{Held, Read, Write};
use crate::clock::Now;
use crate::log_limit::LogLimit;
use crate::store::{Key, KeyError};

/// What the watcher needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// What the documents call the agent: the node's own id.
    pub agent: String,
    /// Where it answers, for the log.
    pub address: String,
    /// From one poll to the next.
    pub poll_interval: Duration,
    /// How often the platform is written when nothing changes.
    pub heartbeat: Duration,
}

/// What is to be done next.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Task {
    /// Read from the node; tell [`Watcher::handle_held`].
    Read(Read),
    /// Ask the agent; tell [`Watcher::handle_answer`].
    Ask(Question),
    /// Write to the node; tell [`Watcher::handle_written`].
    Write(Write),
}

/// Words for the log.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Note {
    /// Something is wrong.
    Warning(String),
    /// Something is well again, or of interest.
    Info(String),
}

impl std::fmt::Display for Note {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Note::Warning(words) | Note::Info(words)) = self;
        f.write_str(words)
    }
}

/// Watches one agent. Sans I/O.
#[derive(Debug)]
pub struct Watcher {
    config: Config,
    platform: Key,
    next_poll: Instant,
    /// When the current poll was due. Its writes count from here, so that slow answers do not stretch the periods.
    begun: Instant,
    tasks: VecDeque<Task>,
    /// What the task given out last was, as far as it is needed when it is done.
    writing: Option<Write>,
    /// `None`: to be read first.
    held: Option<Held>,
    /// When what is held was last compared with what the node really holds.
    read_at: Option<Instant>,
    /// When the platform was last written.
    refreshed: Option<Instant>,
    failing: BTreeSet<Question>,
    quiet: bool,
    notes: VecDeque<Note>,
    limit: LogLimit,
}

impl Watcher {
    /// A watcher that polls for the first time at once.
    ///
    /// # Errors
    /// The node's id cannot be the id of a document.
    pub fn new(config: Config, now: Now) -> Result<Watcher, KeyError> {
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

    /// How often the platform is written when nothing changes, from now on.
    pub fn set_heartbeat(&mut self, heartbeat: Duration) {
        self.config.heartbeat = heartbeat;
    }

    /// When the next poll begins.
    #[must_use]
    pub fn poll_deadline(&self) -> Instant {
        self.next_poll
    }

    /// Begins a poll when one is due. Polls that were missed, because the agent was slow, are left out.
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

    /// What to do next; `None`: the poll is over.
    #[must_use]
    pub fn poll_task(&mut self) -> Option<Task> {
        let task = self.tasks.pop_front()?;
        if let Task::Write(write) = &task {
            self.writing = Some(write.clone());
        }
        Some(task)
    }

    /// The next words for the log.
    #[must_use]
    pub fn poll_note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// What the node holds; in words, why it cannot be read.
    pub fn handle_held(&mut self, held: Result<Held, String>) {
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

    /// The agent answered, or did not.
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
        // Before the next question, so that what one answer brought does not wait for a slow one after it.
        for write in writes.into_iter().rev() {
            self.tasks.push_front(Task::Write(write));
        }
    }

    /// The write that was the last task was carried out, and the document has this version now; or it was not.
    pub fn handle_written(&mut self, now: Now, result: Result<Vec<u8>, NotWritten>) {
        let Some(write) = self.writing.take() else { return };
        match result {
            Ok(version) => self.note_written(write, version),
            Err(NotWritten::Pushes) => self.give_way(),
            // To be read again: somebody else writes here too.
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

    fn note_written(&mut self, write: Write, version: Vec<u8>) {
        if std::mem::take(&mut self.quiet) {
            // What the agent wrote meanwhile is not known here: begin anew with the next poll.
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

    /// The agent speaks for itself. Each poll tries the platform, and ends when that is refused too.
    fn give_way(&mut self) {
        self.tasks.clear();
        self.held = Some(Held::default());
        (self.read_at, self.refreshed) = (None, None);
        if !std::mem::replace(&mut self.quiet, true) {
            self.notes.push_back(Note::Info("the watched agent pushes by itself; nothing is written for it".into()));
        }
    }

    /// Everything before the first comparison; once in every heartbeat period what should be there, so that what somebody
    /// else deleted or changed does not stay so.
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

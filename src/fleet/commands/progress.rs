//! Rate limit of progress reports on their way to the store: the newest report of each command, and not too often.
//!
//! Holds the latest report of each command and target, and nothing durable. However often an agent reports, its progress with one
//! command is written at most once per [`COMMAND_PROGRESS_INTERVAL`], and writes of any progress are at least
//! [`COMMAND_PROGRESS_GAP`] apart.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits::{COMMAND_PROGRESS_GAP, COMMAND_PROGRESS_INTERVAL, COMMAND_PROGRESS_NOTES};
use crate::store::{CommandChange, CommandWrite, Progress};

#[derive(Debug)]
struct Note {
    /// Newest report; `None` once written, while the entry is kept to enforce the interval.
    said: Option<Progress>,
    /// Earliest time of the next write.
    ready: Instant,
}

/// Pending progress reports; see the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// Reports by command and agent.
    notes: BTreeMap<(String, String), Note>,
    /// Earliest time of the next write of any report.
    next: Option<Instant>,
}

impl Notes {
    pub(super) fn add(&mut self, now: Instant, command: &str, said: Progress) {
        let key = (command.to_owned(), said.agent.clone());
        if !self.notes.contains_key(&key) && self.notes.len() >= COMMAND_PROGRESS_NOTES {
            self.notes.retain(|_, note| note.said.is_some() || note.ready > now);
            if self.notes.len() >= COMMAND_PROGRESS_NOTES {
                return;
            }
        }
        self.notes.entry(key).or_insert(Note { said: None, ready: now }).said = Some(said);
    }

    /// Discards the progress of a command that ended or was removed.
    pub(super) fn remove(&mut self, command: &str, agent: &str) {
        self.notes.remove(&(command.to_owned(), agent.to_owned()));
    }

    /// Returns the report to write, if the rate limit allows one now and the write queue has room.
    pub(super) fn poll(&mut self, now: Instant, room: bool) -> Option<CommandWrite> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        if !room {
            self.next = Some(now + COMMAND_PROGRESS_GAP);
            return None;
        }
        let waiting = self.notes.iter_mut().filter(|(_, note)| note.said.is_some() && note.ready <= now);
        let ((command, _), note) = waiting.min_by_key(|(_, note)| note.ready)?;
        let said = note.said.take()?;
        note.ready = now + COMMAND_PROGRESS_INTERVAL;
        self.next = Some(now + COMMAND_PROGRESS_GAP);
        CommandWrite::new(command, CommandChange::Progress(said)).ok()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let ready = self.notes.values().filter(|note| note.said.is_some()).map(|note| note.ready).min()?;
        Some(self.next.map_or(ready, |next| next.max(ready)))
    }
}

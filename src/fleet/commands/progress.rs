//! What agents say of commands in progress, on its way to the store: the newest words, and not too often.
//!
//! Holds a few words for each command that is talked about and nothing durable. Must never let an agent that talks much
//! write much: the words of one command are written every [`COMMAND_PROGRESS_INTERVAL`] at most, those of all of them
//! [`COMMAND_PROGRESS_GAP`] apart.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits::{COMMAND_PROGRESS_GAP, COMMAND_PROGRESS_INTERVAL, COMMAND_PROGRESS_NOTES};
use crate::store::{CommandChange, CommandWrite, Progress};

#[derive(Debug)]
struct Note {
    /// `None`: written; kept until the next may be.
    said: Option<Progress>,
    /// Not written before.
    ready: Instant,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(super) struct Notes {
    /// By command and agent.
    notes: BTreeMap<(String, String), Note>,
    /// No write before.
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

    /// The command is over, or gone.
    pub(super) fn remove(&mut self, command: &str, agent: &str) {
        self.notes.remove(&(command.to_owned(), agent.to_owned()));
    }

    /// What to write, if it may be now and there is room.
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

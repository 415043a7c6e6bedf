//! The stream of one agent: what waits to be sent on it, and how much the agent will take.
//!
//! Answers that wait are bounded: an agent that sends and does not read its stream loses it, and resumes by registering again. What
//! is pushed waits by name, and is read when the agent takes it, so that an agent which reads is never given more than it takes.

use std::collections::{BTreeSet, VecDeque};

use peat_ipc::agent::NodeMessage;
use peat_ipc::prost::Message;
use peat_ipc::{CallError, Code};

use crate::fleet::commands::Push;
use crate::limits::{AGENT_QUEUE_BYTES, AGENT_QUEUE_MESSAGES};

#[derive(Debug, Default)]
pub(super) struct Link {
    queue: VecDeque<NodeMessage>,
    bytes: usize,
    credit: u32,
    /// Commands its Register spoke of: it has them, whatever the store knows yet.
    reported: BTreeSet<String>,
    /// What is to be pushed, once the answers before it are taken.
    pushes: VecDeque<Push>,
}

impl Link {
    pub(super) fn new(credit: u32) -> Link {
        Link { credit, ..Link::default() }
    }

    pub(super) fn grant(&mut self, items: u32) {
        self.credit = self.credit.saturating_add(items);
    }

    /// The agent has registered, and spoke of these commands.
    pub(super) fn registered(&mut self, reported: impl Iterator<Item = String>) {
        self.reported.extend(reported);
    }

    /// Whether the agent has this command, by its own word.
    pub(super) fn has(&self, command: &str) -> bool {
        self.reported.contains(command)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: too much waits already.
    pub(super) fn push(&mut self, message: NodeMessage) -> Result<(), CallError> {
        self.bytes += message.encoded_len();
        self.queue.push_back(message);
        if self.queue.len() <= AGENT_QUEUE_MESSAGES && self.bytes <= AGENT_QUEUE_BYTES {
            return Ok(());
        }
        let message = format!(
            "the agent does not read its stream: {} messages of {} bytes wait, the limits are {AGENT_QUEUE_MESSAGES} and \
             {AGENT_QUEUE_BYTES}; register again",
            self.queue.len(),
            self.bytes
        );
        Err(CallError::new(Code::ResourceExhausted, message))
    }

    /// Notes something to push.
    pub(super) fn push_later(&mut self, push: Push) {
        self.pushes.push_back(push);
    }

    /// What is to be pushed next, if the agent takes it now.
    pub(super) fn take_push(&mut self) -> Option<Push> {
        if self.credit == 0 || !self.queue.is_empty() {
            return None;
        }
        self.pushes.pop_front()
    }

    /// Sends what waits, within the credit and while `sink` says that there is room for more.
    pub(super) fn advance(&mut self, mut sink: impl FnMut(&NodeMessage) -> bool) {
        let mut room = true;
        while room
            && self.credit > 0
            && let Some(message) = self.queue.pop_front()
        {
            self.bytes -= message.encoded_len();
            self.credit -= 1;
            room = sink(&message);
        }
    }
}

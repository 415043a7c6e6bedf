//! The stream of one agent: messages to send, and the agent's credit.
//!
//! Queued answers are bounded: an agent that sends and does not read its stream loses it, and resumes by registering again. A
//! push is queued by name and read from the store when the agent takes it, so that its queue takes no memory for bodies.

use std::collections::{BTreeSet, VecDeque};

use peat_ipc::agent::NodeMessage;
use peat_ipc::prost::Message;
use peat_ipc::{CallError, Code};

use crate::fleet::commands::Push;
use crate::limits::{AGENT_QUEUE_BYTES, AGENT_QUEUE_MESSAGES};

/// The stream of one agent.
#[derive(Debug, Default)]
pub(super) struct AgentStream {
    queue: VecDeque<NodeMessage>,
    bytes: usize,
    credit: u32,
    /// Commands that the agent's Register reported: the agent has them, even if the store has no report yet.
    reported: BTreeSet<String>,
    /// Commands and cancellations to push once the answers before them are taken.
    pushes: VecDeque<Push>,
}

impl AgentStream {
    pub(super) fn new(credit: u32) -> AgentStream {
        AgentStream { credit, ..AgentStream::default() }
    }

    pub(super) fn grant(&mut self, items: u32) {
        self.credit = self.credit.saturating_add(items);
    }

    /// Notes the commands that the agent reported when it registered.
    pub(super) fn registered(&mut self, reported: impl Iterator<Item = String>) {
        self.reported.extend(reported);
    }

    /// Returns true if the agent has reported this command.
    pub(super) fn has(&self, command: &str) -> bool {
        self.reported.contains(command)
    }

    /// Queues a message.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED: the queue exceeds its limit.
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

    /// Queues a push.
    pub(super) fn push_later(&mut self, push: Push) {
        self.pushes.push_back(push);
    }

    /// Returns the next push if the agent has credit for it and no answer is queued.
    pub(super) fn take_push(&mut self) -> Option<Push> {
        if self.credit == 0 || !self.queue.is_empty() {
            return None;
        }
        self.pushes.pop_front()
    }

    /// Sends queued messages, within the credit and while `sink` returns true (room for more).
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

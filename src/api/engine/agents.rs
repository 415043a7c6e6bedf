//! Streams of agents, and watches of the agents.

use peat_ipc::agent::{AgentMessage, CommandUpdate, NodeMessage, agent_message};
use peat_ipc::envelope::Request as RequestFrame;
use peat_ipc::method::Response;
use peat_ipc::prost::Message;
use peat_ipc::{CallError, Code};

use super::Engine;
use crate::api::agents;
use crate::api::call::{self, Call, CallStage};
use crate::api::connection::{ConnectionId, violation};
use crate::api::feed::Progress;
use crate::api::link::AgentStream;
use crate::clock::Now;
use crate::fleet::{Owner, StreamId};
use crate::limits::AGENT_MESSAGE_BYTES;
use crate::schema::Described as _;

impl Engine {
    // Streams of agents.

    /// Begins the stream of an agent; the request may carry its first message.
    pub(super) fn begin_link(&mut self, now: Now, id: ConnectionId, call: u64, frame: &RequestFrame) {
        let Some(owner) = self.owner(id) else { return };
        if let Err(error) = self.links.take(self.principal(id)) {
            return self.refuse(now, id, call, frame.method, &error);
        }
        self.method = frame.method;
        let deadline =
            (frame.deadline_ms != 0).then(|| now.after(std::time::Duration::from_millis(frame.deadline_ms.into())));
        let number = self.register(id, call, CallStage::Link(AgentStream::new(frame.credit)), deadline, 0);
        self.begin_stream(id, call);
        self.fleet.handle_open(StreamId(number), owner);
        if !frame.payload.is_empty() {
            self.link_message(now, number, &frame.payload);
        }
    }

    pub(super) fn owner(&self, id: ConnectionId) -> Option<Owner> {
        self.connections.get(&id).map(|connection| agents::owner(&connection.caller))
    }

    /// Handles another message of a client stream.
    pub(super) fn upload(&mut self, now: Now, id: ConnectionId, call: u64, bytes: &[u8]) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        // An upload for a call that has just ended may still arrive.
        let Some(number) = number else { return };
        match self.calls.get(&number) {
            Some(Call { stage: CallStage::Link(_), .. }) => self.link_message(now, number, bytes),
            _ => self.fail(now, id, &violation(format!("call {call} takes no uploads"))),
        }
    }

    /// Handles the end of the client's half of a stream: the whole stream ends, and its agent becomes STALE.
    pub(super) fn half_close(&mut self, now: Now, id: ConnectionId, call: u64) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        let Some(number) = number else { return };
        match self.calls.get(&number) {
            Some(Call { stage: CallStage::Link(_), .. }) => self.end_stream(now, number),
            _ => self.fail(now, id, &violation(format!("call {call} takes no uploads"))),
        }
    }

    fn link_message(&mut self, now: Now, number: u64, bytes: &[u8]) {
        let result = decode(bytes).and_then(|message| {
            let message = match self.take_reports(now, StreamId(number), message) {
                Some(message) => message,
                None => return Ok(()),
            };
            let reports = reports_of(&message);
            let mut held = |agent: &str| Ok(agents::deployments_of(self.view.snapshot()?, agent)?);
            self.fleet.handle_message(now, StreamId(number), message, &mut held)?;
            self.report_all(now, StreamId(number), &reports);
            Ok(())
        });
        if let Err(error) = result {
            self.finish(now, number, Err::<&Response, _>(&error));
        }
    }

    /// Ends a stream without an error.
    pub(super) fn end_stream(&mut self, now: Now, number: u64) {
        let Some(call) = self.end(number) else { return };
        self.count(call.method, None, call.begun);
        if let Some(connection) = self.connections.get_mut(&call.connection) {
            connection.end(now, call.id);
            if connection.has_pipelined() {
                self.answered.push(call.connection);
            }
        }
        self.queue_output(call.connection);
        self.settle(call.connection);
    }

    pub(super) fn deliver(&mut self, now: Now, stream: StreamId, message: NodeMessage) {
        let Some(Call { stage: CallStage::Link(link), .. }) = self.calls.get_mut(&stream.0) else { return };
        match link.push(message) {
            Ok(()) => self.advance_link(stream.0),
            Err(error) => self.finish(now, stream.0, Err::<&Response, _>(&error)),
        }
    }

    /// Sends an agent its queued messages within its credit: answers first, then pushes, with the body of each read from the
    /// store as it is sent.
    pub(super) fn advance_link(&mut self, number: u64) {
        self.flush_link(number);
        loop {
            let Some(Call { stage: CallStage::Link(link), connection: id, id: call, .. }) = self.calls.get_mut(&number)
            else {
                return;
            };
            if !self.connections.get(id).is_some_and(|connection| connection.has_room_for(*call)) {
                return;
            }
            let Some(push) = link.take_push() else { return };
            if let Some(message) = self.push_message(self.latest, number, push) {
                let Some(Call { stage: CallStage::Link(link), .. }) = self.calls.get_mut(&number) else { return };
                match link.push(message) {
                    Ok(()) => self.flush_link(number),
                    Err(error) => return self.finish(self.latest, number, Err::<&Response, _>(&error)),
                }
            }
        }
    }

    fn flush_link(&mut self, number: u64) {
        let Some(Call { stage: CallStage::Link(link), connection: id, id: call, .. }) = self.calls.get_mut(&number)
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.has_room_for(*call) {
            return;
        }
        if connection.speaks_http() {
            link.grant(u32::MAX);
        }
        let (id, sent) = (*id, connection.owed());
        let now = self.latest;
        link.advance(|message| connection.put_item(now, *call, message.encoded_len(), |out| message.encode_raw(out)));
        if connection.owed() != sent {
            self.queue_output(id);
            self.settle(id);
        }
    }

    // Watchers.

    /// Sends changes of agents to a watch, for one turn.
    pub(super) fn advance_watch(&mut self, now: Now, number: u64) {
        let Some(Call { stage: CallStage::Watching(watch), connection: id, id: call, .. }) =
            self.calls.get_mut(&number)
        else {
            return;
        };
        let Some(connection) = self.connections.get_mut(id) else { return };
        if !connection.has_room_for(*call) {
            return;
        }
        if connection.speaks_http() {
            watch.grant(u32::MAX);
        }
        let (id, sent) = (*id, connection.owed());
        let progress = watch.advance(now, &self.fleet, |change| {
            connection.put_item(now, *call, change.encoded_len(), |out| change.encode_raw(out))
        });
        if connection.owed() != sent {
            self.queue_output(id);
            self.settle(id);
        }
        match progress {
            Ok(Progress::More) if !self.busy_streams.contains(&number) => self.busy_streams.push_back(number),
            Ok(_) => {}
            Err(error) => self.finish(now, number, Err::<&Response, _>(&error)),
        }
    }
}

/// Returns the reports in a Register.
fn reports_of(message: &AgentMessage) -> Vec<CommandUpdate> {
    match &message.body {
        Some(agent_message::Body::Register(register)) => register.commands.clone(),
        _ => Vec::new(),
    }
}

fn decode(bytes: &[u8]) -> Result<AgentMessage, CallError> {
    if bytes.len() > AGENT_MESSAGE_BYTES {
        let message = format!("an agent's message has {} bytes; the limit is {AGENT_MESSAGE_BYTES}", bytes.len());
        return Err(CallError::new(Code::ResourceExhausted, message));
    }
    call::affordable(AgentMessage::INDEX, "AgentMessage", bytes)?;
    AgentMessage::decode(bytes).map_err(|error| CallError::new(Code::InvalidArgument, format!("AgentMessage: {error}")))
}

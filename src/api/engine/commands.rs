//! Commands pushed to agents and the reports they return: connects `fleet::commands`, streams and the store.

use peat_ipc::agent::{
    AgentMessage, CancelPush, CommandUpdate, NodeMessage, UpdateAck, agent_message, command_update, node_message,
};
use peat_ipc::method::Response;
use peat_ipc::prost::Message;
use peat_ipc::{CallError, Code};

use super::{AgentReport, Engine, InternalWrite};
use crate::api::call::{Call, CallStage};
use crate::clock::Now;
use crate::error::Blame;
use crate::fleet::StreamId;
use crate::fleet::commands::{Push, push_message};
use crate::limits::AGENT_PENDING_BYTES;
use crate::store::{self, COMMANDS, CommandError, Key};

/// Bytes that a waiting report is charged for beside its own.
const REPORT_BYTES: usize = 256;

impl Engine {
    /// Handles the message if it is a report of a registered agent; otherwise returns it for the fleet. Reports within a Register
    /// are handled by `report_all`.
    pub(super) fn take_reports(&mut self, now: Now, stream: StreamId, message: AgentMessage) -> Option<AgentMessage> {
        match message.body {
            Some(agent_message::Body::CommandUpdate(update)) => match self.fleet.agent_of(stream).map(String::from) {
                Some(agent) => {
                    self.report(now, stream, &agent, &update);
                    None
                }
                None => Some(AgentMessage { body: Some(agent_message::Body::CommandUpdate(update)) }),
            },
            body => Some(AgentMessage { body }),
        }
    }

    /// Handles the reports in an agent's Register, after the registration and before anything is pushed, so that commands the
    /// agent already has are not pushed again.
    pub(super) fn report_all(&mut self, now: Now, stream: StreamId, updates: &[CommandUpdate]) {
        if updates.is_empty() {
            return;
        }
        if let Some(Call { stage: CallStage::Link(link), .. }) = self.calls.get_mut(&stream.0) {
            link.registered(updates.iter().map(|update| update.command_id.clone()));
        }
        // The agent must receive Registered before any acknowledgement.
        self.settle_fleet(now);
        let Some(agent) = self.fleet.agent_of(stream).map(String::from) else { return };
        updates.iter().for_each(|update| self.report(now, stream, &agent, update));
    }

    fn report(&mut self, now: Now, stream: StreamId, agent: &str, update: &CommandUpdate) {
        if self.report_bytes > AGENT_PENDING_BYTES {
            let message =
                format!("{AGENT_PENDING_BYTES} bytes of reports wait to be stored, which is the limit; try again");
            return self.finish(now, stream.0, Err::<&Response, _>(&CallError::new(Code::ResourceExhausted, message)));
        }
        let heard = AgentReport { stream, command: update.command_id.clone(), stage: update.stage, bytes: 0 };
        match self.commands.handle_update(now, agent, update) {
            Ok(Some(write)) => {
                let bytes = update.encoded_len() + REPORT_BYTES;
                self.report_bytes += bytes;
                self.command_writes.push_back((write, AgentReport { bytes, ..heard }));
            }
            Ok(None) => self.acknowledge(now, heard, None),
            Err(refused) => self.acknowledge(now, heard, Some(&refused)),
        }
    }

    fn acknowledge(&mut self, now: Now, heard: AgentReport, refused: Option<&CommandError>) {
        let AgentReport { stream, command: command_id, stage, .. } = heard;
        // Progress may be lost, so an acknowledgement would only cost traffic.
        if stage != command_update::Stage::Progress as i32 || refused.is_some() {
            let not_here = matches!(refused, Some(CommandError::Unknown(_))) && !self.was_removed(&command_id);
            let refused = refused.map(ToString::to_string).unwrap_or_default();
            let ack = node_message::Body::UpdateAck(UpdateAck { command_id, stage, refused, not_here });
            self.deliver(now, stream, NodeMessage { body: Some(ack) });
        }
    }

    /// Returns true if a command that is not stored here was removed for good. If the store cannot be read, the command may still
    /// arrive.
    fn was_removed(&mut self, command: &str) -> bool {
        let Ok(key) = Key::new(COMMANDS, command) else { return true };
        let record = self.view.snapshot().ok().and_then(|snapshot| snapshot.record(&key.hash()).ok()?);
        record.is_some_and(|record| !record.is_live())
    }

    pub(super) fn command_written(&mut self, now: Now, heard: Option<AgentReport>, error: Option<&store::Error>) {
        match (heard, error) {
            // The outcome is unknown: the agent keeps its report and repeats it when it registers again.
            (Some(heard), Some(error)) if error.blame() == Blame::Machine => {
                let error = CallError::new(error.code(), format!("the report is not stored: {error}"));
                self.finish(now, heard.stream.0, Err::<&Response, _>(&error));
            }
            (Some(heard), None) => self.acknowledge(now, heard, None),
            (Some(heard), Some(store::Error::Command(refused))) => self.acknowledge(now, heard, Some(refused)),
            (Some(heard), Some(error)) => {
                let refused = CommandError::Malformed(error.to_string());
                self.acknowledge(now, heard, Some(&refused));
            }
            (None, Some(error)) => log::warn!("a change of a command is not stored: {error}"),
            (None, None) => {}
        }
    }

    /// Carries out the requests of `commands`. Called after every event that may have caused some.
    pub(super) fn settle_commands(&mut self, now: Now) {
        if self.commands.poll_rescan(now) {
            self.followed_commands = None;
            self.follow_commands(now);
        }
        while let Some((agent, push)) = self.commands.poll_push() {
            self.push(now, &agent, push);
        }
        while self.has_room_of_its_own() {
            let (write, heard) = match self.command_writes.pop_front() {
                Some((write, heard)) => (write, Some(heard)),
                None => match self.commands.poll_write() {
                    Some(write) => (write, None),
                    None => return,
                },
            };
            self.report_bytes -= heard.as_ref().map_or(0, |heard| heard.bytes);
            self.submit_own(now, InternalWrite::Command(heard), write.into());
        }
    }

    fn push(&mut self, now: Now, agent: &str, push: Push) {
        let Some(stream) = self.fleet.stream_of(agent) else {
            #[cfg(feature = "http")]
            self.push_event(now, agent, push);
            #[cfg(not(feature = "http"))]
            let _ = now;
            return;
        };
        if let Some(Call { stage: CallStage::Link(link), .. }) = self.calls.get_mut(&stream.0) {
            link.push_later(push);
            self.advance_link(stream.0);
        }
    }

    /// Returns the message for a push; `None` if the agent no longer needs it.
    pub(super) fn push_message(&mut self, now: Now, number: u64, push: Push) -> Option<NodeMessage> {
        let body = match push {
            Push::Cancel { id } => node_message::Body::CancelPush(CancelPush { command_id: id }),
            Push::Command { id } => {
                let has = |call: &Call| matches!(&call.stage, CallStage::Link(link) if link.has(&id));
                if self.calls.get(&number).is_some_and(has) {
                    return None;
                }
                let agent = self.fleet.agent_of(StreamId(number))?.to_owned();
                let view = self.view.snapshot().ok().and_then(|snapshot| snapshot.command(&id).ok()?);
                node_message::Body::CommandPush(push_message(&view?, &agent, now)?)
            }
        };
        Some(NodeMessage { body: Some(body) })
    }
}

//! Agents that listen to server-sent events: pushes to them, and pings in between.
//!
//! An agent has at most one stream of events; a new one replaces the old. Listening is not a sign of life, and missed events are
//! not replayed. An agent with a registered `AgentLink` stream receives everything there instead.

use std::collections::VecDeque;

use super::Engine;
use crate::api::ConnectionId;
use crate::api::call::{Call, CallStage};
use crate::api::connection::Connection;
use crate::api::http::events::{self, Events, PING, PING_EVENT};
use crate::api::http::message::{HttpRequest, Response};
use crate::api::http::reply::Reply;
use crate::clock::Now;
use crate::fleet::commands::{Push, push_message};
use peat_ipc::agent::Registered;
use peat_ipc::{CallError, Code};

impl Engine {
    /// `GET /api/v1/agents/{id}/events`.
    pub(in crate::api) fn route_events(&mut self, _now: Now, request: &HttpRequest) -> Reply {
        let agent = match self.listening(request) {
            Ok(agent) => agent,
            Err(error) => return Reply::Now(crate::api::http::refusal(&error)),
        };
        let head = Response::stream(200, "text/event-stream").with("cache-control", "no-store");
        let events = Events { agent, base_url: request.base_url(), pushes: VecDeque::new(), stalled: false };
        Reply::Hold { head, stage: CallStage::Events(events) }
    }

    fn listening(&self, request: &HttpRequest) -> Result<String, CallError> {
        let agent = super::rest::part(request, 4)?;
        if !self.fleet.knows(&agent) {
            let message = format!("agent {agent} is not known here; POST /api/v1/agents first");
            return Err(CallError::new(Code::NotFound, message));
        }
        self.check_speaker(request, &agent)?;
        Ok(agent)
    }

    /// Registers a new stream of events, and ends the agent's previous one.
    pub(super) fn events_begun(&mut self, now: Now, number: u64) {
        let Some((agent, base_url)) = self.events_of(number) else { return };
        if let Some(before) = self.web.listeners.insert(agent.clone(), number) {
            self.end_stream(now, before);
        }
        let registered = self.registered(&agent, &base_url);
        self.send_event(now, number, &events::first(&agent, &registered));
        self.wake_at(number, now.after(PING));
        if self.fleet.stream_of(&agent).is_none() {
            self.commands.handle_listening(now, &agent);
        }
    }

    /// Handles the end of a stream of events.
    pub(super) fn events_ended(&mut self, number: u64, agent: &str) {
        if self.web.listeners.get(agent) == Some(&number) {
            self.web.listeners.remove(agent);
            if self.fleet.stream_of(agent).is_none() {
                self.commands.handle_detached(self.latest, agent);
            }
        }
    }

    /// Makes the stream of events, if there is one, receive pushes after the agent's `AgentLink` stream has ended.
    pub(super) fn listen_again(&mut self, now: Now, agent: &str) {
        if self.web.listeners.contains_key(agent) {
            self.commands.handle_listening(now, agent);
        }
    }

    /// Queues a push for an agent without an `AgentLink` stream, if it listens.
    pub(super) fn push_event(&mut self, now: Now, agent: &str, push: Push) {
        let Some(number) = self.web.listeners.get(agent).copied() else { return };
        if let Some(Call { stage: CallStage::Events(events), .. }) = self.calls.get_mut(&number) {
            events.pushes.push_back(push);
            self.advance_events(now, number);
        }
    }

    /// Sends a listener its queued events, as long as there is room.
    pub(super) fn advance_events(&mut self, now: Now, number: u64) {
        while let Some(Call { stage: CallStage::Events(events), connection: id, id: call, .. }) =
            self.calls.get_mut(&number)
        {
            let Some(connection) = self.connections.get(id) else { return };
            if !connection.has_room_for(*call) {
                return;
            }
            events.stalled = false;
            let Some(push) = events.pushes.pop_front() else { return };
            let agent = events.agent.clone();
            let event = match push {
                Push::Cancel { id } => events::cancel(&id),
                Push::Command { id } => {
                    let view = self.view.snapshot().ok().and_then(|snapshot| snapshot.command(&id).ok()?);
                    let Some(message) = view.and_then(|view| push_message(&view, &agent, now)) else { continue };
                    events::command(&message)
                }
            };
            self.send_event(now, number, &event);
        }
    }

    /// Notifies every listener that the settings changed.
    pub(super) fn tell_listeners(&mut self, now: Now) {
        let listeners: Vec<u64> = self.web.listeners.values().copied().collect();
        for number in listeners {
            let Some((agent, base_url)) = self.events_of(number) else { continue };
            let event = events::config(&agent, &self.registered(&agent, &base_url));
            self.send_event(now, number, &event);
        }
    }

    /// Sends a ping to a listener. A listener that takes nothing from one ping to the next loses its stream, and with HTTP/1.1
    /// its connection; it may reconnect.
    pub(super) fn ping(&mut self, now: Now, number: u64) {
        let Some(Call { stage: CallStage::Events(events), connection: id, id: call, .. }) = self.calls.get_mut(&number)
        else {
            return;
        };
        let (id, call) = (*id, *call);
        let room = self.connections.get(&id).is_some_and(|connection| connection.has_room_for(call));
        if room {
            self.send_event(now, number, PING_EVENT);
        } else if std::mem::replace(&mut events.stalled, true) {
            self.cut_listener(now, id, call);
        }
    }

    /// Returns the terms of registration, with at least the path of the agent's events; `base_url` is the address at which the
    /// agent reached this node.
    pub(super) fn registered(&self, agent: &str, base_url: &str) -> Registered {
        let mut registered = self.fleet.registered(agent);
        if !base_url.is_empty() || registered.events_url.is_empty() {
            registered.events_url = format!("{base_url}{}", crate::fleet::Settings::events_path(agent));
        }
        registered
    }

    fn events_of(&self, number: u64) -> Option<(String, String)> {
        match self.calls.get(&number) {
            Some(Call { stage: CallStage::Events(events), .. }) => {
                Some((events.agent.clone(), events.base_url.clone()))
            }
            _ => None,
        }
    }

    fn send_event(&mut self, now: Now, number: u64, event: &str) {
        let Some(Call { connection: id, id: call, .. }) = self.calls.get(&number) else { return };
        let (id, call) = (*id, *call);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.put_bytes(now, call, event.as_bytes());
        self.queue_output(id);
        self.settle(id);
    }

    fn cut_listener(&mut self, now: Now, id: ConnectionId, call: u64) {
        let http = self.connections.get_mut(&id).and_then(Connection::http);
        if !http.is_some_and(|(http, _)| http.reset(call)) {
            return self.give_up(id, "a listener does not read its events".into());
        }
        self.cancel(now, id, call);
        self.queue_output(id);
        self.settle(id);
    }
}

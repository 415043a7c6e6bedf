//! Agents: their streams, the fleet's writes, and what the store's index tells of other nodes' agents.

use peat_ipc::agent::{AgentMessage, CommandUpdate, NodeMessage, agent_message};
use peat_ipc::envelope::Request as RequestFrame;
use peat_ipc::method::Response;
use peat_ipc::prost::Message;
use peat_ipc::{CallError, Code};

use super::{Engine, OwnWrite};
use crate::api::agents;
use crate::api::call::{Call, Stage};
use crate::api::connection::{ConnectionId, violation};
use crate::api::feed::Progress;
use crate::api::link::Link;
use crate::clock::Now;
use crate::error::Blame;
use crate::fleet::{self, Attachment, Owner, StreamId, Written};
use crate::limits::{AGENT_MESSAGE_BYTES, AGENT_STREAMS, STORE_QUEUE};
use crate::store::{self, Key, Kind, Submitted, Ticket, Write};
use crate::sync::{Asked, Control};

/// Writes under way at once that no client asked for.
const OWN_WRITES: usize = 64;
/// Index entries looked at in one go.
const EXAMINED_A_TURN: usize = 1_024;

impl Engine {
    // Streams of agents.

    /// Begins the stream of an agent; the request may bring its first message.
    pub(super) fn begin_link(&mut self, now: Now, id: ConnectionId, call: u64, frame: &RequestFrame) {
        if self.links >= AGENT_STREAMS {
            let message = format!("there are {AGENT_STREAMS} streams of agents, which is the limit");
            return self.respond(now, id, call, Err(&CallError::new(Code::ResourceExhausted, message)));
        }
        let Some(owner) = self.owner(id) else { return };
        self.method = frame.method;
        let deadline =
            (frame.deadline_ms != 0).then(|| now.after(std::time::Duration::from_millis(frame.deadline_ms.into())));
        let number = self.register(id, call, Stage::Link(Link::new(frame.credit)), deadline, 0);
        self.links += 1;
        self.begin_stream(id, call);
        self.fleet.handle_open(StreamId(number), owner);
        if !frame.payload.is_empty() {
            self.link_message(now, number, &frame.payload);
        }
    }

    pub(super) fn owner(&self, id: ConnectionId) -> Option<Owner> {
        self.connections.get(&id).map(|connection| agents::owner(&connection.caller))
    }

    /// One more message of a client stream.
    pub(super) fn upload(&mut self, now: Now, id: ConnectionId, call: u64, bytes: &[u8]) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        // An upload for a call that has just ended may still be on its way.
        let Some(number) = number else { return };
        match self.calls.get(&number) {
            Some(Call { stage: Stage::Link(_), .. }) => self.link_message(now, number, bytes),
            _ => self.fail(now, id, &violation(format!("call {call} takes no uploads"))),
        }
    }

    /// The client sends no more: without heartbeats its agent has left.
    pub(super) fn half_close(&mut self, now: Now, id: ConnectionId, call: u64) {
        let number = self.connections.get(&id).and_then(|connection| connection.calls.get(&call).copied());
        let Some(number) = number else { return };
        match self.calls.get(&number) {
            Some(Call { stage: Stage::Link(_), .. }) => self.end_stream(now, number),
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

    /// Ends a stream that ended well.
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
        let Some(Call { stage: Stage::Link(link), .. }) = self.calls.get_mut(&stream.0) else { return };
        match link.push(message) {
            Ok(()) => self.advance_link(stream.0),
            Err(error) => self.finish(now, stream.0, Err::<&Response, _>(&error)),
        }
    }

    /// Sends an agent what waits for it, as far as it takes it.
    pub(super) fn advance_link(&mut self, number: u64) {
        let Some(Call { stage: Stage::Link(link), connection: id, id: call, .. }) = self.calls.get_mut(&number) else {
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

    /// Sends a watcher of the agents what it lacks, for one turn.
    pub(super) fn advance_watch(&mut self, now: Now, number: u64) {
        let Some(Call { stage: Stage::Watching(watch), connection: id, id: call, .. }) = self.calls.get_mut(&number)
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

    // The fleet's outputs.

    /// Carries out what the fleet wants. After everything that may have told it something.
    pub(super) fn settle_fleet(&mut self, now: Now) {
        loop {
            if let Some((stream, error)) = self.fleet.poll_end() {
                match error {
                    Some(error) => self.finish(now, stream.0, Err::<&Response, _>(&error)),
                    None => self.end_stream(now, stream.0),
                }
            } else if let Some((stream, message)) = self.fleet.poll_message() {
                self.deliver(now, stream, message);
            } else if let Some(attachment) = self.fleet.poll_attachment() {
                match attachment {
                    Attachment::Attached(agent, _) => self.commands.handle_attached(now, &agent),
                    Attachment::Detached(agent) => {
                        self.commands.handle_detached(now, &agent);
                        #[cfg(feature = "http")]
                        self.listen_again(now, &agent);
                    }
                }
            } else {
                break;
            }
        }
        self.write_for_fleet(now);
        if self.fleet.poll_announcement(now) {
            self.to_sync.push_back(Asked { call: 0, control: Control::Announce });
        }
        if self.fleet.last_change() != self.watched {
            self.watched = self.fleet.last_change();
            let watchers: Vec<u64> = self.watchers.iter().copied().collect();
            watchers.into_iter().for_each(|number| self.advance_watch(now, number));
        }
    }

    fn write_for_fleet(&mut self, now: Now) {
        while self.has_room_of_its_own() {
            let Some(fleet::Write { number, key, change }) = self.fleet.poll_write(now) else { return };
            let held = self.view.snapshot().ok().and_then(|snapshot| snapshot.document(&key).ok()?);
            if !fleet::changes(&change, held.as_ref().map(|document| document.json.as_str())) {
                self.fleet.handle_written(now, number, Written::Done);
                continue;
            }
            let own = OwnWrite::Fleet(number, key.clone());
            self.submit_own(now, own, Write { key, put: agents::put(change), durable: false });
        }
    }

    /// Whether the store has room for one more write that no client asked for.
    pub(super) fn has_room_of_its_own(&self) -> bool {
        self.own_writes.len() < OWN_WRITES && self.store_outstanding < STORE_QUEUE
    }

    pub(super) fn submit_own(&mut self, now: Now, own: OwnWrite, write: Write) {
        self.submit_request(now, own, store::Request::Write(write));
    }

    pub(super) fn submit_request(&mut self, now: Now, own: OwnWrite, request: store::Request) {
        self.last_call += 1;
        self.own_writes.insert(self.last_call, own);
        self.store_outstanding += 1;
        self.view.note_request(now);
        let ticket = Ticket::Api(self.last_call);
        self.to_store.push_back(Submitted { ticket, request });
    }

    /// The store answered a write; whether it was one that no client asked for.
    pub(super) fn own_written<T>(&mut self, now: Now, ticket: u64, result: &Result<T, store::Error>) -> bool {
        match self.own_writes.remove(&ticket) {
            None => return false,
            Some(OwnWrite::Fleet(number, key)) => self.fleet_written(now, number, &key, result),
            Some(OwnWrite::Command(heard)) => self.command_written(now, heard, result.as_ref().err()),
            #[cfg(feature = "http")]
            Some(OwnWrite::Probe(number)) => self.probed_store(now, number),
        }
        true
    }

    fn fleet_written<T>(&mut self, now: Now, number: u64, key: &Key, result: &Result<T, store::Error>) {
        let written = match result {
            Ok(_) => Written::Done,
            Err(error) if error.blame() == Blame::Machine => Written::Failed,
            Err(error) => {
                log::warn!("{key}: an agent's state is not stored: {error}");
                Written::Refused
            }
        };
        self.note_platform(key.collection(), key.id());
        self.fleet.handle_written(now, number, written);
    }

    /// A client of this node put a platform: a sign of life of the agent of that id.
    pub(super) fn note_sign(&mut self, now: Now, agent: &str, owner: Owner) {
        self.fleet.handle_sign(now, agent, owner);
        self.note_platform("platforms", agent);
    }

    /// A document of an agent was written here: its status may be another one.
    fn note_platform(&mut self, collection: &str, agent: &str) {
        if collection == "deployments" {
            return;
        }
        let Ok(snapshot) = self.view.snapshot() else { return };
        // What cannot be read now is read at the next change.
        let _ = tell_platform(&mut self.fleet, snapshot, agent);
    }

    // The store's index.

    /// Tells the fleet of what peers changed since the last look; of everything, at the start and after a reopening.
    pub(super) fn follow_store(&mut self, now: Now) {
        let followed = match self.followed {
            None => self.load_agents(now).map(|position| (position, false)),
            Some(position) => self.follow_from(now, position),
        };
        match followed {
            Ok((position, more)) => (self.followed, self.follow_on) = (Some(position), more),
            // The next commit brings the next try.
            Err(error) => log::warn!("agents of other nodes are not followed: {error}"),
        }
    }

    fn load_agents(&mut self, now: Now) -> Result<u64, CallError> {
        let snapshot = self.view.snapshot()?;
        let position = snapshot.visible();
        let known: Vec<String> = self.fleet.agents(now, None).map(|agent| agent.agent_id).collect();
        let stored = snapshot.list(fleet::COLLECTION)?;
        for id in known.iter().filter(|id| stored.binary_search(id).is_err()).chain(&stored) {
            tell(
                &mut self.fleet,
                now,
                snapshot,
                &Key::new(fleet::COLLECTION, id.as_str()).map_err(|error| internal(&error))?,
            )?;
        }
        Ok(position)
    }

    fn follow_from(&mut self, now: Now, position: u64) -> Result<(u64, bool), CallError> {
        let snapshot = self.view.snapshot()?;
        let mut last = position;
        let mut examined = 0;
        for entry in snapshot.entries(Kind::Latest, position)? {
            let entry = entry?;
            examined += 1;
            if examined > EXAMINED_A_TURN {
                return Ok((last, true));
            }
            last = entry.sequence;
            // What nobody delivered was written here, and the fleet knows.
            if entry.from != 0
                && let Some(key) = snapshot.name(&entry)?
            {
                tell(&mut self.fleet, now, snapshot, &key)?;
            }
        }
        Ok((snapshot.visible(), false))
    }
}

/// Tells the fleet of a document, if it is one that concerns it.
fn tell(fleet: &mut fleet::Fleet, now: Now, snapshot: &store::Snapshot, key: &Key) -> Result<(), CallError> {
    match key.collection() {
        fleet::COLLECTION => {
            let document = snapshot.document(key)?;
            fleet.handle_record(now, key.id(), document.as_ref().map(|document| document.json.as_str()));
            tell_platform(fleet, snapshot, key.id())
        }
        "platforms" => tell_platform(fleet, snapshot, key.id()),
        _ => Ok(()),
    }
}

fn tell_platform(fleet: &mut fleet::Fleet, snapshot: &store::Snapshot, agent: &str) -> Result<(), CallError> {
    if fleet.knows(agent)
        && let Some(document) = snapshot.document(&Key::new("platforms", agent).map_err(|error| internal(&error))?)?
    {
        fleet.handle_platform(agent, &document.json);
    }
    Ok(())
}

/// What a Register says of commands.
fn reports_of(message: &AgentMessage) -> Vec<CommandUpdate> {
    match &message.body {
        Some(agent_message::Body::Register(register)) => register.commands.clone(),
        _ => Vec::new(),
    }
}

fn internal(error: &store::KeyError) -> CallError {
    CallError::new(Code::Internal, error.to_string())
}

fn decode(bytes: &[u8]) -> Result<AgentMessage, CallError> {
    if bytes.len() > AGENT_MESSAGE_BYTES {
        let message = format!("an agent's message has {} bytes; the limit is {AGENT_MESSAGE_BYTES}", bytes.len());
        return Err(CallError::new(Code::ResourceExhausted, message));
    }
    AgentMessage::decode(bytes).map_err(|error| CallError::new(Code::InvalidArgument, format!("AgentMessage: {error}")))
}

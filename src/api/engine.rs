//! The engine: handles events and returns what to do next. The order of calls is in [`crate::api`].

mod agents;
mod calls;
mod commands;
mod doors;
#[cfg(feature = "http")]
mod events;
#[cfg(feature = "http")]
mod http;
mod index_follower;
mod internal_writes;
#[cfg(feature = "http")]
mod introspection;
#[cfg(feature = "http")]
mod probe;
mod reload;
#[cfg(feature = "http")]
mod rest;
#[cfg(feature = "http")]
mod rest_read;
mod shares;
mod streams;

pub use reload::Reloaded;
pub(in crate::api) use shares::Principal;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_ipc::envelope::Request as RequestFrame;
use peat_ipc::envelope::frame::Body;
use peat_ipc::{CallError, Code};

use self::shares::Shares;
use crate::api::call::{Call, NO_METHOD};
use crate::api::caller::Policy;
use crate::api::connection::{Connection, ConnectionId, Input, violation};
use crate::api::timers::{Timers, Wake};
use crate::api::view::NodeView;
use crate::clock::Now;
use crate::fleet::commands::Commands;
use crate::fleet::{self, Fleet};
use crate::identity::Identity;
#[cfg(feature = "http")]
use crate::limits::EVENT_STREAMS;
use crate::limits::{AGENT_STREAMS, CLIENT_CONNECTIONS, CLIENTS_BUFFERED_BYTES, CONNECTION_OUT_BYTES, SUBSCRIPTIONS};
#[cfg(feature = "http")]
use crate::metrics::Instruments;
use crate::metrics::Rpcs;
use crate::store::{CommandWrite, Envelope, Key, Reader, Tip};
use crate::sync::ControlRequest;

/// Maximum number of control requests to the sync thread that may be unanswered.
pub const SYNC_OUTSTANDING: usize = 256;
/// Bytes that one connection may always hold, even when the bytes shared by all are used up.
const FAIR_SHARE_BYTES: usize = CLIENTS_BUFFERED_BYTES / CLIENT_CONNECTIONS;

/// Delay after its deadline beyond which the engine assumes that the process was suspended or starved.
const LATE: Duration = Duration::from_secs(1);

/// Configuration of the engine.
#[derive(Clone, Debug)]
pub struct ApiConfig {
    /// Name of this node (`--node-id`).
    pub node_id: String,
    /// Id of the agent that the watcher reports on.
    pub watched_agent: String,
    /// Rules that decide the role of a caller.
    pub policy: Policy,
    /// Size of the store's cache in bytes, as health reports it.
    pub cache_bytes: usize,
    /// Heartbeat interval and liveness timeouts of agents.
    pub fleet: fleet::Settings,
    /// Key that signs commands issued here.
    pub identity: Arc<Identity>,
    /// Trusted issuers, and retention of commands.
    pub commands: fleet::commands::Settings,
}

/// A connection that the engine has closed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Closed {
    /// The connection to close.
    pub connection: ConnectionId,
    /// Reason, for the log.
    pub reason: String,
}

/// The connection is refused because the node is shutting down: close it. Its codec is not known yet, so no error is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refused;

/// A write that no client requested.
#[derive(Debug)]
enum InternalWrite {
    /// A write of the fleet: the fleet's number for it, and the document.
    Fleet(u64, Key),
    /// A change of a command, with the agent's report that caused it, if one did.
    Command(Option<AgentReport>),
    /// No write: this call checks that the store thread answers.
    #[cfg(feature = "http")]
    Probe(u64),
}

/// An agent's report, which is acknowledged once it is stored.
#[derive(Clone, Debug)]
struct AgentReport {
    stream: fleet::StreamId,
    command: String,
    stage: i32,
    /// Bytes it is charged for while it waits for room in the store.
    bytes: usize,
}

/// The engine of the api thread: all clients and their calls. Sans I/O.
#[derive(Debug)]
pub struct Engine {
    view: NodeView,
    policy: Policy,
    connections: BTreeMap<ConnectionId, Connection>,
    /// Connections within the limit.
    admitted: Shares,
    /// Connections over the limit, oldest first; they may ask for health only.
    only_health: VecDeque<ConnectionId>,
    subscriptions: Shares,
    calls: BTreeMap<u64, Call>,
    last_call: u64,
    /// Subscriptions.
    streams: BTreeSet<u64>,
    /// Streams of any kind that have more to send, in the order of their turns.
    busy_streams: VecDeque<u64>,
    to_store: VecDeque<Envelope>,
    store_outstanding: usize,
    /// Connections that hold a write for which the store's queue has no room, first come, first served.
    waiting: VecDeque<ConnectionId>,
    to_sync: VecDeque<ControlRequest>,
    /// Control requests that are unanswered.
    questions: Shares,
    outputs: VecDeque<ConnectionId>,
    closed: VecDeque<Closed>,
    shut: VecDeque<ConnectionId>,
    timers: Timers,
    /// Calls of the gRPC health service's Watch.
    #[cfg(feature = "http")]
    health_watchers: Vec<http::HealthWatcher>,
    /// Connections that may continue with buffered input because the answer ahead of it was sent.
    answered: Vec<ConnectionId>,
    /// Connections with a deadline that may have changed.
    touched: Vec<ConnectionId>,
    buffered_in: usize,
    buffered_out: usize,
    fleet: Fleet,
    /// Streams of agents.
    links: Shares,
    /// Calls that watch agents.
    watchers: BTreeSet<u64>,
    /// The newest change of the fleet that the watches were advanced to.
    watched: u64,
    commands: Commands,
    /// Writes in progress that no client requested.
    own_writes: BTreeMap<u64, InternalWrite>,
    /// Agents' reports that wait for room in the store.
    command_writes: VecDeque<(CommandWrite, AgentReport)>,
    /// Sum of the bytes of the waiting reports.
    report_bytes: usize,
    /// Position in the index of `latest` documents up to which the fleet has been notified; `None` until the first load.
    followed: Option<u64>,
    /// Position in the index of commands up to which `commands` has been notified; `None` until the first load.
    followed_commands: Option<u64>,
    /// True if the last scan stopped at its budget; the next poll continues it.
    follow_on: bool,
    /// True from a new reader until a tip with an unchanged number, which would otherwise be ignored.
    reopened: bool,
    /// Time of the latest event.
    latest: Now,
    /// Deadline that the shell was last given.
    awaited: Option<Instant>,
    /// Number of the method that is being begun.
    method: u32,
    rpcs: Rpcs,
    #[cfg(feature = "http")]
    web: Web,
}

/// State that only HTTP routes need.
#[cfg(feature = "http")]
#[derive(Debug)]
struct Web {
    instruments: Instruments,
    /// Agents that listen to server-sent events, with the call of each.
    listeners: BTreeMap<String, u64>,
    /// Streams of server-sent events.
    events: Shares,
    /// Number of command ids that this node has generated.
    ids_given: u64,
}

impl Engine {
    /// Creates an engine without connections.
    #[must_use]
    pub fn new(config: ApiConfig, reader: Reader, now: Now) -> Engine {
        let commands = Commands::new(config.commands.clone());
        let fleet = Fleet::new(reader.node(), config.node_id.clone(), config.fleet.clone());
        Engine {
            view: NodeView::new(&config, reader, now),
            policy: config.policy,
            connections: BTreeMap::new(),
            admitted: Shares::new("connections of clients", CLIENT_CONNECTIONS),
            only_health: VecDeque::new(),
            subscriptions: Shares::new("subscriptions", SUBSCRIPTIONS),
            calls: BTreeMap::new(),
            last_call: 0,
            streams: BTreeSet::new(),
            busy_streams: VecDeque::new(),
            to_store: VecDeque::new(),
            store_outstanding: 0,
            waiting: VecDeque::new(),
            to_sync: VecDeque::new(),
            questions: Shares::new("calls that wait for the sync thread", SYNC_OUTSTANDING),
            outputs: VecDeque::new(),
            closed: VecDeque::new(),
            shut: VecDeque::new(),
            timers: Timers::default(),
            #[cfg(feature = "http")]
            health_watchers: Vec::new(),
            answered: Vec::new(),
            touched: Vec::new(),
            buffered_in: 0,
            buffered_out: 0,
            fleet,
            links: Shares::new("streams of agents", AGENT_STREAMS),
            watchers: BTreeSet::new(),
            watched: 0,
            commands,
            own_writes: BTreeMap::new(),
            command_writes: VecDeque::new(),
            report_bytes: 0,
            followed: None,
            followed_commands: None,
            follow_on: false,
            reopened: false,
            latest: now,
            awaited: None,
            method: NO_METHOD,
            rpcs: Rpcs::default(),
            #[cfg(feature = "http")]
            web: Web {
                instruments: Instruments::default(),
                listeners: BTreeMap::new(),
                events: Shares::new("streams of events", EVENT_STREAMS),
                ids_given: 0,
            },
        }
    }

    /// Sets the gauges of channels and threads, which the shell can read, for metrics.
    #[cfg(feature = "http")]
    pub fn set_instruments(&mut self, instruments: Instruments) {
        self.web.instruments = instruments;
    }

    /// Handles bytes that a client sent.
    pub fn handle_bytes(&mut self, now: Now, id: ConnectionId, bytes: &[u8]) {
        self.arrive(now);
        let buffered_in = self.buffered_in;
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.closing.is_some() {
            connection.pass_over(now);
            return self.settle(id);
        }
        connection.input.extend(bytes);
        // A connection within its fair share is served even while all clients together exceed the limit.
        if connection.buffered() > FAIR_SHARE_BYTES && buffered_in + bytes.len() > CLIENTS_BUFFERED_BYTES {
            let message = format!(
                "requests of all clients take {CLIENTS_BUFFERED_BYTES} bytes, which is the limit; send less at a time"
            );
            self.fail(now, id, &CallError::new(Code::ResourceExhausted, message));
        }
        self.advance(now, id);
        // The bytes may be a WINDOW_UPDATE, which gives streams room.
        if self.connections.get(&id).is_some_and(Connection::speaks_http) {
            self.continue_streams(id);
        }
        self.done(now);
    }

    /// Handles the write of the first `count` bytes of [`Engine::output`].
    pub fn handle_written(&mut self, now: Now, id: ConnectionId, count: usize) {
        self.arrive(now);
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.wrote(now, count);
        let drained = connection.output().is_empty();
        if drained && connection.closing.is_some() {
            return self.end_connection(id);
        }
        let (paused, has_room) = (connection.paused, connection.has_stream_room());
        if paused {
            self.advance(now, id);
        }
        if has_room {
            self.continue_streams(id);
        }
        self.settle(id);
        self.done(now);
    }

    /// Handles a new tip of the store.
    pub fn handle_tip(&mut self, now: Now, tip: Tip) {
        self.arrive(now);
        // After a reopening the same number may stand for another commit.
        let moved = tip.visible != self.view.tip.visible || std::mem::take(&mut self.reopened);
        self.view.tip = tip;
        if moved && !self.streams.is_empty() {
            self.advance_all_streams(now);
        }
        if moved || self.followed.is_none() {
            self.follow_store(now);
            self.follow_commands(now);
        }
        self.done(now);
    }

    /// Handles a new reader after the store reopened its database; reads use it from now on.
    pub fn handle_reader(&mut self, now: Now, reader: Reader) {
        self.arrive(now);
        self.view.set_reader(reader);
        self.reopened = true;
        self.move_streams(now);
        self.followed = None;
        self.followed_commands = None;
        self.follow_store(now);
        self.follow_commands(now);
        self.done(now);
    }

    /// Handles a deadline that has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.arrive(now);
        self.settle_timers();
        while let Some((_, wake)) = self.timers.take_due(now.mono) {
            match wake {
                Wake::Call(number) => self.time_out(now, number),
                Wake::Connection(id) => self.time_out_connection(now, id),
                Wake::Streams | Wake::Fleet => {}
            }
        }
        self.advance_busy_streams(now);
        if self.follow_on {
            self.follow_store(now);
            self.follow_commands(now);
        }
        self.fleet.handle_timeout(now);
        self.commands.handle_timeout(now);
        self.done(now);
    }

    /// Sets the threads that do not answer, for `health`.
    pub fn set_silent(&mut self, threads: Vec<&'static str>) {
        self.view.set_silent(threads);
    }

    /// Finishes every event: applies its effects on agents and commands, continues connections that were answered, and drops the
    /// snapshot.
    fn done(&mut self, now: Now) {
        // A connection that was answered may hold further requests; their effects are settled in the next round.
        loop {
            self.settle_fleet(now);
            self.settle_commands(now);
            let Some(id) = self.answered.pop() else { break };
            self.advance(now, id);
        }
        #[cfg(feature = "http")]
        self.follow_health(now);
        self.view.release();
    }

    /// Ends every call and stream because the node shuts down, and refuses new connections.
    pub fn handle_shutdown(&mut self, now: Now) {
        self.arrive(now);
        self.view.shutting_down = true;
        let open: Vec<_> = self.connections.keys().copied().collect();
        for id in open {
            self.fail(now, id, &shutting_down());
        }
    }

    /// Returns the next request for the store. The channel must have room for [`crate::limits::STORE_QUEUE`] of them.
    #[must_use]
    pub fn poll_store(&mut self) -> Option<Envelope> {
        self.to_store.pop_front()
    }

    /// Returns the next control request for the sync thread.
    #[must_use]
    pub fn poll_asked(&mut self) -> Option<ControlRequest> {
        self.to_sync.pop_front()
    }

    /// Returns a connection with new output.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<ConnectionId> {
        let id = self.outputs.pop_front()?;
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.output_queued = false;
        }
        Some(id)
    }

    /// Returns a connection to close; the engine holds no state of it any more.
    #[must_use]
    pub fn poll_close(&mut self) -> Option<Closed> {
        self.closed.pop_front()
    }

    /// Returns a connection to shut for writing: all output is written, and the client is expected to close.
    #[must_use]
    pub fn poll_shut(&mut self) -> Option<ConnectionId> {
        self.shut.pop_front()
    }

    /// Notes the time of an event. If it is long after the deadline, the process was suspended or starved: heartbeats may wait
    /// unread in sockets, so agents must not be judged silent.
    fn arrive(&mut self, now: Now) {
        self.latest = now;
        if let Some(since) = self.awaited.take()
            && now.reached(since + LATE)
        {
            self.fleet.handle_gap(now, since);
        }
    }

    /// Returns the time at which to call [`Engine::handle_timeout`], and the reason.
    #[must_use]
    pub fn poll_deadline(&mut self) -> Option<(Instant, Wake)> {
        let deadline = self.next_deadline();
        self.awaited = deadline.map(|(at, _)| at);
        deadline
    }

    fn next_deadline(&mut self) -> Option<(Instant, Wake)> {
        self.settle_timers();
        if !self.busy_streams.is_empty() || self.follow_on {
            return Some((self.latest.mono, Wake::Streams));
        }
        let fleet = [self.fleet.poll_deadline(), self.commands.poll_deadline()];
        let fleet = fleet.into_iter().flatten().map(|at| (at, Wake::Fleet));
        self.timers.next().into_iter().chain(fleet).min()
    }

    /// Returns the bytes to write to a client; report the number written to [`Engine::handle_written`].
    #[must_use]
    pub fn output(&self, id: ConnectionId) -> &[u8] {
        self.connections.get(&id).map_or(&[], Connection::output)
    }

    /// Returns true if the client's bytes should be read: false while it does not take its answers, or the store has no room.
    #[must_use]
    pub fn wants_bytes(&self, id: ConnectionId) -> bool {
        self.connections.get(&id).is_some_and(Connection::wants_bytes)
    }

    /// Returns the number of connected clients.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.len()
    }

    /// Handles the input a client has sent, as far as there is room.
    fn advance(&mut self, now: Now, id: ConnectionId) {
        while let Some(input) = self.next_input(now, id) {
            match input {
                Ok(Input::Frame(call, body)) => self.handle_frame(now, id, call, body),
                #[cfg(feature = "http")]
                Ok(Input::Http(event)) => self.handle_http(now, id, event),
                Err(error) => self.fail(now, id, &error),
            }
        }
        self.settle(id);
    }

    fn next_input(&mut self, now: Now, id: ConnectionId) -> Option<Result<Input, CallError>> {
        // While the output of all clients exceeds the limit, a connection pauses at its fair share.
        let most = if self.buffered_out > CLIENTS_BUFFERED_BYTES { FAIR_SHARE_BYTES } else { CONNECTION_OUT_BYTES };
        let connection = self.connections.get_mut(&id)?;
        connection.pump(now.mono);
        connection.paused = connection.owed() >= most;
        if connection.closing.is_some() || connection.held.is_some() || connection.paused {
            return None;
        }
        connection.next_input(now).transpose()
    }

    fn handle_frame(&mut self, now: Now, id: ConnectionId, call: u64, body: Body) {
        match body {
            Body::Request(request) => self.handle_request(now, id, call, &request),
            Body::Cancel(_) => self.cancel(now, id, call),
            Body::Credit(items) => self.grant(now, id, call, items),
            Body::Upload(bytes) => self.upload(now, id, call, &bytes),
            Body::HalfClose(_) => self.half_close(now, id, call),
            Body::Response(_) | Body::Item(_) | Body::Part(_) | Body::End(_) | Body::Error(_) => {
                self.fail(now, id, &violation("a client sent a frame that only a node sends"));
            }
        }
    }

    fn handle_request(&mut self, now: Now, id: ConnectionId, call: u64, request: &RequestFrame) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.takes_parts |= request.takes_parts;
        if call == 0 {
            self.fail(now, id, &violation("call 0 is the connection's own"));
        } else if connection.calls.contains_key(&call) {
            self.fail(now, id, &violation(format!("call {call} is not finished, and was begun again")));
        } else {
            self.begin(now, id, call, request);
        }
    }

    fn queue_output(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connections.get_mut(&id)
            && !connection.output_queued
        {
            connection.output_queued = true;
            self.outputs.push_back(id);
        }
    }

    /// Updates the buffered totals with a connection's bytes, and marks its deadline for review.
    fn settle(&mut self, id: ConnectionId) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.speaks_http() {
            if connection.pump(self.latest.mono) {
                self.answered.push(id);
            }
            if !connection.output().is_empty() && !connection.output_queued {
                connection.output_queued = true;
                self.outputs.push_back(id);
            }
        }
        let counted = (connection.buffered() + connection.request_bytes, connection.owed());
        self.buffered_in = self.buffered_in + counted.0 - connection.counted.0;
        self.buffered_out = self.buffered_out + counted.1 - connection.counted.1;
        connection.counted = counted;
        if !connection.touched {
            connection.touched = true;
            self.touched.push(id);
        }
    }

    /// Updates the timers. Done once per wait rather than per call: most replies are written by then, so their deadlines never
    /// enter the timers.
    fn settle_timers(&mut self) {
        while let Some(id) = self.touched.pop() {
            let Some(connection) = self.connections.get_mut(&id) else { continue };
            connection.touched = false;
            let deadline = connection.deadline();
            self.timers.change(Wake::Connection(id), connection.timer, deadline);
            connection.timer = deadline;
        }
    }
}

fn shutting_down() -> CallError {
    CallError::new(Code::Unavailable, "the node is shutting down")
}

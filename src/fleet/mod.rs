//! Agents of the fleet: their attachments, their liveness and owners, and the workloads they run.
//!
//! Owns the fleet as this node sees it. Sans I/O: takes registrations, heartbeats, dropped streams, other nodes' presence and the
//! documents of `agents` with `handle_*`; returns writes, messages for agents and announcements with `poll_*`. Must never compare
//! wall clocks, and must never write about an agent that another node owns.
//!
//! After every `handle_*` drain [`Fleet::poll_end`], [`Fleet::poll_message`], [`Fleet::poll_attachment`],
//! [`Fleet::poll_write`] and [`Fleet::poll_announcement`] until each returns nothing; then wait for input or for
//! [`Fleet::poll_deadline`].
//!
//! | file | idea |
//! |---|---|
//! | `attachments.rs` | streams, and the agent registered on each |
//! | `ownership.rs` | the principal an agent belongs to, and the rights of others |
//! | `liveness.rs` | LIVE, STALE, DEAD by the last sign of life |
//! | `presence.rs` | nodes that are present |
//! | `roster.rs` | the agents, and the order of their changes |
//! | `room.rs` | shares of the roster, and eviction when it is full |
//! | `transition.rs`, `transition_limiter.rs` | the stored record of an agent, and its rate limit |
//! | `profile.rs`, `documents.rs` | descriptions and states of agents, as documents |
//! | `review.rs` | re-evaluation of one agent: what to report, what to store, and when |
//! | `link.rs` | messages of one agent |
//! | `records.rs` | transitions found in the store |
//! | `view.rs` | queries |

mod attachments;
pub mod commands;
mod documents;
mod link;
mod liveness;
mod ownership;
mod presence;
mod profile;
mod records;
mod review;
mod room;
mod roster;
mod transition;
mod transition_limiter;
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use peat_ipc::agent::{ConfigUpdate, NodeMessage, node_message};
use peat_ipc::{CallError, sidecar};

pub use attachments::{Owner, StreamId};
pub use documents::{Change, changes};
pub use link::HeldDeployments;
pub use liveness::{Liveness, Times};
pub use roster::Forgotten;

use self::attachments::Attachments;
use self::documents::Writes;
use self::presence::Presence;
use self::roster::{AgentEntry, Roster};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::Key;

/// Collection of the transitions, one document per agent.
pub const COLLECTION: &str = "agents";

/// Settings of the fleet on this node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Heartbeat interval and thresholds.
    pub times: Times,
    /// Base URL at which agents reach this node over HTTP, `http://HOST:PORT`; empty if they cannot.
    pub http_url: String,
}

impl Settings {
    /// Returns the URL of an agent's server-sent events; empty without HTTP.
    #[must_use]
    pub fn events_url_of(&self, agent: &str) -> String {
        if self.http_url.is_empty() {
            String::new()
        } else {
            format!("{}{}", self.http_url, Settings::events_path(agent))
        }
    }

    /// Returns the path of that URL, which is the same at each node.
    #[must_use]
    pub fn events_path(agent: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let agent: String = agent.bytes().map(encode).collect();
        format!("/api/v1/agents/{agent}/events")
    }
}

/// A write that the engine requests; report its result with [`Fleet::handle_written`].
#[derive(Debug)]
pub struct FleetWrite {
    /// Number by which the engine identifies the write.
    pub number: u64,
    /// Key of the document.
    pub key: Key,
    /// Change to make. Compare it with the stored document first and skip it if [`changes`] returns false.
    pub change: Change,
}

/// A change of an agent's attachment to this node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attachment {
    /// The agent registered on this stream, perhaps repeatedly.
    Attached(String, StreamId),
    /// The agent no longer has a stream here.
    Detached(String),
}

/// A change of one agent, as its watchers receive it.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// New or changed: its current state.
    Is(Box<sidecar::Agent>),
    /// Removed: the id that is no longer known.
    Removed(String),
}

/// Result of a write.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum WriteResult {
    /// The document is as requested.
    Done,
    /// This machine failed; a later attempt may succeed.
    Failed,
    /// Rejected for good: a repetition would fail too.
    Refused,
}

#[derive(Debug)]
enum InFlight {
    Transition(String),
    Document(Key),
}

/// Engine of the fleet; see the module's documentation.
#[derive(Debug)]
pub struct Fleet {
    ours: EndpointId,
    node_id: String,
    settings: Settings,
    streams: Attachments,
    roster: Roster,
    presence: Presence,
    /// Agents that this node owns and that are LIVE.
    live_here: BTreeSet<String>,
    timers: BTreeSet<(Instant, String)>,
    /// Agents that are no longer LIVE but LIVE in the store, because the write is rate-limited, in progress or failed. While
    /// there are any, this node sends no presence.
    unsaid: BTreeSet<String>,
    /// Agents with a transition to store now.
    to_store: BTreeSet<String>,
    writes: Writes,
    flying: BTreeMap<u64, InFlight>,
    last_write: u64,
    messages: VecDeque<(StreamId, NodeMessage)>,
    ends: VecDeque<(StreamId, Option<CallError>)>,
    attachments: VecDeque<Attachment>,
}

impl Fleet {
    /// Returns an empty fleet.
    #[must_use]
    pub fn new(ours: EndpointId, node_id: String, settings: Settings) -> Fleet {
        Fleet {
            ours,
            node_id,
            settings,
            streams: Attachments::default(),
            roster: Roster::default(),
            presence: Presence::default(),
            live_here: BTreeSet::new(),
            timers: BTreeSet::new(),
            unsaid: BTreeSet::new(),
            to_store: BTreeSet::new(),
            writes: Writes::default(),
            flying: BTreeMap::new(),
            last_write: 0,
            messages: VecDeque::new(),
            ends: VecDeque::new(),
            attachments: VecDeque::new(),
        }
    }

    // Input. Messages of agents are in `link.rs`, documents of other nodes in `records.rs`.

    /// Processes the presence of another node that has agents.
    pub fn handle_presence(&mut self, now: Now, node: EndpointId) {
        if self.presence.handle(now.mono, node, &self.settings.times) {
            let its: Vec<String> =
                self.roster.iter().filter(|(_, e)| is_at(e, node)).map(|(id, _)| id.clone()).collect();
            its.iter().for_each(|id| self.review(now, id));
        }
    }

    /// Processes a gap from `since` to now in which this process was stopped or busy: heartbeats wait in sockets, and presence of
    /// other nodes was missed. Each agent keeps its state for one more heartbeat interval.
    pub fn handle_gap(&mut self, now: Now, since: Instant) {
        let times = self.settings.times;
        let grace = times.heartbeat.min(times.stale_after);
        self.presence.spare(since, now.mono, &times, grace);
        for (_, entry) in self.roster.iter_mut() {
            entry.spare(since, now.mono, &times, grace);
        }
        let all: Vec<String> = self.roster.iter().map(|(id, _)| id.clone()).collect();
        all.iter().for_each(|id| self.review(now, id));
    }

    /// Applies reloaded settings and sends them to every attached agent.
    pub fn handle_settings(&mut self, now: Now, settings: Settings) {
        if settings == self.settings {
            return;
        }
        self.settings = settings;
        let Times { heartbeat, stale_after, dead_after } = self.settings.times;
        let streams = self.roster.iter().filter_map(|(id, entry)| Some((id.clone(), entry.local()?.stream?)));
        for (id, stream) in streams.collect::<Vec<(String, StreamId)>>() {
            let update = ConfigUpdate {
                heartbeat_interval_ms: millis(heartbeat),
                stale_after_ms: millis(stale_after),
                dead_after_ms: millis(dead_after),
                events_url: self.settings.events_url_of(&id),
            };
            self.say(stream, node_message::Body::ConfigUpdate(update));
        }
        let all: Vec<String> = self.roster.iter().map(|(id, _)| id.clone()).collect();
        all.iter().for_each(|id| self.review(now, id));
    }

    /// Processes the result of a write from [`Fleet::poll_write`].
    pub fn handle_written(&mut self, now: Now, number: u64, written: WriteResult) {
        match self.flying.remove(&number) {
            Some(InFlight::Document(key)) => self.writes.ended(now.mono, &key, written == WriteResult::Failed),
            Some(InFlight::Transition(id)) => self.transition_written(now, &id, written),
            None => {}
        }
    }

    /// Processes a deadline of [`Fleet::poll_deadline`].
    pub fn handle_timeout(&mut self, now: Now) {
        self.writes.handle_timeout(now.mono);
        while let Some((at, id)) = self.timers.first().cloned()
            && now.reached(at)
        {
            self.timers.pop_first();
            if let Some(entry) = self.roster.get_mut(&id) {
                entry.timer = None;
            }
            self.review(now, &id);
        }
    }

    // Output.

    /// Returns a stream to end: with an error, or without one after a Goodbye.
    #[must_use]
    pub fn poll_end(&mut self) -> Option<(StreamId, Option<CallError>)> {
        self.ends.pop_front()
    }

    /// Returns an agent that was attached or detached.
    #[must_use]
    pub fn poll_attachment(&mut self) -> Option<Attachment> {
        self.attachments.pop_front()
    }

    /// Returns a message for an agent.
    #[must_use]
    pub fn poll_message(&mut self) -> Option<(StreamId, NodeMessage)> {
        self.messages.pop_front()
    }

    /// Returns a document to write.
    #[must_use]
    pub fn poll_write(&mut self, now: Now) -> Option<FleetWrite> {
        if let Some((key, json)) = self.poll_transition(now) {
            let id = key.id().to_owned();
            return Some(self.write(key, Change::Whole(json), InFlight::Transition(id)));
        }
        let (key, change) = self.writes.poll()?;
        let flying = InFlight::Document(key.clone());
        Some(self.write(key, change, flying))
    }

    fn write(&mut self, key: Key, change: Change, flying: InFlight) -> FleetWrite {
        self.last_write += 1;
        self.flying.insert(self.last_write, flying);
        FleetWrite { number: self.last_write, key, change }
    }

    /// Returns true if this node should announce its presence now. Presence vouches for what this node stored last: while an
    /// agent that is gone is still LIVE in the store, the node stays silent, and if that takes long, the other nodes derive
    /// STALE.
    #[must_use]
    pub fn poll_announcement(&mut self, now: Now) -> bool {
        self.presence.poll(now.mono, &self.settings.times, self.unsaid.is_empty())
    }

    /// Returns the time to call [`Fleet::handle_timeout`] and drain.
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.presence.deadline(), self.writes.deadline()].into_iter().flatten().min()
    }

    // Between input and output.

    fn say(&mut self, stream: StreamId, body: node_message::Body) {
        self.messages.push_back((stream, NodeMessage { body: Some(body) }));
    }
}

fn is_at(entry: &AgentEntry, node: EndpointId) -> bool {
    entry.local().is_none() && entry.claim.endpoint == node
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

//! Agents: who is attached where, which of them live, and what they run.
//!
//! Owns the fleet as this node sees it. Sans I/O: takes registrations, heartbeats, dropped streams, other nodes' presence and
//! the documents of `agents` with `handle_*`; gives writes, messages for agents and announcements with `poll_*`. Must
//! never compare wall clocks, and never writes about an agent that another node owns.
//!
//! After every `handle_*` drain [`Fleet::poll_end`], [`Fleet::poll_message`], [`Fleet::poll_attachment`],
//! [`Fleet::poll_write`] and [`Fleet::poll_announcement`], each until it gives nothing; then wait for input or for [`Fleet::poll_deadline`].
//!
//! | file | idea |
//! |---|---|
//! | `attachments.rs` | which stream holds which agent, and whose an id is |
//! | `ownership.rs` | the principal an agent belongs to, and what others may do |
//! | `liveness.rs` | LIVE, STALE, DEAD by the last sign |
//! | `presence.rs` | which nodes are there |
//! | `roster.rs` | the agents, and the order of their changes |
//! | `room.rs` | which agents give way when there are too many |
//! | `transition.rs`, `damper.rs` | what is stored of an agent, and how often |
//! | `profile.rs`, `documents.rs` | what agents say, as documents |
//! | `review.rs` | one agent looked at again: what is to be told, stored, and when |
//! | `link.rs` | one agent's messages |
//! | `records.rs` | what other nodes stored |
//! | `view.rs` | what is shown |

mod attachments;
pub mod commands;
mod damper;
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
mod view;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use peat_ipc::agent::{ConfigUpdate, NodeMessage, node_message};
use peat_ipc::{CallError, sidecar};

pub use attachments::{Owner, StreamId};
pub use documents::{Change, changes};
pub use link::Held;
pub use liveness::{Liveness, Times};
pub use roster::Forgotten;

use self::attachments::Attachments;
use self::documents::Writes;
use self::presence::Presence;
use self::roster::{Entry, Roster};
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::Key;

/// Where transitions are kept.
pub const COLLECTION: &str = "agents";

/// What the engine is told of this node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Settings {
    /// Intervals and thresholds.
    pub times: Times,
    /// Where agents reach this node over HTTP, `http://HOST:PORT`; empty where they do not.
    pub http_url: String,
}

impl Settings {
    /// Where an agent finds its server-sent events; empty where there are none.
    #[must_use]
    pub fn events_url_of(&self, agent: &str) -> String {
        if self.http_url.is_empty() {
            String::new()
        } else {
            format!("{}{}", self.http_url, Settings::events_path(agent))
        }
    }

    /// The same without saying where the node is.
    #[must_use]
    pub fn events_path(agent: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
        let encode = |byte: u8| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") };
        let agent: String = agent.bytes().map(encode).collect();
        format!("/api/v1/agents/{agent}/events")
    }
}

/// A write the engine wants; answer with [`Fleet::handle_written`].
#[derive(Debug)]
pub struct Write {
    /// The engine's own number for it.
    pub number: u64,
    /// Which document.
    pub key: Key,
    /// What to do with it. Nothing needs doing where [`changes`] says so.
    pub change: Change,
}

/// Where an agent's stream ends has changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Attachment {
    /// It registered on this stream, perhaps again.
    Attached(String, StreamId),
    /// It has no stream here any more.
    Detached(String),
}

/// What became of an agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Changed {
    /// It is this now.
    Is(Box<sidecar::Agent>),
    /// The one of this id is no longer known.
    Removed(String),
}

/// How a write ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Written {
    /// The document is as wanted.
    Done,
    /// This machine could not, now.
    Failed,
    /// It cannot be.
    Refused,
}

#[derive(Debug)]
enum Flying {
    Transition(String),
    Document(Key),
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Fleet {
    ours: EndpointId,
    node_id: String,
    settings: Settings,
    streams: Attachments,
    roster: Roster,
    presence: Presence,
    /// Agents that are LIVE and owned here.
    live_here: BTreeSet<String>,
    timers: BTreeSet<(Instant, String)>,
    /// Agents that are gone, of which the store still says LIVE: the write is damped, under way, or failed.
    unsaid: BTreeSet<String>,
    /// Agents whose transition is to be stored now.
    to_store: BTreeSet<String>,
    writes: Writes,
    flying: BTreeMap<u64, Flying>,
    last_write: u64,
    messages: VecDeque<(StreamId, NodeMessage)>,
    ends: VecDeque<(StreamId, Option<CallError>)>,
    attachments: VecDeque<Attachment>,
}

impl Fleet {
    /// A fleet nobody has been heard of.
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

    // Input; the agents' own is in `link.rs`, other nodes' documents in `records.rs`.

    /// Another node with agents is there.
    pub fn handle_presence(&mut self, now: Now, node: EndpointId) {
        if self.presence.handle(now.mono, node, &self.settings.times) {
            let its: Vec<String> =
                self.roster.iter().filter(|(_, e)| is_at(e, node)).map(|(id, _)| id.clone()).collect();
            its.iter().for_each(|id| self.review(now, id));
        }
    }

    /// This process was stopped, or busy, from `since` to now: heartbeats wait in sockets, and other nodes were not heard. No agent is
    /// silent for that; each keeps its state for one heartbeat.
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

    /// The settings were reloaded: every attached agent is told.
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

    /// A write of [`Fleet::poll_write`] ended.
    pub fn handle_written(&mut self, now: Now, number: u64, written: Written) {
        match self.flying.remove(&number) {
            Some(Flying::Document(key)) => self.writes.ended(now.mono, &key, written == Written::Failed),
            Some(Flying::Transition(id)) => self.transition_written(now, &id, written),
            None => {}
        }
    }

    /// A deadline of [`Fleet::poll_deadline`] came.
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

    /// A stream to end: with an error, or without one after a Goodbye.
    #[must_use]
    pub fn poll_end(&mut self) -> Option<(StreamId, Option<CallError>)> {
        self.ends.pop_front()
    }

    /// An agent's stream that was attached or lost.
    #[must_use]
    pub fn poll_attachment(&mut self) -> Option<Attachment> {
        self.attachments.pop_front()
    }

    /// A message for an agent.
    #[must_use]
    pub fn poll_message(&mut self) -> Option<(StreamId, NodeMessage)> {
        self.messages.pop_front()
    }

    /// A document to write.
    #[must_use]
    pub fn poll_write(&mut self, now: Now) -> Option<Write> {
        if let Some((key, json)) = self.poll_transition(now) {
            let id = key.id().to_owned();
            return Some(self.write(key, Change::Whole(json), Flying::Transition(id)));
        }
        let (key, change) = self.writes.poll()?;
        let flying = Flying::Document(key.clone());
        Some(self.write(key, change, flying))
    }

    fn write(&mut self, key: Key, change: Change, flying: Flying) -> Write {
        self.last_write += 1;
        self.flying.insert(self.last_write, flying);
        Write { number: self.last_write, key, change }
    }

    /// Whether other nodes are to be told that this one is there. Its presence vouches for what it stored last: until it is stored
    /// that an agent is gone, this node is silent, and when that takes long the others find out by it.
    #[must_use]
    pub fn poll_announcement(&mut self, now: Now) -> bool {
        self.presence.poll(now.mono, &self.settings.times, self.unsaid.is_empty())
    }

    /// When to call [`Fleet::handle_timeout`] and drain.
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

fn is_at(entry: &Entry, node: EndpointId) -> bool {
    entry.local().is_none() && entry.claim.endpoint == node
}

fn millis(duration: std::time::Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

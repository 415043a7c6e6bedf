//! What the api thread asks of the sync engine, and what it hears from it.

use std::time::Duration;

use crate::identity::EndpointId;
use crate::store::KeyHash;
use crate::sync::link::PerLane;

/// A request from the api engine. Every one is answered by one [`Event::Answered`].
#[derive(Debug)]
pub struct Asked {
    /// The api engine's call.
    pub call: u64,
    /// What is asked.
    pub control: Control,
}

/// Bytes of messages.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ByteCounts {
    /// Handed to the link.
    pub sent: u64,
    /// Read from the link.
    pub received: u64,
}

/// The bytes exchanged with one peer, by class.
pub type Traffic = PerLane<ByteCounts>;

/// What can be asked.
#[derive(Debug)]
pub enum Control {
    /// Dial and admit a peer from now on, across restarts. Addresses as `HOST:PORT` or `relay:HOST:PORT`; none: those
    /// already known. `wait`: answered only once it is admitted, or after so long with the reason why it is not.
    Connect { peer: EndpointId, addresses: Vec<String>, wait: Option<Duration> },
    /// Drop a peer and refuse it until it is connected again, across restarts.
    Disconnect(EndpointId),
    /// What is known of every peer that is not refused.
    ListPeers,
    /// The same, and of those that are.
    ListAllPeers,
    /// End radio silence.
    StartSync,
    /// Begin radio silence; answered once no resolver query is in flight.
    StopSync,
    /// Counters.
    Stats,
    /// Counters and peers, for metrics and for people; [`crate::limits::LISTED_PEERS`] peers at most, those connected first.
    Measure,
    /// Answer once `peers` peers hold version `sequence` of this document, or a superseding one, durably.
    WaitPeers { key: KeyHash, sequence: u64, peers: u32 },
    /// The call that waited has ended; answers nothing.
    Abandon { call: u64 },
    /// Tell the mesh that this node, which has agents, is there; answers nothing.
    Announce,
}

/// What the sync engine tells the api engine.
#[derive(Debug)]
pub enum Event {
    /// The answer to an [`Asked`].
    Answered { call: u64, answer: Result<Answer, ControlError> },
    /// Something a status call shows has changed.
    Status(Status),
    /// Another node, which has agents, is there.
    Presence(EndpointId),
    /// Sentences on documents that do not replicate, for the operator; those of earlier events do not hold any more.
    Notices(Vec<String>),
}

/// Answers by request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Connect, Disconnect, StartSync, StopSync, WaitPeers.
    Done,
    /// ListPeers.
    Peers(Vec<Peer>),
    /// Stats.
    Stats(Stats),
    /// Measure.
    Measured(Box<Measured>),
}

/// Why a control request failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControlError {
    /// Connecting a peer no address is known for.
    NoAddress(EndpointId),
    /// The peer is this node.
    Ourselves,
    /// An address that is not `HOST:PORT` or `relay:HOST:PORT`.
    BadAddress(String),
    /// The table of peers is full ([`crate::limits::PEERS`]).
    TooManyPeers,
    /// Disconnecting a peer nobody has heard of.
    Unknown(EndpointId),
    /// The wish could not be saved; the store said why.
    NotSaved(String),
    /// Sync was started again before it had stopped.
    StartedAgain,
    /// The peer was not admitted in time; why.
    NotAdmitted(EndpointId, String),
    /// As many calls wait for a peer as may.
    TooManyWait,
}

/// What status calls show; sent whenever it changes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// False under radio silence.
    pub active: bool,
    /// Peers admitted and connected now.
    pub connected_peers: u32,
    /// At least one peer is still being reconciled or caught up.
    pub catching_up: bool,
    /// Some peer was reconciled with, or could not be; or there is none to dial.
    pub tried: bool,
    /// A node whose identity two machines use, this one before others, and how many such nodes were noticed lately.
    pub copied: Option<EndpointId>,
    /// See `copied`.
    pub copied_nodes: u32,
    /// Two nodes with one node id, this node and a connected peer or two connected peers.
    pub namesakes: Option<[EndpointId; 2]>,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// See [`Status::active`].
    pub active: bool,
    /// See [`Status::connected_peers`].
    pub connected_peers: u32,
    /// UDP payload bytes sent and received.
    pub bytes_sent: u64,
    /// See `bytes_sent`.
    pub bytes_received: u64,
}

/// What is measured of the links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Measured {
    /// See [`Stats`].
    pub stats: Stats,
    /// Peers this node knows of.
    pub known_peers: usize,
    /// Some of them.
    pub peers: Vec<Peer>,
}

/// One peer, as `ListPeers` shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Who.
    pub id: EndpointId,
    /// Where it is dialled, or was seen.
    pub addresses: Vec<String>,
    /// Admitted and connected now.
    pub connected: bool,
    /// Which path is in use; `None` while not connected.
    pub path: Option<&'static str>,
    /// Why that one, in words.
    pub path_reason: String,
    /// Smoothed round-trip time in microseconds; 0 while not connected.
    pub rtt_micros: u64,
    /// Since its last durable acknowledgement, milliseconds; 0 when there was none.
    pub last_ack_age_ms: u64,
    /// Documents whose newest version it has not acknowledged.
    pub pending_documents: u64,
    /// Documents that it does not keep, or that are not taken from it.
    pub held_documents: u64,
    /// Its wall clock minus ours at its hello, milliseconds.
    pub clock_skew_ms: i64,
    /// Why it is not connected, or what nothing comes of while it is; empty otherwise.
    pub last_error: String,
    /// What it calls itself; empty before its first hello.
    pub name: String,
    /// Bytes of messages sent and received since the start, by class in the order of [`crate::sync::link::Lane::ALL`].
    pub traffic: Traffic,
}

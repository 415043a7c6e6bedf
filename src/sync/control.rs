//! Requests from the api thread to the sync engine, and events in the other direction.

use std::time::Duration;

use crate::identity::EndpointId;
use crate::store::KeyHash;
use crate::sync::link::PerLane;

/// Request from the api engine. Each is answered by exactly one [`Event::Answered`], unless its request says otherwise.
#[derive(Debug)]
pub struct ControlRequest {
    /// Number of the api engine's call.
    pub call: u64,
    /// The request itself.
    pub control: Control,
}

/// Bytes of messages in each direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ByteCounts {
    /// Bytes handed to the link.
    pub sent: u64,
    /// Bytes read from the link.
    pub received: u64,
}

/// Bytes exchanged with one peer, by lane.
pub type Traffic = PerLane<ByteCounts>;

/// Kinds of requests.
#[derive(Debug)]
pub enum Control {
    /// Dials and admits a peer from now on, across restarts. Addresses are `HOST:PORT` or `relay:HOST:PORT`; if there are none,
    /// those already known are used. With `wait` the answer comes once the peer is admitted, or after this time with the reason
    /// why it is not.
    Connect { peer: EndpointId, addresses: Vec<String>, wait: Option<Duration> },
    /// Disconnects a peer and refuses it until it is connected again, across restarts.
    Disconnect(EndpointId),
    /// Lists every known peer that is not refused.
    ListPeers,
    /// Lists every known peer, refused ones included.
    ListAllPeers,
    /// Ends radio silence.
    StartSync,
    /// Begins radio silence; answered once no resolver query is in flight.
    StopSync,
    /// Returns the counters.
    Stats,
    /// Returns counters and peers, for metrics and operators; at most [`crate::limits::LISTED_PEERS`] peers, connected ones
    /// first.
    Measure,
    /// Waits until `peers` peers durably hold version `sequence` of this document, or a superseding one.
    WaitPeers { key: KeyHash, sequence: u64, peers: u32 },
    /// Abandons a waiting call that has ended; not answered.
    Abandon { call: u64 },
    /// Announces to the mesh that this node, which has agents, is present; not answered.
    Announce,
}

/// Events from the sync engine to the api engine.
#[derive(Debug)]
pub enum Event {
    /// Answer to an [`ControlRequest`].
    Answered { call: u64, answer: Result<Answer, ControlError> },
    /// A value shown by a status call has changed.
    Status(Status),
    /// Another node, which has agents, is present.
    Presence(EndpointId),
    /// Notices to the operator about documents that do not replicate; they replace those of earlier events.
    Notices(Vec<String>),
}

/// Answers, by request.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// Connect, Disconnect, StartSync, StopSync or WaitPeers succeeded.
    Done,
    /// Answer to ListPeers and ListAllPeers.
    Peers(Vec<Peer>),
    /// Answer to Stats.
    Stats(Stats),
    /// Answer to Measure.
    Measured(Box<Measured>),
}

/// Reason why a control request failed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ControlError {
    /// No address is known for the peer to connect.
    NoAddress(EndpointId),
    /// The peer is this node.
    Ourselves,
    /// The address is not `HOST:PORT` or `relay:HOST:PORT`.
    BadAddress(String),
    /// The table of peers is full ([`crate::limits::PEERS`]).
    TooManyPeers,
    /// The peer to disconnect is unknown.
    Unknown(EndpointId),
    /// The setting could not be saved; contains the store's reason.
    NotSaved(String),
    /// Sync was started again before it had stopped.
    StartedAgain,
    /// The peer was not admitted in time; contains the reason.
    NotAdmitted(EndpointId, String),
    /// The maximum number of calls already wait for a peer.
    TooManyWait,
}

/// Values shown by status calls; sent whenever one changes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Status {
    /// False under radio silence.
    pub active: bool,
    /// Number of peers admitted and connected now.
    pub connected_peers: u32,
    /// True while at least one peer is being reconciled or caught up.
    pub catching_up: bool,
    /// True once a peer is in sync, a dial or a session has ended, no peer is to be dialled, or sync was stopped.
    pub tried: bool,
    /// Node with an identity that two machines use, preferably this one.
    pub copied: Option<EndpointId>,
    /// Number of such nodes noticed lately.
    pub copied_nodes: u32,
    /// Two nodes that share a node id: this node and a connected peer, or two connected peers.
    pub namesakes: Option<[EndpointId; 2]>,
}

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Stats {
    /// See [`Status::active`].
    pub active: bool,
    /// See [`Status::connected_peers`].
    pub connected_peers: u32,
    /// UDP payload bytes sent.
    pub bytes_sent: u64,
    /// UDP payload bytes received.
    pub bytes_received: u64,
}

/// Measurements of the links.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Measured {
    /// Counters; see [`Stats`].
    pub stats: Stats,
    /// Number of known peers that are not refused.
    pub known_peers: usize,
    /// The first [`crate::limits::LISTED_PEERS`] of them, connected ones first.
    pub peers: Vec<Peer>,
}

/// One peer, as `ListPeers` shows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Endpoint id of the peer.
    pub id: EndpointId,
    /// Addresses at which it is dialled, or else the one at which it was last seen.
    pub addresses: Vec<String>,
    /// True if it is admitted and connected now.
    pub connected: bool,
    /// Path in use, `direct` or `relay`; `None` while not connected.
    pub path: Option<&'static str>,
    /// Reason for that path, as text for the operator.
    pub path_reason: String,
    /// Smoothed round-trip time, in microseconds; 0 while not connected.
    pub rtt_micros: u64,
    /// Time since its last durable acknowledgement, in milliseconds; 0 if there was none.
    pub last_ack_age_ms: u64,
    /// Number of documents of which it has not acknowledged the newest version.
    pub pending_documents: u64,
    /// Number of documents that it does not keep, or that this node does not accept from it.
    pub held_documents: u64,
    /// Its wall clock minus this node's when its hello arrived, in milliseconds.
    pub clock_skew_ms: i64,
    /// Reason why it is not connected, or the stalled wait of a connected one; empty otherwise.
    pub last_error: String,
    /// Node id from its hello; empty before the first one.
    pub name: String,
    /// Bytes of messages since the start, by lane in the order of [`crate::sync::link::Lane::ALL`].
    pub traffic: Traffic,
}

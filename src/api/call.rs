//! A call that could not be answered at once, and what it waits for.

use std::time::{Duration, Instant};

use peat_ipc::method::Response;
use peat_ipc::{CallError, Code, Method};

use crate::api::ConnectionId;
use crate::api::dispatch::{Answered, Then};
use crate::api::engine::Principal;
use crate::api::feed::Feed;
#[cfg(feature = "http")]
use crate::api::http::{events::Events, probe::Probe};
use crate::api::link::Link;
use crate::api::watch::Watch;
use crate::fleet::Owner;
use crate::limits::CLIENT_LIST_BYTES;
use crate::schema::{self, CostError};
use crate::store;
use crate::sync::ControlError;

/// From request to answer where the client named no deadline: a put that waits for peers,
pub(super) const PEERS_DEADLINE: Duration = Duration::from_secs(10);
/// and what the sync thread is asked.
pub(super) const CONTROL_DEADLINE: Duration = Duration::from_secs(60);

/// What is asked for by its path alone.
pub(super) const NO_METHOD: u32 = u32::MAX;

/// Checks, before a client's message is decoded, that its lists and maps take no more than [`CLIENT_LIST_BYTES`] of memory.
pub(super) fn affordable(message: schema::Index, name: &str, bytes: &[u8]) -> Result<(), CallError> {
    message.cost(bytes, CLIENT_LIST_BYTES).map(|_| ()).map_err(|error| match error {
        CostError::Malformed => CallError::new(Code::InvalidArgument, format!("{name}: malformed")),
        CostError::Over => {
            let words =
                format!("{name}: its lists take over {CLIENT_LIST_BYTES} bytes of memory; send fewer elements at once");
            CallError::new(Code::ResourceExhausted, words)
        }
    })
}

#[derive(Debug)]
pub(super) struct Call {
    pub(super) connection: ConnectionId,
    /// Whose share it is counted to.
    pub(super) principal: Principal,
    /// The client's own number.
    pub(super) id: u64,
    pub(super) stage: Stage,
    pub(super) deadline: Option<Instant>,
    /// The number of its method; [`NO_METHOD`] for what is none.
    pub(super) method: u32,
    pub(super) begun: Instant,
    /// The request's share of the bytes all clients may have waiting.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// The store has the write, or will get it.
    /// What the write will mean for agents.
    Writing { then: Then, meaning: Option<Box<Meaning>> },
    /// The sync thread was asked.
    Asking(Answered),
    /// The write is on disk here; so many peers shall have it too.
    AwaitingPeers { peers: u32, response: Response },
    /// Changes are sent as they come.
    Streaming(Box<Feed>),
    /// Agents are watched.
    Watching(Box<Watch>),
    /// An agent is at the other end.
    Link(Link),
    /// An agent listens to its events.
    #[cfg(feature = "http")]
    Events(Events),
    /// Other threads are asked for what the answer is made of.
    #[cfg(feature = "http")]
    Probing(Probe),
}

/// What a client's write means for agents.
#[derive(Debug)]
pub(super) enum Meaning {
    /// A put to a platform is a sign of life: of this agent, from this caller.
    Sign(String, Owner),
    /// An admin had this agent forgotten.
    Forgotten(String),
}

impl Stage {
    /// What a client is told whose deadline passed now.
    pub(super) fn timed_out(&self) -> CallError {
        let message = match self {
            Stage::Writing { .. } => "the store did not answer in time; the write may still be carried out".into(),
            Stage::Asking(_) => "the deadline passed; what was asked goes on".into(),
            Stage::AwaitingPeers { peers, .. } => {
                format!("the write stands, on disk here; fewer than {peers} peers have confirmed it in time")
            }
            Stage::Streaming(_) => "the subscription's deadline has come; resume after the last sequence".into(),
            Stage::Watching(_) => "the watch's deadline has come; watch again".into(),
            Stage::Link(_) => "the stream's deadline has come; register again".into(),
            #[cfg(feature = "http")]
            Stage::Events(_) | Stage::Probing(_) => String::new(),
        };
        CallError::new(Code::DeadlineExceeded, message)
    }
}

/// How long a call may take: what the client asked for, else the method's default, else for ever.
pub(super) fn limit(method: Method, deadline_ms: u32, waits_for_peers: bool) -> Option<Duration> {
    match method {
        _ if deadline_ms != 0 => Some(Duration::from_millis(deadline_ms.into())),
        _ if waits_for_peers => Some(PEERS_DEADLINE),
        Method::ConnectPeer | Method::DisconnectPeer | Method::ListPeers => Some(CONTROL_DEADLINE),
        Method::StartSync | Method::StopSync | Method::GetSyncStats => Some(CONTROL_DEADLINE),
        _ => None,
    }
}

/// What a client is told of the store's errors.
impl From<store::Error> for CallError {
    fn from(error: store::Error) -> CallError {
        CallError::new(error.code(), error.to_string())
    }
}

/// What a client is told of the sync engine's errors.
impl From<ControlError> for CallError {
    fn from(error: ControlError) -> CallError {
        let (code, message) = match error {
            ControlError::NoAddress(peer) => (
                Code::FailedPrecondition,
                format!("no address is known for peer {peer}; give one as HOST:PORT or relay:HOST:PORT"),
            ),
            ControlError::Ourselves => (Code::InvalidArgument, "endpoint_id is this node's own".into()),
            ControlError::BadAddress(address) => {
                (Code::InvalidArgument, format!("'{address}' is not an address; expected HOST:PORT or relay:HOST:PORT"))
            }
            ControlError::TooManyPeers => (
                Code::ResourceExhausted,
                format!("{} peers are known, which is the limit; disconnect one first", crate::limits::PEERS),
            ),
            ControlError::Unknown(peer) => (Code::NotFound, format!("peer {peer} is not known here")),
            ControlError::NotSaved(reason) => (Code::Unavailable, reason),
            ControlError::NotAdmitted(peer, why) => {
                (Code::DeadlineExceeded, format!("peer {peer} is not linked; this node goes on dialling it: {why}"))
            }
            ControlError::TooManyWait => (
                Code::ResourceExhausted,
                "256 calls wait for peers to be admitted, which is the limit; try again".into(),
            ),
            ControlError::StartedAgain => (Code::Aborted, "sync was started again before it had stopped".into()),
        };
        CallError::new(code, message)
    }
}

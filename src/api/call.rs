//! Calls that could not be answered at once, and the event each waits for.

use std::time::{Duration, Instant};

use peat_ipc::method::Response;
use peat_ipc::{CallError, Code, Method};

use crate::api::ConnectionId;
use crate::api::dispatch::{BuildAnswer, OnCommit};
use crate::api::engine::Principal;
use crate::api::feed::Feed;
#[cfg(feature = "http")]
use crate::api::http::{events::Events, probe::Probe};
use crate::api::link::AgentStream;
use crate::api::watch::Watch;
use crate::fleet::Owner;
use crate::limits::CLIENT_LIST_BYTES;
use crate::schema::{self, CostError};
use crate::store;
use crate::sync::ControlError;

/// Default deadline, from request to answer, of a put with `wait_peers`.
pub(super) const PEERS_DEADLINE: Duration = Duration::from_secs(10);
/// Default deadline, from request to answer, of calls that the sync thread answers.
pub(super) const CONTROL_DEADLINE: Duration = Duration::from_secs(60);

/// Method number of requests that name no RPC method: plain HTTP routes, found by their path.
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

/// A call that is not answered yet.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) connection: ConnectionId,
    /// Principal that this call's share of the limits is charged to.
    pub(super) principal: Principal,
    /// Call number chosen by the client; unique within its connection.
    pub(super) id: u64,
    pub(super) stage: CallStage,
    pub(super) deadline: Option<Instant>,
    /// Number of its method; [`NO_METHOD`] for plain HTTP routes.
    pub(super) method: u32,
    pub(super) begun: Instant,
    /// Size of the request, counted in the bytes that all clients may have buffered.
    pub(super) bytes: usize,
}

/// The event a call waits for.
#[derive(Debug)]
pub(super) enum CallStage {
    /// Waiting for the store to commit; the write is with the store, or held until its queue has room. `meaning` is applied to
    /// the fleet on success.
    Writing { then: OnCommit, meaning: Option<Box<AgentEffect>> },
    /// Waiting for the sync thread; the function makes the response of its answer.
    Asking(BuildAnswer),
    /// The write is on disk here; `response` is sent once `peers` peers have confirmed it.
    AwaitingPeers { peers: u32, response: Response },
    /// A subscription: changes are sent as they are committed.
    Streaming(Box<Feed>),
    /// A watch of the agents.
    Watching(Box<Watch>),
    /// The stream of an agent.
    Link(AgentStream),
    /// An agent listens to its server-sent events.
    #[cfg(feature = "http")]
    Events(Events),
    /// An HTTP route waits for answers of other threads.
    #[cfg(feature = "http")]
    Probing(Probe),
}

/// The effect of a client's write on an agent.
#[derive(Debug)]
pub(super) enum AgentEffect {
    /// A put to a platform: a sign of life of this agent, from this caller.
    Seen(String, Owner),
    /// An admin deleted this agent's record, so the fleet removes the agent.
    Removed(String),
}

impl CallStage {
    /// Returns the error for a call that reaches its deadline in this stage.
    pub(super) fn timed_out(&self) -> CallError {
        let message = match self {
            CallStage::Writing { .. } => "the store did not answer in time; the write may still be carried out".into(),
            CallStage::Asking(_) => "the deadline passed; what was asked goes on".into(),
            CallStage::AwaitingPeers { peers, .. } => {
                format!("the write stands, on disk here; fewer than {peers} peers have confirmed it in time")
            }
            CallStage::Streaming(_) => "the subscription's deadline has come; resume after the last sequence".into(),
            CallStage::Watching(_) => "the watch's deadline has come; watch again".into(),
            CallStage::Link(_) => "the stream's deadline has come; register again".into(),
            #[cfg(feature = "http")]
            CallStage::Events(_) | CallStage::Probing(_) => String::new(),
        };
        CallError::new(Code::DeadlineExceeded, message)
    }
}

/// Returns the time limit of a call: the client's, else the method's default, else `None` for no limit.
pub(super) fn limit(method: Method, deadline_ms: u32, waits_for_peers: bool) -> Option<Duration> {
    match method {
        _ if deadline_ms != 0 => Some(Duration::from_millis(deadline_ms.into())),
        _ if waits_for_peers => Some(PEERS_DEADLINE),
        Method::ConnectPeer | Method::DisconnectPeer | Method::ListPeers => Some(CONTROL_DEADLINE),
        Method::StartSync | Method::StopSync | Method::GetSyncStats => Some(CONTROL_DEADLINE),
        _ => None,
    }
}

/// Maps errors of the store to status codes of calls.
impl From<store::Error> for CallError {
    fn from(error: store::Error) -> CallError {
        CallError::new(error.code(), error.to_string())
    }
}

/// Maps errors of the sync engine to status codes of calls.
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

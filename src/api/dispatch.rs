//! Carries out each method, once for all codecs: a request becomes an answer, a write, a control request to the sync thread, or a
//! stream.
//!
//! Knows nothing of connections, frames and deadlines. Reads are answered here, from the view's snapshot.

use std::str::FromStr;
use std::time::Duration;

use peat_ipc::frame::PAYLOAD_BYTES;
use peat_ipc::method::{Request, Response};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use crate::api::agents;
use crate::api::caller::Role;
use crate::api::command_list::{self, Source};
use crate::api::commands::{self, AgentDirectory, RequestContext};
use crate::api::feed::Feed;
use crate::api::typed::Typed;
use crate::api::view::NodeView;
use crate::api::watch::Watch;
use crate::clock::Now;
use crate::identity::EndpointId;
use crate::store::{CommandView, DocumentWrite, Key, KeyHash, Put, Version};
use crate::sync::{Answer, Control, Peer};

/// The next step of a call.
#[derive(Debug)]
pub(super) enum Dispatched {
    /// The response is complete.
    Answer(Response),
    /// Submit the write to the store; `then` makes the response of its outcome.
    Write { write: DocumentWrite, then: OnCommit },
    /// Send the control request to the sync thread; `answered` makes the response of its answer.
    Ask { control: Control, answered: BuildAnswer },
    /// Send changes of documents.
    Stream(Feed),
    /// Send changes of agents.
    Watch(Watch),
}

/// Outcome of a write.
#[derive(Debug)]
pub(super) struct CommittedWrite {
    pub(super) version: Vec<u8>,
    pub(super) durable: bool,
    pub(super) dropped_bytes: u64,
}

/// The conditions and the form of the answer to a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct OnCommit {
    pub(super) key: KeyHash,
    /// Number of peers that must have confirmed the write first.
    pub(super) peers: u32,
    pub(super) respond: BuildResponse,
}

/// Makes the response of a committed write.
#[derive(Clone, Copy, Debug)]
pub(super) enum BuildResponse {
    /// From the outcome of the write.
    FromWrite(fn(CommittedWrite) -> Response),
    /// From the command as it is after the write.
    FromCommand(fn(Option<&CommandView>, Now) -> Response),
}

/// Makes the response of the sync engine's answer; `None` if the answer is of another kind.
pub(super) type BuildAnswer = fn(Answer) -> Option<Response>;

/// Describes two nodes that share a node id. Listed as a problem, but does not make this node unhealthy.
fn warn_of_namesakes([one, other]: [EndpointId; 2]) -> String {
    format!("nodes {one} and {other} have one node id; give one of the two another --node-id")
}

/// Carries out `request` as far as this thread can, and checks that the caller may write the document.
pub(super) fn begin(
    view: &mut NodeView,
    known: &RequestContext<'_>,
    request: Request,
) -> Result<Dispatched, CallError> {
    let step = carry_out(view, known, request)?;
    if let Dispatched::Write { write, .. } = &step {
        known.check_document(&write.key)?;
    }
    Ok(step)
}

fn carry_out(view: &mut NodeView, known: &RequestContext<'_>, request: Request) -> Result<Dispatched, CallError> {
    let (roster, &RequestContext { fleet, now, role, .. }) = (known, known);
    match request {
        Request::GetStatus(_) => {
            let terms = fleet.registered("");
            answer(GetStatusResponse {
                heartbeat_interval_ms: terms.heartbeat_interval_ms,
                stale_after_ms: terms.stale_after_ms,
                dead_after_ms: terms.dead_after_ms,
                ..view.status()
            })
        }
        Request::GetHealth(_) => {
            let mut health = view.health(now);
            health.problems.extend(view.namesakes().or_else(|| fleet.namesakes(now)).map(warn_of_namesakes));
            health.problems.extend(known.commands.problems(now));
            answer(health)
        }
        Request::PutDocument(request) => put_document(view, roster, now, role, request),
        Request::PatchDocument(request) => patch_document(request),
        Request::GetDocument(request) => get_document(view, &request),
        Request::DeleteDocument(request) => delete_document(role, request),
        Request::ListDocuments(request) => list_documents(view, &request),
        Request::CompactDocument(request) => compact_document(role, request),
        Request::Subscribe(request) => {
            let run = view.run();
            Feed::new(request, run, view.snapshot()?).map(Dispatched::Stream)
        }
        Request::PutPlatform(request) => put_typed(request.platform, |_| PutPlatformResponse {}.into()),
        Request::PutCell(request) => put_typed(request.cell, |_| PutCellResponse {}.into()),
        Request::PutTrack(request) => put_typed(request.track, |_| PutTrackResponse {}.into()),
        Request::PutCommand(request) => put_command(view, roster, now, role, request),
        Request::GetPlatforms(_) => {
            let mut platforms = all(view)?;
            platforms.iter_mut().for_each(|platform| agents::add_liveness(platform, fleet, now));
            answer(GetPlatformsResponse { platforms })
        }
        Request::GetCells(_) => answer(GetCellsResponse { cells: all(view)? }),
        Request::GetTracks(_) => answer(GetTracksResponse { tracks: all(view)? }),
        Request::GetCommands(request) => get_commands(view, known, &request),
        Request::CancelCommand(request) => cancel_command(view, roster, now, role, request),
        Request::ListAgents(request) => answer(agents::list(fleet, now, &request)?),
        Request::WatchAgents(_) => Ok(Dispatched::Watch(Watch::new(fleet))),
        Request::ConnectPeer(_)
        | Request::DisconnectPeer(_)
        | Request::ListPeers(_)
        | Request::StartSync(_)
        | Request::StopSync(_)
        | Request::GetSyncStats(_) => ask(role, request),
    }
}

fn answer(response: impl Into<Response>) -> Result<Dispatched, CallError> {
    Ok(Dispatched::Answer(response.into()))
}

fn key(collection: String, id: String) -> Result<Key, CallError> {
    Key::new(collection, id).map_err(|error| CallError::new(Code::InvalidArgument, error.to_string()))
}

fn base(bytes: Vec<u8>) -> Option<Version> {
    (!bytes.is_empty()).then_some(Version(bytes))
}

/// Returns the step that submits a write. Waiting for peers implies `durable`.
fn write(key: Key, put: Put, durable: bool, peers: u32, respond: fn(CommittedWrite) -> Response) -> Dispatched {
    let then = OnCommit { key: key.hash(), peers, respond: BuildResponse::FromWrite(respond) };
    Dispatched::Write { write: DocumentWrite { key, put, durable: durable || peers > 0 }, then }
}

fn put_document(
    view: &mut NodeView,
    roster: &dyn AgentDirectory,
    now: Now,
    role: Role,
    request: PutDocumentRequest,
) -> Result<Dispatched, CallError> {
    let key = key(request.collection, request.doc_id)?;
    agents::reject_node_owned_collection(&key)?;
    let respond =
        |written: CommittedWrite| PutDocumentResponse { version: written.version, durable: written.durable }.into();
    let put = if key.collection() == Command::COLLECTION {
        let command = commands::from_json(key.id(), &request.json_data)?;
        match about_command(view, roster, now, role, &key)?.judge(&command)? {
            Some(put) => put,
            None => return Ok(Dispatched::Answer(unchanged(view, &key)?)),
        }
    } else {
        Put::Whole { json: request.json_data, base: base(request.base) }
    };
    Ok(write(key, put, request.durable, request.wait_peers, respond))
}

/// Returns the response to a put that changes nothing.
fn unchanged(view: &mut NodeView, key: &Key) -> Result<Response, CallError> {
    let durable = view.tip.durable;
    let document = view.snapshot()?.document(key)?;
    let response =
        document.map(|held| PutDocumentResponse { version: held.version.0, durable: held.sequence <= durable });
    Ok(response.unwrap_or_default().into())
}

fn patch_document(request: PatchDocumentRequest) -> Result<Dispatched, CallError> {
    let key = key(request.collection, request.doc_id)?;
    if key.collection() == Command::COLLECTION {
        return Err(CallError::new(Code::InvalidArgument, "commands are not patched; report a status with PutCommand"));
    }
    agents::reject_node_owned_collection(&key)?;
    let respond =
        |written: CommittedWrite| PatchDocumentResponse { version: written.version, durable: written.durable }.into();
    let put = Put::Patch { json: request.patch_json, base: base(request.base) };
    Ok(write(key, put, request.durable, request.wait_peers, respond))
}

fn delete_document(role: Role, request: DeleteDocumentRequest) -> Result<Dispatched, CallError> {
    let key = key(request.collection, request.doc_id)?;
    if key.collection() == Command::COLLECTION {
        role.require_admin("deleting a command")?;
    }
    if key.collection() == crate::fleet::COLLECTION {
        role.require_admin("deleting an agent")?;
    }
    Ok(write(key, Put::Delete, false, 0, |_| DeleteDocumentResponse {}.into()))
}

fn compact_document(role: Role, request: CompactDocumentRequest) -> Result<Dispatched, CallError> {
    let key = key(request.collection, request.doc_id)?;
    if key.collection() == Command::COLLECTION {
        role.require_admin("compacting a command")?;
    }
    agents::reject_node_owned_collection(&key)?;
    let respond = |written: CommittedWrite| {
        CompactDocumentResponse { version: written.version, dropped_bytes: written.dropped_bytes }.into()
    };
    Ok(write(key, Put::Compact, true, 0, respond))
}

fn get_document(view: &mut NodeView, request: &GetDocumentRequest) -> Result<Dispatched, CallError> {
    let key = key(request.collection.clone(), request.doc_id.clone())?;
    let durable = view.tip.durable;
    let response = view.snapshot()?.document(&key)?.map(|document| GetDocumentResponse {
        json_data: Some(document.json),
        version: document.version.0,
        durable: document.sequence <= durable,
    });
    answer(response.unwrap_or_default())
}

fn list_documents(view: &mut NodeView, request: &ListDocumentsRequest) -> Result<Dispatched, CallError> {
    // The id is a placeholder: the call checks the collection's name alone.
    key(request.collection.clone(), "-".into())?;
    let doc_ids = view.snapshot()?.list(&request.collection)?;
    answer(ListDocumentsResponse { doc_ids })
}

fn put_typed<T: Typed>(message: Option<T>, respond: fn(CommittedWrite) -> Response) -> Result<Dispatched, CallError> {
    let message = message.ok_or_else(|| missing::<T>())?;
    let key = typed_key(&message)?;
    let put = Put::Fields(message.to_fields()?);
    Ok(write(key, put, false, 0, respond))
}

fn put_command(
    view: &mut NodeView,
    roster: &dyn AgentDirectory,
    now: Now,
    role: Role,
    request: PutCommandRequest,
) -> Result<Dispatched, CallError> {
    let command = request.command.ok_or_else(missing::<Command>)?;
    let key = typed_key(&command)?;
    match about_command(view, roster, now, role, &key)?.judge(&command)? {
        Some(put) => Ok(write(key, put, true, 0, |_| PutCommandResponse {}.into())),
        None => answer(PutCommandResponse {}),
    }
}

fn cancel_command(
    view: &mut NodeView,
    roster: &dyn AgentDirectory,
    now: Now,
    role: Role,
    request: CancelCommandRequest,
) -> Result<Dispatched, CallError> {
    let key = key(Command::COLLECTION.into(), request.id)?;
    let put = about_command(view, roster, now, role, &key)?.cancel()?;
    let respond = BuildResponse::FromCommand(|held, now| commands::cancelled(held, now).into());
    let then = OnCommit { key: key.hash(), peers: 0, respond };
    Ok(Dispatched::Write { write: DocumentWrite { key, put, durable: true }, then })
}

fn get_commands(
    view: &mut NodeView,
    known: &RequestContext<'_>,
    request: &GetCommandsRequest,
) -> Result<Dispatched, CallError> {
    let (authority, snapshot) = view.authority_and_snapshot()?;
    let source = Source { snapshot, commands: known.commands, trust: &authority.trust, now: known.now };
    answer(command_list::list(&source, request)?)
}

fn about_command<'a>(
    view: &'a mut NodeView,
    roster: &'a dyn AgentDirectory,
    now: Now,
    role: Role,
    key: &'a Key,
) -> Result<commands::CommandCall<'a>, CallError> {
    let (authority, snapshot) = view.authority_and_snapshot()?;
    Ok(commands::CommandCall { now, role, key, authority, roster, snapshot })
}

fn missing<T: Typed>() -> CallError {
    CallError::new(Code::InvalidArgument, format!("{} is missing", T::NAME))
}

fn typed_key<T: Typed>(message: &T) -> Result<Key, CallError> {
    Key::new(T::COLLECTION, message.id())
        .map_err(|error| CallError::new(Code::InvalidArgument, format!("{}.id: {error}", T::NAME)))
}

/// Returns every document of a typed collection, if they fit one answer.
fn all<T: Typed + Message>(view: &mut NodeView) -> Result<Vec<T>, CallError> {
    let snapshot = view.snapshot()?;
    let mut messages = Vec::new();
    let mut bytes = 0;
    for id in snapshot.list(T::COLLECTION)? {
        let Some(document) = snapshot.document(&key(T::COLLECTION.into(), id.clone())?)? else { continue };
        let content: Map<String, Value> = serde_json::from_str(&document.json).unwrap_or_default();
        let message = T::from_document(id, &content);
        bytes += message.encoded_len() + 8;
        if bytes > PAYLOAD_BYTES {
            return Err(too_large(bytes, PAYLOAD_BYTES, SUBSCRIBE));
        }
        messages.push(message);
    }
    Ok(messages)
}

/// Alternative, for error messages, when the sum of the documents is too large for one answer.
pub(super) const SUBSCRIBE: &str = "Subscribe with snapshot set, which gives the documents one by one";

/// Alternatives, for error messages, when a single document is too large for one answer.
pub(super) const READ: &str = "a client that sets takes_parts (peat-ipc and ipc/go do), or GetDocument over HTTP; or compact, \
                               shorten or delete the document";

/// Returns the error for an answer that exceeds `limit`; `instead` names an alternative.
pub(super) fn too_large(bytes: usize, limit: usize, instead: &str) -> CallError {
    let message = format!("the answer is {bytes} bytes or more; the limit is {limit}: use {instead}");
    CallError::new(Code::ResourceExhausted, message)
}

fn ask(role: Role, request: Request) -> Result<Dispatched, CallError> {
    if !matches!(request, Request::ListPeers(_) | Request::GetSyncStats(_)) {
        role.require_admin(request.method().name())?;
    }
    let (control, answered): (Control, BuildAnswer) = match request {
        Request::ConnectPeer(request) => {
            (connect(request)?, |answer| done(&answer).map(|()| ConnectPeerResponse {}.into()))
        }
        Request::DisconnectPeer(request) => (Control::Disconnect(endpoint(&request.endpoint_id)?), |answer| {
            done(&answer).map(|()| DisconnectPeerResponse {}.into())
        }),
        Request::StartSync(_) => (Control::StartSync, |answer| done(&answer).map(|()| StartSyncResponse {}.into())),
        Request::StopSync(_) => (Control::StopSync, |answer| done(&answer).map(|()| StopSyncResponse {}.into())),
        Request::ListPeers(request) if request.all => (Control::ListAllPeers, peers),
        Request::ListPeers(_) => (Control::ListPeers, peers),
        _ => (Control::Stats, stats),
    };
    Ok(Dispatched::Ask { control, answered })
}

fn connect(request: ConnectPeerRequest) -> Result<Control, CallError> {
    let peer = endpoint(&request.endpoint_id)?;
    let mut addresses = request.addresses;
    if !request.relay_url.is_empty() {
        addresses.push(request.relay_url);
    }
    // A placeholder; `Engine::wait` derives the time from the call's deadline.
    Ok(Control::Connect { peer, addresses, wait: request.wait.then_some(Duration::MAX) })
}

fn endpoint(text: &str) -> Result<EndpointId, CallError> {
    EndpointId::from_str(text).map_err(|error| CallError::new(Code::InvalidArgument, format!("endpoint_id: {error}")))
}

fn done(answer: &Answer) -> Option<()> {
    matches!(answer, Answer::Done).then_some(())
}

fn peers(answer: Answer) -> Option<Response> {
    let Answer::Peers(mut peers) = answer else { return None };
    peers.sort_by_key(|peer| peer.id);
    Some(ListPeersResponse { peers: peers.into_iter().map(peer).collect() }.into())
}

fn peer(peer: Peer) -> PeerInfo {
    PeerInfo {
        endpoint_id: peer.id.to_string(),
        addresses: peer.addresses,
        connected: peer.connected,
        path: peer.path.unwrap_or_default().into(),
        path_reason: peer.path_reason,
        rtt_micros: peer.rtt_micros,
        last_ack_age_ms: peer.last_ack_age_ms,
        pending_documents: peer.pending_documents,
        held_documents: peer.held_documents,
        clock_skew_ms: peer.clock_skew_ms,
        last_error: peer.last_error,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "one of several ways to use up an answer")]
fn stats(answer: Answer) -> Option<Response> {
    let Answer::Stats(stats) = answer else { return None };
    let response = GetSyncStatsResponse {
        sync_active: stats.active,
        connected_peers: stats.connected_peers,
        bytes_sent: stats.bytes_sent,
        bytes_received: stats.bytes_received,
    };
    Some(response.into())
}

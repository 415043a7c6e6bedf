//! Methods about agents, and the fleet's writes in the form the store takes.

use peat_ipc::frame::PAYLOAD_BYTES;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::{Agent, ListAgentsRequest, ListAgentsResponse, Platform};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use crate::api::caller::{Caller, OVERFLOW_ID};
use crate::api::dispatch::too_large;
use crate::clock::Now;
use crate::fleet::{Change, Fleet, Owner};
use crate::limits::{AGENT_ID_BYTES, AGENTS_PAGE};
use crate::store::{self, Key, Put, Snapshot};

/// Returns the owner recorded for agents that this caller registers.
pub(super) fn owner(caller: &Caller) -> Owner {
    match caller {
        Caller::Unix { uid, .. } if *uid == OVERFLOW_ID || *uid == u32::MAX => Owner::Nobody,
        Caller::Unix { uid, .. } => Owner::User(*uid),
        Caller::Tcp => Owner::Tcp,
        Caller::Watcher => Owner::Watcher,
    }
}

/// Returns the agents that match the request: a page of them, or all if they fit one answer.
pub(super) fn list(fleet: &Fleet, now: Now, request: &ListAgentsRequest) -> Result<ListAgentsResponse, CallError> {
    let wanted = |agent: &Agent| {
        (request.liveness == 0 || agent.liveness == request.liveness)
            && (request.group.is_empty() || agent.group == request.group)
    };
    let after = std::str::from_utf8(&request.page_token)
        .map_err(|_| CallError::new(Code::InvalidArgument, "page_token is none that this call gave"))?;
    let after = (!after.is_empty()).then_some(after);
    let most = match usize::try_from(request.page_size).unwrap_or(AGENTS_PAGE) {
        0 => usize::MAX,
        size => size.min(AGENTS_PAGE),
    };
    let paged = request.page_size > 0 || after.is_some();
    let mut response = ListAgentsResponse::default();
    let mut bytes = AGENT_ID_BYTES + 8;
    for agent in fleet.agents(now, after).filter(wanted) {
        bytes += agent.encoded_len() + 8;
        if bytes > PAYLOAD_BYTES && !paged {
            return Err(too_large(
                bytes,
                PAYLOAD_BYTES,
                "page_size, or WatchAgents, which gives the agents one by one",
            ));
        }
        if bytes > PAYLOAD_BYTES || response.agents.len() >= most {
            response.next_page_token =
                response.agents.last().map(|last| last.agent_id.clone().into_bytes()).unwrap_or_default();
            break;
        }
        response.agents.push(agent);
    }
    Ok(response)
}

/// Adds to a platform the liveness of the agent with the same id.
pub(super) fn add_liveness(platform: &mut Platform, fleet: &Fleet, now: Now) {
    if let Some(agent) = fleet.agent(now, &platform.id) {
        platform.liveness = agent.liveness;
        platform.via = agent.via;
        platform.age_ms = agent.age_ms;
    }
}

/// Returns the ids of the `deployments` documents of one agent.
pub(super) fn deployments_of(snapshot: &Snapshot, agent: &str) -> Result<Vec<String>, store::Error> {
    let mut ids = snapshot.list_from("deployments", &format!("{agent}:"))?;
    // Ids are AGENT:NAME, and another agent's id may begin with this one's and a colon.
    ids.retain(|id| agent_id(snapshot, id).is_none_or(|named| named == agent));
    Ok(ids)
}

fn agent_id(snapshot: &Snapshot, id: &str) -> Option<String> {
    let document = snapshot.document(&Key::new("deployments", id).ok()?).ok()??;
    let fields: Map<String, Value> = serde_json::from_str(&document.json).ok()?;
    fields.get("agent_id")?.as_str().map(String::from)
}

/// Converts a change of the fleet to a put.
pub(super) fn put(change: Change) -> Put {
    match change {
        Change::Whole(json) => Put::Whole { json, base: None },
        Change::Fields(fields) => Put::Fields(fields),
        Change::Delete => Put::Delete,
    }
}

/// Rejects a client's write to `agents`, a collection that only nodes write.
pub(super) fn reject_node_owned_collection(key: &Key) -> Result<(), CallError> {
    if key.collection() != crate::fleet::COLLECTION {
        return Ok(());
    }
    Err(CallError::new(
        Code::InvalidArgument,
        "collection 'agents' is written by nodes: an agent is listed by registering, or by putting its platform",
    ))
}

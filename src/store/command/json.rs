//! JSON of commands and results for reads and subscriptions: field names of `peat.sidecar.v1.Command`, keys sorted.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::Rank;
use super::progress::Words;
use super::signed::{Signed, issuer};
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;
use crate::store::Key;

/// Returns the JSON of a command, with the status of each target.
pub(super) fn command(signed: &Signed, body: &CommandBody, ranks: &[Rank], cancel_requested: bool) -> String {
    let mut shown = Map::new();
    let mut set = |key: &str, value: Value| _ = shown.insert(key.into(), value);
    set("id", body.id.as_str().into());
    match &body.addressed {
        Some(Addressed::Group(group)) => set("group", group.as_str().into()),
        Some(Addressed::All(_)) => set("all", true.into()),
        Some(Addressed::Agent(agent)) => set("target_id", agent.as_str().into()),
        None => {}
    }
    set("command_type", body.command_type.as_str().into());
    set("status", Rank::overall(ranks.iter().copied()).name().into());
    set("created_at", body.created_at.into());
    set("expires_at", body.expires_at.into());
    set("payload_json", String::from_utf8_lossy(&body.payload).into());
    set("issuer", issuer(body).unwrap_or_default().to_string().into());
    set("signature", STANDARD.encode(signed.signature).into());
    if cancel_requested {
        set("cancel_requested", true.into());
    }
    let target = |(agent, rank): (&String, &Rank)| json!({ "agent_id": agent, "status": rank.name() });
    set("targets", body.targets.iter().zip(ranks).map(target).collect());
    Value::Object(shown).to_string()
}

/// Returns the JSON of a target's progress or result.
pub(super) fn result(key: &Key, rank: Rank, result: &str, error: &str) -> String {
    let (command, agent) = key.id().split_once(':').unwrap_or((key.id(), ""));
    let mut shown = json!({ "command_id": command, "agent_id": agent, "status": rank.name() });
    if rank == Rank::Executing {
        let Words { percent, words, .. } = Words::parse(result).unwrap_or_default();
        (shown["percent"], shown["progress"]) = (percent.into(), words.into());
        return shown.to_string();
    }
    for (name, text) in [("result_json", result), ("error", error)] {
        if !text.is_empty() {
            shown[name] = text.into();
        }
    }
    shown.to_string()
}

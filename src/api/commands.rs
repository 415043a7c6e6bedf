//! `commands/{id}`: who may issue, who may report, and that a status only climbs.
//!
//! The rules are held against a snapshot. Two writers that race on one new id can therefore both pass, and the store merges
//! what they wrote; the command record kind will settle that.

use peat_ipc::sidecar::{Command, CommandStatus};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use crate::api::caller::Role;
use crate::api::typed::Typed;
use crate::store::{Key, Put, Snapshot};

/// What a PutCommand comes to: the keys to set, none when the command already says so.
pub(super) fn put(role: Role, command: Command, key: &Key, snapshot: &Snapshot) -> Result<Option<Put>, CallError> {
    validate(&command)?;
    match snapshot.document(key)? {
        None => issue(role, command).map(|fields| Some(Put::Fields(fields))),
        Some(document) => {
            let held: Map<String, Value> = serde_json::from_str(&document.json)
                .map_err(|cause| CallError::new(Code::DataLoss, format!("{key} cannot be read: {cause}")))?;
            let held = Command::from_document(key.id().into(), &held);
            Ok(report(&held, &command)?.map(Put::Fields))
        }
    }
}

/// A command given as a document.
pub(super) fn from_json(id: &str, json: &str) -> Result<Command, CallError> {
    let refused = |why: String| CallError::new(Code::InvalidArgument, format!("json_data is no command: {why}"));
    let document: Map<String, Value> = serde_json::from_str(json).map_err(|cause| refused(cause.to_string()))?;
    if document.get("id").is_some_and(|named| named.as_str() != Some(id)) {
        return Err(refused("its id is not doc_id".into()));
    }
    let known = Command::default().to_fields()?;
    if let Some(key) = document.keys().find(|key| !known.contains_key(*key)) {
        return Err(refused(format!("a command has no '{key}'")));
    }
    let command = Command::from_document(id.into(), &document);
    let understood = command.to_fields()?;
    match document.iter().find(|(key, value)| !same(key, value, &understood)) {
        Some((key, _)) => Err(refused(format!("'{key}' is not what a command holds there"))),
        None => Ok(command),
    }
}

/// Whether a key was read as it was written; numbers may be strings, and enums names or numbers.
fn same(key: &str, value: &Value, understood: &Map<String, Value>) -> bool {
    match key {
        "status" => understood[key] != CommandStatus::Unspecified.as_str_name() || *value == 0,
        "created_at" | "expires_at" => {
            let read = understood[key].as_i64();
            value.as_str().map_or(value.as_i64(), |digits| digits.parse().ok()) == read
        }
        _ => understood[key] == *value,
    }
}

fn validate(command: &Command) -> Result<(), CallError> {
    let refused = |why: &str| Err(CallError::new(Code::InvalidArgument, why));
    if command.command_type.is_empty() {
        return refused("command.command_type is empty");
    }
    if command.target_id.is_empty() {
        return refused("command.target_id is empty");
    }
    if !command.payload_json.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(&command.payload_json).is_err()
    {
        return refused("command.payload_json is not JSON");
    }
    Ok(())
}

fn issue(role: Role, mut command: Command) -> Result<Map<String, Value>, CallError> {
    role.require_admin("issuing a command")?;
    if command.status == i32::from(CommandStatus::Unspecified) {
        command.status = CommandStatus::Pending.into();
    }
    command.to_fields()
}

/// A put over a held command: the same body, and perhaps a later status.
fn report(held: &Command, command: &Command) -> Result<Option<Map<String, Value>>, CallError> {
    let status = command.status();
    if *held != (Command { status: held.status, ..command.clone() }) {
        return Err(CallError::new(
            Code::AlreadyExists,
            format!("command {} exists with another body; give a new command a new id", held.id),
        ));
    }
    if rank(status) <= rank(held.status()) {
        return Ok(None);
    }
    Ok(Some(Map::from_iter([("status".into(), Value::from(status.as_str_name()))])))
}

/// Where a status stands; a status only climbs.
fn rank(status: CommandStatus) -> u8 {
    match status {
        CommandStatus::Unspecified => 0,
        CommandStatus::Pending => 1,
        CommandStatus::Expired => 2,
        CommandStatus::Executing => 3,
        CommandStatus::Cancelled => 4,
        CommandStatus::Failed => 5,
        CommandStatus::Completed => 6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(status: CommandStatus) -> Command {
        Command {
            id: "k".into(),
            target_id: "a1".into(),
            command_type: "replay".into(),
            status: status.into(),
            payload_json: r#"{"n":1}"#.into(),
            ..Command::default()
        }
    }

    #[test]
    fn an_agent_may_report_but_not_issue() {
        let error = issue(Role::Agent, command(CommandStatus::Pending)).expect_err("agents issue nothing");
        assert_eq!(error.code, Code::PermissionDenied);
        let fields = report(&command(CommandStatus::Pending), &command(CommandStatus::Executing)).expect("a report");
        assert_eq!(Value::from(fields), serde_json::json!({"status": "COMMAND_STATUS_EXECUTING"}));
    }

    #[test]
    fn a_status_only_climbs() {
        let (pending, done) = (command(CommandStatus::Pending), command(CommandStatus::Completed));
        assert_eq!(report(&done, &pending), Ok(None));
        assert_eq!(report(&done, &done), Ok(None));
    }

    #[test]
    fn another_body_under_a_used_id_is_refused() {
        let other = Command { target_id: "a2".into(), ..command(CommandStatus::Executing) };
        let error = report(&command(CommandStatus::Pending), &other).expect_err("another body");
        assert_eq!(error.code, Code::AlreadyExists);
    }

    #[test]
    fn a_document_in_commands_is_a_command() {
        let json = r#"{"id":"k","target_id":"a1","command_type":"replay","status":"PENDING","payload_json":"{\"n\":1}","created_at":"0"}"#;
        assert_eq!(from_json("k", json), Ok(command(CommandStatus::Pending)));
        for json in [r#"{"id":"other"}"#, r#"{"target":"a1"}"#, r#"{"target_id":7}"#, r#"{"status":"DONE"}"#, "[]", "{"]
        {
            assert_eq!(from_json("k", json).expect_err(json).code, Code::InvalidArgument, "{json}");
        }
    }

    #[test]
    fn a_command_names_its_target_and_type_and_carries_json() {
        let pending = command(CommandStatus::Pending);
        for wrong in [
            Command { target_id: String::new(), ..pending.clone() },
            Command { command_type: String::new(), ..pending.clone() },
            Command { payload_json: "{".into(), ..pending.clone() },
        ] {
            assert_eq!(validate(&wrong).expect_err("incomplete").code, Code::InvalidArgument);
        }
        assert_eq!(validate(&pending), Ok(()));
    }
}

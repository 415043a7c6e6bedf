//! Bodies of REST requests and answers: JSON with `snake_case` keys, and 64-bit integers as numbers.
//!
//! Unknown keys are ignored; a key of the wrong type is an error that names it. Values are checked by the code that uses them.

use peat_ipc::agent::{Capacity, CommandUpdate, Register, Registered, State, Workload, command_update};
use peat_ipc::sidecar::{Agent, Command, CommandStatus, Liveness, PlatformStatus, TargetStatus};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value, json};

use crate::limits::AGENT_MESSAGE_BYTES;

/// A request to send a command.
#[derive(Debug, Default)]
pub(in crate::api) struct NewCommand {
    /// Id of the command; empty if the node is to generate one.
    pub(in crate::api) id: String,
    pub(in crate::api) command_type: String,
    /// Payload as JSON; empty if there is none.
    pub(in crate::api) payload: String,
    /// Time to live in seconds; 0 for no expiry, `None` for the default.
    pub(in crate::api) ttl_s: Option<u64>,
}

/// The JSON object in a body; empty for an empty body.
struct Object(Map<String, Value>);

fn invalid(why: impl Into<String>) -> CallError {
    CallError::new(Code::InvalidArgument, why)
}

impl Object {
    fn of(body: &[u8]) -> Result<Object, CallError> {
        if body.len() > AGENT_MESSAGE_BYTES {
            let message = format!("the body has {} bytes; the limit is {AGENT_MESSAGE_BYTES}", body.len());
            return Err(CallError::new(Code::ResourceExhausted, message));
        }
        if body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Object(Map::new()));
        }
        let object =
            serde_json::from_slice(body).map_err(|error| invalid(format!("the body is no JSON object: {error}")));
        object.map(Object)
    }

    /// Reads the value of a key; null counts as absent.
    fn get<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        read: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, CallError> {
        match self.0.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| invalid(format!("{key} is no {what}"))),
        }
    }

    fn text(&self, key: &str) -> Result<String, CallError> {
        Ok(self.get(key, "string", Value::as_str)?.unwrap_or_default().to_owned())
    }

    fn texts(&self, key: &str) -> Result<Vec<String>, CallError> {
        let text = |item: &Value| item.as_str().map(str::to_owned);
        let read = |value: &Value| value.as_array()?.iter().map(text).collect();
        Ok(self.get(key, "list of strings", read)?.unwrap_or_default())
    }

    fn labels(&self) -> Result<std::collections::HashMap<String, String>, CallError> {
        let label = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
        let read = |value: &Value| value.as_object()?.iter().map(label).collect();
        Ok(self.get("labels", "object of strings", read)?.unwrap_or_default())
    }

    /// Returns the value of a key as JSON text; empty if the key is absent.
    fn json(&self, key: &str) -> String {
        self.0.get(key).map(Value::to_string).unwrap_or_default()
    }

    fn number(&self, key: &str) -> Result<Option<u64>, CallError> {
        self.get(key, "whole number", whole)
    }

    fn float(&self, key: &str) -> Result<f64, CallError> {
        Ok(self.get(key, "number", Value::as_f64)?.unwrap_or_default())
    }

    fn objects(&self, key: &str) -> Result<Vec<Object>, CallError> {
        let object = |item: &Value| item.as_object().cloned().map(Object);
        let read = |value: &Value| value.as_array()?.iter().map(object).collect();
        Ok(self.get(key, "list of objects", read)?.unwrap_or_default())
    }

    fn object(&self, key: &str) -> Result<Option<Object>, CallError> {
        self.get(key, "object", |value| value.as_object().cloned().map(Object))
    }

    fn workloads(&self) -> Result<Vec<Workload>, CallError> {
        let workload = |object: &Object| {
            let [name, version, status] = ["name", "version", "status"].map(|key| object.text(key));
            Ok(Workload { name: name?, version: version?, status: status?, labels: object.labels()? })
        };
        self.objects("workloads")?.iter().map(workload).collect()
    }

    fn capacity(&self) -> Result<Option<Capacity>, CallError> {
        let Some(object) = self.object("capacity")? else { return Ok(None) };
        let bytes = |key| Ok::<u64, CallError>(object.number(key)?.unwrap_or_default());
        Ok(Some(Capacity {
            cpu_used: object.float("cpu_used")?,
            cpu_total: object.float("cpu_total")?,
            memory_used_bytes: bytes("memory_used_bytes")?,
            memory_total_bytes: bytes("memory_total_bytes")?,
            disk_used_bytes: bytes("disk_used_bytes")?,
            disk_total_bytes: bytes("disk_total_bytes")?,
        }))
    }
}

/// Reads a non-negative integer. JSON has one kind of number: 4, 4.0 and 4e0 are equal (RFC 8259, section 6).
fn whole(value: &Value) -> Option<u64> {
    // Adding zero turns -0.0 into 0.0, which formats without a sign.
    let written = |float: f64| if float.fract() == 0.0 { format!("{:.0}", float + 0.0).parse().ok() } else { None };
    value.as_u64().or_else(|| value.as_f64().and_then(written))
}

/// Parses a registration.
pub(in crate::api) fn register(body: &[u8]) -> Result<Register, CallError> {
    let object = Object::of(body)?;
    Ok(Register {
        agent_id: object.text("agent_id")?,
        name: object.text("name")?,
        group: object.text("group")?,
        version: object.text("version")?,
        capabilities: object.texts("capabilities")?,
        labels: object.labels()?.into_iter().collect(),
        routes: object.texts("routes")?,
        commands: Vec::new(),
        workloads: object.workloads()?,
        capacity: object.capacity()?,
    })
}

/// Parses the state in a heartbeat; `None` for an empty body.
pub(in crate::api) fn state(body: &[u8]) -> Result<Option<State>, CallError> {
    let object = Object::of(body)?;
    if object.0.is_empty() {
        return Ok(None);
    }
    let named = |value: &Value| {
        let name = value.as_str()?.trim_start_matches("PLATFORM_STATUS_");
        PlatformStatus::from_str_name(&format!("PLATFORM_STATUS_{}", name.to_ascii_uppercase()))
    };
    Ok(Some(State {
        status: object.get("status", "platform status", named)?.map_or(0, i32::from),
        labels: object.labels()?.into_iter().collect(),
        workloads_complete: object.get("workloads_complete", "true or false", Value::as_bool)?.unwrap_or_default(),
        workloads: object.workloads()?,
        capacity: object.capacity()?,
    }))
}

/// Parses a request to send a command.
pub(in crate::api) fn order(body: &[u8]) -> Result<NewCommand, CallError> {
    let object = Object::of(body)?;
    let (id, command_type, ttl_s) = (object.text("id")?, object.text("type")?, object.number("ttl_s")?);
    match command_type.as_str() {
        "" => Err(invalid("type is missing: what the agents are to do")),
        _ => Ok(NewCommand { id, command_type, payload: object.json("payload"), ttl_s }),
    }
}

/// Parses a report on a command; without a status it accepts the command.
pub(in crate::api) fn update(command_id: String, body: &[u8]) -> Result<CommandUpdate, CallError> {
    use command_update::Stage;
    let object = Object::of(body)?;
    let status = object.text("status")?;
    let stage = match status.to_ascii_lowercase().as_str() {
        "" | "accepted" | "executing" => Stage::Accepted,
        "progress" => Stage::Progress,
        "completed" => Stage::Completed,
        "failed" => Stage::Failed,
        "cancelled" => Stage::Cancelled,
        _ => return Err(invalid("status is none of accepted, progress, completed, failed and cancelled")),
    };
    Ok(CommandUpdate {
        command_id,
        stage: stage.into(),
        result_json: object.json("result"),
        error: object.text("error")?,
        progress: object.text("progress")?,
        percent: u32::try_from(object.number("percent")?.unwrap_or_default()).unwrap_or(u32::MAX),
    })
}

/// Returns `LIVENESS_LIVE` as `LIVE`.
pub(in crate::api) fn liveness(agent: &Agent) -> &'static str {
    agent.liveness().as_str_name().trim_start_matches("LIVENESS_")
}

/// Returns the liveness with this name; `None` if there is none.
pub(in crate::api) fn liveness_named(name: &str) -> Option<Liveness> {
    Liveness::from_str_name(&format!("LIVENESS_{}", name.to_ascii_uppercase()))
}

/// Returns an agent as lists show it.
pub(in crate::api) fn agent(agent: &Agent) -> Value {
    let labels: Map<String, Value> =
        agent.labels.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    json!({
        "agent_id": agent.agent_id,
        "name": agent.name,
        "group": agent.group,
        "version": agent.version,
        "capabilities": agent.capabilities,
        "labels": labels,
        "routes": agent.routes,
        "status": liveness(agent),
        "platform_status": agent.status().as_str_name(),
        "via": agent.via,
        "via_endpoint": agent.via_endpoint,
        "age_ms": agent.age_ms,
        "attached_here": agent.attached_here,
    })
}

/// Returns a command as JSON, with the results of its targets.
pub(in crate::api) fn command(command: &Command) -> Value {
    let target = |target: &TargetStatus| {
        json!({
            "agent_id": target.agent_id,
            "status": status_word(target.status()),
            "result": value(&target.result_json),
            "result_omitted": target.result_omitted,
            "error": target.error,
            "progress": target.progress,
            "percent": target.percent,
        })
    };
    json!({
        "id": command.id,
        "type": command.command_type,
        "status": status_word(command.status()),
        "target_id": command.target_id,
        "group": command.group,
        "all": command.all,
        "created_at": command.created_at,
        "expires_at": command.expires_at,
        "issuer": command.issuer,
        "payload": value(&command.payload_json),
        "cancel_requested": command.cancel_requested,
        "result": value(&command.result_json),
        "error": command.error,
        "progress": command.progress,
        "percent": command.percent,
        "targets": command.targets.iter().map(target).collect::<Vec<_>>(),
    })
}

/// Parses JSON that is stored as text; null if it is empty or malformed.
fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

/// Returns `COMMAND_STATUS_COMPLETED` as `COMPLETED`.
pub(in crate::api) fn status_word(status: CommandStatus) -> &'static str {
    status.as_str_name().trim_start_matches("COMMAND_STATUS_")
}

/// Returns the status after an agent reported `stage`: the agent's word if the report stands, else the status that holds instead.
pub(in crate::api) fn acknowledged(stage: command_update::Stage, stands: CommandStatus) -> &'static str {
    use command_update::Stage;
    let word = stage.as_str_name().trim_start_matches("STAGE_");
    match (stage, stands) {
        (Stage::Accepted | Stage::Progress, CommandStatus::Executing) => word,
        _ => status_word(stands),
    }
}

/// Returns the terms of registration as JSON.
pub(in crate::api) fn registered(agent: &str, registered: &Registered) -> Value {
    json!({
        "agent_id": agent,
        "heartbeat_interval_ms": registered.heartbeat_interval_ms,
        "stale_after_ms": registered.stale_after_ms,
        "dead_after_ms": registered.dead_after_ms,
        "events_url": registered.events_url,
        "node_id": registered.node_id,
        "node_public_key": registered.node_public_key.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_names_the_key_that_is_wrong() {
        let words = |result: Result<Register, CallError>| result.expect_err("wrong").message;
        assert_eq!(words(register(br#"{"agent_id": 7}"#)), "agent_id is no string");
        assert_eq!(words(register(br#"{"labels": {"a": 1}}"#)), "labels is no object of strings");
        assert_eq!(words(register(br#"{"workloads": [{"name": []}]}"#)), "name is no string");
        assert!(words(register(b"[]")).starts_with("the body is no JSON object"));
        let long = vec![b' '; AGENT_MESSAGE_BYTES + 1];
        assert_eq!(register(&long).expect_err("long").code, Code::ResourceExhausted);
        assert_eq!(order(b"{}").expect_err("no type").code, Code::InvalidArgument);
        assert_eq!(order(br#"{"type":"a","ttl_s":-1}"#).expect_err("negative").message, "ttl_s is no whole number");
    }

    #[test]
    fn an_empty_ack_accepts_and_a_result_is_kept_as_it_is() {
        let accepted = update("k".into(), b"").expect("accepted");
        assert_eq!((accepted.stage(), accepted.result_json.as_str()), (command_update::Stage::Accepted, ""));
        let done = update("k".into(), br#"{"status":"COMPLETED","result":{"a":[1, 2]}}"#).expect("done");
        assert_eq!((done.stage(), done.result_json.as_str()), (command_update::Stage::Completed, r#"{"a":[1,2]}"#));
        assert!(update("k".into(), br#"{"status":"maybe"}"#).is_err());
    }

    #[test]
    fn a_whole_number_may_be_written_as_a_fraction() {
        let numbers = [("4", Some(4)), ("4.0", Some(4)), ("4e2", Some(400)), ("0.0", Some(0)), ("-0.0", Some(0))];
        for (text, number) in numbers {
            assert_eq!(whole(&serde_json::from_str(text).expect("JSON")), number, "{text}");
        }
        for text in ["4.5", "-4", "-4.0", "1e300", "18446744073709551616", "\"4\"", "true"] {
            assert_eq!(whole(&serde_json::from_str(text).expect("JSON")), None, "{text}");
        }
    }

    #[test]
    fn a_heartbeat_may_say_nothing_and_unknown_keys_do_no_harm() {
        assert_eq!(state(b" \n").expect("empty"), None);
        let said = state(br#"{"status":"busy","capacity":{"cpu_used":1.5,"disk_used_bytes":3},"later":1}"#);
        let said = said.expect("read").expect("something");
        assert_eq!(said.status(), PlatformStatus::Busy);
        let capacity = said.capacity.expect("there");
        assert_eq!((capacity.cpu_used, capacity.disk_used_bytes), (1.5, 3));
    }
}

//! Server-sent events of one agent, as text (html.spec.whatwg.org, "Server-sent events").
//!
//! The data of each event is one line of JSON; the id of a command is the id of its event.

use std::collections::VecDeque;
use std::time::Duration;

use peat_ipc::agent::{CommandPush, Registered};
use serde_json::{Value, json};

use super::body;
use crate::fleet::commands::Push;

/// Interval between pings. Below the 60 s after which proxies end silent connections by default.
pub(in crate::api) const PING: Duration = Duration::from_secs(15);
/// The ping, which keeps the connection open and shows the client that it is.
pub(in crate::api) const PING_EVENT: &str = "event: ping\ndata: {}\n\n";

/// The stream of an agent's events. Missed events are not replayed; pushes that wait for room are queued by name.
#[derive(Debug)]
pub(in crate::api) struct Events {
    pub(in crate::api) agent: String,
    /// Address at which the agent reached this node; empty if unknown.
    pub(in crate::api) base_url: String,
    /// Pushes that wait for room.
    pub(in crate::api) pushes: VecDeque<Push>,
    /// True if the stream had no room at the last ping, and has taken nothing since.
    pub(in crate::api) stalled: bool,
}

/// Returns the first event, preceded by the client's reconnection delay.
pub(in crate::api) fn first(agent: &str, registered: &Registered) -> String {
    format!("retry: 2000\n{}", config(agent, registered))
}

/// Returns the event with the current terms of registration.
pub(in crate::api) fn config(agent: &str, registered: &Registered) -> String {
    event("config", &body::registered(agent, registered).to_string())
}

/// Returns the event that pushes a command.
pub(in crate::api) fn command(push: &CommandPush) -> String {
    let Some(command) = &push.command else { return String::new() };
    // Between JSON tokens a line break is equivalent to a space; within a string there is none.
    let payload = command.payload_json.replace(['\n', '\r'], " ");
    let head = json!({
        "id": command.id,
        "type": command.command_type,
        "created_at": command.created_at,
        "expires_at": command.expires_at,
        "time_left_ms": push.time_left_ms,
        "issuer": command.issuer,
    });
    let head = head.to_string();
    let payload = if payload.is_empty() { "null" } else { &payload };
    // The payload is JSON already, so it is inserted as it is instead of being parsed and written again.
    let data = format!("{},\"payload\":{payload}}}", head.trim_end_matches('}'));
    format!("id: {}\n{}", command.id, event("command", &data))
}

/// Returns the event that cancels a command.
pub(in crate::api) fn cancel(id: &str) -> String {
    event("cancel", &json!({ "id": Value::from(id) }).to_string())
}

fn event(name: &str, data: &str) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use peat_ipc::sidecar::Command;

    use super::*;

    #[test]
    fn an_event_is_one_line_of_json_whatever_the_payload_looks_like() {
        let command = Command {
            id: "k}".into(),
            command_type: "replay".into(),
            payload_json: "{\r\n \"a\": \"x\\ny\"\n}".into(),
            ..Command::default()
        };
        let text = super::command(&CommandPush { command: Some(command), time_left_ms: 9 });
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines[..2], ["id: k}", "event: command"]);
        assert_eq!(lines[3..], ["", ""]);
        let data: Value = serde_json::from_str(lines[2].trim_start_matches("data: ")).expect("JSON");
        assert_eq!((&data["payload"]["a"], &data["time_left_ms"]), (&json!("x\ny"), &json!(9)));
    }
}

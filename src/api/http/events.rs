//! Server-sent events of one agent, as text (html.spec.whatwg.org, "Server-sent events").
//!
//! Each event is one line of JSON, and a command's id is the event's.

use std::collections::VecDeque;
use std::time::Duration;

use peat_ipc::agent::{CommandPush, Registered};
use serde_json::{Value, json};

use super::body;
use crate::fleet::commands::Push;

/// Between two pings.
pub(in crate::api) const PING: Duration = Duration::from_secs(15);
/// What keeps the connection open, and shows a client that it is.
pub(in crate::api) const PING_EVENT: &str = "event: ping\ndata: {}\n\n";

/// The stream of an agent's events. What it missed is not replayed; what comes while it takes what it was sent before waits by name.
#[derive(Debug)]
pub(in crate::api) struct Events {
    pub(in crate::api) agent: String,
    /// Where the agent reached this node; empty where that is not known.
    pub(in crate::api) base_url: String,
    /// What is to be pushed once there is room.
    pub(in crate::api) pushes: VecDeque<Push>,
    /// Whether the stream had no room at the last ping, and has taken nothing since.
    pub(in crate::api) stalled: bool,
}

/// The first event, and how long a client waits before it connects again.
pub(in crate::api) fn first(agent: &str, registered: &Registered) -> String {
    format!("retry: 2000\n{}", config(agent, registered))
}

/// What the agent was told when it registered, as it is now.
pub(in crate::api) fn config(agent: &str, registered: &Registered) -> String {
    event("config", &body::registered(agent, registered).to_string())
}

/// A command to run.
pub(in crate::api) fn command(push: &CommandPush) -> String {
    let Some(command) = &push.command else { return String::new() };
    // Between the values of JSON a line break is a space; within a string there is none.
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
    let data = format!("{},\"payload\":{payload}}}", head.trim_end_matches('}'));
    format!("id: {}\n{}", command.id, event("command", &data))
}

/// A command to end.
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

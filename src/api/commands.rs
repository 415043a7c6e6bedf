//! Rules for `commands/{id}`: issuing, reporting, cancelling and showing commands.
//!
//! Judges the content of a request. The store decides, in the commit, if an id is free and if a status may advance.

use std::sync::Arc;

use peat_ipc::sidecar::{CancelCommandResponse, Command, CommandStatus, TargetStatus};
use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use crate::api::caller::Role;
use crate::api::typed::Typed;
use crate::clock::Now;
use crate::fleet::commands::{Commands, Trust, shown};
use crate::fleet::{Fleet, Owner};
use crate::identity::Identity;
use crate::limits::{COMMAND_TARGETS, COMMAND_TTL};
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;
use crate::store::{
    CommandChange, CommandView, Key, Put, Rank, Report, Signed, Snapshot, check_body, is_long_past, same_time,
};

/// The questions about agents that judging a command asks.
pub(crate) trait AgentDirectory {
    /// Returns the agents addressed: for a group or for all, the agents that this node sees LIVE now.
    fn resolve(&self, addressed: &Addressed) -> Vec<String>;
    /// Returns true if the agent is attached to this node.
    fn is_attached(&self, agent: &str) -> bool;
    /// Checks that one more command for these agents stays within the limits.
    ///
    /// # Errors
    /// Names the limit that it would exceed.
    fn room(&self, targets: &[String]) -> Result<(), String>;
    /// Checks that the caller may speak for this agent.
    ///
    /// # Errors
    /// PERMISSION_DENIED.
    fn may_report(&self, agent: &str) -> Result<(), CallError>;
}

/// The state of this node's fleet and the caller, as one request sees them.
pub(super) struct RequestContext<'a> {
    pub(super) fleet: &'a Fleet,
    pub(super) commands: &'a Commands,
    pub(super) now: Now,
    /// Owner recorded for the caller.
    pub(super) owner: Owner,
    pub(super) role: Role,
    /// True with `--open-documents`: every caller may write the documents of every agent.
    pub(super) open_documents: bool,
}

impl RequestContext<'_> {
    /// Checks that the caller may write a document.
    ///
    /// # Errors
    /// PERMISSION_DENIED: it belongs to an agent of another user.
    pub(super) fn check_document(&self, key: &Key) -> Result<(), CallError> {
        if self.role == Role::Admin || self.open_documents {
            return Ok(());
        }
        self.fleet.check_document(key, self.owner)
    }
}

impl AgentDirectory for RequestContext<'_> {
    fn resolve(&self, addressed: &Addressed) -> Vec<String> {
        match addressed {
            Addressed::Agent(id) => vec![id.clone()],
            Addressed::Group(group) => self.fleet.live(self.now, Some(group)),
            Addressed::All(_) => self.fleet.live(self.now, None),
        }
    }

    fn is_attached(&self, agent: &str) -> bool {
        self.commands.is_attached(agent)
    }

    fn room(&self, targets: &[String]) -> Result<(), String> {
        self.commands.room(self.now, targets)
    }

    fn may_report(&self, agent: &str) -> Result<(), CallError> {
        if self.role == Role::Admin { Ok(()) } else { self.fleet.check_speaker(self.now, agent, self.owner) }
    }
}

/// The identity that signs commands issued here, and the issuers that are trusted.
#[derive(Clone, Debug)]
pub(super) struct Authority {
    pub(super) identity: Arc<Identity>,
    pub(super) trust: Trust,
}

fn refused(code: Code, why: impl Into<String>) -> CallError {
    CallError::new(code, why)
}

fn invalid(why: impl Into<String>) -> CallError {
    refused(Code::InvalidArgument, why)
}

/// A request about one command, with all the state that is used to judge it.
pub(super) struct CommandCall<'a> {
    pub(super) now: Now,
    pub(super) role: Role,
    pub(super) key: &'a Key,
    pub(super) authority: &'a Authority,
    pub(super) roster: &'a dyn AgentDirectory,
    pub(super) snapshot: &'a Snapshot,
}

impl CommandCall<'_> {
    /// Returns the write for a PutCommand; `None` if it would change nothing.
    pub(super) fn judge(&self, command: &Command) -> Result<Option<Put>, CallError> {
        if self.key.id().contains(':') {
            return Err(invalid("command.id contains a colon; results are kept at ID:AGENT"));
        }
        let addressed = validate(command)?;
        let change = match self.snapshot.command(self.key.id())? {
            Some(held) => self.report(&held, command, &addressed)?,
            None => Some(self.issue(command, addressed)?),
        };
        Ok(change.map(Put::Command))
    }

    fn issue(&self, command: &Command, addressed: Addressed) -> Result<CommandChange, CallError> {
        if !matches!(command.status(), CommandStatus::Unspecified | CommandStatus::Pending) {
            return Err(refused(Code::NotFound, format!("there is no {} to report on", self.key)));
        }
        self.role.require_admin("issuing a command")?;
        let targets = self.targets(&addressed)?;
        self.roster.room(&targets).map_err(|why| refused(Code::ResourceExhausted, why))?;
        let ttl_ms = ttl_ms(command, self.now)?;
        let (created_at, expires_at) = times(command, self.now);
        let body = CommandBody {
            id: command.id.clone(),
            issuer: self.authority.identity.id().0.to_vec().into(),
            addressed: Some(addressed),
            targets,
            command_type: command.command_type.clone(),
            payload: command.payload_json.clone().into_bytes().into(),
            created_at,
            expires_at,
            ttl_ms,
        };
        check_body(self.key, &body).map_err(invalid)?;
        Ok(CommandChange::Issue(Signed::sign(&self.authority.identity, &body)))
    }

    /// Returns the agents a command is for: the one named, known or not; for a group or all, those that are LIVE now.
    fn targets(&self, addressed: &Addressed) -> Result<Vec<String>, CallError> {
        if let Addressed::Agent(agent) = addressed {
            return Ok(vec![agent.clone()]);
        }
        let mut targets = self.roster.resolve(addressed);
        targets.sort();
        targets.dedup();
        match (targets.len(), addressed) {
            (0, Addressed::Group(group)) => {
                let why = format!("no live agent of group '{group}' is known here; nobody would get the command");
                Err(refused(Code::FailedPrecondition, why))
            }
            (0, _) => {
                Err(refused(Code::FailedPrecondition, "no live agent is known here; nobody would get the command"))
            }
            (count, _) if count > COMMAND_TARGETS => {
                let why = format!("{count} agents are addressed; the limit is {COMMAND_TARGETS}: use smaller groups");
                Err(refused(Code::ResourceExhausted, why))
            }
            _ => Ok(targets),
        }
    }

    /// Returns the change for a put to an existing command: a target's report, or `None` if it changes nothing.
    fn report(
        &self,
        held: &CommandView,
        command: &Command,
        addressed: &Addressed,
    ) -> Result<Option<CommandChange>, CallError> {
        if !is_same(held, command, addressed) {
            let why = format!("{} exists with another body; give a new command a new id", self.key);
            return Err(refused(Code::AlreadyExists, why));
        }
        let (agent, said) = reporter(held, command)?;
        let (rank, begun) = match said.status() {
            CommandStatus::Unspecified | CommandStatus::Pending => return Ok(None),
            CommandStatus::Expired => return Err(invalid("nobody reports EXPIRED; the node finds it out")),
            CommandStatus::Executing => (Rank::Executing, false),
            CommandStatus::Completed => (Rank::Completed, true),
            CommandStatus::Failed => (Rank::Failed, true),
            CommandStatus::Cancelled => (Rank::Cancelled, true),
        };
        let Some(standing) = held.rank_of(&agent) else {
            return Err(refused(Code::NotFound, format!("{} is not for agent '{agent}'", self.key)));
        };
        self.roster.may_report(&agent)?;
        if !self.authority.trust.allows(&held.issuer()) {
            let why = format!("this node does not trust the issuer of {} (--trust-issuer)", self.key);
            return Err(refused(Code::PermissionDenied, why));
        }
        // An acceptance always goes to the store, which checks in the commit that the command may still begin.
        if begun && rank <= standing {
            return Ok(None);
        }
        let report = Report { agent, rank, begun, result: said.result_json, error: said.error };
        Ok(Some(CommandChange::Report(report)))
    }

    /// Returns the write for a CancelCommand.
    pub(super) fn cancel(&self) -> Result<Put, CallError> {
        self.role.require_admin("cancelling a command")?;
        let Some(held) = self.snapshot.command(self.key.id())? else {
            return Err(refused(Code::NotFound, format!("there is no {}", self.key)));
        };
        let attached = held.targets().map(|(agent, _)| agent).filter(|agent| self.roster.is_attached(agent));
        Ok(Put::Command(CommandChange::RequestCancel { attached: attached.map(String::from).collect() }))
    }
}

/// Returns the addressee of a command, if there is exactly one and the command is well-formed.
fn validate(command: &Command) -> Result<Addressed, CallError> {
    if command.command_type.is_empty() {
        return Err(invalid("command.command_type is empty"));
    }
    let payload = &command.payload_json;
    if !payload.is_empty() && serde_json::from_str::<serde::de::IgnoredAny>(payload).is_err() {
        return Err(invalid("command.payload_json is not JSON"));
    }
    match (command.target_id.as_str(), command.group.as_str(), command.all) {
        ("", "", false) => Err(invalid("command.target_id, group and all are empty; a command is for somebody")),
        (agent, "", false) => Ok(Addressed::Agent(agent.into())),
        // A `target_id` beside a group or `all` names the target that reports.
        (_, group, false) => Ok(Addressed::Group(group.into())),
        (_, "", true) => Ok(Addressed::All(true)),
        _ => Err(invalid("command.group and all exclude each other")),
    }
}

/// Returns the `created_at` and `expires_at` to sign, in seconds. If the client's clock is behind, so that the given expiry is
/// long past by this node's clock, the interval is shifted to begin now: other nodes would treat the command as expired.
fn times(command: &Command, now: Now) -> (i64, i64) {
    let now_s = now.wall_ms.div_euclid(1_000);
    match (command.created_at, command.expires_at) {
        (0, expires_at) => (now_s, expires_at),
        (created_at, expires_at) if is_long_past(expires_at, now.wall_ms) => (now_s, now_s + (expires_at - created_at)),
        given => given,
    }
}

/// Returns the time to live in milliseconds; 0 means no expiry.
fn ttl_ms(command: &Command, now: Now) -> Result<u64, CallError> {
    let Command { created_at, expires_at, .. } = *command;
    if expires_at == 0 {
        return Ok(0);
    }
    let (from_ms, from) = match created_at {
        0 => (i128::from(now.wall_ms), "this node's clock"),
        at => (i128::from(at) * 1_000, "created_at"),
    };
    let left_ms = i128::from(expires_at) * 1_000 - from_ms;
    let left_s = left_ms / 1_000;
    match u64::try_from(left_ms) {
        Err(_) | Ok(0) => {
            Err(invalid(format!("command.expires_at is {} s before {from}; it would never run", -left_s)))
        }
        Ok(ms) if u128::from(ms) > COMMAND_TTL.as_millis() => Err(invalid(format!(
            "command.expires_at is {left_s} s after {from}; the limit is {} s, and 0 never expires",
            COMMAND_TTL.as_secs()
        ))),
        Ok(ms) => Ok(ms),
    }
}

/// Returns true if the put matches the stored body; a time that is not set matches any.
fn is_same(held: &CommandView, command: &Command, addressed: &Addressed) -> bool {
    let body = &held.body;
    let time = |given: i64, held: i64| given == 0 || given == held;
    let (held_times, given) = ((body.created_at, body.expires_at), (command.created_at, command.expires_at));
    // A retry made later may carry later times: the interval between them is what must match.
    let shifted = given.1 != 0 && given.1 != held_times.1 && same_time(held_times, given);
    body.addressed.as_ref() == Some(addressed)
        && body.command_type == command.command_type
        && body.payload.as_ref() == command.payload_json.as_bytes()
        && (shifted || (time(given.0, held_times.0) && time(given.1, held_times.1)))
}

/// Returns the agent that reports, and its report: the only target, or, of several, the one that `targets` or `target_id` names.
fn reporter(held: &CommandView, command: &Command) -> Result<(String, TargetStatus), CallError> {
    let plain = TargetStatus {
        agent_id: command.target_id.clone(),
        status: command.status,
        result_json: command.result_json.clone(),
        error: command.error.clone(),
        ..TargetStatus::default()
    };
    let said = match command.targets.as_slice() {
        [one] if one.status() != CommandStatus::Unspecified && rank(one.status()) >= rank(command.status()) => {
            one.clone()
        }
        [one] => TargetStatus { agent_id: one.agent_id.clone(), ..plain },
        _ => plain,
    };
    if said.agent_id.is_empty() && rank(said.status()) > 1 {
        let why = format!(
            "{} agents share command {}; name the one that reports in target_id or targets",
            held.ranks.len(),
            held.body.id
        );
        return Err(invalid(why));
    }
    Ok((said.agent_id.clone(), said))
}

/// Returns the rank of a status; a command's rank only rises.
fn rank(status: CommandStatus) -> u8 {
    match status {
        CommandStatus::Unspecified => 0,
        CommandStatus::Pending => Rank::Pending as u8,
        CommandStatus::Expired => Rank::Expired as u8,
        CommandStatus::Executing => Rank::Executing as u8,
        CommandStatus::Cancelled => Rank::Cancelled as u8,
        CommandStatus::Failed => Rank::Failed as u8,
        CommandStatus::Completed => Rank::Completed as u8,
    }
}

/// Returns the answer to a CancelCommand: the current status of each target.
pub(super) fn cancelled(held: Option<&CommandView>, now: Now) -> CancelCommandResponse {
    CancelCommandResponse { targets: held.map(|held| shown(held, now).targets).unwrap_or_default() }
}

/// Keys of a command's document that a put may repeat and that are ignored.
const SHOWN_ONLY: [&str; 6] = ["issuer", "signature", "targets", "cancel_requested", "progress", "percent"];

/// Parses a command from the JSON of a document.
pub(super) fn from_json(id: &str, json: &str) -> Result<Command, CallError> {
    let refused = |why: String| CallError::new(Code::InvalidArgument, format!("json_data is no command: {why}"));
    let document: Map<String, Value> = serde_json::from_str(json).map_err(|cause| refused(cause.to_string()))?;
    if document.get("id").is_some_and(|named| named.as_str() != Some(id)) {
        return Err(refused("its id is not doc_id".into()));
    }
    let known = Command::default().to_fields()?;
    let decides = |key: &str| !SHOWN_ONLY.contains(&key);
    if let Some(key) = document.keys().find(|key| decides(key) && !known.contains_key(*key)) {
        return Err(refused(format!("a command has no '{key}'")));
    }
    let command = Command::from_document(id.into(), &document);
    let understood = command.to_fields()?;
    match document.iter().find(|(key, value)| decides(key) && !same(key, value, &understood)) {
        Some((key, _)) => Err(refused(format!("'{key}' is not what a command holds there"))),
        None => Ok(command),
    }
}

/// Returns true if a value was understood as written: numbers may be strings, and enums names or numbers.
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

    #[expect(clippy::disallowed_methods, reason = "some instant to count from")]
    fn at(wall_ms: i64) -> Now {
        Now { mono: std::time::Instant::now(), wall_ms, boot_ms: 0 }
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
    fn a_command_names_one_addressee_and_a_type_and_carries_json() {
        let pending = command(CommandStatus::Pending);
        for wrong in [
            Command { target_id: String::new(), ..pending.clone() },
            Command { group: "g".into(), all: true, ..pending.clone() },
            Command { command_type: String::new(), ..pending.clone() },
            Command { payload_json: "{".into(), ..pending.clone() },
        ] {
            assert_eq!(validate(&wrong).expect_err("incomplete").code, Code::InvalidArgument);
        }
        assert_eq!(validate(&pending), Ok(Addressed::Agent("a1".into())));
    }

    #[test]
    fn a_time_to_live_counts_from_what_is_known_and_is_bounded() {
        let given = |created_at, expires_at| Command { created_at, expires_at, ..command(CommandStatus::Pending) };
        assert_eq!(ttl_ms(&given(0, 0), at(5_000)), Ok(0));
        assert_eq!(ttl_ms(&given(7, 0), at(5_000)), Ok(0));
        assert_eq!(ttl_ms(&given(100, 160), at(5_000)), Ok(60_000));
        assert_eq!(ttl_ms(&given(0, 65), at(5_400)), Ok(59_600));
        for wrong in [given(100, 40), given(100, 100), given(0, 5), given(0, i64::MAX), given(1, i64::MIN)] {
            assert_eq!(ttl_ms(&wrong, at(5_000)).expect_err("refused").code, Code::InvalidArgument);
        }
        let error = ttl_ms(&given(100, 40), at(5_000)).expect_err("before");
        assert_eq!(error.message, "command.expires_at is 60 s before created_at; it would never run");
        let error = ttl_ms(&given(0, 1_750_000_000), at(5_000)).expect_err("1970");
        assert!(error.message.contains("the limit is 315360000 s"), "{error}");
    }
}

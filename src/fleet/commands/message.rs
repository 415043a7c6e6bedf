//! Conversion of stored commands to the messages that agents and clients receive.

use peat_ipc::agent::CommandPush;
use peat_ipc::sidecar::{Command, CommandStatus, TargetStatus};

use crate::clock::Now;
use crate::mesh::command_body::Addressed;
use crate::store::{CommandView, Rank};

/// Returns the number of a status in `peat.sidecar.v1`.
fn status(rank: Rank) -> i32 {
    CommandStatus::from_str_name(rank.name()).map_or(0, i32::from)
}

/// Returns a command in its current state, without the results of its targets.
#[must_use]
pub fn shown(view: &CommandView, now: Now) -> Command {
    let body = &view.body;
    let (mut target_id, mut group, mut all) = (String::new(), String::new(), false);
    match &body.addressed {
        Some(Addressed::Agent(agent)) => target_id.clone_from(agent),
        Some(Addressed::Group(name)) => group.clone_from(name),
        Some(Addressed::All(_)) => all = true,
        None => {}
    }
    let target = |(agent, rank): (&str, Rank)| TargetStatus {
        agent_id: agent.to_owned(),
        status: status(rank),
        ..TargetStatus::default()
    };
    Command {
        id: body.id.clone(),
        target_id,
        command_type: body.command_type.clone(),
        status: status(Rank::overall(view.targets_now(now).map(|(_, rank)| rank))),
        created_at: body.created_at,
        expires_at: body.expires_at,
        payload_json: String::from_utf8_lossy(&body.payload).into_owned(),
        group,
        all,
        issuer: view.issuer().to_string(),
        signature: view.signature.to_vec(),
        targets: view.targets_now(now).map(target).collect(),
        cancel_requested: view.cancel_requested,
        ..Command::default()
    }
}

/// Returns the message that delivers a command to `agent`; `None` if the agent need not run it any more.
#[must_use]
pub fn push_message(view: &CommandView, agent: &str, now: Now) -> Option<CommandPush> {
    let due = view.rank_of(agent) == Some(Rank::Pending) && !view.has_expired(now) && !view.cancel_requested;
    let mut command = shown(view, now);
    command.targets.retain(|target| target.agent_id == agent);
    command.status = status(Rank::Pending);
    due.then_some(CommandPush { command: Some(command), time_left_ms: view.left_ms(now).unwrap_or(0) })
}

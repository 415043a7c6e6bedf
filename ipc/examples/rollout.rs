//! A controller that issues a rollout to a group of agents and waits for its completion.
//!
//! cargo run -p peat-ipc --example rollout -- unix:///run/user/1000/peat-node.sock cameras '{"version": "6.5"}'

#![allow(clippy::disallowed_methods, reason = "a program of its own reads the clock")]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use peat_ipc::Client;
use peat_ipc::sidecar::{Command, CommandStatus, GetCommandsRequest, ListAgentsRequest, Liveness, PutCommandRequest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, group, payload] = &arguments[..] else { return Err("usage: rollout NODE GROUP JSON".into()) };
    let mut client = Client::connect(&node.parse()?)?;
    let live = ListAgentsRequest { liveness: Liveness::Live.into(), group: group.clone(), ..Default::default() };
    println!("{} agents of {group} are LIVE", client.call(&live, Default::default())?.agents.len());

    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let id = format!("rollout-{}", now.as_nanos());
    let created_at = i64::try_from(now.as_secs())?;
    let command = Command {
        id: id.clone(),
        group: group.clone(),
        command_type: "rollout".into(),
        payload_json: payload.clone(),
        created_at,
        // Agents must accept within a minute; accepted work may take longer.
        expires_at: created_at + 60,
        ..Command::default()
    };
    client.put_command(&PutCommandRequest { command: Some(command) })?;
    loop {
        let this = GetCommandsRequest { id: id.clone(), ..Default::default() };
        let rollout = client.get_commands(&this)?.commands.pop().ok_or("the rollout is gone")?;
        let over = rollout.targets.iter().filter(|target| is_over(target.status())).count();
        println!("{over} of {} are through", rollout.targets.len());
        if over == rollout.targets.len() {
            for target in rollout.targets {
                println!(
                    "{} {} {}{}",
                    target.agent_id,
                    target.status().as_str_name(),
                    target.result_json,
                    target.error
                );
            }
            return Ok(());
        }
        std::thread::park_timeout(Duration::from_millis(500));
    }
}

fn is_over(status: CommandStatus) -> bool {
    !matches!(status, CommandStatus::Pending | CommandStatus::Executing)
}

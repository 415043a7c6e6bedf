//! An agent without a stream: puts its platform, polls for its commands, and reports their status.
//!
//! cargo run -p peat-ipc --example polling -- unix:///run/user/1000/peat-node.sock camera-8

use std::time::Duration;

use peat_ipc::Client;
use peat_ipc::sidecar::{Command, CommandStatus, GetCommandsRequest, Platform, PutCommandRequest, PutPlatformRequest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, id] = &arguments[..] else { return Err("usage: polling NODE ID".into()) };
    let mut client = Client::connect(&node.parse()?)?;
    loop {
        // Each put is a sign of life; after --stale-after without one the agent is STALE.
        let platform = Platform { id: id.clone(), name: "polls".into(), ..Platform::default() };
        client.put_platform(&PutPlatformRequest { platform: Some(platform) })?;
        let pending = GetCommandsRequest { target_id: id.clone(), pending_only: true, ..Default::default() };
        for command in client.get_commands(&pending)?.commands {
            carry_out(&mut client, id, command)?;
        }
        std::thread::park_timeout(Duration::from_secs(2));
    }
}

/// Accepts, runs and reports a command. The node rejects an acceptance that is late or repeated.
fn carry_out(client: &mut Client, id: &str, command: Command) -> Result<(), peat_ipc::Error> {
    let mine = Command { target_id: id.to_owned(), targets: Vec::new(), ..command };
    report(client, Command { status: CommandStatus::Executing.into(), ..mine.clone() })?;
    println!("{} {} {}", mine.id, mine.command_type, mine.payload_json);
    let result_json = r#"{"done": true}"#.to_owned();
    report(client, Command { status: CommandStatus::Completed.into(), result_json, ..mine })
}

fn report(client: &mut Client, command: Command) -> Result<(), peat_ipc::Error> {
    client.put_command(&PutCommandRequest { command: Some(command) }).map(drop)
}

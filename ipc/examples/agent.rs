//! An agent that registers, sends heartbeats, reports its workload, and runs each command once. It manages a file.
//!
//! cargo run -p peat-ipc --example agent -- unix:///run/user/1000/peat-node.sock camera-7

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use peat_ipc::agent::{Register, State, Workload};
use peat_ipc::sidecar::PlatformStatus;
use peat_ipc::{Agent, Outcome, Work};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, node, id] = &arguments[..] else { return Err("usage: agent NODE ID".into()) };
    let registration = Register {
        agent_id: id.clone(),
        group: "cameras".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        labels: HashMap::from([("site".to_owned(), "north".to_owned())]),
        workloads: vec![Workload { name: "recorder".into(), version: "1.0".into(), ..Workload::default() }],
        ..Register::default()
    };
    let manifest = std::env::temp_dir().join(format!("{id}-rollout.json"));
    let agent = Agent::connect(node.parse()?)
        .remember_in(std::env::temp_dir().join(format!("{id}-commands")))
        .on_command(move |work| carry_out(work, &manifest))
        .register(registration)?;
    agent.heartbeat(State { status: PlatformStatus::Ready.into(), ..State::default() });
    println!("registered at {}", agent.wait_registered(Duration::from_secs(30))?.node_id);
    // Runs until standard input is closed.
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    println!("everything told: {}", agent.close(Duration::from_secs(30)));
    Ok(())
}

fn carry_out(work: &Work<'_>, manifest: &Path) -> Outcome {
    println!("{} {} {}", work.id(), work.command_type(), work.payload_json());
    match work.command_type() {
        // A retry with the same payload under another id shares the result, until the node has confirmed this one.
        "rollout" => work.once(work.payload_json(), |_| roll_out(manifest, work.payload_json())).into(),
        "wait" => {
            while !work.is_cancelled() {
                std::thread::park_timeout(Duration::from_millis(100));
            }
            Outcome::Cancelled
        }
        other => Outcome::Failed(format!("'{other}' is no command of this agent")),
    }
}

fn roll_out(manifest: &Path, payload: &str) -> Result<String, String> {
    std::fs::write(manifest, payload).map_err(|why| format!("{}: {why}", manifest.display()))?;
    Ok(r#"{"rolled_out": true}"#.into())
}

//! Time from a command at one node to the handler of an agent at another.

use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::agent::Register;
use peat_ipc::sidecar::{Command, CommandStatus, GetCommandsRequest, ListAgentsRequest, Liveness, PutCommandRequest};
use peat_ipc::{Agent, Client, Outcome, Target as Address};

use crate::bench::Bench;
use crate::floor::Appender;
use crate::node::{Node, connected, id};
use crate::row::Row;
use crate::sample::{Rounds, compete, median_of};
use crate::table::{Figure, Line, Target};
use crate::wait::until;

const AGENT: &str = "agent-0001";
/// Time after which a command counts as lost.
const LOST: Duration = Duration::from_secs(10);

/// Two nodes on this machine, an agent at the second with a ledger on disk, and one command in flight.
pub(crate) struct Commands;

impl Row for Commands {
    fn name(&self) -> &'static str {
        "command"
    }

    fn about(&self) -> &'static str {
        "command entered at A to its handler at an agent of B"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let mut a = Node::new(bench, "command-a")?;
        let mut client = a.start()?;
        let mut b = Node::new(bench, "command-b")?;
        b.dials(&id(&mut client)?, &a.address());
        b.start()?;
        connected(&mut client)?;
        let (agent, handled) = agent(bench, &b)?;
        until("node A shows the agent LIVE", || is_live(&mut client))?;
        let [command, sync] = measure(bench, &mut client, &handled)?;
        drop(agent);
        Ok(vec![line(&command, &sync)])
    }
}

fn line(command: &Rounds, sync: &Rounds) -> Line {
    let beyond = command.with(sync, |ours, sync| ours - sync);
    Line::absolute(
        "command at A to handler at B, beyond one sync, p50",
        Figure::Seconds(beyond),
        Target::AtMost(Figure::Seconds(0.002)),
    )
    .beside(format!("{} in all, append + fdatasync {}", seconds(command), seconds(sync)))
}

fn seconds(rounds: &Rounds) -> Figure {
    Figure::Seconds(rounds.figure())
}

/// Id of a command that reached the handler, and the time.
type Handled = (String, Instant);

fn agent(bench: &Bench, node: &Node) -> Result<(Agent, Receiver<Handled>), Failure> {
    let (calls, handled) = sync_channel(1_024);
    let agent = Agent::connect(Address::Unix(node.socket().to_owned()))
        .remember_in(bench.directory("command-memory")?)
        .on_command(move |work| {
            // The receiver is gone if the row has failed.
            let _ = calls.send((work.id().to_owned(), Instant::now()));
            Outcome::Completed(String::new())
        })
        .register(Register { agent_id: AGENT.into(), ..Register::default() })?;
    agent.wait_registered(LOST)?;
    Ok((agent, handled))
}

fn is_live(client: &mut Client) -> Result<bool, Failure> {
    let live = ListAgentsRequest { liveness: Liveness::Live.into(), ..ListAgentsRequest::default() };
    Ok(client.list_agents(&live)?.agents.iter().any(|agent| agent.agent_id == AGENT))
}

/// Measures the time to the handler, and the disk's lower bound, in rounds.
fn measure(bench: &Bench, client: &mut Client, handled: &Receiver<Handled>) -> Result<[Rounds; 2], Failure> {
    let mut appender = Appender::new(bench)?;
    let commands = bench.times(50);
    let mut number = 0;
    let mut deliver = || {
        number += 1;
        let request = command(number);
        let id = command_id(number);
        let begun = Instant::now();
        client.put_command(&request)?;
        let (called, at) = handled.recv_timeout(LOST).map_err(|_| "a command never came")?;
        if called != id {
            return Err(format!("{called} was handled instead of {id}").into());
        }
        // Wait for the end, so that it does not overlap with the next measurement.
        until("the result is at node A", || is_completed(client, &id))?;
        Ok(at.duration_since(begun).as_secs_f64())
    };
    let rounds = compete(
        15,
        &mut [Box::new(|| median_of(commands, &mut deliver)), Box::new(|| median_of(commands, || appender.append()))],
    )?;
    rounds.try_into().map_err(|_| "two were measured".into())
}

fn command_id(number: usize) -> String {
    format!("command-{number:06}")
}

fn command(number: usize) -> PutCommandRequest {
    let command = Command {
        id: command_id(number),
        target_id: AGENT.into(),
        command_type: "restart".into(),
        payload_json: r#"{"package":"podinfo","version":"6.4.0"}"#.into(),
        ..Command::default()
    };
    PutCommandRequest { command: Some(command) }
}

fn is_completed(client: &mut Client, id: &str) -> Result<bool, Failure> {
    let request = GetCommandsRequest { id: id.into(), ..GetCommandsRequest::default() };
    let completed = i32::from(CommandStatus::Completed);
    Ok(client.get_commands(&request)?.commands.iter().any(|command| command.status == completed))
}

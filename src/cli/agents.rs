//! The subcommand `agents`: the agents of the fleet, once or as they change.

use peat_ipc::sidecar as pb;

use super::arguments::Agents;
use super::documents::now;
use super::failure::{Failure, exit};
use super::output::Output;
use super::remote;

const HEADINGS: [&str; 6] = ["ID", "GROUP", "STATE", "VIA", "AGE", "VERSION"];
/// Columns of `--watch`, with their widths on a terminal.
const COLUMNS: [(&str, usize); 6] = [("ID", 32), ("GROUP", 16), ("STATE", 8), ("VIA", 24), ("AGE", 8), ("VERSION", 0)];

pub(super) fn agents(command: &Agents) -> Result<(), Failure> {
    if command.watch {
        return watch(command);
    }
    let liveness = command.status.map_or(0, |state| state.0.into());
    let request = pb::ListAgentsRequest { liveness, ..pb::ListAgentsRequest::default() };
    let response = remote::connect(command)?.call(&request)?;
    let rows: Vec<_> = response.agents.iter().map(|agent| row(agent, state(agent))).collect();
    Output::stdout(command.json).response(&response, |out| out.table(HEADINGS, &rows))
}

fn watch(command: &Agents) -> Result<(), Failure> {
    let mut connection = remote::connect(command)?;
    // A stream may be idle for any time, so this call finds out first if the node answers at all.
    now(&mut connection)?;
    let mut output = Output::stdout(command.json);
    for change in connection.client().watch_agents()? {
        let change = change?;
        let wanted = |agent: &pb::Agent| command.status.is_none_or(|state| state.0 == agent.liveness());
        if change.agent.as_ref().is_none_or(wanted) {
            output.response(&change, |out| match &change.agent {
                Some(agent) if change.change_type() == pb::ChangeType::Delete => {
                    out.next_row(COLUMNS, &row(agent, "forgotten".to_owned()))
                }
                Some(agent) => out.next_row(COLUMNS, &row(agent, state(agent))),
                None => Ok(()),
            })?;
        }
    }
    Err(Failure::new(exit::UNREACHABLE, "the node ended the stream"))
}

fn state(agent: &pb::Agent) -> String {
    agent.liveness().as_str_name().trim_start_matches("LIVENESS_").to_owned()
}

fn row(agent: &pb::Agent, state: String) -> [String; 6] {
    let age = format!("{:.1} s", agent.age_ms as f64 / 1000.0);
    [agent.agent_id.clone(), agent.group.clone(), state, agent.via.clone(), age, agent.version.clone()]
}

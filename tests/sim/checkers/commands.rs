//! Commands: none runs twice, across failures of streams, nodes and agents, and each one reaches every agent it addresses that
//! can be reached.

use std::collections::BTreeSet;

use peat_node::clock::Now;
use peat_node::store::{COMMANDS, Error, Rank, Snapshot};

use crate::seeds::Violation;

/// The commands that have begun, by agent.
#[derive(Debug, Default)]
pub struct Begun(BTreeSet<(String, String)>);

impl Begun {
    /// Records that an agent begins a command.
    pub fn note(&mut self, agent: &str, command: &str) -> Result<(), Violation> {
        match self.0.insert((agent.to_owned(), command.to_owned())) {
            true => Ok(()),
            false => Err(Violation::new("no command runs twice", format!("{agent} begins {command} again"))),
        }
    }

    pub fn has(&self, agent: &str, command: &str) -> bool {
        self.0.contains(&(agent.to_owned(), command.to_owned()))
    }
}

/// Returns a command that one of `agents`, which are all LIVE, should have received or ended by now. `settled`: no disk lost
/// data, so the end of every command that began must be known.
pub fn owed(snapshot: &Snapshot, now: Now, agents: &[&str], settled: bool) -> Result<Option<String>, Error> {
    for id in snapshot.list(COMMANDS)?.into_iter().filter(|id| !id.contains(':')) {
        let Some(held) = snapshot.command(&id)? else { continue };
        for (agent, rank) in held.targets_now(now).filter(|(agent, _)| agents.contains(agent)) {
            let waits = rank == Rank::Pending && !held.cancel_requested;
            if waits || settled && rank == Rank::Executing {
                return Ok(Some(format!("{id} is {rank:?} at {agent}")));
            }
        }
    }
    Ok(None)
}

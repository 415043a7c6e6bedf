//! The work of an agent on a stream: it accepts commands, works for some time, reports until the node confirms, and remembers.
//!
//! An agent's memory survives its restarts, as a client library's ledger does; commands that were running then have failed.

use std::collections::BTreeMap;
use std::time::Duration;

use peat_ipc::agent::command_update::Stage;
use peat_ipc::agent::{CommandUpdate, UpdateAck};

use crate::checkers::commands::Begun;
use crate::faults::{Fault, Tally};
use crate::prng::Prng;
use crate::seeds::Violation;
use crate::time::Time;

/// Delay before a report is repeated to a node that does not hold the command.
const AGAIN: Duration = Duration::from_secs(2);

#[derive(Clone, Debug)]
enum At {
    /// The node has been asked to confirm the acceptance.
    Accepting,
    Running {
        until: Time,
    },
    /// The end is reported until the node confirms it.
    Done(CommandUpdate),
}

#[derive(Debug)]
struct Job {
    at: At,
    /// Time of the next report to a node that does not hold the command.
    again: Option<Time>,
}

/// The commands of one agent.
#[derive(Debug, Default)]
pub struct Work {
    jobs: BTreeMap<String, Job>,
    /// Final stages of commands that the node has confirmed as ended.
    settled: BTreeMap<String, Stage>,
    /// Updates to send on this stream.
    say: Vec<CommandUpdate>,
}

fn update(id: &str, stage: Stage) -> CommandUpdate {
    CommandUpdate { command_id: id.to_owned(), stage: stage.into(), ..CommandUpdate::default() }
}

impl Job {
    fn said(&self, id: &str) -> CommandUpdate {
        match &self.at {
            At::Accepting | At::Running { .. } => update(id, Stage::Accepted),
            At::Done(said) => said.clone(),
        }
    }
}

impl Work {
    pub fn is_at_work(&self) -> bool {
        self.jobs.values().any(|job| matches!(job.at, At::Running { .. }))
    }

    /// Returns the updates that a Register lists.
    pub fn registered(&mut self) -> Vec<CommandUpdate> {
        self.say.clear();
        self.jobs.values_mut().for_each(|job| job.again = None);
        self.jobs.iter().map(|(id, job)| job.said(id)).collect()
    }

    /// Restarts the agent's process.
    pub fn restart(&mut self) {
        for (id, job) in &mut self.jobs {
            if let At::Running { .. } = job.at {
                job.at = At::Done(CommandUpdate { error: "restarted".into(), ..update(id, Stage::Failed) });
            }
        }
        self.say.clear();
    }

    pub fn pushed(&mut self, id: &str) {
        if let Some(stage) = self.settled.get(id) {
            self.say.push(update(id, *stage));
            return;
        }
        let job = self.jobs.entry(id.to_owned()).or_insert(Job { at: At::Accepting, again: None });
        self.say.push(job.said(id));
    }

    pub fn cancelled(&mut self, id: &str, tally: &Tally) {
        let ended = update(id, Stage::Cancelled);
        match self.jobs.get_mut(id) {
            None => {
                let stage = *self.settled.entry(id.to_owned()).or_insert(Stage::Cancelled);
                self.say.push(update(id, stage));
            }
            Some(job) => {
                if let At::Running { .. } = job.at {
                    tally.count(Fault::AgentCancelled);
                }
                if !matches!(job.at, At::Done(_)) {
                    job.at = At::Done(ended);
                }
                self.say.push(job.said(id));
            }
        }
    }

    /// Handles the node's answer to a report.
    pub fn answered(
        &mut self,
        (agent, time): (&str, Time),
        ack: &UpdateAck,
        random: &mut Prng,
        begun: &mut Begun,
        tally: &Tally,
    ) -> Result<(), Violation> {
        let id = &ack.command_id;
        let Some(job) = self.jobs.get_mut(id).filter(|job| job.said(id).stage == ack.stage) else { return Ok(()) };
        if ack.not_here {
            tally.count(Fault::AgentEarly);
            job.again = Some(time + AGAIN);
            return Ok(());
        }
        match (&job.at, ack.refused.is_empty()) {
            (At::Done(said), _) => {
                self.settled.insert(id.clone(), said.stage());
                self.jobs.remove(id);
            }
            (At::Accepting, true) => {
                begun.note(agent, id)?;
                job.at = At::Running { until: time + Duration::from_millis(random.between(10, 8_000)) };
            }
            (At::Accepting, false) => _ = self.jobs.remove(id),
            (At::Running { .. }, _) => {}
        }
        Ok(())
    }

    /// Returns the updates to send now.
    pub fn turn(&mut self, time: Time, random: &mut Prng) -> Vec<CommandUpdate> {
        for (id, job) in &mut self.jobs {
            match job.at {
                At::Running { until } if until <= time => {
                    let stage = *random.pick(&[Stage::Completed, Stage::Failed]);
                    let result_json = if random.chance(500) { "[7]".into() } else { String::new() };
                    job.at = At::Done(CommandUpdate { result_json, ..update(id, stage) });
                    self.say.push(job.said(id));
                }
                At::Running { .. } if random.chance(200) => {
                    let percent = u32::try_from(random.below(101)).expect("small");
                    self.say.push(CommandUpdate { progress: "on it".into(), percent, ..update(id, Stage::Progress) });
                }
                _ => {}
            }
            if job.again.take_if(|at| *at <= time).is_some() {
                self.say.push(job.said(id));
            }
        }
        std::mem::take(&mut self.say)
    }
}

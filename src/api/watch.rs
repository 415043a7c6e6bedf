//! A watch of the agents: a cursor into the order of their changes, and the client's credit.

use peat_ipc::sidecar::{Agent, AgentChange, ChangeType};
use peat_ipc::{CallError, Code};

use crate::api::feed::Progress;
use crate::clock::Now;
use crate::fleet::{Changed, Fleet, Forgotten};

/// Agents examined per turn.
const A_TURN: usize = 256;

/// One watch.
#[derive(Debug)]
pub(super) struct Watch {
    /// Change up to which everything was sent, or is in the snapshot.
    position: u64,
    /// Id of the last agent sent (`None` before the first) during the initial snapshot; `None` once it is complete.
    snapshot: Option<Option<String>>,
    credit: u32,
}

impl Watch {
    /// Creates a watch that begins with the agents as they are now.
    pub(super) fn new(fleet: &Fleet) -> Watch {
        Watch { position: fleet.last_change(), snapshot: Some(None), credit: 0 }
    }

    pub(super) fn grant(&mut self, items: u32) {
        self.credit = self.credit.saturating_add(items);
    }

    /// Sends changes after the cursor, within the credit and while `sink` returns true (room for more).
    ///
    /// # Errors
    /// OUT_OF_RANGE: the watch was so slow that removals it has not sent are no longer remembered.
    pub(super) fn advance(
        &mut self,
        now: Now,
        fleet: &Fleet,
        mut sink: impl FnMut(&AgentChange) -> bool,
    ) -> Result<Progress, CallError> {
        for _ in 0..A_TURN {
            if self.credit == 0 {
                return Ok(Progress::Blocked);
            }
            let Some(change) = self.next(now, fleet)? else { return Ok(Progress::UpToDate) };
            self.credit -= 1;
            if !sink(&change) {
                return Ok(Progress::Blocked);
            }
        }
        Ok(Progress::More)
    }

    fn next(&mut self, now: Now, fleet: &Fleet) -> Result<Option<AgentChange>, CallError> {
        if let Some(after) = self.snapshot.take() {
            let next = fleet.agents(now, after.as_deref()).next();
            let Some(agent) = next else { return Ok(Some(change(None, ChangeType::SnapshotEnd))) };
            self.snapshot = Some(Some(agent.agent_id.clone()));
            return Ok(Some(change(Some(agent), ChangeType::Upsert)));
        }
        let forgotten = "agents were removed that are no longer known; watch again";
        let next = fleet.change_after(now, self.position);
        let next = next.map_err(|Forgotten| CallError::new(Code::OutOfRange, forgotten))?;
        let Some((position, agent)) = next else {
            return Ok(None);
        };
        self.position = position;
        Ok(Some(match agent {
            Changed::Is(agent) => change(Some(*agent), ChangeType::Upsert),
            Changed::Removed(agent_id) => change(Some(Agent { agent_id, ..Agent::default() }), ChangeType::Delete),
        }))
    }
}

fn change(agent: Option<Agent>, change_type: ChangeType) -> AgentChange {
    AgentChange { agent, change_type: change_type.into() }
}

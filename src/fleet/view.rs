//! Queries on the fleet: agents, their changes, and the streams they are attached by.

use std::collections::BTreeMap;

use peat_ipc::sidecar;

use super::attachments::StreamId;
use super::liveness::Liveness;
use super::roster::{AgentEntry, Forgotten};
use super::{Changed, Fleet};
use crate::clock::Now;
use crate::identity::EndpointId;

impl Fleet {
    /// Returns true if the agent is known.
    #[must_use]
    pub fn knows(&self, agent: &str) -> bool {
        self.roster.get(agent).is_some()
    }

    /// Returns the stream that an agent is attached by, if it ends at this node.
    #[must_use]
    pub fn stream_of(&self, agent: &str) -> Option<StreamId> {
        self.roster.get(agent)?.local()?.stream
    }

    /// Returns the agent that registered on a stream.
    #[must_use]
    pub fn agent_of(&self, stream: StreamId) -> Option<&str> {
        self.streams.get(stream)?.agent.as_deref()
    }

    /// Returns the ids of the agents that are LIVE, of one group or of all groups.
    #[must_use]
    pub fn live(&self, now: Now, group: Option<&str>) -> Vec<String> {
        let times = self.settings.times;
        let lives = |entry: &AgentEntry| entry.vitals(&self.presence).liveness(now.mono, &times) == Liveness::Live;
        let wanted = |entry: &AgentEntry| group.is_none_or(|group| entry.profile.group == group);
        let agents = self.roster.iter().filter(|(_, entry)| wanted(entry) && lives(entry));
        agents.map(|(id, _)| id.clone()).collect()
    }

    /// Returns one agent.
    #[must_use]
    pub fn agent(&self, now: Now, id: &str) -> Option<sidecar::Agent> {
        self.roster.get(id).map(|entry| self.show(now, id, entry))
    }

    /// Iterates over the agents with ids that order after `id`; over all of them for `None`.
    pub fn agents<'a>(&'a self, now: Now, after: Option<&'a str>) -> impl Iterator<Item = sidecar::Agent> + 'a {
        self.roster.after(after).map(move |(id, entry)| self.show(now, id, entry))
    }

    /// Returns two present nodes that use the same node id, according to the records of their agents.
    #[must_use]
    pub fn namesakes(&self, now: Now) -> Option<[EndpointId; 2]> {
        let times = &self.settings.times;
        let is_there =
            |node: &EndpointId| self.presence.heard(node).is_some_and(|at| !now.reached(at + times.stale_after));
        let nodes = self.roster.iter().map(|(_, entry)| (entry.via.as_str(), entry.claim.endpoint));
        let mut seen = BTreeMap::from([(self.node_id.as_str(), self.ours)]);
        nodes.filter(|(name, node)| !name.is_empty() && *node != self.ours && is_there(node)).find_map(
            |(name, node)| {
                let other = *seen.entry(name).or_insert(node);
                (other != node).then_some([other, node])
            },
        )
    }

    /// Iterates over the liveness of each agent.
    pub fn states(&self, now: Now) -> impl Iterator<Item = sidecar::Liveness> {
        let times = self.settings.times;
        self.roster.iter().map(move |(_, entry)| entry.vitals(&self.presence).liveness(now.mono, &times).into())
    }

    /// Returns the number of the latest change.
    #[must_use]
    pub fn last_change(&self) -> u64 {
        self.roster.last_change()
    }

    /// Returns the first change after number `position`, and its number.
    ///
    /// # Errors
    /// Removals after `position` were discarded.
    pub fn change_after(&self, now: Now, position: u64) -> Result<Option<(u64, Changed)>, Forgotten> {
        let change = self.roster.change_after(position)?;
        Ok(change.map(|(number, id, entry)| {
            (
                number,
                entry.map_or_else(
                    || Changed::Removed(id.clone()),
                    |entry| Changed::Is(Box::new(self.show(now, id, entry))),
                ),
            )
        }))
    }

    fn show(&self, now: Now, id: &str, entry: &AgentEntry) -> sidecar::Agent {
        let liveness = entry.vitals(&self.presence).liveness(now.mono, &self.settings.times);
        sidecar::Agent {
            agent_id: id.to_owned(),
            name: entry.profile.name.clone(),
            group: entry.profile.group.clone(),
            version: entry.profile.version.clone(),
            capabilities: entry.profile.capabilities.clone(),
            labels: entry.profile.labels.clone().into_iter().collect(),
            liveness: sidecar::Liveness::from(liveness).into(),
            via: entry.via.clone(),
            via_endpoint: entry.claim.endpoint.to_string(),
            age_ms: entry.age_ms(now.mono, &self.presence),
            status: entry.status,
            attached_here: entry.local().is_some_and(|local| local.stream.is_some()),
            routes: entry.profile.routes.clone(),
        }
    }
}

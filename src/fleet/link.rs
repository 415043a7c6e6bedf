//! Processes the messages of one agent: Register, Heartbeat, Goodbye, a dropped stream, and a put to its platform.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use peat_ipc::agent::{
    AgentMessage, Heartbeat, HeartbeatAck, Register, Registered, State, Workload, agent_message, node_message,
};
use peat_ipc::{CallError, Code};

use super::attachments::{Owner, StreamId};
use super::documents::{self, Change};
use super::liveness::{Liveness, Vitals};
use super::profile::{self, Profile};
use super::roster::{Local, Location};
use super::transition::OwnershipClaim;
use super::transition_limiter::TransitionLimiter;
use super::{Attachment, Fleet, Times, millis};
use crate::clock::Now;
use crate::store::Key;

/// Returns the ids of an agent's stored deployments. Called only when the difference to a complete list of workloads is needed.
pub type HeldDeployments<'a> = &'a mut dyn FnMut(&str) -> Result<Vec<String>, CallError>;

/// Returns true if a put by `owner` counts as a sign of life of a LIVE agent. Puts of the watcher always do: the api engine
/// accepts them only while the agent itself is silent.
fn listens(local: &Local, owner: Owner) -> bool {
    local.owner == owner || local.owner == Owner::Watcher || owner == Owner::Watcher
}

impl Fleet {
    /// Registers a new stream, opened by `owner`.
    pub fn handle_open(&mut self, stream: StreamId, owner: Owner) {
        self.streams.open(stream, owner);
    }

    /// Processes a message that arrived on a stream. `held` returns the ids of an agent's stored deployments.
    ///
    /// # Errors
    /// The error to end the stream with. The agent on it, if any, is detached.
    pub fn handle_message(
        &mut self,
        now: Now,
        stream: StreamId,
        message: AgentMessage,
        held: HeldDeployments<'_>,
    ) -> Result<(), CallError> {
        let Some(attached) = self.streams.get(stream) else { return Ok(()) };
        let (owner, agent) = (attached.owner, attached.agent.clone());
        let result = match (message.body, agent) {
            (Some(agent_message::Body::Register(register)), agent) => {
                self.register_on(now, stream, owner, agent.as_deref(), &register, held)
            }
            (None, _) => Err(CallError::new(Code::InvalidArgument, "an agent's message has no body")),
            (Some(_), None) => {
                Err(CallError::new(Code::FailedPrecondition, "the first message of a stream must be a Register"))
            }
            (Some(agent_message::Body::Heartbeat(beat)), Some(agent)) => self.beat(now, stream, &agent, &beat, held),
            (Some(agent_message::Body::Goodbye(_)), Some(_)) => {
                self.handle_dropped(now, stream);
                self.ends.push_back((stream, None));
                Ok(())
            }
            // The caller takes reports on commands out of the stream before this point.
            (Some(agent_message::Body::CommandUpdate(_)), Some(_)) => Ok(()),
        };
        if result.is_err() {
            self.handle_dropped(now, stream);
        }
        result
    }

    /// Registers an agent without a stream, which is LIVE by its heartbeats alone. `held` as for [`Fleet::handle_message`].
    ///
    /// # Errors
    /// The registration exceeds a limit, or the id belongs to another principal.
    pub fn handle_registration(
        &mut self,
        now: Now,
        owner: Owner,
        register: &Register,
        held: HeldDeployments<'_>,
    ) -> Result<Registered, CallError> {
        self.register(now, None, owner, register, held)?;
        Ok(self.registered(&register.agent_id))
    }

    /// Processes a heartbeat of an agent that registered here, with or without a stream.
    ///
    /// # Errors
    /// NOT_FOUND: the agent is not registered here. PERMISSION_DENIED: it belongs to another principal. Otherwise the state is
    /// invalid.
    pub fn handle_heartbeat(
        &mut self,
        now: Now,
        owner: Owner,
        id: &str,
        state: Option<&State>,
        held: HeldDeployments<'_>,
    ) -> Result<Registered, CallError> {
        if self.roster.get(id).and_then(|entry| entry.local()).is_none() {
            let message = format!("agent {id} is not registered at this node; POST /api/v1/agents first");
            return Err(CallError::new(Code::NotFound, message));
        }
        self.check_claim(now, id, owner)?;
        if let Some(state) = state {
            self.state(now, id, state, held)?;
        }
        self.claim(now, id, owner);
        self.heard(now, id);
        Ok(self.registered(id))
    }

    /// Removes a stream that is gone; its agent is STALE at once.
    pub fn handle_dropped(&mut self, now: Now, stream: StreamId) {
        if let Some(agent) = self.streams.close(stream) {
            self.detach(now, &agent, stream);
        }
    }

    /// Processes a put to `platforms/{agent}` by a client of this node. It counts as a sign of life unless the writer is not the
    /// agent's owner or another node reports the agent LIVE.
    pub fn handle_sign(&mut self, now: Now, agent: &str, owner: Owner) {
        let times = self.settings.times;
        if let Some(entry) = self.roster.get(agent) {
            let live = entry.vitals(&self.presence).liveness(now.mono, &times) == Liveness::Live;
            if live && !entry.local().is_some_and(|local| listens(local, owner)) {
                return;
            }
            // An admin who corrects the platform of another principal's agent does not become its owner.
            if ![owner, Owner::Nobody, Owner::Watcher].contains(&entry.owner()) {
                return;
            }
        }
        if self.check_claim(now, agent, owner).is_ok() {
            self.claim(now, agent, owner);
            self.heard(now, agent);
            // Without a stream the agent's puts describe it, rather than an earlier registration.
            if let Some(local) = self.roster.get_mut(agent).and_then(|entry| entry.local_mut())
                && local.stream.is_none()
            {
                local.registered = false;
            }
        }
    }

    /// Returns true if `agent` reports by itself: it is LIVE on a stream here, or gave a sign of life within the last heartbeat
    /// interval.
    #[must_use]
    pub fn speaks_for_itself(&self, now: Now, agent: &str) -> bool {
        let times = &self.settings.times;
        let local = self.roster.get(agent).and_then(|entry| entry.local());
        local.filter(|local| local.owner != Owner::Watcher).is_some_and(|local| {
            let streams = local.stream.is_some() && local.vitals.liveness(now.mono, times) == Liveness::Live;
            streams || now.mono.saturating_duration_since(local.heard) < times.heartbeat
        })
    }

    fn register_on(
        &mut self,
        now: Now,
        stream: StreamId,
        owner: Owner,
        attached: Option<&str>,
        register: &Register,
        held: HeldDeployments<'_>,
    ) -> Result<(), CallError> {
        let id = register.agent_id.as_str();
        if let Some(other) = attached.filter(|other| *other != id) {
            let message = format!("this stream is agent {other}'s; open another one for {id}");
            return Err(CallError::new(Code::InvalidArgument, message));
        }
        self.register(now, Some(stream), owner, register, held)?;
        self.attachments.push_back(Attachment::Attached(id.to_owned(), stream));
        Ok(())
    }

    fn register(
        &mut self,
        now: Now,
        stream: Option<StreamId>,
        owner: Owner,
        register: &Register,
        held: HeldDeployments<'_>,
    ) -> Result<(), CallError> {
        let id = register.agent_id.as_str();
        // All checks come before the claim, so that a rejected registration changes nothing.
        let profile = Profile::of(register)?;
        self.check_claim(now, id, owner)?;
        profile::check_workloads(id, &register.workloads)?;
        self.writes.check_room()?;
        let stored = held(id)?;
        let fields = documents::platform_fields(id, 0, &profile.labels, register.capacity.as_ref())?;
        self.claim(now, id, owner);
        self.attach(now, stream, id, profile);
        // The replacement comes first: it resets every key of the profile, and the fields of this registration are set over it.
        let replaced = self.roster.get(id).map(|entry| entry.profile.replacement()).unwrap_or_default();
        let fields = replaced.into_iter().chain(fields).collect();
        self.put_platform(id, Change::Fields(fields));
        self.replace_workloads(id, &register.workloads, stored);
        if let Some(stream) = stream {
            let registered = self.registered(id);
            self.say(stream, node_message::Body::Registered(registered));
        }
        self.heard(now, id);
        Ok(())
    }

    /// Makes this node the owner of an agent, and `owner` its principal.
    fn claim(&mut self, now: Now, id: &str, owner: Owner) {
        let (ours, node_id) = (self.ours, self.node_id.clone());
        if self.roster.get(id).is_none() {
            // `check_claim` has checked that there is room.
            let _ = self.make_room(now, ours);
        }
        let entry = self.roster.entry(now.mono, id);
        match &mut entry.home {
            Location::Local(local) => local.owner = owner,
            Location::Remote { .. } => {
                entry.claim = OwnershipClaim { attach: entry.claim.attach.saturating_add(1), endpoint: ours };
                entry.via = node_id;
                let local = Local::new(now.mono, Vitals::Gone(now.mono), owner, TransitionLimiter::full(now.mono));
                entry.home = Location::Local(Box::new(local));
                self.roster.touch(id);
            }
        }
    }

    fn attach(&mut self, now: Now, stream: Option<StreamId>, id: &str, profile: Profile) {
        let Some(entry) = self.roster.get_mut(id) else { return };
        let changed = entry.profile != profile;
        entry.profile = profile;
        let Some(local) = entry.local_mut() else { return };
        let before = local.stream;
        local.registered = true;
        if changed || before.is_none() {
            self.roster.touch(id);
        }
        let Some(stream) = stream else { return self.review(now, id) };
        if let Some(entry) = self.roster.get_mut(id).and_then(|entry| entry.local_mut()) {
            entry.stream = Some(stream);
        }
        self.streams.attach(stream, id);
        if let Some(before) = before.filter(|before| *before != stream) {
            self.streams.close(before);
            let message = format!("agent {id} registered on another stream, which takes over");
            self.ends.push_back((before, Some(CallError::new(Code::Aborted, message))));
        }
        self.review(now, id);
    }

    /// Returns the reply to a registration.
    #[must_use]
    pub fn registered(&self, id: &str) -> Registered {
        let Times { heartbeat, stale_after, dead_after } = self.settings.times;
        Registered {
            heartbeat_interval_ms: millis(heartbeat),
            stale_after_ms: millis(stale_after),
            dead_after_ms: millis(dead_after),
            events_url: self.settings.events_url_of(id),
            node_public_key: self.ours.0.to_vec(),
            node_id: self.node_id.clone(),
        }
    }

    fn beat(
        &mut self,
        now: Now,
        stream: StreamId,
        id: &str,
        beat: &Heartbeat,
        held: HeldDeployments<'_>,
    ) -> Result<(), CallError> {
        if let Some(state) = &beat.state {
            self.state(now, id, state, held)?;
        }
        self.heard(now, id);
        self.say(stream, node_message::Body::HeartbeatAck(HeartbeatAck { number: beat.number }));
        Ok(())
    }

    fn state(&mut self, now: Now, id: &str, state: &State, held: HeldDeployments<'_>) -> Result<(), CallError> {
        profile::check_workloads(id, &state.workloads)?;
        self.writes.check_room()?;
        let labels = profile::labels(&state.labels)?;
        let fields = documents::platform_fields(id, state.status, &labels, state.capacity.as_ref())?;
        if state.workloads_complete {
            let stored = held(id)?;
            self.replace_workloads(id, &state.workloads, stored);
        } else {
            _ = self.put_workloads(id, &state.workloads);
        }
        self.put_platform(id, Change::Fields(fields));
        self.relabel(now, id, labels);
        Ok(())
    }

    /// Replaces the labels of an agent by those of a state, unless these are empty.
    fn relabel(&mut self, now: Now, id: &str, labels: BTreeMap<String, String>) {
        if let Some(entry) = self.roster.get_mut(id)
            && !labels.is_empty()
            && entry.profile.labels != labels
        {
            entry.profile.labels = labels;
            self.roster.touch(id);
            self.review(now, id);
        }
    }

    fn put_platform(&mut self, id: &str, change: Change) {
        if let Ok(key) = documents::platform_key(id) {
            self.writes.add(key, change);
        }
    }

    fn put_workloads(&mut self, id: &str, workloads: &[Workload]) -> BTreeSet<Key> {
        let mut put = BTreeSet::new();
        for workload in workloads {
            let Ok(key) = documents::deployment_key(id, &workload.name) else { continue };
            self.writes.add(key.clone(), Change::Fields(documents::deployment_fields(id, workload)));
            put.insert(key);
        }
        put
    }

    /// Puts the deployments of these workloads and deletes all others of the agent.
    fn replace_workloads(&mut self, id: &str, workloads: &[Workload], stored: Vec<String>) {
        let put = self.put_workloads(id, workloads);
        let stored = stored.into_iter().filter_map(|name| Key::new("deployments", name).ok());
        let gone: BTreeSet<Key> =
            stored.chain(self.writes.deployments_of(id)).filter(|key| !put.contains(key)).collect();
        gone.into_iter().for_each(|key| self.writes.add(key, Change::Delete));
    }

    /// Records a sign of life. Re-evaluates the agent only if it was not LIVE or is not stored, so that most heartbeats cost
    /// nothing.
    fn heard(&mut self, now: Now, id: &str) {
        let times = self.settings.times;
        let Some(local) = self.roster.get_mut(id).and_then(|entry| entry.local_mut()) else { return };
        let live = local.vitals.liveness(now.mono, &times) == Liveness::Live;
        (local.heard, local.older) = (now.mono, Duration::ZERO);
        local.vitals = Vitals::Heard(now.mono);
        if !live || local.stored.is_none() {
            self.review(now, id);
        }
    }

    /// Detaches an agent if `stream` is still its stream.
    fn detach(&mut self, now: Now, id: &str, stream: StreamId) {
        let times = self.settings.times;
        let Some(local) = self.roster.get_mut(id).and_then(|entry| entry.local_mut()) else { return };
        if local.stream != Some(stream) {
            return;
        }
        local.stream = None;
        self.attachments.push_back(Attachment::Detached(id.to_owned()));
        local.vitals = local.vitals.drop_at(now.mono, &times);
        self.roster.touch(id);
        self.review(now, id);
    }
}

//! Transitions found in the store: those of other nodes, and this node's own from before a restart.
//!
//! The stored transition is authoritative unless this node owns the agent with a higher claim; then this node writes its own
//! again. All nodes therefore agree on the newest owner in the end, even after a node has lost its memory of earlier claims.

use std::time::Duration;

use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use super::liveness::{Liveness, Vitals};
use super::profile::Profile;
use super::roster::{AgentEntry, Local, Location};
use super::transition::{self, Transition};
use super::transition_limiter::TransitionLimiter;
use super::{Attachment, Fleet};
use crate::clock::Now;

impl Fleet {
    /// Processes a document of `agents` in its current state: each document once at the start, then each that a peer changed.
    /// `None`: it was deleted, or never existed.
    pub fn handle_record(&mut self, now: Now, id: &str, json: Option<&str>) {
        let times = self.settings.times;
        let silence = |said| json.map_or(Duration::ZERO, |json| transition::silence(json, said, now, &times));
        match json.map(Transition::from_json) {
            None => self.record_deleted(now, id),
            // Not a transition: the store no longer holds what this node wrote.
            Some(None) => self.stored_is(now, id, None),
            Some(Some(transition)) if transition.claim.endpoint == self.ours => {
                let silence = silence(transition.liveness);
                self.own_record(now, id, transition, silence);
            }
            Some(Some(transition)) => {
                let silence = silence(transition.liveness);
                self.foreign_record(now, id, transition, silence);
            }
        }
    }

    /// Returns true if a document of `agents` equals the transition that this node stored last, or is storing.
    #[must_use]
    pub fn is_own_word(&self, id: &str, json: &str) -> bool {
        let Some(local) = self.roster.get(id).and_then(AgentEntry::local) else { return false };
        let word = Transition::from_json(json);
        word.is_some() && (word == local.stored || word == local.writing)
    }

    /// Processes a changed document of `platforms`. Watchers receive its status. For an agent of this node that has not
    /// registered, the document is also its profile.
    pub fn handle_platform(&mut self, now: Now, id: &str, json: &str) {
        let fields: Map<String, Value> = serde_json::from_str(json).unwrap_or_default();
        let status = transition::status_of(&fields);
        let Some(entry) = self.roster.get_mut(id) else { return };
        let mut changed = std::mem::replace(&mut entry.status, status) != status;
        if entry.local().is_some_and(|local| !local.registered) {
            let profile = Profile::from_fields(&fields);
            if entry.profile != profile {
                entry.profile = profile;
                changed = true;
            }
        }
        if changed {
            self.roster.touch(id);
            self.review(now, id);
        }
    }

    fn record_deleted(&mut self, now: Now, id: &str) {
        if self.live_here.contains(id) {
            return self.stored_is(now, id, None);
        }
        self.forget(id);
    }

    /// Records what the store holds of an agent that this node owns.
    fn stored_is(&mut self, now: Now, id: &str, stored: Option<Transition>) {
        if let Some(local) = self.roster.get_mut(id).and_then(AgentEntry::local_mut) {
            local.stored = stored;
            local.crossed = local.writing.is_some();
            self.review(now, id);
        }
    }

    /// Processes a transition that names this node as owner: from an earlier run, or relayed back by a peer.
    fn own_record(&mut self, now: Now, id: &str, transition: Transition, silence: Duration) {
        if self.roster.get(id).is_none() && !self.make_room(now, self.ours) {
            return;
        }
        match self.roster.get(id) {
            Some(entry) if entry.local().is_some() => {}
            _ => self.adopt(now, id, &transition, silence),
        }
        if let Some(entry) = self.roster.get_mut(id) {
            entry.claim = entry.claim.max(transition.claim);
        }
        self.stored_is(now, id, Some(transition));
    }

    /// Takes over an agent of an earlier run as STALE: its stream ended with that run, and the agent is expected to reconnect.
    fn adopt(&mut self, now: Now, id: &str, transition: &Transition, silence: Duration) {
        let vitals = if transition.liveness == Liveness::Dead { Vitals::Dead } else { Vitals::Gone(now.mono) };
        let entry = self.roster.entry(now.mono, id);
        entry.profile = transition.profile.clone();
        entry.claim = transition.claim;
        entry.via.clone_from(&transition.via);
        let local = Local::new(now.mono, vitals, transition.owner, TransitionLimiter::empty(now.mono));
        entry.home = Location::Local(Box::new(Local { older: silence, ..local }));
        self.roster.touch(id);
    }

    fn foreign_record(&mut self, now: Now, id: &str, transition: Transition, silence: Duration) {
        if self.roster.get(id).is_none() && !self.make_room(now, transition.claim.endpoint) {
            return;
        }
        match self.roster.get(id) {
            // The other owner has not seen this node's claim yet, or lost to it: write this node's transition again.
            Some(entry) if entry.local().is_some() && entry.claim > transition.claim => {
                return self.stored_is(now, id, Some(transition));
            }
            Some(entry) => {
                if let Some(stream) = entry.local().and_then(|local| local.stream) {
                    self.streams.close(stream);
                    self.attachments.push_back(Attachment::Detached(id.to_owned()));
                    let message = format!("agent {id} registered at node {}, which takes over", transition.via);
                    self.ends.push_back((stream, Some(CallError::new(Code::Aborted, message))));
                }
            }
            None => {}
        }
        let entry = self.roster.entry(now.mono, id);
        entry.home =
            Location::Remote { said: transition.liveness, seen: now.mono, older: silence, owner: transition.owner };
        entry.profile = transition.profile;
        entry.claim = transition.claim;
        entry.via = transition.via;
        self.roster.touch(id);
        self.to_store.remove(id);
        self.unsaid.remove(id);
        self.review(now, id);
    }
}

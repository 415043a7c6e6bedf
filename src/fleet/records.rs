//! What the store holds of agents: other nodes' transitions, and our own from before a restart.
//!
//! What is stored is the truth about an agent, unless this node owns it with a higher claim: then it stores its own word again.
//! So whoever owns an agent last is known everywhere in the end, even after a node has forgotten what it once claimed.

use std::time::Duration;

use peat_ipc::{CallError, Code};
use serde_json::{Map, Value};

use super::damper::Damper;
use super::liveness::{Liveness, Vitals};
use super::profile::Profile;
use super::roster::{Entry, Home, Local};
use super::transition::{self, Transition};
use super::{Attachment, Fleet};
use crate::clock::Now;

impl Fleet {
    /// A document of `agents` as it is now, for each that a peer changed and for all of them at the start; `None`: it was
    /// deleted, or never existed.
    pub fn handle_record(&mut self, now: Now, id: &str, json: Option<&str>) {
        let times = self.settings.times;
        let silence = |said| json.map_or(Duration::ZERO, |json| transition::silence(json, said, now, &times));
        match json.map(Transition::from_json) {
            None => self.record_deleted(now, id),
            // Not one of ours: what the store holds is not what this node knows.
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

    /// Whether a document of `agents` is what this node stored of an agent last, or is storing.
    #[must_use]
    pub fn is_own_word(&self, id: &str, json: &str) -> bool {
        let Some(local) = self.roster.get(id).and_then(Entry::local) else { return false };
        let word = Transition::from_json(json);
        word.is_some() && (word == local.stored || word == local.writing)
    }

    /// A document of `platforms` changed: watchers see the status. Of an agent of this node that has not registered it says what the
    /// agent is.
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

    /// What the store holds of an agent that this node owns.
    fn stored_is(&mut self, now: Now, id: &str, stored: Option<Transition>) {
        if let Some(local) = self.roster.get_mut(id).and_then(Entry::local_mut) {
            local.stored = stored;
            local.crossed = local.writing.is_some();
            self.review(now, id);
        }
    }

    /// From an earlier run of this node, or one that went round the mesh.
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

    /// An agent of an earlier run: its stream is gone with that, and it is about to come back.
    fn adopt(&mut self, now: Now, id: &str, transition: &Transition, silence: Duration) {
        let vitals = if transition.liveness == Liveness::Dead { Vitals::Dead } else { Vitals::Gone(now.mono) };
        let entry = self.roster.entry(now.mono, id);
        entry.profile = transition.profile.clone();
        entry.claim = transition.claim;
        entry.via.clone_from(&transition.via);
        let local = Local::new(now.mono, vitals, transition.owner, Damper::empty(now.mono));
        entry.home = Home::Here(Box::new(Local { older: silence, ..local }));
        self.roster.touch(id);
    }

    fn foreign_record(&mut self, now: Now, id: &str, transition: Transition, silence: Duration) {
        if self.roster.get(id).is_none() && !self.make_room(now, transition.claim.endpoint) {
            return;
        }
        match self.roster.get(id) {
            // Its owner has not heard of us yet, or lost: the store is to hold our word again.
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
            Home::Elsewhere { said: transition.liveness, seen: now.mono, older: silence, owner: transition.owner };
        entry.profile = transition.profile;
        entry.claim = transition.claim;
        entry.via = transition.via;
        self.roster.touch(id);
        self.to_store.remove(id);
        self.unsaid.remove(id);
        self.review(now, id);
    }
}

//! Re-evaluates one agent after an event: whether it is LIVE, whether watchers must be notified, and whether to store it, now or
//! later.
//!
//! Every input that can change an agent ends in `Fleet::review`; it is idempotent. `liveness.rs` explains the algorithm.

use std::time::Instant;

use super::liveness::{Liveness, Times};
use super::roster::{AgentEntry, Local};
use super::transition::Transition;
use super::{COLLECTION, Fleet, WriteResult, documents};
use crate::clock::Now;
use crate::store::Key;

impl Fleet {
    /// Re-evaluates one agent: notifies watchers, queues the transition to store, and sets the timer of the next evaluation.
    pub(super) fn review(&mut self, now: Now, id: &str) {
        let times = self.settings.times;
        let Some(entry) = self.roster.get_mut(id) else { return };
        let vitals = entry.vitals(&self.presence);
        let liveness = vitals.liveness(now.mono, &times);
        let changed = std::mem::replace(&mut entry.shown, liveness) != liveness;
        let store_at = store_at(entry, now.mono, &times);
        if store_at.is_some_and(|at| at <= now.mono) {
            self.to_store.insert(id.to_owned());
        }
        let later = store_at.filter(|at| *at > now.mono);
        // The earlier of two times: the next change without a sign of life, and the next token of the rate limit.
        let timer = [vitals.next_change(now.mono, &times), later].into_iter().flatten().min();
        let old = std::mem::replace(&mut entry.timer, timer);
        let here = entry.local().is_some();
        if old != timer {
            old.into_iter().for_each(|at| _ = self.timers.remove(&(at, id.to_owned())));
            timer.into_iter().for_each(|at| _ = self.timers.insert((at, id.to_owned())));
        }
        // This node's presence would vouch for a stored LIVE that no longer holds; see `Fleet::poll_announcement`.
        let says_live = |local: &Local| local.stored.as_ref().is_some_and(|stored| stored.liveness == Liveness::Live);
        if liveness != Liveness::Live && entry.local().is_some_and(says_live) {
            self.unsaid.insert(id.to_owned());
        } else {
            self.unsaid.remove(id);
        }
        if changed {
            self.roster.touch(id);
        }
        self.note_live(now, id, here && liveness == Liveness::Live);
    }

    fn note_live(&mut self, now: Now, id: &str, live: bool) {
        if live {
            if !self.live_here.contains(id) {
                self.live_here.insert(id.to_owned());
                self.presence.announce_soon(now.mono, &self.settings.times);
            }
        } else if self.live_here.remove(id) && self.live_here.is_empty() {
            self.presence.fall_silent();
        }
    }

    /// Returns the next transition to store now, as a document.
    pub(super) fn poll_transition(&mut self, now: Now) -> Option<(Key, String)> {
        let times = self.settings.times;
        while let Some(id) = self.to_store.pop_first() {
            let Some(entry) = self.roster.get_mut(&id) else { continue };
            let Some(wanted) = entry.wanted(now.mono, &times) else { continue };
            let Some(local) = entry.local_mut() else { continue };
            let Ok(key) = Key::new(COLLECTION, id.as_str()) else { continue };
            local.damper.take(now.mono, damping(&times));
            let silent = now.mono.saturating_duration_since(local.heard) + local.older;
            let json = wanted.to_json(&id, now, silent);
            (local.writing, local.crossed) = (Some(wanted), false);
            return Some((key, json));
        }
        None
    }

    pub(super) fn transition_written(&mut self, now: Now, id: &str, written: WriteResult) {
        if let Some(local) = self.roster.get_mut(id).and_then(AgentEntry::local_mut)
            && let Some(transition) = local.writing.take()
        {
            local.retry_at = (written == WriteResult::Failed).then(|| now.after(documents::RETRY));
            // A rejected transition counts as stored, so that it is not attempted again until it differs.
            if written != WriteResult::Failed {
                local.stored = Some(transition);
            }
        }
        self.review(now, id);
    }
}

/// Returns the time at which the stored transition should be written; `None` while it is up to date or being written.
fn store_at(entry: &AgentEntry, now: Instant, times: &Times) -> Option<Instant> {
    let local = entry.local().filter(|local| local.writing.is_none())?;
    let wanted: Option<Transition> = entry.wanted(now, times);
    if wanted == local.stored && !local.crossed {
        return None;
    }
    let damped = local.damper.ready_at(now, damping(times));
    Some(local.retry_at.map_or(damped, |retry| retry.max(damped)))
}

/// Period of the rate limit: the minimum interval between two stored transitions of one agent once its burst is used up.
fn damping(times: &Times) -> std::time::Duration {
    times.heartbeat / 3
}

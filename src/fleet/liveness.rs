//! Derives LIVE, STALE or DEAD from the last sign of an agent's life, on this node's monotonic clock alone.
//!
//! # The problem
//!
//! Each node shows each agent of the fleet as LIVE, STALE or DEAD, although only one node, the owner, hears the agent. The answer
//! must be right within seconds when an agent registers or drops, and within the thresholds when a node or a link is lost, on
//! links of a few kilobits per second and on machines without a synchronized clock.
//!
//! # Why the simple ways fail
//!
//! * *Replicate heartbeats.* A thousand agents at 30 s are 33 writes per second on every node, for states that do not change.
//! * *Replicate the time of the last heartbeat and compare it with the local clock.* A node with a clock that is five minutes
//!   ahead shows the fleet as DEAD, one that is behind never notices a loss, and each correction by NTP changes the fleet.
//! * *Believe the owner's last record.* A node that lost power never writes STALE; its agents would be LIVE for ever.
//!
//! # The algorithm
//!
//! The owner writes *transitions*, not heartbeats: `agents/{id}` changes when the agent becomes LIVE, STALE or DEAD
//! (`review.rs`), at a limited rate (`transition_limiter.rs`). In addition a node with LIVE agents gossips its *presence* every heartbeat
//! interval, one small message for any number of agents, which is never stored (`presence.rs`). An observer combines the two into
//! `Vitals`, the evidence of one agent's life, with times on the observer's own monotonic clock:
//!
//! | evidence | `Vitals` |
//! |---|---|
//! | this node owns the agent | `Heard` at the last message; `Gone` when its stream dropped |
//! | record LIVE, presence of the owner heard | `Heard` at the last presence: the node vouches for the agent |
//! | record LIVE, no presence ever heard | `Gone` since the record arrived |
//! | record STALE | `Gone` since the record arrived |
//! | record DEAD | `Dead`: it needs no time |
//!
//! The state follows from the evidence and the time: LIVE until `Times::stale_after` after `Heard`, STALE for `Times::dead_after`
//! from then or from `Gone`, DEAD after that. Only the owner stores it; on all other nodes it is derived and never written.
//!
//! Two rules keep that sound:
//!
//! * *Presence vouches for what was stored last.* A node with an agent that is gone, of which its store still says LIVE (the
//!   write is rate-limited, in progress or failed), sends no presence until that is stored. If the disk stays full, the other
//!   nodes see the silence and derive STALE themselves.
//! * *A gap is no silence.* If this process was stopped or busy past a deadline, heartbeats wait unread in sockets. Evidence that
//!   was valid when the gap began stays valid for one heartbeat interval after it (`Fleet::handle_gap`), so that what waits is
//!   read before anything is judged.
//!
//! # Bounds
//!
//! A loss of the owner shows within `stale_after` after its last presence, by default 90 s. A dropped stream shows as soon as its
//! transition arrives. An agent costs one timer and, while its state is stable, no writes. Wall clocks serve to display the age
//! of an agent that was silent before a restart, and for nothing else.
//!
//! Tested in `fleet/tests.rs` (thresholds, wall clocks, a full disk, flapping) and `fleet/tests/silence.rs` (gaps).

use std::time::{Duration, Instant};

use peat_ipc::sidecar;

/// State of an agent as shown to clients.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Liveness {
    /// A sign of life came within the stale threshold.
    Live,
    /// Silent for longer than the stale threshold, or its stream dropped.
    Stale,
    /// STALE for longer than the dead threshold.
    Dead,
}

impl Liveness {
    /// Returns the name used in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Liveness::Live => "LIVE",
            Liveness::Stale => "STALE",
            Liveness::Dead => "DEAD",
        }
    }

    /// Returns the state with this name, the inverse of [`Liveness::name`].
    #[must_use]
    pub fn from_name(name: &str) -> Option<Liveness> {
        [Liveness::Live, Liveness::Stale, Liveness::Dead].into_iter().find(|liveness| liveness.name() == name)
    }
}

impl From<Liveness> for sidecar::Liveness {
    fn from(liveness: Liveness) -> sidecar::Liveness {
        match liveness {
            Liveness::Live => sidecar::Liveness::Live,
            Liveness::Stale => sidecar::Liveness::Stale,
            Liveness::Dead => sidecar::Liveness::Dead,
        }
    }
}

/// Heartbeat interval and thresholds of silence.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// Interval at which agents are asked for heartbeats, and at which a node with LIVE agents announces its presence.
    pub heartbeat: Duration,
    /// Silence after which an agent is no longer LIVE but STALE.
    pub stale_after: Duration,
    /// Time as STALE after which an agent is DEAD.
    pub dead_after: Duration,
}

impl Default for Times {
    fn default() -> Times {
        Times {
            heartbeat: Duration::from_secs(30),
            stale_after: Duration::from_secs(90),
            dead_after: Duration::from_secs(300),
        }
    }
}

/// Evidence of an agent's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Vitals {
    /// Time of its last sign of life.
    Heard(Instant),
    /// Time since which it is STALE.
    Gone(Instant),
    /// DEAD already in the first record that this node received.
    Dead,
}

impl Vitals {
    pub(super) fn liveness(self, now: Instant, times: &Times) -> Liveness {
        match self.stale_at(times) {
            None => Liveness::Dead,
            Some(stale) if now < stale => Liveness::Live,
            Some(stale) if now < stale + times.dead_after => Liveness::Stale,
            Some(_) => Liveness::Dead,
        }
    }

    /// Returns the time at which [`Vitals::liveness`] changes next without a sign of life.
    pub(super) fn next_change(self, now: Instant, times: &Times) -> Option<Instant> {
        let stale = self.stale_at(times)?;
        [stale, stale + times.dead_after].into_iter().find(|at| *at > now)
    }

    /// Returns the evidence after the agent's stream dropped or the agent said Goodbye: STALE from now on.
    pub(super) fn drop_at(self, now: Instant, times: &Times) -> Vitals {
        match self.stale_at(times) {
            Some(stale) => Vitals::Gone(stale.min(now)),
            None => Vitals::Dead,
        }
    }

    /// Returns the evidence after a gap from `since` to `now` in which nothing could be heard, while messages that arrived wait
    /// to be read: a state that had not ended at `since` lasts at least `grace` longer.
    pub(super) fn spared(self, since: Instant, now: Instant, times: &Times, grace: Duration) -> Vitals {
        // Time of the evidence with which a state of this patience lasts exactly until `now + grace`.
        let back = |patience: Duration| (now + grace).checked_sub(patience);
        match (self, self.liveness_before(since, times)) {
            (Vitals::Heard(at), Liveness::Live) => {
                Vitals::Heard(back(times.stale_after).map_or(at, |back| back.max(at)))
            }
            (_, Liveness::Stale) => match (self.stale_at(times), back(times.dead_after)) {
                (Some(stale), Some(back)) => Vitals::Gone(stale.max(back)),
                _ => self,
            },
            _ => self,
        }
    }

    /// Returns [`Vitals::liveness`] just before `at`.
    fn liveness_before(self, at: Instant, times: &Times) -> Liveness {
        match self.stale_at(times) {
            None => Liveness::Dead,
            Some(stale) if at <= stale => Liveness::Live,
            Some(stale) if at <= stale + times.dead_after => Liveness::Stale,
            Some(_) => Liveness::Dead,
        }
    }

    fn stale_at(self, times: &Times) -> Option<Instant> {
        match self {
            Vitals::Heard(at) => Some(at + times.stale_after),
            Vitals::Gone(at) => Some(at),
            Vitals::Dead => None,
        }
    }
}

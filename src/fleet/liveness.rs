//! LIVE, STALE, DEAD: what the last sign of an agent makes it at a given time, by this node's monotonic clock alone.

use std::time::{Duration, Instant};

use peat_ipc::sidecar;

/// What an agent is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Liveness {
    /// Heard within the stale threshold.
    Live,
    /// Silent for longer than that, or its stream dropped.
    Stale,
    /// STALE for longer than the dead threshold.
    Dead,
}

impl Liveness {
    /// As documents spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Liveness::Live => "LIVE",
            Liveness::Stale => "STALE",
            Liveness::Dead => "DEAD",
        }
    }

    /// The opposite of [`Liveness::name`].
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

/// How long silence may last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Times {
    /// How often agents are asked to beat, and nodes with agents to say that they are there.
    pub heartbeat: Duration,
    /// LIVE → STALE after this without a sign.
    pub stale_after: Duration,
    /// STALE → DEAD after this.
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

/// What is known of an agent's life.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Vitals {
    /// Its last sign of life.
    Heard(Instant),
    /// It has been STALE since.
    Gone(Instant),
    /// It was DEAD already when this node first heard of it.
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

    /// When [`Vitals::liveness`] is another one if nothing is heard.
    pub(super) fn next_change(self, now: Instant, times: &Times) -> Option<Instant> {
        let stale = self.stale_at(times)?;
        [stale, stale + times.dead_after].into_iter().find(|at| *at > now)
    }

    /// The agent's stream dropped, or it said goodbye.
    pub(super) fn drop_at(self, now: Instant, times: &Times) -> Vitals {
        match self.stale_at(times) {
            Some(stale) => Vitals::Gone(stale.min(now)),
            None => Vitals::Dead,
        }
    }

    /// Nothing could be heard from `since` to `now`, and what waits to be read is not read yet: what was not over at `since` lasts for
    /// `grace` longer.
    pub(super) fn spared(self, since: Instant, now: Instant, times: &Times, grace: Duration) -> Vitals {
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

    /// The same as [`Vitals::liveness`] just before `at`.
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

//! Virtual time, the event queue, and clocks that disagree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use peat_node::clock::{BootId, Now};

/// Virtual time since the start of the world.
pub type Time = Duration;

/// Future events, ordered by time, then by the order in which they were scheduled.
#[derive(Debug)]
pub struct Queue<E> {
    now: Time,
    scheduled: u64,
    order: BinaryHeap<Reverse<(Time, u64)>>,
    events: BTreeMap<u64, E>,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { now: Time::ZERO, scheduled: 0, order: BinaryHeap::new(), events: BTreeMap::new() }
    }
}

impl<E> Queue<E> {
    /// Returns the time of the event taken last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Schedules `event` at `time`, or now if that has passed.
    pub fn schedule(&mut self, time: Time, event: E) {
        self.order.push(Reverse((time.max(self.now), self.scheduled)));
        self.events.insert(self.scheduled, event);
        self.scheduled += 1;
    }

    /// Schedules `event` at `delay` from now.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.schedule(self.now + delay, event);
    }

    /// Returns the time of the next event.
    pub fn next(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((time, _))| *time)
    }

    /// Advances to `time` without an event.
    pub fn idle_until(&mut self, time: Time) {
        self.now = self.now.max(time);
    }

    /// Takes the next event and advances the time to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((time, number)) = self.order.pop()?;
        self.now = time;
        Some(self.events.remove(&number).expect("every scheduled number has its event"))
    }
}

/// The clocks of one node: the monotonic one runs fast or slow, the wall clock shows any time.
#[derive(Clone, Debug)]
pub struct Clock {
    base: Instant,
    drift_ppm: i64,
    wall_ms_at_zero: i64,
    /// Number of the machine's current boot, and its time.
    boots: u64,
    booted: Time,
}

impl Clock {
    /// Creates clocks; `base` is the origin of every node's monotonic clock.
    pub fn new(base: Instant, drift_ppm: i64, wall_ms_at_zero: i64) -> Clock {
        Clock { base, drift_ppm, wall_ms_at_zero, boots: 0, booted: Time::ZERO }
    }

    /// Sets the wall clock.
    pub fn jump(&mut self, wall_ms_at_zero: i64) {
        self.wall_ms_at_zero = wall_ms_at_zero;
    }

    /// Reboots the machine.
    pub fn reboot(&mut self, time: Time) {
        self.boots += 1;
        self.booted = time;
    }

    /// Returns the machine's boot id.
    pub fn boot_id(&self) -> BootId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.boots.to_le_bytes());
        BootId(id)
    }

    /// Returns the node's clocks at `time`.
    pub fn at(&self, time: Time) -> Now {
        let local = self.local(time);
        let wall_ms =
            self.wall_ms_at_zero + i64::try_from(local.as_millis()).expect("a simulation lasts hours at most");
        let up = local.saturating_sub(self.local(self.booted));
        let boot_ms = u64::try_from(up.as_millis()).expect("a simulation lasts hours at most");
        Now { mono: self.base + local, wall_ms, boot_ms }
    }

    fn local(&self, time: Time) -> Duration {
        let nanos = i128::try_from(time.as_nanos()).expect("a simulation lasts hours at most");
        let drifted = nanos + nanos * i128::from(self.drift_ppm) / 1_000_000;
        Duration::from_nanos(u64::try_from(drifted).expect("drift is a small share"))
    }

    /// Returns the earliest time at which the node's monotonic clock reaches `deadline`.
    pub fn when(&self, deadline: Instant) -> Time {
        let local = deadline.saturating_duration_since(self.base);
        let nanos = i128::try_from(local.as_nanos()).expect("deadlines lie days ahead at most");
        let guess = nanos * 1_000_000 / (1_000_000 + i128::from(self.drift_ppm));
        let mut time = Duration::from_nanos(u64::try_from(guess).expect("drift is a small share"));
        while self.local(time) < local {
            time += Duration::from_nanos(1);
        }
        time
    }
}

/// Returns the origin of virtual time, the only reading of the real clock.
#[expect(clippy::disallowed_methods, reason = "the simulator is a shell; `Instant` has no other origin")]
pub fn base() -> Instant {
    Instant::now()
}

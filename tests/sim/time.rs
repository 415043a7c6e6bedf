//! Virtual time, the queue of what happens when, and clocks that do not agree.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::time::{Duration, Instant};

use peat_node::clock::{BootId, Now};

/// Virtual time since the world began.
pub type Time = Duration;

/// What is to happen, ordered by time, then by the order in which it was scheduled.
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
    /// The time of the event taken last.
    pub fn now(&self) -> Time {
        self.now
    }

    /// Lets `event` happen at `time`, or now when that has passed.
    pub fn schedule(&mut self, time: Time, event: E) {
        self.order.push(Reverse((time.max(self.now), self.scheduled)));
        self.events.insert(self.scheduled, event);
        self.scheduled += 1;
    }

    /// Lets `event` happen `delay` from now.
    pub fn after(&mut self, delay: Duration, event: E) {
        self.schedule(self.now + delay, event);
    }

    /// When the next event happens.
    pub fn next(&self) -> Option<Time> {
        self.order.peek().map(|Reverse((time, _))| *time)
    }

    /// Nothing happens until `time`, which comes.
    pub fn idle_until(&mut self, time: Time) {
        self.now = self.now.max(time);
    }

    /// The next event; time moves to it.
    pub fn pop(&mut self) -> Option<E> {
        let Reverse((time, number)) = self.order.pop()?;
        self.now = time;
        Some(self.events.remove(&number).expect("every scheduled number has its event"))
    }
}

/// One node's idea of the time: its monotonic clock runs fast or slow, its wall clock says anything.
#[derive(Clone, Debug)]
pub struct Clock {
    base: Instant,
    drift_ppm: i64,
    wall_ms_at_zero: i64,
    /// Which start of the machine this is, and when it was.
    boots: u64,
    booted: Time,
}

impl Clock {
    /// `base` is where every node's monotonic clock began.
    pub fn new(base: Instant, drift_ppm: i64, wall_ms_at_zero: i64) -> Clock {
        Clock { base, drift_ppm, wall_ms_at_zero, boots: 0, booted: Time::ZERO }
    }

    /// Sets the wall clock.
    pub fn jump(&mut self, wall_ms_at_zero: i64) {
        self.wall_ms_at_zero = wall_ms_at_zero;
    }

    /// The machine starts anew.
    pub fn reboot(&mut self, time: Time) {
        self.boots += 1;
        self.booted = time;
    }

    /// What the machine calls this start of its.
    pub fn boot_id(&self) -> BootId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.boots.to_le_bytes());
        BootId(id)
    }

    /// What the node's clocks say at `time`.
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

    /// The earliest time at which the node's monotonic clock has reached `deadline`.
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

/// The one reading of the real clock: virtual times are counted from it.
#[expect(clippy::disallowed_methods, reason = "the simulator is a shell; `Instant` has no other origin")]
pub fn base() -> Instant {
    Instant::now()
}

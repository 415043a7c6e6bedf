//! Rare workloads that a fleet must survive: a document edited at the maximum rate, nodes suspended for a while (SIGSTOP, a
//! frozen container, a suspended machine) while others continue, and links that flap.

use std::time::Duration;

use peat_node::store::{Key, Put};
use serde_json::{Value, json};

use crate::faults::Fault;
use crate::mesh::world::World;
use crate::mesh::{Event, Role};
use crate::seeds::{self, Violation};

/// Bytes of datagrams queued for a suspended node: Linux's default socket buffer. Further ones are lost.
const SOCKET_BYTES: usize = 212_992;
/// Number of fields that the edits of a hot document write to.
const HOT_FIELDS: u64 = 3;
/// Size of the text in a hot document, in bytes, so that it is offered to peers before it is sent.
const HOT_TEXT_BYTES: usize = 5_000;

/// Returns the key of the document that is edited at the maximum rate.
pub fn hot_key() -> Key {
    Key::new("notes", "hot").expect("a valid key")
}

/// A suspended node: none of its threads runs until then.
#[derive(Debug, Default)]
pub struct Stopped {
    pub until: Duration,
    /// Bytes of datagrams queued in its socket.
    waiting: usize,
}

impl World {
    /// Schedules the load that this seed includes.
    pub fn plan_load(&mut self) {
        if self.random.chance(350) {
            let delay = Duration::from_millis(self.random.between(2_000, 15_000));
            let edits = self.random.between(100, 800);
            let node = self.random.index(self.nodes.len());
            self.queue.after(delay, Event::Hot { node, edits, pause_micros: self.random.between(500, 8_000) });
        }
        if self.random.chance(400) {
            let delay = Duration::from_millis(self.random.between(1_000, 20_000));
            self.queue.after(delay, Event::Stop);
        }
        if self.random.chance(300) {
            let delay = Duration::from_millis(self.random.between(1_000, 15_000));
            let one = self.random.index(self.nodes.len());
            let other = (one + 1 + self.random.index(self.nodes.len() - 1)) % self.nodes.len();
            self.queue.after(delay, Event::Flap { one, other, left: self.random.between(6, 24) });
        }
    }

    /// Edits the hot document once and schedules the next edit.
    pub fn heat(&mut self, number: usize, edits: u64, pause_micros: u64) -> Result<(), Violation> {
        if edits == 0 || self.healing {
            return Ok(());
        }
        let next = Event::Hot { node: number, edits: edits - 1, pause_micros };
        self.queue.after(Duration::from_micros(pause_micros), next);
        if self.nodes[number].running.is_none() || self.is_stopped(number) {
            return Ok(());
        }
        self.tally.count(Fault::HotEdit);
        let (field, mark) = (format!("f{}", self.random.below(HOT_FIELDS)), self.next_mark());
        let mut patch = json!({ field: mark });
        if edits.is_multiple_of(200) {
            patch["text"] = Value::String("x".repeat(HOT_TEXT_BYTES));
        }
        let put = Put::Patch { json: patch.to_string(), base: None };
        let mail = self.clients[number].write(hot_key(), put, false);
        self.post(number, Role::Api, Role::Store, mail)
    }

    /// Suspends a node for a while, and schedules the next suspension.
    pub fn stop_one(&mut self) {
        if self.healing {
            return;
        }
        let number = self.random.index(self.nodes.len());
        if self.nodes[number].running.is_some() && !self.is_stopped(number) {
            self.tally.count(Fault::Stopped);
            // An odd nanosecond keeps other events off this instant, so that the queued ones are delivered first.
            let lasts =
                Duration::from_millis(*self.random.pick(&[50, 400, 1_500, 4_000, 9_000])) + Duration::from_nanos(1);
            self.stopped.insert(number, Stopped { until: self.time() + lasts, waiting: 0 });
            seeds::trace(|| format!("{:?} node {number} is stopped for {lasts:?}", self.time()));
        }
        let pause = Duration::from_millis(self.random.between(500, 10_000));
        self.queue.after(pause, Event::Stop);
    }

    pub fn is_stopped(&self, number: usize) -> bool {
        self.stopped.get(&number).is_some_and(|stopped| stopped.until > self.time())
    }

    /// Returns the event if it can happen now. An event of a suspended node is queued in order until the node resumes;
    /// datagrams only while the socket's buffer has room.
    pub fn held_back(&mut self, event: Event) -> Option<Event> {
        let Some(number) = event.node() else { return Some(event) };
        let now = self.queue.now();
        let Some(stopped) = self.stopped.get_mut(&number) else { return Some(event) };
        if stopped.until <= now {
            self.stopped.remove(&number);
            return Some(event);
        }
        if let Event::Arrives { data, .. } = &event {
            stopped.waiting += data.len();
            if stopped.waiting > SOCKET_BYTES {
                self.tally.count(Fault::SocketFull);
                return None;
            }
        }
        self.queue.schedule(stopped.until, event);
        None
    }

    /// Cuts a link that is up, or restores it, and schedules the reverse.
    pub fn flap(&mut self, one: usize, other: usize, left: u64) {
        if left == 0 || self.healing {
            return;
        }
        self.tally.count(Fault::Flapped);
        for (from, to) in [(one, other), (other, one)] {
            self.net.cut(from, to, left.is_multiple_of(2));
        }
        let pause = Duration::from_millis(self.random.between(100, 900));
        self.queue.after(pause, Event::Flap { one, other, left: left - 1 });
    }
}

//! The thread that keeps the stream to the node: registers, sends heartbeats, receives, and reconnects when the stream is lost.

use std::time::{Duration, Instant};

use super::backoff::Backoff;
use super::clock;
use super::shared::{Inner, Shared};
use crate::agent::{ConfigUpdate, Goodbye, Heartbeat, NodeMessage, Registered, State, agent_message, node_message};
use crate::duplex::{self, Downlink};
use crate::{CallError, Code, Error};

/// Time that the node has to answer a registration.
const PATIENCE: Duration = Duration::from_secs(10);
/// Lower bound on the heartbeat interval, whichever interval the node requests.
const LEAST_BEAT: Duration = Duration::from_millis(50);
/// Lower bound on the time an unanswered heartbeat is tolerated, however short the interval: the node may just be slow.
const BEAT_PATIENCE: Duration = Duration::from_secs(5);

/// Keeps the agent connected until it leaves.
pub(super) fn run(shared: &Shared) {
    let mut backoff = Backoff::default();
    loop {
        let ended = attend(shared, &mut backoff);
        let mut inner = shared.lock();
        (inner.uplink, inner.terms) = (None, None);
        inner.jobs.handle_link_lost();
        shared.notify_workers();
        if let Err(error) = &ended {
            inner.trouble = Some(error.to_string());
            if let Some(refused) = error.call().filter(|error| error.code == Code::InvalidArgument) {
                inner.take_back(&refused.message);
            }
            if error.call().is_some_and(|error| error.code == Code::Aborted) {
                // Another process has taken the id. Two processes that claim the same id must not evict each other twice a
                // second.
                backoff.slow_down();
            }
        }
        shared.notify();
        let again = clock::now() + backoff.pause();
        while !inner.leaving && clock::now() < again {
            inner = shared.wait(inner, again.saturating_duration_since(clock::now()));
        }
        if inner.leaving {
            inner.gone = true;
            shared.notify();
            return;
        }
    }
}

/// Runs one stream from its opening to its end.
fn attend(shared: &Shared, backoff: &mut Backoff) -> Result<(), Error> {
    let register = shared.lock().register();
    let (uplink, downlink) = duplex::open(&shared.target, &shared.token, agent_message::Body::Register(register))?;
    let mut inner = shared.lock();
    inner.uplink = Some(uplink);
    if inner.leaving {
        inner.goodbye();
    }
    drop(inner);
    Attending { shared, downlink, beats: Beats::new(clock::now()) }.follow(backoff)
}

struct Attending<'a> {
    shared: &'a Shared,
    downlink: Downlink,
    beats: Beats,
}

/// The heartbeat schedule and its acknowledgements.
struct Beats {
    next: Instant,
    /// `None` until the node has answered the registration.
    interval: Option<Duration>,
    sent: u64,
    answered: u64,
    /// Start of the wait for the oldest unacknowledged heartbeat.
    waiting: Instant,
}

impl Beats {
    fn new(now: Instant) -> Beats {
        Beats { next: now + PATIENCE, interval: None, sent: 0, answered: 0, waiting: now }
    }

    fn set_interval(&mut self, now: Instant, ms: u32) {
        let interval = Duration::from_millis(ms.into()).max(LEAST_BEAT);
        (self.interval, self.next) = (Some(interval), now + interval);
    }

    fn answer(&mut self, now: Instant, number: u64) {
        if number > self.answered {
            (self.answered, self.waiting) = (number.min(self.sent), now);
        }
    }

    /// Returns the number of the heartbeat to send, or `None` if none is due; fails if the node has stopped answering.
    fn take(&mut self, now: Instant) -> Result<Option<u64>, Error> {
        if now < self.next {
            return Ok(None);
        }
        let silent =
            |what: &str| Error::Closed(CallError::new(Code::Unavailable, format!("the node did not answer {what}")));
        let Some(interval) = self.interval else { return Err(silent("the registration")) };
        if self.sent == self.answered {
            self.waiting = now;
        } else if now.saturating_duration_since(self.waiting) > interval.max(BEAT_PATIENCE) {
            return Err(silent("a heartbeat"));
        }
        self.next = now + interval;
        self.sent += 1;
        Ok(Some(self.sent))
    }
}

impl Attending<'_> {
    fn follow(mut self, backoff: &mut Backoff) -> Result<(), Error> {
        loop {
            let wait = self.beats.next.saturating_duration_since(clock::now());
            match self.downlink.next(wait) {
                Ok(Some(message)) => self.handle(message, backoff),
                Ok(None) => {}
                Err(_) if self.shared.lock().leaving => return Ok(()),
                Err(error) => return Err(error),
            }
            if let Some(number) = self.beats.take(clock::now())? {
                let mut inner = self.shared.lock();
                inner.offer();
                inner.send(agent_message::Body::Heartbeat(Heartbeat { number, state: None }));
                inner.jobs.handle_timeout(clock::now());
                inner.tell();
                drop(inner);
                self.shared.notify_workers();
            }
            if let (Some(items), Some(uplink)) = (self.downlink.spent(), &mut self.shared.lock().uplink) {
                uplink.grant(items)?;
            }
        }
    }

    fn handle(&mut self, message: NodeMessage, backoff: &mut Backoff) {
        let now = clock::now();
        let mut inner = self.shared.lock();
        // Messages unknown to this version decode to `None` and are ignored.
        match message.body {
            Some(node_message::Body::Registered(registered)) => {
                backoff.reset();
                self.beats.set_interval(now, registered.heartbeat_interval_ms);
                inner.registered(registered);
            }
            Some(node_message::Body::ConfigUpdate(update)) => {
                self.beats.set_interval(now, update.heartbeat_interval_ms);
                inner.reconfigured(update);
            }
            Some(node_message::Body::HeartbeatAck(ack)) => {
                if ack.number == self.beats.sent && ack.number > 0 {
                    inner.agree();
                }
                self.beats.answer(now, ack.number);
            }
            Some(node_message::Body::CommandPush(push)) => {
                inner.jobs.handle_push(now, push);
                self.shared.hand_out(&mut inner, now);
            }
            Some(node_message::Body::CancelPush(push)) => {
                let cancelled = inner.jobs.handle_cancel(&push.command_id);
                inner.recorded(cancelled);
            }
            Some(node_message::Body::UpdateAck(ack)) => {
                let settled = inner.jobs.handle_ack(now, &ack);
                inner.recorded(settled);
            }
            None => {}
        }
        inner.tell();
        drop(inner);
        self.shared.notify();
    }
}

impl Inner {
    /// Records the node's answer. After the first one, sends the state that was reported before the agent was registered.
    fn registered(&mut self, registered: Registered) {
        let first = self.terms.replace(registered).is_none();
        self.agree();
        self.trouble = None;
        if first && let Some(state) = self.state.clone() {
            self.beat_with(state);
        }
    }

    fn reconfigured(&mut self, update: ConfigUpdate) {
        if let Some(terms) = &mut self.terms {
            terms.heartbeat_interval_ms = update.heartbeat_interval_ms;
            terms.stale_after_ms = update.stale_after_ms;
            terms.dead_after_ms = update.dead_after_ms;
            terms.events_url = update.events_url;
        }
    }

    /// Sends a heartbeat with `state` now. It carries number 0, so no acknowledgement is awaited; only the regular heartbeats
    /// have one.
    pub(super) fn beat_with(&mut self, state: State) {
        if self.terms.is_some() {
            self.send(agent_message::Body::Heartbeat(Heartbeat { number: 0, state: Some(state) }));
        }
    }

    pub(super) fn goodbye(&mut self) {
        self.send(agent_message::Body::Goodbye(Goodbye { reason: "the agent was closed".into() }));
        if let Some(uplink) = &self.uplink {
            uplink.finish();
        }
    }
}

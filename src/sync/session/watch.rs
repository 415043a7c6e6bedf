//! Detection of stalls: answers of the peer that do not come.
//!
//! Owns the last progress of each wait. The protocol leaves no lane stalled (see [`outbox`](crate::sync::outbox)); a defective
//! peer may, and a peer with a full disk does while it is full.

use std::fmt;
use std::time::{Duration, Instant};

use super::Session;
use crate::clock::Now;
use crate::sync::inbox::Inbox;
use crate::sync::link::Lane;
use crate::sync::outbox::Outbox;

/// Time without progress after which a wait is reported: the larger of a duration and a number of round trips.
const REPORTED: (Duration, u32) = (Duration::from_secs(60), 40);
/// Time without progress after which the link is closed, to start over with a new one. A path of 1 kB/s takes that long to
/// carry what QUIC has buffered.
const GIVEN_UP: (Duration, u32) = (Duration::from_secs(600), 400);

/// Answers that a session can wait for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Awaited {
    /// Acknowledgement of the batches sent on a lane.
    Acknowledgement(Lane),
    /// Answer to an offered document.
    Answer,
    /// Document that was requested.
    Document,
}

impl Awaited {
    const ALL: [Awaited; 6] = [
        Awaited::Acknowledgement(Lane::Command),
        Awaited::Acknowledgement(Lane::Merged),
        Awaited::Acknowledgement(Lane::Latest),
        Awaited::Acknowledgement(Lane::Bulk),
        Awaited::Answer,
        Awaited::Document,
    ];
}

impl fmt::Display for Awaited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Awaited::Acknowledgement(lane) => write!(f, "the acknowledgement of batches on the {lane} lane"),
            Awaited::Answer => write!(f, "the answer to a document offered on the merged lane"),
            Awaited::Document => write!(f, "a document that was asked for, on the merged lane"),
        }
    }
}

/// Wait that has made no progress for some time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Stall {
    pub(crate) awaited: Awaited,
    pub(crate) lasts: Duration,
    /// True if it has lasted so long that the link should be closed.
    pub(crate) is_final: bool,
}

impl fmt::Display for Stall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "nothing moves: {} has not come for {} s", self.awaited, self.lasts.as_secs())
    }
}

/// Progress of the waits; see the module documentation.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Mark of each wait, indexed like [`Awaited::ALL`], and the time of its last change.
    waits: [Option<(u64, Instant)>; Awaited::ALL.len()],
    /// Stall that was reported.
    told: Option<Awaited>,
}

impl Session {
    /// Updates the mark of each wait.
    pub(super) fn look(&mut self, now: Now) {
        self.expects_since = self.expects_answer().then(|| self.expects_since.unwrap_or(now.mono));
        for (at, awaited) in Awaited::ALL.into_iter().enumerate() {
            let mark = self.mark(awaited);
            let wait = &mut self.watch.waits[at];
            if wait.map(|(mark, _)| mark) != mark {
                *wait = mark.map(|mark| (mark, now.mono));
                self.watch.told = self.watch.told.filter(|told| *told != awaited);
            }
        }
    }

    /// Returns a number that changes when a wait makes progress; `None` if there is nothing to wait for.
    fn mark(&self, awaited: Awaited) -> Option<u64> {
        match awaited {
            Awaited::Acknowledgement(lane) => {
                let unacked = self.outbox.as_ref()?.unacked(lane)?;
                Some(unacked.wrapping_add(self.lanes[lane].sent))
            }
            Awaited::Answer => self.outbox.as_ref().and_then(Outbox::unanswered),
            Awaited::Document => self.inbox.as_ref().and_then(Inbox::unanswered),
        }
    }

    fn longest_wait(&self) -> Option<(Awaited, Instant)> {
        let waits = Awaited::ALL.into_iter().zip(self.watch.waits);
        waits.filter_map(|(awaited, wait)| Some((awaited, wait?.1))).min_by_key(|(_, since)| *since)
    }

    /// Returns the longest wait, once it is long enough to be reported on a link with this round-trip time.
    pub(crate) fn stall(&self, now: Now, rtt: Duration) -> Option<Stall> {
        let (awaited, since) = self.longest_wait()?;
        let lasts = now.mono.saturating_duration_since(since);
        let reached = |(time, round_trips): (Duration, u32)| lasts >= time.max(rtt * round_trips);
        reached(REPORTED).then(|| Stall { awaited, lasts, is_final: reached(GIVEN_UP) })
    }

    /// Returns the stall, if it is not reported yet or has become final.
    pub(crate) fn take_stall(&mut self, now: Now, rtt: Duration) -> Option<Stall> {
        let stall = self.stall(now, rtt);
        let told = std::mem::replace(&mut self.watch.told, stall.map(|stall| stall.awaited));
        stall.filter(|stall| told.is_none() || stall.is_final)
    }

    /// Returns the reported stall that still lasts.
    pub(crate) fn stalled(&self) -> Option<Awaited> {
        self.watch.told
    }

    /// Returns the time at which a stall is to be reported or becomes final.
    pub(crate) fn stall_deadline(&self, rtt: Duration) -> Option<Instant> {
        let (_, since) = self.longest_wait()?;
        let (time, round_trips) = if self.watch.told.is_some() { GIVEN_UP } else { REPORTED };
        Some(since + time.max(rtt * round_trips))
    }
}

//! Pacing of links at a rate that the operator has configured.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerFactory, CubicConfig};

use crate::identity::EndpointId;

/// Longest lateness of a sender that is made up for.
const LATE: Duration = Duration::from_millis(4);
/// Size of the IPv6 and UDP headers, in bytes; IPv4's are 20 bytes shorter.
const HEADERS_BYTES: u64 = 48;
/// Bytes in flight that are always allowed, so that a handshake and the first round trip do not wait.
const FLOOR_BYTES: u64 = 10 * 1_200;

/// Rates of links, in bytes per second.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LinkRates {
    /// Rate of every link without one in `peers`.
    pub all: Option<u64>,
    /// Rates of links with these peers.
    pub peers: BTreeMap<EndpointId, u64>,
}

impl LinkRates {
    /// Returns the rate of links with a peer; `None` if it is unlimited.
    #[must_use]
    pub fn of(&self, peer: &EndpointId) -> Option<u64> {
        self.peers.get(peer).copied().or(self.all)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_none() && self.peers.is_empty()
    }
}

/// Rate of a link, shared with its congestion controller. Without a rate the default controller applies.
#[derive(Clone, Debug, Default)]
pub(super) struct Rate(Arc<AtomicU64>);

impl Rate {
    pub(super) fn set(&self, rate: Option<u64>) {
        self.0.store(rate.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn get(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|rate| *rate > 0)
    }
}

/// Token bucket, represented by the time at which everything sent so far has left a link of the given rate.
#[derive(Debug, Default)]
pub(super) struct Pace {
    free_at: Option<Instant>,
}

impl Pace {
    /// Returns the time at which the next datagram may leave; `None` if it may leave now.
    pub(super) fn wait(&self, now: Instant) -> Option<Instant> {
        self.free_at.filter(|at| *at > now)
    }

    /// Accounts for a datagram that leaves.
    pub(super) fn sent(&mut self, now: Instant, rate: u64, bytes: usize) {
        // A sender that wakes late makes up for at most `LATE`; longer idleness earns nothing.
        let begun = self.free_at.map_or(now, |at| at.max(now.checked_sub(LATE).unwrap_or(now)));
        self.free_at = Some(begun + Duration::from_nanos((bytes as u64 + HEADERS_BYTES) * 1_000_000_000 / rate));
    }
}

/// Returns the bandwidth-delay product: the bytes in flight on a link of this rate during one round trip.
pub(super) fn product_bytes(rate: u64, rtt: Duration) -> u64 {
    u64::try_from(u128::from(rate) * rtt.as_micros() / 1_000_000).unwrap_or(u64::MAX)
}

/// Factory of the congestion controllers of one link.
#[derive(Debug)]
pub(super) struct Steady(pub(super) Rate);

impl ControllerFactory for Steady {
    fn build(self: Arc<Self>, now: Instant, mtu: u16) -> Box<dyn Controller> {
        let usual = Arc::new(CubicConfig::default()).build(now, mtu);
        Box::new(Window { rate: self.0.clone(), rtt: Duration::ZERO, usual })
    }
}

/// Congestion controller of a link. With a configured rate, the window is the bandwidth-delay product of two round trips,
/// regardless of losses: [`Pace`] keeps the rate, so losses are random (radio) and no sign of congestion. A loss-based window
/// would settle at about five datagrams with 5 % loss and leave half of the link idle. Two round trips, because a loss is
/// detected only after more than one. Without a rate, the default controller applies.
struct Window {
    rate: Rate,
    rtt: Duration,
    usual: Box<dyn Controller>,
}

impl Controller for Window {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.usual.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.rtt = rtt.get();
        self.usual.on_ack(now, sent, bytes, app_limited, rtt);
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest_acked: Option<u64>) {
        self.usual.on_end_acks(now, in_flight, app_limited, largest_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent_congestion: bool, lost_bytes: u64) {
        self.usual.on_congestion_event(now, sent, is_persistent_congestion, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.usual.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        match self.rate.get() {
            Some(rate) => FLOOR_BYTES + product_bytes(rate, 2 * self.rtt),
            None => self.usual.window(),
        }
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Window { rate: self.rate.clone(), rtt: self.rtt, usual: self.usual.clone_box() })
    }

    fn initial_window(&self) -> u64 {
        self.usual.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn start() -> Instant {
        Instant::now()
    }

    #[test]
    fn datagrams_leave_no_faster_than_the_rate() {
        let (start, mut now, mut pace, mut bytes) = (start(), start(), Pace::default(), 0);
        while bytes < 100_000 {
            match pace.wait(now) {
                Some(at) => now = at,
                None => {
                    pace.sent(now, 8_000, 1_200);
                    bytes += 1_200 + HEADERS_BYTES;
                }
            }
        }
        let seconds = (now - start).as_secs_f64();
        assert!((12.2..12.6).contains(&seconds), "{seconds} s for {bytes} bytes at 8,000 a second");
    }

    #[test]
    fn who_was_idle_has_saved_nothing_up() {
        let (start, mut pace) = (start(), Pace::default());
        pace.sent(start, 8_000, 1_200);
        let later = start + Duration::from_secs(60);
        assert_eq!(pace.wait(later), None);
        pace.sent(later, 8_000, 1_200);
        assert!(pace.wait(later + Duration::from_millis(150)).is_some());
    }

    #[test]
    fn losses_do_not_shrink_the_window_of_a_link_with_a_rate() {
        let (now, rate) = (start(), Rate::default());
        let mut window = Arc::new(Steady(rate.clone())).build(now, 1_200);
        let usual = window.window();
        rate.set(Some(1_000_000));
        assert_eq!(window.window(), FLOOR_BYTES);
        for _ in 0..20 {
            window.on_congestion_event(now, now, true, 1_200);
        }
        assert_eq!(window.window(), FLOOR_BYTES);
        rate.set(None);
        assert!(window.window() < usual);
    }
}

//! One link: a QUIC connection, its lanes, and the events reported to the caller.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use quinn_proto::{Connection, ConnectionError, ConnectionHandle, Event, StreamEvent, TransportErrorCode, VarInt};

use crate::identity::EndpointId;
use crate::limits::{ADMISSION, FIRST_ANSWER};
use crate::sync::link::candidates::Route;
use crate::sync::link::config::SEND_WINDOW_BYTES;
use crate::sync::link::lanes::{Activity, Broken, LaneSet, Lanes};
use crate::sync::link::pace::{Pace, Rate, product_bytes};
use crate::sync::link::path::PathState;
use crate::sync::link::{CloseCode, DownReason, Lane, LinkEvent, LinkId, tls};

/// Maximum number of bytes kept of a peer's close reason.
const REASON_BYTES: usize = 256;

/// Bytes handed to QUIC on a link with a rate, in addition to those in flight.
const SEND_AHEAD_BYTES: u64 = 8 << 10;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Phase {
    /// From the first datagram to [`LinkEvent::Up`].
    Opening,
    /// The caller may read and write.
    Up,
    /// The last event was reported, or the caller has closed the link; QUIC completes the close.
    Closing,
}

/// Target of a dialled link.
#[derive(Debug)]
pub(super) struct Dial {
    pub(super) peer: EndpointId,
    pub(super) route: Route,
    /// First datagram, to be sent to candidates that are added later.
    pub(super) first: Vec<u8>,
}

pub(super) struct Link {
    pub(super) id: LinkId,
    pub(super) handle: ConnectionHandle,
    pub(super) conn: Connection,
    pub(super) rate: Rate,
    pub(super) pace: Pace,
    pub(super) phase: Phase,
    pub(super) dial: Option<Dial>,
    pub(super) since: Instant,
    /// Time and source of the last datagram.
    pub(super) heard: Option<(Instant, SocketAddr)>,
    pub(super) pinged: Option<Instant>,
    pub(super) sent_bytes: u64,
    pub(super) received_bytes: u64,
    /// Address found to belong to another node, and that node.
    pub(super) misled: Option<(SocketAddr, EndpointId)>,
    /// Time before which the rate lets no datagram leave.
    held_until: Option<Instant>,
    /// Its entry in the table of deadlines.
    pub(super) deadline: Option<Instant>,
    /// True if it is in the queue of links that may have a datagram to send.
    pub(super) queued: bool,
    /// Path state.
    pub(super) way: PathState,
    lanes: Lanes,
    /// Endpoint id of the key that the peer has shown.
    pub(super) peer: Option<EndpointId>,
    /// Lanes with a readable event that is queued or held back.
    readable: LaneSet,
    /// Lanes with a writable event that is queued or held back.
    writable: LaneSet,
}

impl Link {
    pub(super) fn new(
        id: LinkId,
        (handle, conn, rate): (ConnectionHandle, Connection, Rate),
        dial: Option<Dial>,
        since: Instant,
    ) -> Link {
        Link {
            rate,
            pace: Pace::default(),
            id,
            handle,
            conn,
            phase: Phase::Opening,
            dial,
            since,
            heard: None,
            pinged: None,
            sent_bytes: 0,
            received_bytes: 0,
            misled: None,
            held_until: None,
            deadline: None,
            queued: false,
            way: PathState::default(),
            lanes: Lanes::default(),
            peer: None,
            readable: LaneSet::default(),
            writable: LaneSet::default(),
        }
    }

    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let opening = (self.phase == Phase::Opening).then(|| self.since + self.patience());
        // The last datagrams of a closing link do not wait for its rate.
        let held = self.held_until.filter(|_| self.phase != Phase::Closing);
        opening.into_iter().chain(self.conn.poll_timeout()).chain(held).chain(self.way_deadline()).min()
    }

    fn patience(&self) -> Duration {
        if self.dial.is_some() && self.heard.is_none() { FIRST_ANSWER } else { ADMISSION }
    }

    /// Returns true if no datagram may leave yet; the deadline then wakes the link.
    pub(super) fn holds(&mut self, now: Instant) -> bool {
        self.held_until = self.rate.get().and_then(|_| self.pace.wait(now));
        self.held_until.is_some()
    }

    /// Accounts for a datagram that leaves.
    pub(super) fn sent(&mut self, now: Instant, bytes: usize) {
        self.sent_bytes += bytes as u64;
        if let Some(rate) = self.rate.get() {
            self.pace.sent(now, rate, bytes);
            // Hands QUIC no more than the link carries in about a second, or in one and a half round trips: bytes handed over
            // can be neither coalesced with newer ones nor overtaken by more urgent ones.
            let window = SEND_AHEAD_BYTES + product_bytes(rate, self.conn.rtt() * 3 / 2);
            self.conn.set_send_window(window.min(SEND_WINDOW_BYTES));
        }
    }

    /// Returns the endpoint id of the key that the peer has shown.
    pub(super) fn peer(&self) -> Option<EndpointId> {
        self.peer
    }

    /// Returns true if the link should have been up by now.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        self.phase == Phase::Opening && now >= self.since + self.patience()
    }

    pub(super) fn remote(&self) -> Option<SocketAddr> {
        match &self.dial {
            Some(dial) => dial.route.address(),
            None => Some(self.conn.remote_address()),
        }
    }

    pub(super) fn on_event(&mut self, now: Instant, event: Event, events: &mut VecDeque<LinkEvent>) {
        match event {
            Event::Connected => self.on_connected(now, events),
            Event::ConnectionLost { reason } => {
                let reason = self.down_reason(&reason);
                self.down(reason, events);
            }
            Event::Stream(event) if self.phase != Phase::Closing => self.on_stream(now, event, events),
            _ => {}
        }
    }

    fn on_connected(&mut self, now: Instant, events: &mut VecDeque<LinkEvent>) {
        let Some(found) = tls::peer_id(self.conn.crypto_session()) else {
            return self.break_off(now, "no key was shown".to_string(), events);
        };
        self.peer = Some(found);
        let Some(dial) = &mut self.dial else { return self.try_up(events) };
        if let Some((_, from)) = self.heard {
            dial.route.settle(from);
            self.way.settle(now, from);
        }
        if dial.peer != found {
            return self.wrong_peer(now, found, events);
        }
        match self.lanes.open_control(&mut self.conn) {
            Ok(()) => self.try_up(events),
            Err(broken) => self.break_off(now, broken.to_string(), events),
        }
    }

    fn wrong_peer(&mut self, now: Instant, found: EndpointId, events: &mut VecDeque<LinkEvent>) {
        let (Some(dial), Some(at)) = (&self.dial, self.remote()) else { return };
        let reason = DownReason::WrongPeer { expected: dial.peer, found, at };
        self.misled = Some((at, found));
        self.close(now, CloseCode::WrongPeer, "another node was dialled");
        self.down(reason, events);
    }

    fn on_stream(&mut self, now: Instant, event: StreamEvent, events: &mut VecDeque<LinkEvent>) {
        match self.lanes.on_event(&mut self.conn, event) {
            Ok(activity) => self.signal(&activity, events),
            Err(broken) => self.break_off(now, broken.to_string(), events),
        }
        self.try_up(events);
    }

    fn signal(&mut self, activity: &Activity, events: &mut VecDeque<LinkEvent>) {
        let (link, up) = (self.id, self.phase == Phase::Up);
        for lane in activity.readable.iter() {
            if self.readable.insert(lane) && up {
                events.push_back(LinkEvent::Readable { link, lane });
            }
        }
        for lane in activity.writable.iter() {
            if self.writable.insert(lane) && up {
                events.push_back(LinkEvent::Writable { link, lane });
            }
        }
    }

    /// Reports the link as up once the peer is known and the control lane exists, and then the events held back until that
    /// point.
    fn try_up(&mut self, events: &mut VecDeque<LinkEvent>) {
        let Some(peer) = self.peer.filter(|_| self.phase == Phase::Opening && self.lanes.has_control()) else { return };
        self.phase = Phase::Up;
        let link = self.id;
        events.push_back(LinkEvent::Up { link, peer, dialled: self.dial.is_some() });
        events.extend(self.readable.iter().map(|lane| LinkEvent::Readable { link, lane }));
        events.extend(self.writable.iter().map(|lane| LinkEvent::Writable { link, lane }));
    }

    /// Records that an event of this link was delivered to the caller.
    pub(super) fn delivered(&mut self, event: &LinkEvent) {
        match event {
            LinkEvent::Readable { lane, .. } => self.readable.remove(*lane),
            LinkEvent::Writable { lane, .. } => self.writable.remove(*lane),
            LinkEvent::Up { .. } | LinkEvent::Down { .. } => {}
        }
    }

    pub(super) fn write(&mut self, lane: Lane, bytes: &[u8]) -> usize {
        if self.phase == Phase::Up { self.lanes.write(&mut self.conn, lane, bytes) } else { 0 }
    }

    pub(super) fn read(&mut self, lane: Lane, into: &mut Vec<u8>, max: usize) -> Result<bool, Broken> {
        if self.phase == Phase::Up { self.lanes.read(&mut self.conn, lane, into, max) } else { Ok(false) }
    }

    /// Closes the link because the peer broke the protocol.
    pub(super) fn break_off(&mut self, now: Instant, what: String, events: &mut VecDeque<LinkEvent>) {
        self.close(now, CloseCode::Protocol, &what);
        self.down(DownReason::Misbehaved(what), events);
    }

    pub(super) fn close(&mut self, now: Instant, code: CloseCode, reason: &str) {
        self.conn.close(now, VarInt::from_u32(code as u32), Bytes::copy_from_slice(reason.as_bytes()));
    }

    /// Reports the end of the link, if the caller knows of it.
    pub(super) fn down(&mut self, reason: DownReason, events: &mut VecDeque<LinkEvent>) {
        let known = self.phase == Phase::Up || self.dial.is_some();
        if self.phase != Phase::Closing && known {
            events.push_back(LinkEvent::Down { link: self.id, reason });
        }
        self.phase = Phase::Closing;
    }

    fn down_reason(&self, error: &ConnectionError) -> DownReason {
        match error {
            ConnectionError::TimedOut if self.phase == Phase::Opening => DownReason::NoAnswer,
            ConnectionError::TimedOut => DownReason::Silent,
            ConnectionError::Reset => DownReason::Reset,
            ConnectionError::VersionMismatch => DownReason::Incompatible("it speaks another version of QUIC".into()),
            ConnectionError::ApplicationClosed(close) => {
                DownReason::Closed { code: close.error_code.into_inner(), reason: sentence(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) => match close.error_code {
                TransportErrorCode::CONNECTION_REFUSED | TransportErrorCode::APPLICATION_ERROR => DownReason::Refused,
                code => incompatible(code, &close.reason),
            },
            ConnectionError::TransportError(error) if self.phase == Phase::Opening => {
                incompatible(error.code, error.to_string().as_bytes())
            }
            other => DownReason::Misbehaved(sentence(other.to_string().as_bytes())),
        }
    }
}

/// Returns the reason of a failed handshake. TLS has an alert for the absence of a common application protocol (RFC 7301,
/// section 3.2).
fn incompatible(code: TransportErrorCode, reason: &[u8]) -> DownReason {
    const NO_APPLICATION_PROTOCOL: u8 = 120;
    if code == TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL) {
        let ours = String::from_utf8_lossy(tls::ALPN);
        return DownReason::Incompatible(format!(
            "this node speaks {ours} and the peer does not; update the older of the two"
        ));
    }
    DownReason::Incompatible(format!("{code}: {}", sentence(reason)))
}

/// Sanitizes a peer's text for the log: bounded, without control characters.
fn sentence(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(REASON_BYTES)]);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_of_another_protocol_is_named_with_what_to_do() {
        let why = incompatible(TransportErrorCode::crypto(120), b"").to_string();
        assert!(why.contains("this node speaks peat/2") && why.contains("update the older"), "{why}");
    }
}

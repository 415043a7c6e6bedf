//! Path probes: tests whether a path to the peer works, with messages beside QUIC that only the two ends of a link can produce.
//!
//! Must never answer a message that does not verify, nor with more bytes than it received.
//!
//! # The problem
//!
//! While a link uses a relay, its direct paths have to be tested without moving the connection to them: QUIC tests only the
//! path in use (PATH_CHALLENGE belongs to a migration that has begun). A small ping would not do either: a path may carry it
//! and still drop datagrams of full size, and a path that answers once may be about to fail again, at the edge of radio range
//! for example. A link that follows every single answer oscillates.
//!
//! # The messages
//!
//! Each has a kind, the subject, a number and a tag, and is padded with zeros (`docs/wire.md`). Both ends derive 40 bytes from
//! the TLS exporter: 8 are the subject, sent in the clear, by which the receiver finds the link; 32 are the key of the tag. The
//! tag covers the role of the sender, so a message cannot be reflected, and a key per connection prevents use on another link.
//! Their first byte is below 0x40, unlike any QUIC packet's, so that both share a socket.
//!
//! * A *probe* has `PROBE_BYTES` bytes, QUIC's own minimum datagram size, so that a path that carries it carries QUIC. The
//!   answer has the same length, which tests the other direction and amplifies nothing.
//! * *Deaf* is sent by an acceptor that receives nothing; it carries only the fields and the tag.
//!
//! # The algorithm
//!
//! `Prober` is the schedule of one link, active while a relay is in use:
//!
//! 1. The first round is due `FIRST` after the relay was taken; the delay doubles after each round, up to `LAST`. Each round
//!    has a new number, which goes to all direct addresses of the peer.
//! 2. The first answer to the current round is remembered with its source, and one more round is scheduled after `CONFIRM`.
//! 3. An answer to that round from the same source confirms the path, and the dialler takes it. If none comes before the next
//!    round, the first answer is forgotten.
//!
//! Answers to earlier rounds are ignored, and so is a *deaf* with a number not above the last one accepted: a delayed or
//! replayed message moves nothing.
//!
//! # Bounds
//!
//! Probing costs one datagram of 1,200 bytes per address and round: with eight addresses, at most 9.6 kB every 15 s in the long
//! run. The state is one address, one number for each direction and one timer.
//!
//! # Tests
//!
//! Below, the tags; `sync/tests/relay.rs`, the schedule over a simulated network.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ring::hmac;

/// Size of a probe and its answer, in bytes: a path that drops these drops QUIC's datagrams too (RFC 9000 section 14).
pub(super) const PROBE_BYTES: usize = 1_200;
/// Size of the fields, in bytes: kind, subject and number. The tag follows, then zeros.
const FIELDS: usize = 17;
const MESSAGE_BYTES: usize = FIELDS + 16;
/// Size of the secret from the TLS exporter, in bytes: the subject (8) and the key of the tags (32).
pub const SECRET_BYTES: usize = 40;
pub(super) const EXPORT_LABEL: &[u8] = b"EXPORTER-peat-path-v1";

/// Delay before the first probe after switching to a relay; doubles after each round.
const FIRST: Duration = Duration::from_secs(1);
/// Longest delay between two rounds of probes.
const LAST: Duration = Duration::from_secs(15);
/// Delay between a first answer and the probe that confirms it.
const CONFIRM: Duration = Duration::from_millis(100);

/// Meaning of a path message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProbeKind {
    /// Asks whether the peer receives this.
    Probe = 2,
    /// Answers a probe.
    Answer = 3,
    /// Reports that the sender receives nothing; the receiver should take the path by which this came.
    Deaf = 4,
}

/// Message about paths.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message {
    /// Meaning of the message.
    pub kind: ProbeKind,
    /// Counter of the sender; an answer repeats the number of its probe.
    pub number: u64,
}

/// Returns the subject of a datagram, if it has the form of a path message.
pub(super) fn subject(datagram: &[u8]) -> Option<[u8; 8]> {
    let (kind, rest) = datagram.split_first()?;
    (2..=4).contains(kind).then(|| rest.first_chunk().copied())?
}

/// Secret shared by the two ends of one link.
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// Wraps the bytes of the TLS exporter: 8 that messages carry in the clear, then the key of their tags.
    #[must_use]
    pub fn new(exported: [u8; SECRET_BYTES]) -> Secret {
        Secret(exported)
    }

    /// Returns the part of the secret that messages carry in the clear.
    pub(super) fn subject(&self) -> [u8; 8] {
        *self.0.first_chunk().expect("it is longer")
    }

    fn tagged(&self, by_dialler: bool, fields: &[u8]) -> hmac::Context {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0[8..]);
        let mut context = hmac::Context::with_key(&key);
        context.update(&[u8::from(by_dialler)]);
        context.update(fields);
        context
    }

    /// Returns the bytes of a message, padded with zeros up to `length`.
    #[must_use]
    pub fn write(&self, by_dialler: bool, message: Message, length: usize) -> Vec<u8> {
        let mut bytes = [&[message.kind as u8][..], &self.subject(), &message.number.to_be_bytes()].concat();
        bytes.extend_from_slice(&self.tagged(by_dialler, &bytes).sign().as_ref()[..MESSAGE_BYTES - FIELDS]);
        bytes.resize(length.max(MESSAGE_BYTES), 0);
        bytes
    }

    /// Returns the message in a datagram, if its tag verifies as one of the other end.
    #[must_use]
    pub fn read(&self, by_dialler: bool, datagram: &[u8]) -> Option<Message> {
        let (fields, rest) = datagram.split_at_checked(FIELDS)?;
        let expected = self.tagged(by_dialler, fields).sign();
        // Compares in constant time.
        let differs = |tag: &[u8]| tag.iter().zip(expected.as_ref()).fold(0, |differs, (a, b)| differs | (a ^ b)) != 0;
        if differs(rest.get(..MESSAGE_BYTES - FIELDS)?) {
            return None;
        }
        let kind =
            [ProbeKind::Probe, ProbeKind::Answer, ProbeKind::Deaf].into_iter().find(|kind| *kind as u8 == fields[0])?;
        Some(Message { kind, number: u64::from_be_bytes(*fields.last_chunk()?) })
    }
}

/// Schedule of probes, and the answers so far.
#[derive(Debug, Default)]
pub(super) struct Prober {
    number: u64,
    next: Option<Instant>,
    wait: Duration,
    /// Source and number of the first answer, which the answer to a later probe has to confirm.
    answered: Option<(SocketAddr, u64)>,
    confirming: bool,
    /// Highest number of the peer's messages accepted so far.
    heard: u64,
}

impl Prober {
    /// Starts probing: the link uses a relay from now on.
    pub(super) fn start(&mut self, now: Instant) {
        self.wait = FIRST;
        self.answered = None;
        self.next = Some(now + FIRST);
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.next
    }

    /// Returns the number of the round that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        self.next.filter(|at| *at <= now)?;
        if !std::mem::take(&mut self.confirming) {
            self.answered = None;
        }
        self.wait = (self.wait * 2).min(LAST);
        self.next = Some(now + self.wait);
        Some(self.number())
    }

    /// Returns the number of the next message.
    pub(super) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// Handles an answer from an address; returns true if it confirms that path.
    pub(super) fn on_answer(&mut self, now: Instant, number: u64, from: SocketAddr) -> bool {
        if self.next.is_none() || number != self.number {
            return false;
        }
        let Some((source, first)) = self.answered else {
            self.answered = Some((from, number));
            self.confirming = true;
            self.wait = FIRST;
            self.next = Some(now + CONFIRM);
            return false;
        };
        // A copy of the first answer confirms nothing.
        source == from && number != first
    }

    /// Returns true if a message of the peer is newer than all accepted before.
    pub(super) fn is_news(&mut self, number: u64) -> bool {
        let news = number > self.heard;
        self.heard = self.heard.max(number);
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a starting point for virtual time")]
    fn a_path_is_confirmed_by_the_answer_to_a_second_probe_and_not_by_a_copy_of_the_first() {
        let (start, from) = (Instant::now(), SocketAddr::from(([10, 0, 0, 1], 4242)));
        let mut prober = Prober::default();
        prober.start(start);
        let first = prober.poll(start + FIRST).expect("a probe is due");
        assert!(!prober.on_answer(start + FIRST, first, from));
        assert!(!prober.on_answer(start + FIRST, first, from), "a copy");
        let second = prober.poll(start + FIRST + CONFIRM).expect("the confirming probe is due");
        assert!(!prober.on_answer(start + FIRST + CONFIRM, second, SocketAddr::from(([10, 0, 0, 2], 4242))));
        assert!(prober.on_answer(start + FIRST + CONFIRM, second, from));
    }

    #[test]
    fn a_message_about_ways_is_believed_of_the_other_end_only() {
        let (ours, other) = (Secret::new([1; SECRET_BYTES]), Secret::new([2; SECRET_BYTES]));
        let message = Message { kind: ProbeKind::Deaf, number: 7 };
        let bytes = ours.write(true, message, 0);
        assert_eq!(bytes.len(), MESSAGE_BYTES);
        assert_eq!(subject(&bytes), Some(ours.subject()));
        assert_eq!(ours.read(true, &bytes), Some(message));
        assert_eq!(ours.read(false, &bytes), None, "reflected");
        assert_eq!(other.read(true, &bytes), None, "of another link");
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.read(true, &wrong), None, "bit {bit}");
        }
        assert!((0..MESSAGE_BYTES).all(|length| ours.read(true, &bytes[..length]).is_none()));
    }
}

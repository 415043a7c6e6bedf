//! Does a way to the peer work? Asked and told beside QUIC, under a key only the two ends of a link know.
//!
//! QUIC knows of one path, the one in use. Before another is taken, a probe as long as QUIC's datagrams goes there and its
//! answer comes back; and the end that was dialled, which cannot change the way, tells the dialler when it hears nothing.
//! Must never answer what does not verify, nor with more than it was sent.

use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ring::hmac;

/// Bytes of a probe and its answer: what cannot pass these cannot pass QUIC's datagrams.
pub(super) const PROBE_BYTES: usize = 1_200;
/// What tells in it; the rest is zeros.
const FIELDS: usize = 17;
const MESSAGE_BYTES: usize = FIELDS + 16;
/// What a link's probes are known and proved by, from the TLS exporter.
pub const SECRET_BYTES: usize = 40;
pub(super) const EXPORT_LABEL: &[u8] = b"EXPORTER-peat-path-v1";

/// First probe after a relay was taken; while nothing answers the next comes after twice as long, up to
const FIRST: Duration = Duration::from_secs(1);
const LAST: Duration = Duration::from_secs(15);
/// An answer is confirmed by another one, asked for so much later.
const CONFIRM: Duration = Duration::from_millis(100);

/// What a message says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Do you hear me?
    Probe = 2,
    /// I do.
    Answer = 3,
    /// I do not hear you; take the way this came by.
    Deaf = 4,
}

/// A message about ways.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Message {
    /// What it says.
    pub kind: Kind,
    /// The sender counts up; an answer has the number of what it answers.
    pub number: u64,
}

/// The link a datagram says it is about, if it looks like such a message at all.
pub(super) fn subject(datagram: &[u8]) -> Option<[u8; 8]> {
    let (kind, rest) = datagram.split_first()?;
    (2..=4).contains(kind).then(|| rest.first_chunk().copied())?
}

/// What the two ends of one link know.
pub struct Secret([u8; SECRET_BYTES]);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

impl Secret {
    /// From the TLS exporter: 8 bytes its messages carry in the clear, and the key of their tags.
    #[must_use]
    pub fn new(exported: [u8; SECRET_BYTES]) -> Secret {
        Secret(exported)
    }

    /// What its messages carry in the clear.
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

    /// The bytes of a message, zeros behind it up to `length`.
    #[must_use]
    pub fn write(&self, by_dialler: bool, message: Message, length: usize) -> Vec<u8> {
        let mut bytes = [&[message.kind as u8][..], &self.subject(), &message.number.to_be_bytes()].concat();
        bytes.extend_from_slice(&self.tagged(by_dialler, &bytes).sign().as_ref()[..MESSAGE_BYTES - FIELDS]);
        bytes.resize(length.max(MESSAGE_BYTES), 0);
        bytes
    }

    /// The message of the other end, if it is one.
    #[must_use]
    pub fn read(&self, by_dialler: bool, datagram: &[u8]) -> Option<Message> {
        let (fields, rest) = datagram.split_at_checked(FIELDS)?;
        let expected = self.tagged(by_dialler, fields).sign();
        let differs = |tag: &[u8]| tag.iter().zip(expected.as_ref()).fold(0, |differs, (a, b)| differs | (a ^ b)) != 0;
        if differs(rest.get(..MESSAGE_BYTES - FIELDS)?) {
            return None;
        }
        let kind = [Kind::Probe, Kind::Answer, Kind::Deaf].into_iter().find(|kind| *kind as u8 == fields[0])?;
        Some(Message { kind, number: u64::from_be_bytes(*fields.last_chunk()?) })
    }
}

/// When to probe, and what the answers so far say.
#[derive(Debug, Default)]
pub(super) struct Prober {
    number: u64,
    next: Option<Instant>,
    wait: Duration,
    /// Where the answer came from that the next one is to confirm.
    answered: Option<SocketAddr>,
    confirming: bool,
    /// Of the last message of the peer that was heeded.
    heard: u64,
}

impl Prober {
    /// A relay is in use from now on.
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

    /// The number of the probes that are due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<u64> {
        self.next.filter(|at| *at <= now)?;
        if !std::mem::take(&mut self.confirming) {
            self.answered = None;
        }
        self.wait = (self.wait * 2).min(LAST);
        self.next = Some(now + self.wait);
        Some(self.number())
    }

    /// The number of the next message.
    pub(super) fn number(&mut self) -> u64 {
        self.number += 1;
        self.number
    }

    /// An answer came from there; whether that is enough to take that way.
    pub(super) fn on_answer(&mut self, now: Instant, number: u64, from: SocketAddr) -> bool {
        if self.next.is_none() || number != self.number {
            return false;
        }
        if self.answered.is_none() {
            self.answered = Some(from);
            self.confirming = true;
            self.wait = FIRST;
            self.next = Some(now + CONFIRM);
            return false;
        }
        self.answered == Some(from)
    }

    /// Whether a message of the peer is newer than those that were heeded.
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
    fn a_message_about_ways_is_believed_of_the_other_end_only() {
        let (ours, other) = (Secret::new([1; SECRET_BYTES]), Secret::new([2; SECRET_BYTES]));
        let message = Message { kind: Kind::Deaf, number: 7 };
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

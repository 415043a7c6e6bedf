//! What travels between a node and a relay, byte by byte (docs/wire.md), and the key both know.
//!
//! The first byte of everything is below 0x40, which no QUIC packet's is, so that a node's one socket serves both.

use std::fmt;

use ring::hmac;

use crate::identity::{EndpointId, Identity};
use crate::sync::proof::FormationKey;

/// A datagram to forward, or one that was forwarded.
pub const DATA: u8 = 0x01;
const REQUEST: u8 = 0x10;
const COOKIE: u8 = 0x11;
const ALLOCATED: u8 = 0x12;
const REFUSED: u8 = 0x13;

/// Bytes in front of each forwarded datagram.
pub const HEADER_BYTES: usize = 8;
/// Bytes of a request; every answer is shorter.
pub const REQUEST_BYTES: usize = 137;
const TAG_BYTES: usize = 16;
const SIGNED_LABEL: &[u8] = b"peat-relay-v1";

const _: () = assert!(1 + 8 + 16 + 32 + 64 + TAG_BYTES == REQUEST_BYTES);

/// Proves that its holder may use a relay.
#[derive(Clone)]
pub struct RelayKey(hmac::Key);

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayKey(***)")
    }
}

impl RelayKey {
    /// The key of those who know the formation's key, or a relay's own.
    #[must_use]
    pub fn new(shared: &FormationKey) -> RelayKey {
        RelayKey(hmac::Key::new(hmac::HMAC_SHA256, &shared.derive(SIGNED_LABEL)))
    }

    fn tag(&self, parts: [&[u8]; 2]) -> [u8; TAG_BYTES] {
        let mut context = hmac::Context::with_key(&self.0);
        parts.into_iter().for_each(|part| context.update(part));
        context.sign().as_ref()[..TAG_BYTES].try_into().expect("SHA-256 is longer")
    }

    fn verifies(&self, parts: [&[u8]; 2], tag: &[u8]) -> bool {
        same(&self.tag(parts), tag)
    }
}

/// Compares without telling by the time it takes where two texts differ.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// What a relay knows a node by in the header of forwarded datagrams: the beginning of its id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub [u8; 5]);

impl Handle {
    /// The handle of a node.
    #[must_use]
    pub fn of(id: &EndpointId) -> Handle {
        let [a, b, c, d, e, ..] = id.0;
        Handle([a, b, c, d, e])
    }
}

/// In front of a forwarded datagram: the allocation's token, and the other node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Of the allocation of the node that sends to the relay, or receives from it. Keeps whoever only guesses addresses out.
    pub token: [u8; 2],
    /// To whom, on the way to the relay; from whom, on the way from it.
    pub node: Handle,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let ([t, u], [a, b, c, d, e]) = (self.token, self.node.0);
        [DATA, t, u, a, b, c, d, e]
    }

    /// Splits a forwarded datagram.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<(Header, &[u8])> {
        let ([DATA, t, u, a, b, c, d, e], payload) = datagram.split_first_chunk()? else { return None };
        Some((Header { token: [*t, *u], node: Handle([*a, *b, *c, *d, *e]) }, payload))
    }
}

/// What a node asks a relay for. All zeros for a cookie: to be given one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Comes back in the answer.
    pub nonce: [u8; 8],
    /// Proves that the node receives at the address it sends from.
    pub cookie: [u8; 16],
    /// Who asks.
    pub id: EndpointId,
    /// That it is who it says, for this cookie.
    pub signature: [u8; 64],
}

fn signed(cookie: &[u8; 16]) -> [u8; 29] {
    let mut text = [0; 29];
    text[..SIGNED_LABEL.len()].copy_from_slice(SIGNED_LABEL);
    text[SIGNED_LABEL.len()..].copy_from_slice(cookie);
    text
}

impl Request {
    /// Signed by `identity`.
    #[must_use]
    pub fn new(identity: &Identity, nonce: [u8; 8], cookie: [u8; 16]) -> Request {
        Request { nonce, cookie, id: identity.id(), signature: identity.sign(&signed(&cookie)) }
    }

    /// Whether the node it names has signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.id.verify(&signed(&self.cookie), &self.signature)
    }

    /// Its bytes, for those who know `key`.
    #[must_use]
    pub fn to_bytes(&self, key: &RelayKey) -> Vec<u8> {
        let mut bytes = [&[REQUEST][..], &self.nonce, &self.cookie, &self.id.0, &self.signature].concat();
        bytes.extend_from_slice(&key.tag([&bytes, &[]]));
        bytes
    }

    /// Reads a request of somebody who knows `key`.
    #[must_use]
    pub fn parse(datagram: &[u8], key: &RelayKey) -> Option<Request> {
        if datagram.len() != REQUEST_BYTES || datagram[0] != REQUEST {
            return None;
        }
        let (fields, tag) = datagram.split_at(REQUEST_BYTES - TAG_BYTES);
        if !key.verifies([fields, &[]], tag) {
            return None;
        }
        let (nonce, rest) = fields[1..].split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (id, signature) = rest.split_first_chunk()?;
        let id = EndpointId(*id);
        Some(Request { nonce: *nonce, cookie: *cookie, id, signature: signature.try_into().ok()? })
    }
}

/// Why a relay gives no place.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// It has as many allocations as it may.
    Full = 1,
    /// Another node's id begins with the same bytes.
    Taken = 2,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Full => write!(f, "it has as many nodes as it takes"),
            Refusal::Taken => write!(f, "another node's id begins with the same bytes; make a new identity"),
        }
    }
}

/// What a relay answers. Only those who know the key are answered at all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Ask again with this.
    Cookie([u8; 16]),
    /// Datagrams are forwarded, until so many seconds from now.
    Allocated { token: [u8; 2], seconds: u16 },
    /// They are not.
    Refused(Refusal),
}

impl Answer {
    /// Its bytes, as the answer to `request`.
    #[must_use]
    pub fn to_bytes(&self, request: &Request, key: &RelayKey) -> Vec<u8> {
        let mut bytes = match self {
            Answer::Cookie(cookie) => [&[COOKIE][..], &request.nonce, cookie].concat(),
            Answer::Allocated { token, seconds } => {
                [&[ALLOCATED][..], &request.nonce, token, &seconds.to_be_bytes()].concat()
            }
            Answer::Refused(why) => [&[REFUSED][..], &request.nonce, &[*why as u8]].concat(),
        };
        bytes.extend_from_slice(&key.tag([&bytes, &request.id.0]));
        bytes
    }

    /// Reads the answer of somebody who knows `key` to what `id` asked, and the nonce it asked with.
    #[must_use]
    pub fn parse(datagram: &[u8], id: &EndpointId, key: &RelayKey) -> Option<([u8; 8], Answer)> {
        let (fields, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG_BYTES)?)?;
        let (kind, rest) = fields.split_first()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let answer = match (*kind, rest) {
            (COOKIE, cookie) => Answer::Cookie(cookie.try_into().ok()?),
            (ALLOCATED, [t, u, high, low]) => {
                Answer::Allocated { token: [*t, *u], seconds: u16::from_be_bytes([*high, *low]) }
            }
            (REFUSED, [1]) => Answer::Refused(Refusal::Full),
            (REFUSED, [2]) => Answer::Refused(Refusal::Taken),
            _ => return None,
        };
        key.verifies([fields, &id.0], tag).then_some((*nonce, answer))
    }
}

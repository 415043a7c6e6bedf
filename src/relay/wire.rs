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

/// Bytes of a [`Handle`]: making an identity whose id begins like another one takes about 2^80 attempts.
pub const HANDLE_BYTES: usize = 10;
/// Bytes of a [`Token`].
pub const TOKEN_BYTES: usize = 5;
/// Bytes in front of each forwarded datagram.
pub const HEADER_BYTES: usize = 1 + TOKEN_BYTES + HANDLE_BYTES;
/// Bytes of a request; every answer is shorter.
pub const REQUEST_BYTES: usize = 1 + SIGNED_BYTES + 8 + 32 + 64 + TAG_BYTES;
/// Bytes of a request that its signature covers: relay, cookie and token.
const SIGNED_BYTES: usize = 16 + 16 + TOKEN_BYTES;
const TAG_BYTES: usize = 16;
const KEY_LABEL: &[u8] = b"peat-relay-v1";
const SIGNED_LABEL: &[u8] = b"peat-relay-v2";

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
        RelayKey(hmac::Key::new(hmac::HMAC_SHA256, &shared.derive(KEY_LABEL)))
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

/// A start of a relay: random, so that a request signed for one relay is of no use at another.
pub type RelayId = [u8; 16];

/// Names an allocation in the datagrams of its holder, and proves to the relay that a holder which moves is the same one.
pub type Token = [u8; TOKEN_BYTES];

/// Names a node in the header of forwarded datagrams: the first bytes of its endpoint id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub [u8; HANDLE_BYTES]);

impl Handle {
    /// The handle of a node.
    #[must_use]
    pub fn of(id: &EndpointId) -> Handle {
        let mut handle = [0; HANDLE_BYTES];
        handle.copy_from_slice(&id.0[..HANDLE_BYTES]);
        Handle(handle)
    }
}

/// In front of a forwarded datagram: the allocation's token, and the other node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Of the allocation of the node that sends to the relay, or receives from it.
    pub token: Token,
    /// The receiver on the way to the relay, the sender on the way from it.
    pub node: Handle,
}

impl Header {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [DATA; HEADER_BYTES];
        bytes[1..=TOKEN_BYTES].copy_from_slice(&self.token);
        bytes[1 + TOKEN_BYTES..].copy_from_slice(&self.node.0);
        bytes
    }

    /// Splits a forwarded datagram.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<(Header, &[u8])> {
        let (first, rest) = datagram.split_first()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (node, payload) = rest.split_first_chunk()?;
        (*first == DATA).then_some((Header { token: *token, node: Handle(*node) }, payload))
    }
}

/// The signed part of a request. All zeros in the first request to a relay, which asks for its id and a cookie.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Claim {
    /// The relay, as its last answer named it.
    pub relay: RelayId,
    /// Proves that the node receives at the address it sends from.
    pub cookie: [u8; 16],
    /// Of the allocation that the node held last; zeros without one.
    pub token: Token,
}

impl Claim {
    fn to_bytes(self) -> [u8; SIGNED_BYTES] {
        let mut bytes = [0; SIGNED_BYTES];
        bytes[..16].copy_from_slice(&self.relay);
        bytes[16..32].copy_from_slice(&self.cookie);
        bytes[32..].copy_from_slice(&self.token);
        bytes
    }

    fn signed(self) -> Vec<u8> {
        [SIGNED_LABEL, &self.to_bytes()].concat()
    }
}

/// Asks a relay for an allocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Request {
    /// Comes back in the answer.
    pub nonce: [u8; 8],
    /// The relay it is meant for, and the proofs that relay gave.
    pub claim: Claim,
    /// The node that asks.
    pub id: EndpointId,
    /// By the node, over the claim.
    pub signature: [u8; 64],
}

impl Request {
    /// Signed by `identity`.
    #[must_use]
    pub fn new(identity: &Identity, nonce: [u8; 8], claim: Claim) -> Request {
        Request { nonce, claim, id: identity.id(), signature: identity.sign(&claim.signed()) }
    }

    /// True if the node it names has signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.id.verify(&self.claim.signed(), &self.signature)
    }

    /// Its bytes, for a relay with this key.
    #[must_use]
    pub fn to_bytes(&self, key: &RelayKey) -> Vec<u8> {
        let mut bytes = [&[REQUEST][..], &self.nonce, &self.claim.to_bytes(), &self.id.0, &self.signature].concat();
        bytes.extend_from_slice(&key.tag([&bytes, &[]]));
        bytes
    }

    /// Reads a request of a holder of `key`.
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
        let (relay, rest) = rest.split_first_chunk()?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (id, signature) = rest.split_first_chunk()?;
        let claim = Claim { relay: *relay, cookie: *cookie, token: *token };
        Some(Request { nonce: *nonce, claim, id: EndpointId(*id), signature: signature.try_into().ok()? })
    }
}

/// The reason why a relay grants no allocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Every allocation is taken, and no network holds more of them than the network of this request.
    Full = 1,
    /// Another node's id begins with the same bytes.
    Taken = 2,
    /// The node has an allocation at another address, and did not name its token.
    Elsewhere = 3,
    /// The address or its network has as many allocations as one may have.
    Share = 4,
}

impl Refusal {
    const ALL: [Refusal; 4] = [Refusal::Full, Refusal::Taken, Refusal::Elsewhere, Refusal::Share];
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Full => "it serves as many nodes as it can",
            Refusal::Taken => "another node's id begins with the same bytes; make a new identity",
            Refusal::Elsewhere => {
                "it serves this node's id at another address; it gives that up 40 s after the last request from there"
            }
            Refusal::Share => "it serves as many nodes of this address or network as it takes from one",
        })
    }
}

/// The answer of a relay. Only holders of the key are answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// Ask again with these.
    Cookie { relay: RelayId, cookie: [u8; 16] },
    /// Datagrams are forwarded for this many seconds from now.
    Allocated { token: Token, seconds: u16 },
    /// They are not.
    Refused(Refusal),
}

impl Answer {
    /// Its bytes, as the answer to `request`.
    #[must_use]
    pub fn to_bytes(&self, request: &Request, key: &RelayKey) -> Vec<u8> {
        let mut bytes = match self {
            Answer::Cookie { relay, cookie } => [&[COOKIE][..], &request.nonce, relay, cookie].concat(),
            Answer::Allocated { token, seconds } => {
                [&[ALLOCATED][..], &request.nonce, token, &seconds.to_be_bytes()].concat()
            }
            Answer::Refused(reason) => [&[REFUSED][..], &request.nonce, &[*reason as u8]].concat(),
        };
        bytes.extend_from_slice(&key.tag([&bytes, &request.id.0]));
        bytes
    }

    /// Reads the answer of a holder of `key` to a request of `id`: the request's nonce, and the answer.
    #[must_use]
    pub fn parse(datagram: &[u8], id: &EndpointId, key: &RelayKey) -> Option<([u8; 8], Answer)> {
        let (fields, tag) = datagram.split_at_checked(datagram.len().checked_sub(TAG_BYTES)?)?;
        let (kind, rest) = fields.split_first()?;
        let (nonce, rest) = rest.split_first_chunk()?;
        let answer = Answer::parse_fields(*kind, rest)?;
        key.verifies([fields, &id.0], tag).then_some((*nonce, answer))
    }

    fn parse_fields(kind: u8, fields: &[u8]) -> Option<Answer> {
        let refusal = |number: u8| Refusal::ALL.into_iter().find(|reason| *reason as u8 == number);
        Some(match (kind, fields) {
            (COOKIE, both) => {
                let (relay, cookie) = both.split_first_chunk()?;
                Answer::Cookie { relay: *relay, cookie: cookie.try_into().ok()? }
            }
            (ALLOCATED, both) => {
                let (token, seconds) = both.split_first_chunk()?;
                Answer::Allocated { token: *token, seconds: u16::from_be_bytes(seconds.try_into().ok()?) }
            }
            (REFUSED, [number]) => Answer::Refused(refusal(*number)?),
            _ => return None,
        })
    }
}

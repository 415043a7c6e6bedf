//! Format of the datagrams between a node and a relay (docs/wire.md), and the key that both know.
//!
//! The first byte of each is below 0x40, unlike any QUIC packet's, so that a node needs one socket only.

use std::fmt;

use ring::hmac;

use crate::identity::{EndpointId, Identity};
use crate::sync::proof::FormationKey;

/// First byte of a datagram to forward, or of a forwarded one.
pub const DATA: u8 = 0x01;
const REQUEST: u8 = 0x10;
const COOKIE: u8 = 0x11;
const ALLOCATED: u8 = 0x12;
const REFUSED: u8 = 0x13;

/// Size of a [`Handle`], in bytes: to create an identity with the handle of another one takes about 2^80 attempts.
pub const HANDLE_BYTES: usize = 10;
/// Size of a [`Token`], in bytes.
pub const TOKEN_BYTES: usize = 5;
/// Size of the header of each forwarded datagram, in bytes.
pub const HEADER_BYTES: usize = 1 + TOKEN_BYTES + HANDLE_BYTES;
/// Size of a request, in bytes; every answer is shorter.
pub const REQUEST_BYTES: usize = 1 + SIGNED_BYTES + 8 + 32 + 64 + TAG_BYTES;
/// Size of the signed fields of a request, in bytes: relay, cookie and token.
const SIGNED_BYTES: usize = 16 + 16 + TOKEN_BYTES;
const TAG_BYTES: usize = 16;
const KEY_LABEL: &[u8] = b"peat-relay-v1";
const SIGNED_LABEL: &[u8] = b"peat-relay-v2";

/// Key that proves the permission to use a relay.
#[derive(Clone)]
pub struct RelayKey(hmac::Key);

impl fmt::Debug for RelayKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RelayKey(***)")
    }
}

impl RelayKey {
    /// Derives the key from the formation key, or from a key for this relay alone.
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

/// Compares two byte strings in constant time.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    one.len() == other.len() && one.iter().zip(other).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
}

/// Identity of one start of a relay: random, so that a request signed for one relay is useless at another.
pub type RelayId = [u8; 16];

/// Name of an allocation in its holder's datagrams; also proves that a holder with a new address is the same node.
pub type Token = [u8; TOKEN_BYTES];

/// Name of a node in the header of forwarded datagrams: the first bytes of its endpoint id.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Handle(pub [u8; HANDLE_BYTES]);

impl Handle {
    /// Returns the handle of a node.
    #[must_use]
    pub fn of(id: &EndpointId) -> Handle {
        let mut handle = [0; HANDLE_BYTES];
        handle.copy_from_slice(&id.0[..HANDLE_BYTES]);
        Handle(handle)
    }
}

/// Header of a forwarded datagram: the allocation's token, and the other node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Token of the allocation of the node at this end: the sender towards the relay, the receiver from it.
    pub token: Token,
    /// The receiver towards the relay, the sender from it.
    pub node: Handle,
}

impl Header {
    /// Returns its bytes.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let mut bytes = [DATA; HEADER_BYTES];
        bytes[1..=TOKEN_BYTES].copy_from_slice(&self.token);
        bytes[1 + TOKEN_BYTES..].copy_from_slice(&self.node.0);
        bytes
    }

    /// Splits a forwarded datagram into header and payload.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<(Header, &[u8])> {
        let (first, rest) = datagram.split_first()?;
        let (token, rest) = rest.split_first_chunk()?;
        let (node, payload) = rest.split_first_chunk()?;
        (*first == DATA).then_some((Header { token: *token, node: Handle(*node) }, payload))
    }
}

/// Signed part of a request. All zeros in the first request to a relay, which obtains its id and a cookie.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct AllocationClaim {
    /// The relay's id, from its last answer.
    pub relay: RelayId,
    /// Cookie, which proves that the node receives at its source address.
    pub cookie: [u8; 16],
    /// Token of the node's last allocation; zeros without one.
    pub token: Token,
}

impl AllocationClaim {
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

/// Request for an allocation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AllocationRequest {
    /// Nonce, which the answer repeats.
    pub nonce: [u8; 8],
    /// The relay addressed, and the proofs it gave.
    pub claim: AllocationClaim,
    /// The requesting node.
    pub id: EndpointId,
    /// The node's signature over the claim.
    pub signature: [u8; 64],
}

impl AllocationRequest {
    /// Creates a request signed by `identity`.
    #[must_use]
    pub fn new(identity: &Identity, nonce: [u8; 8], claim: AllocationClaim) -> AllocationRequest {
        AllocationRequest { nonce, claim, id: identity.id(), signature: identity.sign(&claim.signed()) }
    }

    /// Returns true if the node it names has signed it.
    #[must_use]
    pub fn is_signed(&self) -> bool {
        self.id.verify(&self.claim.signed(), &self.signature)
    }

    /// Returns its bytes, for a relay with this key.
    #[must_use]
    pub fn to_bytes(&self, key: &RelayKey) -> Vec<u8> {
        let mut bytes = [&[REQUEST][..], &self.nonce, &self.claim.to_bytes(), &self.id.0, &self.signature].concat();
        bytes.extend_from_slice(&key.tag([&bytes, &[]]));
        bytes
    }

    /// Parses a request from a holder of `key`.
    #[must_use]
    pub fn parse(datagram: &[u8], key: &RelayKey) -> Option<AllocationRequest> {
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
        let claim = AllocationClaim { relay: *relay, cookie: *cookie, token: *token };
        Some(AllocationRequest { nonce: *nonce, claim, id: EndpointId(*id), signature: signature.try_into().ok()? })
    }
}

/// Reason for which a relay grants no allocation.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// Every allocation is taken, and no network holds more of them than the network of this request.
    Full = 1,
    /// The id of another node begins with the same bytes.
    Taken = 2,
    /// The node has an allocation at another address, and did not present its token.
    Elsewhere = 3,
    /// The address or its network holds its maximum number of allocations.
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

/// Answer of a relay. Only holders of the key are answered.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// The request is to be repeated with these.
    Cookie { relay: RelayId, cookie: [u8; 16] },
    /// Datagrams are forwarded for this many seconds from now.
    Allocated { token: Token, seconds: u16 },
    /// No allocation is granted.
    Refused(Refusal),
}

impl Answer {
    /// Returns its bytes, as the answer to `request`.
    #[must_use]
    pub fn to_bytes(&self, request: &AllocationRequest, key: &RelayKey) -> Vec<u8> {
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

    /// Parses the answer of a holder of `key` to a request of `id`; returns the request's nonce and the answer.
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

//! Random bytes and connection ids: everything unpredictable in QUIC, derived from one seed so that a simulation is
//! reproducible.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};
use ring::hmac;
use rustls::crypto::{GetRandomFailed, SecureRandom};

use crate::sync::link::LinkId;

/// Length of the connection ids this node issues, in bytes: a nonce and a tag, half of it each.
pub(super) const CID_BYTES: usize = 8;
/// Maximum number of ids remembered per link. QUIC keeps at most 8 in use; older ones are retired.
const CIDS_PER_LINK: usize = 32;

/// Random generator: HMAC-SHA-256 in counter mode over a seed.
pub(super) struct Generator {
    key: hmac::Key,
    blocks: AtomicU64,
}

impl Generator {
    pub(super) fn new(seed: &[u8; 32]) -> Generator {
        Generator { key: hmac::Key::new(hmac::HMAC_SHA256, seed), blocks: AtomicU64::new(0) }
    }

    pub(super) fn bytes(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(32) {
            let block = self.blocks.fetch_add(1, Ordering::Relaxed);
            let tag = hmac::sign(&self.key, &block.to_le_bytes());
            chunk.copy_from_slice(&tag.as_ref()[..chunk.len()]);
        }
    }

    pub(super) fn array<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.bytes(&mut bytes);
        bytes
    }
}

impl fmt::Debug for Generator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Generator(***)")
    }
}

impl SecureRandom for Generator {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        self.bytes(bytes);
        Ok(())
    }
}

/// Connection ids this node has issued, with the link of each.
///
/// An id carries a tag under a key that outlives restarts. A node that has just started thus recognises the ids of its former
/// run, sends their peers a stateless reset, and does not answer datagrams that merely resemble QUIC.
#[derive(Debug)]
pub(super) struct Cids {
    tags: hmac::Key,
    random: &'static Generator,
    /// Shared with quinn-proto's generator in the same thread: never contended.
    issued: Mutex<Issued>,
}

#[derive(Debug, Default)]
struct Issued {
    /// Link for which ids are issued now.
    owner: Option<LinkId>,
    links: BTreeMap<[u8; CID_BYTES], LinkId>,
    ids: BTreeMap<LinkId, VecDeque<[u8; CID_BYTES]>>,
}

impl Cids {
    pub(super) fn new(tag_key: &[u8; 32], random: &'static Generator) -> Arc<Cids> {
        let tags = hmac::Key::new(hmac::HMAC_SHA256, tag_key);
        Arc::new(Cids { tags, random, issued: Mutex::default() })
    }

    /// Issues the next ids for this link, or for none.
    pub(super) fn issue_for(&self, owner: Option<LinkId>) {
        self.issued().owner = owner;
    }

    /// Returns the link an id was issued for.
    pub(super) fn link(&self, id: &[u8]) -> Option<LinkId> {
        self.issued().links.get(id).copied()
    }

    /// Returns true if an id was issued by this node, in this run or another.
    pub(super) fn is_ours(&self, id: &[u8]) -> bool {
        id.len() == CID_BYTES && self.tag(&id[..CID_BYTES / 2]) == id[CID_BYTES / 2..]
    }

    pub(super) fn forget(&self, link: LinkId) {
        let mut issued = self.issued();
        for id in issued.ids.remove(&link).unwrap_or_default() {
            issued.links.remove(&id);
        }
    }

    fn tag(&self, nonce: &[u8]) -> [u8; CID_BYTES / 2] {
        let tag = hmac::sign(&self.tags, nonce);
        tag.as_ref()[..CID_BYTES / 2].try_into().expect("SHA-256 is longer")
    }

    fn issue(&self) -> [u8; CID_BYTES] {
        let nonce: [u8; CID_BYTES / 2] = self.random.array();
        let mut id = [0; CID_BYTES];
        id[..CID_BYTES / 2].copy_from_slice(&nonce);
        id[CID_BYTES / 2..].copy_from_slice(&self.tag(&nonce));
        self.issued().remember(id);
        id
    }

    fn issued(&self) -> MutexGuard<'_, Issued> {
        self.issued.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Issued {
    fn remember(&mut self, id: [u8; CID_BYTES]) {
        let Some(owner) = self.owner else { return };
        self.links.insert(id, owner);
        let ids = self.ids.entry(owner).or_default();
        ids.push_back(id);
        if ids.len() > CIDS_PER_LINK
            && let Some(oldest) = ids.pop_front()
        {
            self.links.remove(&oldest);
        }
    }
}

/// Generator through which quinn-proto requests ids.
#[derive(Debug)]
pub(super) struct CidGenerator(pub(super) Arc<Cids>);

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&self.0.issue())
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        if self.0.is_ours(id) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

/// Returns the destination connection id of a datagram as `(long header, id)`, without validating the rest.
pub(super) fn destination_cid(datagram: &[u8]) -> Option<(bool, &[u8])> {
    let (first, rest) = datagram.split_first()?;
    if first & 0x80 == 0 {
        return rest.get(..CID_BYTES).map(|id| (false, id));
    }
    let length = usize::from(*rest.get(4)?);
    rest.get(5..5 + length).map(|id| (true, id))
}

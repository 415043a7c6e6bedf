//! Kinds, stamps and version hashes: the identity and the order of versions.

use std::ops::{Index, IndexMut};

/// Kind of a record, which decides how its versions combine. The order is that in which peers are served.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum Kind {
    /// A signed immutable body, and statuses that only advance.
    Command = 3,
    /// An Automerge document.
    Merged = 1,
    /// A register for the whole document; the highest [`Stamp`] wins.
    Latest = 2,
}

impl Kind {
    /// All kinds, in the order in which peers are served.
    pub const ALL: [Kind; 3] = [Kind::Command, Kind::Merged, Kind::Latest];

    /// Returns the kind with this number in the file and wire formats.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| *kind as u8 == number)
    }
}

/// One value for each [`Kind`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct PerKind<T>([T; Kind::ALL.len()]);

impl<T> PerKind<T> {
    /// Returns the same value for every kind.
    pub fn filled(value: T) -> PerKind<T>
    where
        T: Copy,
    {
        PerKind([value; Kind::ALL.len()])
    }

    /// Applies a function to each value.
    pub fn map<U>(self, into: impl FnMut(T) -> U) -> PerKind<U> {
        PerKind(self.0.map(into))
    }

    /// Iterates over the values, in the order of [`Kind::ALL`].
    pub fn iter(&self) -> impl Iterator<Item = (Kind, &T)> {
        Kind::ALL.into_iter().zip(&self.0)
    }

    /// Iterates over mutable values as [`PerKind::iter`] does.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (Kind, &mut T)> {
        Kind::ALL.into_iter().zip(&mut self.0)
    }
}

/// Returns the position of a kind in [`Kind::ALL`].
const fn place(kind: Kind) -> usize {
    match kind {
        Kind::Command => 0,
        Kind::Merged => 1,
        Kind::Latest => 2,
    }
}

impl<T> Index<Kind> for PerKind<T> {
    type Output = T;

    fn index(&self, kind: Kind) -> &T {
        &self.0[place(kind)]
    }
}

impl<T> IndexMut<Kind> for PerKind<T> {
    fn index_mut(&mut self, kind: Kind) -> &mut T {
        &mut self.0[place(kind)]
    }
}

const _: () = {
    let mut at = 0;
    while at < Kind::ALL.len() {
        assert!(place(Kind::ALL[at]) == at);
        at += 1;
    }
};

/// Id of one start of a node: 16 random bytes, committed before any traffic.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RunId(pub [u8; 16]);

/// Endpoint id (public key) of the node that wrote a version.
pub type Origin = crate::identity::EndpointId;

/// Orders the versions of a `latest` record within one incarnation; the SHA-256 of the content breaks a remaining tie.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Stamp {
    /// One more than the highest counter that the writer had seen for this document.
    pub counter: u64,
    /// Node that wrote the version.
    pub node: Origin,
    /// Run of the writer.
    pub run: RunId,
}

/// Hash of one version of a record: equal on two nodes exactly if their records are equal. The first 6 bytes are its
/// [`VersionHash::order`], the others a digest (docs/storage.md).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VersionHash(pub [u8; 16]);

impl VersionHash {
    const ORDER_BYTES: usize = 6;
    const INCARNATIONS: u64 = (1 << 12) - 1;
    const COUNTERS: u64 = (1 << 32) - 1;

    /// Returns the hash for a version's order and a digest of its content. `kind_byte` is the kind, with 128 for a tombstone;
    /// `counter` is 0 except for registers.
    #[must_use]
    pub(super) fn new(kind_byte: u8, incarnation: u64, counter: u64, digest: &[u8]) -> VersionHash {
        let order = VersionHash::order_of(kind_byte, incarnation, counter);
        let mut hash = [0; 16];
        hash[..VersionHash::ORDER_BYTES].copy_from_slice(&order.to_be_bytes()[2..]);
        hash[VersionHash::ORDER_BYTES..].copy_from_slice(&digest[..16 - VersionHash::ORDER_BYTES]);
        VersionHash(hash)
    }

    /// Returns the order of such a version.
    pub(super) fn order_of(kind_byte: u8, incarnation: u64, counter: u64) -> u64 {
        // Higher incarnations share the highest order; after a comparison both versions are sent.
        if incarnation >= VersionHash::INCARNATIONS {
            return VersionHash::INCARNATIONS << 36;
        }
        let rank = u64::from(kind_byte >> 7) << 3 | u64::from(kind_byte & 7);
        incarnation << 36 | rank << 32 | counter.min(VersionHash::COUNTERS)
    }

    /// Returns the order of the version. After a comparison, only the version of the higher order is sent; of two equal ones
    /// both are. A receiver with a version that supersedes one of a higher order sends it back.
    #[must_use]
    pub fn order(&self) -> u64 {
        let mut bytes = [0; 8];
        bytes[2..].copy_from_slice(&self.0[..VersionHash::ORDER_BYTES]);
        u64::from_be_bytes(bytes)
    }
}

/// A version as clients see it: opaque bytes to return as `base`.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Version(pub Vec<u8>);

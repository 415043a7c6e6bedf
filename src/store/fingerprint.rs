//! A sum over records, by which two nodes detect that they hold the same set.
//!
//! Every commit updates it, so that reading it needs no scan (docs/wire.md, "Reconciliation messages").

use ring::digest::{SHA256, digest};

use crate::store::{KeyHash, VersionHash};

/// Length of a fingerprint, in bytes: enough that honest sets never collide by chance. A member that makes two of its own sets
/// collide hides them for one exchange.
pub(crate) const FINGERPRINT_BYTES: usize = 8;
/// Fingerprint of a set of records. Different sets have the same one with a probability of 2^-64.
pub(crate) type Fingerprint = [u8; FINGERPRINT_BYTES];

/// Returns the number that a record adds to the sum of a set.
#[must_use]
pub(crate) fn summand(hash: &KeyHash, version: &VersionHash) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&hash.0);
    bytes[16..].copy_from_slice(&version.0);
    u128::from_le_bytes(first_bytes(&bytes))
}

/// Returns the fingerprint of `count` records with summands that add up to `sum`, modulo 2^128.
#[must_use]
pub(crate) fn fingerprint(count: u64, sum: u128) -> Fingerprint {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    first_bytes(&bytes)
}

/// Returns the first `N` bytes of SHA-256.
fn first_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..N]);
    first
}

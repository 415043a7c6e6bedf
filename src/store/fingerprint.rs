//! A sum over records by which two nodes see whether they hold the same.
//!
//! It is kept up to date with every commit, so that nothing has to be read to know it (docs/wire.md, "Reconciliation
//! messages").

use ring::digest::{SHA256, digest};

use crate::store::{KeyHash, VersionHash};

/// Enough that honest sets never meet by chance; a member that makes two of its own meet hides them for one exchange.
pub(crate) const FINGERPRINT_BYTES: usize = 8;
/// Equal for two sets of records exactly when they are, but for a chance of 2^-64.
pub(crate) type Fingerprint = [u8; FINGERPRINT_BYTES];

/// What a record adds to the sum of a set that contains it.
#[must_use]
pub(crate) fn summand(hash: &KeyHash, version: &VersionHash) -> u128 {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&hash.0);
    bytes[16..].copy_from_slice(&version.0);
    u128::from_le_bytes(first_bytes(&bytes))
}

/// The fingerprint of `count` records whose summands are `sum` together, modulo 2^128.
#[must_use]
pub(crate) fn fingerprint(count: u64, sum: u128) -> Fingerprint {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&count.to_le_bytes());
    bytes[8..].copy_from_slice(&sum.to_le_bytes());
    first_bytes(&bytes)
}

/// The first `N` bytes of SHA-256.
fn first_bytes<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut first = [0; N];
    first.copy_from_slice(&digest(&SHA256, bytes).as_ref()[..N]);
    first
}

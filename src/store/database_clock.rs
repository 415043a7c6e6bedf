//! Age of the database: a clock local to this node that never runs fast.
//!
//! It counts while the machine is on, suspend included, and continues over restarts of the process. After a restart of the
//! machine it continues from the last value written, which loses at most [`NOTED_EVERY_MS`] and the idle time before the
//! restart. The duration without power is unknown and does not count. Data kept for a period is therefore kept for at least
//! that period.

use crate::clock::{BootId, Now};
use crate::store::codec::Bytes;

/// Interval after which a commit writes the age again, in milliseconds.
pub(super) const NOTED_EVERY_MS: u64 = 600_000;

/// This boot, and the age at its start (negative if the database is younger than the boot).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct DatabaseClock {
    pub(super) boot: BootId,
    offset_ms: i64,
}

impl DatabaseClock {
    /// Returns the clocks of a database that is opened now, after the stored note `before`.
    pub(super) fn open(before: Option<PersistedClock>, boot: BootId, now: Now) -> DatabaseClock {
        match before {
            Some(noted) if noted.boot == boot => DatabaseClock { boot, offset_ms: noted.offset_ms },
            before => {
                let age = before.map_or(0, |noted| noted.age_ms);
                DatabaseClock { boot, offset_ms: signed(age) - signed(now.boot_ms) }
            }
        }
    }

    /// Returns the age in milliseconds.
    pub(super) fn age_ms(self, now: Now) -> u64 {
        u64::try_from(signed(now.boot_ms) + self.offset_ms).unwrap_or(0)
    }

    /// Returns the boot time in milliseconds at which the database had this age.
    pub(super) fn boot_ms_of(self, age_ms: u64) -> i64 {
        signed(age_ms) - self.offset_ms
    }

    /// Returns the note to write.
    pub(super) fn note(self, now: Now) -> PersistedClock {
        PersistedClock { boot: self.boot, offset_ms: self.offset_ms, age_ms: self.age_ms(now) }
    }
}

/// Converts to a signed number, capped so that sums of a few cannot overflow.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

/// The stored age, and the boot in which it was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct PersistedClock {
    boot: BootId,
    offset_ms: i64,
    pub(super) age_ms: u64,
}

impl PersistedClock {
    pub(super) fn encode(self) -> [u8; 32] {
        let mut out = [0; 32];
        out[..16].copy_from_slice(&self.boot.0);
        out[16..24].copy_from_slice(&self.offset_ms.to_le_bytes());
        out[24..].copy_from_slice(&self.age_ms.to_le_bytes());
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<PersistedClock> {
        let mut bytes = Bytes(bytes);
        let boot = BootId(bytes.array()?);
        let offset_ms = i64::from_le_bytes(bytes.array()?);
        let age_ms = u64::from_le_bytes(bytes.array()?);
        let sane = offset_ms.unsigned_abs() < i64::MAX.unsigned_abs() / 4;
        (bytes.is_empty() && sane).then_some(PersistedClock { boot, offset_ms, age_ms })
    }
}

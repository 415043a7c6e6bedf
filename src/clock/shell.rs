//! Reads the clocks. Only shells call this; engines receive its values.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use super::{BootId, Now};
use crate::random::{Random, RandomExt};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// This moment.
#[expect(clippy::disallowed_methods, reason = "the shell is where clocks are read")]
#[must_use]
pub fn now() -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now { mono: Instant::now(), wall_ms: i64::try_from(wall.as_millis()).unwrap_or(i64::MAX), boot_ms: boot_ms() }
}

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec).unwrap_or(0), u64::try_from(time.tv_nsec).unwrap_or(0));
    seconds * 1_000 + nanos / 1_000_000
}

/// This start of the machine. Where the kernel does not say, a random one: every start of the process then counts as a
/// start of the machine, and what has a time to live is judged to have none left.
pub fn boot_id(random: &mut dyn Random) -> BootId {
    let text = std::fs::read_to_string(BOOT_ID).unwrap_or_default();
    parse(&text).unwrap_or_else(|| {
        log::warn!("{BOOT_ID} does not name this boot; commands with a time to live end with this process");
        BootId(random.array())
    })
}

/// 32 hex digits, with hyphens anywhere.
fn parse(text: &str) -> Option<BootId> {
    let digits: Vec<u8> = text.trim().bytes().filter(|byte| *byte != b'-').collect();
    let mut id = [0; 16];
    if digits.len() != 2 * id.len() {
        return None;
    }
    for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(BootId(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::System;

    #[test]
    fn a_boot_is_the_same_at_every_reading_and_its_clock_goes_on() {
        let mut random = System::default();
        assert_eq!(boot_id(&mut random), boot_id(&mut random));
        let (earlier, later) = (now(), now());
        assert!(later.boot_ms >= earlier.boot_ms && later.mono >= earlier.mono);
    }

    #[test]
    fn a_boot_id_is_thirty_two_digits() {
        assert_eq!(parse("00112233-4455-6677-8899-aabbccddeeff\n").map(|id| id.0[15]), Some(0xff));
        assert_eq!(parse("00112233-4455-6677-8899-aabbccddee"), None);
        assert_eq!(parse("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }
}

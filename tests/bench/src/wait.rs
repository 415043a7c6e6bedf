//! Waiting for conditions, with deadlines.

use std::thread::sleep;
use std::time::{Duration, Instant};

use bench_peers::Failure;

/// Time limit for a started process to answer.
const START: Duration = Duration::from_secs(20);
/// Time limit for any other condition.
const CONDITION: Duration = Duration::from_secs(120);

/// Repeats `attempt` until it succeeds.
pub(crate) fn wait_for<T>(mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, Failure> {
    let end = Instant::now() + START;
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(cause) if Instant::now() > end => return Err(cause),
            Err(_) => sleep(Duration::from_micros(500)),
        }
    }
}

/// Polls until `holds` returns true.
pub(crate) fn until(what: &str, mut holds: impl FnMut() -> Result<bool, Failure>) -> Result<(), Failure> {
    let end = Instant::now() + CONDITION;
    while !holds()? {
        if Instant::now() > end {
            return Err(format!("gave up waiting until {what}").into());
        }
        sleep(Duration::from_micros(500));
    }
    Ok(())
}

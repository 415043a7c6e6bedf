//! Work that several commands request under one key and that runs once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::clock;
use super::shared::Shared;

/// Interval at which a waiting command checks for its cancellation; any change wakes it earlier.
const LOOK: Duration = Duration::from_secs(1);

/// One run of shared work, as the work itself sees it.
#[derive(Debug, Default)]
pub struct Attempt {
    /// Cancellation flags of all commands that wait for the result.
    cancels: Mutex<Vec<Arc<AtomicBool>>>,
    outcome: OnceLock<Result<String, String>>,
}

impl Attempt {
    /// Returns true if every command that waits for the result was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let cancels = self.cancels.lock().unwrap_or_else(PoisonError::into_inner);
        cancels.iter().all(|cancel| cancel.load(Ordering::Acquire))
    }

    fn join(&self, cancel: &Arc<AtomicBool>) {
        self.cancels.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(cancel));
    }
}

/// See [`super::Work::once`].
pub(super) fn once(
    shared: &Shared,
    id: &str,
    cancel: &Arc<AtomicBool>,
    key: &str,
    work: impl FnOnce(&Attempt) -> Result<String, String>,
) -> Result<String, String> {
    let mut inner = shared.lock();
    if let Some(result) = inner.jobs.claim(id, key, clock::unix_seconds()) {
        return Ok(result);
    }
    if let Some(attempt) = inner.attempts.get(key).cloned() {
        drop(inner);
        return wait(shared, &attempt, cancel);
    }
    let attempt = Arc::new(Attempt::default());
    attempt.join(cancel);
    inner.attempts.insert(key.to_owned(), Arc::clone(&attempt));
    drop(inner);
    let result = catch_unwind(AssertUnwindSafe(|| work(&attempt))).unwrap_or_else(|_| Err("the work panicked".into()));
    finish(shared, key, &attempt, result)
}

fn wait(shared: &Shared, attempt: &Attempt, cancel: &Arc<AtomicBool>) -> Result<String, String> {
    attempt.join(cancel);
    let mut inner = shared.lock();
    loop {
        if let Some(outcome) = attempt.outcome.get() {
            return outcome.clone();
        }
        if cancel.load(Ordering::Acquire) {
            return Err("the command was cancelled".into());
        }
        inner = shared.wait(inner, LOOK);
    }
}

/// Publishes the outcome of the work. A result that the ledger could not record becomes an error: a restart would lose it and
/// the work would run again.
fn finish(shared: &Shared, key: &str, attempt: &Attempt, result: Result<String, String>) -> Result<String, String> {
    let mut inner = shared.lock();
    let result = result.and_then(|result| {
        let kept = inner.jobs.keep_result(key, &result, clock::unix_seconds());
        kept.map(|()| result).map_err(|cause| format!("the result could not be recorded: {cause}"))
    });
    inner.attempts.remove(key);
    let result = attempt.outcome.get_or_init(|| result).clone();
    drop(inner);
    shared.notify();
    result
}

//! Work that several commands want and that is done once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use super::clock;
use super::shared::Shared;

/// Between two looks at whether a waiting command was cancelled; every change wakes it earlier.
const LOOK: Duration = Duration::from_secs(1);

/// One attempt at work done once, as the work sees it.
#[derive(Debug, Default)]
pub struct Attempt {
    /// Of every command that waits for it.
    cancels: Mutex<Vec<Arc<AtomicBool>>>,
    outcome: OnceLock<Result<String, String>>,
}

impl Attempt {
    /// Whether nobody wants the result any more: every command that waits for it was cancelled.
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

/// A result that could not be written down is none: after a restart it would be forgotten, and the work done again.
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

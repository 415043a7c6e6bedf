//! Containment of panics in three libraries.
//!
//! A panic is a bug, and a process with a bug ends, so that its supervisor restarts it ([`abort_on_panic`]). Three libraries are
//! exempt:
//!
//! * redb panics on some damaged files while it opens them. The operator must get an error that names the file, not a core dump.
//! * Automerge panics on changes that are well-formed but inconsistent (an operation on an object that does not exist, a number
//!   used twice), which cannot be detected without doing all its work. Such changes must cause a rejection of the peer that sent
//!   them, and must not end this node.
//! * ureq reads the answers of a watched agent and is not designed for a malicious one. No panic of it is known, and the first
//!   must not end the node.
//!
//! Calls of Automerge and ureq, and the opening of the database, therefore go through [`contain`]. Nothing else does.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::process::abort;

use crate::stderr;

thread_local! {
    static CONTAINING: Cell<bool> = const { Cell::new(false) };
}

/// Error of work that panicked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it makes no sense where it is read")
    }
}

impl std::error::Error for Panicked {}

/// Runs `work` and catches its panic. The caller must then drop what `work` was changing, which may be half changed.
///
/// # Errors
/// [`Panicked`]; the log has the location.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CONTAINING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINING.set(outer);
    result.map_err(|_| Panicked)
}

/// Makes every panic outside of [`contain`] end the process at once, in any thread, because no other thread can take over the
/// state that it owned. Must be called before the threads start.
pub fn abort_on_panic() {
    set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    if CONTAINING.get() {
        log::warn!("contained panic: {panic}");
        return;
    }
    let words =
        format!("peat-node: {panic}\nThis is a defect of the program; please report the line above. The process ends.");
    stderr::line(&words, Some(stderr::LAST_WORDS));
    abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contained_panic_is_an_error_and_the_next_call_works() {
        assert_eq!(contain(|| panic!("on purpose")), Err::<(), _>(Panicked));
        assert_eq!(contain(|| contain(|| panic!("on purpose"))), Ok(Err::<(), _>(Panicked)));
        assert!(!CONTAINING.get());
        assert_eq!(contain(|| 7), Ok(7));
    }
}

//! Where a panic stays.
//!
//! A panic is a bug, and a process with a bug ends, so that its supervisor restarts it ([`abort_on_panic`]). Three libraries
//! are exempt. redb panics over some damaged files while it opens them: the operator must read what is wrong, not find a
//! core dump. Automerge panics on changes that are well-formed but make no sense together (an operation on an object
//! that does not exist, a number used twice), which nobody can see without doing all its work. Such changes must cost
//! the peer that sent them a refusal, not this node its life. ureq reads what a
//! watched agent answers, and is not written for one that lies; it has not been seen to panic, and must not cost the node
//! its life the day it does. So calls of Automerge and of ureq, and the opening of the database, go through [`contain`].
//! Nothing else does.

use std::cell::Cell;
use std::fmt;
use std::panic::{AssertUnwindSafe, PanicHookInfo, catch_unwind, set_hook};
use std::process::abort;

use crate::stderr;

thread_local! {
    static CONTAINING: Cell<bool> = const { Cell::new(false) };
}

/// Work that panicked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Panicked;

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it makes no sense where it is read")
    }
}

impl std::error::Error for Panicked {}

/// Does `work`, and survives its panic. What `work` was changing must be dropped then: it may be half changed.
///
/// # Errors
/// [`Panicked`]; the log says where.
pub fn contain<T>(work: impl FnOnce() -> T) -> Result<T, Panicked> {
    let outer = CONTAINING.replace(true);
    let result = catch_unwind(AssertUnwindSafe(work));
    CONTAINING.set(outer);
    result.map_err(|_| Panicked)
}

/// Makes every panic outside of [`contain`] end the process at once, whatever thread it is in: it owned something that
/// nobody can take over. Called before the threads start.
pub fn abort_on_panic() {
    set_hook(Box::new(report));
}

fn report(panic: &PanicHookInfo<'_>) {
    if CONTAINING.get() {
        log::warn!("carrying on after: {panic}");
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

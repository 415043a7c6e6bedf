//! Writes to standard error without panicking, and without waiting for its reader longer than allowed.
//!
//! `eprintln!` panics when the reader is gone, and waits for ever when it does not read; neither may decide how a process ends.
//! Nothing here takes the standard library's lock, which a blocked writer would hold.

use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::stdio::stderr;

use crate::clock::shell::now;

/// Bytes that a pipe ready for writing accepts at once: PIPE_BUF of Linux (pipe(7)).
pub(crate) const CHUNK_BYTES: usize = 4096;

/// Maximum time for which the last message of a node waits for a reader.
pub(crate) const LAST_WORDS: Duration = Duration::from_secs(1);

/// Writes a line. Text that the reader does not accept within `patience` is lost; `None` waits without limit. Without a reader
/// all of it is lost.
pub(crate) fn line(text: &str, patience: Option<Duration>) {
    write(format!("{text}\n").as_bytes(), patience);
}

/// Writes bytes in the way of [`line()`].
pub(crate) fn write(mut bytes: &[u8], patience: Option<Duration>) {
    let deadline = patience.map(|patience| now().after(patience));
    while !bytes.is_empty() {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(now().mono));
        if !is_ready(left) {
            return;
        }
        match rustix::io::write(stderr(), &bytes[..bytes.len().min(CHUNK_BYTES)]) {
            Ok(written) => bytes = &bytes[written..],
            // EAGAIN comes from a pipe that another process made non-blocking.
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => return,
        }
    }
}

/// Waits until there is room. Returns false after the timeout. An error counts as room, because the write then reports it.
fn is_ready(patience: Option<Duration>) -> bool {
    let timeout = patience.and_then(|patience| Timespec::try_from(patience).ok());
    match poll(&mut [PollFd::new(&stderr(), PollFlags::OUT)], timeout.as_ref()) {
        Ok(0) => false,
        Ok(_) | Err(Errno::INTR) => true,
        Err(_) => true,
    }
}

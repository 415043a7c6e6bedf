//! Sockets that the service manager opened and passed to this process: sd_listen_fds(3).
//!
//! The only place with `unsafe`. An inherited descriptor is a number in the environment, and the standard library
//! rightly has no safe conversion from a number to an owner. That there is no other owner can be verified here: see [`take`].

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{AddressFamily, SocketType, sockopt};

use super::Error;
use crate::api::shell::InheritedListener;

/// First inherited descriptor (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Maximum number of sockets; a larger number is a mistake.
const SOCKETS: RawFd = 16;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes ownership of the descriptors that `$LISTEN_FDS` declares. Only the first call does; a later one returns nothing. It must
/// be called before anything else opens a descriptor, because each one open from [`FIRST`] on is then inherited.
pub(super) fn take() -> Result<Vec<OwnedFd>, Error> {
    let variable = |name| std::env::var(name).ok();
    let count = count(variable("LISTEN_FDS").as_deref(), variable("LISTEN_PID").as_deref(), std::process::id())?;
    if TAKEN.swap(true, Ordering::AcqRel) {
        return Ok(Vec::new());
    }
    (FIRST..FIRST + count).map(own).collect()
}

fn own(number: RawFd) -> Result<OwnedFd, Error> {
    let wrong = |cause| Error::Machine(format!("LISTEN_FDS: descriptor {number}"), std::io::Error::from(cause));
    // SAFETY: the number is below the limit of descriptors and at least 3. Ownership is taken only after a query has shown that
    // it is open. It was passed to this very process (LISTEN_PID) to be owned; `TAKEN` prevents a second owner, and nothing in
    // this process has opened it: `take` comes first, and the standard library keeps only 0 to 2 for itself.
    #[expect(unsafe_code, reason = "there is no safe way from a number to an owner; argued above")]
    let owned = unsafe {
        let asked = rustix::fd::BorrowedFd::borrow_raw(number);
        fcntl_getfd(asked).map_err(wrong)?;
        OwnedFd::from_raw_fd(number)
    };
    fcntl_setfd(&owned, FdFlags::CLOEXEC).map_err(wrong)?;
    Ok(owned)
}

fn count(sockets: Option<&str>, process: Option<&str>, ours: u32) -> Result<RawFd, Error> {
    let Some(sockets) = sockets.filter(|text| !text.is_empty()) else { return Ok(0) };
    if process.is_none_or(|process| process.parse() != Ok(ours)) {
        return Ok(0);
    }
    match sockets.parse() {
        Ok(count @ 0..=SOCKETS) => Ok(count),
        _ => Err(Error::Place(format!("LISTEN_FDS: '{sockets}' is not a number of sockets up to {SOCKETS}"))),
    }
}

/// Checks that each descriptor is a listening unix stream socket with a path. Anything else is a mistake in a unit file.
pub(super) fn listeners(taken: Vec<OwnedFd>) -> Result<Vec<InheritedListener>, Error> {
    taken.into_iter().enumerate().map(|(index, socket)| listener(index, socket)).collect()
}

fn listener(index: usize, socket: OwnedFd) -> Result<InheritedListener, Error> {
    let wrong = || {
        let words =
            "is not a listening unix stream socket with a path; ListenStream=/run/peat-node/peat-node.sock makes one";
        Error::Place(format!("LISTEN_FDS: socket number {} {words}", index + 1))
    };
    let fits = sockopt::socket_domain(&socket) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(&socket) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(&socket) == Ok(true);
    if !fits {
        return Err(wrong());
    }
    let listener = UnixListener::from(socket);
    let path = listener.local_addr().ok().and_then(|address| address.as_pathname().map(PathBuf::from));
    Ok(InheritedListener { path: path.ok_or_else(wrong)?, listener })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixDatagram, UnixStream};

    use super::*;

    #[test]
    fn only_the_process_that_is_meant_takes_sockets() {
        assert_eq!(count(Some("1"), Some("7"), 7).expect("valid"), 1);
        assert_eq!(count(Some("1"), Some("8"), 7).expect("valid"), 0);
        assert_eq!(count(Some("1"), None, 7).expect("valid"), 0);
        assert_eq!(count(None, Some("7"), 7).expect("valid"), 0);
        for wrong in ["-1", "17", "many"] {
            count(Some(wrong), Some("7"), 7).expect_err(wrong);
        }
    }

    #[test]
    fn what_does_not_listen_at_a_path_is_refused() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("socket");
        let good = OwnedFd::from(UnixListener::bind(&path).expect("bound"));
        assert_eq!(listeners(vec![good]).expect("listens")[0].path, path);
        let (stream, _other) = UnixStream::pair().expect("a pair");
        let datagrams = UnixDatagram::unbound().expect("a socket");
        let file = std::fs::File::open("/dev/null").expect("there");
        for wrong in [OwnedFd::from(stream), OwnedFd::from(datagrams), OwnedFd::from(file)] {
            let error = listeners(vec![wrong]).expect_err("no listener");
            assert!(error.exit_code() == 78 && error.to_string().contains("ListenStream"), "{error}");
        }
    }
}

//! Credentials of the process at the other end of a unix socket, from the kernel.
//!
//! `SO_PEERGROUPS` has no safe wrapper in the crates used here, so supplementary groups come from `/proc/PID/status` of the
//! process that connected. They count only while that file shows the same effective user and group as `SO_PEERCRED`: a process id
//! reused by another user's process grants no rights. If the process id is not visible in this pid namespace (a client in another
//! container), no lookup is possible and the client gets no supplementary groups.

use std::os::fd::AsFd;

use crate::api::Caller;
use crate::api::caller::OVERFLOW_ID;

/// Maximum bytes read of a status file. Usually it has a few KiB; for a user in thousands of groups it has more.
const STATUS_BYTES: u64 = 1 << 20;

/// Returns the credentials of the process connected to a unix socket.
pub(super) fn caller(socket: impl AsFd) -> Caller {
    let Ok(peer) = rustix::net::sockopt::socket_peercred(socket) else {
        return Caller::Unix { uid: OVERFLOW_ID, gid: OVERFLOW_ID, groups: Vec::new() };
    };
    let (uid, gid) = (peer.uid.as_raw(), peer.gid.as_raw());
    let groups = status(peer.pid.as_raw_nonzero().get()).and_then(|text| groups(&text, uid, gid)).unwrap_or_default();
    Caller::Unix { uid, gid, groups }
}

fn status(pid: i32) -> Option<String> {
    use std::io::Read;
    let mut text = String::new();
    let file = std::fs::File::open(format!("/proc/{pid}/status")).ok()?;
    file.take(STATUS_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}

/// Parses the supplementary groups from a status file; `None` unless the process runs as `uid` and `gid`.
fn groups(status: &str, uid: u32, gid: u32) -> Option<Vec<u32>> {
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>())
    };
    // The columns are real, effective, saved, file system.
    let effective = |name| field(name)?.get(1).copied();
    if effective("Uid") != Some(uid) || effective("Gid") != Some(gid) {
        return None;
    }
    field("Groups")
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tcat\nUid:\t1000\t1000\t1000\t1000\nGid:\t100\t100\t100\t100\nGroups:\t4 24 991 \n";

    #[test]
    fn groups_are_those_of_the_process_that_connected() {
        assert_eq!(groups(STATUS, 1000, 100), Some(vec![4, 24, 991]));
    }

    #[test]
    fn a_process_id_used_again_gives_no_groups() {
        assert_eq!(groups(STATUS, 1001, 100), None);
        assert_eq!(groups(STATUS, 1000, 101), None);
    }

    #[test]
    fn a_process_knows_itself() {
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a socket pair");
        let Caller::Unix { uid, gid, .. } = caller(&ours) else { panic!("a unix socket") };
        assert_eq!(uid, rustix::process::geteuid().as_raw());
        assert_eq!(gid, rustix::process::getegid().as_raw());
    }
}

//! Name look-ups, on separate threads because the system's resolver blocks.
//!
//! The engine enforces the deadline: it stops waiting after [`crate::sync::LOOKUP_DEADLINE`]. A look-up here takes as long as
//! the system needs, and its end is always reported, so that radio silence can wait for the last query to end.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use mio::Waker;

/// Number of concurrent look-ups; further names wait in the channel.
pub const WORKERS: usize = 2;
/// Capacity of the channels of names and of answers: the engine requests at most one name per peer address.
pub const NAMES: usize = 4 * crate::limits::PEERS;
/// Maximum number of addresses taken from one answer.
const ADDRESSES: usize = 8;

/// Result of a look-up.
#[derive(Debug)]
pub struct Resolved {
    /// `HOST:PORT`, as requested.
    pub name: String,
    /// Addresses of the name, or the error as text.
    pub result: Result<Vec<SocketAddr>, String>,
}

/// Runs one worker: looks names up until the channel closes.
pub fn run(names: &Receiver<String>, answers: &Sender<Resolved>, waker: &Arc<Waker>) {
    for name in names {
        let result = look_up(&name);
        if answers.send(Resolved { name, result }).is_err() {
            return;
        }
        if let Err(error) = waker.wake() {
            log::error!("waking the sync thread: {error}");
        }
    }
}

const NO_SERVERS: &str = "there is no /etc/resolv.conf; give the address as a number, or mount one";

fn look_up(name: &str) -> Result<Vec<SocketAddr>, String> {
    if asks_nobody(name) {
        return Err(NO_SERVERS.to_owned());
    }
    let found: Vec<SocketAddr> = name.to_socket_addrs().map_err(|error| explain(&error))?.take(ADDRESSES).collect();
    if found.is_empty() { Err("it has no address".to_owned()) } else { Ok(found) }
}

fn explain(error: &std::io::Error) -> String {
    if std::path::Path::new("/etc/resolv.conf").exists() {
        error.to_string()
    } else {
        format!("{error} ({NO_SERVERS})")
    }
}

/// Returns true if a look-up would query a server that does not exist: without a list of servers musl queries this machine, and
/// times out later than any caller waits. Names in `/etc/hosts` and literal addresses need no server.
fn asks_nobody(name: &str) -> bool {
    let host = name.rsplit_once(':').map_or(name, |(host, _)| host);
    let listed = || std::fs::read_to_string("/etc/hosts").is_ok_and(|hosts| lists(&hosts, host));
    cfg!(target_env = "musl")
        && name.parse::<SocketAddr>().is_err()
        && !std::path::Path::new("/etc/resolv.conf").exists()
        && !listed()
}

fn lists(hosts: &str, host: &str) -> bool {
    let entries = hosts.lines().filter_map(|line| line.split('#').next());
    entries.flat_map(|entry| entry.split_whitespace().skip(1)).any(|name| name.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_literal_needs_no_resolver_and_nonsense_is_an_error() {
        assert_eq!(look_up("127.0.0.1:7").expect("a literal"), vec![SocketAddr::from(([127, 0, 0, 1], 7))]);
        assert!(look_up("nothing.invalid:7").is_err());
    }

    #[test]
    fn a_name_in_the_hosts_file_needs_no_server() {
        let hosts = "127.0.0.1 localhost\n10.0.0.7\thub Hub.example # gone.example\n";
        assert!(lists(hosts, "hub") && lists(hosts, "hub.EXAMPLE") && lists(hosts, "localhost"));
        assert!(!lists(hosts, "gone.example") && !lists(hosts, "10.0.0.7"));
    }
}

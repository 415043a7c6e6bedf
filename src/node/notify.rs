//! Notifications to the service manager, and its watchdog: sd_notify(3) and sd_watchdog_enabled(3).
//!
//! Without `$NOTIFY_SOCKET` nothing is sent. Must never fail the node: the first failure to notify is logged, later ones are
//! ignored.

use std::cell::Cell;
use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::thread_watchdog::WatchdogInterval;

/// Connection to the service manager.
#[derive(Debug, Default)]
pub(super) struct Manager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    complained: Cell<bool>,
}

impl Manager {
    /// Connects to `$NOTIFY_SOCKET`: a path, or a name in the abstract namespace after an `@`.
    pub(super) fn of_this_process() -> Manager {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else {
            return Manager::default();
        };
        Manager::at(&name)
    }

    /// Connects to the manager at this address.
    pub(super) fn at(name: &OsString) -> Manager {
        match open(name) {
            Ok(socket) => Manager { socket: Some(socket), complained: Cell::new(false) },
            Err(cause) => {
                log::warn!("the service manager cannot be notified at {}: {cause}", name.display());
                Manager::default()
            }
        }
    }

    /// Notifies the manager that the node serves clients.
    pub(super) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={}", one_line(status)));
    }

    /// Changes the status that the manager displays.
    pub(super) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", one_line(status)));
    }

    /// Notifies the manager that a reload has begun; [`Manager::ready`] ends it.
    pub(super) fn reloading(&self) {
        // sd_notify(3) requires the monotonic time with RELOADING=1, for units with `Type=notify-reload`.
        let time = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(time.tv_sec) * 1_000_000 + i128::from(time.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=reading files again"));
    }

    /// Notifies the manager that the node is stopping.
    pub(super) fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// Resets the watchdog: every thread's loop runs.
    pub(super) fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    fn tell(&self, words: &str) {
        let Some((socket, manager)) = &self.socket else { return };
        if let Err(cause) = socket.send_to_addr(words.as_bytes(), manager)
            && !self.complained.replace(true)
        {
            log::warn!("the service manager was not notified: {cause}");
        }
    }
}

fn open(name: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match name.as_bytes() {
        [b'@', abstract_name @ ..] => SocketAddr::from_abstract_name(abstract_name),
        [b'/', ..] => SocketAddr::from_pathname(name),
        _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is neither a path nor an abstract name")),
    }?;
    let socket = UnixDatagram::unbound()?;
    // A manager that does not read must not block the node.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

fn one_line(status: &str) -> String {
    status.replace(char::is_control, " ")
}

/// Returns the interval of the manager's watchdog. `None`: there is none for this process.
pub(super) fn watchdog() -> Option<WatchdogInterval> {
    let variable = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    parse_watchdog(variable("WATCHDOG_USEC").as_deref(), variable("WATCHDOG_PID").as_deref(), std::process::id())
}

fn parse_watchdog(interval: Option<&str>, process: Option<&str>, ours: u32) -> Option<WatchdogInterval> {
    if process.is_some_and(|process| process.parse() != Ok(ours)) {
        return None;
    }
    let interval = interval?;
    match interval.parse() {
        Ok(micros @ 1..) => Some(WatchdogInterval::new(Duration::from_micros(micros))),
        _ => {
            log::warn!("WATCHDOG_USEC: '{interval}' is not a number of microseconds; there is no watchdog");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_process_that_is_meant_has_a_watchdog() {
        let second = Some(WatchdogInterval::new(Duration::from_secs(1)));
        assert_eq!(parse_watchdog(Some("1000000"), None, 7), second);
        assert_eq!(parse_watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(parse_watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(parse_watchdog(None, Some("7"), 7), None);
        for wrong in ["0", "-1", "soon"] {
            assert_eq!(parse_watchdog(Some(wrong), None, 7), None);
        }
    }

    #[test]
    fn a_manager_is_told_in_lines() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let heard = UnixDatagram::bind(&path).expect("bound");
        let manager =
            Manager { socket: Some(open(&path.into_os_string()).expect("there")), complained: Cell::default() };
        let mut bytes = [0; 256];
        manager.ready("serving\nSTOPPING=1");
        let count = heard.recv(&mut bytes).expect("told");
        assert_eq!(&bytes[..count], b"READY=1\nSTATUS=serving STOPPING=1");
        manager.reloading();
        let count = heard.recv(&mut bytes).expect("told");
        let text = std::str::from_utf8(&bytes[..count]).expect("text");
        let micros = text.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").and_then(|rest| rest.split_once('\n'));
        assert!(micros.is_some_and(|(micros, _)| micros.parse::<u64>().is_ok()), "{text}");
    }
}

//! Loop of the main thread while the node runs: it waits for signals and for the end of a thread, and reports the health of all
//! threads to the service manager's watchdog.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{never, select, tick};

use super::notify::Manager;
use super::signals::SignalReceivers;
use super::threads::{Ended, Threads};
use crate::clock::shell::now;
use crate::thread_watchdog::{ThreadWatchdog, WatchdogInterval};

/// State that the main thread supervises.
#[derive(Debug)]
pub(super) struct Supervisor<'a> {
    pub(super) orders: &'a SignalReceivers,
    pub(super) threads: &'a Threads,
    pub(super) manager: &'a Manager,
    pub(super) rhythm: Option<WatchdogInterval>,
    /// Stamps of the threads that the watchdog covers.
    pub(super) pulses: Vec<Arc<ThreadWatchdog>>,
    /// Status that the manager displays while all threads respond.
    pub(super) status: String,
}

impl Supervisor<'_> {
    /// Waits until a signal stops the node, which gives `None`, or a thread ends by itself.
    pub(super) fn wait(&self, mut reload: impl FnMut()) -> Option<Ended> {
        let look = self.rhythm.map_or_else(never, |rhythm| tick(rhythm.beat()));
        loop {
            select! {
                recv(self.orders.stop) -> _ => return None,
                recv(self.threads.ended) -> ended => return ended.ok(),
                recv(self.orders.reload) -> _ => {
                    self.manager.reloading();
                    reload();
                    self.manager.ready(&self.status);
                }
                recv(look) -> _ => self.look(now().mono),
            }
        }
    }

    /// Notifies the watchdog if all threads respond. A late thread that responds again counts as healthy.
    fn look(&self, now: Instant) {
        let (mut late, mut recovered) = (Vec::new(), false);
        for pulse in &self.pulses {
            let was_late = pulse.is_late();
            match pulse.check(now) {
                Some(silence) => {
                    let words = format!("the {} thread has not answered for {} s", pulse.role(), silence.as_secs());
                    if !was_late {
                        log::error!("{words}; the watchdog is not notified");
                    }
                    late.push(words);
                }
                None if was_late => {
                    log::warn!("the {} thread answers again", pulse.role());
                    recovered = true;
                }
                None => {}
            }
        }
        match late.as_slice() {
            [] => self.manager.alive(),
            late => self.manager.status(&late.join("; ")),
        }
        if recovered && late.is_empty() {
            self.manager.status(&self.status);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Duration;

    use crossbeam_channel::bounded;

    use super::*;

    #[test]
    fn a_stuck_thread_stops_the_notifications_until_it_goes_round_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("notify");
        let heard = UnixDatagram::bind(&path).expect("bound");
        let manager = Manager::at(&path.into_os_string());
        let (start, rhythm) = (now().mono, WatchdogInterval::new(Duration::from_secs(30)));
        let pulses = ["api", "sync"].map(|role| ThreadWatchdog::new(role, start, Some(rhythm), Duration::ZERO));
        let (api, sync) = (&pulses[0], &pulses[1]);
        let orders = SignalReceivers { stop: bounded(0).1, reload: bounded(0).1 };
        let supervisor = Supervisor {
            orders: &orders,
            threads: &Threads::new(false),
            manager: &manager,
            rhythm: Some(rhythm),
            pulses: pulses.to_vec(),
            status: "well".to_owned(),
        };
        let mut at = start;
        let mut told_at = |seconds, turning: &[&Arc<ThreadWatchdog>]| {
            at = start + Duration::from_secs(seconds);
            turning.iter().for_each(|pulse| pulse.stamp(at));
            supervisor.look(at);
            let mut bytes = [0; 256];
            let count = heard.recv(&mut bytes).expect("told");
            String::from_utf8(bytes[..count].to_vec()).expect("text")
        };
        assert_eq!(told_at(10, &[api, sync]), "WATCHDOG=1");
        assert_eq!(told_at(40, &[api]), "WATCHDOG=1");
        assert_eq!(told_at(50, &[api]), "STATUS=the sync thread has not answered for 40 s");
        assert!(sync.is_late() && !api.is_late());
        assert_eq!(told_at(60, &[api, sync]), "WATCHDOG=1");
    }
}

//! Threads of the node: named, pinned if requested, with their ends reported.

use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use super::Error;

/// Capacity of the channel of ends, more than a node has threads.
const THREADS: usize = 16;

/// End of a thread.
#[derive(Debug)]
pub(super) struct Ended {
    /// Role of the thread: `store`, `api`, `sync`.
    pub(super) role: &'static str,
    /// Failure that ended it, if any.
    pub(super) result: Result<(), String>,
}

/// Starts threads and receives their ends.
#[derive(Debug)]
pub(super) struct Threads {
    processors: Vec<usize>,
    started: Vec<&'static str>,
    ends: Sender<Ended>,
    pub(super) ended: Receiver<Ended>,
}

impl Threads {
    /// Returns an empty set. With `pin`, each thread gets the next of the processors available to this process.
    pub(super) fn new(pin: bool) -> Threads {
        let (ends, ended) = bounded(THREADS);
        Threads { processors: if pin { processors() } else { Vec::new() }, started: Vec::new(), ends, ended }
    }

    /// Starts the thread `peat-{role}` and reports its end.
    pub(super) fn start(
        &mut self,
        role: &'static str,
        work: impl FnOnce() -> Result<(), String> + Send + 'static,
    ) -> Result<(), Error> {
        let processor = self.processors.get(self.started.len() % self.processors.len().max(1)).copied();
        self.started.push(role);
        let ends = self.ends.clone();
        self.start_detached(role, move || {
            processor.into_iter().for_each(|processor| pin(role, processor));
            let result = work();
            // The receiver is gone once the node has stopped waiting.
            let _ = ends.try_send(Ended { role, result });
        })
    }

    /// Starts the thread `peat-{role}`, which is mostly idle: it is not pinned, and its end is not waited for.
    pub(super) fn start_detached(&self, role: &str, work: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let name = format!("peat-{role}");
        let started = std::thread::Builder::new().name(name.clone()).spawn(work);
        started.map(drop).map_err(|cause| Error::Machine(format!("starting the thread {name}"), cause))
    }

    /// Waits until every thread but `ended` has ended, each within `patience` after the previous one. Returns the first failure.
    pub(super) fn wait(&self, ended: Option<&'static str>, patience: Duration) -> Result<(), Error> {
        let mut running: Vec<&str> = self.started.iter().copied().filter(|role| Some(*role) != ended).collect();
        let mut failed = Ok(());
        while !running.is_empty() {
            let Ok(Ended { role, result }) = self.ended.recv_timeout(patience) else {
                return Err(Error::Stuck(running.join(" and ")));
            };
            running.retain(|running| *running != role);
            failed = failed.and(result.map_err(|words| Error::Thread(role, words)));
        }
        failed
    }
}

/// Returns the processors available to this process.
fn processors() -> Vec<usize> {
    match sched_getaffinity(None) {
        Ok(set) => (0..CpuSet::MAX_CPU).filter(|&processor| set.is_set(processor)).collect(),
        Err(cause) => {
            log::warn!("--pin has no effect, the processors are not known: {cause}");
            Vec::new()
        }
    }
}

fn pin(role: &str, processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    if let Err(cause) = sched_setaffinity(None, &set) {
        log::warn!("the {role} thread is not pinned to processor {processor}: {cause}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_named_and_their_ends_are_told() {
        let mut threads = Threads::new(true);
        let named = || match std::thread::current().name() {
            Some("peat-test") => Ok(()),
            other => Err(format!("{other:?}")),
        };
        threads.start("test", named).expect("started");
        threads.wait(None, Duration::from_secs(10)).expect("named");
    }

    #[test]
    fn a_thread_that_fails_and_one_that_hangs_are_named() {
        let mut threads = Threads::new(false);
        let (hold, held) = bounded::<()>(0);
        threads.start("broken", || Err("no luck".to_owned())).expect("started");
        let error = threads.wait(None, Duration::from_secs(10)).expect_err("failed");
        assert_eq!(error.to_string(), "the broken thread ended: no luck");
        threads.start("hanging", move || held.recv().map_err(|cause| cause.to_string())).expect("started");
        let error = threads.wait(Some("broken"), Duration::from_millis(10)).expect_err("hanging");
        assert_eq!(error.to_string(), "not ended in time: hanging");
        drop(hold);
    }
}

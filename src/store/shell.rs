//! The store thread: moves requests, replies and the tip between the engine and the other threads.
//!
//! It blocks only in one wait for requests, finished jobs and the alarm of readers. Replies go to channels with room for every
//! request that a thread may have outstanding, so sending one never waits.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Select, Sender, TryRecvError, bounded};
use mio::Waker;

use crate::clock::shell::now;
use crate::limits::BATCH_DOCUMENTS;
use crate::store::{Disk, Envelope, Finished, Job, Reader, Reply, Store, StoreRequest, Ticket, Tip};
use crate::thread_watchdog::ThreadWatchdog;

/// The tip, which other threads read without a request.
#[derive(Debug, Default)]
pub struct SharedTip {
    visible: AtomicU64,
    durable: AtomicU64,
}

impl SharedTip {
    /// Returns the newest published tip.
    #[must_use]
    pub fn get(&self) -> Tip {
        // `set` stores `visible` first: a `durable` that is read before it never exceeds it.
        let durable = self.durable.load(Ordering::Acquire);
        Tip { visible: self.visible.load(Ordering::Acquire), durable }
    }

    fn set(&self, tip: Tip) {
        self.visible.store(tip.visible, Ordering::Release);
        self.durable.store(tip.durable, Ordering::Release);
    }
}

/// Store thread's end of the channels to one other thread.
#[derive(Debug)]
pub struct ReplySender {
    replies: Sender<Reply>,
    readers: Sender<Reader>,
    stale: Receiver<Reader>,
    waker: Arc<Waker>,
}

/// Other thread's end of the channels.
#[derive(Debug)]
pub struct ReplyReceiver {
    /// Replies to its requests.
    pub replies: Receiver<Reply>,
    /// Reader to use from now on, after a storage error; holds only the newest.
    pub readers: Receiver<Reader>,
}

/// Connects the store thread to a thread that has at most `outstanding` unanswered requests. `waker` is woken after replies,
/// after every commit, and after the database was opened again.
#[must_use]
pub fn connect(outstanding: usize, waker: Arc<Waker>) -> (ReplySender, ReplyReceiver) {
    let (replies, answered) = bounded(outstanding);
    let (readers, newest) = bounded(1);
    let stale = newest.clone();
    (ReplySender { replies, readers, stale, waker }, ReplyReceiver { replies: answered, readers: newest })
}

/// Channels and shared values of the store thread.
#[derive(Debug)]
pub struct Wiring {
    /// Requests of all threads. The store thread ends, with a last flush, once every sender is dropped.
    pub requests: Receiver<Envelope>,
    /// Channels to the api thread.
    pub api: ReplySender,
    /// Channels to the sync thread.
    pub sync: ReplySender,
    /// Published tip.
    pub tip: Arc<SharedTip>,
    /// Channels to the merge thread.
    pub jobs: Jobs,
    /// Watchdog, stamped in each iteration.
    pub pulse: Arc<ThreadWatchdog>,
}

/// Store thread's end of the channels to the merge thread, which runs one job at a time.
#[derive(Debug)]
pub struct Jobs {
    begin: Sender<Job>,
    finished: Receiver<Finished>,
}

/// Merge thread's end of the channels; see [`Jobs`].
#[derive(Debug)]
pub struct Worker {
    begun: Receiver<Job>,
    finish: Sender<Finished>,
}

/// Connects the store thread to the merge thread.
#[must_use]
pub fn connect_worker() -> (Jobs, Worker) {
    let (begin, begun) = bounded(1);
    let (finish, finished) = bounded(1);
    (Jobs { begin, finished }, Worker { begun, finish })
}

impl Worker {
    /// Runs jobs until the store thread ends.
    pub fn run(self) {
        for job in self.begun {
            if self.finish.send(job.run()).is_err() {
                break;
            }
        }
    }
}

impl Jobs {
    /// Begins the next job unless one runs. Both channels have room for the one job, so neither thread waits.
    fn begin<D: Disk>(&self, store: &mut Store<D>, replies: &mut Vec<Reply>) {
        if let Some(job) = store.poll_job(now(), replies)
            && self.begin.send(job).is_err()
        {
            log::error!("the thread that merges has ended");
        }
    }
}

/// Runs the store thread until every sender of requests is dropped.
pub fn run<D: Disk>(mut store: Store<D>, wiring: &Wiring) {
    let jobs = &wiring.jobs;
    let mut replies = Vec::new();
    let alarm = store.alarm();
    wiring.publish(&store);
    while let Some(event) = wiring.next(&mut store, &alarm) {
        let first = match event {
            Event::Request(first) => Some(first),
            Event::Finished(finished) => {
                store.handle_finished(now(), *finished, &mut replies);
                None
            }
            Event::Timeout => None,
        };
        // Handle requests that have arrived, up to one batch, before waiting again.
        let more = wiring.requests.try_iter().take(BATCH_DOCUMENTS - 1);
        let mut requests = first.into_iter().chain(more).peekable();
        loop {
            let now = now();
            wiring.pulse.woke(now.mono);
            store.handle_commit(now, &mut requests, &mut replies);
            jobs.begin(&mut store, &mut replies);
            wiring.deliver(&mut store, &mut replies);
            if requests.peek().is_none() {
                break;
            }
            wiring.pulse.stamp(self::now().mono);
        }
    }
    // Commit the job that still runs before the last flush.
    if store.runs_job()
        && let Ok(finished) = jobs.finished.recv()
    {
        store.handle_finished(now(), finished, &mut replies);
    }
    let flush = Envelope { ticket: Ticket::Api(0), request: StoreRequest::Flush };
    store.handle_batch(now(), [flush], &mut replies);
}

/// Reason for an iteration of the store thread.
enum Event {
    Request(Envelope),
    Finished(Box<Finished>),
    /// The engine's deadline was reached, or its alarm was raised.
    Timeout,
}

impl Wiring {
    /// Waits for a request, a finished job, the engine's deadline, or its alarm. Returns `None` once all senders of requests
    /// are dropped.
    fn next<D: Disk>(&self, store: &mut Store<D>, alarm: &Receiver<()>) -> Option<Event> {
        loop {
            let (now, deadline) = (now(), store.poll_deadline());
            self.pulse.stamp(now.mono);
            let wait = deadline.map(|at| at.saturating_duration_since(now.mono));
            match self.receive(alarm, self.pulse.shorten(wait)) {
                Ok(event) => return Some(event),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => {
                    let now = self::now();
                    if store.poll_deadline().is_some_and(|at| now.reached(at)) {
                        store.handle_timeout(now);
                        return Some(Event::Timeout);
                    }
                }
            }
        }
    }

    /// Receives the next request or finished job. Times out as well if the alarm is raised.
    fn receive(&self, alarm: &Receiver<()>, wait: Option<Duration>) -> Result<Event, RecvTimeoutError> {
        let mut select = Select::new();
        let request = select.recv(&self.requests);
        select.recv(alarm);
        select.recv(&self.jobs.finished);
        let ready = match wait {
            Some(wait) => select.ready_timeout(wait).map_err(|_| RecvTimeoutError::Timeout)?,
            None => select.ready(),
        };
        if let Ok(finished) = self.jobs.finished.try_recv() {
            return Ok(Event::Finished(Box::new(finished)));
        }
        if ready != request {
            return Err(RecvTimeoutError::Timeout);
        }
        self.requests.try_recv().map(Event::Request).map_err(|cause| match cause {
            TryRecvError::Empty => RecvTimeoutError::Timeout,
            TryRecvError::Disconnected => RecvTimeoutError::Disconnected,
        })
    }

    /// Sends the results of a batch or a timeout to the other threads.
    fn deliver<D: Disk>(&self, store: &mut Store<D>, replies: &mut Vec<Reply>) {
        if let Some(reader) = store.poll_reopened() {
            self.api.replace_reader(reader.clone());
            self.sync.replace_reader(reader);
        }
        for reply in replies.drain(..) {
            match reply.ticket {
                Ticket::Api(_) => self.api.reply(reply),
                Ticket::Sync(_) => self.sync.reply(reply),
            }
        }
        self.publish(store);
    }

    fn publish<D: Disk>(&self, store: &Store<D>) {
        self.tip.set(store.tip());
        self.api.wake();
        self.sync.wake();
    }
}

impl ReplySender {
    /// Sends a reply. The channel has room for every request that the thread may have outstanding, so this does not wait.
    fn reply(&self, reply: Reply) {
        if self.replies.send(reply).is_err() {
            log::debug!("a reply was dropped: its thread has ended");
        }
    }

    /// Replaces the reader in the channel: only the newest is of use.
    fn replace_reader(&self, reader: Reader) {
        drop(self.stale.try_recv());
        drop(self.readers.try_send(reader));
    }

    fn wake(&self) {
        if let Err(cause) = self.waker.wake() {
            log::warn!("waking a thread failed: {cause}");
        }
    }
}

#[cfg(test)]
mod tests {
    use mio::{Poll, Token};

    use super::*;
    use crate::identity::EndpointId;
    use crate::random::System;
    use crate::store::{DocumentWrite, FileDisk, Key, Put, StoreConfig};

    fn outlet(poll: &Poll) -> (ReplySender, ReplyReceiver) {
        connect(8, Arc::new(Waker::new(poll.registry(), Token(0)).unwrap()))
    }

    fn open(directory: &std::path::Path) -> Store<FileDisk> {
        let disk = FileDisk::open(directory).unwrap();
        Store::open(disk, StoreConfig::new(EndpointId([1; 32])), &mut System::default(), now()).unwrap()
    }

    #[test]
    fn replies_go_to_whoever_asked_and_the_end_is_a_flush() {
        let directory = tempfile::tempdir().unwrap();
        let (api_poll, sync_poll) = (Poll::new().unwrap(), Poll::new().unwrap());
        let ((api, for_api), (sync, for_sync)) = (outlet(&api_poll), outlet(&sync_poll));
        let (sender, requests) = bounded(8);
        let tip: Arc<SharedTip> = Arc::default();
        let pulse = ThreadWatchdog::new("store", now().mono, None, Duration::ZERO);
        let (jobs, worker) = connect_worker();
        let wiring = Wiring { requests, api, sync, tip: tip.clone(), jobs, pulse };
        let (store, key) = (open(directory.path()), Key::new("platforms", "a").unwrap());
        std::thread::scope(|scope| {
            scope.spawn(|| worker.run());
            let thread = scope.spawn(move || run(store, &wiring));
            let put = Put::Whole { json: "{}".into(), base: None };
            let write = StoreRequest::Write(DocumentWrite { key: key.clone(), put, durable: false });
            sender.send(Envelope { ticket: Ticket::Sync(7), request: write }).unwrap();
            let reply = for_sync.replies.recv_timeout(Duration::from_secs(60)).unwrap();
            assert_eq!(reply.ticket, Ticket::Sync(7));
            assert!(reply.result.is_ok() && for_api.replies.is_empty());
            drop(sender);
            thread.join().unwrap();
        });
        assert_eq!(tip.get().visible, 1);
        assert!(open(directory.path()).reader().snapshot().unwrap().document(&key).unwrap().is_some());
    }
}

//! The api thread: moves bytes, requests and answers between client sockets and the engine.
//!
//! Bind with [`Shell::bind`], wire the other threads to [`Shell::waker`], then call [`Shell::run`]. It returns when its [`Stop`]
//! is used, or when the store thread has ended. An answer is written as soon as it is made, before the thread waits for anything.

mod credentials;
mod listener;
mod sockets;

use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use mio::net::UnixStream;
use mio::{Events, Poll, Token, Waker};

use self::listener::Listener;
use self::sockets::{Sockets, Stream};
use crate::api::{Caller, ConnectionId, Engine, Reloaded};
use crate::clock::Now;
use crate::clock::shell::now;
use crate::config::{Access, Listen};
use crate::log_limit::LogLimit;
#[cfg(feature = "http")]
use crate::metrics::{Channel, Instruments};
use crate::store::shell::{ReplyReceiver, SharedTip};
use crate::store::{Envelope, Tip};
use crate::sync::{ControlRequest, Event};
use crate::thread_watchdog::ThreadWatchdog;

pub use listener::{BindError, InheritedListener};

const WAKE: Token = Token(usize::MAX);
/// Maximum number of events taken from the kernel per poll.
const EVENTS: usize = 256;
/// Delay before the next try after accept(2) failed, for lack of file descriptors for example.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Time that final answers may take to be written once the thread is stopped.
const ENDING: Duration = Duration::from_millis(500);

/// The channels and shared values of the thread.
#[derive(Debug)]
pub struct Wiring {
    /// Requests to the store thread; room for [`crate::limits::STORE_QUEUE`] requests of this thread.
    pub requests: Sender<Envelope>,
    /// Replies and readers from the store thread.
    pub inlet: ReplyReceiver,
    /// The store's tip.
    pub tip: Arc<SharedTip>,
    /// Control requests to the sync thread.
    pub asked: Sender<ControlRequest>,
    /// Waker of the sync thread.
    pub sync: Arc<Waker>,
    /// Events from the sync thread.
    pub events: Receiver<Event>,
    /// Stamped once per iteration.
    pub pulse: Arc<ThreadWatchdog>,
    /// Watchdogs of all threads, for `health`.
    pub watched: Vec<Arc<ThreadWatchdog>>,
    /// Reloaded settings.
    pub reloads: Receiver<Reloaded>,
    /// Returns the number of log lines dropped so far, for `/metrics`.
    pub dropped_log_lines: fn() -> u64,
}

#[cfg(feature = "http")]
impl Wiring {
    /// Returns the gauges of channels and threads that this thread can read.
    fn instruments(&self) -> Instruments {
        let (requests, replies) = (self.requests.clone(), self.inlet.replies.clone());
        let (asked, events) = (self.asked.clone(), self.events.clone());
        let room = |capacity: Option<usize>| capacity.unwrap_or(0);
        let channels = vec![
            Channel {
                name: "store_requests",
                room: room(requests.capacity()),
                depth: Box::new(move || requests.len()),
            },
            Channel { name: "store_replies", room: room(replies.capacity()), depth: Box::new(move || replies.len()) },
            Channel { name: "sync_questions", room: room(asked.capacity()), depth: Box::new(move || asked.len()) },
            Channel { name: "sync_events", room: room(events.capacity()), depth: Box::new(move || events.len()) },
        ];
        Instruments { channels, threads: self.watched.clone(), dropped_log_lines: Some(self.dropped_log_lines) }
    }
}

/// Stops the thread from another one.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    waker: Arc<Waker>,
}

impl Stop {
    /// Makes the thread end all calls and streams, and then return.
    pub fn stop(&self) {
        self.flag.store(true, Ordering::Release);
        // A poll that cannot be woken is closed, so its thread has ended.
        let _ = self.waker.wake();
    }
}

/// The listening sockets and the waker, created before the thread starts.
#[derive(Debug)]
pub struct Shell {
    poll: Poll,
    waker: Arc<Waker>,
    stop: Arc<AtomicBool>,
    listeners: Vec<Listener>,
    /// The node's end of the connection with its watcher.
    watcher: Option<UnixStream>,
}

impl Shell {
    /// Opens every listener: unix sockets with the mode and group of `access`, TCP beyond loopback only with a token or
    /// `--insecure-api`.
    ///
    /// # Errors
    /// An address is in use, for example by a running node, or is not permitted.
    pub fn bind(listen: &[Listen], access: &Access) -> Result<Shell, BindError> {
        Shell::open(listen, access, Vec::new())
    }

    /// Opens every listener as [`Shell::bind`] does, except for sockets that the service manager opened and passed on: those are
    /// served as they are.
    ///
    /// # Errors
    /// As [`Shell::bind`].
    pub fn open(listen: &[Listen], access: &Access, handed: Vec<InheritedListener>) -> Result<Shell, BindError> {
        let machine = |cause| BindError::machine("the poll", cause);
        let poll = Poll::new().map_err(machine)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE).map_err(machine)?);
        let mut listeners = Vec::with_capacity(listen.len() + handed.len());
        let held: BTreeSet<PathBuf> = handed.iter().map(|handed| handed.path.clone()).collect();
        for handed in handed {
            listeners.push(Listener::take(handed, poll.registry(), Token(listeners.len()))?);
        }
        for address in listen {
            if !matches!(address, Listen::Unix(path) if held.contains(path)) {
                listeners.push(Listener::bind(address, access, poll.registry(), Token(listeners.len()))?);
            }
        }
        Ok(Shell { poll, waker, stop: Arc::default(), listeners, watcher: None })
    }

    /// Returns the waker of the thread, to be used after a reply, a commit, or an event.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }

    /// Returns a handle that stops the thread once it runs.
    #[must_use]
    pub fn stop(&self) -> Stop {
        Stop { flag: Arc::clone(&self.stop), waker: self.waker() }
    }

    /// Connects the watcher thread; returns its end. The watcher is a client with [`Caller::Watcher`] as its identity.
    ///
    /// # Errors
    /// The kernel could not create a socket pair.
    pub fn connect_watcher(&mut self) -> io::Result<std::os::unix::net::UnixStream> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        self.watcher = Some(UnixStream::from_std(ours));
        Ok(theirs)
    }

    /// Returns the addresses on which clients can connect; for TCP port 0, the port that was assigned.
    #[must_use]
    pub fn addresses(&self) -> Vec<Listen> {
        self.listeners.iter().map(|listener| listener.address().clone()).collect()
    }

    /// Serves clients until stopped.
    ///
    /// # Errors
    /// The kernel's event queue failed.
    pub fn run(self, engine: Engine, wiring: Wiring) -> io::Result<()> {
        let Shell { poll, stop, listeners, watcher, .. } = self;
        #[cfg(feature = "http")]
        let engine = {
            let mut engine = engine;
            engine.set_instruments(wiring.instruments());
            engine
        };
        let first = u64::try_from(listeners.len()).unwrap_or(0);
        let mut serving = Serving {
            poll,
            stop,
            listeners,
            engine,
            wiring,
            sockets: Sockets::new(first),
            held_request: None,
            held_question: None,
            tip: Tip::default(),
            accept_at: None,
            complaints: LogLimit::default(),
        };
        if let Some(watcher) = watcher {
            serving.let_in(now(), Stream::Unix(watcher), Caller::Watcher);
        }
        serving.run()
    }
}

/// The state of the running thread.
#[derive(Debug)]
struct Serving {
    poll: Poll,
    stop: Arc<AtomicBool>,
    listeners: Vec<Listener>,
    engine: Engine,
    wiring: Wiring,
    sockets: Sockets,
    /// Request to the store that a full channel did not take.
    held_request: Option<Envelope>,
    /// Control request that a full channel did not take.
    held_question: Option<ControlRequest>,
    tip: Tip,
    /// Time at which to try accept(2) again.
    accept_at: Option<Instant>,
    /// Limits the log lines about clients that could not be accepted.
    complaints: LogLimit,
}

impl Serving {
    fn run(mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(EVENTS);
        while !self.stop.load(Ordering::Acquire) {
            self.wait(&mut events)?;
            let now = now();
            self.wiring.pulse.woke(now.mono);
            for event in &events {
                self.handle(now, event);
            }
            if !self.hear(now) {
                break;
            }
            self.accept_again(now);
            self.time(now);
            self.drain(now);
            self.read_on(now);
        }
        self.end();
        Ok(())
    }

    fn wait(&mut self, events: &mut Events) -> io::Result<()> {
        let deadline = self.engine.poll_deadline().map(|(at, _)| at);
        let next = deadline.into_iter().chain(self.accept_at).min();
        let now = now().mono;
        self.wiring.pulse.stamp(now);
        // Unread bytes cause no further event, so the thread must not wait for one.
        let timeout = if self.sockets.has_unread(&self.engine) {
            Some(Duration::ZERO)
        } else {
            next.map(|at| round_up(at.saturating_duration_since(now)))
        };
        match self.poll.poll(events, self.wiring.pulse.shorten(timeout)) {
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => Ok(()),
            other => other,
        }
    }

    fn handle(&mut self, now: Now, event: &mio::event::Event) {
        let token = event.token();
        if token == WAKE {
            return;
        }
        if token.0 < self.listeners.len() {
            return self.accept(now, token.0);
        }
        let id = ConnectionId(token.0 as u64);
        if event.is_writable() {
            self.write(now, id);
        }
        if event.is_read_closed() || event.is_error() {
            self.sockets.note_end(id);
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(now, id);
        }
    }

    fn accept(&mut self, now: Now, number: usize) {
        let Some(listener) = self.listeners.get_mut(number) else { return };
        loop {
            match listener.accept() {
                Ok(Some((stream, caller))) => {
                    self.sockets.open(now, self.poll.registry(), &mut self.engine, stream, caller);
                }
                Ok(None) => return,
                Err(cause) => {
                    let words = format!("{}: a client could not be accepted: {cause}", listener.address());
                    if self.complaints.allows(now, &words) {
                        log::warn!("{words}");
                    }
                    self.accept_at = Some(now.after(ACCEPT_AGAIN));
                    return;
                }
            }
        }
    }

    fn let_in(&mut self, now: Now, stream: Stream, caller: Caller) {
        self.sockets.open(now, self.poll.registry(), &mut self.engine, stream, caller);
    }

    fn accept_again(&mut self, now: Now) {
        if self.accept_at.take_if(|at| *at <= now.mono).is_some() {
            (0..self.listeners.len()).for_each(|number| self.accept(now, number));
        }
    }

    /// Reads from a client, and writes the answers at once.
    fn read(&mut self, now: Now, id: ConnectionId) {
        self.sockets.read(now, &mut self.engine, id);
        self.drain(now);
    }

    fn read_on(&mut self, now: Now) {
        for id in self.sockets.unread(&self.engine) {
            self.read(now, id);
        }
    }

    fn write(&mut self, now: Now, id: ConnectionId) {
        self.sockets.write(now, self.poll.registry(), &mut self.engine, id);
    }

    /// Handles messages from the other threads. Returns false if the store thread has ended, and the node with it.
    fn hear(&mut self, now: Now) -> bool {
        self.look_at_the_others();
        if let Ok(reloaded) = self.wiring.reloads.try_recv() {
            self.engine.handle_reloaded(now, reloaded);
        }
        let tip = self.wiring.tip.get();
        if tip != self.tip {
            self.tip = tip;
            self.engine.handle_tip(now, tip);
        }
        while let Ok(reader) = self.wiring.inlet.readers.try_recv() {
            self.engine.handle_reader(now, reader);
            // A commit of the new run may have the same number as the tip of the old one.
            self.tip = Tip::default();
        }
        while let Ok(event) = self.wiring.events.try_recv() {
            self.engine.handle_event(now, event);
        }
        loop {
            match self.wiring.inlet.replies.try_recv() {
                Ok(reply) => self.engine.handle_reply(now, reply),
                Err(error) => return error.is_empty(),
            }
        }
    }

    /// Tells the engine which threads the main thread has found silent.
    fn look_at_the_others(&mut self) {
        let silent: Vec<&'static str> =
            self.wiring.watched.iter().filter(|pulse| pulse.is_late()).map(|pulse| pulse.role()).collect();
        self.engine.set_silent(silent);
    }

    fn time(&mut self, now: Now) {
        if self.engine.poll_deadline().is_some_and(|(at, _)| now.reached(at)) {
            self.engine.handle_timeout(now);
        }
    }

    /// Carries out the engine's requests, in the order that [`crate::api`] states.
    fn drain(&mut self, now: Now) {
        self.pass_requests();
        self.pass_questions();
        while let Some(id) = self.engine.poll_output() {
            self.write(now, id);
        }
        while let Some(id) = self.engine.poll_shut() {
            self.sockets.shut(id);
        }
        while let Some(closed) = self.engine.poll_close() {
            log::debug!("client {} is closed: {}", closed.connection.0, closed.reason);
            self.sockets.close(closed.connection);
        }
    }

    /// Sends requests to the store thread. What a full channel does not take is kept; the store wakes this thread after its next
    /// batch.
    fn pass_requests(&mut self) {
        while let Some(submitted) = self.held_request.take().or_else(|| self.engine.poll_store()) {
            if let Err(TrySendError::Full(submitted)) = self.wiring.requests.try_send(submitted) {
                self.held_request = Some(submitted);
                return;
            }
        }
    }

    fn pass_questions(&mut self) {
        let mut passed = false;
        while let Some(asked) = self.held_question.take().or_else(|| self.engine.poll_asked()) {
            if let Err(TrySendError::Full(asked)) = self.wiring.asked.try_send(asked) {
                self.held_question = Some(asked);
                break;
            }
            passed = true;
        }
        if passed {
            // A sync thread that cannot be woken has ended, and the node is ending too.
            let _ = self.wiring.sync.wake();
        }
    }

    /// Notifies every client, writes for at most `ENDING`, and closes all connections.
    fn end(&mut self) {
        let start = now();
        self.engine.handle_shutdown(start);
        let mut events = Events::with_capacity(EVENTS);
        loop {
            let now = now();
            self.drain(now);
            let left = start.after(ENDING).saturating_duration_since(now.mono);
            if self.engine.connections() == 0 || left.is_zero() {
                return;
            }
            if self.poll.poll(&mut events, Some(round_up(left))).is_err() {
                return;
            }
            for event in events.iter().filter(|event| event.is_writable()) {
                self.write(now, ConnectionId(event.token().0 as u64));
            }
        }
    }
}

/// Rounds a timeout up: the kernel counts in milliseconds, and waking just before a deadline would spin.
fn round_up(wait: Duration) -> Duration {
    if wait.is_zero() { wait } else { wait + Duration::from_millis(1) }
}

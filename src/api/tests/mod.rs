//! The engine over a real store in memory, under virtual time. One theme per file; this one holds the shared world.

mod agents;
mod commands;
mod documents;
mod errands;
mod hostile;
#[cfg(feature = "http")]
mod http;
mod large;
mod load;
mod peers;
mod profiles;
mod rights;
mod subscriptions;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{Decoder, RequestHeader, put_request};
use peat_ipc::{CallError, Code, PREFACE, Rpc, prost::Message};
use redb::backends::InMemoryBackend;

use crate::api::{ApiConfig, Caller, ConnectionId, Engine, Policy, Reloaded};
use crate::clock::Now;
use crate::fleet;
use crate::identity::{EndpointId, Identity};
use crate::random::System;
use crate::store::{self, Disk, Store};
use crate::sync::{Answer, Control, ControlError, ControlRequest, Event, Measured, Status};

#[derive(Debug, Default)]
struct Memory(InMemoryBackend);

impl redb::StorageBackend for Memory {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

impl Disk for Memory {
    fn reserve(&self, _bytes: u64) -> io::Result<()> {
        Ok(())
    }

    fn used(&self) -> u64 {
        0
    }
}

const ROOT: Caller = Caller::Unix { uid: 0, gid: 0, groups: Vec::new() };
const SOMEBODY: Caller = Caller::Unix { uid: 1000, gid: 1000, groups: Vec::new() };

/// A client's side of a connection.
#[derive(Debug)]
struct Client {
    decoder: Decoder,
    /// Bytes that its socket still takes.
    takes: usize,
    frames: Vec<(u64, Body)>,
    /// Bytes received by a client that does not use frames.
    text: Option<Vec<u8>>,
    last_call: u64,
}

#[derive(Debug)]
struct World {
    engine: Engine,
    store: Store<Memory>,
    now: Now,
    clients: BTreeMap<ConnectionId, Client>,
    asked: Vec<ControlRequest>,
    /// Number of presence announcements that the engine requested.
    announced: usize,
    closed: Vec<(ConnectionId, String)>,
    /// Measurements of the sync thread; `None` if it does not answer.
    measured: Option<Measured>,
    /// False if the store thread hangs and requests pile up in its queue.
    store_runs: bool,
    queued: Vec<store::Envelope>,
    /// True if clients continue sending after a refusal.
    keeps_sending: bool,
}

impl World {
    fn new() -> World {
        #[expect(clippy::disallowed_methods, reason = "virtual time begins somewhere")]
        let now = Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 };
        let config = store::StoreConfig::new(EndpointId([7; 32]));
        let store = Store::open(Memory::default(), config, &mut System::default(), now).expect("an empty store opens");
        let policy = Policy { own_uid: 0, admin_group: None, tcp_token: None, insecure: false, open_documents: false };
        let identity = Arc::new(Identity::from_seed([7; 32]));
        let config = ApiConfig {
            node_id: "n1".into(),
            watched_agent: "n1".into(),
            policy,
            cache_bytes: 8 << 20,
            fleet: fleet::Settings::default(),
            identity,
            commands: fleet::commands::Settings::default(),
        };
        let mut engine = Engine::new(config, store.reader(), now);
        engine.handle_tip(now, store.tip());
        let status = Status { active: true, ..Status::default() };
        engine.handle_event(now, Event::Status(status));
        World {
            engine,
            store,
            now,
            clients: BTreeMap::new(),
            asked: Vec::new(),
            announced: 0,
            measured: Some(Measured::default()),
            closed: Vec::new(),
            store_runs: true,
            queued: Vec::new(),
            keeps_sending: false,
        }
    }

    /// Reloads the initial settings of a world with a change.
    fn reload(&mut self, change: impl FnOnce(&mut Reloaded)) {
        let policy = Policy { own_uid: 0, admin_group: None, tcp_token: None, insecure: false, open_documents: false };
        let (fleet, commands) = (fleet::Settings::default(), fleet::commands::Settings::default());
        let mut reloaded = Reloaded { policy, fleet, commands };
        change(&mut reloaded);
        self.engine.handle_reloaded(self.now, reloaded);
        self.run();
    }

    /// Opens a connection that has sent nothing yet.
    fn open(&mut self, caller: Caller) -> ConnectionId {
        let id = ConnectionId(self.clients.len() as u64 + 1);
        self.engine.handle_open(self.now, id, caller).expect("there is room");
        let client =
            Client { decoder: Decoder::joining(), takes: usize::MAX, frames: Vec::new(), text: None, last_call: 0 };
        self.clients.insert(id, client);
        id
    }

    /// Opens a connection and sends the preface.
    fn connect(&mut self, caller: Caller) -> ConnectionId {
        let id = self.open(caller);
        self.send(id, &PREFACE);
        id
    }

    fn send(&mut self, id: ConnectionId, bytes: &[u8]) {
        self.engine.handle_bytes(self.now, id, bytes);
        self.run();
    }

    /// Begins a call without taking its answer.
    fn start<R: Rpc>(&mut self, id: ConnectionId, request: &R) -> u64 {
        self.start_with(id, request, RequestHeader::default())
    }

    fn start_with<R: Rpc>(&mut self, id: ConnectionId, request: &R, header: RequestHeader<'_>) -> u64 {
        let client = self.clients.get_mut(&id).expect("connected");
        client.last_call += 1;
        let call = client.last_call;
        let mut bytes = Vec::new();
        put_request(&mut bytes, call, RequestHeader { method: R::METHOD.number(), ..header }, request);
        self.send(id, &bytes);
        call
    }

    fn call<R: Rpc>(&mut self, id: ConnectionId, request: &R) -> Result<R::Response, CallError> {
        let call = self.start(id, request);
        self.answer::<R>(id, call).expect("answered")
    }

    /// Takes the answer of a unary call, if there is one.
    fn answer<R: Rpc>(&mut self, id: ConnectionId, call: u64) -> Option<Result<R::Response, CallError>> {
        match self.take(id, call)? {
            Body::Response(bytes) => Some(Ok(R::Response::decode(bytes).expect("the method's response"))),
            Body::Error(error) => Some(Err(CallError::new(Code::from_number(error.code), error.message))),
            body => panic!("{body:?} answers no unary call"),
        }
    }

    /// Takes the next frame of a call.
    fn take(&mut self, id: ConnectionId, call: u64) -> Option<Body> {
        let frames = &mut self.clients.get_mut(&id)?.frames;
        let index = frames.iter().position(|(number, _)| *number == call)?;
        Some(frames.remove(index).1)
    }

    /// Returns the error with which the connection was closed, as the client received it.
    fn last_words(&mut self, id: ConnectionId) -> Option<CallError> {
        match self.take(id, 0)? {
            Body::Error(error) => Some(CallError::new(Code::from_number(error.code), error.message)),
            body => panic!("{body:?} closes no connection"),
        }
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        self.closed.iter().all(|(closed, _)| *closed != id)
    }

    fn wait(&mut self, duration: Duration) {
        let end = self.now.after(duration);
        while let Some((at, _)) = self.engine.poll_deadline().filter(|(at, _)| *at <= end) {
            self.set_time(self.now.mono.max(at));
            self.engine.handle_timeout(self.now);
            self.run();
        }
        self.set_time(end);
    }

    /// Advances all clocks together.
    fn set_time(&mut self, mono: Instant) {
        let passed = mono - self.now.mono;
        let millis = u64::try_from(passed.as_millis()).expect("a test's time");
        self.now = Now {
            mono,
            wall_ms: self.now.wall_ms + i64::try_from(millis).expect("a test's time"),
            // Rounded up, so that a wake-up does not come too early for the coarser clock.
            boot_ms: self.now.boot_ms + millis + u64::from(!passed.subsec_nanos().is_multiple_of(1_000_000)),
        };
    }

    /// Answers the oldest control request in place of the sync engine.
    fn sync_answers(&mut self, answer: Result<Answer, ControlError>) {
        let asked = self.asked.remove(0);
        self.engine.handle_event(self.now, Event::Answered { call: asked.call, answer });
        self.run();
    }

    /// Drains the engine, in the order the module states, until it has no more output.
    fn run(&mut self) {
        loop {
            while let Some(submitted) = self.engine.poll_store() {
                self.queued.push(submitted);
            }
            while let Some(asked) = self.engine.poll_asked() {
                match asked.control {
                    Control::Announce => self.announced += 1,
                    Control::Measure if self.measured.is_some() => {
                        let measured = self.measured.clone().unwrap_or_default();
                        let answer = Ok(Answer::Measured(Box::new(measured)));
                        self.engine.handle_event(self.now, Event::Answered { call: asked.call, answer });
                    }
                    _ => self.asked.push(asked),
                }
            }
            while let Some(id) = self.engine.poll_output() {
                self.flush(id);
            }
            // A client closes a connection that the node has shut for writing.
            while let Some(id) = self.engine.poll_shut() {
                self.closed.push((id, "shut".to_owned()));
                if !self.keeps_sending {
                    self.engine.handle_closed(self.now, id);
                }
            }
            while let Some(closed) = self.engine.poll_close() {
                self.closed.push((closed.connection, closed.reason));
            }
            let busy = self.engine.poll_deadline().is_some_and(|(at, _)| self.now.reached(at));
            if busy {
                self.engine.handle_timeout(self.now);
            } else if !self.run_store() {
                return;
            }
        }
    }

    fn flush(&mut self, id: ConnectionId) {
        let client = self.clients.get_mut(&id).expect("connected");
        let bytes = self.engine.output(id);
        let count = bytes.len().min(client.takes);
        if count == 0 {
            return;
        }
        client.takes -= count;
        if let Some(text) = &mut client.text {
            text.extend_from_slice(&bytes[..count]);
            return self.engine.handle_written(self.now, id, count);
        }
        client.decoder.extend(&bytes[..count]);
        while let Some(frame) = client.decoder.next_frame().expect("a node sends frames") {
            client.frames.push(frame);
        }
        self.engine.handle_written(self.now, id, count);
    }

    /// Lets the client take `count` more bytes.
    fn take_bytes(&mut self, id: ConnectionId, count: usize) {
        self.clients.get_mut(&id).expect("connected").takes = count;
        self.flush(id);
        self.run();
    }

    fn run_store(&mut self) -> bool {
        if !self.store_runs || self.queued.is_empty() {
            return false;
        }
        let mut replies = Vec::new();
        self.store.handle_batch(self.now, self.queued.drain(..), &mut replies);
        self.engine.handle_tip(self.now, self.store.tip());
        for reply in replies {
            self.engine.handle_reply(self.now, reply);
        }
        true
    }
}

fn code<T: std::fmt::Debug>(result: Result<T, CallError>) -> Code {
    result.expect_err("an error").code
}

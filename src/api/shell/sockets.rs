//! Client sockets: non-blocking reads and writes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::api::{Caller, ConnectionId, Engine};
use crate::clock::Now;

/// Maximum bytes per read: many small requests arrive in one, and no client delays the others for long.
const READ_BYTES: usize = 64 << 10;

/// The socket of a connected client.
#[derive(Debug)]
pub(super) enum Stream {
    Unix(UnixStream),
    Tcp(TcpStream),
}

impl Stream {
    fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => registry.register(stream, token, Interest::READABLE),
            Stream::Tcp(stream) => registry.register(stream, token, Interest::READABLE),
        }
    }

    fn reregister(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => registry.reregister(stream, token, interest),
            Stream::Tcp(stream) => registry.reregister(stream, token, interest),
        }
    }

    /// Shuts the socket for writing, so that the client sees the end of the stream.
    fn shut(&self) -> io::Result<()> {
        match self {
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.read(bytes),
            Stream::Tcp(stream) => stream.read(bytes),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Unix(stream) => stream.write(bytes),
            Stream::Tcp(stream) => stream.write(bytes),
        }
    }
}

/// One client's socket and its readiness.
#[derive(Debug)]
struct Client {
    stream: Stream,
    /// True once the client has closed its side; only buffered bytes are left to read. The kernel reports this once.
    ended: bool,
    /// True while the socket is full. Only then is writability registered: an event for each reply that the client takes would
    /// cost both sides a wake-up.
    full: bool,
}

impl Client {
    /// Registers the events of interest if they changed.
    fn set_full(&mut self, registry: &Registry, id: ConnectionId, full: bool) -> io::Result<()> {
        if self.full == full {
            return Ok(());
        }
        self.full = full;
        let interest = if full { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.stream.reregister(registry, token(id)?, interest)
    }
}

fn token(id: ConnectionId) -> io::Result<Token> {
    usize::try_from(id.0).map(Token).map_err(io::Error::other)
}

/// All client sockets. The kernel reports readiness once (edge-triggered), so sockets with unread bytes are remembered here.
#[derive(Debug)]
pub(super) struct Sockets {
    clients: BTreeMap<ConnectionId, Client>,
    next: u64,
    unread: BTreeSet<ConnectionId>,
    buffer: Box<[u8]>,
}

impl Sockets {
    /// Numbers connections from `first`; lower tokens are listeners.
    pub(super) fn new(first: u64) -> Sockets {
        Sockets {
            clients: BTreeMap::new(),
            next: first,
            unread: BTreeSet::new(),
            buffer: vec![0; READ_BYTES].into_boxed_slice(),
        }
    }

    /// Accepts a client, unless the node is shutting down.
    pub(super) fn open(
        &mut self,
        now: Now,
        registry: &Registry,
        engine: &mut Engine,
        mut stream: Stream,
        caller: Caller,
    ) {
        let id = ConnectionId(self.next);
        if engine.handle_open(now, id, caller).is_err() {
            return;
        }
        self.next += 1;
        match token(id).and_then(|token| stream.register(registry, token)) {
            Ok(()) => _ = self.clients.insert(id, Client { stream, ended: false, full: false }),
            Err(cause) => {
                log::warn!("a client could not be accepted: {cause}");
                engine.handle_closed(now, id);
            }
        }
    }

    /// Shuts a connection for writing; input is still read.
    pub(super) fn shut(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get(&id) {
            // A client that has disconnected is noticed by the next read.
            let _ = client.stream.shut();
        }
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        self.clients.remove(&id);
        self.unread.remove(&id);
    }

    /// Notes that the client has closed its side; bytes that it sent before may still be unread.
    pub(super) fn note_end(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.ended = true;
        }
    }

    /// Reads once. A read that fills less than the buffer has emptied the socket (epoll(7), on edge triggering).
    pub(super) fn read(&mut self, now: Now, engine: &mut Engine, id: ConnectionId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        // Marked first, so that a client that is paused now is read once it may be.
        self.unread.insert(id);
        if !engine.wants_bytes(id) {
            return;
        }
        match client.stream.read(&mut self.buffer) {
            Ok(0) => self.lost(now, engine, id),
            Ok(count) => {
                if count < self.buffer.len() && !client.ended {
                    self.unread.remove(&id);
                }
                engine.handle_bytes(now, id, &self.buffer[..count]);
            }
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => _ = self.unread.remove(&id),
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => self.lost(now, engine, id),
        }
    }

    /// Writes as much of a client's output as its socket takes.
    pub(super) fn write(&mut self, now: Now, registry: &Registry, engine: &mut Engine, id: ConnectionId) {
        while let Some(client) = self.clients.get_mut(&id) {
            let bytes = engine.output(id);
            if bytes.is_empty() {
                return self.note_full(now, registry, engine, id, false);
            }
            match client.stream.write(bytes) {
                Ok(count) => engine.handle_written(now, id, count),
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    return self.note_full(now, registry, engine, id, true);
                }
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return self.lost(now, engine, id),
            }
        }
    }

    fn note_full(&mut self, now: Now, registry: &Registry, engine: &mut Engine, id: ConnectionId, full: bool) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if client.set_full(registry, id, full).is_err() {
            self.lost(now, engine, id);
        }
    }

    fn lost(&mut self, now: Now, engine: &mut Engine, id: ConnectionId) {
        engine.handle_closed(now, id);
        self.close(id);
    }

    /// Returns true if a client has unread bytes that may be read now.
    pub(super) fn has_unread(&self, engine: &Engine) -> bool {
        self.unread.iter().any(|id| engine.wants_bytes(*id))
    }

    /// Returns the clients with unread bytes that may be read now.
    pub(super) fn unread(&self, engine: &Engine) -> Vec<ConnectionId> {
        self.unread.iter().copied().filter(|id| engine.wants_bytes(*id)).collect()
    }
}

//! Client sockets: bytes in, bytes out, as far as each goes without waiting.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::net::Shutdown;

use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};

use crate::api::{Caller, ConnectionId, Engine};
use crate::clock::Now;

/// Bytes of one read. Many small requests come with one, and no client holds up the others for long.
const READ_BYTES: usize = 64 << 10;

/// A connected client.
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

    /// Tells the client that nothing more will come.
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

#[derive(Debug)]
struct Client {
    stream: Stream,
    /// It will send no more than what waits here; the kernel says so only once.
    ended: bool,
    /// The socket was full. Only then is the kernel asked to say when it takes more: being told at each reply the client
    /// takes would cost both sides a wake-up.
    full: bool,
}

impl Client {
    /// Asks the kernel for what is now of interest, if that changed.
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

/// Every client's socket. The kernel reports readiness once, so what was not read to the end is remembered here.
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

    /// Lets a client in, unless the node ends.
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
                log::warn!("a client could not be let in: {cause}");
                engine.handle_closed(now, id);
            }
        }
    }

    /// Ends the direction towards the client; what it still sends is read.
    pub(super) fn shut(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get(&id) {
            // A client that is gone is noticed when it is read from.
            let _ = client.stream.shut();
        }
    }

    pub(super) fn close(&mut self, id: ConnectionId) {
        self.clients.remove(&id);
        self.unread.remove(&id);
    }

    /// The client has closed its side; what it sent before is still to be read.
    pub(super) fn note_end(&mut self, id: ConnectionId) {
        if let Some(client) = self.clients.get_mut(&id) {
            client.ended = true;
        }
    }

    /// Reads once. A read that fills less than the buffer has emptied the socket (epoll(7), on edge triggering).
    pub(super) fn read(&mut self, now: Now, engine: &mut Engine, id: ConnectionId) {
        let Some(client) = self.clients.get_mut(&id) else { return };
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

    /// Whether a client has sent more that can be read now.
    pub(super) fn has_unread(&self, engine: &Engine) -> bool {
        self.unread.iter().any(|id| engine.wants_bytes(*id))
    }

    /// The clients that have sent more that can be read now.
    pub(super) fn unread(&self, engine: &Engine) -> Vec<ConnectionId> {
        self.unread.iter().copied().filter(|id| engine.wants_bytes(*id)).collect()
    }
}

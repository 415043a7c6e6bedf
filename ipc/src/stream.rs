//! The socket under a client: unix or TCP, blocking, with a time limit on reads.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::Target;

#[derive(Debug)]
enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
}

/// A connected socket. Remembers its read timeout, so that setting the same one again costs nothing.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    timeout: Option<Duration>,
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Stream {
        Stream { socket: Socket::Unix(socket), timeout: None }
    }
}

impl Stream {
    pub(crate) fn connect(target: &Target) -> io::Result<Stream> {
        let socket = match target {
            Target::Unix(path) => Socket::Unix(UnixStream::connect(path)?),
            Target::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                Socket::Tcp(stream)
            }
        };
        Ok(Stream { socket, timeout: None })
    }

    pub(crate) fn set_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if self.timeout == timeout {
            return Ok(());
        }
        match &self.socket {
            Socket::Unix(stream) => stream.set_read_timeout(timeout)?,
            Socket::Tcp(stream) => stream.set_read_timeout(timeout)?,
        }
        self.timeout = timeout;
        Ok(())
    }

    pub(crate) fn set_write_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => stream.set_write_timeout(timeout),
            Socket::Tcp(stream) => stream.set_write_timeout(timeout),
        }
    }

    /// The same socket once more, for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        let socket = match &self.socket {
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
        };
        Ok(Stream { socket, timeout: self.timeout })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tcp(stream) => stream.shutdown(how),
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.socket {
            Socket::Unix(stream) => stream.write_all(bytes),
            Socket::Tcp(stream) => stream.write_all(bytes),
        }
    }

    /// Reads some bytes; the end of the stream is an error.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = match &mut self.socket {
                Socket::Unix(stream) => stream.read(bytes),
                Socket::Tcp(stream) => stream.read(bytes),
            };
            match read {
                Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the node closed the connection")),
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "the node did not answer in time"));
                }
                other => return other,
            }
        }
    }
}

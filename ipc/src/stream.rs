//! The client's socket: unix or TCP, blocking, with timeouts for reads and writes.

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

/// A connected socket that caches its timeouts, so that setting the same one again needs no system call.
#[derive(Debug)]
pub(crate) struct Stream {
    socket: Socket,
    timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Stream {
        Stream { socket: Socket::Unix(socket), timeout: None, write_timeout: None }
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
        Ok(Stream { socket, timeout: None, write_timeout: None })
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

    fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => stream.set_write_timeout(timeout)?,
            Socket::Tcp(stream) => stream.set_write_timeout(timeout)?,
        }
        self.write_timeout = timeout;
        Ok(())
    }

    /// Duplicates the handle, for another thread.
    pub(crate) fn try_clone(&self) -> io::Result<Stream> {
        let socket = match &self.socket {
            Socket::Unix(stream) => Socket::Unix(stream.try_clone()?),
            Socket::Tcp(stream) => Socket::Tcp(stream.try_clone()?),
        };
        Ok(Stream { socket, timeout: self.timeout, write_timeout: self.write_timeout })
    }

    pub(crate) fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => stream.shutdown(how),
            Socket::Tcp(stream) => stream.shutdown(how),
        }
    }

    /// Reads bytes that have already arrived; `None` if there are none, `Some(0)` at the end of the stream.
    pub(crate) fn read_waiting(&mut self, bytes: &mut [u8]) -> io::Result<Option<usize>> {
        self.set_nonblocking(true)?;
        let read = match &mut self.socket {
            Socket::Unix(stream) => stream.read(bytes),
            Socket::Tcp(stream) => stream.read(bytes),
        };
        self.set_nonblocking(false)?;
        match read {
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => Ok(None),
            other => other.map(Some),
        }
    }

    fn set_nonblocking(&self, nonblocking: bool) -> io::Result<()> {
        match &self.socket {
            Socket::Unix(stream) => stream.set_nonblocking(nonblocking),
            Socket::Tcp(stream) => stream.set_nonblocking(nonblocking),
        }
    }

    /// Writes all of `bytes`; `remaining` returns the timeout of each write. On a timeout the socket is shut down, since bytes
    /// that follow a partial frame could not be decoded.
    pub(crate) fn write_all(&mut self, bytes: &[u8], remaining: impl Fn() -> Option<Duration>) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.write(rest, remaining()) {
                Ok(count) => rest = &rest[count..],
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                Err(cause) => {
                    if cause.kind() == io::ErrorKind::TimedOut {
                        self.shutdown(Shutdown::Both)?;
                    }
                    return Err(cause);
                }
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8], timeout: Option<Duration>) -> io::Result<usize> {
        if self.write_timeout != timeout {
            self.set_write_timeout(timeout)?;
        }
        let written = match &mut self.socket {
            Socket::Unix(stream) => stream.write(bytes),
            Socket::Tcp(stream) => stream.write(bytes),
        };
        match written {
            Ok(0) => Err(io::ErrorKind::WriteZero.into()),
            Err(cause) if cause.kind() == io::ErrorKind::WouldBlock => {
                Err(io::Error::new(io::ErrorKind::TimedOut, "the node did not take the request in time"))
            }
            other => other,
        }
    }

    /// Reads at least one byte; the end of the stream is an error.
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

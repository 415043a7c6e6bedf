//! A UDP socket with what wakes its thread, made before the thread starts so that others can wake it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::UdpSocket;
use mio::{Interest, Poll, Token, Waker};

/// The socket's events.
pub(crate) const SOCKET: Token = Token(0);
const WAKE: Token = Token(1);

/// Owned by the thread that polls it.
#[derive(Debug)]
pub struct Socket {
    pub(crate) poll: Poll,
    pub(crate) socket: UdpSocket,
    waker: Arc<Waker>,
}

impl Socket {
    /// Binds the socket. The kernel may hold up to `buffer_bytes` in each direction; it gives what it allows.
    ///
    /// # Errors
    /// The address is taken or not ours.
    pub fn bind(address: SocketAddr, buffer_bytes: usize) -> io::Result<Socket> {
        let poll = Poll::new()?;
        let mut socket = UdpSocket::bind(address)?;
        // Larger buffers ride out a burst; less than asked for is fine.
        _ = rustix::net::sockopt::set_socket_recv_buffer_size(&socket, buffer_bytes);
        _ = rustix::net::sockopt::set_socket_send_buffer_size(&socket, buffer_bytes);
        poll.registry().register(&mut socket, SOCKET, Interest::READABLE)?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKE)?);
        Ok(Socket { poll, socket, waker })
    }

    /// Where it is bound; with port 0 asked for, the port it got.
    ///
    /// # Errors
    /// The socket failed.
    pub fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Asks to be woken when there is room to send as well. Not asked for without need: the kernel would wake the thread
    /// for every datagram that has left.
    pub(crate) fn wait_for_room(&mut self, wanted: bool) -> io::Result<()> {
        let interest = if wanted { Interest::READABLE | Interest::WRITABLE } else { Interest::READABLE };
        self.poll.registry().reregister(&mut self.socket, SOCKET, interest)
    }

    /// Wakes the thread.
    #[must_use]
    pub fn waker(&self) -> Arc<Waker> {
        Arc::clone(&self.waker)
    }
}

//! A UDP forwarder between two nodes that counts traffic, independently of the nodes' counters.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bench_peers::Failure;

/// Maximum time until a forwarding thread notices that it is no longer needed.
const NOTICE: Duration = Duration::from_millis(50);
/// Size in bytes that separates QUIC packets with only acknowledgements from those that carry a message.
const MESSAGE_BYTES: usize = 45;

/// Counted traffic. Bytes are UDP payload.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bytes: u64,
    /// Number of runs of message packets in the same direction.
    pub(crate) turns: u64,
    last: Option<Direction>,
    client: Option<SocketAddr>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Direction {
    Out,
    Back,
}

impl Traffic {
    fn count(&mut self, direction: Direction, bytes: usize) {
        self.bytes += bytes as u64;
        if bytes >= MESSAGE_BYTES && self.last != Some(direction) {
            self.turns += 1;
            self.last = Some(direction);
        }
    }
}

/// Forwards between one sender and one target.
pub(crate) struct Forwarder {
    address: SocketAddr,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    front: UdpSocket,
    back: UdpSocket,
    traffic: Mutex<Traffic>,
    ended: AtomicBool,
}

impl Forwarder {
    pub(crate) fn to(port: u16) -> Result<Forwarder, Failure> {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        back.connect((Ipv4Addr::LOCALHOST, port))?;
        front.set_read_timeout(Some(NOTICE))?;
        back.set_read_timeout(Some(NOTICE))?;
        let address = front.local_addr()?;
        let shared = Arc::new(Shared { front, back, traffic: Mutex::default(), ended: AtomicBool::new(false) });
        let run = |direction| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.run(direction))
        };
        let threads = vec![run(Direction::Out), run(Direction::Back)];
        Ok(Forwarder { address, shared, threads })
    }

    /// Returns the address to send to.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    /// Resets the counters.
    pub(crate) fn reset(&self) {
        let mut traffic = self.shared.lock();
        *traffic = Traffic { client: traffic.client, ..Traffic::default() };
    }

    /// Returns the traffic since the last reset.
    pub(crate) fn traffic(&self) -> Traffic {
        *self.shared.lock()
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self, direction: Direction) {
        let mut datagram = vec![0; 65_536];
        while !self.ended.load(Ordering::Relaxed) {
            match self.forward(direction, &mut datagram) {
                Err(cause) if !passing(cause.kind()) => {
                    eprintln!("bench: the forwarder failed: {cause}");
                    return;
                }
                _ => {}
            }
        }
    }

    fn forward(&self, direction: Direction, datagram: &mut [u8]) -> std::io::Result<()> {
        match direction {
            Direction::Out => {
                let (length, client) = self.front.recv_from(datagram)?;
                let mut traffic = self.lock();
                traffic.client = Some(client);
                traffic.count(direction, length);
                drop(traffic);
                self.back.send(&datagram[..length])?;
            }
            Direction::Back => {
                let length = self.back.recv(datagram)?;
                let mut traffic = self.lock();
                traffic.count(direction, length);
                let client = traffic.client;
                drop(traffic);
                if let Some(client) = client {
                    self.front.send_to(&datagram[..length], client)?;
                }
            }
        }
        Ok(())
    }
}

/// Returns true for errors without data to read or without a receiver (a node is being restarted).
fn passing(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::ConnectionRefused | ErrorKind::Interrupted)
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // A panic of the thread has already been reported.
            let _ = thread.join();
        }
    }
}

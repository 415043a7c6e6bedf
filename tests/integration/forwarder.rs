//! A path to a real node that can be cut, delayed, throttled and made lossy: forwards the datagrams of one dialler over
//! loopback.

use std::net::{SocketAddr, UdpSocket};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Maximum number of datagrams in transit in one direction; further ones are lost.
const UNDER_WAY: usize = 4_096;
/// Maximum queueing time on a throttled path; datagrams that would wait longer are lost, as in a router's queue.
const QUEUE: Duration = Duration::from_secs(1);
/// Size of the IP and UDP headers in bytes, which count against the rate.
const HEADERS_BYTES: usize = 28;

/// Quality of a path, in each direction.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quality {
    pub cut: bool,
    pub delay: Duration,
    pub loss_per_mille: u64,
    pub bytes_per_second: Option<u64>,
}

/// A forwarder; see the module's documentation. Its threads end with the test's process.
pub struct Forwarder {
    pub address: SocketAddr,
    quality: Arc<Mutex<Quality>>,
}

impl Forwarder {
    /// Creates a path to the node at this address.
    pub fn to(node: &str, quality: Quality) -> Forwarder {
        let [outer, inner] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").expect("a socket"));
        inner.connect(node).expect("loopback");
        let (address, quality) = (outer.local_addr().expect("bound"), Arc::new(Mutex::new(quality)));
        let dialler = Arc::new(Mutex::new(None));
        let copies = (outer.try_clone().expect("a copy"), inner.try_clone().expect("a copy"));
        let learnt = Arc::clone(&dialler);
        carry(
            &quality,
            move |buffer| {
                let (length, source) = outer.recv_from(buffer).ok()?;
                *learnt.lock().expect("never poisoned") = Some(source);
                Some(length)
            },
            move |datagram| drop(inner.send(datagram)),
        );
        carry(
            &quality,
            move |buffer| copies.1.recv(buffer).ok(),
            move |datagram| {
                if let Some(to) = *dialler.lock().expect("never poisoned") {
                    drop(copies.0.send_to(datagram, to));
                }
            },
        );
        Forwarder { address, quality }
    }

    pub fn set_cut(&self, cut: bool) {
        self.quality.lock().expect("never poisoned").cut = cut;
    }
}

struct Datagram {
    arrives: Instant,
    bytes: Vec<u8>,
}

/// Forwards one direction with two threads: one receives datagrams, one delivers them when they are due.
fn carry(
    quality: &Arc<Mutex<Quality>>,
    mut receive: impl FnMut(&mut [u8]) -> Option<usize> + Send + 'static,
    mut send: impl FnMut(&[u8]) + Send + 'static,
) {
    let (way, end): (SyncSender<Datagram>, Receiver<Datagram>) = sync_channel(UNDER_WAY);
    let quality = Arc::clone(quality);
    spawn(move || {
        let (mut buffer, mut fate, mut free_at) = ([0; 2_048], 0x9e37_79b9_7f4a_7c15, now());
        loop {
            // The kernel reports a killed node once per datagram; the forwarder must outlive that.
            let Some(length) = receive(&mut buffer) else { continue };
            let quality = *quality.lock().expect("never poisoned");
            if let Some(arrives) = quality.arrival(length, &mut free_at, &mut fate)
                && let Err(TrySendError::Disconnected(_)) =
                    way.try_send(Datagram { arrives, bytes: buffer[..length].to_vec() })
            {
                return;
            }
        }
    });
    spawn(move || {
        for datagram in end {
            wait_until(datagram.arrives);
            send(&datagram.bytes);
        }
    });
}

impl Quality {
    /// Returns the arrival time of a datagram received now, or `None` if it is lost.
    fn arrival(&self, length: usize, free_at: &mut Instant, fate: &mut u64) -> Option<Instant> {
        let now = now();
        *fate = fate.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if self.cut || (*fate >> 33) % 1_000 < self.loss_per_mille {
            return None;
        }
        if let Some(rate) = self.bytes_per_second {
            let begins = now.max(*free_at);
            if begins > now + QUEUE {
                return None;
            }
            *free_at = begins + Duration::from_secs_f64((length + HEADERS_BYTES) as f64 / rate as f64);
            return Some(*free_at + self.delay);
        }
        Some(now + self.delay)
    }
}

#[expect(clippy::disallowed_methods, reason = "between real nodes datagrams travel in real time")]
fn now() -> Instant {
    Instant::now()
}

#[expect(clippy::disallowed_methods, reason = "between real nodes datagrams travel in real time")]
fn wait_until(then: Instant) {
    std::thread::sleep(then.saturating_duration_since(now()));
}

#[expect(clippy::disallowed_methods, reason = "a test's network needs somebody who carries")]
fn spawn(work: impl FnOnce() + Send + 'static) {
    std::thread::spawn(work);
}

#[test]
fn a_way_loses_delays_and_holds_to_its_rate_as_told() {
    let quality = Quality { loss_per_mille: 50, bytes_per_second: Some(10_000), ..Quality::default() };
    let (begun, mut free_at, mut fate) = (now(), now(), 1);
    let arrived: Vec<Instant> = (0..1_000).filter_map(|_| quality.arrival(72, &mut free_at, &mut fate)).collect();
    // A second of queue at a hundred bytes each, plus the sending time of the loop itself.
    assert!((100..=103).contains(&arrived.len()), "{}", arrived.len());
    assert!(*arrived.last().expect("some") >= begun + Duration::from_secs(1));
    let quality = Quality { bytes_per_second: None, delay: Duration::from_millis(800), ..quality };
    let arrived: Vec<Instant> = (0..10_000).filter_map(|_| quality.arrival(72, &mut free_at, &mut fate)).collect();
    assert!((9_400..9_600).contains(&arrived.len()), "{}", arrived.len());
    assert!(arrived[0] >= begun + Duration::from_millis(800));
    assert_eq!(Quality { cut: true, ..quality }.arrival(72, &mut free_at, &mut fate), None);
}

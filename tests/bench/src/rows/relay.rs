//! Cost of a relayed path: documents between nodes, and datagrams compared with a bare forwarder.

use std::net::UdpSocket;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_ipc::Client;
use peat_node::identity::Identity;
use peat_node::relay::wire::{AllocationClaim, AllocationRequest, Answer, Handle, Header, RelayKey, Token};
use peat_node::sync::proof::FormationKey;

use crate::bench::Bench;
use crate::documents::{LATEST, load};
use crate::node::{Node, SHARED_KEY, connected, documents, id};
use crate::process::busy;
use crate::row::Row;
use crate::sample::median;
use crate::table::{Figure, Line, Target};
use crate::wait::until;

/// A payload as large as QUIC's datagrams.
const PAYLOAD: [u8; 1_200] = [0x40; 1_200];
/// Maximum number of datagrams in transit.
const WINDOW: usize = 32;
/// Time after which a datagram counts as lost.
const LOST: Duration = Duration::from_millis(200);
/// Windows in a row of which nothing arrived, after which a forwarder counts as gone: 4 s.
const LOST_WINDOWS: usize = 20;

/// A relay in a separate process.
struct Relay {
    child: Child,
    address: String,
}

impl Relay {
    fn start(bench: &Bench) -> Result<Relay, Failure> {
        let address = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.to_string();
        let child = Command::new(&bench.node)
            .env_clear()
            .env("PEAT_NODE_SHARED_KEY", SHARED_KEY)
            .args(["relay", "--listen", &address, "--log", "error"])
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Relay { child, address })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Documents per second to an empty node, through a relay and directly.
pub(crate) struct Relayed;

impl Row for Relayed {
    fn name(&self) -> &'static str {
        "relayed"
    }

    fn about(&self) -> &'static str {
        "documents through a relay, and directly, over loopback"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let count = bench.times(30_000);
        let relay = Relay::start(bench)?;
        let relayed = format!("relay:{}", relay.address);
        let mut a = Node::new(bench, "relayed-a")?;
        // The node gets an allocation at the relay because of a peer that never connects.
        a.dials(&"ab".repeat(32), &relayed);
        let mut holder = a.start()?;
        load(&mut holder, LATEST, 0..count, 0)?;
        let a_id = id(&mut holder)?;
        let mut rounds = Vec::new();
        for round in 0..4 {
            let direct = receive(bench, &a_id, &a.address(), count)?;
            let through = receive(bench, &a_id, &relayed, count)?;
            if round > 0 {
                rounds.push((through, direct));
            }
        }
        let of = |figure: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        Ok(vec![Line::relative(
            "relayed against direct throughput, loopback",
            Figure::PerSecond(of(|(through, _)| *through)),
            ("direct", Figure::PerSecond(of(|(_, direct)| *direct))),
            of(|(through, direct)| through / direct),
            Target::at_least_times(0.8),
        )])
    }
}

/// Returns documents per second, from the connection to the last of `count`.
fn receive(bench: &Bench, id: &str, address: &str, count: usize) -> Result<f64, Failure> {
    let mut node = Node::new(bench, "relayed-b")?;
    node.dials(id, address);
    let mut client: Client = node.start()?;
    connected(&mut client)?;
    let begun = Instant::now();
    let before = documents(&mut client)?;
    until("all documents have come", || Ok(documents(&mut client)? == count as u64))?;
    Ok((count as f64 - before as f64) / begun.elapsed().as_secs_f64())
}

/// Datagrams per second of processor time, of a relay and of a bare forwarder.
pub(crate) struct Forwarded;

impl Row for Forwarded {
    fn name(&self) -> &'static str {
        "relay-packets"
    }

    fn about(&self) -> &'static str {
        "datagrams a second on one core, relay and bare forwarder"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let count = bench.times(300_000);
        let relay = Relay::start(bench)?;
        let process = Path::new("/proc").join(relay.child.id().to_string());
        let mut rounds = Vec::new();
        for round in 0..6_u8 {
            // New allocations: those of an earlier round may have expired on a slow machine.
            let (sender, receiver) = (place(&relay, 2 * round + 1)?, place(&relay, 2 * round + 2)?);
            let header = Header { token: sender.token, node: Handle::of(&receiver.identity.id()) };
            let datagram = [&header.to_bytes()[..], &PAYLOAD].concat();
            let bare = Bare::to(receiver.socket.local_addr()?)?;
            sender.socket.connect(&relay.address)?;
            let relayed = rate(count, &sender.socket, &receiver.socket, &datagram, || busy(&process))?;
            sender.socket.connect(bare.address)?;
            let forwarded = rate(count, &sender.socket, &receiver.socket, &datagram, || busy(&bare.task))?;
            if round > 0 {
                rounds.push((relayed, forwarded));
            }
        }
        let of = |figure: fn(&(f64, f64)) -> f64| median(&rounds.iter().map(figure).collect::<Vec<_>>());
        Ok(vec![Line::relative(
            "relay, packets a second on one core, against a bare UDP forwarder",
            Figure::PerSecond(of(|(relayed, _)| *relayed)),
            ("bare", Figure::PerSecond(of(|(_, bare)| *bare))),
            of(|(relayed, bare)| relayed / bare),
            Target::at_least_times(0.5),
        )])
    }
}

/// A client with an allocation at the relay.
struct Place {
    identity: Identity,
    socket: UdpSocket,
    token: Token,
}

fn place(relay: &Relay, number: u8) -> Result<Place, Failure> {
    let (identity, socket) = (Identity::from_seed([number; 32]), UdpSocket::bind("127.0.0.1:0")?);
    socket.set_read_timeout(Some(LOST))?;
    let key = RelayKey::new(&FormationKey::parse(SHARED_KEY)?);
    let (mut claim, mut buffer, mut given) = (AllocationClaim::default(), [0; 256], None);
    until("the relay gives a place", || {
        socket.send_to(&AllocationRequest::new(&identity, [0; 8], claim).to_bytes(&key), &relay.address)?;
        // A relay that is starting does not answer.
        let Ok(length) = socket.recv(&mut buffer) else { return Ok(false) };
        match Answer::parse(&buffer[..length], &identity.id(), &key) {
            Some((_, Answer::Cookie { relay, cookie })) => claim = AllocationClaim { relay, cookie, ..claim },
            Some((_, Answer::Allocated { token, .. })) => given = Some(token),
            _ => {}
        }
        Ok(given.is_some())
    })?;
    Ok(Place { identity, socket, token: given.ok_or("no place")? })
}

/// Sends `count` datagrams through a forwarder, a few at a time; returns the number forwarded per second of its processor time.
fn rate(
    count: usize,
    from: &UdpSocket,
    to: &UdpSocket,
    datagram: &[u8],
    busy: impl Fn() -> Result<f64, Failure>,
) -> Result<f64, Failure> {
    let (mut arrived, mut buffer, before) = (0, [0; 2_048], busy()?);
    let mut lost_windows = 0;
    for _ in 0..count / WINDOW {
        for _ in 0..WINDOW {
            from.send(datagram)?;
        }
        for _ in 0..WINDOW {
            if to.recv(&mut buffer).is_err() {
                break;
            }
            arrived += 1;
            lost_windows = 0;
        }
        lost_windows += 1;
        if lost_windows > LOST_WINDOWS {
            return Err(format!("nothing arrived of {LOST_WINDOWS} windows of {WINDOW} datagrams in a row").into());
        }
    }
    Ok(f64::from(arrived) / (busy()? - before))
}

/// A thread that forwards every datagram it receives, and does nothing else.
struct Bare {
    address: std::net::SocketAddr,
    task: std::path::PathBuf,
    ended: Arc<AtomicBool>,
}

impl Bare {
    fn to(receiver: std::net::SocketAddr) -> Result<Bare, Failure> {
        let socket = UdpSocket::bind("127.0.0.1:0")?;
        socket.set_read_timeout(Some(LOST))?;
        let (address, ended) = (socket.local_addr()?, Arc::new(AtomicBool::new(false)));
        let (tells, task) = std::sync::mpsc::channel();
        let over = ended.clone();
        std::thread::spawn(move || {
            let mut buffer = [0; 2_048];
            if tells.send(rustix::thread::gettid().as_raw_nonzero()).is_err() {
                return;
            }
            while !over.load(Ordering::Relaxed) {
                let Ok(length) = socket.recv(&mut buffer) else { continue };
                if socket.send_to(&buffer[..length], receiver).is_err() {
                    return;
                }
            }
        });
        let task = Path::new("/proc/self/task").join(task.recv()?.to_string());
        Ok(Bare { address, task, ended })
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

//! Reads while a commit waits for the disk. The store is used as a library here, because the node has no means to slow a disk
//! down.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bench_peers::Failure;
use peat_node::clock::Now;
use peat_node::identity::EndpointId;
use peat_node::random::System;
use peat_node::store::{
    Disk, DocumentWrite, Envelope, FileDisk, Key, Outcome, Put, Reader, Reply, Store, StoreConfig, StoreRequest, Ticket,
};
use redb::StorageBackend;

use crate::bench::Bench;
use crate::documents::{LATEST, id, json};
use crate::row::Row;
use crate::sample::{percentile, timed};
use crate::table::{Figure, Line, Target};

const SYNC: Duration = Duration::from_millis(50);
const DOCUMENTS: usize = 1_000;
/// Limit on the duration of reads beside commits, in seconds: a tenth of one sync.
const SLOWEST: f64 = 0.005;

/// A disk with slow syncs, once enabled.
#[derive(Debug)]
struct SlowDisk {
    inner: FileDisk,
    slow: Arc<AtomicBool>,
}

impl StorageBackend for SlowDisk {
    fn len(&self) -> io::Result<u64> {
        self.inner.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.inner.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.inner.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.slow.load(Ordering::Relaxed) {
            sleep(SYNC);
        }
        self.inner.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.inner.write(offset, data)
    }
}

impl Disk for SlowDisk {
    fn reserve(&self, bytes: u64) -> io::Result<()> {
        self.inner.reserve(bytes)
    }

    fn used(&self) -> u64 {
        self.inner.used()
    }
}

/// GetDocument's read while every sync takes 50 ms, against the same on an idle store.
pub(crate) struct Reads;

impl Row for Reads {
    fn name(&self) -> &'static str {
        "slow-disk"
    }

    fn about(&self) -> &'static str {
        "reads while a commit waits 50 ms for the disk"
    }

    fn run(&self, bench: &Bench) -> Result<Vec<Line>, Failure> {
        let slow = Arc::new(AtomicBool::new(false));
        let mut store = open(&bench.directory("slow-disk")?, slow.clone())?;
        for number in 0..DOCUMENTS {
            write(&mut store, number, 0)?;
        }
        let reader = store.reader();
        let reads = bench.times(20_000);
        let idle = read_for(&reader, reads, || false)?;
        slow.store(true, Ordering::Relaxed);
        let busy = beside_commits(store, &reader, bench.times(40))?;
        Ok(lines(&idle, &busy))
    }
}

fn lines(idle: &[f64], busy: &[f64]) -> Vec<Line> {
    let (ours, floor) = (percentile(busy, 50), percentile(idle, 50));
    vec![
        Line::relative(
            "read during a 50 ms sync, p50",
            Figure::Seconds(ours),
            ("idle", Figure::Seconds(floor)),
            ours / floor,
            Target::at_most_times(2.0),
        ),
        Line::absolute(
            "read during a 50 ms sync, p99.9",
            Figure::Seconds(busy_tail(busy)),
            Target::AtMost(Figure::Seconds(SLOWEST)),
        )
        .beside("a tenth of the sync"),
    ]
}

fn busy_tail(busy: &[f64]) -> f64 {
    let mut sorted = busy.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() - 1 - sorted.len() / 1_000]
}

fn open(directory: &Path, slow: Arc<AtomicBool>) -> Result<Store<SlowDisk>, Failure> {
    let disk = SlowDisk { inner: FileDisk::open(directory)?, slow };
    Ok(Store::open(disk, StoreConfig::new(EndpointId([7; 32])), &mut System::default(), now())?)
}

fn now() -> Now {
    Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
}

fn write(store: &mut Store<SlowDisk>, number: usize, edition: usize) -> Result<(), Failure> {
    let key = Key::new(LATEST, id(number))?;
    let put = Put::Whole { json: json(number, edition), base: None };
    let submitted = Envelope {
        ticket: Ticket::Api(0),
        request: StoreRequest::Write(DocumentWrite { key, put, durable: edition > 0 }),
    };
    let mut replies: Vec<Reply> = Vec::new();
    store.handle_batch(now(), [submitted], &mut replies);
    match replies.pop().ok_or("the store did not answer")?.result? {
        Outcome::Written { .. } => Ok(()),
        other => Err(format!("the store answered {other:?} to a write").into()),
    }
}

/// Reads while another thread makes `commits` slow commits.
fn beside_commits(mut store: Store<SlowDisk>, reader: &Reader, commits: usize) -> Result<Vec<f64>, Failure> {
    let ended = Arc::new(AtomicBool::new(false));
    let end = ended.clone();
    let writer = std::thread::spawn(move || {
        let result = (1..=commits).try_for_each(|edition| write(&mut store, edition % DOCUMENTS, edition));
        end.store(true, Ordering::Relaxed);
        result
    });
    let took = read_for(reader, usize::MAX, || ended.load(Ordering::Relaxed))?;
    writer.join().map_err(|_| "the writing thread panicked")??;
    Ok(took)
}

/// Returns the seconds of each read, at most `reads` of them.
fn read_for(reader: &Reader, reads: usize, ended: impl Fn() -> bool) -> Result<Vec<f64>, Failure> {
    let mut took = Vec::new();
    for number in 0..reads {
        if ended() {
            break;
        }
        let key = Key::new(LATEST, id(number % DOCUMENTS))?;
        took.push(timed(|| reader.snapshot()?.document(&key)?.ok_or_else(|| "a document is gone".into()))?);
    }
    Ok(took)
}

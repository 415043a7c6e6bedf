//! Tests of the engine's rules, one file for each topic, over a disk in memory that fails on command.

mod apply;
mod commands;
mod counters;
mod creations;
mod faults;
mod feed;
mod format;
mod jobs;
mod journal;
mod latest;
mod limits;
mod merged;
pub(in crate::store) mod ram;
mod verify;

use std::time::{Duration, Instant};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::random::Random;
use crate::store::{
    Applied, Apply, Body, Content, Deadline, Document, DocumentWrite, Envelope, Error, History, Incoming,
    IncomingCommand, IndexEntry, Key, KeyHash, Kind, Lineage, Merged, Outcome, PeerRun, Put, Record, Reply, Snapshot,
    Store, StoreConfig, StoreRequest, Ticket, Version, VersionHash,
};
use ram::Ram;

/// A random source that counts: every id differs, and every test run has the same.
#[derive(Debug)]
struct Counter(u8);

impl Random for Counter {
    fn fill(&mut self, bytes: &mut [u8]) {
        self.0 += 1;
        bytes.fill(self.0);
    }
}

/// A store, its disk, and a clock that the test moves.
struct Bench {
    number: u8,
    disk: Ram,
    store: Store<Ram>,
    now: Now,
    starts: u8,
}

/// Outcome of a write.
#[derive(Clone, Debug, PartialEq)]
struct Written {
    version: Version,
    sequence: u64,
    durable: bool,
    dropped_bytes: u64,
}

fn node(byte: u8) -> EndpointId {
    EndpointId([byte; 32])
}

fn key(name: &str) -> Key {
    let (collection, id) = name.split_once('/').unwrap();
    Key::new(collection, id).unwrap()
}

fn whole(json: &str) -> Put {
    Put::Whole { json: json.into(), base: None }
}

fn based(json: &str, base: &Version) -> Put {
    Put::Whole { json: json.into(), base: Some(base.clone()) }
}

#[expect(clippy::disallowed_methods, reason = "some instant to count from")]
fn epoch() -> Now {
    Now { mono: Instant::now(), wall_ms: 0, boot_ms: 0 }
}

impl Bench {
    fn new() -> Bench {
        Bench::of(1)
    }

    /// Returns the store of node `number`.
    fn of(number: u8) -> Bench {
        Bench::over(number, Ram::default(), 1)
    }

    fn over(number: u8, disk: Ram, starts: u8) -> Bench {
        let now = epoch();
        let mut random = Counter(number * 20 + starts * 2);
        let store = Store::open(disk.clone(), StoreConfig::new(node(number)), &mut random, now).unwrap();
        Bench { number, disk, store, now, starts }
    }

    /// Kills the process: unflushed commits are lost.
    fn crash(self) -> Bench {
        let Bench { number, disk, store, starts, .. } = self;
        let disk = disk.crash();
        drop(store);
        Bench::over(number, disk, starts + 1)
    }

    fn request(&mut self, request: StoreRequest) -> Result<Outcome, Error> {
        let mut replies = self.batch([request]);
        assert_eq!(replies.len(), 1);
        replies.remove(0)
    }

    fn batch(&mut self, requests: impl IntoIterator<Item = StoreRequest>) -> Vec<Result<Outcome, Error>> {
        let submitted = (0..).zip(requests).map(|(call, request)| Envelope { ticket: Ticket::Api(call), request });
        let mut replies = Vec::new();
        self.store.handle_batch(self.now, submitted.collect::<Vec<_>>(), &mut replies);
        // Jobs end after the other requests.
        replies.sort_by_key(|reply| match reply.ticket {
            Ticket::Api(call) | Ticket::Sync(call) => call,
        });
        let calls = replies.iter().map(|reply| reply.ticket);
        assert!(calls.eq((0..replies.len() as u64).map(Ticket::Api)), "one reply each");
        replies.into_iter().map(|Reply { result, .. }| result).collect()
    }

    fn write(&mut self, name: &str, put: Put) -> Result<Written, Error> {
        written(self.request(write(name, put)))
    }

    fn put(&mut self, name: &str, json: &str) -> Written {
        self.write(name, whole(json)).unwrap()
    }

    fn delete(&mut self, name: &str) -> Written {
        self.write(name, Put::Delete).unwrap()
    }

    fn apply(&mut self, apply: Apply) -> Applied {
        match self.request(StoreRequest::Apply(apply)) {
            Ok(Outcome::Applied(applied)) => applied,
            other => panic!("{other:?}"),
        }
    }

    /// Returns the document as this node would send it, with all chunks.
    fn outgoing(&self, name: &str) -> Incoming {
        let snapshot = self.snapshot();
        let record = snapshot.record(&key(name).hash()).unwrap().unwrap();
        let parts = record.history().map_or(&[][..], History::parts);
        let chunks = snapshot.chunks(parts).unwrap();
        incoming(key(name).hash(), record, chunks)
    }

    fn peer_run(&self) -> PeerRun {
        PeerRun { node: node(self.number), run: self.store.run() }
    }

    /// Applies one document of `other`.
    fn take(&mut self, other: &Bench, name: &str) -> Applied {
        self.take_in(other.peer_run(), vec![other.outgoing(name)])
    }

    fn take_in(&mut self, from: PeerRun, documents: Vec<Incoming>) -> Applied {
        self.apply(Apply {
            from,
            into: self.store.run(),
            documents,
            cursors: vec![],
            flush: false,
            excluded: Default::default(),
        })
    }

    fn version_hash(&self, name: &str) -> VersionHash {
        self.snapshot().record(&key(name).hash()).unwrap().unwrap().version_hash()
    }

    /// Returns the index entry of a document.
    fn entry(&self, name: &str) -> IndexEntry {
        let snapshot = self.snapshot();
        let record = snapshot.record(&key(name).hash()).unwrap().unwrap();
        snapshot.entries(record.kind, record.sequence - 1).unwrap().next().unwrap().unwrap()
    }

    fn snapshot(&self) -> Snapshot {
        self.store.reader().snapshot().unwrap()
    }

    fn document(&self, name: &str) -> Option<Document> {
        self.snapshot().document(&key(name)).unwrap()
    }

    fn json(&self, name: &str) -> Option<String> {
        self.document(name).map(|document| document.json)
    }

    /// Advances the clock by `time`, and lets the store do what is due.
    fn pass(&mut self, time: Duration) {
        self.now.mono += time;
        self.now.boot_ms += u64::try_from(time.as_millis()).unwrap();
        if self.store.poll_deadline().is_some_and(|deadline| self.now.reached(deadline)) {
            self.store.handle_timeout(self.now);
        }
    }
}

/// Returns a record as a peer sends it, with all its chunks.
fn incoming(hash: KeyHash, record: Record, chunks: Vec<u8>) -> Incoming {
    let body = match record.content {
        Content::Tombstone => Body::Tombstone,
        Content::Latest { stamp, json } => Body::Latest { stamp, json: json.into_bytes() },
        Content::Merged { heads, .. } => Body::Merged(Merged { chunks, heads }),
        Content::Command(command) => Body::Command(IncomingCommand {
            signed: command.signed,
            ranks: command.ranks.into_iter().map(|rank| rank as u8).collect(),
            cancel_requested: command.cancel_requested,
            until: match command.deadline {
                Deadline::At { boot_ms, .. } => Some(boot_ms),
                Deadline::Never => None,
            },
        }),
        Content::Result(result) => {
            Body::Result { rank: result.rank as u8, result: result.result.into_bytes(), error: result.error }
        }
    };
    let Record { name, kind, incarnation, origin, lineage, .. } = record;
    Incoming { hash, name, kind, incarnation, origin, lineage, body }
}

fn write(name: &str, put: Put) -> StoreRequest {
    StoreRequest::Write(DocumentWrite { key: key(name), put, durable: false })
}

fn durable(name: &str, put: Put) -> StoreRequest {
    StoreRequest::Write(DocumentWrite { key: key(name), put, durable: true })
}

fn written(result: Result<Outcome, Error>) -> Result<Written, Error> {
    match result? {
        Outcome::Written { version, sequence, durable, dropped_bytes } => {
            Ok(Written { version, sequence, durable, dropped_bytes })
        }
        other => panic!("{other:?}"),
    }
}

//! One database on one disk, with its checkers; the unit of the store-only simulation.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use peat_node::clock::Now;
use peat_node::store::{
    Content, DocumentWrite, Envelope, Error, InjectedBug, Key, Outcome, Put, Reader, Reply, Store, StoreConfig,
    StoreRequest, Ticket, Version,
};
use serde_json::Value;

use crate::checkers::durability::{self, Ledger};
use crate::checkers::feed::Follower;
use crate::checkers::merges::Model;
use crate::checkers::promises::Promises;
use crate::disk::{DiskFaults, SimDisk};
use crate::drive::Drive;
use crate::exchange::Source;
use crate::faults::{Fault, Tally};
use crate::model::Sight;
use crate::model::edits::Edit;
use crate::prng::Prng;
use crate::seeds::Violation;
use crate::workload;

/// A database, its disk, and the checkers' knowledge of it.
#[derive(Debug)]
pub struct Machine {
    number: usize,
    config: StoreConfig,
    disk: SimDisk,
    open: Option<Open>,
    ledger: Ledger,
    follower: Follower,
    backup: Option<Vec<u8>>,
    random: Prng,
    /// Decides the end of jobs.
    pace: Prng,
    tally: Arc<Tally>,
    disks: u64,
    /// True if faults may have been injected since the last healing.
    pub troubled: bool,
}

#[derive(Debug)]
struct Open {
    store: Store<SimDisk>,
    reader: Reader,
}

impl Open {
    /// Switches to the new database if the store has reopened it; acknowledgements from now on belong to a new run.
    fn notice_reopening(&mut self, ledger: &mut Ledger) {
        if let Some(reader) = self.store.poll_reopened() {
            self.reader = reader;
            ledger.reopened();
        }
    }
}

/// A client's write, as the checkers record it.
#[derive(Debug)]
pub struct Issued {
    pub key: Key,
    pub put: Put,
    pub durable: bool,
}

fn unexpected(doing: &str, error: &Error) -> Violation {
    Violation::new("no unexpected error", format!("{doing}: {error}"))
}

impl Machine {
    pub fn new(number: usize, injected_bug: InjectedBug, mut random: Prng, tally: &Arc<Tally>) -> Machine {
        let mut config = StoreConfig::new(crate::exchange::endpoint(number));
        config.flush_interval = Duration::from_millis(random.between(50, 2_000));
        config.job_bytes = crate::drive::job_bytes(&mut random.fork("jobs", 0));
        config.cache_bytes = if random.chance(300) { 64 << 10 } else { 4 << 20 };
        config.injected_bug = injected_bug;
        Machine {
            number,
            config,
            disk: SimDisk::new(Vec::new(), random.fork("disk", 0), Arc::clone(tally)),
            open: None,
            ledger: Ledger::default(),
            follower: Follower::default(),
            backup: None,
            pace: random.fork("pace", 0),
            random,
            tally: Arc::clone(tally),
            disks: 0,
            troubled: false,
        }
    }

    pub fn disk(&self) -> &SimDisk {
        &self.disk
    }

    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Returns a source that another machine can read from.
    pub fn source(&self) -> Option<Source> {
        self.open.as_ref().map(|open| Source { reader: open.reader.clone(), tip: open.store.tip() })
    }

    /// Returns true if its disk may fail, or has lost power during a read: redb evicts pages from its cache for it, which may
    /// write.
    pub fn may_fail(&self) -> bool {
        self.troubled || !self.disk.is_powered()
    }

    /// Opens the database if it is closed. Failures under injected faults are ignored.
    pub fn start(&mut self, now: Now, keys: &[Key]) -> Result<(), Violation> {
        if self.open.is_some() {
            return Ok(());
        }
        match Store::open(self.disk.clone(), self.config.clone(), &mut self.random, now) {
            Ok(store) => {
                let reader = store.reader();
                self.open = Some(Open { store, reader });
                self.settle(true, keys)
            }
            Err(_) if self.troubled || !self.disk.is_powered() => self.power_cut(),
            Err(error) => Err(unexpected("opening", &error)),
        }
    }

    fn power_cut(&mut self) -> Result<(), Violation> {
        if !self.disk.is_powered() {
            self.replug();
        }
        Ok(())
    }

    /// Replaces the disk by its surviving content, powered again.
    fn replug(&mut self) {
        let image = self.disk.crash();
        self.open = None;
        self.insert(image);
    }

    fn insert(&mut self, image: Vec<u8>) {
        self.disks += 1;
        self.disk = SimDisk::new(image, self.random.fork("disk", self.disks), Arc::clone(&self.tally));
    }

    /// Handles a blown fuse or a reopening and compares; to be called after anything that may have written.
    fn settle(&mut self, opened: bool, keys: &[Key]) -> Result<(), Violation> {
        if !self.disk.is_powered() {
            self.tally.count(Fault::CrashInCommit);
            self.replug();
            return Ok(());
        }
        let Some(open) = &mut self.open else { return Ok(()) };
        open.notice_reopening(&mut self.ledger);
        if opened {
            self.ledger.reopened();
        }
        self.observe(keys)
    }

    fn observe(&mut self, keys: &[Key]) -> Result<(), Violation> {
        let Some(open) = &self.open else { return Ok(()) };
        let (tip, reader) = (open.store.tip(), &open.reader);
        let look = || durability::states(&reader.snapshot()?, keys);
        match self.disk.undisturbed(look) {
            Ok(states) => self.ledger.observe(states, tip),
            Err(_) if self.troubled => {
                self.ledger.missed();
                Ok(())
            }
            Err(error) => Err(unexpected("looking at it", &error)),
        }
    }

    /// Sets the failure rates of the disk.
    pub fn set_faults(&mut self, faults: DiskFaults) {
        self.troubled = true;
        self.disk.set_faults(faults);
    }

    /// Sets the number of bytes the database may still grow by.
    pub fn set_spare(&mut self, bytes: usize) {
        self.troubled = true;
        self.disk.set_spare(Some(bytes));
    }

    /// Repairs the disk and lifts its capacity. The store notices within seconds; errors that only readers met, with the next
    /// write.
    pub fn heal(&mut self, now: Now, keys: &[Key]) -> Result<(), Violation> {
        self.disk.set_faults(DiskFaults::default());
        self.disk.set_spare(None);
        for second in 0..10 {
            let later = Now { mono: now.mono + Duration::from_secs(second), ..now };
            self.tick(later, keys)?;
            let replies = self.submit(later, vec![StoreRequest::Flush], keys)?;
            if !self.is_open() || replies.iter().all(|reply| reply.result.is_ok()) {
                self.troubled = false;
                return Ok(());
            }
        }
        Err(Violation::new("recovery", "the store still refuses to flush ten seconds after the disk recovered"))
    }

    /// Cuts the power between two commits.
    pub fn crash(&mut self) {
        if self.open.is_some() {
            self.tally.count(Fault::Crash);
            self.replug();
        }
    }

    /// Replaces the disk by an empty one.
    pub fn replace_disk(&mut self) {
        self.tally.count(Fault::DiskReplaced);
        self.swap_disk(Vec::new());
    }

    /// Takes a backup of the disk.
    pub fn back_up(&mut self) {
        self.backup = Some(self.disk.backup());
    }

    /// Restores the last backup; returns false if there is none.
    pub fn restore(&mut self) -> bool {
        let Some(image) = self.backup.clone() else { return false };
        self.tally.count(Fault::BackupRestored);
        self.swap_disk(image);
        true
    }

    fn swap_disk(&mut self, image: Vec<u8>) {
        self.disk.crash();
        self.open = None;
        self.insert(image);
        self.ledger.replaced();
    }

    /// Runs the store's timers that are due at `now`.
    pub fn tick(&mut self, now: Now, keys: &[Key]) -> Result<(), Violation> {
        if let Some(open) = &mut self.open
            && open.store.poll_deadline().is_some_and(|deadline| now.reached(deadline))
        {
            open.store.handle_timeout(now);
            return self.settle(false, keys);
        }
        Ok(())
    }

    /// Submits requests other than client writes.
    pub fn submit(&mut self, now: Now, requests: Vec<StoreRequest>, keys: &[Key]) -> Result<Vec<Reply>, Violation> {
        let replies = self.batch(now, requests, keys)?;
        self.settle(false, keys)?;
        Ok(replies)
    }

    /// Commits requests and observes after every commit, since a crash during a later commit may leave the state of an earlier
    /// one.
    fn batch(&mut self, now: Now, requests: Vec<StoreRequest>, keys: &[Key]) -> Result<Vec<Reply>, Violation> {
        let expected = requests.len();
        let numbered = (0..).zip(requests).map(|(number, request)| Envelope { ticket: Ticket::Api(number), request });
        let mut drive = Drive::new(numbered.collect());
        let mut goes_on = true;
        while goes_on {
            let Some(open) = &mut self.open else { return Ok(Vec::new()) };
            self.ledger.working();
            goes_on = drive.step(&mut open.store, now, &mut self.pace, &self.tally);
            open.notice_reopening(&mut self.ledger);
            if !self.disk.is_powered() {
                return Ok(Vec::new());
            }
            if goes_on {
                self.observe(keys)?;
            }
        }
        let mut replies = drive.replies();
        if replies.len() != expected {
            let what = format!("{} requests, {} replies", expected, replies.len());
            return Err(Violation::new("every request is answered once", what));
        }
        if replies.iter().all(|reply| !matches!(reply.result, Err(Error::Io(_)))) {
            self.ledger.answered();
        }
        replies.sort_by_key(|reply| match reply.ticket {
            Ticket::Api(number) | Ticket::Sync(number) => number,
        });
        Ok(replies)
    }

    fn value(&self, key: &Key) -> Option<Value> {
        let document = self.open.as_ref()?.reader.snapshot().ok()?.document(key).ok()??;
        serde_json::from_str(&document.json).ok()
    }

    /// Returns the current version of a document, as a client may have read it.
    pub fn version(&self, key: &Key) -> Option<Version> {
        Some(self.open.as_ref()?.reader.snapshot().ok()?.document(key).ok()??.version)
    }

    /// Submits client writes and checks the replies and the resulting content.
    pub fn write(
        &mut self,
        now: Now,
        writes: &[Issued],
        keys: &[Key],
        promises: &mut Promises,
    ) -> Result<(), Violation> {
        let mut contents: BTreeMap<Key, Option<Option<Value>>> = BTreeMap::new();
        for write in writes {
            contents.entry(write.key.clone()).or_insert_with_key(|key| Some(self.value(key)));
        }
        let run = self.open.as_ref().map(|open| open.reader.run());
        let requests = writes.iter().map(|write| StoreRequest::Write(copy(write))).collect();
        let replies = self.batch(now, requests, keys)?;
        for (write, reply) in writes.iter().zip(&replies) {
            self.answered(write, reply, &mut contents)?;
        }
        self.settle(false, keys)?;
        if replies.is_empty() || self.open.as_ref().map(|open| open.reader.run()) != run || self.troubled {
            return Ok(());
        }
        self.compare(&contents)?;
        self.promise(writes, &replies, promises)
    }

    fn answered(
        &mut self,
        write: &Issued,
        reply: &Reply,
        contents: &mut BTreeMap<Key, Option<Option<Value>>>,
    ) -> Result<(), Violation> {
        let content = contents.get_mut(&write.key).expect("every written key was entered");
        match &reply.result {
            Ok(Outcome::Written { sequence, durable, .. }) => {
                if *durable {
                    self.ledger.acknowledged(&write.key, *sequence);
                }
                if write.durable && !durable {
                    return Err(Violation::new("durable on request", format!("{write:?} was answered as not durable")));
                }
                *content = content.take().and_then(|before| workload::expected(before.as_ref(), &write.put));
                Ok(())
            }
            Ok(other) => Err(Violation::new("a write is answered as a write", format!("{other:?}"))),
            Err(Error::DiskFull | Error::Io(_)) if self.troubled => {
                *content = None;
                Ok(())
            }
            Err(Error::NotFound(_) | Error::NoHistory(_)) if matches!(write.put, Put::Compact) => Ok(()),
            Err(Error::BaseNotCurrent(_) | Error::UnknownBase(_)) if has_base(&write.put) => Ok(()),
            Err(error) => Err(unexpected(&format!("{write:?}"), error)),
        }
    }

    fn compare(&self, contents: &BTreeMap<Key, Option<Option<Value>>>) -> Result<(), Violation> {
        for (key, expected) in contents {
            let held = self.value(key);
            if let Some(expected) = expected
                && *expected != held
            {
                return Err(Violation::new("content", format!("{key} should be {expected:?}, is {held:?}")));
            }
        }
        Ok(())
    }

    fn promise(&self, writes: &[Issued], replies: &[Reply], promises: &mut Promises) -> Result<(), Violation> {
        let Some(open) = &self.open else { return Ok(()) };
        self.disk.undisturbed(|| {
            let snapshot = open.reader.snapshot().map_err(|error| unexpected("reading", &error))?;
            for (write, reply) in writes.iter().zip(replies) {
                if let Ok(Outcome::Written { version, durable: true, .. }) = &reply.result {
                    let field = workload::grown(&write.put);
                    promises
                        .made(self.number, &snapshot, &write.key, version, field)
                        .map_err(|error| unexpected("promising", &error))?;
                }
            }
            Ok(())
        })
    }

    /// Reads a document of the model as a client sees it; fails after a disk fault that the store has not noticed yet.
    pub fn sight(&self, key: &Key) -> Result<Option<Sight>, Error> {
        let Some(open) = &self.open else { return Ok(None) };
        self.disk.undisturbed(|| {
            let snapshot = open.reader.snapshot()?;
            let (Some(record), Some(document)) = (snapshot.record(&key.hash())?, snapshot.document(key)?) else {
                return Ok(None);
            };
            let Content::Merged { heads, .. } = record.content else { return Ok(None) };
            let value = serde_json::from_str(&document.json).map_err(|error| Error::Bug(error.to_string()))?;
            Ok(Some(Sight { version: document.version, incarnation: record.incarnation, heads, value }))
        })
    }

    /// Returns true if there is a record under this key, including a tombstone.
    pub fn has_record(&self, key: &Key) -> bool {
        let Some(open) = &self.open else { return false };
        let look = || open.reader.snapshot().and_then(|snapshot| snapshot.record(&key.hash()));
        self.disk.undisturbed(look).is_ok_and(|record| record.is_some())
    }

    /// Submits a write of the model, and records it in the model once answered.
    pub fn edit(
        &mut self,
        now: Now,
        (key, edit): (&Key, &Edit),
        keys: &[Key],
        model: &mut Model,
    ) -> Result<(), Violation> {
        let Ok(before) = self.sight(key) else { return Ok(()) };
        if let (Put::Delete | Put::Compact, Some(before)) = (&edit.put, &before) {
            model.removes(key, &before.heads);
        }
        let write = DocumentWrite { key: key.clone(), put: workload::copy(&edit.put), durable: false };
        let replies = self.batch(now, vec![StoreRequest::Write(write)], keys)?;
        let reply = replies.into_iter().next().map(|reply| reply.result);
        if let Some(Ok(Outcome::Written { sequence, durable: true, .. })) = &reply {
            self.ledger.acknowledged(key, *sequence);
        }
        self.settle(false, keys)?;
        match reply {
            Some(Ok(_)) => {
                edit.kinds.iter().for_each(|kind| self.tally.count(*kind));
                self.edited(key, edit, before.as_ref(), model)
            }
            Some(Err(Error::UnknownBase(_))) if edit.base.is_some() => Ok(()),
            Some(Err(Error::NotFound(_))) if matches!(edit.put, Put::Compact) => Ok(()),
            Some(Err(error)) if !self.troubled => Err(unexpected(&format!("{edit:?}"), &error)),
            _ => Ok(()),
        }
    }

    fn edited(&self, key: &Key, edit: &Edit, before: Option<&Sight>, model: &mut Model) -> Result<(), Violation> {
        let (Ok(Some(after)), Some(meant)) = (self.sight(key), &edit.meant) else { return Ok(()) };
        let before = before.filter(|before| before.incarnation == after.incarnation);
        let heads = before.map_or(&[][..], |before| &before.heads);
        model.wrote((self.number, key), (heads, &after.heads), edit.base.as_deref(), edit.view.as_ref(), meant)
    }

    /// Checks that the documents of the model contain every change they must contain.
    pub fn compare_kept(&self, keys: &[Key], model: &Model) -> Result<(), Violation> {
        keys.iter().try_for_each(|key| {
            let sight = self.sight(key).map_err(|error| unexpected("looking at it", &error))?;
            model.kept(key, sight.as_ref().map(|sight| sight.heads.as_slice()))
        })
    }

    /// Checks that the documents of the model show the content they must show.
    pub fn compare_merges(&self, keys: &[Key], model: &Model) -> Result<(), Violation> {
        for key in keys {
            if let Ok(Some(sight)) = self.sight(key) {
                let known = model.check(&format!("{key} of machine {}", self.number), &sight.heads, &sight.value)?;
                self.tally.count(if known { Fault::MergeCompared } else { Fault::MergeUnknown });
            }
        }
        Ok(())
    }

    /// Lets the follower take some changes, and compares its state once it has caught up.
    pub fn follow(&mut self, keys: &[Key], most: usize) -> Result<(), Violation> {
        let Some(open) = &self.open else { return Ok(()) };
        if self.troubled {
            return Ok(());
        }
        if !self.disk.is_powered() {
            return self.settle(false, keys);
        }
        let (reader, follower) = (&open.reader, &mut self.follower);
        self.disk.undisturbed(|| {
            let snapshot = reader.snapshot().map_err(|error| unexpected("reading", &error))?;
            follower.follow(&snapshot, reader.run(), keys, most)
        })
    }
}

fn has_base(put: &Put) -> bool {
    matches!(put, Put::Whole { base: Some(_), .. } | Put::Patch { base: Some(_), .. })
}

fn copy(write: &Issued) -> DocumentWrite {
    DocumentWrite { key: write.key.clone(), put: workload::copy(&write.put), durable: write.durable }
}

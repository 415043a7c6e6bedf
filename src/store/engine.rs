//! The engine: the only writer of a database, driven by a shell that supplies the time and the requests.
//!
//! A shell calls [`Store::handle_commit`] until all requests that have arrived are handled, sends the replies, publishes
//! [`Store::tip`] and the reader of [`Store::poll_reopened`], and calls [`Store::handle_timeout`] when
//! [`Store::poll_deadline`] is reached. It runs the job of [`Store::poll_job`] in parallel, and returns it to
//! [`Store::handle_finished`].

use std::iter::Peekable;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ring::digest::{Context, SHA256};

use crate::clock::Now;
use crate::identity::EndpointId;
use crate::random::{Random, RandomExt};
use crate::store::backend::Alarm;
use crate::store::batch::{Batch, Pending};
use crate::store::cache::Cache;
use crate::store::commit::{self, Flush};
use crate::store::copies::Copies;
use crate::store::database::{NewIds, OpenDatabase};
use crate::store::deferred::{Deferred, documents};
use crate::store::opening::{self, Access, RESERVE_BYTES, successor};
use crate::store::stage::{BatchStager, Committed, Writer};
use crate::store::write::NO_VERSION;
use crate::store::{
    Applied, Disk, Envelope, Error, Finished, History, InjectedBug, Job, Outcome, Reader, Reply, RunId, StoreConfig,
    StoreRequest, Tip,
};

/// Bytes of records after which a batch is committed and redb's pages are flushed: a fraction of the file, within these
/// bounds. A commit copies the pages it touches, and until they are flushed the old ones cannot be reused, so this bounds the
/// growth of the file beyond its content (docs/storage.md, "Growth").
const COPIED_BYTES: RangeInclusive<u64> = 32 << 10..=1 << 20;
/// Divisor of the file's size that gives the limit within `COPIED_BYTES`.
const COPIED_FILE_PARTS: u64 = 16;
/// Part of the file's size that does not count for the limit, in bytes: redb allocates about this much for a nearly empty
/// database.
const SMALL_FILE_BYTES: u64 = 2 << 20;
/// Size of the file above which opening after a kill does not walk it, in bytes. Each flush of its pages then costs a second
/// sync (docs/storage.md, "Opening after a kill").
const QUICK_REPAIR_FILE_BYTES: u64 = 64 << 20;
/// Interval between attempts to open a failed database again, and between checks of a full disk for room.
const REOPEN_INTERVAL: Duration = Duration::from_secs(1);

/// The only writer of a database. It performs no I/O except on the disk it was given; a shell drives it.
#[derive(Debug)]
pub struct Store<D> {
    disk: Arc<D>,
    opened: OpenDatabase,
    writer: Arc<Writer>,
    cache: Cache,
    copies: Copies,
    deferred: Deferred,
    durable: u64,
    /// Time at which the commits that a crash may take back are to be flushed.
    unflushed: Option<Instant>,
    /// Bytes of records committed since redb's pages were last flushed.
    copied: usize,
    /// Set while the database has failed: the time of the next attempt to open it.
    failed: Option<Instant>,
    access: Access,
    /// Set while the disk is full: the time of the next check for room.
    full: Option<Instant>,
    reopened: Option<Reader>,
    /// Signals a disk error; readers raise it, too.
    alarm: Alarm,
    /// Time at which the store was opened: a deadline in the past, returned while the alarm is raised.
    begun: Instant,
}

impl<D: Disk> Store<D> {
    /// Opens or creates the database on `disk`, and begins a new run durably. On a disk without room for that, an existing
    /// database is opened read-only until there is room.
    ///
    /// # Errors
    /// The database is damaged or of a newer format, the disk failed, or it is full and there is no database yet.
    pub fn open(disk: D, config: StoreConfig, random: &mut dyn Random, now: Now) -> Result<Store<D>, Error> {
        let disk = Arc::new(disk);
        let alarm = Alarm::default();
        let fresh = NewIds { run: RunId(random.array()), database: random.array(), alarm: alarm.clone() };
        let (opened, access) = opening::open(&disk, &config, &fresh, now, Arc::default())?;
        let cache = Cache::new(config.cache_bytes / 2);
        let (durable, writer) = (opened.state.sequence, writer(config, &opened));
        let mut store = Store {
            disk,
            opened,
            writer,
            cache,
            copies: Copies::default(),
            deferred: Deferred::default(),
            durable,
            unflushed: None,
            copied: 0,
            failed: None,
            access,
            full: None,
            reopened: None,
            alarm,
            begun: now.mono,
        };
        store.watch_room(now);
        Ok(store)
    }

    /// Stages, commits and answers `requests`, and runs their jobs. One commit covers up to [`crate::limits::BATCH_DOCUMENTS`]
    /// documents; every request receives one reply.
    pub fn handle_batch(&mut self, now: Now, requests: impl IntoIterator<Item = Envelope>, replies: &mut Vec<Reply>) {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            self.handle_commit(now, &mut requests, replies);
        }
        while let Some(job) = self.poll_job(now, replies) {
            self.handle_finished(now, job.run(), replies);
        }
    }

    /// Stages, commits and answers as many of `requests` as one commit covers, in order, and at least one if there is one.
    /// Long requests, and those that must wait for them, are left for a job. A shell that sends the replies after each commit
    /// does not delay a client behind the large writes of others.
    pub fn handle_commit(
        &mut self,
        now: Now,
        requests: &mut Peekable<impl Iterator<Item = Envelope>>,
        replies: &mut Vec<Reply>,
    ) {
        if requests.peek().is_none() {
            return;
        }
        let mut batch = Batch::default();
        match self.fill_and_commit(now, &mut batch, requests) {
            Ok(()) => self.answer(batch, replies),
            Err(cause) => fail(batch, &cause, replies),
        }
    }

    /// Returns the next job, unless one runs. The caller must run it and return it to [`Store::handle_finished`]. A job that
    /// cannot begin is answered with the error.
    pub fn poll_job(&mut self, now: Now, replies: &mut Vec<Reply>) -> Option<Job> {
        loop {
            let requests = self.deferred.begin();
            if requests.is_empty() {
                return None;
            }
            let mut batch = Batch::default();
            match self.begin_job(now, &mut batch, &requests) {
                Ok(()) => return Some(self.job(now, requests)),
                Err(cause) => {
                    self.deferred.end();
                    batch.answers.extend(requests.into_iter().map(|request| (request.ticket, Pending::Done)));
                    fail(batch, &cause, replies);
                }
            }
        }
    }

    /// Returns true if a job was begun and has not been returned.
    #[must_use]
    pub fn runs_job(&self) -> bool {
        self.deferred.runs()
    }

    /// Returns true if requests wait for a job.
    #[must_use]
    pub fn has_deferred(&self) -> bool {
        self.deferred.waits()
    }

    /// Commits and answers a job that has run.
    pub fn handle_finished(&mut self, now: Now, finished: Finished, replies: &mut Vec<Reply>) {
        let Finished { run, mut batch, cache, result } = finished;
        self.deferred.end();
        // The job read a database that has since been opened again: what it built on may be lost.
        if run != self.opened.run || self.failed.is_some() {
            return fail(batch, &opening::reopened(), replies);
        }
        if let Err(cause) = result {
            self.handle_disk_failure(now, &cause);
            return fail(batch, &cause, replies);
        }
        self.cache.take_back(cache);
        match self.commit(now, &mut batch) {
            Ok(()) => self.answer(batch, replies),
            Err(cause) => fail(batch, &cause, replies),
        }
    }

    /// Flushes the commits that are due, and tries again to open a database that failed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.recover(now);
        if self.full.is_some_and(|look| now.reached(look)) {
            self.look_for_room(now);
        }
        if self.unflushed.is_some_and(|due| now.reached(due))
            && let Err(cause) = self.commit(now, &mut Batch::flush())
        {
            log::warn!("flushing failed: {cause}");
            let due = now.after(self.writer.config.flush_interval);
            self.unflushed = self.unflushed.map(|_| due);
        }
    }

    /// Returns the time of the next call to [`Store::handle_timeout`].
    #[must_use]
    pub fn poll_deadline(&self) -> Option<Instant> {
        let alarmed = (self.failed.is_none() && self.alarm.is_raised()).then_some(self.begun);
        self.failed.into_iter().chain(self.full).chain(self.unflushed).chain(alarmed).min()
    }

    /// Returns a receiver that has a message once a reader, in any thread, has met a disk error. [`Store::poll_deadline`] is
    /// then in the past.
    #[must_use]
    pub fn alarm(&self) -> Receiver<()> {
        self.alarm.raised()
    }

    /// Returns a new reader if the store opened its database again after a storage error; snapshots of the old reader fail.
    /// The run is a new one: unflushed commits are lost, and their sequence numbers are used again.
    #[must_use]
    pub fn poll_reopened(&mut self) -> Option<Reader> {
        self.reopened.take()
    }

    /// Returns the newest sequence numbers that are visible and durable.
    #[must_use]
    pub fn tip(&self) -> Tip {
        Tip { visible: self.opened.state.sequence, durable: self.durable }
    }

    /// Returns a reader, from which other threads take snapshots.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.opened.reader(&self.writer.config)
    }

    /// Returns the id of this run.
    #[must_use]
    pub fn run(&self) -> RunId {
        self.opened.run
    }

    /// Returns the id of the database, which was drawn when it was created.
    #[must_use]
    pub fn database(&self) -> [u8; 16] {
        self.opened.id
    }

    fn fill_and_commit(
        &mut self,
        now: Now,
        batch: &mut Batch,
        requests: &mut Peekable<impl Iterator<Item = Envelope>>,
    ) -> Result<(), Error> {
        if let Err(cause) = self.fill(now, batch, requests) {
            // At least one request is answered, so that a disk that stays broken does not stop the caller's loop.
            if batch.answers.is_empty() {
                batch.answers.extend(requests.next().map(|next| (next.ticket, Pending::Done)));
            }
            self.handle_disk_failure(now, &cause);
            return Err(cause);
        }
        self.commit(now, batch)
    }

    fn fill(
        &mut self,
        now: Now,
        batch: &mut Batch,
        requests: &mut Peekable<impl Iterator<Item = Envelope>>,
    ) -> Result<(), Error> {
        let limit_bytes = self.copied_limit_bytes();
        let (mut stage, deferred) = self.stage(now, batch)?;
        while !stage.batch.is_full(limit_bytes)
            && let Some(request) = requests.peek().map(|next| &next.request)
        {
            // A fault of the request is found, and answered, when it is staged.
            let bytes = stage.merged_bytes(request).unwrap_or(0);
            let waits = bytes > stage.writer.config.job_bytes || deferred.covers(request);
            match requests.next() {
                Some(submitted) if waits => deferred.push(submitted, bytes),
                Some(submitted) => stage.request(submitted)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Returns a stage over the committed state, and the requests that wait for jobs.
    fn stage<'a>(&'a mut self, now: Now, batch: &'a mut Batch) -> Result<(BatchStager<'a>, &'a mut Deferred), Error> {
        self.recover(now);
        if self.failed.is_some() {
            return Err(opening::not_open());
        }
        if self.access == Access::Read {
            self.look_for_room(now);
        }
        let committed = Committed::At(self.opened.reader(&self.writer.config).snapshot()?);
        let (writer, cache, copies, durable) = (&*self.writer, &mut self.cache, &mut self.copies, self.durable);
        let clocks = self.opened.clocks;
        Ok((BatchStager { writer, committed, cache, batch, copies, durable, now, clocks }, &mut self.deferred))
    }

    /// Assigns source numbers to the peers of a job's requests, because jobs assign none.
    fn begin_job(&mut self, now: Now, batch: &mut Batch, requests: &[Envelope]) -> Result<(), Error> {
        let (mut stage, _) = self.stage(now, batch)?;
        for submitted in requests {
            if let StoreRequest::Apply(apply) = &submitted.request {
                stage.source(apply.from)?;
            }
        }
        self.commit(now, batch)
    }

    fn job(&mut self, now: Now, requests: Vec<Envelope>) -> Job {
        let cache = self.cache.lend(requests.iter().flat_map(|submitted| documents(&submitted.request)));
        let (reader, clocks) = (self.opened.reader(&self.writer.config), self.opened.clocks);
        Job { requests, writer: self.writer.clone(), reader, cache, durable: self.durable, now, clocks }
    }

    /// Commits the batch if it changes anything or asks for a flush that is owed.
    fn commit(&mut self, now: Now, batch: &mut Batch) -> Result<(), Error> {
        let copied = self.copied + batch.bytes();
        let due = self.unflushed.is_some_and(|due| now.reached(due));
        batch.age = self.opened.age_to_note(now);
        let pages = copied as u64 > self.copied_limit_bytes();
        let flush = batch.flush || due || pages;
        // A due age causes a commit only together with a requested flush.
        let only_age = batch.age.is_some() && batch.flush;
        if batch.is_empty() && !only_age && !(flush && self.unflushed.is_some()) {
            return Ok(());
        }
        // A commit also copies the pages around the records: reserve four times their bytes.
        self.reserve(now, (RESERVE_BYTES + 4 * copied) as u64)?;
        if self.access == Access::Read {
            return Err(Error::DiskFull);
        }
        let before = self.opened.state.sequence;
        let wanted = self.with_injected_bug(if pages {
            Flush::Pages
        } else if flush {
            Flush::Commits
        } else {
            Flush::Nothing
        });
        let quick_repair = self.opened.file_bytes() > QUICK_REPAIR_FILE_BYTES;
        let flushed = match commit::commit(self.disk.as_ref(), &mut self.opened, batch, wanted, quick_repair) {
            Ok(flushed) => flushed,
            Err(cause) => {
                // Treated as a disk error for any cause, because the transaction cannot be continued.
                self.handle_disk_failure(now, &Error::Io(Arc::new(std::io::Error::other(cause.to_string()))));
                return Err(cause);
            }
        };
        self.copied = if flushed == Flush::Pages { 0 } else { copied };
        self.opened.noted(batch.age);
        self.opened.measure(self.disk.as_ref());
        let figures = &self.opened.figures;
        figures.commits.add(1);
        figures.flushes.add(flush.into());
        figures.documents.add(self.opened.state.sequence - before);
        figures.bytes.add(batch.bytes() as u64);
        figures.rebased.add(batch.rebased);
        figures.dropped_changes.add(batch.dropped_changes);
        self.committed(now, flush);
        Ok(())
    }

    fn copied_limit_bytes(&self) -> u64 {
        let (least, most) = COPIED_BYTES.into_inner();
        (self.opened.file_bytes().saturating_sub(SMALL_FILE_BYTES) / COPIED_FILE_PARTS).clamp(least, most)
    }

    fn with_injected_bug(&self, wanted: Flush) -> Flush {
        match self.writer.config.injected_bug {
            InjectedBug::Nothing => wanted,
            #[cfg(feature = "fault-injection")]
            InjectedBug::AckBeforeSync => Flush::Nothing,
        }
    }

    fn committed(&mut self, now: Now, flushed: bool) {
        if flushed {
            self.durable = self.opened.state.sequence;
            self.unflushed = None;
        } else if self.unflushed.is_none() {
            self.unflushed = Some(now.after(self.writer.config.flush_interval));
        }
    }

    /// Answers a committed batch, and caches its loaded documents.
    fn answer(&mut self, mut batch: Batch, replies: &mut Vec<Reply>) {
        let answers = std::mem::take(&mut batch.answers);
        for (ticket, pending) in answers {
            let result = self.outcome(&batch, pending);
            replies.push(Reply { ticket, result });
        }
        for (hash, staged) in batch.staged {
            if let (Some(doc), Some(record)) = (staged.doc, staged.record) {
                let history_bytes = record.history().map_or(0, History::size);
                self.cache.insert(hash, record.incarnation, doc, history_bytes);
            }
        }
        self.measure_cache();
    }

    fn measure_cache(&self) {
        let figures = &self.opened.figures;
        let places = [&figures.cached, &figures.cache_bytes, &figures.cache_limit_bytes];
        places.into_iter().zip(self.cache.size()).for_each(|(figure, size)| figure.set(size as u64));
    }

    fn outcome(&self, batch: &Batch, pending: Pending) -> Result<Outcome, Error> {
        match pending {
            Pending::Failed(cause) => Err(cause),
            Pending::Done => Ok(Outcome::Done),
            Pending::Absent => {
                Ok(Outcome::Written { version: NO_VERSION, sequence: 0, durable: true, dropped_bytes: 0 })
            }
            Pending::Written { hash, version, dropped_bytes, in_place } => {
                let record = batch.staged.get(&hash).and_then(|staged| staged.record.as_ref());
                let sequence = in_place.unwrap_or(record.map_or(0, |record| record.sequence));
                Ok(Outcome::Written { version, sequence, durable: sequence <= self.durable, dropped_bytes })
            }
            Pending::Applied { missing, refused, copied } => {
                Ok(Outcome::Applied(Applied { sequence: self.opened.state.sequence, missing, refused, copied }))
            }
        }
    }

    /// Clears the cache, and opens the database again if `cause` is a disk error.
    fn handle_disk_failure(&mut self, now: Now, cause: &Error) {
        self.cache.clear();
        self.measure_cache();
        if matches!(cause, Error::Io(_)) {
            self.opened.figures.failures.add(1);
        }
        if let Error::Io(cause) = cause
            && self.failed.is_none()
        {
            log::error!("the disk failed: {cause}; reopening the database");
            self.reopen(now);
        }
    }

    /// Opens the database again if an attempt is due or a reader met a disk error. redb reads and writes nothing after one, so
    /// an idle node would answer reads with errors until its next write.
    fn recover(&mut self, now: Now) {
        match self.failed {
            Some(retry) if now.reached(retry) => self.reopen(now),
            None if self.alarm.is_raised() => {
                self.alarm.silence();
                // redb refuses to begin after a disk error, which shows if the alarm still applies to this opening.
                if let Err(cause) = self.opened.database.begin_write() {
                    self.handle_disk_failure(now, &cause.into());
                }
            }
            _ => {}
        }
    }

    /// Reserves `bytes` of disk space, and records the shortfall if there is not enough.
    fn reserve(&mut self, now: Now, bytes: u64) -> Result<(), Error> {
        let room = self.disk.reserve(bytes);
        opening::note_room(&self.opened.figures, self.disk.as_ref(), bytes, &room);
        self.watch_room(now);
        Ok(room?)
    }

    fn watch_room(&mut self, now: Now) {
        let is_full = self.access == Access::Read || self.opened.figures.lacking_bytes.get() > 0;
        self.full = is_full.then(|| now.after(REOPEN_INTERVAL));
    }

    /// Makes the store writable again once there is room.
    fn look_for_room(&mut self, now: Now) {
        if self.reserve(now, RESERVE_BYTES as u64).is_ok() && self.access == Access::Read {
            self.reopen(now);
        }
    }

    fn reopen(&mut self, now: Now) {
        // Readers in other threads must not read pages that the new opening may overwrite.
        self.opened.gate.shut();
        self.alarm.silence();
        self.cache.clear();
        (self.unflushed, self.copied) = (None, 0);
        let (run, database) = (successor(self.opened.run), self.opened.id);
        let fresh = NewIds { run, database, alarm: self.alarm.clone() };
        let figures = self.opened.figures.clone();
        match opening::open(&self.disk, &self.writer.config, &fresh, now, figures) {
            Ok((opened, access)) => {
                (self.opened, self.access) = (opened, access);
                self.watch_room(now);
                self.durable = self.opened.state.sequence;
                self.writer = writer(self.writer.config.clone(), &self.opened);
                self.failed = None;
                self.reopened = Some(self.reader());
            }
            Err(cause) => {
                log::error!("reopening the database failed: {cause}");
                self.alarm.silence();
                self.failed = Some(now.after(REOPEN_INTERVAL));
            }
        }
    }
}

fn writer(config: StoreConfig, opened: &OpenDatabase) -> Arc<Writer> {
    let writer = dot_writer(&config.node, opened.run);
    Arc::new(Writer { config, run: opened.run, runs: opened.runs.clone(), writer })
}

pub(super) fn first_16(context: Context) -> [u8; 16] {
    let mut out = [0; 16];
    out.copy_from_slice(&context.finish().as_ref()[..16]);
    out
}

/// Returns the writer id of a node's creations in a run.
fn dot_writer(node: &EndpointId, run: RunId) -> [u8; 8] {
    let mut context = Context::new(&SHA256);
    context.update(&node.0);
    context.update(&run.0);
    let mut writer = [0; 8];
    writer.copy_from_slice(&context.finish().as_ref()[..8]);
    writer
}

/// Answers a batch that was not committed.
fn fail(batch: Batch, cause: &Error, replies: &mut Vec<Reply>) {
    for (ticket, pending) in batch.answers {
        let result = match pending {
            Pending::Failed(own) => Err(own),
            _ => Err(cause.clone()),
        };
        replies.push(Reply { ticket, result });
    }
}

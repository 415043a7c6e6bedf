//! One machine: its disk, its clock, its engines while it is on, and the checkers' knowledge of it.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use peat_node::clock::Now;
use peat_node::fleet::commands::{Settings, Trust};
use peat_node::identity::{EndpointId, Identity};
use peat_node::store::{self, Envelope, Error, InjectedBug, Key, Outcome, Reader, Reply, Store, StoreRequest, Ticket};
use peat_node::{api, fleet, sync};

use crate::checkers::durability::{self, Ledger};
use crate::checkers::promises::Promises;
use crate::disk::{DiskFaults, SimDisk};
use crate::drive::Drive;
use crate::faults::{Fault, Tally};
use crate::mesh::{Mail, Role, odd};
use crate::prng::Prng;
use crate::seeds::{self, Violation};
use crate::time::{Clock, Time};

/// Short enough that agents time out and return during the faulty phase.
pub const TIMES: fleet::Times = fleet::Times {
    heartbeat: Duration::from_secs(1),
    stale_after: Duration::from_secs(3),
    dead_after: Duration::from_secs(6),
};

/// Effects of a node outside its engines.
#[derive(Debug, Default)]
pub struct Output {
    pub mail: Vec<(Role, Role, Mail)>,
    pub datagrams: Vec<(SocketAddr, Vec<u8>)>,
}

/// A machine that is on.
#[derive(Debug)]
pub struct Running {
    pub store: Store<SimDisk>,
    pub reader: Reader,
    pub sync: sync::Engine,
    pub api: api::Engine,
    inbox: VecDeque<Envelope>,
    committing: bool,
    /// The wake-up time scheduled for each thread.
    pub armed: BTreeMap<Role, Time>,
}

/// A machine, on or off; see the module's documentation.
#[derive(Debug)]
pub struct Node {
    pub number: usize,
    /// Number of times it was switched on.
    pub life: u64,
    identity: Arc<Identity>,
    config: store::StoreConfig,
    pub disk: SimDisk,
    disks: u64,
    backup: Option<Vec<u8>>,
    pub clock: Clock,
    /// True if the power was off since it last ran.
    unpowered: bool,
    pub running: Option<Running>,
    pub ledger: Ledger,
    /// True if disk faults may have been injected since the last healing.
    pub troubled: bool,
    /// True if disk faults were injected in this life.
    pub was_troubled: bool,
    /// True from the answer to StopSync until the next StartSync.
    pub silent: bool,
    /// Number of StopSync calls that have not been answered.
    pub stops: u32,
    /// Number of those that precede the last StartSync, which ends the silence that they begin.
    pub ended_stops: u32,
    /// Notices about documents and links in its health, besides problems.
    pub notices: Vec<String>,
    random: Prng,
    /// Decides the end of the store's jobs.
    pace: Prng,
    tally: Arc<Tally>,
}

fn unexpected(doing: &str, error: &Error) -> Violation {
    Violation::new("no unexpected error", format!("{doing}: {error}"))
}

/// Result of one turn of the store thread.
#[derive(Debug)]
pub enum Commit {
    Nothing,
    /// The power failed during the commit.
    Failed,
    /// The commit takes this long and then emits the mail.
    Takes(Duration, Vec<(Role, Mail)>),
}

impl Node {
    pub fn new(number: usize, clock: Clock, injected_bug: InjectedBug, mut random: Prng, tally: &Arc<Tally>) -> Node {
        let mut key = [0; 32];
        peat_node::random::Random::fill(&mut random, &mut key);
        let identity = Arc::new(Identity::from_seed(key));
        let mut config = store::StoreConfig::new(identity.id());
        config.flush_interval = Duration::from_millis(random.between(50, 2_000));
        config.job_bytes = crate::drive::job_bytes(&mut random.fork("jobs", 0));
        config.cache_bytes = 1 << 20;
        config.injected_bug = injected_bug;
        Node {
            number,
            life: 0,
            identity,
            config,
            disk: SimDisk::new(Vec::new(), random.fork("disk", 0), Arc::clone(tally)),
            disks: 0,
            backup: None,
            clock,
            unpowered: false,
            running: None,
            ledger: Ledger::default(),
            troubled: false,
            was_troubled: false,
            silent: false,
            stops: 0,
            ended_stops: 0,
            pace: random.fork("pace", 0),
            notices: Vec::new(),
            random,
            tally: Arc::clone(tally),
        }
    }

    /// Makes a collection `latest` on this node.
    pub fn make_latest(&mut self, collection: &str) {
        self.config.latest_collections.insert(collection.to_owned());
    }

    /// Returns the collections that are `latest` on this node.
    pub fn latest_collections(&self) -> std::collections::BTreeSet<String> {
        self.config.latest_collections.clone()
    }

    pub fn id(&self) -> EndpointId {
        self.identity.id()
    }

    // On and off.

    /// Switches the machine on. Returns false if its disk prevents that.
    pub fn start(&mut self, time: Time, sync: sync::SyncConfig, keys: &[Key]) -> Result<bool, Violation> {
        if std::mem::take(&mut self.unpowered) {
            self.clock.reboot(time);
        }
        self.config.boot = self.clock.boot_id();
        let now = self.clock.at(time);
        self.life += 1;
        let opened = Store::open(self.disk.clone(), self.config.clone(), &mut self.random, now);
        match opened {
            Ok(store) => self.run(now, store, sync, keys),
            Err(_) if !self.disk.is_powered() => {
                self.lose_power();
                Ok(false)
            }
            Err(_) if self.troubled => Ok(false),
            Err(error) => Err(unexpected("opening", &error)),
        }
    }

    fn run(
        &mut self,
        now: Now,
        store: Store<SimDisk>,
        sync: sync::SyncConfig,
        keys: &[Key],
    ) -> Result<bool, Violation> {
        let reader = store.reader();
        let random = Box::new(self.random.fork("sync", self.life));
        let sync = match sync::Engine::new(sync, &self.identity, reader.clone(), random, now) {
            Ok(sync) => sync,
            Err(_) if self.troubled => return Ok(false),
            Err(error) => return Err(unexpected("starting sync", &error)),
        };
        let policy =
            api::Policy { own_uid: 0, admin_group: None, tcp_token: None, insecure: false, open_documents: false };
        let trust = Trust { node: self.identity.id(), ..Trust::default() };
        let config = api::ApiConfig {
            node_id: format!("node{}", self.number),
            watched_agent: format!("node{}", self.number),
            policy,
            cache_bytes: self.config.cache_bytes,
            fleet: fleet::Settings { times: TIMES, ..fleet::Settings::default() },
            identity: Arc::clone(&self.identity),
            commands: Settings {
                trust,
                retention: Duration::from_secs(*self.random.pick(&[5, 60, 3_600])),
                ..Settings::default()
            },
        };
        let api = api::Engine::new(config, reader.clone(), now);
        let inbox = VecDeque::new();
        self.running = Some(Running { store, reader, sync, api, inbox, committing: false, armed: BTreeMap::new() });
        (self.silent, self.stops, self.ended_stops) = (false, 0, 0);
        self.notices.clear();
        self.was_troubled = self.troubled;
        self.observe(true, keys)?;
        Ok(true)
    }

    /// Cuts the power.
    pub fn crash(&mut self) {
        self.tally.count(Fault::Crash);
        self.lose_power();
    }

    fn lose_power(&mut self) {
        self.unpowered = true;
        self.replug();
    }

    fn replug(&mut self) {
        let image = self.disk.crash();
        self.running = None;
        self.life += 1;
        self.insert(image);
    }

    fn insert(&mut self, image: Vec<u8>) {
        self.disks += 1;
        self.disk = SimDisk::new(image, self.random.fork("disk", self.disks), Arc::clone(&self.tally));
    }

    /// Stops as a service does on request: says goodbye, flushes, closes.
    pub fn stop(&mut self, time: Time) -> Output {
        let mut output = Output::default();
        let now = self.clock.at(time);
        if let Some(mut running) = self.running.take() {
            self.tally.count(Fault::Restart);
            running.sync.handle_shutdown(now);
            transmit(&mut running.sync, now, &mut output);
            self.ledger.working();
            let flush = Envelope { ticket: Ticket::Api(u64::MAX), request: StoreRequest::Flush };
            running.store.handle_batch(now, running.inbox.drain(..).chain([flush]), &mut Vec::new());
        }
        self.replug();
        output
    }

    /// Notes the answer to StopSync. A stalled node may answer after StartSync was requested, and is not silent then.
    pub fn fell_silent(&mut self) {
        self.stops = self.stops.saturating_sub(1);
        match self.ended_stops.checked_sub(1) {
            Some(left) => self.ended_stops = left,
            None => self.silent = true,
        }
    }

    /// Notes a request of StartSync.
    pub fn end_silence(&mut self) {
        self.silent = false;
        self.ended_stops = self.stops;
    }

    pub fn is_powered(&self) -> bool {
        self.disk.is_powered()
    }

    /// Handles a power failure during a write.
    pub fn power_failed(&mut self) {
        self.tally.count(Fault::CrashInCommit);
        self.lose_power();
    }

    /// Sets the failure rates and the room of the disk.
    pub fn break_disk(&mut self, faults: DiskFaults, spare: Option<usize>) {
        self.troubled = true;
        self.was_troubled = true;
        self.disk.set_faults(faults);
        self.disk.set_spare(spare);
    }

    /// Repairs the disk and lifts its capacity.
    pub fn mend_disk(&mut self) {
        self.troubled = false;
        self.disk.set_faults(DiskFaults::default());
        self.disk.set_fuse(None);
        self.disk.set_spare(None);
    }

    /// Takes a backup of the disk.
    pub fn back_up(&mut self) {
        self.backup = Some(self.disk.backup());
    }

    /// Replaces the disk by the last backup, or by an empty one.
    pub fn replace_disk(&mut self, restore: bool) {
        self.tally.count(if restore { Fault::BackupRestored } else { Fault::DiskReplaced });
        let image = if restore { self.backup.clone().unwrap_or_default() } else { Vec::new() };
        self.lose_power();
        self.insert(image);
        self.ledger.replaced();
    }

    pub fn has_backup(&self) -> bool {
        self.backup.is_some()
    }

    // The store thread.

    /// Compares the state that readers show with the ledger; `reopened`: after a crash or its equivalent.
    fn observe(&mut self, reopened: bool, keys: &[Key]) -> Result<(), Violation> {
        if reopened {
            self.ledger.reopened();
        }
        let Some(running) = &self.running else { return Ok(()) };
        let look = || durability::states(&running.reader.snapshot()?, keys);
        match self.disk.undisturbed(look) {
            Ok(states) => self.ledger.observe(states, running.store.tip()),
            Err(error) if self.was_troubled => {
                seeds::trace(|| format!("node {} cannot be looked at: {error}", self.number));
                self.ledger.missed();
                Ok(())
            }
            Err(error) => Err(unexpected("looking at it", &error)),
        }
    }

    /// Begins a commit if there are requests; returns its duration and the mail it emits at the end.
    pub fn begin_commit(&mut self, time: Time, keys: &[Key], promises: &mut Promises) -> Result<Commit, Violation> {
        let Some(running) = &mut self.running else { return Ok(Commit::Nothing) };
        if running.committing || running.inbox.is_empty() {
            return Ok(Commit::Nothing);
        }
        let count = running.inbox.len();
        let batch: Vec<Envelope> = running.inbox.drain(..count).collect();
        let asked: Vec<_> = batch.iter().map(ControlRequest::of).collect();
        let now = self.clock.at(time);
        let mut drive = Drive::new(batch);
        let (mut goes_on, mut earlier) = (true, None);
        while goes_on {
            let Some(running) = &mut self.running else { return Ok(Commit::Nothing) };
            self.ledger.working();
            goes_on = drive.step(&mut running.store, now, &mut self.pace, &self.tally);
            if goes_on && self.disk.is_powered() {
                // A crash during a later commit may leave the state of an earlier one, so each is observed.
                let reopened = running.store.poll_reopened();
                reopened.iter().for_each(|reader| running.reader = reader.clone());
                self.observe(reopened.is_some(), keys)?;
                earlier = reopened.or(earlier);
            }
        }
        self.after_commit(keys, &asked, (earlier, drive.replies()), promises)
    }

    /// Handles the store's deadline.
    pub fn flush(&mut self, time: Time, keys: &[Key], promises: &mut Promises) -> Result<Commit, Violation> {
        let Some(running) = &mut self.running else { return Ok(Commit::Nothing) };
        let now = self.clock.at(time);
        if running.committing || running.store.poll_deadline().is_none_or(|deadline| !now.reached(deadline)) {
            return Ok(Commit::Nothing);
        }
        running.store.handle_timeout(now);
        self.after_commit(keys, &[], (None, Vec::new()), promises)
    }

    fn after_commit(
        &mut self,
        keys: &[Key],
        asked: &[ControlRequest],
        (earlier, replies): (Option<Reader>, Vec<Reply>),
        promises: &mut Promises,
    ) -> Result<Commit, Violation> {
        if !self.disk.is_powered() {
            self.power_failed();
            return Ok(Commit::Failed);
        }
        if replies.len() != asked.len() {
            return Err(Violation::new(
                "every request is answered once",
                format!("{} for {}", replies.len(), asked.len()),
            ));
        }
        if replies.iter().all(|reply| !matches!(reply.result, Err(Error::Io(_)))) {
            self.ledger.answered();
        }
        let running = self.running.as_mut().expect("the store has just worked");
        let reopened = running.store.poll_reopened();
        if let Some(reader) = &reopened {
            running.reader = reader.clone();
            self.ledger.reopened();
        }
        running.committing = true;
        let (number, tip, run) = (self.number, running.store.tip(), running.store.run());
        seeds::trace(|| {
            let failed = replies.iter().filter(|reply| reply.result.is_err()).count();
            format!(
                "node {number} answers {} ({failed} failed), {tip:?}, reopened {} run {:02x?}",
                replies.len(),
                reopened.is_some(),
                &run.0[..4]
            )
        });
        let busy = self.disk.take_busy() + Duration::from_micros(self.random.between(5, 100));
        self.acknowledge(asked, &replies, promises)?;
        self.observe(reopened.is_some(), keys)?;
        Ok(Commit::Takes(busy, self.hand_out(reopened.or(earlier), replies)))
    }

    fn hand_out(&self, reopened: Option<Reader>, replies: Vec<Reply>) -> Vec<(Role, Mail)> {
        let running = self.running.as_ref().expect("the store has just worked");
        let readers = reopened
            .into_iter()
            .flat_map(|reader| [Role::Api, Role::Sync].map(|to| (to, Mail::Reader(reader.clone()))));
        let replies = replies.into_iter().map(|reply| match reply.ticket {
            Ticket::Api(_) => (Role::Api, Mail::Reply(reply)),
            Ticket::Sync(_) => (Role::Sync, Mail::Reply(reply)),
        });
        let tips = [Role::Api, Role::Sync].map(|to| (to, Mail::Tip(running.store.tip())));
        readers.chain(replies).chain(tips).collect()
    }

    fn acknowledge(
        &mut self,
        asked: &[ControlRequest],
        replies: &[Reply],
        promises: &mut Promises,
    ) -> Result<(), Violation> {
        let running = self.running.as_ref().expect("the store has just worked");
        for reply in replies {
            let Ok(Outcome::Written { version, sequence, durable: true, .. }) = &reply.result else { continue };
            let Some(asked) = asked.iter().find(|asked| asked.ticket == reply.ticket) else { continue };
            let Some(key) = &asked.key else { continue };
            self.ledger.acknowledged(key, *sequence);
            if [odd::MIXED, odd::LARGE].contains(&key.collection()) {
                continue;
            }
            if let Ok(snapshot) = running.reader.snapshot() {
                let made = promises.made(self.number, &snapshot, key, version, asked.field.clone());
                made.or_else(|error| if self.was_troubled { Ok(()) } else { Err(unexpected("promising", &error)) })?;
            }
        }
        Ok(())
    }

    /// Ends the commit.
    pub fn committed(&mut self) {
        if let Some(running) = &mut self.running {
            running.committing = false;
        }
    }

    // Mail and datagrams.

    /// Delivers a message to a thread.
    pub fn receive(&mut self, time: Time, to: Role, mail: Mail) -> Output {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Output::default() };
        match (to, mail) {
            (Role::Store, Mail::Submitted(submitted)) => running.inbox.push_back(submitted),
            (Role::Sync, Mail::Reply(reply)) => running.sync.handle_reply(now, reply),
            (Role::Sync, Mail::Reader(reader)) => running.sync.handle_reader(now, reader),
            (Role::Sync, Mail::Tip(tip)) => running.sync.handle_tip(now, tip),
            (Role::Sync, Mail::Asked(asked)) => running.sync.handle_asked(now, asked),
            (Role::Sync, Mail::Resolved(name, result)) => {
                running.sync.handle_resolved(now, &name, result.as_deref());
            }
            (Role::Api, Mail::Reply(reply)) => running.api.handle_reply(now, reply),
            (Role::Api, Mail::Reader(reader)) => running.api.handle_reader(now, reader),
            (Role::Api, Mail::Tip(tip)) => running.api.handle_tip(now, tip),
            (Role::Api, Mail::Event(event)) => running.api.handle_event(now, event),
            _ => {}
        }
        self.drain(now)
    }

    pub fn datagram(&mut self, time: Time, from: SocketAddr, data: &[u8]) -> Output {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Output::default() };
        running.sync.handle_datagram(now, from, BytesMut::from(data));
        self.drain(now)
    }

    /// Delivers the kernel's notification that the network has changed.
    pub fn network_changed(&mut self, time: Time) -> Output {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Output::default() };
        running.sync.handle_network_changed(now);
        self.drain(now)
    }

    /// Handles the api thread's deadline.
    pub fn wake_api(&mut self, time: Time) -> Output {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Output::default() };
        running.api.handle_timeout(now);
        self.drain(now)
    }

    /// Handles the sync thread's deadline.
    pub fn wake_sync(&mut self, time: Time) -> Output {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Output::default() };
        running.sync.handle_timeout(now);
        self.drain(now)
    }

    /// Drains the engines and returns their output.
    pub fn drain(&mut self, now: Now) -> Output {
        let mut output = Output::default();
        let Some(running) = &mut self.running else { return output };
        while let Some(submitted) = running.sync.poll_store() {
            output.mail.push((Role::Sync, Role::Store, Mail::Submitted(submitted)));
        }
        while let Some(event) = running.sync.poll_event() {
            output.mail.push((Role::Sync, Role::Api, Mail::Event(event)));
        }
        while let Some(name) = running.sync.poll_resolve() {
            output.mail.push((Role::Sync, Role::Resolver, Mail::Resolve(name)));
        }
        while let Some(submitted) = running.api.poll_store() {
            output.mail.push((Role::Api, Role::Store, Mail::Submitted(submitted)));
        }
        while let Some(asked) = running.api.poll_asked() {
            output.mail.push((Role::Api, Role::Sync, Mail::Asked(asked)));
        }
        while running.api.poll_output().is_some() || running.api.poll_close().is_some() {}
        transmit(&mut running.sync, now, &mut output);
        output
    }

    /// Returns the deadline of each thread.
    pub fn deadlines(&mut self, time: Time) -> Vec<(Role, Time)> {
        let now = self.clock.at(time);
        let Some(running) = &mut self.running else { return Vec::new() };
        let sync = running.sync.poll_deadline(now).map(|(deadline, _)| (Role::Sync, self.clock.when(deadline)));
        let store = running.store.poll_deadline().filter(|_| !running.committing);
        let store = store.map(|deadline| (Role::Store, self.clock.when(deadline)));
        let api = running.api.poll_deadline().map(|(deadline, _)| (Role::Api, self.clock.when(deadline)));
        sync.into_iter().chain(store).chain(api).collect()
    }
}

/// A request in the store's queue, as the checkers record it.
#[derive(Debug)]
struct ControlRequest {
    ticket: Ticket,
    key: Option<Key>,
    /// The field it adds to a grow-only document.
    field: Option<String>,
}

impl ControlRequest {
    fn of(submitted: &Envelope) -> ControlRequest {
        let write = match &submitted.request {
            StoreRequest::Write(write) => Some(write),
            _ => None,
        };
        let field = write.and_then(|write| crate::workload::grown(&write.put));
        ControlRequest { ticket: submitted.ticket, key: write.map(|write| write.key.clone()), field }
    }
}

fn transmit(sync: &mut sync::Engine, now: Now, output: &mut Output) {
    let mut datagram = Vec::new();
    while let Some(to) = sync.poll_transmit(now, &mut datagram) {
        output.datagrams.push((to, datagram.clone()));
    }
}

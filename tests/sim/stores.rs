//! Stores without a network: random writes, exchanges, crashes and disk faults on one to three machines, then healing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use peat_node::clock::Now;
use peat_node::store::{Applied, InjectedBug, Key, Kind, Outcome, PeerSetting, SavedPeer, Snapshot, StoreRequest};

use crate::checkers::convergence;
use crate::checkers::merges::Model;
use crate::checkers::promises::Promises;
use crate::disk::DiskFaults;
use crate::exchange;
use crate::faults::{Fault, Tally};
use crate::machine::{Issued, Machine};
use crate::model::edits::{self, Known, Marks};
use crate::model::{self, Sight};
use crate::prng::Prng;
use crate::seeds::{self, Verdict, Violation};
use crate::time::Clock;
use crate::workload;

/// Faults that this scenario must inject at least once over all seeds.
pub const FAULTS: &[Fault] = &[
    Fault::Crash,
    Fault::CrashInCommit,
    Fault::WriteLost,
    Fault::WriteKept,
    Fault::WriteTorn,
    Fault::ReadError,
    Fault::WriteError,
    Fault::WritePartial,
    Fault::SyncError,
    Fault::DiskFull,
    Fault::SlowSync,
    Fault::DiskReplaced,
    Fault::BackupRestored,
    Fault::StalePatch,
    Fault::StaleWhole,
    Fault::LargeArray,
    Fault::EveryElement,
    Fault::QuickEdit,
    Fault::Compaction,
    Fault::BlindCreation,
    Fault::MergeCompared,
];

/// Number of steps in the faulty phase.
const STEPS: u64 = 120;
/// Number of versions of a document that the clients of one machine remember.
const SEEN: usize = 4;
/// Maximum number of exchange rounds until convergence.
const ROUNDS: usize = 60;

struct World {
    machines: Vec<Machine>,
    keys: Vec<Key>,
    ids: u64,
    promises: Promises,
    model: Model,
    /// Versions of the model's documents that clients of each machine have read, oldest first.
    seen: BTreeMap<(usize, Key), Vec<Sight>>,
    /// Number of elements in a new array of the model.
    elements: u64,
    clock: Clock,
    elapsed: Duration,
    marks: u64,
    random: Prng,
    tally: Arc<Tally>,
}

/// Runs one seed; `base` is the start of virtual time.
pub fn run(seed: u64, injected_bug: InjectedBug, base: Instant, tally: &Arc<Tally>) -> Verdict {
    let mut world = World::new(seed, injected_bug, base, tally);
    for _ in 0..STEPS {
        world.step()?;
    }
    world.heal()?;
    let rounds = world.converge()?;
    world.verify()?;
    Ok(format!(
        "{} machines converged in {rounds} rounds; {} promises kept",
        world.machines.len(),
        world.promises.len()
    ))
}

impl World {
    fn new(seed: u64, injected_bug: InjectedBug, base: Instant, tally: &Arc<Tally>) -> World {
        let mut random = Prng::new(seed);
        let ids = random.between(1, 4);
        let machines = 0..=random.index(3);
        let machine = |number: usize| Machine::new(number, injected_bug, random.fork("machine", number as u64), tally);
        let machines = machines.map(machine).collect();
        let clock = Clock::new(base, 0, 0);
        let elements = match random.below(50) {
            0 => 1_000,
            1..4 => 200,
            _ => 12,
        };
        World {
            machines,
            keys: workload::keys(ids).into_iter().chain(model::keys()).collect(),
            ids,
            promises: Promises::default(),
            model: Model::default(),
            seen: BTreeMap::new(),
            elements,
            clock,
            elapsed: Duration::ZERO,
            marks: 0,
            random,
            tally: Arc::clone(tally),
        }
    }

    fn now(&self) -> Now {
        self.clock.at(self.elapsed)
    }

    fn step(&mut self) -> Result<(), Violation> {
        self.elapsed += Duration::from_micros(self.random.between(10, 300_000));
        let number = self.random.index(self.machines.len());
        let now = self.now();
        let machine = &mut self.machines[number];
        machine.start(now, &self.keys)?;
        machine.tick(now, &self.keys)?;
        match self.random.below(100) {
            0..38 => self.write(number)?,
            38..50 => self.edit(number)?,
            50..75 => self.exchange(number)?,
            75..80 => self.settings(number)?,
            80..97 => self.disturb(number)?,
            _ => self.disaster(number),
        }
        if self.random.chance(300) {
            let most = if self.random.chance(500) { usize::MAX } else { self.random.index(4) };
            self.machines[number].follow(&self.keys, most)?;
        }
        self.compare_merges(number)
    }

    fn compare_merges(&self, number: usize) -> Result<(), Violation> {
        self.machines[number].compare_merges(&model::keys(), &self.model)
    }

    /// Performs one write of the model, or edits one document at the maximum rate.
    fn edit(&mut self, number: usize) -> Result<(), Violation> {
        let key = model::key(&mut self.random);
        let quick = if self.random.chance(60) { self.random.between(20, 60) } else { 0 };
        for count in 0..=quick {
            let Ok(sight) = self.machines[number].sight(&key) else { return Ok(()) };
            let seen = self.seen.entry((number, key.clone())).or_default();
            let known = Known { now: sight.as_ref(), before: seen, elements: self.elements };
            let mut marks = Marks(&mut self.marks);
            let edit = match &sight {
                Some(sight) if count > 0 => edits::quick_patch(&mut self.random, &mut marks, sight),
                _ => edits::edit(&mut self.random, &mut marks, known),
            };
            if let Some(sight) = sight.filter(|_| count == 0) {
                seen.push(sight);
                seen.drain(..seen.len().saturating_sub(SEEN));
            }
            if !self.machines[number].has_record(&key) && self.machines.iter().any(|machine| machine.has_record(&key)) {
                self.tally.count(Fault::BlindCreation);
            }
            seeds::trace(|| format!("{number} edits {key}: {:?}", edit.put));
            let now = self.now();
            self.machines[number].edit(now, (&key, &edit), &self.keys, &mut self.model)?;
        }
        Ok(())
    }

    fn write(&mut self, number: usize) -> Result<(), Violation> {
        let writes: Vec<Issued> = (0..self.random.between(1, 6)).map(|_| self.issue(number)).collect();
        seeds::trace(|| format!("{number} writes {writes:?}"));
        let now = self.now();
        self.machines[number].write(now, &writes, &self.keys, &mut self.promises)
    }

    fn issue(&mut self, number: usize) -> Issued {
        self.marks += 1;
        let key = workload::key(&mut self.random, self.ids);
        let base = self.random.chance(200).then(|| self.machines[number].version(&key)).flatten();
        let put = workload::put(&mut self.random, &key, self.marks, base);
        Issued { key, put, durable: self.random.chance(300) }
    }

    /// Sends one batch of one kind to `to` from a random machine; returns true if there was anything to send.
    fn exchange(&mut self, to: usize) -> Result<(), Violation> {
        let from = self.random.index(self.machines.len());
        let kind = *self.random.pick(&Kind::ALL);
        if from != to {
            self.carry(from, to, kind)?;
        }
        Ok(())
    }

    fn carry(&mut self, from: usize, to: usize, kind: Kind) -> Result<bool, Violation> {
        let (Some(source), Some(target)) = (self.machines[from].source(), self.machines[to].source()) else {
            return Ok(false);
        };
        let next = exchange::next(&source, &target.reader, kind, &mut self.random);
        let troubled = self.machines[from].may_fail() || self.machines[to].may_fail();
        let apply = match next {
            Ok(Some(apply)) => apply,
            Ok(None) => return Ok(false),
            Err(_) if troubled => return Ok(false),
            Err(error) => return Err(Violation::new("no unexpected error", format!("exchanging: {error}"))),
        };
        seeds::trace(|| format!("{from} to {to}: {}", exchange::summary(&apply)));
        let Some(applied) = self.apply(to, StoreRequest::Apply(apply))? else { return Ok(true) };
        seeds::trace(|| format!("{from} to {to}: applied, missing {:?}", applied.missing));
        if !applied.missing.is_empty()
            && let Ok(request) = exchange::lacking(&source, &applied.missing)
        {
            self.apply(to, request)?;
        }
        Ok(true)
    }

    fn apply(&mut self, to: usize, request: StoreRequest) -> Result<Option<Applied>, Violation> {
        let now = self.now();
        let replies = self.machines[to].submit(now, vec![request], &self.keys)?;
        match replies.into_iter().next().map(|reply| reply.result) {
            Some(Ok(Outcome::Applied(applied))) if applied.refused.is_empty() => Ok(Some(applied)),
            Some(Ok(Outcome::Applied(applied))) => {
                Err(Violation::new("what a store sends a store accepts", format!("{:?}", applied.refused)))
            }
            Some(Err(error)) if !self.machines[to].troubled => {
                Err(Violation::new("no unexpected error", error.to_string()))
            }
            _ => Ok(None),
        }
    }

    fn settings(&mut self, number: usize) -> Result<(), Violation> {
        let peer = exchange::endpoint(self.random.index(4));
        let wish = if self.random.chance(500) {
            PeerSetting::Refuse(Vec::new())
        } else {
            PeerSetting::Connect(vec!["10.0.0.1:4242".into()])
        };
        let request = match self.random.below(3) {
            0 => StoreRequest::SaveLink(SavedPeer { peer, wish }),
            1 => StoreRequest::SaveSync(self.random.chance(500)),
            _ => StoreRequest::Flush,
        };
        let now = self.now();
        self.machines[number].submit(now, vec![request], &self.keys).map(drop)
    }

    /// Injects faults that lose nothing that was promised.
    fn disturb(&mut self, number: usize) -> Result<(), Violation> {
        let now = self.now();
        let machine = &mut self.machines[number];
        let what = self.random.below(10);
        seeds::trace(|| format!("{number} is disturbed: {what}"));
        match what {
            0..3 => machine.crash(),
            3..6 => {
                let most = *self.random.pick(&[8, 60]);
                machine.disk().set_fuse(Some(self.random.below(most)));
            }
            6 => machine.set_faults(DiskFaults { slow_sync_ppm: 300_000, ..self::faults(&mut self.random) }),
            7 => machine.set_spare(self.random.index(200_000)),
            _ => machine.heal(now, &self.keys)?,
        }
        Ok(())
    }

    fn disaster(&mut self, number: usize) {
        let what = self.random.below(3);
        seeds::trace(|| format!("{number} has a disaster: {what}"));
        match what {
            0 => self.machines[number].back_up(),
            1 => {
                self.promises.release(number);
                self.model.release(number);
                self.machines[number].replace_disk();
            }
            _ => {
                if self.machines[number].restore() {
                    self.promises.release(number);
                    self.model.release(number);
                }
            }
        }
    }

    fn heal(&mut self) -> Result<(), Violation> {
        let now = self.now();
        for machine in &mut self.machines {
            machine.heal(now, &self.keys)?;
            machine.crash();
            while !machine.is_open() {
                machine.start(now, &self.keys)?;
            }
        }
        Ok(())
    }

    /// Exchanges until no machine lacks anything; returns the number of rounds.
    fn converge(&mut self) -> Result<usize, Violation> {
        for round in 0..ROUNDS {
            let mut moved = false;
            for (from, to) in self.pairs() {
                for kind in Kind::ALL {
                    moved |= self.carry(from, to, kind)?;
                }
            }
            self.elapsed += Duration::from_secs(3);
            let now = self.now();
            self.machines.iter_mut().try_for_each(|machine| machine.tick(now, &self.keys))?;
            if !moved {
                return Ok(round);
            }
        }
        Err(Violation::new("convergence", format!("after {ROUNDS} rounds: {:?}", self.disagreement()?)))
    }

    fn pairs(&self) -> Vec<(usize, usize)> {
        let count = self.machines.len();
        (0..count).flat_map(|from| (0..count).map(move |to| (from, to))).filter(|(from, to)| from != to).collect()
    }

    fn snapshots(&self) -> Result<Vec<Snapshot>, Violation> {
        let broken = |error: peat_node::store::Error| Violation::new("no unexpected error", error.to_string());
        let sources = self.machines.iter().filter_map(Machine::source);
        sources.map(|source| source.reader.snapshot().map_err(broken)).collect()
    }

    fn disagreement(&self) -> Result<Option<String>, Violation> {
        let broken = |error: peat_node::store::Error| Violation::new("no unexpected error", error.to_string());
        for pair in self.snapshots()?.windows(2) {
            let difference =
                convergence::difference(&pair[0], &pair[1], &self.keys, &BTreeSet::new()).map_err(broken)?;
            if difference.is_some() {
                return Ok(difference);
            }
        }
        Ok(None)
    }

    fn verify(&mut self) -> Result<(), Violation> {
        if let Some(what) = self.disagreement()? {
            return Err(Violation::new("convergence", what));
        }
        let snapshots = self.snapshots()?;
        for pair in snapshots.windows(2) {
            convergence::same_content(&pair[0], &pair[1], &self.keys)?;
        }
        snapshots.iter().try_for_each(|snapshot| self.promises.kept(snapshot))?;
        (0..self.machines.len()).try_for_each(|number| self.compare_merges(number))?;
        self.machines.iter().try_for_each(|machine| machine.compare_kept(&model::keys(), &self.model))?;
        self.machines.iter_mut().try_for_each(|machine| machine.follow(&self.keys, usize::MAX))?;
        self.heal()?;
        self.machines.iter_mut().try_for_each(|machine| machine.follow(&self.keys, usize::MAX))
    }
}

/// Draws the failure rates of a disk, rare or frequent.
fn faults(random: &mut Prng) -> DiskFaults {
    let often = *random.pick(&[0, 2_000, 50_000]);
    DiskFaults {
        read_ppm: often / 10,
        write_ppm: if random.chance(500) { often } else { 0 },
        sync_ppm: if random.chance(500) { often } else { 0 },
        slow_sync_ppm: 0,
    }
}

//! The state that the threads of one agent share: a mutex that is never held while a handler runs, and condition variables.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::jobs::Jobs;
use super::ledger::Ledger;
use super::once::Attempt;
use super::work::Handler;
use crate::Target;
use crate::agent::{Register, Registered, State, Workload, agent_message};
use crate::duplex::Uplink;
use crate::sidecar::Command;

/// The agent's settings and its locked state; see the module's documentation.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) token: String,
    pub(super) handler: Option<Handler>,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Idle workers wait on this separate condition variable, so that other changes do not wake them.
    work: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

/// Registration and state as the agent last reported them.
#[derive(Clone, Debug)]
pub(super) struct Said {
    registration: Register,
    state: Option<State>,
}

/// The mutable state of an agent, guarded by the mutex.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) jobs: Jobs,
    /// Number of workers without a command.
    pub(super) idle: usize,
    /// Commands that the stream's thread has already taken for idle workers.
    pub(super) handed: VecDeque<(Command, Arc<AtomicBool>)>,
    pub(super) attempts: BTreeMap<String, Arc<Attempt>>,
    pub(super) registration: Register,
    /// State that the agent last reported, without its workloads.
    pub(super) state: Option<State>,
    /// Sending half of the stream, from registration to the end of the stream.
    pub(super) uplink: Option<Uplink>,
    /// The node's answer to the registration.
    pub(super) terms: Option<Registered>,
    pub(super) leaving: bool,
    /// True once the stream's thread has ended.
    pub(super) gone: bool,
    /// Report that was last sent and that the node may still reject.
    pub(super) offered: Option<Said>,
    /// Last report that the node accepted.
    pub(super) agreed: Option<Said>,
    /// The node's reason for rejecting a report, until the agent changes it.
    pub(super) refusal: Option<String>,
    /// Description of the failure that prevents a stream or keeps commands from advancing.
    pub(super) trouble: Option<String>,
}

impl Shared {
    pub(super) fn new(
        target: Target,
        token: String,
        handler: Option<Handler>,
        registration: Register,
        memory: Option<&Path>,
    ) -> io::Result<Shared> {
        let jobs = Jobs::new(Ledger::open(&registration.agent_id, memory)?)?;
        let inner = Inner {
            jobs,
            idle: 0,
            handed: VecDeque::new(),
            attempts: BTreeMap::new(),
            registration,
            state: None,
            uplink: None,
            terms: None,
            leaving: false,
            gone: false,
            offered: None,
            agreed: None,
            refusal: None,
            trouble: None,
        };
        Ok(Shared { target, token, handler, inner: Mutex::new(inner), changed: Condvar::new(), work: Condvar::new() })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the lock until something changes, for at most `patience`.
    pub(super) fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, patience: Duration) -> MutexGuard<'a, Inner> {
        let waited = self.changed.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
        waited.0
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Blocks a worker until a command may be available, for at most `patience`.
    pub(super) fn wait_for_work<'a>(
        &self,
        mut inner: MutexGuard<'a, Inner>,
        patience: Duration,
    ) -> MutexGuard<'a, Inner> {
        inner.idle += 1;
        let waited = self.work.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
        let mut inner = waited.0;
        inner.idle -= 1;
        inner
    }

    /// Wakes all workers: commands may be available, or the agent is leaving.
    pub(super) fn notify_workers(&self) {
        self.work.notify_all();
    }

    /// Takes commands on behalf of idle workers, so that the node receives their acceptance without waiting for a thread
    /// switch.
    pub(super) fn hand_out(&self, inner: &mut Inner, now: Instant) {
        while inner.handed.len() < inner.idle {
            let taken = inner.jobs.take(now);
            let Some(taken) = inner.recorded(taken).flatten() else { return };
            inner.handed.push_back(taken);
            self.work.notify_one();
        }
    }
}

impl Inner {
    /// Sends all command updates that are due on this stream.
    pub(super) fn tell(&mut self) {
        for update in self.jobs.poll_updates() {
            self.send(agent_message::Body::CommandUpdate(update));
        }
    }

    /// Sends `body` if there is a stream. Cuts a stream that fails, so that its reading thread sees the end.
    pub(super) fn send(&mut self, body: agent_message::Body) {
        if let Some(uplink) = &mut self.uplink
            && uplink.send(body).is_err()
        {
            uplink.cut();
            self.uplink = None;
        }
    }

    /// Unwraps a result of the ledger; an error becomes the agent's current failure.
    pub(super) fn recorded<T>(&mut self, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(cause) => {
                self.trouble = Some(format!("the record of commands: {cause}"));
                None
            }
        }
    }

    pub(super) fn register(&mut self) -> Register {
        self.offer();
        Register { commands: self.jobs.registered(), ..self.registration.clone() }
    }

    /// Marks the current registration and state as offered: the node's next answer accepts them.
    pub(super) fn offer(&mut self) {
        self.offered = Some(Said { registration: self.registration.clone(), state: self.state.clone() });
    }

    pub(super) fn agree(&mut self) {
        if let Some(said) = self.offered.take() {
            self.agreed = Some(said);
        }
    }

    /// Reverts to the last accepted report. The node would reject the rest again at every registration.
    pub(super) fn take_back(&mut self, why: &str) {
        if let Some(said) = self.agreed.clone() {
            (self.registration, self.state) = (said.registration, said.state);
            self.refusal = Some(format!("the node refused what the agent said of itself, which is taken back: {why}"));
        }
    }

    /// Adds a workload to the registration, replacing one with the same name.
    pub(super) fn put_workload(&mut self, workload: Workload) {
        self.drop_workload(&workload.name);
        self.registration.workloads.push(workload);
    }

    pub(super) fn drop_workload(&mut self, name: &str) {
        self.registration.workloads.retain(|workload| workload.name != name);
    }
}

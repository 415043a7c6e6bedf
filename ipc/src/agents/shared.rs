//! What the threads of one agent share: a mutex that is never held while a handler runs, and a condition for every change.

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

/// See the module's documentation.
pub(super) struct Shared {
    pub(super) target: Target,
    pub(super) token: String,
    pub(super) handler: Option<Handler>,
    inner: Mutex<Inner>,
    changed: Condvar,
    /// Workers without a command wait on this one, so that news wakes only whom it is for.
    work: Condvar,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("target", &self.target).finish_non_exhaustive()
    }
}

/// What an agent says of itself.
#[derive(Clone, Debug)]
pub(super) struct Said {
    registration: Register,
    state: Option<State>,
}

/// Everything that changes.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) jobs: Jobs,
    /// Workers without a command, and commands that the thread of the stream has taken for them.
    pub(super) idle: usize,
    pub(super) handed: VecDeque<(Command, Arc<AtomicBool>)>,
    pub(super) attempts: BTreeMap<String, Arc<Attempt>>,
    pub(super) registration: Register,
    /// What the agent said of itself last, beside its workloads.
    pub(super) state: Option<State>,
    /// Present from a Register to the end of its stream.
    pub(super) uplink: Option<Uplink>,
    /// The node's answer to it.
    pub(super) terms: Option<Registered>,
    pub(super) leaving: bool,
    /// The thread of the stream has ended.
    pub(super) gone: bool,
    /// What was said last that the node may still refuse, and what it took before that.
    pub(super) offered: Option<Said>,
    pub(super) agreed: Option<Said>,
    /// What the node refused of what the agent said of itself, until it says something else.
    pub(super) refusal: Option<String>,
    /// Why there is no link, or why commands do not get on, in words.
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

    /// Lets go of the lock until something changes, at most for `patience`.
    pub(super) fn wait<'a>(&self, inner: MutexGuard<'a, Inner>, patience: Duration) -> MutexGuard<'a, Inner> {
        let waited = self.changed.wait_timeout(inner, patience).unwrap_or_else(PoisonError::into_inner);
        waited.0
    }

    pub(super) fn notify(&self) {
        self.changed.notify_all();
    }

    /// Lets a worker wait until there may be a command for it.
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

    /// There may be commands for workers, or the agent leaves.
    pub(super) fn notify_workers(&self) {
        self.work.notify_all();
    }

    /// Takes commands for the workers that wait, so that the node hears at once that they are accepted.
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
    /// Says what the node does not know of commands.
    pub(super) fn tell(&mut self) {
        for update in self.jobs.poll_updates() {
            self.send(agent_message::Body::CommandUpdate(update));
        }
    }

    /// Sends, if there is a link. One that fails is cut, so that the thread that reads it sees its end.
    pub(super) fn send(&mut self, body: agent_message::Body) {
        if let Some(uplink) = &mut self.uplink
            && uplink.send(body).is_err()
        {
            uplink.cut();
            self.uplink = None;
        }
    }

    /// Notes what the ledger said.
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

    /// Everything said up to here is taken once the node answers what is sent next.
    pub(super) fn offer(&mut self) {
        self.offered = Some(Said { registration: self.registration.clone(), state: self.state.clone() });
    }

    pub(super) fn agree(&mut self) {
        if let Some(said) = self.offered.take() {
            self.agreed = Some(said);
        }
    }

    /// Goes back to what the node took: it would refuse the rest again at every registration.
    pub(super) fn take_back(&mut self, why: &str) {
        if let Some(said) = self.agreed.clone() {
            (self.registration, self.state) = (said.registration, said.state);
            self.refusal = Some(format!("the node refused what the agent said of itself, which is taken back: {why}"));
        }
    }

    /// Adds a workload to what is registered, or replaces the one of its name.
    pub(super) fn put_workload(&mut self, workload: Workload) {
        self.drop_workload(&workload.name);
        self.registration.workloads.push(workload);
    }

    pub(super) fn drop_workload(&mut self, name: &str) {
        self.registration.workloads.retain(|workload| workload.name != name);
    }
}

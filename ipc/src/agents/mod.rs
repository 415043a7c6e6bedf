//! An application as an agent: registers with the local node, sends heartbeats and runs commands.
//!
//! Owns the stream to the node and the ledger of commands. Must never run a command twice, and must work without a node: state,
//! deployments and results are delivered when the stream is next established.
//!
//! Each agent has named threads: `peat-agent` keeps the stream, and `peat-agent-N` run commands, [`Connect::workers`] of them
//! at a time. The handler is called on the latter.
//!
//! | file | idea |
//! |---|---|
//! | `link.rs`, `backoff.rs` | the stream: register, send heartbeats, receive, reconnect |
//! | `jobs.rs` | commands from push to confirmed end |
//! | `ledger.rs` | the state of commands, across restarts |
//! | `work.rs`, `once.rs` | running commands; work that several commands share |
//! | `shared.rs`, `clock.rs` | the state that the threads share; clock reads |

mod backoff;
mod clock;
mod jobs;
mod ledger;
mod link;
mod once;
mod shared;
#[cfg(test)]
mod tests;
mod work;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

pub(crate) use self::backoff::Backoff;
pub use self::once::Attempt;
use self::shared::Shared;
pub use self::work::{Outcome, Work};
use crate::agent::{Register, Registered, State, Workload, agent_message};
use crate::{CallError, Client, Code, Error, Target};

/// Default number of commands that run concurrently.
const WORKERS: usize = 4;

/// Time that a dropped agent waits for the node to receive its goodbye.
const GOODBYE: Duration = Duration::from_secs(1);

/// An agent that stays registered until it is closed or dropped.
///
/// ```no_run
/// use peat_ipc::agent::{Register, State};
/// use peat_ipc::{Agent, Outcome};
///
/// let agent = Agent::connect("unix:///run/peat-node/peat-node.sock".parse()?)
///     .remember_in("/var/lib/my-app/commands")
///     .on_command(|work| match work.command_type() {
///         "restart" => Outcome::Completed(r#"{"restarted": true}"#.into()),
///         other => Outcome::Failed(format!("what is {other}?")),
///     })
///     .register(Register { agent_id: "my-app-7".into(), group: "cameras".into(), ..Register::default() })?;
/// agent.heartbeat(State::default());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Agent {
    shared: Arc<Shared>,
}

/// An agent that is not registered yet; see [`Agent::connect`].
pub struct Connect {
    target: Target,
    token: String,
    memory: Option<PathBuf>,
    workers: usize,
    handler: Option<work::Handler>,
}

impl std::fmt::Debug for Connect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connect").field("target", &self.target).field("memory", &self.memory).finish_non_exhaustive()
    }
}

impl Connect {
    /// Sets the token for a TCP listener that requires one.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Connect {
        self.token = token.into();
        self
    }

    /// Sets the directory that keeps the state of commands, so that none runs twice across restarts of the agent. It belongs to
    /// this agent alone and is created if missing. Without it, the state lasts as long as the agent.
    #[must_use]
    pub fn remember_in(mut self, directory: impl Into<PathBuf>) -> Connect {
        self.memory = Some(directory.into());
        self
    }

    /// Sets the number of commands that run concurrently (default 4).
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Connect {
        self.workers = workers.max(1);
        self
    }

    /// Sets the handler that runs commands. It may block for any length of time; it blocks only its worker thread. Without a
    /// handler, commands stay pending at the node until they expire.
    #[must_use]
    pub fn on_command<O: Into<Outcome>>(mut self, handler: impl Fn(&Work<'_>) -> O + Send + Sync + 'static) -> Connect {
        self.handler = Some(Box::new(move |work| handler(work).into()));
        self
    }

    /// Starts the agent. It registers as soon as the node can be reached, and again each time the stream is lost.
    ///
    /// # Errors
    /// The ledger of commands cannot be opened, or a thread cannot be started.
    pub fn register(self, registration: Register) -> io::Result<Agent> {
        let workers = if self.handler.is_some() { self.workers } else { 0 };
        let shared = Shared::new(self.target, self.token, self.handler, registration, self.memory.as_deref())?;
        let shared = Arc::new(shared);
        for number in 1..=workers {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("peat-agent-{number}")).spawn(move || work::run(&shared))?;
        }
        let linked = Arc::clone(&shared);
        thread::Builder::new().name("peat-agent".to_owned()).spawn(move || link::run(&linked))?;
        Ok(Agent { shared })
    }
}

impl Agent {
    /// Returns a builder for an agent of the node at `target`.
    #[must_use]
    pub fn connect(target: Target) -> Connect {
        Connect { target, token: String::new(), memory: None, workers: WORKERS, handler: None }
    }

    /// Returns the node's answer to the registration; `None` while the agent is not registered.
    #[must_use]
    pub fn terms(&self) -> Option<Registered> {
        self.shared.lock().terms.clone()
    }

    /// Waits until the node has answered the registration.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED with the last failure in its message; the agent keeps trying.
    pub fn wait_registered(&self, patience: Duration) -> Result<Registered, CallError> {
        let end = clock::now() + patience;
        let mut inner = self.shared.lock();
        loop {
            let left = end.saturating_duration_since(clock::now());
            if let Some(terms) = &inner.terms {
                return Ok(terms.clone());
            }
            if left.is_zero() {
                let why = inner.trouble.as_deref().unwrap_or("the node has not answered");
                return Err(CallError::new(Code::DeadlineExceeded, format!("not registered: {why}")));
            }
            inner = self.shared.wait(inner, left);
        }
    }

    /// Returns a description of the current failure, if any: of the stream or of the ledger, or else the node's reason for
    /// rejecting the agent's last registration or state.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let inner = self.shared.lock();
        inner.trouble.clone().or_else(|| inner.refusal.clone())
    }

    /// Sends the agent's state now and after every reconnect. Workloads named here are reported as by
    /// [`Agent::report_deployment`].
    pub fn heartbeat(&self, state: State) {
        let mut inner = self.shared.lock();
        inner.refusal = None;
        if state.workloads_complete {
            inner.registration.workloads.clone_from(&state.workloads);
        } else {
            state.workloads.iter().for_each(|workload| inner.put_workload(workload.clone()));
        }
        inner.beat_with(state.clone());
        // The registration carries the workloads after a reconnect.
        inner.state = Some(State { workloads: Vec::new(), workloads_complete: false, ..state });
    }

    /// Puts `deployments/{agent_id}:{name}`.
    pub fn report_deployment(&self, workload: Workload) {
        let mut inner = self.shared.lock();
        inner.refusal = None;
        inner.put_workload(workload.clone());
        inner.beat_with(State { workloads: vec![workload], ..State::default() });
    }

    /// Deletes `deployments/{agent_id}:{name}`.
    pub fn remove_deployment(&self, name: &str) {
        let mut inner = self.shared.lock();
        inner.drop_workload(name);
        let workloads = inner.registration.workloads.clone();
        inner.beat_with(State { workloads, workloads_complete: true, ..State::default() });
    }

    /// Changes the registration and sends it. The agent's id does not change.
    pub fn update(&self, change: impl FnOnce(&mut Register)) {
        let mut inner = self.shared.lock();
        inner.refusal = None;
        let id = inner.registration.agent_id.clone();
        change(&mut inner.registration);
        inner.registration.agent_id = id;
        let register = inner.register();
        inner.send(agent_message::Body::Register(register));
    }

    /// Connects a separate client to the same node, for calls.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn client(&self) -> Result<Client, Error> {
        Ok(Client::connect(&self.shared.target)?.with_token(self.shared.token.clone()))
    }

    /// Waits up to `patience` until every command that has begun has ended and the node has confirmed it, then says goodbye.
    /// Returns false if some are unconfirmed: their ends are in the ledger and are reported when an agent is next started with
    /// it.
    #[must_use]
    pub fn close(self, patience: Duration) -> bool {
        let end = clock::now() + patience;
        let mut inner = self.shared.lock();
        while inner.jobs.unsettled() && clock::now() < end {
            inner = self.shared.wait(inner, end.saturating_duration_since(clock::now()));
        }
        !inner.jobs.unsettled()
    }
}

impl Drop for Agent {
    /// Says goodbye and waits up to a second for the node to receive it. Handlers that still run are left to finish.
    fn drop(&mut self) {
        let end = clock::now() + GOODBYE;
        let mut inner = self.shared.lock();
        inner.leaving = true;
        inner.goodbye();
        self.shared.notify();
        self.shared.notify_workers();
        while !inner.gone && clock::now() < end {
            inner = self.shared.wait(inner, end.saturating_duration_since(clock::now()));
        }
        if let Some(uplink) = &inner.uplink {
            uplink.cut();
        }
    }
}

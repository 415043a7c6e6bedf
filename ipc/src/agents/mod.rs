//! An application as an agent: registered with the node beside it, beating, running commands.
//!
//! Owns the stream to the node and the record of commands. Must never run a command twice, and never needs the node to be
//! there: what the agent has to say is said when it comes.
//!
//! Each agent has threads of its own, all named: `peat-agent`, which keeps the stream, and `peat-agent-N`, which run
//! commands, as many at once as [`Connect::workers`] says. The handler is called on those.
//!
//! | file | idea |
//! |---|---|
//! | `link.rs` | the stream: register, beat, hear, begin anew |
//! | `jobs.rs` | commands from push to confirmed end |
//! | `ledger.rs` | what became of them, across restarts |
//! | `work.rs`, `once.rs` | running them; work done once |

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

/// How many commands run at once when nobody says.
const WORKERS: usize = 4;

/// How long a node may take to hear that the agent leaves.
const GOODBYE: Duration = Duration::from_secs(1);

/// An agent that is kept registered until it is closed or dropped.
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
    /// The token of a TCP listener that asks for one.
    #[must_use]
    pub fn token(mut self, token: impl Into<String>) -> Connect {
        self.token = token.into();
        self
    }

    /// Where to remember what became of commands, so that none runs twice when the agent is restarted. A directory of its own,
    /// made when it is missing. Without it the agent remembers for as long as it lives.
    #[must_use]
    pub fn remember_in(mut self, directory: impl Into<PathBuf>) -> Connect {
        self.memory = Some(directory.into());
        self
    }

    /// How many commands may run at once (4).
    #[must_use]
    pub fn workers(mut self, workers: usize) -> Connect {
        self.workers = workers.max(1);
        self
    }

    /// What runs commands. It may take as long as it likes, and blocks only its own thread. Without a handler commands wait
    /// at the node until they expire.
    #[must_use]
    pub fn on_command<O: Into<Outcome>>(mut self, handler: impl Fn(&Work<'_>) -> O + Send + Sync + 'static) -> Connect {
        self.handler = Some(Box::new(move |work| handler(work).into()));
        self
    }

    /// Starts the agent. It registers as soon as the node can be reached, and again whenever the stream was lost.
    ///
    /// # Errors
    /// The record of commands cannot be used, or a thread not be started.
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
    /// An agent of the node at `target`, to be registered.
    #[must_use]
    pub fn connect(target: Target) -> Connect {
        Connect { target, token: String::new(), memory: None, workers: WORKERS, handler: None }
    }

    /// What the node answered to the registration; `None` while there is no stream.
    #[must_use]
    pub fn terms(&self) -> Option<Registered> {
        self.shared.lock().terms.clone()
    }

    /// Waits until the node has answered the registration.
    ///
    /// # Errors
    /// DEADLINE_EXCEEDED with what is in the way; the agent goes on trying.
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

    /// What is in the way, if something is, in words: of the stream, of commands, or what the node refused of what the agent last
    /// said of itself.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let inner = self.shared.lock();
        inner.trouble.clone().or_else(|| inner.refusal.clone())
    }

    /// Says how the agent is, at once and after every reconnect. Workloads named here are reported as by
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
        // The registration brings them along.
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

    /// Changes what is registered. The id stays.
    pub fn update(&self, change: impl FnOnce(&mut Register)) {
        let mut inner = self.shared.lock();
        inner.refusal = None;
        let id = inner.registration.agent_id.clone();
        change(&mut inner.registration);
        inner.registration.agent_id = id;
        let register = inner.register();
        inner.send(agent_message::Body::Register(register));
    }

    /// A connection of its own to the same node, for calls.
    ///
    /// # Errors
    /// The node cannot be reached.
    pub fn client(&self) -> Result<Client, Error> {
        Ok(Client::connect(&self.shared.target)?.with_token(self.shared.token.clone()))
    }

    /// Waits until every command that has begun is over and the node knows, at most for `patience`; then says goodbye. False:
    /// some is not. Its end is recorded, and told when the agent is started again on the same record.
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
    /// Says goodbye, and gives the node a second to take it. Handlers that still run end by themselves.
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

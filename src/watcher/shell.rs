//! The watcher thread: queries the agent over HTTP and the node over a socket pair, one request at a time.
//!
//! Must never hold anything that another thread waits for, because the agent may delay each answer.

mod agent;
#[cfg(feature = "http")]
mod exchange;
#[cfg(feature = "http")]
mod http2;
mod node;
mod tls;

use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError};
use peat_ipc::{Client, Error};

use self::agent::Agent;
use self::node::Node;
use super::engine::{Note, Task, Watcher};
use super::{Failure, WatcherConfig};
use crate::clock::shell::now;
use crate::config::{FleetSettings, WatcherSettings};
use crate::contain::contain;
use crate::store::KeyError;
use crate::thread_watchdog::ThreadWatchdog;

/// The thread before it starts.
#[derive(Debug)]
pub struct Shell {
    settings: WatcherSettings,
    agent_id: String,
    watcher: Watcher,
    /// Heartbeat interval in milliseconds, changed by a reload.
    heartbeat_ms: Arc<AtomicU64>,
}

impl Shell {
    /// Returns the watcher of the agent at the address in `settings`, under the id `agent_id`.
    ///
    /// # Errors
    /// `agent_id` cannot be the id of a document.
    pub fn new(settings: WatcherSettings, fleet: &FleetSettings, agent_id: String) -> Result<Shell, KeyError> {
        let config = WatcherConfig {
            agent: agent_id.clone(),
            address: settings.agent.to_string(),
            poll_interval: settings.poll_interval,
            heartbeat: fleet.heartbeat,
        };
        let heartbeat_ms = u64::try_from(fleet.heartbeat.as_millis()).unwrap_or(u64::MAX);
        let watcher = Watcher::new(config, now())?;
        Ok(Shell { settings, agent_id, watcher, heartbeat_ms: Arc::new(AtomicU64::new(heartbeat_ms)) })
    }

    /// Returns the shared heartbeat interval in milliseconds, which the thread reads before each poll.
    #[must_use]
    pub fn heartbeat_ms(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.heartbeat_ms)
    }

    /// Runs until `stop` is disconnected or the api thread at the other end of `node` ends, and stamps `pulse` meanwhile.
    pub fn run(mut self, node: UnixStream, stop: &Receiver<()>, pulse: &ThreadWatchdog) {
        let mut node = Node::new(Client::over(node), self.agent_id.clone());
        let mut agent = Agent::new(&self.settings);
        while self.wait(stop, pulse) {
            self.watcher.set_heartbeat(Duration::from_millis(self.heartbeat_ms.load(Ordering::Acquire)));
            self.watcher.handle_timeout(now());
            if let Err(error) = self.poll(&mut node, &mut agent, pulse) {
                log::debug!("the watcher ends: {error}");
                return;
            }
        }
    }

    /// Waits for the next deadline. Returns false if the thread must end.
    fn wait(&self, stop: &Receiver<()>, pulse: &ThreadWatchdog) -> bool {
        let deadline = self.watcher.poll_deadline();
        loop {
            let now = now();
            pulse.stamp(now.mono);
            let left = deadline.saturating_duration_since(now.mono);
            let wait = pulse.shorten(Some(left)).unwrap_or(left);
            match stop.recv_timeout(wait) {
                Err(RecvTimeoutError::Timeout) if wait < left => {}
                other => return other == Err(RecvTimeoutError::Timeout),
            }
        }
    }

    fn poll(&mut self, node: &mut Node, agent: &mut Agent, pulse: &ThreadWatchdog) -> Result<(), Error> {
        while let Some(task) = self.watcher.poll_task() {
            pulse.stamp(now().mono);
            match task {
                Task::Read(read) => self.watcher.handle_held(node.read(&read)?),
                Task::Write(write) => {
                    let result = node.write(&write)?;
                    self.watcher.handle_written(now(), result);
                }
                Task::Ask(question) => {
                    let answer = contain(|| agent.ask(question)).unwrap_or_else(|_| {
                        *agent = Agent::new(&self.settings);
                        Err(Failure::Unusable("the HTTP library gave up on it".into()))
                    });
                    self.watcher.handle_answer(now(), question, answer);
                }
            }
        }
        while let Some(note) = self.watcher.poll_note() {
            match note {
                Note::Warning(words) => log::warn!("{words}"),
                Note::Info(words) => log::info!("{words}"),
            }
        }
        Ok(())
    }
}

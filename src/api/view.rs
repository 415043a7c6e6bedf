//! The node as calls see it: a snapshot of its documents, and what other threads last said.
//!
//! Reads are answered from here without asking another thread. A snapshot is kept only while one input is handled, so
//! that pipelined reads share it and no freed page stays pinned.

use std::time::{Duration, Instant};

use peat_ipc::sidecar::{GetHealthResponse, GetStatusResponse, NodePhase};
use peat_ipc::{CallError, Code};

use crate::api::Config;
use crate::api::commands::Authority;
use crate::clock::Now;
use crate::error::Blame;
use crate::fleet::commands::Trust;
use crate::identity::EndpointId;
use crate::store::{self, Reader, RunId, Snapshot, Tip};
use crate::sync::{Status, copied};

/// With requests outstanding, a store that answers nothing for this long is reported as a problem.
const STORE_SILENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct View {
    node_id: String,
    watched_agent: String,
    endpoint: String,
    cache_bytes: u64,
    authority: Authority,
    started: Instant,
    reader: Reader,
    snapshot: Option<Snapshot>,
    pub(super) tip: Tip,
    /// `None` until the sync thread first said.
    status: Option<Status>,
    pub(super) shutting_down: bool,
    /// What the disk did to the last write that failed for its sake; cleared by the next one that does not.
    disk_problem: Option<String>,
    /// Since when the store owes an answer and has given none.
    store_silent_since: Option<Instant>,
    /// Threads that do not answer.
    silent: Vec<&'static str>,
    /// Documents that do not replicate, a sentence each.
    notices: Vec<String>,
}

impl View {
    pub(super) fn new(config: &Config, reader: Reader, now: Now) -> View {
        View {
            node_id: config.node_id.clone(),
            watched_agent: config.watched_agent.clone(),
            endpoint: reader.node().to_string(),
            cache_bytes: config.cache_bytes as u64,
            authority: Authority { identity: config.identity.clone(), trust: config.commands.trust.clone() },
            started: now.mono,
            tip: Tip::default(),
            reader,
            snapshot: None,
            status: None,
            shutting_down: false,
            disk_problem: None,
            store_silent_since: None,
            silent: Vec::new(),
            notices: Vec::new(),
        }
    }

    /// The newest committed state, the same one until [`View::release`].
    pub(super) fn snapshot(&mut self) -> Result<&Snapshot, CallError> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.reader.snapshot()?,
        };
        Ok(self.snapshot.insert(snapshot))
    }

    /// Whose commands are delivered was reloaded.
    pub(super) fn set_trust(&mut self, trust: Trust) {
        self.authority.trust = trust;
    }

    pub(super) fn authority_and_snapshot(&mut self) -> Result<(&Authority, &Snapshot), CallError> {
        self.snapshot()?;
        let snapshot = self.snapshot.as_ref().ok_or_else(|| CallError::new(Code::Internal, "no snapshot"))?;
        Ok((&self.authority, snapshot))
    }

    /// Lets the snapshot go.
    pub(super) fn release(&mut self) {
        self.snapshot = None;
    }

    /// The id of the agent that the watcher writes about.
    pub(super) fn watched_agent(&self) -> &str {
        &self.watched_agent
    }

    /// Two nodes with one node id among this node and its peers.
    pub(super) fn namesakes(&self) -> Option<[EndpointId; 2]> {
        self.status.and_then(|status| status.namesakes)
    }

    pub(super) fn run(&self) -> RunId {
        self.reader.run()
    }

    pub(super) fn set_reader(&mut self, reader: Reader) {
        self.release();
        self.reader = reader;
    }

    pub(super) fn set_notices(&mut self, notices: Vec<String>) {
        self.notices = notices;
    }

    pub(super) fn set_silent(&mut self, threads: Vec<&'static str>) {
        self.silent = threads;
    }

    #[cfg(feature = "http")]
    pub(super) fn silent(&self) -> &[&'static str] {
        &self.silent
    }

    /// What the store has done.
    #[cfg(feature = "http")]
    pub(super) fn figures(&self) -> &store::Figures {
        self.reader.figures()
    }

    /// Why the node is not ready; `None`: its database is read, and some peer was tried.
    #[cfg(feature = "http")]
    pub(super) fn unready(&mut self) -> Option<String> {
        if let Err(error) = self.snapshot() {
            return Some(format!("the database cannot be read: {}", error.message));
        }
        let tried = self.status.is_some_and(|status| status.tried);
        (!tried).then(|| "no peer has been tried yet".into())
    }

    pub(super) fn set_status(&mut self, status: Status) {
        self.status = Some(status);
    }

    /// Notes how the store took a request, for health.
    pub(super) fn note_answer<T>(&mut self, now: Now, outstanding: usize, result: &Result<T, store::Error>) {
        self.store_silent_since = (outstanding > 0).then_some(now.mono);
        match result {
            Ok(_) => self.disk_problem = None,
            // The store says itself when the disk is full, and when it no longer is.
            Err(store::Error::DiskFull) => self.disk_problem = None,
            Err(error) if error.blame() == Blame::Machine => self.disk_problem = Some(error.to_string()),
            Err(_) => {}
        }
    }

    /// Notes that a request is on its way to the store.
    pub(super) fn note_request(&mut self, now: Now) {
        self.store_silent_since.get_or_insert(now.mono);
    }

    pub(super) fn status(&self) -> GetStatusResponse {
        let status = self.status.unwrap_or_default();
        GetStatusResponse {
            node_id: self.node_id.clone(),
            endpoint_addr: self.endpoint.clone(),
            sync_active: status.active,
            connected_peers: status.connected_peers,
            phase: self.phase().into(),
            ..GetStatusResponse::default()
        }
    }

    fn phase(&self) -> NodePhase {
        match self.status {
            _ if self.shutting_down => NodePhase::ShuttingDown,
            None => NodePhase::Initializing,
            Some(status) if status.catching_up => NodePhase::Syncing,
            Some(_) => NodePhase::Ready,
        }
    }

    pub(super) fn health(&mut self, now: Now) -> GetHealthResponse {
        let counts = self.snapshot().map(Snapshot::counts);
        let problems = self.problems(now, counts.as_ref().err());
        let counts = counts.unwrap_or_default();
        GetHealthResponse {
            healthy: problems.is_empty(),
            problems,
            notices: self.notices.clone(),
            documents: counts.live,
            tombstones: counts.tombstones,
            sequence: self.tip.visible,
            durable_sequence: self.tip.durable,
            file_bytes: counts.file_bytes,
            cache_bytes: self.cache_bytes,
            run: hex(&self.reader.run().0),
            database: hex(&self.reader.database()),
            uptime_ms: u64::try_from(now.mono.duration_since(self.started).as_millis()).unwrap_or(u64::MAX),
            version: env!("CARGO_PKG_VERSION").into(),
        }
    }

    /// Nodes whose identity two machines use.
    pub(super) fn copied_nodes(&self) -> u64 {
        self.status.map_or(0, |status| status.copied_nodes.into())
    }

    /// Whether there is no problem, as far as can be told without the database.
    #[cfg(feature = "http")]
    pub(super) fn is_healthy(&self, now: Now) -> bool {
        self.problems(now, None).is_empty()
    }

    fn problems(&self, now: Now, unreadable: Option<&CallError>) -> Vec<String> {
        let silence = self.store_silent_since.map(|since| now.mono.duration_since(since));
        let silence = silence.filter(|silence| *silence >= STORE_SILENCE);
        [
            unreadable.map(|error| format!("the database cannot be read: {}", error.message)),
            store::room_problem(self.reader.figures()),
            self.disk_problem.clone(),
            silence.map(|silence| format!("the store has not answered for {} s", silence.as_secs())),
            self.status.and_then(|status| status.copied).map(|node| copied::words(node, self.reader.node())),
            self.status.is_none().then(|| "the sync thread has not started yet".into()),
        ]
        .into_iter()
        .flatten()
        .chain(self.silent.iter().map(|thread| format!("the {thread} thread does not answer")))
        .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

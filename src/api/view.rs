//! The node as calls see it: a snapshot of its documents, and the latest status of other threads.
//!
//! Reads are answered from here without asking another thread. A snapshot is kept only while one event is handled, so that
//! pipelined reads share it and no freed page stays pinned.

use std::time::{Duration, Instant};

use peat_ipc::sidecar::{GetHealthResponse, GetStatusResponse, NodePhase};
use peat_ipc::{CallError, Code};

use crate::api::ApiConfig;
use crate::api::commands::Authority;
use crate::clock::Now;
use crate::error::Blame;
use crate::fleet::commands::Trust;
use crate::identity::EndpointId;
use crate::store::{self, Reader, RunId, Snapshot, Tip};
use crate::sync::{Status, copied};

/// Time without an answer, with requests outstanding, after which the store is reported as a problem.
const STORE_SILENCE: Duration = Duration::from_secs(10);
/// Time after the start of the node within which the sync thread has to report for the first time. Before that a node that
/// answers is well.
const SYNC_START: Duration = Duration::from_secs(5);

/// State that calls read.
#[derive(Debug)]
pub(super) struct NodeView {
    node_id: String,
    watched_agent: String,
    endpoint: String,
    cache_bytes: u64,
    authority: Authority,
    started: Instant,
    reader: Reader,
    snapshot: Option<Snapshot>,
    pub(super) tip: Tip,
    /// Latest status of the sync thread; `None` until the first.
    status: Option<Status>,
    pub(super) shutting_down: bool,
    /// Error of the last write that failed because of the disk; cleared by the next one that does not.
    disk_problem: Option<String>,
    /// Time since which the store has requests outstanding and has answered none.
    store_silent_since: Option<Instant>,
    /// Threads that do not answer.
    silent: Vec<&'static str>,
    /// Documents that do not replicate, one sentence each.
    notices: Vec<String>,
}

impl NodeView {
    pub(super) fn new(config: &ApiConfig, reader: Reader, now: Now) -> NodeView {
        NodeView {
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

    /// Returns the newest committed state, the same one until [`NodeView::release`].
    pub(super) fn snapshot(&mut self) -> Result<&Snapshot, CallError> {
        let snapshot = match self.snapshot.take() {
            Some(snapshot) => snapshot,
            None => self.reader.snapshot()?,
        };
        Ok(self.snapshot.insert(snapshot))
    }

    /// Replaces the trusted issuers after a reload.
    pub(super) fn set_trust(&mut self, trust: Trust) {
        self.authority.trust = trust;
    }

    pub(super) fn authority_and_snapshot(&mut self) -> Result<(&Authority, &Snapshot), CallError> {
        self.snapshot()?;
        let snapshot = self.snapshot.as_ref().ok_or_else(|| CallError::new(Code::Internal, "no snapshot"))?;
        Ok((&self.authority, snapshot))
    }

    /// Drops the snapshot.
    pub(super) fn release(&mut self) {
        self.snapshot = None;
    }

    /// Returns the id of the agent that the watcher reports on.
    pub(super) fn watched_agent(&self) -> &str {
        &self.watched_agent
    }

    /// Returns two nodes with the same node id, among this node and its peers.
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

    /// Returns the store's metrics.
    #[cfg(feature = "http")]
    pub(super) fn figures(&self) -> &store::StoreMetrics {
        self.reader.figures()
    }

    /// Returns the reason why the node is not ready; `None` once its database is readable and a peer was tried.
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

    /// Notes the store's answer to a request, for health.
    pub(super) fn note_answer<T>(&mut self, now: Now, outstanding: usize, result: &Result<T, store::Error>) {
        self.store_silent_since = (outstanding > 0).then_some(now.mono);
        match result {
            Ok(_) => self.disk_problem = None,
            // The store reports a full disk itself, and when it no longer is.
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

    /// Returns the number of identities that are used by two machines.
    #[cfg(feature = "http")]
    pub(super) fn copied_nodes(&self) -> u64 {
        self.status.map_or(0, |status| status.copied_nodes.into())
    }

    /// Returns true if there is no problem, without reading the database.
    #[cfg(feature = "http")]
    pub(super) fn is_healthy(&self, now: Now) -> bool {
        self.problems(now, None).is_empty()
    }

    fn problems(&self, now: Now, unreadable: Option<&CallError>) -> Vec<String> {
        let silence = self.store_silent_since.map(|since| now.mono.duration_since(since));
        let silence = silence.filter(|silence| *silence >= STORE_SILENCE);
        let is_sync_late = self.status.is_none() && now.mono.duration_since(self.started) >= SYNC_START;
        [
            unreadable.map(|error| format!("the database cannot be read: {}", error.message)),
            store::room_problem(self.reader.figures()),
            self.disk_problem.clone(),
            silence.map(|silence| format!("the store has not answered for {} s", silence.as_secs())),
            self.status.and_then(|status| status.copied).map(|node| copied::words(node, self.reader.node())),
            is_sync_late.then(|| "the sync thread has not started yet".into()),
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

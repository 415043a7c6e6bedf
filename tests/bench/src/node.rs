//! The node under measurement: the release binary in a separate process, with its data on the measured disk.

use std::fs::File;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bench_peers::Failure;
use peat_ipc::sidecar::{GetHealthRequest, GetStatusRequest, GetSyncStatsRequest, ListPeersRequest};
use peat_ipc::{Client, Target};
use rustix::process::{Pid, Signal, kill_process};

use crate::bench::Bench;
use crate::wait::{until, wait_for};

/// Formation key of the nodes of one measurement.
pub(crate) const SHARED_KEY: &str = "YmVuY2htYXJrIGJlbmNobWFyayBiZW5jaG1hcmsgMzI=";
/// Time after which the cursors have advanced: a cursor that could not advance with its batch follows within five seconds.
const SETTLE: Duration = Duration::from_secs(6);

pub(crate) struct Node {
    binary: PathBuf,
    directory: PathBuf,
    socket: PathBuf,
    port: u16,
    flags: Vec<String>,
    child: Option<Child>,
}

impl Node {
    /// Creates a node with an empty data directory, not yet running.
    pub(crate) fn new(bench: &Bench, name: &str) -> Result<Node, Failure> {
        let directory = bench.directory(name)?;
        let socket = std::env::temp_dir().join(format!("peat-bench-{}-{name}.sock", std::process::id()));
        let port = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Node { binary: bench.node.clone(), directory, socket, port, flags: Vec::new(), child: None })
    }

    /// Makes the node dial the node `id` at `address` from the next start on.
    pub(crate) fn dials(&mut self, id: &str, address: &str) {
        self.flags = vec!["--peer".into(), format!("{id}@{address}")];
    }

    /// Adds a flag from the next start on.
    pub(crate) fn flag(&mut self, name: &str, value: &str) {
        self.flags.extend([name.into(), value.into()]);
    }

    /// Starts the process without waiting for it.
    pub(crate) fn spawn(&mut self) -> Result<(), Failure> {
        let log = File::options().create(true).append(true).open(self.directory.join("log"))?;
        let child = Command::new(&self.binary)
            .env_clear()
            .arg("run")
            .args(["--listen", &format!("unix://{}", self.socket.display())])
            .args(["--data-dir", &self.data().display().to_string()])
            .args(["--bind", &self.address(), "--shared-key", SHARED_KEY])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .map_err(|cause| format!("{}: {cause}; `make bench` builds it", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process and waits until it answers.
    pub(crate) fn start(&mut self) -> Result<Client, Failure> {
        self.spawn()?;
        self.client()
    }

    /// Connects a client once the node answers.
    pub(crate) fn client(&self) -> Result<Client, Failure> {
        wait_for(|| {
            let mut client = Client::connect(&Target::Unix(self.socket.clone()))?;
            client.get_status(&GetStatusRequest {})?;
            Ok(client)
        })
    }

    /// Asks the process to end and waits for its exit.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            kill_process(Pid::from_child(&child), Signal::TERM)?;
            child.wait()?;
        }
        Ok(())
    }

    /// Kills the process.
    pub(crate) fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Returns the address for other nodes.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Returns the socket for clients.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Returns the data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// Returns the process's directory in `/proc`.
    pub(crate) fn proc(&self) -> PathBuf {
        let id = self.child.as_ref().map_or(0, Child::id);
        Path::new("/proc").join(id.to_string())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The process may have exited already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Returns the node's endpoint address, as peers know it.
pub(crate) fn id(client: &mut Client) -> Result<String, Failure> {
    Ok(client.get_status(&GetStatusRequest {})?.endpoint_addr)
}

/// Returns the number of documents the node holds.
pub(crate) fn documents(client: &mut Client) -> Result<u64, Failure> {
    Ok(client.get_health(&GetHealthRequest {})?.documents)
}

/// Returns the UDP payload bytes sent and received since the node's start.
pub(crate) fn wire_bytes(client: &mut Client) -> Result<u64, Failure> {
    let stats = client.get_sync_stats(&GetSyncStatsRequest {})?;
    Ok(stats.bytes_sent + stats.bytes_received)
}

/// Waits until a peer is connected.
pub(crate) fn connected(client: &mut Client) -> Result<(), Failure> {
    until("a peer is connected", || Ok(client.get_status(&GetStatusRequest {})?.connected_peers > 0))
}

/// Waits until no peer lacks a document and the peers have stored their cursors.
pub(crate) fn settled(client: &mut Client) -> Result<(), Failure> {
    until("no peer lacks a document", || {
        let peers = client.list_peers(&ListPeersRequest::default())?.peers;
        Ok(peers.iter().all(|peer| peer.pending_documents == 0))
    })?;
    std::thread::sleep(SETTLE);
    Ok(())
}

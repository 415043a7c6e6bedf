//! A node under attack, with an honest peer and an honest client that measure its service.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use peat_ipc::sidecar::PutDocumentRequest;
use peat_ipc::{Client, Target};
use tempfile::TempDir;

use crate::node::{Node, directory, eventually, run};

/// Memory limit of the Helm chart, in bytes.
const MEMORY_BYTES: u64 = 256 << 20;
/// Limit on the 99th percentile of honest puts. An unoptimised build takes several times as long.
const PUT: Duration = if cfg!(debug_assertions) { Duration::from_secs(1) } else { Duration::from_millis(100) };
/// Limit on the time from a put at the honest peer to its arrival.
const SYNC: Duration = if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_secs(1) };

/// A victim, an honest peer and their traffic; see the module's documentation.
pub struct Scene {
    _homes: [TempDir; 2],
    pub victim: Node,
    pub honest: Node,
    pub key: String,
    group: Option<String>,
}

/// Creates a memory cgroup with the chart's limit, if permitted, and returns it with the command that moves a node into it.
fn cgroup() -> (Option<String>, Vec<String>) {
    let name = format!("peat-hostile-{}-{:?}", std::process::id(), std::thread::current().id()).replace(['(', ')'], "");
    for (root, file) in [("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")] {
        // The limit's file is missing where the memory controller is not enabled.
        if !Path::new(root).join("cgroup.procs").exists() || fs::create_dir(format!("{root}/{name}")).is_err() {
            continue;
        }
        let group = format!("{root}/{name}");
        let limit = Path::new(&group).join(file);
        if limit.exists() && fs::write(limit, MEMORY_BYTES.to_string()).is_ok() {
            let enter = format!("echo $$ > {group}/cgroup.procs && exec \"$@\"");
            return (Some(group), ["sh", "-c", &enter, "sh"].map(String::from).to_vec());
        }
        let _ = fs::remove_dir(&group);
    }
    (None, Vec::new())
}

impl Scene {
    pub fn new() -> Scene {
        let homes = [directory(), directory()];
        let key = run(&["keygen"]).ok().trim().to_owned();
        let (group, inside) = cgroup();
        let victim = Node::start_inside(inside, "127.0.0.1:0", homes[0].path(), &["--shared-key", &key]);
        let flags = ["--shared-key", &key, "--peer", &victim.spec()];
        let honest = Node::start_inside(Vec::new(), "127.0.9.1:0", homes[1].path(), &flags);
        eventually("the honest peer is connected", || {
            (victim.json("status", &[])["connectedPeers"] == 1).then_some(())
        });
        Scene { _homes: homes, victim, honest, key, group }
    }

    /// Runs an attack beside honest traffic, and checks that the traffic was not affected.
    pub fn withstands(&self, attack: impl FnOnce(&Scene)) {
        let client = Traffic::of(&self.victim);
        attack(self);
        self.is_in_sync("during");
        let slow = client.end();
        assert!(slow <= PUT, "99 % of honest puts took up to {slow:?}");
        self.is_well();
    }

    /// Checks that a put at the honest peer arrives at the victim in time.
    #[expect(clippy::disallowed_methods, reason = "a test measures another process, in real time")]
    pub fn is_in_sync(&self, id: &str) {
        let mut client = client(&self.honest);
        client.put_document(&put("latest", id)).expect("the honest peer takes puts");
        let begun = Instant::now();
        self.victim.shows("platforms", id, r#"{"n":1}"#);
        assert!(begun.elapsed() <= SYNC, "honest sync took {:?}", begun.elapsed());
    }

    /// Checks that the victim runs, that its memory has stayed within the limit, and that the honest peer is connected.
    pub fn is_well(&self) {
        let pid = self.victim.pid().as_raw_nonzero();
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("it has memory");
        let peak = line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10;
        assert!(peak <= MEMORY_BYTES, "a peak of {} MiB", peak >> 20);
        self.is_in_sync("afterwards");
        let peers = self.victim.json("peers", &[]);
        let honest =
            peers["peers"].as_array().expect("peers").iter().find(|peer| peer["endpointId"] == self.honest.id.as_str());
        assert_eq!(honest.expect("known")["connected"], true);
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.victim.kill();
        if let Some(group) = &self.group {
            let _ = fs::remove_dir(group);
        }
    }
}

fn client(node: &Node) -> Client {
    let target = Target::Unix(node.home().join("socket"));
    eventually("the node answers", || Client::connect(&target).ok())
}

fn put(collection: &str, id: &str) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: if collection == "latest" { "platforms" } else { "missions" }.into(),
        doc_id: id.into(),
        json_data: r#"{"n":1}"#.into(),
        ..Default::default()
    }
}

/// A client that puts small documents, one after the other.
struct Traffic {
    ends: Arc<AtomicBool>,
    thread: JoinHandle<Vec<Duration>>,
}

impl Traffic {
    #[expect(clippy::disallowed_methods, reason = "a client beside the attack, measured in real time")]
    fn of(node: &Node) -> Traffic {
        let (ends, mut client) = (Arc::new(AtomicBool::new(false)), client(node));
        let ended = Arc::clone(&ends);
        let thread = std::thread::spawn(move || {
            let mut times = Vec::new();
            while !ended.load(Ordering::Relaxed) || times.len() < 200 {
                let collection = if times.len().is_multiple_of(2) { "latest" } else { "merged" };
                let begun = Instant::now();
                client.put_document(&put(collection, &format!("traffic{}", times.len() % 50))).expect("taken");
                times.push(begun.elapsed());
                std::thread::sleep(Duration::from_millis(2));
            }
            times
        });
        Traffic { ends, thread }
    }

    /// Stops the client and returns the 99th percentile of its put times.
    fn end(self) -> Duration {
        self.ends.store(true, Ordering::Relaxed);
        let mut times = self.thread.join().expect("the client ends");
        times.sort_unstable();
        times[times.len() * 99 / 100]
    }
}

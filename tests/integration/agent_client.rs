//! The Rust client's agent on a real node, including cuts of the stream between them.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use peat_ipc::agent::{Register, Workload};
use peat_ipc::sidecar::SubscribeRequest;
use peat_ipc::{Agent, Followed, Following, Outcome, Target, Work};

use crate::node::{Node, directory, eventually};

const PATIENCE: Duration = Duration::from_secs(60);

/// A proxy in front of the node's socket that can cut connections.
struct Proxy {
    target: Target,
    cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<UnixStream>>>,
}

impl Proxy {
    fn to(node: &Node) -> Proxy {
        let (path, socket) = (node.home().join("proxy"), node.home().join("socket"));
        let listener = UnixListener::bind(&path).expect("a socket");
        let proxy = Proxy { target: Target::Unix(path), cut: Arc::default(), open: Arc::default() };
        let (cut, open) = (Arc::clone(&proxy.cut), Arc::clone(&proxy.open));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if !cut.load(Ordering::Acquire)
                    && let Ok(node) = UnixStream::connect(&socket)
                {
                    forward(&client, &node, &open);
                }
            }
        });
        proxy
    }

    fn cut(&self) {
        self.cut.store(true, Ordering::Release);
        let open = std::mem::take(&mut *self.open.lock().expect("not poisoned"));
        open.iter().for_each(|stream| _ = stream.shutdown(Shutdown::Both));
    }

    fn mend(&self) {
        self.cut.store(false, Ordering::Release);
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    std::thread::Builder::new().name("proxy".to_owned()).spawn(work).expect("a thread");
}

fn forward(client: &UnixStream, node: &UnixStream, open: &Mutex<Vec<UnixStream>>) {
    let clone = |stream: &UnixStream| stream.try_clone().expect("a socket");
    for (from, to) in [(client, node), (node, client)] {
        let (mut from, mut to) = (clone(from), clone(to));
        spawn(move || {
            // Either end may close at any time.
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
    open.lock().expect("not poisoned").extend([clone(client), clone(node)]);
}

fn register<O: Into<Outcome>>(
    target: &Target,
    memory: &Path,
    handler: impl Fn(&Work<'_>) -> O + Send + Sync + 'static,
) -> Agent {
    let agent = Agent::connect(target.clone()).remember_in(memory).on_command(handler);
    let agent = agent.register(Register { agent_id: "r1".into(), group: "rust".into(), ..Register::default() });
    agent.expect("started")
}

fn agents(node: &Node) -> Vec<serde_json::Value> {
    node.json("agents", &[])["agents"].as_array().expect("a list").clone()
}

fn is(node: &Node, state: &str) {
    eventually(&format!("r1 is {state}"), || {
        agents(node).iter().any(|agent| agent["liveness"] == format!("LIVENESS_{state}")).then_some(())
    });
}

fn status(node: &Node, id: &str) -> String {
    let commands = node.json("commands", &[]);
    let mut commands = commands["commands"].as_array().expect("a list").iter();
    let command = commands.find(|command| command["id"] == id).expect("it is there");
    command["targets"][0]["status"].as_str().expect("a status").to_owned()
}

/// Sends `r1` a command of this type and returns its id.
fn send(node: &Node, kind: &str, payload: &str) -> String {
    let sent = node.json("send", &["--agent", "r1", kind, payload]);
    sent["id"].as_str().or_else(|| sent["commandId"].as_str()).unwrap_or_else(|| panic!("{sent}")).to_owned()
}

#[test]
fn an_agent_is_live_while_its_stream_is_and_keeps_its_place() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let proxy = Proxy::to(&node);
    let agent = register(&proxy.target, &home.path().join("memory"), |_| Outcome::Cancelled);
    is(&node, "LIVE");
    agent.report_deployment(Workload { name: "podinfo".into(), version: "6.4".into(), ..Workload::default() });
    proxy.cut();
    is(&node, "STALE");
    proxy.mend();
    is(&node, "LIVE");
    agent.wait_registered(PATIENCE).expect("registered again");
    agent.update(|register| register.version = "2".into());
    let shown = eventually("it is updated in place", || agents(&node).pop().filter(|agent| agent["version"] == "2"));
    assert_eq!((agents(&node).len(), &shown["agentId"]), (1, &"r1".into()));
    let deployments = || agent.client().expect("it listens").fleet_deployments().expect("an answer");
    let deployed = eventually("its workload shows", || deployments().pop());
    assert_eq!((deployed.agent_id.as_str(), deployed.version.as_str()), ("r1", "6.4"));
    let platforms = agent.client().expect("it listens").fleet_platforms().expect("an answer");
    assert_eq!(platforms.len(), 1);
    agent.remove_deployment("podinfo");
    eventually("its workload is gone", || deployments().is_empty().then_some(()));
    drop(agent);
    is(&node, "STALE");
}

#[test]
fn a_command_takes_effect_in_the_runtime_and_its_result_comes_back() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let runtime: Arc<Mutex<BTreeMap<String, String>>> = Arc::default();
    let deployed = Arc::clone(&runtime);
    let target = node.target().parse().expect("a target");
    let _agent = register(&target, &home.path().join("memory"), move |work| {
        deployed.lock().expect("not poisoned").insert(work.command_type().into(), work.payload_json().into());
        Outcome::Completed(r#"{"done":true}"#.into())
    });
    is(&node, "LIVE");
    let done = node.run("send", &["--agent", "r1", "deploy", "{\"version\":\"6.5\"}", "--wait"]).ok();
    assert!(done.contains("done"), "{done}");
    let effect = runtime.lock().expect("not poisoned").get("deploy").cloned();
    assert_eq!(effect.as_deref().map(|payload| payload.replace(' ', "")), Some("{\"version\":\"6.5\"}".into()));
}

#[test]
fn a_cut_in_the_middle_of_the_work_costs_neither_the_work_nor_its_result() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let proxy = Proxy::to(&node);
    let runs = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&runs);
    let (began, begins) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let released = Mutex::new(released);
    let agent = register(&proxy.target, &home.path().join("memory"), move |_| {
        count.fetch_add(1, Ordering::AcqRel);
        began.send(()).expect("the test listens");
        released.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("released");
        Outcome::Completed("7".into())
    });
    is(&node, "LIVE");
    let id = send(&node, "deploy", "{}");
    begins.recv_timeout(PATIENCE).expect("it begins");
    proxy.cut();
    is(&node, "STALE");
    release.send(()).expect("it waits");
    assert_eq!(status(&node, &id), "COMMAND_STATUS_EXECUTING");
    proxy.mend();
    eventually("its result is delivered", || (status(&node, &id) == "COMMAND_STATUS_COMPLETED").then_some(()));
    assert!(agent.close(PATIENCE), "the node knows everything");
    assert_eq!(runs.load(Ordering::Acquire), 1);
}

#[test]
fn a_cancel_ends_the_work_and_is_over_only_when_the_agent_says_so() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let (seen, sees) = sync_channel(1);
    let (release, released) = sync_channel::<()>(1);
    let released = Mutex::new(released);
    let target = node.target().parse().expect("a target");
    let _agent = register(&target, &home.path().join("memory"), move |work| {
        while !work.is_cancelled() {
            std::thread::park_timeout(Duration::from_millis(5));
        }
        seen.send(()).expect("the test listens");
        released.lock().expect("not poisoned").recv_timeout(PATIENCE).expect("released");
        Outcome::Cancelled
    });
    is(&node, "LIVE");
    let id = send(&node, "deploy", "{}");
    eventually("it begins", || (status(&node, &id) == "COMMAND_STATUS_EXECUTING").then_some(()));
    node.run("cancel", &[&id]).ok();
    sees.recv_timeout(PATIENCE).expect("the handler is told");
    assert_eq!(status(&node, &id), "COMMAND_STATUS_EXECUTING", "requested is not done");
    release.send(()).expect("it waits");
    eventually("it is confirmed", || (status(&node, &id) == "COMMAND_STATUS_CANCELLED").then_some(()));
}

#[test]
fn a_following_goes_on_through_a_restart_of_the_node() {
    let home = directory();
    let mut node = Node::start(home.path(), &[]);
    node.run("put", &["c", "one", "{}"]).ok();
    let request = SubscribeRequest { collections: vec!["c".into()], snapshot: true, ..SubscribeRequest::default() };
    let mut following = Following::new(node.target().parse().expect("a target"), request);
    let mut next = || match following.next_change().expect("it goes on") {
        Followed::Change(change) => change.doc_id,
        Followed::Anew => panic!("nothing was lost"),
    };
    assert_eq!((next().as_str(), next().as_str()), ("one", ""), "the snapshot and its end");
    node.kill();
    node.start_again();
    node.run("put", &["c", "two", "{}"]).ok();
    assert_eq!(next(), "two", "and nothing a second time");
}

/// A running example program.
struct Example(Child);

impl Drop for Example {
    fn drop(&mut self) {
        // The process may have exited already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Builds the examples and returns their directory.
fn examples() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let directory = Path::new(env!("CARGO_BIN_EXE_peat-node")).parent().expect("a directory");
    let mut build = Command::new(cargo);
    build.current_dir(env!("CARGO_MANIFEST_DIR")).args([
        "build",
        "--locked",
        "--quiet",
        "-p",
        "peat-ipc",
        "--examples",
    ]);
    build.arg("--target-dir").arg(directory.parent().expect("the target directory"));
    assert!(build.status().expect("cargo runs").success());
    directory.join("examples")
}

fn example(name: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(examples().join(name));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

#[test]
fn the_examples_do_what_they_say() {
    let home = directory();
    let node = Node::start(home.path(), &[]);
    let target = node.target();
    let memory = home.path().to_str().expect("text");
    let mut agent = example("agent", &[&target, "camera-7"]);
    let mut agent = Example(agent.env("TMPDIR", memory).spawn().expect("it runs"));
    let mut words = BufReader::new(agent.0.stdout.take().expect("piped")).lines().map_while(Result::ok);
    assert!(words.next().expect("a line").starts_with("registered at "));
    let done = example("rollout", &[&target, "cameras", "{\"version\": \"6.5\"}"]).output().expect("it runs");
    let out = String::from_utf8(done.stdout).expect("text");
    assert!(done.status.success() && out.contains("camera-7 COMMAND_STATUS_COMPLETED {\"rolled_out\":"), "{out}");
    assert!(words.next().expect("a line").contains("rollout"));

    let _polling = Example(example("polling", &[&target, "camera-8"]).spawn().expect("it runs"));
    eventually("it is listed", || agents(&node).iter().any(|agent| agent["agentId"] == "camera-8").then_some(()));
    let done = node.run("send", &["--agent", "camera-8", "anything", "{}", "--wait"]).ok();
    assert!(done.contains("done"), "{done}");

    drop(agent.0.stdin.take());
    assert_eq!(words.next().as_deref(), Some("everything told: true"));
}

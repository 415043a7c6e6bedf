//! The node under a service manager: its notifications, its watchdog, and inherited sockets. The tests play the manager with a
//! datagram socket and an inherited descriptor.

use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use peat_ipc::Agent;
use peat_ipc::agent::Register;
use rustix::process::{Pid, Signal, kill_process};

use crate::node::{Done, Node, directory, eventually, program};

/// Shell script that becomes the node, as the process the manager started, with its stdin as the inherited socket.
const ACTIVATE: &str = r#"LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" "$@" 3<&0 </dev/null"#;

/// The manager's side of a node.
struct Service {
    child: Child,
    heard: UnixDatagram,
}

impl Service {
    fn start(home: &Path, configure: impl FnOnce(&mut Command)) -> Service {
        let path = home.join("notify");
        let heard = UnixDatagram::bind(&path).expect("bound");
        let mut command = program();
        command.env("NOTIFY_SOCKET", path).args(flags(home));
        configure(&mut command);
        Service::spawn(command, heard)
    }

    fn spawn(mut command: Command, heard: UnixDatagram) -> Service {
        heard.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
        Service { child: command.spawn().expect("the program runs"), heard }
    }

    /// Returns the node's next notification.
    fn hear(&self) -> String {
        let mut bytes = [0; 4096];
        let count = self.heard.recv(&mut bytes).expect("the node tells something in time");
        String::from_utf8(bytes[..count].to_vec()).expect("text")
    }

    /// Skips notifications until one contains the line `wanted`.
    fn hear_line(&self, wanted: &str) -> String {
        loop {
            let told = self.hear();
            if told.lines().any(|line| line == wanted) {
                return told;
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our child");
    }

    fn ended(&mut self) -> ExitStatus {
        eventually("the node ends", || self.child.try_wait().expect("our child"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // A child that cannot be killed is left behind.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn flags(home: &Path) -> Vec<String> {
    let (data, socket) = (home.join("data").display().to_string(), target(home));
    ["run", "--data-dir", &data, "--listen", &socket, "--bind", "127.0.0.1:0"].map(String::from).to_vec()
}

fn target(home: &Path) -> String {
    format!("unix://{}/socket", home.display())
}

fn ask(home: &Path, command: &str) -> Done {
    Done::of(&program().args([command, "--node", &target(home)]).output().expect("the program runs"))
}

#[test]
fn the_manager_is_told_that_the_node_serves_and_that_it_ends() {
    let home = directory();
    let mut service = Service::start(home.path(), |_| {});
    let ready = service.hear();
    assert!(ready.starts_with("READY=1\nSTATUS=clients at unix://"), "{ready}");
    ask(home.path(), "status").ok();
    service.signal(Signal::TERM);
    assert_eq!(service.hear(), "STOPPING=1\nSTATUS=stopping");
    assert_eq!(service.ended().code(), Some(0));
}

#[test]
fn a_manager_with_an_abstract_name_is_told_too() {
    let home = directory();
    let name = format!("peat-node-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("a name");
    let heard = UnixDatagram::bind_addr(&address).expect("bound");
    let mut command = program();
    command.env("NOTIFY_SOCKET", format!("@{name}")).args(flags(home.path()));
    Service::spawn(command, heard).hear_line("READY=1");
}

#[test]
fn the_watchdog_hears_of_an_idle_node_whose_threads_all_go_round() {
    let home = directory();
    let service = Service::start(home.path(), |command| {
        command.env("WATCHDOG_USEC", "3000000");
        // A watcher is configured for an agent that cannot be reached.
        command.args(["--agent-addr", "http://127.0.0.1:9", "--agent-poll-interval", "60"]);
    });
    service.hear_line("READY=1");
    for _ in 0..8 {
        assert_eq!(service.hear(), "WATCHDOG=1");
    }
    ask(home.path(), "health").ok();
}

#[test]
fn without_a_watchdog_the_node_says_nothing_more() {
    let home = directory();
    let service = Service::start(home.path(), |command| {
        command.envs([("WATCHDOG_USEC", "300000"), ("WATCHDOG_PID", "1")]);
    });
    service.hear_line("READY=1");
    service.heard.set_read_timeout(Some(Duration::from_secs(1))).expect("set");
    service.heard.recv(&mut [0; 64]).expect_err("another process is watched");
}

#[test]
fn a_socket_that_is_handed_over_is_served_and_outlives_the_node() {
    let home = directory();
    let path = home.path().join("socket");
    let listener = UnixListener::bind(&path).expect("bound");
    let file = path.metadata().expect("made").ino();
    // This client connects before the node runs.
    let early = program().args(["status", "--node", &target(home.path())]).stdout(Stdio::piped()).spawn();
    for _ in 0..2 {
        let heard = UnixDatagram::bind(home.path().join("notify")).expect("bound");
        let mut command = Command::new("sh");
        command.args(["-c", ACTIVATE]).arg(program().get_program()).args(flags(home.path()));
        command.env("NOTIFY_SOCKET", home.path().join("notify"));
        command.stdin(OwnedFd::from(listener.try_clone().expect("another descriptor")));
        let mut service = Service::spawn(command, heard);
        service.hear_line("READY=1");
        ask(home.path(), "status").ok();
        service.signal(Signal::TERM);
        assert_eq!(service.ended().code(), Some(0));
        assert_eq!(path.metadata().expect("not removed").ino(), file);
        std::fs::remove_file(home.path().join("notify")).expect("ours");
    }
    Done::of(&early.expect("the program runs").wait_with_output().expect("it ends")).ok();
}

#[test]
fn a_descriptor_that_is_no_listening_socket_is_a_mistake_of_the_operator() {
    let home = directory();
    let mut command = Command::new("sh");
    command.args(["-c", ACTIVATE]).arg(program().get_program()).args(flags(home.path())).stdin(Stdio::null());
    let words = Done::of(&command.output().expect("it runs")).fails(78);
    assert!(words.contains("LISTEN_FDS"), "{words}");
}

/// Writes a key as systemd passes credentials: read-only, in a read-only directory.
fn write_key(home: &Path, key: &str) -> String {
    let path = home.join("shared-key");
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, key).expect("written");
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o400)).expect("set");
    path.display().to_string()
}

fn new_key() -> String {
    Done::of(&program().arg("keygen").output().expect("the program runs")).ok()
}

#[test]
fn a_reload_is_announced_and_takes_up_the_key_for_links_to_come() {
    let (home, other) = (directory(), directory());
    let key = write_key(home.path(), &new_key());
    let service = Service::start(home.path(), |command| {
        command.args(["--shared-key-file", &key]);
    });
    let ready = service.hear_line("READY=1");
    let after = |words: &str| ready.split_once(words).expect("the status has it").1;
    let (bind, id) = (after("nodes at ").split(',').next().expect("an address"), after("endpoint id "));

    let shared = new_key();
    let peer = format!("{id}@{bind}");
    let node = Node::start(other.path(), &["--shared-key-file", &write_key(other.path(), &shared), "--peer", &peer]);
    eventually("the keys differ", || node.run("peers", &[]).ok().contains("proof is wrong").then_some(()));

    write_key(home.path(), &shared);
    service.signal(Signal::HUP);
    let told = service.hear_line("RELOADING=1");
    assert!(told.contains("\nMONOTONIC_USEC="), "{told}");
    assert_eq!(service.hear(), ready);
    eventually("they are linked", || (node.json("status", &[])["connectedPeers"] == 1).then_some(()));

    write_key(home.path(), "short");
    service.signal(Signal::HUP);
    service.hear_line("RELOADING=1");
    assert_eq!(service.hear(), ready, "a key that cannot be used changes nothing");
    ask(home.path(), "health").ok();
}

fn terms(agent: &Agent) -> Option<u32> {
    agent.terms().map(|terms| terms.heartbeat_interval_ms)
}

#[test]
fn a_reload_takes_up_the_settings_file_as_far_as_it_can_be_used() {
    let (home, other) = (directory(), directory());
    let settings = home.path().join("settings");
    let write = |lines: &str| std::fs::write(&settings, lines).expect("written");
    write("PEAT_NODE_HEARTBEAT=30\n");
    let service = Service::start(home.path(), |command| {
        command.arg("--settings").arg(&settings);
    });
    let ready = service.hear_line("READY=1");
    let reload = || {
        service.signal(Signal::HUP);
        service.hear_line("RELOADING=1");
        assert_eq!(service.hear(), ready);
    };
    let agent = Agent::connect(target(home.path()).parse().expect("a target"));
    let agent = agent.register(Register { agent_id: "a1".into(), ..Register::default() }).expect("started");
    agent.wait_registered(Duration::from_secs(60)).expect("registered");
    assert_eq!(terms(&agent), Some(30_000));

    let after = |words: &str| ready.split_once(words).expect("the status has it").1;
    let (bind, id) = (after("nodes at ").split(',').next().expect("an address"), after("endpoint id "));
    let node = Node::start(other.path(), &["--peer", &format!("{id}@{bind}")]);
    let peer = node.json("status", &[])["endpointAddr"].as_str().expect("an id").to_owned();
    let connected = |count: u32| (node.json("status", &[])["connectedPeers"] == count).then_some(());

    write(&format!("PEAT_NODE_HEARTBEAT=5\nPEAT_NODE_STALE_AFTER=15\nPEAT_NODE_PEERS={peer}\n"));
    reload();
    eventually("the agent is told", || (terms(&agent) == Some(5_000)).then_some(()));
    eventually("the peer is let in", || connected(1));

    write("PEAT_NODE_HEARTBEAT=7\nPEAT_NODE_PEERS=nonsense\n");
    reload();
    ask(home.path(), "health").ok();
    assert_eq!((terms(&agent), connected(1)), (Some(5_000), Some(())), "a file with an error changes nothing");

    write("PEAT_NODE_HEARTBEAT=7\n");
    reload();
    eventually("the agent is told", || (terms(&agent) == Some(7_000)).then_some(()));
    eventually("the peer is let go", || connected(0));
}

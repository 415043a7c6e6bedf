//! Radio silence, counted on the interface: no packet leaves, not even a reply of the kernel, while a peer and a stranger keep
//! sending.

use std::process::{Child, Stdio};

use super::Networks;
use crate::node::{Node, directory, eventually, run};
use crate::relays::{Relay, key_file};

/// Minimum number of packets received before silence counts as kept.
const HEARD: u64 = 300;

/// A process in the adjacent network that keeps sending datagrams to the node.
struct Stranger(Child);

impl Stranger {
    fn start(networks: &Networks, next: &str) -> Stranger {
        let send = "while :; do echo hello > /dev/udp/10.78.0.1/4242; done";
        let mut command = networks.command(next, "bash", &["-c", send]);
        Stranger(command.stdin(Stdio::null()).stderr(Stdio::null()).spawn().expect("bash runs"))
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // A child that cannot be killed is left behind.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Counts the packets that leave while a few hundred arrive.
fn leaves(networks: &Networks, next: &str, meanwhile: impl FnOnce()) -> u64 {
    let (sent, received) = networks.packets("node", "radio");
    let stranger = Stranger::start(networks, next);
    meanwhile();
    eventually("the node hears a lot", || (networks.packets("node", "radio").1 >= received + HEARD).then_some(()));
    drop(stranger);
    networks.packets("node", "radio").0 - sent
}

/// Connects the node, 10.78.0.1, to the adjacent network, 10.78.0.2. The neighbour entries are static, because neighbour
/// discovery is traffic of the machine, not of the node.
fn cable(networks: &Networks, next: &str) {
    networks.cable([("node", "radio", "10.78.0.1/24"), (next, "radio", "10.78.0.2/24")]);
    for (network, other, number) in [("node", next, 2), (next, "node", 1)] {
        let shown = networks.run(other, "ip -j link show radio");
        let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
        let address = shown[0]["address"].as_str().expect("an address").to_owned();
        networks.ip(&format!("-n {network} neigh replace 10.78.0.{number} lladdr {address} dev radio nud permanent"));
    }
}

/// Kills and restarts the node; returns the number of packets that left meanwhile. The sender's route is a black hole during
/// that time: with no process on the socket, the kernel would reply with ICMP errors.
fn restart(networks: &Networks, next: &str, node: &mut Node) -> u64 {
    let (sent, _) = networks.packets("node", "radio");
    networks.ip(&format!("-n {next} route add blackhole 10.78.0.1/32"));
    node.kill();
    node.start_again();
    networks.ip(&format!("-n {next} route del blackhole 10.78.0.1/32"));
    networks.packets("node", "radio").0 - sent
}

#[test]
fn not_one_packet_leaves_under_radio_silence_not_even_the_kernels_and_not_after_a_restart() {
    let test = "not_one_packet_leaves_under_radio_silence_not_even_the_kernels_and_not_after_a_restart";
    let Some(networks) = Networks::make(test, &["node", "peer"]) else { return };
    cable(&networks, "peer");
    let (key, homes) = (run(&["keygen"]).ok(), [directory(), directory()]);
    let key = ["--shared-key", key.trim(), "--persist-sync"];
    let mut node = Node::start_inside(networks.inside("node"), "0.0.0.0:4242", homes[0].path(), &key);
    let there = format!("{}@10.78.0.1:4242", node.id);
    let flags = [&key[..], &["--peer", &there]].concat();
    let peer = Node::start_inside(networks.inside("peer"), "0.0.0.0:4242", homes[1].path(), &flags);
    peer.run("put", &["missions", "before", "{}", "--wait-peers", "1"]).ok();
    node.run("connect", &[&format!("{}@10.78.0.2:4242", peer.id)]).ok();

    node.run("sync", &["stop"]).ok();
    let put = |id: &str| {
        node.run("put", &["missions", &format!("mine-{id}"), "{}"]).ok();
        peer.run("put", &["missions", &format!("theirs-{id}"), "{}"]).ok();
    };
    assert_eq!(leaves(&networks, "peer", || put("silent")), 0, "packets left");
    // The kernel's notification of a network change must not cause traffic either.
    networks.ip("-n node addr add 10.79.0.1/24 dev radio");
    assert_eq!(leaves(&networks, "peer", || put("changed")), 0, "packets left");

    assert_eq!(restart(&networks, "peer", &mut node), 0, "packets left at the restart");
    assert_eq!(leaves(&networks, "peer", || {}), 0, "packets left after a restart");
    assert_eq!(node.json("status", &[])["syncActive"], false);

    node.run("sync", &["start"]).ok();
    node.shows("missions", "theirs-silent", "{}");
    peer.shows("missions", "mine-changed", "{}");
    node.kill();
    node.start_again();
    assert_eq!(node.json("status", &[])["syncActive"], true);
}

#[test]
fn not_one_packet_leaves_towards_a_relay_either_while_it_passes_on_what_a_peer_sends() {
    let test = "not_one_packet_leaves_towards_a_relay_either_while_it_passes_on_what_a_peer_sends";
    let Some(networks) = Networks::make(test, &["node", "relay", "peer"]) else { return };
    cable(&networks, "relay");
    networks.cable([("relay", "far", "10.79.0.2/24"), ("peer", "far", "10.79.0.1/24")]);
    let homes = [directory(), directory(), directory()];
    let (key_path, key) = key_file(homes[2].path());
    // The relay has two addresses, and each node is configured with one.
    let relay = Relay::start_inside(networks.inside("relay"), "0.0.0.0:4243", &key_path);
    let start = |network: &str, bind: &str, home: usize, peer: &str| {
        let flags = ["--shared-key", &key, "--persist-sync", "--peer", peer];
        Node::start_inside(networks.inside(network), bind, homes[home].path(), &flags)
    };
    let peer_id = run(&["id", "--data-dir", homes[1].path().join("data").to_str().expect("text")]).ok();
    let to_peer = format!("{}@relay:10.78.0.2:4243", peer_id.trim());
    let mut node = start("node", "0.0.0.0:4242", 0, &to_peer);
    let peer = start("peer", "0.0.0.0:4242", 1, &format!("{}@relay:10.79.0.2:4243", node.id));
    peer.run("put", &["missions", "before", "{}", "--wait-peers", "1"]).ok();
    node.run("put", &["missions", "back", "{}", "--wait-peers", "1"]).ok();
    assert_eq!(peer.json("peers", &[])["peers"][0]["path"], "relay");

    node.run("sync", &["stop"]).ok();
    let put = |id: &str| {
        node.run("put", &["missions", &format!("mine-{id}"), "{}"]).ok();
        peer.run("put", &["missions", &format!("theirs-{id}"), "{}"]).ok();
    };
    assert_eq!(leaves(&networks, "relay", || put("silent")), 0, "packets left");
    assert_eq!(restart(&networks, "relay", &mut node), 0, "packets left at the restart");
    assert_eq!(leaves(&networks, "relay", || ()), 0, "packets left after a restart");

    node.run("sync", &["start"]).ok();
    node.shows("missions", "theirs-silent", "{}");
    peer.shows("missions", "mine-silent", "{}");
    drop(relay);
}

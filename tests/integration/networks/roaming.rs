//! A tablet that moves between networks.

use std::time::{Duration, Instant};

use super::Networks;
use crate::node::{Node, directory, eventually, run};
use crate::relays::{Relay, key_file};

/// Limit on the median time from having a path to having the document.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Moves the far end of the tablet's interface to another network.
fn carry(networks: &Networks, from: &str, to: &str, network: u8) {
    networks.ip(&format!("-n {from} addr flush dev tablet"));
    networks.ip("-n tablet addr flush dev radio");
    networks.ip(&format!("-n {from} link set tablet netns {to}"));
    networks.ip(&format!("-n {to} addr add 10.77.{network}.1/24 dev tablet"));
    networks.ip(&format!("-n {to} link set tablet up"));
    networks.ip(&format!("-n tablet addr add 10.77.{network}.9/24 dev radio"));
}

#[expect(clippy::disallowed_methods, reason = "how long a real node takes is measured in real time")]
fn takes(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

#[test]
fn a_tablet_carried_from_network_to_network_is_in_sync_within_two_seconds_of_having_a_path() {
    let test = "a_tablet_carried_from_network_to_network_is_in_sync_within_two_seconds_of_having_a_path";
    let Some(networks) = Networks::make(test, &["hub", "edge", "tablet"]) else { return };
    networks.cable([("tablet", "radio", "10.77.1.9/24"), ("hub", "tablet", "10.77.1.1/24")]);
    let (key, homes) = (run(&["keygen"]).ok(), [directory(), directory(), directory()]);
    let key = ["--shared-key", key.trim()];
    let hub = Node::start_inside(networks.inside("hub"), "0.0.0.0:4242", homes[0].path(), &key);
    let edge = Node::start_inside(networks.inside("edge"), "0.0.0.0:4242", homes[1].path(), &key);
    let (at_hub, at_edge) = (format!("{}@10.77.1.1:4242", hub.id), format!("{}@10.77.2.1:4242", edge.id));
    let flags = [&key[..], &["--peer", &at_hub, "--peer", &at_edge]].concat();
    let tablet = Node::start_inside(networks.inside("tablet"), "0.0.0.0:4242", homes[2].path(), &flags);
    eventually("the tablet is linked with the hub", || {
        (tablet.json("status", &[])["connectedPeers"] == 1).then_some(())
    });

    let mut times = Vec::new();
    for (number, (from, to, there, network)) in
        [("hub", "edge", &edge, 2), ("edge", "hub", &hub, 1), ("hub", "edge", &edge, 2)].into_iter().enumerate()
    {
        let (id, json) = (format!("m{number}"), format!("{{\"n\":{number}}}"));
        there.run("put", &["missions", &id, &json]).ok();
        carry(&networks, from, to, network);
        times.push(takes(|| tablet.shows("missions", &id, &json)));
    }
    println!("in sync after {times:?}");
    times.sort_unstable();
    assert!(times[1] <= AT_ONCE, "{times:?}");
    assert!(!tablet.log().contains("are not seen"), "the kernel tells");
}

/// Renumbers the tablet's cable to the relay with the addresses of another network.
fn renumber(networks: &Networks, network: u8) {
    for (at, interface, number) in [("relay", "tablet", 1), ("tablet", "radio", 9)] {
        networks.ip(&format!("-n {at} addr flush dev {interface}"));
        networks.ip(&format!("-n {at} addr add 10.77.{network}.{number}/24 dev {interface}"));
    }
    networks.ip(&format!("-n tablet route add 10.90.0.1 via 10.77.{network}.1"));
}

#[test]
fn a_tablet_that_has_only_a_relay_is_in_sync_within_two_seconds_of_a_path_to_it() {
    let test = "a_tablet_that_has_only_a_relay_is_in_sync_within_two_seconds_of_a_path_to_it";
    let Some(networks) = Networks::make(test, &["relay", "far", "tablet"]) else { return };
    networks.cable([("tablet", "radio", "10.77.9.9/24"), ("relay", "tablet", "10.77.9.1/24")]);
    networks.cable([("far", "cable", "10.91.0.2/24"), ("relay", "far", "10.91.0.1/24")]);
    networks.ip("-n relay addr add 10.90.0.1/32 dev lo");
    networks.ip("-n far route add 10.90.0.1 via 10.91.0.1");
    renumber(&networks, 1);
    let homes = [directory(), directory(), directory()];
    let (key_path, key) = key_file(homes[2].path());
    let relay = Relay::start_inside(networks.inside("relay"), "10.90.0.1:4243", &key_path);
    let start = |network: &str, home: usize, peer: &str| {
        let peer = format!("{peer}@relay:{}", relay.listen);
        let flags = ["--shared-key", &key, "--peer", &peer];
        Node::start_inside(networks.inside(network), "0.0.0.0:4242", homes[home].path(), &flags)
    };
    let tablet_id = run(&["id", "--data-dir", homes[1].path().join("data").to_str().expect("text")]).ok();
    let far = start("far", 0, tablet_id.trim());
    let tablet = start("tablet", 1, &far.id);
    far.run("put", &["missions", "first", "{}", "--wait-peers", "1"]).ok();

    let mut times = Vec::new();
    for (number, network) in [2, 3, 4].into_iter().enumerate() {
        let (id, json) = (format!("m{number}"), format!("{{\"n\":{number}}}"));
        networks.ip("-n tablet link set radio down");
        far.run("put", &["missions", &id, &json]).ok();
        networks.ip("-n tablet link set radio up");
        renumber(&networks, network);
        times.push(takes(|| tablet.shows("missions", &id, &json)));
    }
    println!("in sync after {times:?}");
    times.sort_unstable();
    assert!(times[1] <= AT_ONCE, "{times:?}");
    assert_eq!(tablet.json("peers", &[])["peers"][0]["path"], "relay");
}

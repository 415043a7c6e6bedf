//! A tablet that is carried from network to network.

use std::time::{Duration, Instant};

use super::Networks;
use crate::node::{Node, directory, eventually, run};

/// From having a path to having the document, in the middle of the moves.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Plugs the far end of the tablet's interface into another network.
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

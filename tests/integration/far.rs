//! Real nodes over long, narrow and lossy paths: a forwarder between them delays and drops datagrams and limits their rate.

use std::path::Path;
use std::time::Duration;

use crate::forwarder::{Forwarder, Quality};
use crate::node::{Node, directory, eventually, run};

/// Starts two nodes in separate directories; the second dials the first over a path of this quality.
fn pair(homes: [&Path; 2], quality: Quality, flags: &[&str]) -> (Node, Node) {
    let key = run(&["keygen"]).ok();
    let flags = [&["--shared-key", key.trim()], flags].concat();
    let here = Node::start(homes[0], &flags);
    let way = Forwarder::to(&here.bind, quality);
    let dialled = format!("{}@{}", here.id, way.address);
    let there = Node::start(homes[1], &[&flags[..], &["--peer", &dialled]].concat());
    (here, there)
}

fn count(node: &Node, collection: &str) -> usize {
    node.run("list", &[collection]).ok().lines().count()
}

/// Creates a document of about 8 KB that does not compress below 4 KB.
fn document(number: u64) -> String {
    let text: String =
        (0..500).map(|at| format!("{:016x}", (500 * number + at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))).collect();
    format!("{{\"n\":{number},\"text\":\"{text}\"}}")
}

#[test]
fn over_a_lossy_radio_everything_newest_arrives_and_a_command_before_what_was_written_earlier() {
    let radio =
        Quality { delay: Duration::from_millis(800), loss_per_mille: 50, bytes_per_second: Some(8_000), cut: false };
    let homes = [directory(), directory()];
    let (here, there) = pair([homes[0].path(), homes[1].path()], radio, &["--link-rate", "64kbit"]);
    eventually("a link", || (there.json("status", &[])["connectedPeers"] == 1).then_some(()));
    // These take at least a quarter of a minute of the radio's capacity.
    for number in 0..30 {
        here.run("put", &["missions", &format!("m{number}"), &document(number)]).ok();
    }
    for number in 0..20 {
        here.run("put", &["tracks", "t", &format!("{{\"n\":{number}}}")]).ok();
    }
    let id = here.run("send", &["--agent", "a1", "--ttl", "600", "replay"]).ok();
    eventually("the command is there", || there.get("commands", id.trim()));
    let held = count(&there, "missions");
    assert!(held < 30, "the command came before what was written earlier");
    there.shows("tracks", "t", r#"{"n":19}"#);
    eventually("everything is there", || (count(&there, "missions") == 30).then_some(()));
    assert_eq!(there.get("missions", "m29"), here.get("missions", "m29"));
    let (here, there) = (here.log(), there.log());
    assert!(!here.contains("silent") && !there.contains("silent"), "the link was given up: {here}{there}");
}

#[test]
fn a_satellite_hop_of_a_second_and_a_half_between_real_nodes_is_not_a_dead_peer() {
    let satellite = Quality { delay: Duration::from_millis(750), loss_per_mille: 20, ..Quality::default() };
    let homes = [directory(), directory()];
    let (here, there) = pair([homes[0].path(), homes[1].path()], satellite, &[]);
    for number in 0..8 {
        let json = format!("{{\"n\":{number}}}");
        here.run("put", &["missions", "m", &json, "--wait-peers", "1"]).ok();
        assert_eq!(there.get("missions", "m"), Some(json), "acknowledged, so there");
    }
    let rtt = here.json("peers", &[])["peers"][0]["rttMicros"].as_str().map(str::parse::<u64>);
    assert!(matches!(rtt, Some(Ok(1_500_000..))), "{rtt:?} µs");
    let (here, there) = (here.log(), there.log());
    let lost = |log: &str| log.contains("silent") || log.contains("no answer");
    assert!(!lost(&here) && !lost(&there), "the link was given up: {here}{there}");
}

//! A narrow link between real nodes, limited by the kernel's token bucket filter.

use super::Networks;
use crate::node::{Node, directory, eventually, run};

#[test]
fn over_a_narrow_link_a_command_overtakes_a_catch_up() {
    let Some(networks) = Networks::make("over_a_narrow_link_a_command_overtakes_a_catch_up", &["here", "there"]) else {
        return;
    };
    networks.cable([("here", "radio", "10.80.0.1/24"), ("there", "radio", "10.80.0.2/24")]);
    for network in ["here", "there"] {
        networks.run(network, "tc qdisc add dev radio root tbf rate 512kbit burst 4000 latency 500ms");
    }
    let (key, homes) = (run(&["keygen"]).ok(), [directory(), directory()]);
    let flags = ["--shared-key", key.trim(), "--link-rate", "480kbit"];
    let here = Node::start_inside(networks.inside("here"), "0.0.0.0:4242", homes[0].path(), &flags);
    // Two megabytes take at least half a minute.
    let text = "0123456789abcdef".repeat(6_250);
    for number in 0..20 {
        here.run("put", &["missions", &format!("m{number}"), &format!("{{\"n\":{number},\"text\":\"{text}\"}}")]).ok();
    }
    let dialled = format!("{}@10.80.0.1:4242", here.id);
    let flags = [&flags[..], &["--peer", &dialled]].concat();
    let there = Node::start_inside(networks.inside("there"), "0.0.0.0:4242", homes[1].path(), &flags);
    eventually("the catch-up runs", || (!there.run("list", &["missions"]).ok().is_empty()).then_some(()));
    let id = here.run("send", &["--agent", "a1", "--ttl", "600", "replay"]).ok();
    eventually("the command is there", || there.get("commands", id.trim()));
    let held = there.run("list", &["missions"]).ok().lines().count();
    assert!(held < 20, "the catch-up was over before the command came");
    here.run("put", &["tracks", "t", "{}", "--wait-peers", "1"]).ok();
    eventually("everything is there", || (there.run("list", &["missions"]).ok().lines().count() == 20).then_some(()));
}

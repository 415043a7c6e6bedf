use std::time::Duration;

use super::net::{Net, Node, address};
use crate::sync::link::{CloseCode, DownReason, Lane, LinkError, LinkEvent};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_link_comes_up_at_both_ends_and_each_knows_the_other() {
    let mut net = Net::new(1, 2);
    let (a, b) = (net.nodes[0].id, net.nodes[1].id);
    let link = net.dial(0, 1);
    net.run(SECOND);
    assert_eq!(net.nodes[0].events, [LinkEvent::Up { link, peer: b, dialled: true }]);
    assert_eq!(net.nodes[1].events, [], "the acceptor waits for the control lane");
    net.write_all(0, link, Lane::Control, b"hello");
    net.run(SECOND);
    let accepted = net.up(1).expect("up");
    assert_eq!(
        net.nodes[1].events,
        [
            LinkEvent::Up { link: accepted, peer: a, dialled: false },
            LinkEvent::Readable { link: accepted, lane: Lane::Control }
        ]
    );
    assert_eq!(net.nodes[0].links.remote(link), Some(address(2)));
    assert_eq!(net.nodes[1].links.remote(accepted), Some(address(1)));
    assert_eq!(net.nodes[0].links.rtt(link), Duration::from_millis(10));
}

#[test]
fn both_ends_export_the_same_bytes_and_no_two_links_do() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let exported = net.nodes[0].links.export(dialled);
    assert_eq!(exported, net.nodes[1].links.export(accepted));
    let second = net.dial(0, 1);
    net.run(SECOND);
    assert_ne!(exported, net.nodes[0].links.export(second));
    assert_ne!(exported, [0; 32]);
}

#[test]
fn a_dial_that_reaches_another_node_fails_and_names_both() {
    let mut net = Net::new(1, 3);
    let (now, wanted, found) = (net.now, net.nodes[2].id, net.nodes[1].id);
    let link = net.nodes[0].links.dial(now, wanted, &[address(2)]).expect("begins");
    net.run(SECOND);
    let reason = DownReason::WrongPeer { expected: wanted, found, at: address(2) };
    let text = reason.to_string();
    assert!(text.contains(&wanted.to_string()) && text.contains(&found.to_string()), "{text}");
    assert_eq!(net.nodes[0].events, [LinkEvent::Down { link, reason }]);
    assert_eq!(net.nodes[1].events, [], "whom nobody wanted hears nothing");
    net.run(10 * SECOND);
    assert!(net.nodes[0].links.links.is_empty() && net.nodes[1].links.links.is_empty());
}

#[test]
fn a_stranger_at_one_address_does_not_keep_a_peer_at_another_from_being_reached() {
    let mut net = Net::new(1, 3);
    let (wanted, candidates) = (net.nodes[2].id, [address(2), address(3)]);
    net.passes = Box::new(|datagram| datagram.to != address(3));
    let now = net.now;
    net.nodes[0].links.dial(now, wanted, &candidates).expect("begins");
    net.run(SECOND);
    assert!(net.down(0).is_some(), "the stranger was faster");
    net.passes = Box::new(|_| true);
    let now = net.now;
    let link = net.nodes[0].links.dial(now, wanted, &candidates).expect("begins");
    net.run(SECOND);
    assert_eq!(net.up(0), Some(link));
}

#[test]
fn a_dead_candidate_does_not_delay_the_living_one() {
    let mut net = Net::new(1, 2);
    let (now, peer) = (net.now, net.nodes[1].id);
    let link = net.nodes[0].links.dial(now, peer, &[address(99), address(2)]).expect("begins");
    net.run(Duration::from_millis(50));
    assert_eq!(net.up(0), Some(link));
    assert_eq!(net.nodes[0].links.remote(link), Some(address(2)));
    let before = net.trace.iter().filter(|datagram| datagram.to == address(99)).count();
    net.run(60 * SECOND);
    assert_eq!(net.trace.iter().filter(|datagram| datagram.to == address(99)).count(), before);
}

#[test]
fn an_address_that_resolves_late_joins_the_dial() {
    let mut net = Net::new(1, 2);
    let (now, peer) = (net.now, net.nodes[1].id);
    let link = net.nodes[0].links.dial(now, peer, &[address(99)]).expect("begins");
    net.run(SECOND);
    let now = net.now;
    net.nodes[0].links.add_candidates(now, link, &[address(2)]);
    net.run(SECOND / 50);
    assert_eq!(net.up(0), Some(link));
}

#[test]
fn a_dial_nobody_answers_ends_and_leaves_nothing() {
    let mut net = Net::new(1, 1);
    let (now, peer) = (net.now, crate::identity::EndpointId([9; 32]));
    let link = net.nodes[0].links.dial(now, peer, &[address(99)]).expect("begins");
    net.run(11 * SECOND);
    assert_eq!(net.nodes[0].events, [LinkEvent::Down { link, reason: DownReason::NoAnswer }]);
    assert!(net.nodes[0].links.links.is_empty());
    assert_eq!(net.nodes[0].links.poll_deadline(), None);
}

#[test]
fn a_dial_to_nowhere_or_to_oneself_does_not_begin() {
    let mut net = Net::new(1, 2);
    let (now, us, peer) = (net.now, net.nodes[0].id, net.nodes[1].id);
    assert_eq!(net.nodes[0].links.dial(now, us, &[address(1)]), Err(LinkError::Ourselves));
    assert_eq!(net.nodes[0].links.dial(now, peer, &[]), Err(LinkError::NoAddress));
}

#[test]
fn simultaneous_dials_between_the_same_sockets_do_not_confuse_each_other() {
    let mut net = Net::new(1, 2);
    let (there, back) = (net.dial(0, 1), net.dial(1, 0));
    net.run(SECOND);
    net.write_all(0, there, Lane::Control, b"there");
    net.write_all(1, back, Lane::Control, b"back");
    net.run(SECOND);
    let accepted = |net: &Net, node: usize| {
        let mut ups = net.nodes[node].events.iter().filter_map(|event| match event {
            LinkEvent::Up { link, dialled: false, .. } => Some(*link),
            _ => None,
        });
        ups.next().expect("an accepted link")
    };
    let (at_1, at_0) = (accepted(&net, 1), accepted(&net, 0));
    assert_eq!(net.read_all(1, at_1, Lane::Control), b"there");
    assert_eq!(net.read_all(0, at_0, Lane::Control), b"back");
}

#[test]
fn the_other_side_learns_why_a_link_was_closed() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let now = net.now;
    net.links(1).close(now, accepted, CloseCode::NotAdmitted, "the proof is\nwrong");
    net.run(SECOND);
    let reason = DownReason::Closed { code: CloseCode::NotAdmitted as u64, reason: "the proof is wrong".into() };
    assert_eq!(net.nodes[0].events, [LinkEvent::Down { link: dialled, reason }]);
    assert_eq!(net.nodes[1].events, [], "who closes a link hears no more of it");
    net.run(10 * SECOND);
    assert!(net.nodes.iter().all(|node| node.links.links.is_empty()), "both sides have tidied up");
}

#[test]
fn a_peer_that_vanishes_is_noticed() {
    let (mut net, dialled, _) = Net::linked(1);
    net.passes = Box::new(|_| false);
    net.run(31 * SECOND);
    assert_eq!(net.nodes[0].events, [LinkEvent::Down { link: dialled, reason: DownReason::Silent }]);
}

#[test]
fn a_restarted_peer_says_that_it_knows_nothing_of_the_link() {
    let (mut net, dialled, _) = Net::linked(1);
    net.nodes[1] = Node::new(77, 2, net.now);
    net.write_all(0, dialled, Lane::Control, &[0; 100]);
    net.run(SECOND);
    assert_eq!(net.nodes[0].events, [LinkEvent::Down { link: dialled, reason: DownReason::Reset }]);
}

#[test]
fn a_restarted_dialler_says_so_too() {
    let (mut net, _, accepted) = Net::linked(1);
    net.nodes[0] = Node::new(77, 1, net.now);
    net.write_all(1, accepted, Lane::Control, &[0; 100]);
    net.run(SECOND);
    assert_eq!(net.nodes[1].events, [LinkEvent::Down { link: accepted, reason: DownReason::Reset }]);
}

#[test]
fn a_dialler_that_changes_its_address_keeps_its_link() {
    let (mut net, dialled, accepted) = Net::linked(1);
    net.nodes[0].address = address(50);
    net.write_all(0, dialled, Lane::Control, b"moved");
    net.run(SECOND);
    assert_eq!(net.read_all(1, accepted, Lane::Control), b"moved");
    net.write_all(1, accepted, Lane::Control, b"found");
    net.run(SECOND);
    assert_eq!(net.read_all(0, dialled, Lane::Control), b"found");
    assert_eq!(net.nodes[1].links.remote(accepted), Some(address(50)));
}

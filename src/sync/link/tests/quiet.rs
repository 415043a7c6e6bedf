use std::time::Duration;

use super::net::{Net, Seeded, address};
use crate::limits::{UNPROVEN_CONNECTIONS, UNPROVEN_SHARE};
use crate::random::{Random, RandomExt};
use crate::sync::link::{CloseCode, Lane, LinkId, LinkRates};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn an_idle_link_wakes_a_node_less_than_once_a_second() {
    let (mut net, dialled, _) = Net::linked(1);
    net.run(5 * SECOND);
    net.nodes.iter_mut().for_each(|node| node.wakes = 0);
    net.run(60 * SECOND);
    for node in &net.nodes {
        assert!(node.wakes <= 30, "{} wake-ups in an idle minute", node.wakes);
    }
    net.run(600 * SECOND);
    net.write_all(0, dialled, Lane::Control, b"still there");
}

#[test]
fn a_connection_with_a_short_conversation_takes_few_bytes() {
    let (mut net, _, _) = Net::linked(1);
    net.run(5 * SECOND);
    let bytes: usize = net.trace.iter().map(|datagram| datagram.data.len()).sum();
    println!("{bytes} bytes in {} datagrams", net.trace.len());
    assert!(bytes < 6_000, "{bytes} bytes");
}

#[test]
fn forgotten_links_send_nothing() {
    let (mut net, dialled, _) = Net::linked(1);
    net.write_all(0, dialled, Lane::Bulk, &[0; 5000]);
    let dialling = net.dial(0, 1);
    net.links(0).forget_all();
    assert!(dialling > dialled);
    let before = net.trace.len();
    // Nothing passes in either direction, as under radio silence, so there is no answer.
    net.passes = Box::new(|_| false);
    net.run(60 * SECOND);
    assert!(net.trace[before..].iter().all(|datagram| datagram.from != address(1)));
    assert_eq!(net.links(0).poll_deadline(), None);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| {
        let (mut net, dialled, accepted) = Net::linked(seed);
        let mut count = 0;
        net.passes = Box::new(move |_| {
            count += 1;
            count % 7 != 0
        });
        net.write_all(0, dialled, Lane::Merged, &[1; 50_000]);
        net.write_all(1, accepted, Lane::Latest, &[1; 50_000]);
        net.run(20 * SECOND);
        net.trace.iter().map(|datagram| (datagram.at, datagram.from, datagram.data.len())).collect::<Vec<_>>()
    };
    let (first, second) = (trace(5), trace(5));
    assert_eq!(first.len(), second.len());
    assert!(first == second);
}

#[test]
fn garbage_is_survived() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let mut random = Seeded(3);
    let samples: Vec<Vec<u8>> = net.trace.iter().map(|datagram| datagram.data.clone()).collect();
    for round in 0..4_000 {
        let mut data = samples[round % samples.len()].clone();
        let edits = random.below(8);
        for _ in 0..edits {
            let at = usize::try_from(random.below(data.len().min(64) as u64)).expect("small");
            random.fill(&mut data[at..=at]);
        }
        data.truncate(usize::try_from(random.below(data.len() as u64 + 1)).expect("small"));
        let (from, to) = if round % 3 == 0 { (address(77), address(2)) } else { (address(1), address(2)) };
        net.send(from, to, &data);
        net.send(to, address(1), &data);
        net.run(Duration::from_millis(1));
    }
    for node in &net.nodes {
        assert!(node.links.links.len() <= 2 + UNPROVEN_CONNECTIONS);
    }
    net.write_all(0, dialled, Lane::Control, b"still here");
    net.run(SECOND);
    assert_eq!(net.read_all(1, accepted, Lane::Control), b"still here");
}

/// Networks of strangers that dial node 0; each strange node dials as often as there are places for unproven connections.
const NETWORKS: u8 = 6;

fn strangers_dial(net: &mut Net) -> Vec<(usize, LinkId)> {
    let dials = (1..=usize::from(NETWORKS)).flat_map(|from| [from; UNPROVEN_CONNECTIONS]);
    dials.map(|from| (from, net.dial(from, 0))).collect()
}

#[test]
fn strangers_are_bounded_and_go_away() {
    let mut net = Net::new(1, NETWORKS + 1);
    // The acceptor's answers are lost, so no stranger can validate an address.
    net.passes = Box::new(|datagram| datagram.from != address(1));
    strangers_dial(&mut net);
    net.run(SECOND);
    let unproven = net.nodes[0].links.unproven.len();
    assert!(unproven <= UNPROVEN_CONNECTIONS / 2, "half of the room is for those who answer, not {unproven}");
    net.run(20 * SECOND);
    assert!(net.nodes[0].links.links.is_empty());
}

#[test]
fn strangers_of_one_network_leave_room_for_others() {
    let mut net = Net::new(1, 3);
    let crowd: Vec<_> = (0..2 * UNPROVEN_CONNECTIONS).map(|_| net.dial(1, 0)).collect();
    net.run(SECOND);
    for link in crowd {
        let now = net.now;
        net.links(1).write(now, link, Lane::Control, b"hello");
    }
    net.run(SECOND);
    assert_eq!(net.nodes[0].links.unproven.len(), UNPROVEN_SHARE);
    let honest = net.dial(2, 0);
    net.run(SECOND);
    assert_eq!(net.up(2), Some(honest));
}

#[test]
fn a_stranger_is_never_sent_more_than_three_times_what_he_sent() {
    let mut net = Net::new(1, 2);
    net.dial(0, 1);
    let mut random = Seeded(9);
    net.passes = Box::new(|datagram| datagram.from == address(1) || datagram.from == address(66));
    for _ in 0..50 {
        let mut data = random.array::<1300>();
        data[0] |= 0xc0;
        net.send(address(66), address(2), &data);
    }
    net.run(20 * SECOND);
    for stranger in [address(1), address(66)] {
        let sum = |of: &dyn Fn(&super::net::Datagram) -> bool| -> usize {
            net.trace.iter().filter(|datagram| of(datagram)).map(|datagram| datagram.data.len()).sum()
        };
        let asked = sum(&|datagram| datagram.from == stranger && datagram.to == address(2));
        let answered = sum(&|datagram| datagram.to == stranger && datagram.from == address(2));
        assert!(answered <= 3 * asked, "{answered} for {asked}");
    }
}

#[test]
fn a_crowd_that_can_be_reached_gets_in_up_to_the_limit() {
    let mut net = Net::new(1, NETWORKS + 1);
    let links = strangers_dial(&mut net);
    net.run(SECOND);
    for (from, link) in links {
        let now = net.now;
        net.links(from).write(now, link, Lane::Control, b"hello");
    }
    net.run(SECOND);
    let unproven = net.nodes[0].links.unproven.len();
    assert!(unproven > UNPROVEN_CONNECTIONS / 2 && unproven <= UNPROVEN_CONNECTIONS, "{unproven}");
    assert_eq!(net.down(1).as_deref(), Some("the peer takes no connections at the moment"));
}

#[test]
fn a_link_that_ends_while_its_rate_holds_datagrams_back_wakes_for_nothing() {
    let (mut net, dialled, _) = Net::linked(1);
    net.links(0).set_rates(LinkRates { all: Some(60_000), ..LinkRates::default() });
    let now = net.now;
    net.links(0).write(now, dialled, Lane::Bulk, &[0; 100_000]);
    net.run(Duration::from_millis(1));
    net.passes = Box::new(|_| false);
    let now = net.now;
    net.links(0).close(now, dialled, CloseCode::Restarting, "over");
    net.nodes[0].wakes = 0;
    net.run(60 * SECOND);
    assert!(net.nodes[0].wakes < 20, "{} wake-ups", net.nodes[0].wakes);
}

use std::time::Duration;

use super::net::Net;
use crate::sync::link::{Lane, LinkEvent};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn data_flows_both_ways_on_every_lane() {
    let (mut net, dialled, accepted) = Net::linked(1);
    for lane in Lane::ALL {
        net.write_all(0, dialled, lane, format!("to {lane}").as_bytes());
        net.write_all(1, accepted, lane, format!("back {lane}").as_bytes());
    }
    net.run(SECOND);
    for lane in Lane::ALL {
        assert!(net.nodes[1].events.contains(&LinkEvent::Readable { link: accepted, lane }));
        assert!(net.nodes[0].events.contains(&LinkEvent::Readable { link: dialled, lane }));
        assert_eq!(net.read_all(1, accepted, lane), format!("to {lane}").as_bytes());
        assert_eq!(net.read_all(0, dialled, lane), format!("back {lane}").as_bytes());
    }
}

#[test]
fn a_reader_that_does_not_read_stops_the_writer_and_then_lets_it_go_on() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let data: Vec<u8> = (0..2_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let mut written = 0;
    for _ in 0..20 {
        let now = net.now;
        written += net.links(0).write(now, dialled, Lane::Bulk, &data[written..]);
        net.run(SECOND);
    }
    assert!((200_000..800_000).contains(&written), "{written} bytes are under way to a peer that does not read");
    let mut read = Vec::new();
    while read.len() < data.len() {
        let before = read.len();
        read.extend(net.read_all(1, accepted, Lane::Bulk));
        net.run(SECOND);
        let writable = LinkEvent::Writable { link: dialled, lane: Lane::Bulk };
        assert!(written == data.len() || net.nodes[0].events.contains(&writable), "the writer is told of room");
        net.nodes[0].events.clear();
        let now = net.now;
        written += net.links(0).write(now, dialled, Lane::Bulk, &data[written..]);
        net.run(SECOND);
        assert!(read.len() > before || written > before);
    }
    assert!(read == data);
}

#[test]
fn an_urgent_lane_overtakes_bulk() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let now = net.now;
    let bulk = vec![0; 200_000];
    assert_eq!(net.links(0).write(now, dialled, Lane::Bulk, &bulk), bulk.len());
    net.write_all(0, dialled, Lane::Command, b"now");
    net.run(Duration::from_millis(6));
    assert_eq!(net.read_all(1, accepted, Lane::Command), b"now");
    assert!(net.read_all(1, accepted, Lane::Bulk).len() < bulk.len());
}

#[test]
fn a_busy_lane_does_not_starve_another() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let data = vec![0; 200_000];
    for lane in [Lane::Merged, Lane::Latest, Lane::Bulk] {
        let now = net.now;
        assert!(net.links(0).write(now, dialled, lane, &data) > 100_000);
    }
    net.run(Duration::from_millis(20));
    let read = [Lane::Merged, Lane::Latest, Lane::Bulk].map(|lane| net.read_all(1, accepted, lane).len());
    let (least, most) = (read.iter().min().expect("three"), read.iter().max().expect("three"));
    assert!(*least > 0 && *most - *least <= 4_000, "{read:?}");
}

#[test]
fn nothing_is_lost_on_a_lossy_path() {
    let (mut net, dialled, accepted) = Net::linked(1);
    let mut count = 0_u32;
    net.passes = Box::new(move |_| {
        count += 1;
        !count.wrapping_mul(2_654_435_761).is_multiple_of(5)
    });
    let data: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[1]).collect();
    let (mut written, mut read) = (0, Vec::new());
    for _ in 0..600 {
        let now = net.now;
        written += net.links(0).write(now, dialled, Lane::Latest, &data[written..]);
        net.run(SECOND / 10);
        read.extend(net.read_all(1, accepted, Lane::Latest));
        if read.len() == data.len() {
            break;
        }
    }
    assert_eq!(read.len(), data.len());
    assert!(read == data);
}

#[test]
fn a_stream_that_is_no_lane_ends_the_link() {
    let (mut net, dialled, _) = Net::linked(1);
    let link = net.links(0).links.get_mut(&dialled).expect("a link");
    let stream = link.conn.streams().open(quinn_proto::Dir::Uni).expect("a stream");
    assert_eq!(link.conn.send_stream(stream).write(&[9]), Ok(1));
    net.links(0).reschedule(dialled);
    net.run(SECOND);
    assert_eq!(net.down(1).as_deref(), Some("the peer broke the protocol: a stream begins with 9, which is no lane"));
    assert_eq!(net.down(0).as_deref(), Some("closed by the peer: a stream begins with 9, which is no lane"));
}

#[test]
fn a_second_stream_for_a_lane_ends_the_link() {
    let (mut net, dialled, _) = Net::linked(1);
    net.write_all(0, dialled, Lane::Latest, b"x");
    let link = net.links(0).links.get_mut(&dialled).expect("a link");
    let stream = link.conn.streams().open(quinn_proto::Dir::Uni).expect("a stream");
    assert_eq!(link.conn.send_stream(stream).write(&[Lane::Latest as u8]), Ok(1));
    net.run(SECOND);
    assert_eq!(net.down(1).as_deref(), Some("the peer broke the protocol: a second stream for the latest lane"));
}

#[test]
fn a_lane_that_is_ended_ends_the_link() {
    let (mut net, dialled, accepted) = Net::linked(1);
    net.write_all(0, dialled, Lane::Latest, b"x");
    net.run(SECOND);
    let link = net.links(0).links.get_mut(&dialled).expect("a link");
    let stream = quinn_proto::StreamId::new(quinn_proto::Side::Client, quinn_proto::Dir::Uni, 0);
    link.conn.send_stream(stream).finish().expect("an open stream");
    net.links(0).reschedule(dialled);
    net.run(SECOND);
    net.read_all(1, accepted, Lane::Latest);
    net.run(SECOND);
    assert_eq!(net.down(1).as_deref(), Some("the peer broke the protocol: the latest lane was ended"));
}

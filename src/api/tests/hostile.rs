//! Malformed input, and clients that are too slow. Each costs only the client's connection.

use std::time::Duration;

use peat_ipc::envelope::frame::Body;
use peat_ipc::envelope::{End, Frame, Request};
use peat_ipc::frame::{RequestHeader, put_request};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use peat_ipc::{Code, PREFACE};

use super::{ROOT, World, code};
use crate::api::{Caller, ConnectionId};
use crate::limits::CLIENT_IDLE;

/// Checks that another client is served normally.
fn others_are_served(world: &mut World) {
    let other = world.connect(ROOT);
    world.call(other, &GetStatusRequest {}).expect("another client is served");
}

fn frame(call: u64, body: Body) -> Vec<u8> {
    Frame { call, body: Some(body) }.encode_length_delimited_to_vec()
}

/// Checks that `bytes` after the preface close the connection, for a reason that contains `word`.
fn is_closed(bytes: &[u8], word: &str) {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.send(client, bytes);
    let error = world.last_words(client).expect("told why");
    assert!(error.message.contains(word), "{error}");
    assert!(!world.is_open(client));
    others_are_served(&mut world);
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    is_closed(&[0], "length 0");
    is_closed(&[0xff; 10], "varint");
    is_closed(&[0x81, 0x80, 0x80, 0x02], "4194304");
    is_closed(&[4, 0xde, 0xad, 0xbe, 0xef], "malformed");
    is_closed(&[2, 0x08, 0x01], "no body");
}

#[test]
fn frames_that_only_a_node_sends_end_the_connection() {
    for body in [Body::Response(vec![].into()), Body::Item(vec![].into()), Body::End(End {})] {
        is_closed(&frame(1, body), "only a node");
    }
    is_closed(&frame(0, Body::Request(Request { method: 1, ..Request::default() })), "call 0");
}

#[test]
fn a_request_whose_lists_take_more_memory_than_a_client_may_have_is_refused_before_it_is_decoded() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let addresses = vec![String::new(); 1_000_000];
    let error =
        world.call(client, &ConnectPeerRequest { addresses, ..Default::default() }).expect_err("two bytes each");
    assert!(error.code == Code::ResourceExhausted && error.message.contains("8388608"), "{error}");
    let platform =
        Some(Platform { id: "p".into(), capabilities: vec![String::new(); 1_000_000], ..Default::default() });
    assert_eq!(code(world.call(client, &PutPlatformRequest { platform })), Code::ResourceExhausted);
    world.call(client, &GetStatusRequest {}).expect("the connection goes on");
}

#[test]
fn a_call_id_used_twice_ends_the_connection() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let request = frame(5, Body::Request(Request { method: 4, ..Request::default() }));
    world.send(client, &request);
    world.send(client, &request);
    assert!(world.last_words(client).expect("told why").message.contains("call 5"));
    assert!(!world.is_open(client));
}

#[test]
fn a_finished_call_id_may_be_used_again() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let request = frame(5, Body::Request(Request { method: 1, ..Request::default() }));
    for _ in 0..3 {
        world.send(client, &request);
        world.answer::<GetStatusRequest>(client, 5).expect("answered").expect("status");
    }
}

#[test]
fn a_preface_that_is_none_ends_the_connection() {
    for bytes in [&b"get / HTTP/1.1\r\n"[..], b"\0peat/2\n", b"\0p\xff"] {
        let mut world = World::new();
        let client = world.open(ROOT);
        world.send(client, bytes);
        assert!(!world.is_open(client));
        // The error is sent in a frame only if the first byte is that of the preface.
        assert_eq!(world.last_words(client).is_some(), bytes[0] == 0);
        others_are_served(&mut world);
    }
}

#[test]
fn bytes_may_come_one_by_one() {
    let mut world = World::new();
    let client = world.open(ROOT);
    let mut bytes = PREFACE.to_vec();
    put_request(&mut bytes, 1, RequestHeader { method: 1, ..RequestHeader::default() }, &GetStatusRequest {});
    for byte in bytes {
        world.send(client, &[byte]);
    }
    world.answer::<GetStatusRequest>(client, 1).expect("answered").expect("status");
}

#[test]
fn a_method_that_does_not_exist_is_unimplemented() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for (call, method) in [(1, 0), (2, 28), (3, u32::MAX)] {
        world.send(client, &frame(call, Body::Request(Request { method, ..Request::default() })));
        assert_eq!(code(world.answer::<GetStatusRequest>(client, call).expect("answered")), Code::Unimplemented);
    }
    world.call(client, &GetStatusRequest {}).expect("the connection goes on");
}

#[test]
fn a_payload_that_is_not_the_methods_message_is_refused() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for (call, payload) in [(1, &b"\x0a\x02\xff\xfe"[..]), (2, b"\x0a\x7f"), (3, b"\xff\xff")] {
        let request = Request { method: 6, payload: payload.to_vec().into(), ..Request::default() };
        world.send(client, &frame(call, Body::Request(request)));
        assert_eq!(code(world.answer::<GetDocumentRequest>(client, call).expect("answered")), Code::InvalidArgument);
    }
    world.call(client, &GetStatusRequest {}).expect("the connection goes on");
}

#[test]
fn garbage_of_any_kind_ends_at_most_its_own_connection() {
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed.to_le_bytes()[0]
    };
    let mut world = World::new();
    for _ in 0..200 {
        let client = world.connect(ROOT);
        let bytes: Vec<u8> = (0..300).map(|_| next()).collect();
        world.send(client, &bytes);
    }
    others_are_served(&mut world);
}

#[test]
fn who_says_nothing_for_ten_seconds_is_closed() {
    let mut world = World::new();
    let (silent, greeted, served) = (world.open(ROOT), world.connect(ROOT), world.connect(ROOT));
    world.call(served, &GetStatusRequest {}).expect("status");
    world.wait(Duration::from_secs(10));
    assert!(!world.is_open(silent) && !world.is_open(greeted));
    assert_eq!(world.last_words(greeted).expect("told why").code, Code::DeadlineExceeded);
    assert!(world.clients[&silent].frames.is_empty(), "what it speaks is not known");
    assert!(world.is_open(served));
}

#[test]
fn a_connection_on_which_nothing_is_under_way_ends_and_a_subscription_does_not() {
    let mut world = World::new();
    let (idle, subscribed, busy) = (world.connect(ROOT), world.connect(ROOT), world.connect(ROOT));
    world.call(idle, &GetStatusRequest {}).expect("status");
    world.start(subscribed, &SubscribeRequest::default());
    for _ in 0..3 {
        world.call(busy, &GetStatusRequest {}).expect("status");
        world.wait(CLIENT_IDLE - Duration::from_secs(1));
    }
    assert!(!world.is_open(idle) && world.is_open(busy));
    world.wait(Duration::from_secs(100_000));
    assert!(world.is_open(subscribed) && !world.is_open(busy));
    let watcher = world.connect(Caller::Watcher);
    world.call(watcher, &GetStatusRequest {}).expect("status");
    world.wait(Duration::from_secs(100_000));
    assert!(world.is_open(watcher), "the node's own is no guest");
}

#[test]
fn half_a_frame_is_waited_for_thirty_seconds() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.call(client, &GetStatusRequest {}).expect("status");
    world.send(client, &[10, 8]);
    world.wait(Duration::from_secs(20));
    world.send(client, &[9]);
    world.wait(Duration::from_millis(9_999));
    assert!(world.is_open(client));
    world.wait(Duration::from_millis(1));
    assert!(!world.is_open(client), "a byte now and then does not help");
}

#[test]
fn a_thousand_idle_connections_leave_room_for_another() {
    let mut world = World::new();
    let idle: Vec<ConnectionId> = (0..1_000).map(|_| world.connect(ROOT)).collect();
    for client in &idle {
        world.call(*client, &GetStatusRequest {}).expect("status");
    }
    world.wait(CLIENT_IDLE - Duration::from_secs(1));
    assert!(idle.iter().all(|client| world.is_open(*client)));
    others_are_served(&mut world);
}

#[test]
fn a_reply_read_one_byte_a_minute_ends_its_connection() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let put = PutDocumentRequest {
        collection: "notes".into(),
        doc_id: "a".into(),
        json_data: format!("{{\"a\":\"{}\"}}", "x".repeat(100_000)),
        ..PutDocumentRequest::default()
    };
    world.call(client, &put).expect("put");
    world.clients.get_mut(&client).expect("connected").takes = 1;
    world.start(client, &GetDocumentRequest { collection: "notes".into(), doc_id: "a".into() });
    world.wait(Duration::from_secs(29));
    assert!(world.is_open(client));
    world.take_bytes(client, 1);
    world.wait(Duration::from_secs(1));
    assert!(!world.is_open(client));
    others_are_served(&mut world);
}

#[test]
fn a_client_that_is_gone_takes_its_calls_with_it() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.start(client, &ListPeersRequest::default());
    world.start(client, &SubscribeRequest::default());
    world.engine.handle_closed(world.now, client);
    world.sync_answers(Ok(crate::sync::Answer::Peers(Vec::new())));
    others_are_served(&mut world);
    assert_eq!(world.engine.connections(), 1);
}

//! Limits under load: what is over one is told so, and what is under it goes on.

use peat_ipc::frame::{RequestHeader, put_request};
use peat_ipc::sidecar::*;
use peat_ipc::{Code, PREFACE, Rpc};

use super::{ROOT, World, code};
use crate::api::ConnectionId;
use crate::limits::{CLIENT_CONNECTIONS, CONNECTION_CALLS, CONNECTION_OUT_BYTES, STORE_QUEUE};

fn put(id: &str) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: "tracks".into(),
        doc_id: id.into(),
        json_data: "{}".into(),
        ..PutDocumentRequest::default()
    }
}

fn pipelined<R: Rpc>(calls: std::ops::Range<u64>, request: &R) -> Vec<u8> {
    let mut bytes = Vec::new();
    for call in calls {
        let header = RequestHeader { method: R::METHOD.number(), ..RequestHeader::default() };
        put_request(&mut bytes, call, header, request);
    }
    bytes
}

#[test]
fn a_connection_over_the_limit_is_told_so() {
    let mut world = World::new();
    for _ in 0..CLIENT_CONNECTIONS {
        world.connect(ROOT);
    }
    let refused = world.engine.handle_open(world.now, ConnectionId(9_999), ROOT).expect_err("full");
    let (call, _) =
        peat_ipc::frame::decode(&refused.last_words[peat_ipc::frame::locate(&refused.last_words).unwrap().unwrap()])
            .expect("a frame");
    assert_eq!(call, 0);
    world.engine.handle_closed(world.now, ConnectionId(1));
    world.engine.handle_open(world.now, ConnectionId(10_000), ROOT).expect("there is room again");
}

#[test]
fn a_call_over_the_limit_fails_alone() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let calls = CONNECTION_CALLS as u64;
    world.send(client, &pipelined(1..calls + 1, &SubscribeRequest::default()));
    world.clients.get_mut(&client).expect("connected").last_call = calls;
    assert_eq!(code(world.call(client, &GetStatusRequest {})), Code::ResourceExhausted);
    assert!(world.is_open(client));
}

#[test]
fn thirty_two_calls_in_flight_are_all_answered() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.send(client, &pipelined(1..33, &GetStatusRequest {}));
    for call in 1..33 {
        world.answer::<GetStatusRequest>(client, call).expect("answered").expect("status");
    }
}

#[test]
fn answers_nobody_takes_stop_the_reading_and_nothing_is_lost() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let large = PutDocumentRequest { json_data: format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000)), ..put("large") };
    world.call(client, &large).expect("put");
    world.clients.get_mut(&client).expect("connected").takes = 0;
    let get = GetDocumentRequest { collection: "tracks".into(), doc_id: "large".into() };
    world.send(client, &pipelined(2..22, &get));
    assert!(!world.engine.wants_bytes(client));
    let waiting = world.engine.output(client).len();
    assert!((CONNECTION_OUT_BYTES..CONNECTION_OUT_BYTES + (2 << 20)).contains(&waiting), "{waiting}");
    world.take_bytes(client, usize::MAX);
    for call in 2..22 {
        world.answer::<GetDocumentRequest>(client, call).expect("answered").expect("document");
    }
    assert!(world.engine.wants_bytes(client));
}

#[test]
fn a_full_store_queue_holds_a_write_back_and_loses_none() {
    let mut world = World::new();
    world.store_runs = false;
    let per_client = 200;
    let clients: Vec<ConnectionId> = (0..6).map(|_| world.connect(ROOT)).collect();
    for (number, client) in clients.iter().enumerate() {
        world.send(*client, &pipelined(1..per_client + 1, &put(&format!("d{number}"))));
    }
    assert_eq!(world.queued.len(), STORE_QUEUE);
    assert!(!world.engine.wants_bytes(clients[5]));
    world.store_runs = true;
    world.run();
    for client in &clients {
        for call in 1..per_client + 1 {
            world.answer::<PutDocumentRequest>(*client, call).expect("answered").expect("written");
        }
        assert!(world.engine.wants_bytes(*client));
    }
}

#[test]
fn unfinished_requests_of_all_clients_together_are_bounded() {
    let mut world = World::new();
    let clients: Vec<ConnectionId> = (0..20).map(|_| world.open(ROOT)).collect();
    let mut begun = PREFACE.to_vec();
    begun.extend_from_slice(&[0xff, 0xff, 0xff, 0x01]);
    begun.resize(4_000_000, 0x61);
    for client in &clients {
        world.send(*client, &begun);
    }
    let open = clients.iter().filter(|client| world.is_open(**client)).count();
    assert_eq!(open, 16, "64 MiB hold 16 of them");
    let error = world.last_words(clients[19]).expect("told why");
    assert_eq!(error.code, Code::ResourceExhausted);
    let other = world.connect(ROOT);
    world.call(other, &GetStatusRequest {}).expect("a small request is served all the same");
}

#[test]
fn an_answer_over_a_frame_is_refused_with_the_remedy() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    for number in 0..5 {
        let name = "x".repeat(900_000);
        let platform = Platform { id: format!("p{number}"), name, ..Platform::default() };
        world.call(client, &PutPlatformRequest { platform: Some(platform) }).expect("put");
    }
    let error = world.call(client, &GetPlatformsRequest {}).expect_err("too large");
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("Subscribe"), "{error}");
}

#[test]
fn shutting_down_tells_every_client() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    world.start(client, &SubscribeRequest::default());
    world.engine.handle_shutdown(world.now);
    world.run();
    assert_eq!(world.last_words(client).expect("told").code, Code::Unavailable);
    assert!(!world.is_open(client));
    world.engine.handle_open(world.now, ConnectionId(77), ROOT).expect_err("nobody is let in any more");
}

//! Limits under load: requests over a limit get an error that names it, and the others continue.

use peat_ipc::envelope::frame::Body;
use peat_ipc::frame::{RequestHeader, put_request};
use peat_ipc::sidecar::*;
use peat_ipc::{Code, PREFACE, Rpc};

use super::{ROOT, World, code};
use crate::api::{Caller, ConnectionId, SYNC_OUTSTANDING};
use crate::limits::{
    CLIENT_CONNECTIONS, CONNECTION_CALLS, CONNECTION_OUT_BYTES, HEALTH_CONNECTION, HEALTH_CONNECTIONS, STORE_QUEUE,
};

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

fn user(uid: u32) -> Caller {
    Caller::Unix { uid, gid: uid, groups: Vec::new() }
}

/// Opens `count` connections that have made one call each and are silent since.
fn crowd(world: &mut World, caller: &Caller, count: usize) -> Vec<ConnectionId> {
    let connect = |_| {
        let id = world.connect(caller.clone());
        world.start(id, &GetStatusRequest {});
        id
    };
    (0..count).map(connect).collect()
}

#[test]
fn a_connection_over_the_limit_is_told_so() {
    let mut world = World::new();
    let crowd = crowd(&mut world, &ROOT, CLIENT_CONNECTIONS);
    let late = world.connect(ROOT);
    assert!(world.clients[&late].frames.is_empty(), "it has not asked for anything");
    let error = world.call(late, &ListAgentsRequest::default()).expect_err("no room");
    assert_eq!(error.code, Code::ResourceExhausted);
    assert!(error.message.contains("1024 connections"), "{error}");
    world.call(late, &GetHealthRequest::default()).expect("health is always answered");
    world.wait(HEALTH_CONNECTION);
    assert!(!world.is_open(late));
    world.engine.handle_closed(world.now, crowd[0]);
    let other = world.connect(ROOT);
    world.call(other, &ListAgentsRequest::default()).expect("there is room again");
}

#[test]
fn connections_of_one_user_leave_room_for_others_for_admins_and_for_health() {
    for crowding in [user(1000), Caller::Tcp] {
        let mut world = World::new();
        crowd(&mut world, &crowding, CLIENT_CONNECTIONS + 1);
        let over = world.connect(crowding.clone());
        let error = world.call(over, &ListAgentsRequest::default()).expect_err("over its share");
        assert!(error.message.contains("share"), "{error}");
        world.call(over, &GetHealthRequest::default()).expect("health");
        for caller in [ROOT, user(1001)] {
            let other = world.connect(caller);
            world.call(other, &ListAgentsRequest::default()).expect("served");
        }
    }
}

#[test]
fn all_users_together_leave_room_for_admins() {
    let mut world = World::new();
    for uid in 1000..1010 {
        crowd(&mut world, &user(uid), CLIENT_CONNECTIONS);
    }
    crowd(&mut world, &Caller::Tcp, CLIENT_CONNECTIONS);
    let late = world.connect(user(1011));
    let error = world.call(late, &ListAgentsRequest::default()).expect_err("full");
    assert!(error.message.contains("administrators"), "{error}");
    for _ in 0..100 {
        let admin = world.connect(ROOT);
        world.call(admin, &ListAgentsRequest::default()).expect("served");
    }
}

#[test]
fn connections_for_health_make_way_for_each_other() {
    let mut world = World::new();
    let crowd = crowd(&mut world, &user(1000), CLIENT_CONNECTIONS);
    assert_eq!(world.engine.connections(), CLIENT_CONNECTIONS / 4 + HEALTH_CONNECTIONS);
    assert!(!world.is_open(crowd[CLIENT_CONNECTIONS / 4]) && world.is_open(crowd[0]));
    let asking = world.connect(user(1000));
    world.call(asking, &GetHealthRequest::default()).expect("the newest is served");
    world.wait(HEALTH_CONNECTION);
    assert_eq!(world.engine.connections(), CLIENT_CONNECTIONS / 4);
}

#[test]
fn subscriptions_of_one_user_leave_room_for_others_and_for_admins() {
    let mut world = World::new();
    let clients: Vec<ConnectionId> = (0..8).map(|_| world.connect(user(1000))).collect();
    for client in &clients {
        world.send(*client, &pipelined(1..129, &SubscribeRequest::default()));
        world.clients.get_mut(client).expect("connected").last_call = 128;
    }
    let subscribe = |world: &mut World, client| {
        let call = world.start(client, &SubscribeRequest::default());
        world.take(client, call)
    };
    assert!(
        matches!(subscribe(&mut world, clients[7]), Some(Body::Error(error)) if error.message.contains("user 1000"))
    );
    for caller in [ROOT, user(1001)] {
        let other = world.connect(caller);
        assert_eq!(subscribe(&mut world, other), None, "begun");
    }
    world.engine.handle_closed(world.now, clients[0]);
    assert_eq!(subscribe(&mut world, clients[7]), None, "there is room again");
}

#[test]
fn questions_to_the_sync_thread_of_one_user_leave_room_for_admins() {
    let mut world = World::new();
    let client = world.connect(user(1000));
    let waits = PutDocumentRequest { wait_peers: 1, ..put("a") };
    world.send(client, &pipelined(1..200, &waits));
    assert_eq!(world.asked.len(), SYNC_OUTSTANDING / 4);
    let admin = world.connect(ROOT);
    world.start(admin, &ListPeersRequest::default());
    assert_eq!(world.asked.len(), SYNC_OUTSTANDING / 4 + 1);
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

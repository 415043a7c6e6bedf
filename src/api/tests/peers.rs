//! Control requests to the sync engine, and writes that wait for peers.

use std::time::Duration;

use peat_ipc::Code;
use peat_ipc::frame::{RequestHeader, put_cancel};
use peat_ipc::sidecar::*;

use super::{ROOT, World, code};
use crate::identity::EndpointId;
use crate::sync::{Answer, Control, ControlError, Peer, Stats, Traffic};

fn put_waiting(peers: u32) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: "tracks".into(),
        doc_id: "t".into(),
        json_data: "{}".into(),
        wait_peers: peers,
        ..PutDocumentRequest::default()
    }
}

#[test]
fn a_put_that_waits_for_peers_is_answered_when_they_have_it() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = world.start(client, &put_waiting(2));
    assert!(world.take(client, call).is_none());
    assert!(matches!(world.asked[0].control, Control::WaitPeers { peers: 2, sequence: 1, .. }));
    world.sync_answers(Ok(Answer::Done));
    let response = world.answer::<PutDocumentRequest>(client, call).expect("answered").expect("confirmed");
    assert!(response.durable);
    assert!(world.asked.is_empty(), "what was answered is not abandoned");
}

#[test]
fn a_write_stands_when_its_peers_do_not_confirm_it_in_time() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = world.start(client, &put_waiting(1));
    world.wait(Duration::from_millis(9_999));
    assert!(world.take(client, call).is_none());
    world.wait(Duration::from_millis(1));
    let error = world.answer::<PutDocumentRequest>(client, call).expect("answered").expect_err("too late");
    assert_eq!(error.code, Code::DeadlineExceeded);
    assert!(error.message.contains("the write stands"), "{error}");
    assert!(matches!(world.asked[1].control, Control::Abandon { .. }));
    let read = GetDocumentRequest { collection: "tracks".into(), doc_id: "t".into() };
    assert!(world.call(client, &read).expect("get").json_data.is_some());
}

#[test]
fn the_clients_deadline_replaces_the_default() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let header = RequestHeader { deadline_ms: 50, ..RequestHeader::default() };
    let call = world.start_with(client, &put_waiting(1), header);
    world.wait(Duration::from_millis(50));
    assert_eq!(code(world.answer::<PutDocumentRequest>(client, call).expect("answered")), Code::DeadlineExceeded);
}

#[test]
fn cancelling_a_wait_is_immediate_and_nothing_more_is_sent_for_it() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = world.start(client, &put_waiting(1));
    let mut bytes = Vec::new();
    put_cancel(&mut bytes, call);
    world.send(client, &bytes);
    assert!(matches!(world.asked[1].control, Control::Abandon { .. }));
    world.sync_answers(Ok(Answer::Done));
    assert!(world.take(client, call).is_none());
}

#[test]
fn peers_are_listed_by_id() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let call = world.start(client, &ListPeersRequest::default());
    let peer = |byte| Peer {
        id: EndpointId([byte; 32]),
        addresses: vec!["10.0.0.1:4242".into()],
        connected: true,
        path: Some("direct"),
        path_reason: "direct is preferred".into(),
        rtt_micros: 40,
        last_ack_age_ms: 1,
        pending_documents: 2,
        held_documents: 3,
        clock_skew_ms: -3,
        last_error: String::new(),
        name: String::new(),
        traffic: Traffic::default(),
    };
    world.sync_answers(Ok(Answer::Peers(vec![peer(9), peer(1)])));
    let peers = world.answer::<ListPeersRequest>(client, call).expect("answered").expect("peers").peers;
    assert!(peers.iter().map(|peer| peer.endpoint_id.clone()).eq(["01".repeat(32), "09".repeat(32)]));
    assert_eq!((peers[0].path.as_str(), peers[0].clock_skew_ms), ("direct", -3));
}

#[test]
fn connecting_names_what_is_wrong() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let bad = ConnectPeerRequest { endpoint_id: "zz".into(), ..ConnectPeerRequest::default() };
    let error = world.call(client, &bad).expect_err("no id");
    assert!(error.message.starts_with("endpoint_id:"), "{error}");
    let request = ConnectPeerRequest {
        endpoint_id: "01".repeat(32),
        relay_url: "relay:r:1".into(),
        ..ConnectPeerRequest::default()
    };
    let call = world.start(client, &request);
    assert!(matches!(&world.asked[0].control, Control::Connect { addresses, .. } if addresses == &["relay:r:1"]));
    world.sync_answers(Err(ControlError::NoAddress(EndpointId([1; 32]))));
    assert_eq!(code(world.answer::<ConnectPeerRequest>(client, call).expect("answered")), Code::FailedPrecondition);
}

#[test]
fn a_caller_that_waits_for_a_peer_hears_the_reason_before_its_deadline() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let request = ConnectPeerRequest { endpoint_id: "01".repeat(32), wait: true, ..ConnectPeerRequest::default() };
    for (deadline_ms, expected) in [(9_000, 8_500), (1_000, 800), (0, 59_500)] {
        let call = world.start_with(client, &request, RequestHeader { deadline_ms, ..RequestHeader::default() });
        let wait = match &world.asked[0].control {
            Control::Connect { wait: Some(wait), .. } => wait.as_millis(),
            other => panic!("{other:?}"),
        };
        assert_eq!(wait, expected);
        world.sync_answers(Err(ControlError::NotAdmitted(EndpointId([1; 32]), "no answer".into())));
        let error = world.answer::<ConnectPeerRequest>(client, call).expect("answered").expect_err("in vain");
        assert!(error.code == Code::DeadlineExceeded && error.message.contains("no answer"), "{error}");
    }
    world.start(client, &ConnectPeerRequest { wait: false, ..request });
    assert!(matches!(world.asked[0].control, Control::Connect { wait: None, .. }));
}

#[test]
fn sync_is_started_stopped_and_counted() {
    let mut world = World::new();
    let client = world.connect(ROOT);
    let stop = world.start(client, &StopSyncRequest {});
    world.sync_answers(Ok(Answer::Done));
    world.answer::<StopSyncRequest>(client, stop).expect("answered").expect("stopped");
    let start = world.start(client, &StartSyncRequest {});
    world.sync_answers(Ok(Answer::Done));
    world.answer::<StartSyncRequest>(client, start).expect("answered").expect("started");
    let stats = world.start(client, &GetSyncStatsRequest {});
    world.sync_answers(Ok(Answer::Stats(Stats { active: true, bytes_sent: 7, ..Stats::default() })));
    let stats = world.answer::<GetSyncStatsRequest>(client, stats).expect("answered").expect("counted");
    assert_eq!((stats.sync_active, stats.bytes_sent), (true, 7));
}

#[test]
fn more_questions_than_the_sync_thread_may_owe_are_refused() {
    let mut world = World::new();
    let clients = [world.connect(ROOT), world.connect(ROOT)];
    for number in 0..crate::api::SYNC_OUTSTANDING {
        world.start(clients[number % 2], &ListPeersRequest::default());
    }
    assert_eq!(code(world.call(clients[0], &ListPeersRequest::default())), Code::ResourceExhausted);
    world.sync_answers(Ok(Answer::Peers(Vec::new())));
    let call = world.start(clients[0], &ListPeersRequest::default());
    assert!(world.take(clients[0], call).is_none());
}

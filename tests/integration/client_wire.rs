//! The client half of `docs/wire.md`: checks its examples against the bytes of peat-ipc and its tables against the code.

use peat_ipc::agent::{
    AgentMessage, Heartbeat, HeartbeatAck, NodeMessage, Register, Registered, agent_message, node_message,
};
use peat_ipc::frame::{self, RequestHeader};
use peat_ipc::method::AGENT_LINK;
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use peat_ipc::{CallError, Code, Method, PREFACE};

use crate::wire::example;

fn assert_example(name: &str, write: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = Vec::new();
    write(&mut bytes);
    assert_eq!(example(name), bytes, "example {name} in docs/wire.md");
}

fn header(method: Method) -> RequestHeader<'static> {
    RequestHeader { method: method.number(), ..RequestHeader::default() }
}

#[test]
fn a_unary_call_is_as_the_page_shows() {
    assert_example("client-get-status", |out| {
        out.extend_from_slice(&PREFACE);
        frame::put_request(out, 1, header(Method::GetStatus), &GetStatusRequest {});
    });
    let status = GetStatusResponse {
        node_id: "n1".into(),
        endpoint_addr: "4".repeat(64),
        sync_active: true,
        connected_peers: 0,
        phase: NodePhase::Ready.into(),
        ..GetStatusResponse::default()
    };
    assert_example("client-status", |out| {
        frame::put_response(out, 1, status.encoded_len(), |out| status.encode_raw(out));
    });
}

#[test]
fn a_deadline_and_an_empty_answer_are_as_the_page_shows() {
    let request = GetDocumentRequest { collection: "notes".into(), doc_id: "a".into() };
    let header = RequestHeader { deadline_ms: 500, ..header(Method::GetDocument) };
    assert_example("client-get-document", |out| frame::put_request(out, 2, header, &request));
    assert_example("client-not-found", |out| frame::put_response(out, 2, 0, |_| ()));
}

#[test]
fn a_stream_is_as_the_page_shows() {
    let request = SubscribeRequest { snapshot: true, ..SubscribeRequest::default() };
    let header = RequestHeader { credit: 256, ..header(Method::Subscribe) };
    assert_example("client-subscribe", |out| frame::put_request(out, 3, header, &request));
    let end = DocumentChange {
        change_type: ChangeType::SnapshotEnd.into(),
        sequence: 7,
        run: vec![0x5a; 16],
        ..DocumentChange::default()
    };
    assert_example("client-snapshot-end", |out| {
        frame::put_item(out, 3, end.encoded_len(), |out| end.encode_raw(out));
    });
    assert_example("client-credit", |out| frame::put_credit(out, 3, 128));
    assert_example("client-cancel", |out| frame::put_cancel(out, 3));
}

#[test]
fn an_agents_stream_is_as_the_page_shows() {
    let register = agent_message::Body::Register(Register { agent_id: "a1".into(), ..Register::default() });
    let first = AgentMessage { body: Some(register) };
    let header = RequestHeader { method: AGENT_LINK, credit: 64, ..RequestHeader::default() };
    assert_example("client-register", |out| frame::put_request(out, 5, header, &first));
    let registered = Registered {
        heartbeat_interval_ms: 30_000,
        stale_after_ms: 90_000,
        dead_after_ms: 300_000,
        node_public_key: vec![0xd1; 32],
        node_id: "n1".into(),
        ..Registered::default()
    };
    let beat = agent_message::Body::Heartbeat(Heartbeat { number: 7, state: None });
    assert_example("client-heartbeat", |out| frame::put_upload(out, 5, &AgentMessage { body: Some(beat) }));
    for (name, body) in [
        ("client-registered", node_message::Body::Registered(registered)),
        ("client-heartbeat-ack", node_message::Body::HeartbeatAck(HeartbeatAck { number: 7 })),
    ] {
        let message = NodeMessage { body: Some(body) };
        assert_example(name, |out| frame::put_item(out, 5, message.encoded_len(), |out| message.encode_raw(out)));
    }
}

#[test]
fn an_error_is_as_the_page_shows() {
    let error = CallError::new(Code::Unimplemented, "no");
    assert_example("client-error", |out| frame::put_error(out, 4, &error));
}

#[test]
fn the_pages_tables_are_the_codes() {
    let page = include_str!("../../docs/wire.md");
    for method in Method::ALL {
        let kind = if method.is_stream() { "stream" } else { "unary" };
        let row = format!("| {} | {} | {kind} |", method.number(), method.name());
        assert!(page.contains(&row), "docs/wire.md lacks {row}");
    }
    for code in Code::ALL {
        let row = format!("| {} | {} |", code.number(), code.name());
        assert!(page.contains(&row), "docs/wire.md lacks {row}");
    }
}

//! The Connect protocol over HTTP/1.1.

use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use serde_json::{Value, json};

use super::{Answer, ROOT, World, post};
use crate::api::{Caller, ConnectionId};

fn path(method: &str) -> String {
    format!("/peat.sidecar.v1.PeatSidecar/{method}")
}

fn call(world: &mut World, client: ConnectionId, method: &str, body: &str) -> Answer {
    world.ask(client, &post(&path(method), "application/json", body))
}

fn body(answer: &Answer) -> Value {
    serde_json::from_str(answer.text()).expect("JSON")
}

/// Takes the first envelope; returns its flags and content.
fn envelope(bytes: &mut Vec<u8>) -> Option<(u8, Value)> {
    let (head, rest) = bytes.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    let value = serde_json::from_slice(rest.get(..length)?).expect("JSON");
    let flags = head[0];
    bytes.drain(..5 + length);
    Some((flags, value))
}

fn wrapped(text: &str) -> String {
    let length = u32::try_from(text.len()).expect("short").to_be_bytes();
    let head: String = [0].iter().chain(&length).map(|byte| char::from(*byte)).collect();
    head + text
}

#[test]
fn a_document_is_put_and_read_in_json() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let put = call(
        &mut world,
        client,
        "PutDocument",
        r#"{"collection":"c","doc_id":"a","jsonData":"{\"x\":1}","unknown":7}"#,
    );
    assert_eq!((put.status, put.header("content-type")), (200, Some("application/json")), "{}", put.text());
    assert_eq!(body(&put)["durable"], true);
    let found = call(&mut world, client, "GetDocument", r#"{"collection":"c","docId":"a"}"#);
    assert_eq!(body(&found)["jsonData"], r#"{"x":1}"#);
    let missing = call(&mut world, client, "GetDocument", r#"{"collection":"c","docId":"b"}"#);
    assert_eq!((missing.status, missing.text()), (200, "{}"));
}

#[test]
fn the_same_in_protobuf() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let request = ListDocumentsRequest { collection: "c".into() };
    let text = String::from_utf8(request.encode_to_vec()).expect("ASCII");
    let answer = world.ask(client, &post(&path("ListDocuments"), "application/proto", &text));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/proto")));
    assert_eq!(
        ListDocumentsResponse::decode(answer.body.as_slice()).expect("a message"),
        ListDocumentsResponse::default()
    );
}

#[test]
fn errors_have_a_status_a_code_and_words() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    for (method, request, status, code) in [
        ("GetDocument", r#"{"collection":"","docId":"a"}"#, 400, "invalid_argument"),
        ("GetDocument", r#"{"collection":7}"#, 400, "invalid_argument"),
        ("GetDocument", "{", 400, "invalid_argument"),
        ("CancelCommand", r#"{"id":"none"}"#, 404, "not_found"),
        ("NoSuchMethod", "{}", 404, "unimplemented"),
    ] {
        let answer = call(&mut world, client, method, request);
        assert_eq!((answer.status, body(&answer)["code"].as_str()), (status, Some(code)), "{method} {request}");
        assert!(!body(&answer)["message"].as_str().expect("words").is_empty());
    }
    assert!(world.is_open(client));
}

#[test]
fn what_nobody_speaks_is_refused_by_status() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let mut status = |request: &str| world.ask(client, request).status;
    assert_eq!(status(&post(&path("GetStatus"), "text/plain", "{}")), 415);
    assert_eq!(status(&post(&path("GetStatus"), "application/connect+json", "{}")), 415);
    assert_eq!(status(&post(&path("Subscribe"), "application/json", "{}")), 415);
    assert_eq!(status(&super::get(&path("GetStatus"))), 405);
    assert_eq!(status(&post(&path("GetStatus"), "application/grpc", "")), 505);
    assert_eq!(status(&post("/peat.agent.v1.AgentLink/Connect", "application/connect+json", "")), 505);
    let version = post(&path("GetStatus"), "application/json", "{}")
        .replace("\r\n\r\n", "\r\nConnect-Protocol-Version: 2\r\n\r\n");
    assert_eq!(status(&version), 400);
    let coding =
        post(&path("GetStatus"), "application/json", "{}").replace("\r\n\r\n", "\r\nContent-Encoding: br\r\n\r\n");
    assert_eq!(status(&coding), 501);
}

#[test]
fn a_subscription_is_envelopes_until_it_ends() {
    let mut world = World::new();
    let (reader, writer) = (world.browse(ROOT), world.connect(ROOT));
    let request = post(&path("Subscribe"), "application/connect+json", &wrapped(r#"{"snapshot":true}"#));
    let mut head = world.ask(reader, &request);
    assert_eq!((head.status, head.header("content-type")), (200, Some("application/connect+json")));
    let end = envelope(&mut head.body).expect("the end of the snapshot");
    assert_eq!((end.0, &end.1["changeType"]), (0, &json!("CHANGE_TYPE_SNAPSHOT_END")));
    let put =
        PutDocumentRequest { collection: "c".into(), doc_id: "a".into(), json_data: "{}".into(), ..Default::default() };
    world.call(writer, &put).expect("put");
    let (mut changes, _) = super::chunks(world.clients[&reader].text.as_ref().expect("HTTP"));
    let (flags, change) = envelope(&mut changes).expect("a change");
    assert_eq!((flags, &change["docId"], &change["changeType"]), (0, &json!("a"), &json!("CHANGE_TYPE_UPSERT")));
    assert!(change["sequence"].is_string());
    world.engine.handle_shutdown(world.now);
    world.run();
    let (mut all, _) = super::chunks(world.clients[&reader].text.as_ref().expect("HTTP"));
    let last = std::iter::from_fn(|| envelope(&mut all)).last().expect("an end");
    assert_eq!((last.0, &last.1["error"]["code"]), (2, &json!("unavailable")));
}

#[test]
fn a_subscription_that_cannot_begin_ends_with_its_error() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let request = wrapped(r#"{"resumeAfter":"7"}"#);
    let mut answer = world.ask(client, &post(&path("Subscribe"), "application/connect+json", &request));
    let (flags, end) = envelope(&mut answer.body).expect("an end");
    assert_eq!((answer.status, flags, &end["error"]["code"]), (200, 2, &json!("invalid_argument")));
    assert_eq!(call(&mut world, client, "GetStatus", "{}").status, 200, "the connection goes on");
}

#[test]
fn a_subscriber_who_reads_nothing_costs_a_bounded_buffer() {
    let mut world = World::new();
    let (reader, writer) = (world.browse(ROOT), world.connect(ROOT));
    world.ask(reader, &post(&path("Subscribe"), "application/connect+json", &wrapped("{}")));
    world.clients.get_mut(&reader).expect("connected").takes = 0;
    let text = format!(r#"{{"x":"{}"}}"#, "y".repeat(10_000));
    for number in 0..100 {
        let doc_id = number.to_string();
        let put =
            PutDocumentRequest { collection: "tracks".into(), doc_id, json_data: text.clone(), ..Default::default() };
        world.call(writer, &put).expect("put");
    }
    assert!(world.engine.output(reader).len() < 128 << 10);
    world.wait(std::time::Duration::from_secs(40));
    assert!(!world.is_open(reader), "nobody waits for ever");
}

#[test]
fn a_deadline_ends_a_subscription() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let request = post(&path("Subscribe"), "application/connect+json", &wrapped("{}"));
    let mut head = world.ask(client, &request.replace("\r\n\r\n", "\r\nConnect-Timeout-Ms: 1500\r\n\r\n"));
    assert_eq!(envelope(&mut head.body), None);
    world.wait(std::time::Duration::from_secs(2));
    let (mut rest, _) = super::chunks(world.clients[&client].text.as_ref().expect("HTTP"));
    assert_eq!(envelope(&mut rest).expect("an end").1["error"]["code"], "deadline_exceeded");
}

#[test]
fn a_large_answer_is_compressed_for_who_takes_that() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let text = serde_json::to_string(&format!(r#"{{"x":"{}"}}"#, "y".repeat(5000))).expect("JSON");
    call(&mut world, client, "PutDocument", &format!(r#"{{"collection":"c","docId":"a","jsonData":{text}}}"#));
    let request = post(&path("GetDocument"), "application/json", r#"{"collection":"c","docId":"a"}"#);
    assert_eq!(world.ask(client, &request).header("content-encoding"), None);
    let answer = world.ask(client, &request.replace("\r\n\r\n", "\r\nAccept-Encoding: br, gzip\r\n\r\n"));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    assert!(answer.body.len() < 1000);
}

#[test]
fn what_an_agent_may_not_do_is_denied_over_http_too() {
    let mut world = World::new();
    let client = world.browse(super::super::SOMEBODY);
    assert_eq!(call(&mut world, client, "GetStatus", "{}").status, 200);
    let denied = call(&mut world, client, "StopSync", "{}");
    assert_eq!((denied.status, body(&denied)["code"].as_str()), (403, Some("permission_denied")));
}

#[test]
fn a_caller_over_tcp_shows_the_token_as_a_bearer() {
    let mut world = World::new();
    let tcp_token = Some(crate::config::Secret::new(b"0123456789abcdef".to_vec()));
    world.reload(|settings| {
        settings.policy =
            crate::api::Policy { own_uid: 0, admin_group: None, tcp_token, insecure: false, open_documents: false };
    });
    let client = world.browse(Caller::Tcp);
    let request = post(&path("GetStatus"), "application/json", "{}");
    let refused = world.ask(client, &request);
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some("Bearer")));
    let shown = request.replace("\r\n\r\n", "\r\nAuthorization: Bearer 0123456789abcdef\r\n\r\n");
    assert_eq!(world.ask(client, &shown).status, 200);
    assert_eq!(world.ask(client, &super::get("/healthz")).status, 200, "probes have no token");
    assert_eq!(world.ask(client, &super::get("/nowhere")).status, 401);
}

#[test]
fn a_page_of_elsewhere_drives_nothing() {
    let mut world = World::new();
    let client = world.browse(Caller::Tcp);
    let request = post(&path("StopSync"), "application/json", "{}");
    for (host, more) in [("127.0.0.1:1", "\r\nOrigin: http://evil.example"), ("evil.example", "")] {
        let request = request.replace("localhost", host).replace("\r\n\r\n", &format!("{more}\r\n\r\n"));
        let answer = world.ask(client, &request);
        assert_eq!(answer.status, 403);
        assert!(!answer.head.contains("access-control"), "{}", answer.head);
    }
    assert!(world.asked.is_empty());
}

//! HTTP/1.1: heads, bodies, keep-alive, and rejected requests.

use std::time::Duration;

use super::{ROOT, World, get, post};
use crate::api::{Caller, ConnectionId};
use crate::config::Secret;
use crate::limits::{
    CLIENT_CONNECTIONS, CLIENT_IDLE, FRAME_STALL, HEALTH_CONNECTION, HTTP_BODY_BYTES, HTTP_HEAD_TIME,
    HTTP_PASSED_OVER_BYTES,
};

#[test]
fn one_connection_takes_request_after_request() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    for _ in 0..3 {
        let answer = world.ask(client, &get("/healthz"));
        assert_eq!((answer.status, answer.text()), (200, "ok\n"));
    }
    assert!(world.is_open(client));
}

#[test]
fn requests_sent_in_advance_are_answered_in_order() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    world.send(client, format!("{}{}{}", get("/healthz"), get("/nowhere"), get("/healthz")).as_bytes());
    let statuses: Vec<u16> = std::iter::from_fn(|| world.response(client)).map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 404, 200]);
}

#[test]
fn a_request_may_come_byte_by_byte() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    for byte in post("/healthz", "text/plain", "hello").bytes() {
        world.send(client, &[byte]);
    }
    let answer = world.response(client).expect("an answer");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET")));
}

#[test]
fn the_head_alone_has_no_body() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    world.send(client, get("/healthz").replace("GET", "HEAD").as_bytes());
    let text = world.clients[&client].text.clone().expect("HTTP");
    assert!(text.ends_with(b"content-length: 3\r\n\r\n"), "{}", text.escape_ascii());
}

#[test]
fn a_client_that_wants_to_end_is_let_go_after_the_answer() {
    for request in ["GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "GET /healthz HTTP/1.0\r\n\r\n"] {
        let mut world = World::new();
        let client = world.browse(ROOT);
        assert_eq!(world.ask(client, request).header("connection"), Some("close"));
        assert!(!world.is_open(client));
    }
}

#[test]
fn what_is_no_request_is_refused_and_ends_the_connection() {
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 99999999\r\n\r\n", 413),
    ] {
        let mut world = World::new();
        let client = world.browse(ROOT);
        let answer = world.ask(client, request);
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{request:?}");
        assert!(!world.is_open(client));
    }
}

#[test]
fn a_head_that_drips_in_is_not_waited_for() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let request = get("/healthz");
    for byte in request.bytes().take(20) {
        world.send(client, &[byte]);
        world.wait(Duration::from_millis(700));
    }
    assert_eq!(world.response(client).expect("told").status, 408);
    assert!(!world.is_open(client));
    assert!(HTTP_HEAD_TIME <= Duration::from_secs(14));
}

#[test]
fn a_connection_without_requests_ends() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    world.ask(client, &get("/healthz"));
    world.wait(CLIENT_IDLE - Duration::from_secs(1));
    assert!(world.is_open(client));
    world.wait(Duration::from_secs(2));
    assert!(!world.is_open(client));
}

#[test]
fn a_client_that_waits_for_a_word_gets_it() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    let request = post("/healthz", "text/plain", "hello").replace("\r\n\r\n", "\r\nExpect: 100-continue\r\n\r\n");
    let (head, body) = request.split_at(request.len() - 5);
    assert_eq!(world.ask(client, head).status, 100);
    assert_eq!(world.ask(client, body).status, 405);
}

/// Sends a request with a body of `bytes` bytes, in pieces.
fn send_body(world: &mut World, client: ConnectionId, path: &str, content_type: &str, bytes: usize) {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {content_type}\r\nContent-Length: {bytes}\r\n\r\n"
    );
    world.send(client, head.as_bytes());
    send_pieces(world, client, bytes);
}

fn send_pieces(world: &mut World, client: ConnectionId, bytes: usize) {
    let piece = vec![b'x'; 64 << 10];
    for at in (0..bytes).step_by(piece.len()) {
        world.send(client, &piece[..piece.len().min(bytes - at)]);
    }
}

#[test]
fn a_large_body_is_passed_over_and_then_refused_as_the_caller_speaks() {
    let put = "/peat.sidecar.v1.PeatSidecar/PutDocument";
    for (path, content_type, status, word) in [
        (put, "application/json", 413, r#""code":"resource_exhausted""#),
        (put, "application/proto", 413, r#""code":"resource_exhausted""#),
        (put, "application/grpc-web+proto", 200, "grpc-status: 8"),
        ("/api/v1/agents", "application/json", 413, r#""code":"resource_exhausted""#),
    ] {
        let mut world = World::new();
        let client = world.browse(ROOT);
        for bytes in [HTTP_BODY_BYTES + 1, 2 * HTTP_BODY_BYTES] {
            send_body(&mut world, client, path, content_type, bytes);
            let answer = world.response(client).expect("an answer");
            assert_eq!((answer.status, answer.header("connection")), (status, None), "{path} {content_type}");
            let text = String::from_utf8_lossy(&answer.body);
            assert!(text.contains(word) && text.contains("4194304"), "{text}");
            assert!(world.engine.wants_bytes(client));
        }
        assert_eq!(world.ask(client, &get("/healthz")).status, 200, "the connection goes on");
    }
}

#[test]
fn a_large_body_in_chunks_is_refused_alike() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    world.send(client, b"POST /api/v1/agents HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let chunk = [b"10000\r\n", &vec![b'x'; 0x10000][..], b"\r\n"].concat();
    (0..HTTP_BODY_BYTES / 0x10000 + 3).for_each(|_| world.send(client, &chunk));
    assert!(world.response(client).is_none(), "the client is still sending");
    world.send(client, b"0\r\n\r\n");
    assert_eq!(world.response(client).expect("an answer").status, 413);
    assert_eq!(world.ask(client, &get("/healthz")).status, 200);
}

#[test]
fn a_body_that_is_too_large_even_to_be_passed_over_is_refused_while_it_comes() {
    let mut world = World::new();
    world.keeps_sending = true;
    let client = world.browse(ROOT);
    let head = "POST /api/v1/agents HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n";
    world.send(client, head.as_bytes());
    send_pieces(&mut world, client, HTTP_PASSED_OVER_BYTES);
    let answer = world.response(client).expect("an answer");
    assert_eq!((answer.status, answer.header("connection")), (413, Some("close")));
    // If the node closed the socket while the client still sends, the client would not see the answer.
    assert!(!world.is_open(client), "shut for writing");
    for _ in 0..20 {
        assert!(world.engine.wants_bytes(client));
        send_pieces(&mut world, client, 64 << 10);
        world.wait(Duration::from_millis(1_500));
    }
    world.wait(Duration::from_secs(2));
    assert_eq!(world.engine.connections(), 0, "not for ever");
}

#[test]
fn a_client_that_ends_after_its_refusal_is_let_go_at_once() {
    let mut world = World::new();
    world.keeps_sending = true;
    let client = world.browse(ROOT);
    assert_eq!(world.ask(client, "GET / HTTP/1.1\r\n\r\n").status, 400);
    assert_eq!(world.engine.connections(), 1);
    world.engine.handle_closed(world.now, client);
    assert_eq!(world.engine.connections(), 0);
    let other = world.browse(ROOT);
    world.ask(other, "GET / HTTP/1.1\r\n\r\n");
    world.wait(Duration::from_secs(3));
    assert_eq!(world.engine.connections(), 0, "silence is not waited for long");
}

#[test]
fn a_body_that_does_not_come_is_answered_as_the_caller_speaks() {
    let put = "/peat.sidecar.v1.PeatSidecar/PutDocument";
    for (path, content_type, status, word) in [
        (put, "application/json", 408, r#""code":"deadline_exceeded""#),
        (put, "application/grpc-web+proto", 200, "grpc-status: 4"),
        ("/api/v1/agents", "application/json", 408, r#""code":"deadline_exceeded""#),
    ] {
        let mut world = World::new();
        let client = world.browse(ROOT);
        let request = post(path, content_type, "0123456789");
        world.send(client, &request.as_bytes()[..request.len() - 1]);
        world.wait(FRAME_STALL + Duration::from_secs(1));
        let answer = world.response(client).expect("an answer");
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")));
        let text = String::from_utf8_lossy(&answer.body);
        assert!(text.contains(word), "{text}");
        assert!(!world.is_open(client));
    }
}

#[test]
fn a_refusal_of_a_large_body_says_nothing_to_a_caller_without_the_token() {
    let mut world = World::new();
    world.reload(|reloaded| reloaded.policy.tcp_token = Some(Secret::new(b"0123456789abcdef".to_vec())));
    let client = world.browse(Caller::Tcp);
    send_body(&mut world, client, "/api/v1/agents", "application/json", HTTP_BODY_BYTES + 1);
    let answer = world.response(client).expect("an answer");
    assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some("Bearer")));
}

#[test]
fn the_health_of_a_node_without_room_for_another_connection_is_told() {
    let mut world = World::new();
    let crowd: Vec<ConnectionId> = (0..CLIENT_CONNECTIONS).map(|_| world.connect(ROOT)).collect();
    let client = world.browse(ROOT);
    for path in ["/healthz", "/"] {
        assert_eq!(world.ask(client, &get(path)).status, 200, "{path}");
    }
    let answer = world.ask(client, &get("/api/v1/agents"));
    assert!(answer.status == 429 && answer.text().contains("1024 connections"), "{}", answer.text());
    let call = post("/peat.sidecar.v1.PeatSidecar/ListAgents", "application/json", "{}");
    assert_eq!(world.ask(client, &call).status, 429);
    let health = post("/grpc.health.v1.Health/Check", "application/grpc-web", "\0\0\0\0\0");
    assert!(String::from_utf8_lossy(&world.ask(client, &health).body).contains("grpc-status: 0"));
    world.wait(HEALTH_CONNECTION);
    assert!(!world.is_open(client) && crowd.len() == world.engine.connections());
}

//! HTTP/1.1: heads, bodies, keep-alive, and what is refused.

use std::time::Duration;

use super::{ROOT, World, get, post};
use crate::limits::{HTTP_HEAD_TIME, HTTP_IDLE};

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
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n", 413),
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
    world.wait(HTTP_IDLE - Duration::from_secs(1));
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

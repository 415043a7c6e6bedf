//! HTTP/2 and the protocols over it: gRPC, Connect, gRPC-Web, reflection, health. The client is the `h2` crate's.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use h2::client::{Connection, ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use peat_ipc::agent::{AgentMessage, Heartbeat, NodeMessage, Register, agent_message, node_message};
use peat_ipc::prost::Message;
use peat_ipc::sidecar::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{ROOT, World};
use crate::api::ConnectionId;
use crate::limits::{FRAME_STALL, HTTP_BODY_BYTES, HTTP_PING, HTTP_STREAMS};

/// The client's socket.
#[derive(Clone, Debug, Default)]
struct Wire(std::sync::Arc<std::sync::Mutex<(BytesMut, Vec<u8>)>>);

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut both = self.0.lock().expect("one thread");
        let count = both.0.len().min(into.remaining());
        if count == 0 {
            return Poll::Pending;
        }
        into.put_slice(&both.0.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.0.lock().expect("one thread").1.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A client with one connection.
struct Peer {
    wire: Wire,
    id: ConnectionId,
    connection: Connection<Wire, Bytes>,
    send: SendRequest<Bytes>,
    failed: Option<h2::Error>,
}

/// One call of the client.
struct Stream {
    head: ResponseFuture,
    send: SendStream<Bytes>,
    body: Option<RecvStream>,
    status: u16,
    headers: BTreeMap<String, String>,
    bytes: Vec<u8>,
    trailers: BTreeMap<String, String>,
    over: bool,
    reset: bool,
}

fn context() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

fn texts(headers: &http::HeaderMap) -> BTreeMap<String, String> {
    headers.iter().map(|(name, value)| (name.to_string(), value.to_str().expect("text").to_owned())).collect()
}

impl Peer {
    fn connect(world: &mut World) -> Peer {
        let id = world.browse(ROOT);
        let wire = Wire::default();
        let mut greeting = pin!(h2::client::handshake(wire.clone()));
        let Poll::Ready(Ok((send, connection))) = greeting.as_mut().poll(&mut context()) else { panic!("greeted") };
        let mut peer = Peer { wire, id, connection, send, failed: None };
        peer.turn(world);
        peer
    }

    /// Moves bytes until neither side has any to send.
    fn turn(&mut self, world: &mut World) {
        for _ in 0..50 {
            if self.failed.is_none()
                && let Poll::Ready(Err(error)) = Pin::new(&mut self.connection).poll(&mut context())
            {
                self.failed = Some(error);
            }
            let said = std::mem::take(&mut self.wire.0.lock().expect("one thread").1);
            if !said.is_empty() && world.is_open(self.id) {
                world.send(self.id, &said);
            }
            let heard = std::mem::take(world.clients.get_mut(&self.id).expect("there").text.as_mut().expect("HTTP"));
            if said.is_empty() && heard.is_empty() {
                return;
            }
            self.wire.0.lock().expect("one thread").0.extend_from_slice(&heard);
        }
    }

    fn open(&mut self, world: &mut World, path: &str, headers: &[(&str, &str)]) -> Stream {
        self.begin(world, http::Method::POST, path, headers)
    }

    fn begin(&mut self, world: &mut World, method: http::Method, path: &str, headers: &[(&str, &str)]) -> Stream {
        self.turn(world);
        let mut request = http::Request::builder().method(method).uri(format!("http://localhost{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Poll::Ready(Ok(())) = self.send.poll_ready(&mut context()) else { panic!("ready") };
        let (head, send) = self.send.send_request(request.body(()).expect("a request"), false).expect("sent");
        Stream {
            head,
            send,
            body: None,
            status: 0,
            headers: BTreeMap::new(),
            bytes: Vec::new(),
            trailers: BTreeMap::new(),
            over: false,
            reset: false,
        }
    }

    /// Receives everything that is available for a call.
    fn hear(&mut self, world: &mut World, stream: &mut Stream) {
        for _ in 0..1_000 {
            self.turn(world);
            if !stream.hear() {
                return;
            }
        }
    }

    /// Makes a complete call.
    fn call(&mut self, world: &mut World, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Stream {
        let mut stream = self.open(world, path, headers);
        stream.send.send_data(Bytes::copy_from_slice(body), true).expect("sent");
        self.hear(world, &mut stream);
        stream
    }
}

impl Stream {
    /// Receives the next piece; returns true if there was one.
    fn hear(&mut self) -> bool {
        if self.body.is_none() && self.status == 0 {
            match Pin::new(&mut self.head).poll(&mut context()) {
                Poll::Ready(Ok(response)) => {
                    self.status = response.status().as_u16();
                    self.headers = texts(response.headers());
                    self.body = Some(response.into_body());
                }
                Poll::Ready(Err(_)) => {
                    (self.reset, self.status) = (true, 1);
                    return false;
                }
                Poll::Pending => return false,
            }
        }
        let Some(body) = &mut self.body else { return false };
        match body.poll_data(&mut context()) {
            Poll::Ready(Some(Ok(bytes))) => {
                body.flow_control().release_capacity(bytes.len()).expect("a window");
                self.bytes.extend_from_slice(&bytes);
                true
            }
            Poll::Ready(Some(Err(_))) => {
                self.reset = true;
                false
            }
            Poll::Ready(None) => {
                if let Poll::Ready(Ok(Some(trailers))) = body.poll_trailers(&mut context()) {
                    self.trailers = texts(&trailers);
                }
                self.over = true;
                false
            }
            Poll::Pending => false,
        }
    }

    /// Takes the next message of an answer in envelopes.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (head, rest) = self.bytes.split_first_chunk::<5>()?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        let message = (head[0], rest.get(..length)?.to_vec());
        self.bytes.drain(..5 + length);
        Some(message)
    }

    fn code(&self) -> Option<&str> {
        self.trailers.get("grpc-status").or(self.headers.get("grpc-status")).map(String::as_str)
    }
}

fn wrapped(message: &impl Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    let mut out = vec![0];
    out.extend_from_slice(&u32::try_from(bytes.len()).expect("short").to_be_bytes());
    out.extend_from_slice(&bytes);
    out
}

fn sidecar(method: &str) -> String {
    format!("/peat.sidecar.v1.PeatSidecar/{method}")
}

const GRPC: &[(&str, &str)] = &[("content-type", "application/grpc"), ("te", "trailers")];

#[test]
fn a_grpc_call_is_answered_with_trailers() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    for _ in 0..3 {
        let mut call = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
        let (flags, message) = call.message().expect("a message");
        assert_eq!((call.status, flags, call.code(), call.over), (200, 0, Some("0"), true));
        assert_eq!(GetStatusResponse::decode(message.as_slice()).expect("a status").node_id, "n1");
    }
}

#[test]
fn a_grpc_error_is_a_status_and_words() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let request = wrapped(&CancelCommandRequest { id: "none".into() });
    let call = peer.call(&mut world, &sidecar("CancelCommand"), GRPC, &request);
    assert_eq!((call.status, call.code(), call.bytes.len()), (200, Some("5"), 0));
    assert!(call.trailers["grpc-message"].contains("none"), "{:?}", call.trailers);
    let call = peer.call(&mut world, &sidecar("NoSuch"), GRPC, &wrapped(&GetStatusRequest {}));
    assert_eq!((call.status, call.code()), (200, Some("12")));
    let call = peer.call(&mut world, &sidecar("GetStatus"), GRPC, b"\0\0\0");
    assert_eq!(call.code(), Some("3"));
}

#[test]
fn a_deadline_that_cannot_be_kept_is_told() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let headers = [GRPC, &[("grpc-timeout", "100m")]].concat();
    let mut call = peer.call(&mut world, &sidecar("Subscribe"), &headers, &wrapped(&SubscribeRequest::default()));
    assert_eq!((call.status, call.over), (200, false));
    world.wait(std::time::Duration::from_secs(1));
    peer.hear(&mut world, &mut call);
    assert_eq!(call.code(), Some("4"));
}

#[test]
fn a_subscriber_whose_window_is_full_is_owed_the_newest_and_nothing_more() {
    let mut world = World::new();
    let writer = world.connect(ROOT);
    let mut peer = Peer::connect(&mut world);
    let mut call = peer.open(&mut world, &sidecar("Subscribe"), GRPC);
    call.send.send_data(wrapped(&SubscribeRequest::default()).into(), true).expect("sent");
    peer.turn(&mut world);
    let text = |number: i32| format!(r#"{{"n":{number},"x":"{}"}}"#, "y".repeat(20_000));
    for number in 0..60 {
        let put = PutDocumentRequest {
            collection: "tracks".into(),
            doc_id: format!("t{}", number % 20),
            json_data: text(number),
            ..Default::default()
        };
        world.call(writer, &put).expect("put");
        peer.turn(&mut world);
    }
    // The client has taken nothing: its window is 64 KiB.
    assert!(world.engine.output(peer.id).len() < 128 << 10);
    let mut seen = BTreeMap::new();
    peer.hear(&mut world, &mut call);
    while let Some((_, message)) = call.message() {
        let change = DocumentChange::decode(message.as_slice()).expect("a change");
        seen.insert(change.doc_id, change.json_data.expect("content"));
    }
    assert_eq!(seen.len(), 20);
    for (name, json) in seen {
        let number: i32 = name[1..].parse().expect("a number");
        assert_eq!(json.len(), text(40 + number).len(), "{name}");
        assert!(json.contains(&format!(r#""n":{}"#, 40 + number)), "{name} is the newest");
    }
}

#[test]
fn a_stream_that_is_reset_ends_its_call() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let mut call = peer.open(&mut world, &sidecar("Subscribe"), GRPC);
    call.send.send_data(wrapped(&SubscribeRequest::default()).into(), true).expect("sent");
    peer.hear(&mut world, &mut call);
    assert_eq!(call.status, 200);
    call.send.send_reset(h2::Reason::CANCEL);
    peer.turn(&mut world);
    let status = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    assert_eq!(status.code(), Some("0"));
    assert!(world.is_open(peer.id));
}

#[test]
fn who_does_not_read_its_events_loses_its_stream_and_not_the_connection() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    assert_eq!(world.ask_json(admin, "/api/v1/agents", r#"{"agent_id":"a1"}"#).0, 200);
    let mut peer = Peer::connect(&mut world);
    let mut listener = peer.begin(&mut world, http::Method::GET, "/api/v1/agents/a1/events", &[]);
    listener.send.send_data(Bytes::new(), true).expect("sent");
    peer.hear(&mut world, &mut listener);
    assert!(listener.status == 200 && listener.bytes.starts_with(b"retry: 2000"), "{}", listener.status);
    let payload = "x".repeat(60 << 10);
    for number in 0..4 {
        let body = format!(r#"{{"id":"k{number}","type":"replay","payload":"{payload}"}}"#);
        assert_eq!(world.ask_json(admin, "/api/v1/agents/a1/commands", &body).0, 202);
        // The client takes frames from its connection, and nothing from the stream.
        peer.turn(&mut world);
    }
    world.wait(std::time::Duration::from_secs(16));
    peer.turn(&mut world);
    world.wait(std::time::Duration::from_secs(16));
    peer.turn(&mut world);
    let status = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    assert_eq!(status.code(), Some("0"));
    peer.hear(&mut world, &mut listener);
    assert!(listener.reset, "{} bytes", listener.bytes.len());
    assert!(world.is_open(peer.id));
    let mut again = peer.begin(&mut world, http::Method::GET, "/api/v1/agents/a1/events", &[]);
    again.send.send_data(Bytes::new(), true).expect("sent");
    peer.hear(&mut world, &mut again);
    assert_eq!(again.status, 200, "it may come back");
}

#[test]
fn an_agent_registers_and_beats_over_grpc() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let mut call = peer.open(&mut world, "/peat.agent.v1.AgentLink/Connect", GRPC);
    let say = |body| wrapped(&AgentMessage { body: Some(body) });
    let register = say(agent_message::Body::Register(Register { agent_id: "a1".into(), ..Default::default() }));
    // A message may arrive in pieces.
    call.send.send_data(Bytes::copy_from_slice(&register[..3]), false).expect("sent");
    peer.turn(&mut world);
    call.send.send_data(Bytes::copy_from_slice(&register[3..]), false).expect("sent");
    peer.hear(&mut world, &mut call);
    let heard =
        |call: &mut Stream| NodeMessage::decode(call.message().expect("a message").1.as_slice()).expect("one").body;
    assert!(matches!(heard(&mut call), Some(node_message::Body::Registered(_))));
    let beat = say(agent_message::Body::Heartbeat(Heartbeat { number: 7, ..Default::default() }));
    call.send.send_data(beat.into(), false).expect("sent");
    peer.hear(&mut world, &mut call);
    assert!(matches!(heard(&mut call), Some(node_message::Body::HeartbeatAck(ack)) if ack.number == 7));
    call.send.send_data(Bytes::new(), true).expect("half closed");
    peer.hear(&mut world, &mut call);
    assert_eq!(call.code(), Some("0"));
}

#[test]
fn grpc_web_has_its_trailers_in_the_body() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let headers = [("content-type", "application/grpc-web+proto")];
    let mut call = peer.call(&mut world, &sidecar("GetStatus"), &headers, &wrapped(&GetStatusRequest {}));
    assert_eq!(call.message().expect("the answer").0, 0);
    assert_eq!(call.message().expect("the trailers"), (0x80, b"grpc-status: 0\r\n".to_vec()));
    let headers = [("content-type", "application/grpc-web-text")];
    let call = peer.call(&mut world, &sidecar("GetStatus"), &headers, b"AAAAAAA=");
    assert_eq!((call.status, call.bytes.is_ascii()), (200, true));
}

#[test]
fn tools_find_the_services_and_their_health() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let request = b"\0\0\0\0\x02\x3a\x00";
    for version in ["v1", "v1alpha"] {
        let path = format!("/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo");
        let mut call = peer.call(&mut world, &path, GRPC, request);
        let (_, answer) = call.message().expect("a list");
        assert!(answer.windows(27).any(|part| part == b"peat.sidecar.v1.PeatSidecar"));
        assert_eq!(call.code(), Some("0"));
    }
    let symbol = b"peat.agent.v1.AgentLink";
    let request = [&[0, 0, 0, 0, 25, 0x22, 23], &symbol[..]].concat();
    let mut call = peer.call(&mut world, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", GRPC, &request);
    let (_, answer) = call.message().expect("definitions");
    assert!(answer.windows(8).any(|part| part == b"Register"));
    for (request, code, status) in [(&b"\0\0\0\0\0"[..], "0", Some(1)), (b"\0\0\0\0\x03\x0a\x01x", "5", None)] {
        let mut call = peer.call(&mut world, "/grpc.health.v1.Health/Check", GRPC, request);
        let told = call.message().map(|(_, message)| message[1]);
        assert_eq!((call.code(), told), (Some(code), status));
    }
    let mut watch = peer.call(&mut world, "/grpc.health.v1.Health/Watch", GRPC, b"\0\0\0\0\0");
    assert_eq!((watch.message().expect("a status").1, watch.over), (vec![8, 1], false));
    world.engine.set_silent(vec!["store"]);
    world.wait(std::time::Duration::from_secs(1));
    peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    peer.hear(&mut world, &mut watch);
    assert_eq!(watch.message().expect("the change").1, vec![8, 2]);
}

/// Begins calls and resets them before the node has seen any.
fn give_up(world: &mut World, peer: &mut Peer, calls: usize) {
    for _ in 0..calls {
        assert!(peer.send.poll_ready(&mut context()).is_ready());
        let request = http::Request::post(format!("http://localhost{}", sidecar("PutDocument"))).body(()).expect("one");
        let (_, mut stream) = peer.send.send_request(request, false).expect("begun");
        // Many in one read: the node sees none of them before the next one is there.
        let _ = Pin::new(&mut peer.connection).poll(&mut context());
        stream.send_reset(h2::Reason::CANCEL);
        let _ = Pin::new(&mut peer.connection).poll(&mut context());
    }
    peer.turn(world);
}

#[test]
fn calls_given_up_in_one_read_cost_no_other_call() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let mut watch = peer.call(&mut world, &sidecar("WatchAgents"), GRPC, &wrapped(&WatchAgentsRequest::default()));
    assert_eq!((watch.status, watch.over), (200, false));
    for calls in [33, 127, 1_500] {
        give_up(&mut world, &mut peer, calls);
        assert!(world.is_open(peer.id) && peer.failed.is_none(), "{calls}: {:?}", peer.failed);
        let status = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
        assert_eq!(status.code(), Some("0"));
    }
    peer.hear(&mut world, &mut watch);
    assert!(!watch.over && !watch.reset);
}

#[test]
fn resets_without_end_cost_others_nothing_and_leave_nothing() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    for _ in 0..20 {
        give_up(&mut world, &mut peer, 1_000);
    }
    let mut other = Peer::connect(&mut world);
    assert_eq!(other.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {})).code(), Some("0"));
    assert!(world.engine.output(peer.id).len() < 64 << 10);
}

#[test]
fn streams_the_node_ended_first_cost_no_other_call() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let mut watch = peer.call(&mut world, &sidecar("WatchAgents"), GRPC, &wrapped(&WatchAgentsRequest::default()));
    for round in 0..300 {
        // An invalid first message of an agent: the node answers with an error, and the client continues sending.
        let mut call = peer.open(&mut world, "/peat.agent.v1.AgentLink/Connect", GRPC);
        call.send.send_data(Bytes::from_static(b"\0\0\0\0\x01\xff"), false).expect("sent");
        let wire = peer.wire.clone();
        let _ = Pin::new(&mut peer.connection).poll(&mut context());
        let said = std::mem::take(&mut wire.0.lock().expect("one thread").1);
        world.send(peer.id, &said);
        for _ in 0..4 {
            // The node's answer has not reached the client yet.
            call.send.send_data(Bytes::from_static(b"\0\0\0\0\x02\x12\0"), false).expect("sent");
            let _ = Pin::new(&mut peer.connection).poll(&mut context());
        }
        peer.hear(&mut world, &mut call);
        assert_eq!(call.code(), Some("3"), "{round}: {:?}", peer.failed);
        assert!(world.is_open(peer.id) && peer.failed.is_none(), "{round}: {:?}", peer.failed);
    }
    peer.hear(&mut world, &mut watch);
    assert!(!watch.over && !watch.reset);
}

#[test]
fn a_request_that_does_not_come_ends_its_stream_and_no_other() {
    for (content_type, status, code) in [("application/grpc", 200, Some("4")), ("application/json", 408, None)] {
        let mut world = World::new();
        let mut peer = Peer::connect(&mut world);
        let mut watch = peer.call(&mut world, &sidecar("WatchAgents"), GRPC, &wrapped(&WatchAgentsRequest::default()));
        let mut stalled = peer.open(&mut world, &sidecar("PutDocument"), &[("content-type", content_type)]);
        stalled.send.send_data(Bytes::from_static(b"\0\0"), false).expect("sent");
        peer.turn(&mut world);
        world.wait(FRAME_STALL - Duration::from_secs(1));
        let mut later = peer.open(&mut world, &sidecar("PutDocument"), GRPC);
        peer.turn(&mut world);
        world.wait(Duration::from_secs(2));
        peer.hear(&mut world, &mut stalled);
        assert_eq!((stalled.status, stalled.code()), (status, code), "{:?}", stalled.headers);
        peer.hear(&mut world, &mut later);
        assert_eq!((later.status, later.reset), (0, false), "has its own time");
        later.send.send_data(wrapped(&GetStatusRequest {}).into(), true).expect("sent");
        peer.hear(&mut world, &mut later);
        assert_eq!(later.code(), Some("3"), "a put of nothing");
        peer.hear(&mut world, &mut watch);
        assert!(!watch.over && !watch.reset && world.is_open(peer.id));
    }
}

#[test]
fn an_answer_that_is_not_taken_ends_its_stream_and_no_other() {
    let mut world = World::new();
    let writer = world.connect(ROOT);
    let json_data = format!(r#"{{"x":"{}"}}"#, "y".repeat(200_000));
    let put = PutDocumentRequest { collection: "c".into(), doc_id: "d".into(), json_data, ..Default::default() };
    world.call(writer, &put).expect("put");
    let mut peer = Peer::connect(&mut world);
    let mut stuck = peer.open(&mut world, &sidecar("GetDocument"), GRPC);
    let get = GetDocumentRequest { collection: "c".into(), doc_id: "d".into() };
    stuck.send.send_data(wrapped(&get).into(), true).expect("sent");
    peer.turn(&mut world);
    world.wait(FRAME_STALL + Duration::from_secs(1));
    // Reading releases the connection's window only now: it is as large as a stream's, so the unread answer had used it up.
    peer.hear(&mut world, &mut stuck);
    assert!(stuck.reset && stuck.bytes.len() < 100_000, "{} bytes", stuck.bytes.len());
    let status = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    assert!(status.code() == Some("0") && world.is_open(peer.id));
}

#[test]
fn every_streamed_answer_asks_proxies_to_pass_it_on_at_once() {
    let mut world = World::new();
    let admin = world.browse(ROOT);
    assert_eq!(world.ask_json(admin, "/api/v1/agents", r#"{"agent_id":"a1"}"#).0, 200);
    let mut peer = Peer::connect(&mut world);
    let streamed = |call: &Stream| call.headers.get("x-accel-buffering").map(String::as_str) == Some("no");
    for content_type in ["application/grpc", "application/grpc-web", "application/connect+proto"] {
        for method in ["Subscribe", "WatchAgents"] {
            let headers = [("content-type", content_type)];
            let call = peer.call(&mut world, &sidecar(method), &headers, b"\0\0\0\0\0");
            assert!(call.status == 200 && streamed(&call), "{content_type} {method}: {:?}", call.headers);
        }
    }
    let watch = peer.call(&mut world, "/grpc.health.v1.Health/Watch", GRPC, b"\0\0\0\0\0");
    let mut events = peer.begin(&mut world, http::Method::GET, "/api/v1/agents/a1/events", &[]);
    events.send.send_data(Bytes::new(), true).expect("sent");
    peer.hear(&mut world, &mut events);
    assert!(streamed(&watch) && streamed(&events), "{:?}", events.headers);
    let unary = peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    assert!(!streamed(&unary));
}

#[test]
fn a_connection_with_a_quiet_stream_is_pinged() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    peer.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {}));
    let sent = |world: &mut World, peer: &mut Peer| {
        let heard = world.clients[&peer.id].text.as_ref().expect("HTTP").len();
        peer.turn(world);
        heard
    };
    world.wait(2 * HTTP_PING);
    assert_eq!(sent(&mut world, &mut peer), 0, "nothing is waited for");
    let mut watch = peer.call(&mut world, &sidecar("WatchAgents"), GRPC, &wrapped(&WatchAgentsRequest::default()));
    for _ in 0..3 {
        world.wait(HTTP_PING);
        // A PING has 8 bytes and a frame header of 9.
        assert_eq!(sent(&mut world, &mut peer), 17);
    }
    world.wait(3 * HTTP_PING);
    assert_eq!(sent(&mut world, &mut peer), 17, "one that is not answered will do");
    peer.hear(&mut world, &mut watch);
    assert!(!watch.over && !watch.reset);
}

#[test]
fn a_quiet_stream_has_the_heartbeats_its_client_asks_for() {
    for (content_type, beat) in [("application/grpc", &b""[..]), ("application/connect+json", b"{}")] {
        let mut world = World::new();
        let mut peer = Peer::connect(&mut world);
        let headers = [("content-type", content_type), ("peat-heartbeat", "20")];
        let request = if beat.is_empty() { wrapped(&SubscribeRequest::default()) } else { b"\0\0\0\0\x02{}".to_vec() };
        let mut call = peer.call(&mut world, &sidecar("Subscribe"), &headers, &request);
        let mut beats = |world: &mut World, seconds| {
            world.wait(Duration::from_secs(seconds));
            peer.hear(world, &mut call);
            std::iter::from_fn(|| call.message()).filter(|(_, message)| message == beat).count()
        };
        assert_eq!(beats(&mut world, 19), 0);
        assert_eq!(beats(&mut world, 1), 1);
        assert_eq!(beats(&mut world, 60), 3);
        let put = |id: &str| PutDocumentRequest {
            collection: "c".into(),
            doc_id: id.into(),
            json_data: "{}".into(),
            ..Default::default()
        };
        for id in ["a", "b"] {
            world.wait(Duration::from_secs(15));
            let writer = world.connect(ROOT);
            world.call(writer, &put(id)).expect("put");
            assert_eq!(beats(&mut world, 0), 0, "what is sent is sign enough");
        }
        assert_eq!(beats(&mut world, 19), 0);
        assert_eq!(beats(&mut world, 1), 1);
    }
}

#[test]
fn heartbeats_that_cannot_be_are_refused() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    for (heartbeat, code) in [("0", Some("3")), ("often", Some("3")), ("3601", Some("3")), ("3600", None)] {
        let headers = [GRPC, &[("peat-heartbeat", heartbeat)]].concat();
        let call = peer.call(&mut world, &sidecar("Subscribe"), &headers, &wrapped(&SubscribeRequest::default()));
        assert_eq!(call.code(), code, "{heartbeat}");
    }
}

#[test]
fn a_path_of_a_unix_socket_will_do_for_a_host() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    // "/run/peat-node.sock" Huffman-coded, as grpc-go sends it; SETTINGS and the request of a stream that ends at once.
    let coded = huffman_of_path();
    let path = sidecar("GetStatus");
    let mut block = vec![0x83, 0x86, 0x41, 0x80 | u8::try_from(coded.len()).expect("short")];
    block.extend(&coded);
    block.extend([0x44, u8::try_from(path.len()).expect("short")]);
    block.extend(path.as_bytes());
    block.extend(b"\x5f\x10application/grpc");
    let length = u8::try_from(block.len()).expect("short");
    let request = [&[0, 0, length, 1, 4, 0, 0, 0, 1], &block[..], &[0, 0, 5, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0]].concat();
    world.send(client, &[crate::api::http::PREFACE_2, &[0, 0, 0, 4, 0, 0, 0, 0, 0], &request].concat());
    let heard = world.clients[&client].text.clone().expect("HTTP");
    assert!(heard.windows(2).any(|two| two == b"n1"), "the node's id: {}", heard.escape_ascii());
}

/// Returns `/run/peat-node.sock`, Huffman-coded.
fn huffman_of_path() -> Vec<u8> {
    let bits = "011000 101100 101101 101010 011000 101011 00101 00011 01001 010110 101010 00111 100100 00101 010111 01000 \
                00111 00100 1110101";
    let mut bits: Vec<u8> = bits.bytes().filter(|byte| *byte != b' ').map(|byte| byte - b'0').collect();
    bits.resize(bits.len().next_multiple_of(8), 1);
    bits.chunks(8).map(|eight| eight.iter().fold(0, |byte, bit| byte << 1 | bit)).collect()
}

#[test]
fn headers_that_unfold_beyond_the_limit_cost_their_stream_only() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let long = "x".repeat(3_000);
    let mut headers = GRPC.to_vec();
    // One table entry, referenced repeatedly: a few bytes each on the wire.
    headers.extend(std::iter::repeat_n(("a", long.as_str()), 40));
    let call = peer.call(&mut world, &sidecar("GetStatus"), &headers, &wrapped(&GetStatusRequest {}));
    assert_ne!(call.code(), Some("0"));
    let mut other = Peer::connect(&mut world);
    assert_eq!(other.call(&mut world, &sidecar("GetStatus"), GRPC, &wrapped(&GetStatusRequest {})).code(), Some("0"));
}

#[test]
fn a_body_over_the_limit_is_refused_and_read_no_further() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    let mut call = peer.open(&mut world, &sidecar("PutDocument"), GRPC);
    for _ in 0..HTTP_BODY_BYTES / 16_384 + 2 {
        call.send.reserve_capacity(16_384);
        peer.hear(&mut world, &mut call);
        if call.send.send_data(Bytes::from(vec![0; 16_384]), false).is_err() {
            break;
        }
    }
    peer.hear(&mut world, &mut call);
    assert_eq!(call.code(), Some("8"), "{:?}", call.trailers);
    assert!(world.is_open(peer.id));
}

#[test]
fn streams_beyond_the_limit_wait_for_their_turn() {
    let mut world = World::new();
    let mut peer = Peer::connect(&mut world);
    peer.turn(&mut world);
    let limit = HTTP_STREAMS as usize;
    assert_eq!(peer.connection.max_concurrent_send_streams(), limit);
    let calls: Vec<Stream> = (0..limit).map(|_| peer.open(&mut world, &sidecar("Subscribe"), GRPC)).collect();
    assert_eq!(calls.len(), limit);
    assert!(world.is_open(peer.id));
}

#[test]
fn garbage_after_the_preface_ends_the_connection() {
    let mut world = World::new();
    let client = world.browse(ROOT);
    world.send(client, b"PRI * HTTP/2.0\r\n");
    world.send(client, b"\r\nSM\r\n\r\n");
    world.send(client, &[0xff; 100]);
    assert!(!world.is_open(client));
}

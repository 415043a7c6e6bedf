//! A hostile peer: a link that speaks the protocol and ignores its limits.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use bytes::BytesMut;
use peat_node::clock::{Now, shell::now};
use peat_node::identity::{EndpointId, Identity};
use peat_node::random::System;
use peat_node::sync::frame::{self, Decoder, Standing};
use peat_node::sync::link::{Lane, LinkEvent, LinkId, Links};
use peat_node::sync::mesh::message::Body;
use peat_node::sync::mesh::{Auth, Batch, Document, Hello, Plan};
use peat_node::sync::proof::{FormationKey, Role, prove};

use crate::node::Node;

/// Maximum number of steps to wait; each takes at least a millisecond.
const STEPS: usize = 20_000;
const APP_ID: &str = "peat-default";

/// An attacker with one identity, one socket and one link.
pub struct Attacker {
    socket: UdpSocket,
    links: Links,
    link: LinkId,
    us: EndpointId,
    victim: EndpointId,
    up: bool,
    /// The reason the link was closed.
    pub gone: Option<String>,
    /// Messages received on the control lane.
    heard: Vec<Body>,
    decoder: Decoder,
    batches: u64,
}

impl Attacker {
    /// Dials `victim` from `address` and waits until the link is up or closed.
    pub fn dial(address: &str, victim: &Node, seed: u8) -> Attacker {
        let mut attacker = Attacker::begin(address, victim, seed);
        attacker.wait("the link is up or gone", |attacker| attacker.up || attacker.gone.is_some());
        attacker
    }

    /// Dials `victim` and sends only the first datagrams.
    pub fn begin(address: &str, victim: &Node, seed: u8) -> Attacker {
        let identity = Identity::from_seed([seed; 32]);
        let socket = UdpSocket::bind(address).expect("a loopback address");
        socket.set_read_timeout(Some(Duration::from_millis(1))).expect("a time");
        let mut links = Links::new(&identity, &mut System::default(), now());
        let id: EndpointId = victim.id.parse().expect("an id");
        let at: SocketAddr = victim.bind.parse().expect("an address");
        let link = links.dial(now(), id, &[at]).expect("a dial begins");
        let mut attacker = Attacker {
            socket,
            links,
            link,
            us: identity.id(),
            victim: id,
            up: false,
            gone: None,
            heard: Vec::new(),
            decoder: Decoder::default(),
            batches: 0,
        };
        attacker.step();
        attacker
    }

    /// Returns true if the node has closed the link.
    pub fn is_gone(&mut self) -> bool {
        self.step();
        self.gone.is_some()
    }

    pub fn wait(&mut self, what: &str, done: impl Fn(&Attacker) -> bool) {
        for _ in 0..STEPS {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("the attacker waits in vain: {what}; {:?}", self.gone);
    }

    /// Moves datagrams in both directions once.
    fn step(&mut self) {
        let (mut out, mut buffer) = (Vec::new(), [0; 2_048]);
        while let Some(to) = self.links.poll_transmit(now(), &mut out) {
            // A full send buffer drops the datagram, as a network may.
            let _ = self.socket.send_to(&out, to);
        }
        while let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            self.links.handle_datagram(now(), from, BytesMut::from(&buffer[..length]));
        }
        if self.links.poll_deadline().is_some_and(|at| at <= now().mono) {
            self.links.handle_timeout(now());
        }
        while let Some(event) = self.links.poll_event() {
            match event {
                LinkEvent::Up { .. } => self.up = true,
                LinkEvent::Down { reason, .. } => self.gone = Some(reason.to_string()),
                LinkEvent::Readable { lane, .. } => self.read(now(), lane),
                LinkEvent::Writable { .. } => {}
            }
        }
    }

    fn read(&mut self, now: Now, lane: Lane) {
        let mut bytes = Vec::new();
        while self.links.read(now, self.link, lane, &mut bytes, 64 << 10) {}
        if lane == Lane::Control {
            self.decoder.extend(&bytes);
            while let Some(received) = self.decoder.poll(lane, Standing::Member).expect("the node keeps the limits") {
                self.heard.push(received.body);
            }
        }
    }

    /// Writes bytes to a lane until all are accepted or the link is closed. The link itself writes the first byte of a lane.
    pub fn write(&mut self, lane: Lane, mut bytes: &[u8]) {
        for _ in 0..STEPS {
            if bytes.is_empty() || self.gone.is_some() {
                return;
            }
            let written = self.links.write(now(), self.link, lane, bytes);
            bytes = &bytes[written..];
            self.step();
        }
        // The node has stopped reading this lane, which also enforces a limit.
    }

    /// Sends a message, split into parts if it is long.
    pub fn say(&mut self, lane: Lane, body: Body) {
        let mut bytes = Vec::new();
        frame::encode(body, &mut bytes);
        self.write(lane, &bytes);
    }

    /// Sends documents in the next batch of the bulk lane.
    pub fn send(&mut self, documents: Vec<Document>) {
        self.batches += 1;
        self.say(Lane::Bulk, Body::Batch(Batch { number: self.batches, documents, ..Batch::default() }));
    }

    /// Sends a proof of the formation key.
    pub fn prove(&mut self, key: &str) {
        let key = FormationKey::parse(key).expect("a key");
        let proof = prove(&key, Role::Dialler, APP_ID, &self.us, &self.victim, &self.links.export(self.link));
        self.say(Lane::Control, Body::Auth(Auth { proof: proof.to_vec().into() }));
        self.wait("the node says hello", |attacker| {
            attacker.gone.is_some() || attacker.heard.iter().any(|body| matches!(body, Body::Hello(_)))
        });
    }

    /// Sends a hello and a plan, after which documents are accepted.
    pub fn greet(&mut self) {
        self.say(Lane::Control, Body::Hello(self.hello()));
        self.say(Lane::Control, Body::Plan(Plan::default()));
        self.wait("the node plans", |attacker| {
            attacker.gone.is_some() || attacker.heard.iter().any(|body| matches!(body, Body::Plan(_)))
        });
    }

    pub fn hello(&self) -> Hello {
        let id = |byte: u8| vec![byte; 16].into();
        Hello {
            run: id(1),
            database: id(2),
            app_id: APP_ID.to_owned(),
            node_id: "hostile".to_owned(),
            ..Hello::default()
        }
    }

    /// Creates an admitted peer that is ready to send documents.
    pub fn member(address: &str, victim: &Node, seed: u8, key: &str) -> Attacker {
        let mut attacker = Attacker::dial(address, victim, seed);
        attacker.prove(key);
        attacker.greet();
        assert_eq!(attacker.gone, None, "admitted");
        attacker
    }

    /// Returns the attacker's endpoint id.
    pub fn id(&self) -> EndpointId {
        self.us
    }
}

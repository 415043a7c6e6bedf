//! Node processes that connect through a relay, over loopback.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use peat_node::identity::Identity;
use peat_node::relay::wire::{AllocationClaim, AllocationRequest, Answer, Handle, Header, RelayKey};
use peat_node::sync::proof::FormationKey;

use crate::forwarder::{Forwarder, Quality};
use crate::node::{Node, directory, eventually, run};
use crate::relays::{Relay, key_file};

/// Limit on the time from losing the direct path to a document's arrival. The engines need up to 2 s
/// (`src/sync/tests/relay.rs`); the rest allows for a busy machine and the processes of the command line.
const FALLBACK: Duration = Duration::from_secs(5);

fn path(node: &Node) -> String {
    node.json("peers", &[])["peers"][0]["path"].as_str().unwrap_or_default().to_owned()
}

fn goes(node: &Node, way: &str) {
    eventually(&format!("the way is {way}"), || (path(node) == way).then_some(()));
}

fn id_of(home: &Path) -> String {
    run(&["id", "--data-dir", home.join("data").to_str().expect("text")]).ok().trim().to_owned()
}

/// Puts a document, waits until a peer has it, and returns the time taken.
#[expect(clippy::disallowed_methods, reason = "a test measures real time")]
fn put_everywhere(node: &Node, id: &str) -> Duration {
    let before = Instant::now();
    node.run("put", &["missions", id, r#"{"n":1}"#, "--wait-peers", "1"]).ok();
    before.elapsed()
}

#[test]
fn two_nodes_meet_through_a_relay_alone_and_again_when_it_comes_back() {
    let (a_home, b_home) = (directory(), directory());
    let (key_path, key) = key_file(a_home.path());
    let mut relay = Relay::start(&key_path);
    // This socket is bound and never read: an address that does not answer.
    let nobody = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let nobody = nobody.local_addr().expect("bound");
    let spec = |id: &str| format!("{id}@{nobody}+relay:{}", relay.listen);
    let a = Node::start(a_home.path(), &["--shared-key", &key, "--peer", &spec(&id_of(b_home.path()))]);
    let b = Node::start(b_home.path(), &["--shared-key", &key, "--peer", &spec(&a.id)]);
    goes(&a, "relay");
    goes(&b, "relay");
    put_everywhere(&a, "there");
    put_everywhere(&b, "back");
    relay.kill();
    a.run("put", &["missions", "meanwhile", r#"{"n":2}"#]).ok();
    relay.start_again();
    b.shows("missions", "meanwhile", r#"{"n":2}"#);
}

#[test]
fn a_relay_takes_over_when_the_direct_way_is_lost_and_gives_back_when_it_returns() {
    let (a_home, b_home) = (directory(), directory());
    let (key_path, key) = key_file(a_home.path());
    let relay = Relay::start(&key_path);
    let (relayed, b_id) = (format!("relay:{}", relay.listen), id_of(b_home.path()));
    let flags = |peer: String| ["--shared-key".to_owned(), key.clone(), "--peer".to_owned(), peer];
    let start =
        |home: &Path, flags: &[String]| Node::start(home, &flags.iter().map(String::as_str).collect::<Vec<_>>());
    // B has an allocation at the relay because of a peer that never connects, and does not dial A.
    let nobody = format!("{}@{relayed}", "ab".repeat(32));
    let b = start(b_home.path(), &flags(nobody));
    let direct = Forwarder::to(&b.bind, Quality::default());
    let a = start(a_home.path(), &flags(format!("{b_id}@{}+{relayed}", direct.address)));
    goes(&a, "direct");
    put_everywhere(&a, "first");
    direct.set_cut(true);
    assert!(put_everywhere(&a, "by relay") < FALLBACK);
    goes(&a, "relay");
    let why = a.json("peers", &[])["peers"][0]["pathReason"].as_str().expect("a reason").to_owned();
    assert!(why.contains("the way before"), "{why}");
    direct.set_cut(false);
    goes(&a, "direct");
    direct.set_cut(true);
    b.run("put", &["missions", "from b", r#"{"n":2}"#]).ok();
    a.shows("missions", "from b", r#"{"n":2}"#);
    assert!(!a.log().contains("silent") && !a.log().contains("no answer"), "the connection was lost: {}", a.log());
}

#[test]
fn strangers_are_refused_by_a_relay_of_others() {
    let (home, mine) = (directory(), directory());
    let (key_path, key) = key_file(home.path());
    let relay = Relay::start(&key_path);
    let other = run(&["keygen"]).ok();
    let relayed = format!("{}@relay:{}", "ab".repeat(32), relay.listen);
    let stranger = Node::start(mine.path(), &["--shared-key", other.trim(), "--peer", &relayed]);
    eventually("the stranger has no place", || {
        let peers = stranger.json("peers", &[]);
        peers["peers"][0]["lastError"].as_str()?.contains("it does not answer").then_some(())
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    let to: SocketAddr = relay.listen.parse().expect("an address");
    let identity = Identity::from_seed([1; 32]);
    let [good, bad] = [&key, &other].map(|key| RelayKey::new(&FormationKey::parse(key).expect("a key")));
    let forwarded = Header { token: [0; 5], node: Handle::of(&identity.id()) }.to_bytes();
    for datagram in [&b"hello"[..], &[0xc0; 1_200], &[], &forwarded, &[0x10; 158]] {
        socket.send_to(datagram, to).expect("loopback");
    }
    socket
        .send_to(&AllocationRequest::new(&identity, [1; 8], AllocationClaim::default()).to_bytes(&bad), to)
        .expect("loopback");
    socket
        .send_to(&AllocationRequest::new(&identity, [2; 8], AllocationClaim::default()).to_bytes(&good), to)
        .expect("loopback");
    let (mut buffer, patience) = ([0; 2_048], Duration::from_secs(60));
    socket.set_read_timeout(Some(patience)).expect("a timeout");
    let (length, _) = socket.recv_from(&mut buffer).expect("an answer");
    let answer = Answer::parse(&buffer[..length], &identity.id(), &good).expect("an answer");
    assert_eq!(answer.0, [2; 8], "only who knows the key is answered");
}

#[test]
fn a_node_that_is_a_relay_is_silent_as_one_too() {
    let home = directory();
    let (key_path, key) = key_file(home.path());
    let flags = ["--relay-listen", "127.0.0.1:0", "--relay-key-file", key_path.to_str().expect("text")];
    let node = Node::start(home.path(), &flags);
    let relay = eventually("its relay's address", || {
        let log = node.log();
        Some(log.split_once("relay at ")?.1.split(',').next()?.to_owned())
    });
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    socket.connect(relay).expect("loopback");
    socket.set_read_timeout(Some(Duration::from_secs(60))).expect("a timeout");
    let (identity, key) = (Identity::from_seed([1; 32]), RelayKey::new(&FormationKey::parse(&key).expect("a key")));
    let ask = |nonce: u8| {
        let request = AllocationRequest::new(&identity, [nonce; 8], AllocationClaim::default());
        socket.send(&request.to_bytes(&key)).expect("loopback");
    };
    let answered = || {
        let mut buffer = [0; 2_048];
        let length = socket.recv(&mut buffer).expect("an answer");
        Answer::parse(&buffer[..length], &identity.id(), &key).expect("an answer").0[0]
    };
    ask(1);
    assert_eq!(answered(), 1);
    node.run("sync", &["stop"]).ok();
    (2..20).for_each(ask);
    node.run("sync", &["start"]).ok();
    ask(20);
    assert_eq!(answered(), 20, "what came under radio silence is never answered");
}

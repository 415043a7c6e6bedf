//! Checks that the bytes in `docs/wire.md` are those that the code reads and writes.
//!
//! Examples are fenced blocks that begin with `hex` and a name; text after a `;` is a comment.

use peat_node::identity::{EndpointId, Identity};
use peat_node::relay::wire::{AllocationClaim, AllocationRequest, Answer, Handle, Header, Refusal, RelayKey};
use peat_node::store::{KeyHash, VersionHash};
use peat_node::sync::frame::{self, Standing};
use peat_node::sync::link::Lane;
use peat_node::sync::link::probe::{Message, ProbeKind, SECRET_BYTES, Secret};
use peat_node::sync::mesh::command_body::Addressed;
use peat_node::sync::mesh::message::Body;
use peat_node::sync::mesh::{
    Ack, Auth, Batch, Cursor, Document, Hello, Latest, Merged, Offer, Plan, Presence, Refused,
};
use peat_node::sync::mesh::{Command, CommandBody, CommandResult};
use peat_node::sync::mesh::{Reconcile, Tombstone, Want, document};
use peat_node::sync::proof::{FormationKey, Role, prove};
use peat_node::sync::reconcile::{Differences, Item, Reconciler, RemoteHas, Set};
use prost::Message as _;
use ring::hmac;

/// Returns the bytes of one example.
pub(crate) fn example(name: &str) -> Vec<u8> {
    let page = include_str!("../../docs/wire.md");
    let fence = format!("```hex {name}\n");
    let (_, rest) = page.split_once(&fence).unwrap_or_else(|| panic!("docs/wire.md has no example {name}"));
    let (block, _) = rest.split_once("```").expect("the block ends");
    let words = block.lines().flat_map(|line| line.split(';').next().unwrap_or_default().split_whitespace());
    words.flat_map(bytes).collect()
}

/// Parses a word: `4b`, or `4b*16` for sixteen of them.
fn bytes(word: &str) -> Vec<u8> {
    let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
    let byte = u8::from_str_radix(digits, 16).expect("hex digits");
    vec![byte; times.parse().expect("a number")]
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x} ")).collect()
}

/// Compares an example with the actual bytes, and shows the correct text on failure.
fn assert_example(name: &str, actual: &[u8]) {
    assert_eq!(hex(&example(name)), hex(actual), "example {name} in docs/wire.md");
}

fn assert_frame(name: &str, body: &Body) {
    let mut bytes = Vec::new();
    frame::encode(body.clone(), &mut bytes);
    assert_example(name, &bytes);
    let mut decoder = frame::Decoder::default();
    decoder.extend(&bytes);
    let lane = if matches!(body, Body::Batch(_) | Body::Part(_)) { Lane::Bulk } else { Lane::Control };
    let received = decoder.poll(lane, Standing::Member).expect("allowed").expect("whole");
    assert_eq!(&received.body, body);
}

#[test]
fn the_formation_proof_is_the_hmac_of_the_input_shown() {
    let key = FormationKey::new(b"sixteen bytes or".to_vec()).expect("long enough");
    let (dialler, acceptor) = (EndpointId([0xd1; 32]), EndpointId([0xac; 32]));
    let proof = prove(&key, Role::Dialler, "fleet", &dialler, &acceptor, &[0xe5; 32]);
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"sixteen bytes or"), &example("proof-input"));
    assert_eq!(hex(&proof), hex(tag.as_ref()));
    assert_example("proof", &proof);
}

fn cursor() -> Cursor {
    Cursor { kind: 2, database: vec![0xdb; 16].into(), run: vec![0x22; 16].into(), sequence: 300, ..Cursor::default() }
}

#[test]
fn control_messages_are_as_shown() {
    let hello = Hello {
        run: vec![0x11; 16].into(),
        database: vec![0xda; 16].into(),
        node_id: "n1".into(),
        wall_clock_ms: 1_000,
        latest_collections: vec!["tracks".into()],
        cursors: vec![cursor()],
        records: 5,
        app_id: "fleet".into(),
    };
    assert_frame("auth", &Body::Auth(Auth { proof: vec![].into() }));
    assert_frame("hello", &Body::Hello(hello));
    let presence = Presence { node: vec![0xd1; 32].into(), run: vec![0x11; 16].into(), counter: 7 };
    assert_frame("presence", &Body::Presence(presence));
    assert_frame(
        "plan",
        &Body::Plan(Plan { reconcile: true, fingerprint: vec![0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88].into() }),
    );
    assert_frame("reconcile", &Body::Reconcile(Reconcile { ranges: vec![0xbc, 0].into() }));
    assert_frame("ack", &Body::Ack(Ack { lane: 3, number: 7, lacking: vec![] }));
    assert_frame("ack-lacking", &Body::Ack(Ack { lane: 2, number: 8, lacking: vec![vec![0x4b; 16].into()] }));
    let have = vec![vec![0xcc; 32].into()];
    assert_frame("refused", &Body::Refused(Refused { keys: vec![vec![0x4b; 16].into()] }));
    assert_frame("want", &Body::Want(Want { key: vec![0x4b; 16].into(), have, satisfied: false }));
}

fn document(kind: u32, body: document::Body) -> Document {
    Document {
        key: vec![0x4b; 16].into(),
        kind,
        incarnation: 1,
        collection: "tracks".into(),
        doc_id: "t1".into(),
        origin: vec![0xd1; 32].into(),
        body: Some(body),
        dots: if kind == 3 { vec![] } else { [&[1][..], &[0x0d; 8], &[1]].concat() }.into(),
        ..Document::default()
    }
}

#[test]
fn batches_are_as_shown() {
    let batch = |documents| Batch { number: 1, documents, ..Batch::default() };
    let latest = Latest { counter: 9, node: vec![].into(), run: vec![0x11; 16].into(), json: b"{}".to_vec().into() };
    let moved = Cursor { kind: 2, sequence: 12, ..Cursor::default() };
    let register =
        Batch { moved: vec![moved], flush: true, ..batch(vec![document(2, document::Body::Latest(latest))]) };
    assert_frame("batch-latest", &Body::Batch(register));
    let gone = Document {
        key: vec![0x4b; 16].into(),
        kind: 1,
        incarnation: 2,
        covered: [&[0, 1][..], &[0x0d; 8], &[2]].concat().into(),
        body: Some(document::Body::Tombstone(Tombstone {})),
        ..Document::default()
    };
    let heads = vec![vec![0xcc; 32].into(), vec![0xdd; 32].into()];
    let merged = document(1, document::Body::Merged(Merged { chunks: vec![0x85].into(), heads }));
    assert_frame("batch-merged", &Body::Batch(batch(vec![merged, document(1, offer()), gone])));
}

#[test]
fn commands_are_as_shown() {
    let body = CommandBody {
        id: "k1".into(),
        issuer: vec![0xd1; 32].into(),
        addressed: Some(Addressed::Group("g".into())),
        targets: vec!["a1".into()],
        command_type: "replay".into(),
        payload: b"{}".to_vec().into(),
        created_at: 100,
        expires_at: 160,
        ttl_ms: 60_000,
    };
    let command = Command {
        body: body.encode_to_vec().into(),
        signature: vec![0x51; 64].into(),
        statuses: vec![3].into(),
        cancel_requested: true,
        time_left_ms: 59_000,
        time_left_unknown: false,
    };
    let result = CommandResult { status: 6, result: b"7".to_vec().into(), error: String::new() };
    let document = |id: &str, body| Document { collection: "commands".into(), doc_id: id.into(), ..document(3, body) };
    let documents = vec![
        document("k1", document::Body::Command(command)),
        document("k1:a1", document::Body::CommandResult(result)),
    ];
    assert_frame("batch-command", &Body::Batch(Batch { number: 1, documents, ..Batch::default() }));
}

fn offer() -> document::Body {
    document::Body::Offer(Offer { version: vec![0x56; 16].into(), size: 5_000, withheld: String::new() })
}

fn item(key: u8, version: u8) -> Item {
    Item { hash: KeyHash([key; 16]), version: VersionHash([version; 16]) }
}

#[test]
fn a_reconciliation_by_list_is_as_shown() {
    let (mut found_a, mut found_b) = (Differences::default(), Differences::default());
    let (mut a, list) = Reconciler::initiate(Set::build(vec![item(1, 0xaa), item(2, 0xaa)]));
    let mut b = Reconciler::respond(Set::build(vec![item(2, 0xbb), item(3, 0xbb)]));
    assert_example("reconcile-list", &list);
    let answer = b.handle(&list, &mut found_b).expect("honest").expect("an answer");
    assert_example("reconcile-answer", &answer);
    assert_eq!(a.handle(&answer, &mut found_a), Ok(None));
    assert_eq!(found_a.send, [(item(1, 0).hash, RemoteHas::Lacks)]);
    assert_eq!(found_b.send, [(item(2, 0).hash, RemoteHas::Differs), (item(3, 0).hash, RemoteHas::Lacks)]);
}

#[test]
fn a_reconciliation_by_fingerprint_is_as_shown() {
    let seventeen = |version: u8| Set::build((1..=17).map(|key| item(key, version)).collect());
    let (_, whole) = Reconciler::initiate(seventeen(0xaa));
    assert_example("reconcile-whole", &whole);
    let found = &mut Differences::default();
    assert_eq!(Reconciler::respond(seventeen(0xaa)).handle(&whole, found), Ok(Some(vec![])), "equal sets");
    let split = Reconciler::respond(seventeen(0xbb)).handle(&whole, found).expect("honest").expect("a reply");
    let start = example("reconcile-split");
    assert_eq!(hex(&start), hex(&split[..start.len()]), "the first three of 17 ranges");
    assert_eq!(split.len(), 16 * 10 + 9);
}

#[test]
fn a_message_about_ways_is_as_shown() {
    let secret = Secret::new([0xe5; SECRET_BYTES]);
    let probe = Message { kind: ProbeKind::Probe, number: 7 };
    assert_example("way-probe", &secret.write(true, probe, 0));
    assert_eq!(secret.read(true, &example("way-probe")), Some(probe));
}

#[test]
fn what_nodes_and_relays_say_is_as_shown() {
    let key = RelayKey::new(&FormationKey::new(b"sixteen bytes or".to_vec()).expect("long enough"));
    let request = AllocationRequest::new(&Identity::from_seed([0x5e; 32]), [3; 8], AllocationClaim::default());
    assert_example("relay-request", &request.to_bytes(&key));
    assert_eq!(AllocationRequest::parse(&example("relay-request"), &key).as_ref(), Some(&request));
    for (name, answer) in [
        ("relay-cookie", Answer::Cookie { relay: [0x4e; 16], cookie: [0xc0; 16] }),
        ("relay-allocated", Answer::Allocated { token: [0xaa, 0xbb, 0xcc, 0xdd, 0xee], seconds: 40 }),
        ("relay-refused", Answer::Refused(Refusal::Full)),
    ] {
        assert_example(name, &answer.to_bytes(&request, &key));
        assert_eq!(Answer::parse(&example(name), &request.id, &key), Some(([3; 8], answer)));
    }
    let header = Header { token: [0xaa, 0xbb, 0xcc, 0xdd, 0xee], node: Handle::of(&EndpointId([0xd1; 32])) };
    assert_example("relay-data", &[&header.to_bytes()[..], &[0x40]].concat());
    assert_eq!(Header::parse(&example("relay-data")), Some((header, &[0x40][..])));
}

//! Parsers of untrusted bytes, each as a function that must return for any input.
//!
//! Used twice: by libFuzzer (`cargo +nightly fuzz run --fuzz-dir tests/fuzz TARGET`), and by the seeded loop in
//! `tests/integration/malformed`, which needs only the stable compiler.

use peat_node::identity::EndpointId;
use peat_node::limits::{BATCH_LIST_BYTES, CHUNK_ROWS};
use peat_node::relay::Relay;
use peat_node::relay::wire::{Answer, Header, RelayKey};
use peat_node::store::{KeyHash, VersionHash, chunk, json};
use peat_node::sync::frame::{self, Standing};
use peat_node::sync::link::Lane;
use peat_node::sync::link::probe::{SECRET_BYTES, Secret};
use peat_node::sync::proof::FormationKey;
use peat_node::sync::reconcile::{Differences, Item, MESSAGE_BYTES, Reconciler, Set};
use peat_node::watcher::{Question, StoredDocuments, Task, WatchedWrite, Watcher, WatcherConfig};
use peat_node::{clock, random};

/// Parses frames of the native IPC, in pieces as a socket would deliver them.
pub(crate) fn ipc_frames(bytes: &[u8]) {
    let mut decoder = peat_ipc::frame::Decoder::default();
    for piece in bytes.chunks(7) {
        decoder.extend(piece);
        while let Ok(Some((_, body))) = decoder.next_frame() {
            drop(body);
        }
        assert!(decoder.buffered() <= bytes.len());
    }
}

/// Parses datagrams between relays and nodes, and path messages, from any sender.
pub(crate) fn relay_datagrams(bytes: &[u8]) {
    let key = RelayKey::new(&FormationKey::new(vec![7; 32]).expect("long enough"));
    let now = clock::shell::now();
    let mut relay = Relay::new(key.clone(), Box::new(random::System::default()), now);
    relay.handle_datagram(now, ([10, 0, 0, 1], 1).into(), bytes);
    if let Some((_, answer)) = relay.poll_transmit() {
        assert!(answer.len() < bytes.len() && relay.poll_transmit().is_none(), "one shorter answer at most");
    }
    let _ = (Header::parse(bytes), Answer::parse(bytes, &EndpointId([1; 32]), &key));
    let _ = Secret::new([7; SECRET_BYTES]).read(true, bytes);
}

/// Parses frames between nodes, in pieces as a stream would deliver them, of strangers and of members.
pub(crate) fn mesh_frames(bytes: &[u8]) {
    for (lane, standing) in
        [(Lane::Control, Standing::Stranger), (Lane::Control, Standing::Member), (Lane::Bulk, Standing::Member)]
    {
        let mut decoder = frame::Decoder::default();
        for piece in bytes.chunks(11) {
            decoder.extend(piece);
            while let Ok(Some(received)) = decoder.poll(lane, standing) {
                assert!(received.weight <= bytes.len() + BATCH_LIST_BYTES);
            }
            assert!(decoder.held() <= bytes.len());
        }
    }
}

/// Runs one role of a reconciliation; the first byte chooses the role and the set. Each message follows its length.
pub(crate) fn reconcile(bytes: &[u8]) {
    let Some((&choice, bytes)) = bytes.split_first() else { return };
    let side = if choice & 1 == 0 { Reconciler::respond(set(choice)) } else { Reconciler::initiate(set(choice)).0 };
    feed(side, usize::from(choice) * 4, bytes);
}

fn feed(mut side: Reconciler, records: usize, mut bytes: &[u8]) {
    let mut found = Differences::default();
    while let [low, high, rest @ ..] = bytes {
        let length = usize::from(u16::from_le_bytes([*low, *high])).min(rest.len());
        let (message, rest) = rest.split_at(length);
        match side.handle(message, &mut found) {
            Ok(Some(reply)) => assert!(reply.len() <= MESSAGE_BYTES),
            Ok(None) | Err(_) => break,
        }
        bytes = rest;
    }
    assert!(found.send.len() <= records, "no key is found twice");
}

/// Returns four records for each number below `choice`, spread over the key space.
pub(crate) fn set(choice: u8) -> Set {
    let item = |number: u32| {
        let key = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        Item { hash: KeyHash(key.to_be_bytes()), version: VersionHash([number.to_le_bytes()[0]; 16]) }
    };
    Set::build((0..u32::from(choice) * 4).map(item).collect())
}

/// Checks Automerge chunks of a peer.
pub(crate) fn chunks(bytes: &[u8]) {
    let _ = chunk::check(bytes, CHUNK_ROWS);
}

/// Parses a client's JSON. Accepted text must survive a round trip.
pub(crate) fn json_text(bytes: &[u8]) {
    if let Ok(map) = json::parse(bytes) {
        let text = json::to_text(&map);
        let again = json::parse(text.as_bytes()).expect("our own JSON parses");
        assert!(json::same_object(&map, &again), "{text}");
    }
}

/// Handles an answer of a watched agent; the first byte chooses the question. Writes must concern the agent, and the same
/// answer must not be written twice.
pub(crate) fn watched_answers(bytes: &[u8]) {
    let Some((&choice, body)) = bytes.split_first() else { return };
    let asked = Question::ALL[usize::from(choice) % Question::ALL.len()];
    let interval = std::time::Duration::from_secs(10);
    let config =
        WatcherConfig { agent: "a1".into(), address: "a".into(), poll_interval: interval, heartbeat: 100 * interval };
    let mut now = clock::shell::now();
    let mut watcher = Watcher::new(config, now).expect("a usable id");
    answer(&mut watcher, now, asked, body);
    now.mono += interval;
    assert_eq!(answer(&mut watcher, now, asked, body), 0, "the same answer is no change");
}

/// Runs one poll and returns the number of writes it caused.
fn answer(watcher: &mut Watcher, now: clock::Now, asked: Question, body: &[u8]) -> usize {
    let mut writes = 0;
    watcher.handle_timeout(now);
    while let Some(task) = watcher.poll_task() {
        match task {
            Task::Read(_) => watcher.handle_held(Ok(StoredDocuments::default())),
            Task::Ask(question) if question == asked => watcher.handle_answer(now, question, Ok(body.to_vec())),
            Task::Ask(_) => {}
            Task::Write(write) => {
                check_write(&write, asked);
                writes += 1;
                watcher.handle_written(now, Ok(Vec::new()));
            }
        }
    }
    writes
}

fn check_write(write: &WatchedWrite, asked: Question) {
    let WatchedWrite::Put { key, fields, .. } = write else { panic!("nothing is held that could be deleted") };
    assert_eq!(key.collection(), asked.collection());
    assert!(key.id() == "a1" || key.id().starts_with("a1:"), "{key}");
    assert_eq!(fields.get("agent_id").and_then(|id| id.as_str()), Some("a1"));
}

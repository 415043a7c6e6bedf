//! Malformed files are refused and left unchanged.

use super::*;
use crate::clock::BootId;
use crate::mesh::CommandBody;
use crate::mesh::command_body::Addressed;
use crate::store::backend::HEADER_BYTES;
use crate::store::codec::checksum;
use crate::store::database_clock::{DatabaseClock, PersistedClock};
use crate::store::record::{Base, RecordRef};
use crate::store::{Command, CommandResult, Covered, Dot, Dots, Rank, RunId, Sibling, Signed, Stamp, tables};

#[expect(clippy::cast_possible_truncation, reason = "it is 4096")]
const HEADER: usize = HEADER_BYTES as usize;

/// Returns a file with some documents, closed without a shutdown.
fn file() -> Vec<u8> {
    let mut bench = Bench::new();
    for n in 0..50 {
        bench.put(&format!("cells/{n}"), &format!(r#"{{"n":{n}}}"#));
    }
    bench.disk.crash().bytes()
}

fn open(bytes: Vec<u8>) -> (Ram, Result<Store<Ram>, Error>) {
    let disk = Ram::of(bytes);
    let store = Store::open(disk.clone(), StoreConfig::new(node(1)), &mut Counter(100), epoch());
    (disk, store)
}

#[test]
fn a_newer_format_is_refused_and_the_file_untouched() {
    let mut bytes = file();
    bytes[8] = 3;
    let sum = checksum(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&sum);
    let (disk, result) = open(bytes.clone());
    assert!(matches!(result, Err(Error::NewerFormat { found: 3, known: 2 })), "{result:?}");
    assert!(disk.bytes() == bytes);
}

#[test]
fn an_older_format_is_refused_with_the_way_out_and_the_file_untouched() {
    let mut bytes = file();
    bytes[8] = 1;
    let sum = checksum(&bytes[..12]).to_le_bytes();
    bytes[12..16].copy_from_slice(&sum);
    let (disk, result) = open(bytes.clone());
    let error = result.unwrap_err();
    assert!(matches!(error, Error::OlderFormat { found: 1, known: 2 }), "{error:?}");
    assert!(error.to_string().contains("move documents.redb away"), "{error}");
    assert!(disk.bytes() == bytes);
}

#[test]
fn a_foreign_file_is_refused_and_untouched() {
    let bytes: Vec<u8> = b"SQLite format 3\0 something".iter().copied().cycle().take(10_000).collect();
    let (disk, result) = open(bytes.clone());
    assert!(matches!(result, Err(Error::Damaged(_))), "{result:?}");
    assert!(disk.bytes() == bytes);
}

#[test]
fn a_flipped_bit_of_the_header_is_noticed() {
    let bytes = file();
    for at in 0..17 {
        let mut bytes = bytes.clone();
        bytes[at] ^= 4;
        let (disk, result) = open(bytes.clone());
        assert!(matches!(result, Err(Error::Damaged(_))), "byte {at}: {result:?}");
        assert!(disk.bytes() == bytes);
    }
}

#[test]
fn a_truncated_file_is_refused() {
    let bytes = file();
    for keep in [17, HEADER, HEADER + 100, 10_000, 500_000] {
        let (_, result) = open(bytes[..keep].to_vec());
        assert!(matches!(result, Err(Error::Damaged(_) | Error::Io(_))), "{keep} bytes: {:?}", result.map(|_| ()));
    }
}

#[test]
fn a_creation_that_did_not_finish_starts_over() {
    let whole = file();
    for bytes in [vec![], vec![0; 100], whole[..12].to_vec(), vec![0; HEADER]] {
        let (_, result) = open(bytes);
        assert!(result.is_ok(), "{result:?}");
    }
    let mut unfinished = whole;
    unfinished[16] = 0;
    let (_, result) = open(unfinished);
    assert_eq!(result.unwrap().reader().snapshot().unwrap().counts().live, 0);
}

/// A flipped bit in any place is harmless (free space), an error, or stops the node. It never changes content.
#[test]
fn a_flipped_bit_never_changes_what_a_document_says() {
    let bytes = file();
    let mut noticed = 0;
    for at in (HEADER..bytes.len()).step_by(1_009) {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (at % 8);
        // redb trusts some of its pages, and panics on damaged ones.
        let read = std::panic::catch_unwind(|| contents(bytes)).unwrap_or_default();
        noticed += u32::from(read.len() < 50);
        for (n, json) in read {
            assert_eq!(json, format!(r#"{{"n":{n}}}"#), "byte {at}");
        }
    }
    assert!(noticed > 0);
}

/// Returns every document that can be read.
fn contents(bytes: Vec<u8>) -> Vec<(u32, String)> {
    let (_, Ok(store)) = open(bytes) else { return Vec::new() };
    let Ok(snapshot) = store.reader().snapshot() else { return Vec::new() };
    let read = |n| Some((n, snapshot.document(&key(&format!("cells/{n}"))).ok()??.json));
    (0..50).filter_map(read).collect()
}

/// Returns the bytes of an example in docs/storage.md.
fn example(name: &str) -> Vec<u8> {
    let text = include_str!("../../../docs/storage.md");
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(' '));
    let (_, hex) = lines.find(|(found, _)| *found == name).unwrap();
    let digits = hex.trim().as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn created(writer: u8, incarnation: u64) -> Dots {
    Dots::one(Dot { writer: [writer; 8], incarnation })
}

fn examples() -> [Record; 4] {
    let latest = Record {
        kind: Kind::Latest,
        incarnation: 1,
        sequence: 300,
        origin: node(7),
        name: Some(key("platforms/a1")),
        lineage: Lineage { dots: created(13, 1), ..Lineage::default() },
        content: Content::Latest {
            stamp: Stamp { counter: 5, node: node(7), run: RunId([9; 16]) },
            json: r#"{"x":1}"#.into(),
        },
    };
    let covered = Covered::default().with(created(13, 1).iter());
    let sibling = Sibling {
        dots: created(15, 1),
        origin: node(8),
        stamp: Stamp { counter: 4, node: node(8), run: RunId([11; 16]) },
        json: r#"{"y":2}"#.into(),
    };
    let lineage = Lineage { dots: created(14, 2), covered: covered.clone(), siblings: vec![sibling] };
    let siblings = Record { incarnation: 2, sequence: 303, lineage, ..latest.clone() };
    let lineage = Lineage { covered, ..Lineage::default() };
    let tombstone = Record { sequence: 301, name: None, lineage, content: Content::Tombstone, ..latest.clone() };
    let mut history = History::whole(vec![1, 2, 3]);
    history.number(290);
    history.add(&[4, 5]);
    history.number(302);
    let merged = Record {
        kind: Kind::Merged,
        sequence: 302,
        name: Some(key("cells/c1")),
        content: Content::Merged { heads: vec![[10; 32]], json: r#"{"x":1}"#.into(), history },
        ..latest.clone()
    };
    [latest, tombstone, merged, siblings]
}

/// Returns a command for two agents, one of which has ended it, and the result of that agent.
fn command_examples() -> [Record; 2] {
    let body = CommandBody {
        id: "k1".into(),
        issuer: node(7).0.to_vec().into(),
        addressed: Some(Addressed::Group("g".into())),
        targets: vec!["a1".into(), "a2".into()],
        command_type: "replay".into(),
        payload: bytes::Bytes::from_static(b"{}"),
        created_at: 100,
        expires_at: 160,
        ttl_ms: 60_000,
    };
    let signed = Signed { body: prost::Message::encode_to_vec(&body), signature: [0x51; 64] };
    let command = Command {
        signed,
        ranks: vec![Rank::Completed, Rank::Cancelled],
        cancel_requested: true,
        deadline: Deadline::At { boot: BootId([0xb0; 16]), boot_ms: 70_000 },
        ended: Some(500),
        json: "{}".into(),
    };
    let record = Record {
        kind: Kind::Command,
        incarnation: 1,
        sequence: 303,
        origin: node(7),
        name: Some(key("commands/k1")),
        lineage: Lineage::default(),
        content: Content::Command(Box::new(command)),
    };
    let result = CommandResult { rank: Rank::Completed, result: "7".into(), error: "w".into(), json: "{}".into() };
    let (name, content) = (Some(key("commands/k1:a1")), Content::Result(Box::new(result)));
    [record.clone(), Record { sequence: 304, name, content, ..record }]
}

#[test]
fn the_documented_commands_are_the_bytes_on_disk() {
    let [command, result] = command_examples();
    assert_eq!(hex(&command.encode()), hex(&example("command")));
    assert_eq!(hex(&result.encode()), hex(&example("result")));
    assert_eq!(hex(&command.version(&key("commands/k1").hash()).0), hex(&example("command_version")));
    for record in [command, result] {
        let bytes = record.encode();
        let decoded = RecordRef::decode(&bytes).unwrap();
        let hash = record.name.as_ref().unwrap().hash();
        assert_eq!((decoded.to_record().unwrap(), decoded.version(&hash)), (record.clone(), record.version(&hash)));
        assert!(Base::parse(&record.version(&hash)).is_some());
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << (at % 8);
            assert!(RecordRef::decode(&flipped).is_err() && RecordRef::decode(&bytes[..at]).is_err(), "byte {at}");
        }
    }
    let now = Now { boot_ms: 1_000, ..epoch() };
    let noted = DatabaseClock::open(None, BootId([0xb0; 16]), now).note(Now { boot_ms: 1_500, ..now });
    assert_eq!(hex(&noted.encode()), hex(&example("age")));
    assert_eq!(PersistedClock::decode(&noted.encode()), Some(noted));
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_documented_examples_are_the_bytes_on_disk() {
    let [latest, tombstone, merged, siblings] = examples();
    let hash = key("platforms/a1").hash();
    let versions = [latest.version(&hash).0, tombstone.version(&hash).0];
    let shown = [latest.encode(), tombstone.encode(), merged.encode(), siblings.encode()].into_iter().chain(versions);
    let names = ["latest", "tombstone", "merged", "siblings", "version", "tombstone_version"];
    for (bytes, name) in shown.zip(names) {
        assert_eq!(hex(&bytes), hex(&example(name)), "{name}");
    }
    assert_eq!(hash.0[..], example("key"));
    assert_eq!(tables::index_key(Kind::Latest, 300)[..], example("index_key"));
    assert_eq!(tables::index_value(hash, latest.version_hash(), 3)[..], example("index_value"));
    let state = tables::State {
        sequence: 302,
        live: 2,
        tombstones: 1,
        flushed: 302,
        commits: 6,
        sources: 3,
        sum: 7,
        ..tables::State::default()
    };
    assert_eq!(hex(&state.encode()), hex(&example("state")));
    let entry = super::journal::example();
    let (shown, padding) = entry.split_at(example("entry").len());
    assert_eq!(hex(shown), hex(&example("entry")));
    assert!(padding.iter().all(|byte| *byte == 0) && entry.len() == 4096);
    assert_eq!(file()[..17], example("header"));
}

#![expect(clippy::cast_possible_truncation, reason = "small numbers, cut to bytes")]

use automerge::transaction::Transactable;
use automerge::{ActorId, AutoCommit, Change, ObjType, ROOT, ReadDoc, ScalarValue};

use super::*;
use crate::limits::{CHANGE_OPERATIONS, CHUNK_ELEMENTS, CHUNK_ROWS};

const DOCUMENT: u8 = 0;
const CHANGE: u8 = 1;

fn actor(number: u8) -> ActorId {
    ActorId::from([number; 16])
}

/// Returns documents of many shapes, edited on two sides and merged.
fn shapes() -> Vec<AutoCommit> {
    let fills: [fn(&mut AutoCommit); 7] = [|_| {}, scalars, nesting, list, counters, long_strings, many_changes];
    let mut shapes = Vec::new();
    for fill in fills {
        let mut document = AutoCommit::new().with_actor(actor(1));
        fill(&mut document);
        let mut other = document.fork().with_actor(actor(2));
        document.put(ROOT, "both", 1).expect("a put");
        other.put(ROOT, "both", 2).expect("a put");
        other.delete(ROOT, "both").expect("a delete");
        fill(&mut other);
        document.merge(&mut other).expect("a merge");
        shapes.push(document);
    }
    shapes
}

fn scalars(document: &mut AutoCommit) {
    let values: [ScalarValue; 8] = [
        ScalarValue::Null,
        true.into(),
        i64::MIN.into(),
        u64::MAX.into(),
        1.5.into(),
        "".into(),
        "naïve \u{1F980}".into(),
        ScalarValue::Bytes(vec![0; 300]),
    ];
    for (number, value) in values.into_iter().enumerate() {
        document.put(ROOT, format!("key{number}"), value).expect("a put");
    }
}

fn nesting(document: &mut AutoCommit) {
    let mut object = ROOT;
    for level in 0..40 {
        let kind = if level % 2 == 0 { ObjType::Map } else { ObjType::List };
        object = match document.object_type(&object) {
            Ok(ObjType::List) => document.insert_object(&object, 0, kind),
            _ => document.put_object(&object, "inner", kind),
        }
        .expect("an object");
    }
}

fn list(document: &mut AutoCommit) {
    let list = document.put_object(ROOT, "list", ObjType::List).expect("a list");
    for index in 0..2_000 {
        document.insert(&list, index / 2, i64::try_from(index % 7).expect("small")).expect("an insert");
    }
    for index in 0..300 {
        document.delete(&list, index).expect("a delete");
    }
}

fn counters(document: &mut AutoCommit) {
    document.put(ROOT, "counter", ScalarValue::counter(-3)).expect("a put");
    for step in -50..50 {
        document.increment(ROOT, "counter", step).expect("an increment");
    }
}

fn long_strings(document: &mut AutoCommit) {
    for number in 0..20 {
        document.put(ROOT, "k".repeat(1 + number * 40), "v".repeat(number * 999)).expect("a put");
    }
}

fn many_changes(document: &mut AutoCommit) {
    for number in 0..500 {
        document.put(ROOT, "position", number).expect("a put");
        document.commit_with(automerge::transaction::CommitOptions::default().with_message("moved").with_time(-number));
    }
}

fn changes(document: &mut AutoCommit) -> Vec<u8> {
    document.get_changes(&[]).iter().flat_map(|change: &Change| change.raw_bytes().to_vec()).collect()
}

#[test]
fn what_automerge_saves_uncompressed_is_taken() {
    for mut document in shapes() {
        let whole = document.save_nocompress();
        let parts = changes(&mut document);
        assert_eq!(check(&whole, CHUNK_ROWS), Ok(()));
        assert_eq!(check(&parts, CHUNK_ROWS), Ok(()));
        assert_eq!(check(&[whole, parts].concat(), CHUNK_ROWS), Ok(()));
    }
    assert_eq!(check(&[], CHUNK_ROWS), Ok(()));
}

#[test]
fn what_automerge_compresses_is_refused() {
    let mut document = shapes().pop().expect("there are shapes");
    assert_eq!(check(&document.save(), CHUNK_ROWS), Err(ChunkError::Compressed));
    let compressed = document.get_changes(&[]).into_iter().map(|mut change| change.bytes().into_owned());
    let compressed = compressed.chain([chunk(2, &[1, 2, 3])]).find(|bytes| bytes[8] == 2).expect("one at least");
    assert_eq!(check(&compressed, CHUNK_ROWS), Err(ChunkError::Kind(2)));
    assert_eq!(check(&chunk(3, &[]), CHUNK_ROWS), Err(ChunkError::Kind(3)));
    assert_eq!(check(&chunk(77, &[]), CHUNK_ROWS), Err(ChunkError::Kind(77)));
}

#[test]
fn rows_are_counted_over_all_chunks() {
    let mut document = AutoCommit::new().with_actor(actor(1));
    let list = document.put_object(ROOT, "list", ObjType::List).expect("a list");
    document.splice(&list, 0, 0, std::iter::repeat_n(ScalarValue::Null, 999)).expect("a splice");
    let whole = document.save_nocompress();
    assert!(whole.len() < 200);
    assert_eq!(check(&whole, 1_003), Ok(()), "1,000 operations and a change, which counts three times");
    assert_eq!(check(&whole, 1_002), Err(ChunkError::Rows(1_002)));
    assert_eq!(check(&[&whole[..], &whole].concat(), 2_005), Err(ChunkError::Rows(2_005)));
}

/// Returns a document with a list that gains these numbers of nulls, each in one change.
fn of_nulls(lengths: &[usize]) -> AutoCommit {
    let mut document = AutoCommit::new().with_actor(actor(1));
    let list = document.put_object(ROOT, "list", ObjType::List).expect("a list");
    for length in lengths {
        document.splice(&list, 0, 0, std::iter::repeat_n(ScalarValue::Null, *length)).expect("a splice");
        document.commit();
    }
    document
}

#[test]
fn a_change_of_more_operations_than_a_put_can_have_is_refused() {
    let most = usize::try_from(CHANGE_OPERATIONS).expect("small");
    for (length, refused) in [(most - 1, false), (most, true)] {
        let mut document = of_nulls(&[length]);
        for bytes in [document.save_nocompress(), changes(&mut document)] {
            assert!(bytes.len() < 300, "{} bytes", bytes.len());
            let expected = if refused { Err(ChunkError::Change(CHANGE_OPERATIONS)) } else { Ok(()) };
            assert_eq!(check(&bytes, CHUNK_ROWS), expected, "{length}");
        }
    }
}

#[test]
fn a_few_bytes_that_show_as_more_elements_than_nodes_put_are_refused() {
    let mut document = of_nulls(&[300_000, 300_000]);
    for bytes in [document.save_nocompress(), changes(&mut document)] {
        assert!(bytes.len() < 400, "{} bytes", bytes.len());
        assert_eq!(check(&bytes, CHUNK_ROWS), Err(ChunkError::Elements(CHUNK_ELEMENTS)));
    }
}

#[test]
fn elements_that_were_replaced_or_deleted_do_not_show() {
    let mut document = of_nulls(&[150_000]);
    let (_, list) = document.get(ROOT, "list").expect("readable").expect("there");
    for round in 0..4 {
        let fresh = std::iter::repeat_n(ScalarValue::from(round), 150_000);
        document.splice(&list, 0, 150_000, fresh).expect("a splice");
        document.commit();
    }
    assert_eq!(check(&document.save_nocompress(), CHUNK_ROWS), Ok(()), "150,000 of 750,000 are left");
    assert_eq!(check(&changes(&mut document), CHUNK_ROWS), Ok(()));
}

#[test]
fn a_writer_counts_as_its_peers_will() {
    let mut document = crate::store::merged::Doc::new([1; 16]);
    for text in [r#"{"list":[0,0,0,0],"text":"a"}"#, r#"{"list":[0,1,0],"text":"b"}"#] {
        document.put(None, &crate::store::json::parse(text.as_bytes()).expect("JSON")).expect("a put");
    }
    assert_eq!(check(&document.save(), document.rows()), Ok(()));
    assert_eq!(check(&document.save(), document.rows() - 1), Err(ChunkError::Rows(document.rows() - 1)));
}

#[test]
fn every_truncation_and_every_flipped_bit_is_refused() {
    let mut document = AutoCommit::new().with_actor(actor(1));
    scalars(&mut document);
    let bytes = document.save_nocompress();
    for length in 1..bytes.len() {
        assert!(check(&bytes[..length], CHUNK_ROWS).is_err());
    }
    for at in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[at / 8] ^= 1 << (at % 8);
        assert!(check(&flipped, CHUNK_ROWS).is_err());
    }
}

fn unsigned(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Encodes a positive number in the signed form.
fn signed(number: u64) -> Vec<u8> {
    let mut bytes = unsigned(number);
    if bytes.last().is_some_and(|last| last & 0x40 != 0) {
        *bytes.last_mut().expect("not empty") |= 0x80;
        bytes.push(0);
    }
    bytes
}

/// Returns a chunk with a correct checksum.
fn chunk(kind: u8, body: &[u8]) -> Vec<u8> {
    let hashed = [&[kind][..], &unsigned(body.len() as u64), body].concat();
    [&MAGIC[..], &digest::digest(&digest::SHA256, &hashed).as_ref()[..4], &hashed].concat()
}

/// Returns a change chunk with these columns of operations.
fn change_with(columns: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut body = vec![0, 1, 7, 1, 1, 0, 0, 0, columns.len() as u8];
    for (specification, bytes) in columns {
        body.push(*specification);
        body.extend(unsigned(bytes.len() as u64));
    }
    body.extend(columns.iter().flat_map(|(_, bytes)| bytes.clone()));
    chunk(CHANGE, &body)
}

const ACTION: u8 = 0x42;
const KEY_TEXT: u8 = 0x15;

#[test]
fn a_few_bytes_that_stand_for_a_trillion_rows_are_refused() {
    let run = |value: &[u8]| [signed(1 << 40), value.to_vec()].concat();
    let nulls = [vec![0], unsigned(1 << 40)].concat();
    let mut bombs = Vec::new();
    for specification in [0x01, 0x02, 0x13, 0x34, ACTION, 0x56, 0x70] {
        bombs.push(change_with(&[(specification, run(&[0]))]));
        bombs.push(change_with(&[(specification, nulls.clone())]));
    }
    bombs.push(change_with(&[(0x34, unsigned(1 << 40))]));
    bombs.push(change_with(&[(0x70, [signed(1), unsigned(1 << 40)].concat())]));
    bombs.push(change_with(&[(ACTION, [signed(i64::MAX as u64), vec![1]].concat())]));
    bombs.push(change_with(&[(ACTION, [vec![0], unsigned(u64::MAX), vec![0], unsigned(u64::MAX)].concat())]));
    for bomb in bombs {
        assert!(bomb.len() < 100);
        assert_eq!(check(&bomb, CHUNK_ROWS), Err(ChunkError::Rows(CHUNK_ROWS)), "{bomb:02x?}");
    }
    let minimum = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f];
    assert_eq!(check(&change_with(&[(ACTION, minimum.to_vec())]), CHUNK_ROWS), Err(ChunkError::Rows(CHUNK_ROWS)));
}

#[test]
fn a_long_string_repeated_often_is_refused() {
    let text = [unsigned(10_000), vec![b'x'; 10_000]].concat();
    let bomb = change_with(&[(KEY_TEXT, [signed(1 << 20), text].concat())]);
    assert!(matches!(check(&bomb, CHUNK_ROWS), Err(ChunkError::Strings(_))));
}

#[test]
fn values_longer_than_their_column_are_refused() {
    let lengths = (0x56, [signed(1_000), unsigned(100 << 4 | 6)].concat());
    assert!(check(&change_with(std::slice::from_ref(&lengths)), CHUNK_ROWS).is_err());
    assert!(check(&change_with(&[lengths.clone(), (0x57, vec![b'x'; 99_999])]), CHUNK_ROWS).is_err());
    assert_eq!(check(&change_with(&[lengths, (0x57, vec![b'x'; 100_000])]), CHUNK_ROWS), Ok(()));
}

#[test]
fn counts_that_the_bytes_cannot_hold_are_refused() {
    let many = unsigned(1 << 40);
    for body in [many.clone(), [vec![0], many.clone()].concat(), [vec![0, 0], many.clone()].concat()] {
        assert!(check(&chunk(DOCUMENT, &body), CHUNK_ROWS).is_err());
        assert!(check(&chunk(CHANGE, &body), CHUNK_ROWS).is_err());
    }
    let long = [&MAGIC[..], &[0; 4], &[CHANGE], &many].concat();
    assert!(check(&long, CHUNK_ROWS).is_err());
    let overlong = [&MAGIC[..], &[0; 4], &[CHANGE], &[0x80, 0]].concat();
    assert!(check(&overlong, CHUNK_ROWS).is_err());
}

#[test]
fn many_actors_times_many_changes_are_refused() {
    let mut bytes = Vec::new();
    for number in 0..1_000u16 {
        let mut body = vec![0, 2];
        body.extend(number.to_be_bytes());
        body.extend([1, 1, 0, 0, 0, 0]);
        bytes.extend(chunk(CHANGE, &body));
    }
    assert_eq!(check(&bytes, CHUNK_ROWS), Ok(()));
    assert_eq!(check(&bytes, 1_000), Err(ChunkError::Clocks(16_000)));
}

/// Returns a document chunk without operations, with these columns of changes: last operations, numbers of dependencies,
/// dependencies.
fn document_with(last_operations: &[u8], counts: &[u8], dependencies: &[u8]) -> Vec<u8> {
    let columns = [(0x13, last_operations), (0x40, counts), (0x43, dependencies)];
    let mut body = vec![1, 1, 7, 0, columns.len() as u8];
    columns.iter().for_each(|(specification, bytes)| body.extend([*specification, bytes.len() as u8]));
    body.push(0);
    columns.iter().for_each(|(_, bytes)| body.extend(*bytes));
    chunk(DOCUMENT, &body)
}

#[test]
fn changes_that_claim_more_operations_than_are_allowed_are_refused() {
    let claims = |operations| document_with(&[&[0x7f], &signed(operations)[..]].concat(), &[0x7f, 0], &[]);
    assert_eq!(check(&claims(1_000), 1_000), Ok(()));
    assert_eq!(check(&claims(1_001), 1_000), Err(ChunkError::Rows(1_000)));
    assert_eq!(check(&claims(u64::from(u32::MAX)), CHUNK_ROWS), Err(ChunkError::Rows(CHUNK_ROWS)));
    assert!(check(&claims(1 << 32), CHUNK_ROWS).is_err());
}

#[test]
fn changes_that_build_on_later_ones_or_none_are_refused() {
    let second_builds_on = |dependency| document_with(&[2, 5], &[0x7e, 0, 1], &[0x7f, dependency]);
    assert_eq!(check(&second_builds_on(0), CHUNK_ROWS), Ok(()));
    for dependency in [1, 2, 0x7f] {
        assert!(check(&second_builds_on(dependency), CHUNK_ROWS).is_err());
    }
    assert!(check(&document_with(&[2, 5], &[0x7e, 0, 1], &[]), CHUNK_ROWS).is_err(), "it builds on one, but which?");
    assert!(check(&document_with(&[2, 5], &[0x7f, 0], &[]), CHUNK_ROWS).is_err(), "two changes, one count");
    assert!(check(&document_with(&[0x7e, 5, 0x7f], &[0x7e, 0, 1], &[0x7f, 0]), CHUNK_ROWS).is_err(), "it goes back");
}

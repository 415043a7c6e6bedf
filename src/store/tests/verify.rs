//! Verification of a database that no node has open.

use std::sync::Arc;

use redb::{Builder, ReadableTable, WriteTransaction};

use super::*;
use crate::store::backend::{Backend, FailedFlag};
use crate::store::tables::{CHUNKS, INDEX, KEYS, NAMES, RECORDS, STATE, State};
use crate::store::{Verified, tables, verify};

/// Returns the disk of a killed node: three documents, and a deleted one.
fn killed() -> Ram {
    let mut bench = Bench::new();
    for name in ["cells/a", "cells/b", "platforms/a", "cells/gone"] {
        bench.request(durable(name, whole(r#"{"x":1}"#))).unwrap();
    }
    bench.delete("cells/gone");
    bench.crash().disk.crash()
}

/// Returns the result of `verify` for these bytes, after checking that it leaves them unchanged.
pub(super) fn found(bytes: &[u8]) -> Result<Option<Verified>, Error> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("documents.redb");
    std::fs::write(&path, bytes).unwrap();
    let found = verify(directory.path());
    assert!(std::fs::read(&path).unwrap() == bytes, "the file is not touched");
    found
}

/// Changes tables without the store.
fn meddle(disk: &Ram, change: impl FnOnce(&WriteTransaction)) -> Vec<u8> {
    let backend = Backend::new(Arc::new(disk.clone()), FailedFlag::default()).unwrap();
    let database = Builder::new().create_with_backend(backend).unwrap();
    let transaction = database.begin_write().unwrap();
    change(&transaction);
    transaction.commit().unwrap();
    drop(database);
    disk.bytes()
}

fn complaint(disk: &Ram, change: impl FnOnce(&WriteTransaction)) -> String {
    let verified = found(&meddle(disk, change)).unwrap().unwrap();
    assert!(verified.complaints > 0);
    verified.damaged.join("; ")
}

#[test]
fn a_database_is_whole_after_a_kill() {
    let verified = found(&killed().bytes()).unwrap().unwrap();
    assert_eq!((verified.live, verified.tombstones, verified.complaints), (3, 1, 0), "{:?}", verified.damaged);
}

#[test]
fn where_there_is_no_database_nothing_is_verified() {
    assert!(verify(tempfile::tempdir().unwrap().path()).unwrap().is_none());
    assert!(found(&[]).unwrap().is_none());
}

#[test]
fn a_document_that_other_tables_contradict_is_named() {
    let hash = key("cells/a").hash();
    let words =
        complaint(&killed(), |tables| drop(tables.open_table(KEYS).unwrap().remove(hash.0.as_slice()).unwrap()));
    assert!(words.contains("cells/a") && words.contains("key"), "{words}");
    let words =
        complaint(&killed(), |tables| drop(tables.open_table(NAMES).unwrap().remove(b"cells\0b".as_slice()).unwrap()));
    assert!(words.contains("cells/b") && words.contains("name"), "{words}");
    let words = complaint(&killed(), |tables| {
        let mut index = tables.open_table(INDEX).unwrap();
        let key = index.first().unwrap().unwrap().0.value().to_vec();
        let mut value = index.get(key.as_slice()).unwrap().unwrap().value().to_vec();
        value[20] ^= 1;
        index.insert(key.as_slice(), value.as_slice()).unwrap();
    });
    assert!(words.contains("not the version"), "{words}");
}

#[test]
fn a_chunk_that_is_missing_cut_or_nobody_s_is_told() {
    let words = |commit, chunk: Option<&[u8]>| {
        complaint(&killed(), |tables| {
            let mut chunks = tables.open_table(CHUNKS).unwrap();
            chunks.remove(tables::number_key(commit).as_slice()).unwrap();
            chunk.map(|chunk| chunks.insert(tables::number_key(commit).as_slice(), chunk).unwrap());
        })
    };
    let [missing, cut, stray] = [words(1, None), words(1, Some(&[0])), words(99, Some(&[0]))];
    assert!(missing.contains("cells/a") && missing.contains("chunk of commit 1"), "{missing}");
    assert!(cut.contains("cells/a") && cut.contains("another length"), "{cut}");
    assert!(stray.contains("3 chunks; the records have 2"), "{stray}");
}

#[test]
fn a_document_whose_chunk_is_missing_is_read_and_what_it_says_to_do_mends_it() {
    let bytes = meddle(&killed(), |tables| {
        tables.open_table(CHUNKS).unwrap().remove(tables::number_key(1).as_slice()).unwrap();
    });
    let mut bench = Bench::over(1, Ram::of(bytes), 2);
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"x":1}"#);
    let refused = bench.write("cells/a", whole(r#"{"x":2}"#)).unwrap_err().to_string();
    assert!(refused.contains("cells/a") && refused.contains("delete it and put it again"), "{refused}");
    bench.put("cells/b", r#"{"x":2}"#);
    bench.delete("cells/a");
    bench.put("cells/a", r#"{"x":2}"#);
    let found = found(&bench.crash().disk.crash().bytes()).unwrap().unwrap();
    assert_eq!((found.live, found.complaints), (3, 0), "{:?}", found.damaged);
}

#[test]
fn counters_that_are_wrong_are_told() {
    let words = complaint(&killed(), |tables| {
        let mut records = tables.open_table(RECORDS).unwrap();
        let mut state = State::of(&records).unwrap();
        state.live += 1;
        records.insert(STATE.as_slice(), state.encode().as_slice()).unwrap();
    });
    assert!(words.contains("counters say 4"), "{words}");
    let words = complaint(&killed(), |tables| {
        let mut records = tables.open_table(RECORDS).unwrap();
        let mut state = State::of(&records).unwrap();
        state.sum ^= 1;
        records.insert(STATE.as_slice(), state.encode().as_slice()).unwrap();
    });
    assert!(words.contains("sum of all records"), "{words}");
}

#[test]
fn damage_anywhere_in_the_file_is_told_and_never_a_panic() {
    let whole = killed().bytes();
    let text = br#"{"x":1}"#;
    // Unused pages hold copies.
    let everywhere: Vec<usize> = (0..whole.len()).filter(|at| whole[*at..].starts_with(text)).collect();
    for places in [&everywhere[..], &[whole.len() / 2], &[4096 + 10], &[4096 + 64]] {
        let mut bytes = whole.clone();
        places.iter().for_each(|place| bytes[*place] ^= 0xff);
        match found(&bytes) {
            Ok(Some(verified)) => assert!(places != everywhere || verified.complaints > 0),
            Ok(None) => panic!("there is one"),
            Err(error) => assert!(matches!(error, Error::Damaged(_) | Error::Io(_)), "{error}"),
        }
    }
}

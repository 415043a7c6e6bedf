//! Commits in the journal, but not yet in redb's pages, survive a crash; a torn entry does not.

use super::verify::found;
use super::*;
use crate::store::backend::{JOURNAL_AT, JOURNAL_BYTES};
use crate::store::journal::encode;
use crate::store::{RunId, tables};

#[expect(clippy::cast_possible_truncation, reason = "they are small")]
const JOURNAL: std::ops::Range<usize> = JOURNAL_AT as usize..(JOURNAL_AT + JOURNAL_BYTES) as usize;
const PAGE: usize = 4096;

/// Returns everything that a reader sees: documents, counts, the fingerprint and the index.
fn all(bench: &Bench) -> impl PartialEq + std::fmt::Debug + use<> {
    let snapshot = bench.snapshot();
    let entries = |kind| snapshot.entries(kind, 0).unwrap().map(|entry| format!("{entry:?}")).collect::<Vec<_>>();
    let documents = ["cells/a", "cells/b", "platforms/a", "platforms/b"].map(|name| bench.json(name));
    (documents, snapshot.counts().live, snapshot.counts().tombstones, snapshot.fingerprint(), Kind::ALL.map(entries))
}

/// Returns a store with `count` flushed commits since its first one.
fn with_commits(count: u32) -> Bench {
    let mut bench = Bench::new();
    for n in 0..count {
        let name = ["cells/a", "cells/b", "platforms/a", "platforms/b"][n as usize % 4];
        if n % 7 == 6 {
            bench.write(name, Put::Delete).unwrap();
            bench.request(StoreRequest::Flush).unwrap();
        } else {
            bench.request(durable(name, whole(&format!(r#"{{"n":{n}}}"#)))).unwrap();
        }
    }
    bench
}

fn verified(bytes: &[u8]) -> u64 {
    let verified = found(bytes).unwrap().unwrap();
    assert_eq!(verified.complaints, 0, "{:?}", verified.damaged);
    verified.live
}

#[test]
fn a_flush_of_little_is_one_write_and_one_sync() {
    let mut bench = Bench::new();
    bench.put("platforms/a", "{}");
    let (syncs, before) = (bench.disk.syncs(), bench.disk.bytes());
    bench.request(durable("cells/a", whole("{}"))).unwrap();
    assert_eq!(bench.disk.syncs(), syncs + 1);
    let (journal, after) = (JOURNAL, bench.disk.bytes());
    assert!(before[..journal.start] == after[..journal.start] && before[journal.end..] == after[journal.end..]);
    let written = |at: &usize| before[*at..*at + PAGE] != after[*at..*at + PAGE];
    assert_eq!(journal.step_by(PAGE).filter(written).count(), 1);
}

#[test]
fn whatever_number_of_commits_is_in_the_journal_a_crash_loses_none() {
    for count in 0..40 {
        let bench = with_commits(count);
        let (before, bytes) = (all(&bench), bench.disk.crash().bytes());
        let live = bench.snapshot().counts().live;
        assert_eq!(verified(&bytes), live, "{count} commits");
        let bench = bench.crash();
        assert_eq!(all(&bench), before, "{count} commits");
        assert_eq!(verified(&bench.disk.bytes()), live);
    }
}

#[test]
fn what_was_not_flushed_and_was_closed_properly_is_not_undone_by_the_journal() {
    let mut bench = with_commits(5);
    bench.put("platforms/a", r#"{"n":"newer"}"#);
    let before = all(&bench);
    let Bench { disk, store, .. } = bench;
    drop(store);
    verified(&disk.bytes());
    assert_eq!(all(&Bench::over(1, disk, 2)), before);
}

#[test]
fn commits_of_one_page_of_several_and_of_too_many_are_there_after_a_crash() {
    let mut bench = Bench::new();
    for length in [3_000, 3_900, 6_000, 12_000, 20_000, 6_000, 100] {
        let json = format!(r#"{{"text":"{}"}}"#, "x".repeat(length));
        bench.request(durable("cells/a", whole(&json))).unwrap();
        bench.request(durable("platforms/a", whole(&json))).unwrap();
        let bench = Bench::over(1, bench.disk.crash(), 2);
        assert_eq!(bench.json("cells/a").unwrap(), json);
        assert_eq!(bench.json("platforms/a").unwrap(), json);
    }
}

/// Only the entry being written may be torn, because it was never acknowledged.
#[test]
fn a_torn_last_entry_is_as_if_never_written_and_a_torn_earlier_one_is_damage() {
    let whole = with_commits(5).disk.crash().bytes();
    let (first, last) = (JOURNAL.start, JOURNAL.start + 4 * PAGE);
    for at in [0, 4, 20, 28, 36, 40, 60] {
        let flipped = |entry: usize| {
            let mut bytes = whole.clone();
            bytes[entry + at] ^= 1;
            bytes
        };
        let bench = Bench::over(1, Ram::of(flipped(last)), 2);
        assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":0}"#, "the last was of it: byte {at}");
        verified(&flipped(last));
        let config = StoreConfig::new(node(1));
        let opened = Store::open(Ram::of(flipped(first)), config, &mut Counter(50), epoch()).map(|_| ());
        assert!(matches!(&opened, Err(Error::Damaged(words)) if words.contains("journal")), "byte {at}: {opened:?}");
        assert!(found(&flipped(first)).is_err(), "byte {at}");
    }
}

#[test]
fn entries_of_an_earlier_run_are_history() {
    let bench = with_commits(5);
    let old = bench.disk.crash().bytes()[JOURNAL].to_vec();
    let mut bench = bench.crash();
    bench.request(durable("cells/a", whole(r#"{"n":"new"}"#))).unwrap();
    let mut bytes = bench.disk.crash().bytes();
    bytes[JOURNAL.start + PAGE..JOURNAL.end].copy_from_slice(&old[PAGE..]);
    let after = Bench::over(1, Ram::of(bytes), 3);
    assert_eq!(after.json("cells/a").unwrap(), r#"{"n":"new"}"#);
}

/// A peer knows the run, and may guess the number of a commit.
#[test]
fn what_a_document_says_is_never_taken_for_an_entry() {
    let forged = encode(RunId([9; 16]), (5, 6), b"changes");
    let entry = encode(RunId([9; 16]), (4, 5), &forged.repeat(3));
    let pages: Vec<&[u8]> = entry.chunks(PAGE).collect();
    assert_eq!(pages.len(), 4);
    assert!(pages[1..].iter().all(|page| page[..40] == [0; 40]));
}

/// Returns the entry that docs/storage.md shows.
pub(super) fn example() -> Vec<u8> {
    let mut changes = vec![0x80];
    changes.push(8);
    changes.extend(tables::number_key(1));
    changes.extend([9, 4]);
    changes.extend(b"sync");
    changes.extend([1, 1]);
    encode(RunId([9; 16]), (4, 6), &changes)
}

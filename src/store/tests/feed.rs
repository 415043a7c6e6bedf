//! Resumption of subscribers: tokens, runs, and the names of deleted documents.

use super::*;
use crate::limits::DELETED_NAMES;
use crate::store::{PeerSetting, RunId, SavedPeer, Token};

#[test]
fn the_name_of_a_deleted_document_is_kept_with_who_deleted_it() {
    let mut bench = Bench::new();
    bench.put("cells/a", "{}");
    let deleted = bench.delete("cells/a");
    let snapshot = bench.snapshot();
    assert_eq!(snapshot.deleted_name(deleted.sequence).unwrap(), Some(key("cells/a")));
    let record = snapshot.record(&key("cells/a").hash()).unwrap().unwrap();
    assert_eq!((record.origin, record.name), (node(1), None));
    assert_eq!((snapshot.counts().live, snapshot.counts().tombstones), (0, 1));
}

#[test]
fn deleting_what_is_not_there_is_done_already() {
    let mut bench = Bench::new();
    assert_eq!(
        bench.delete("cells/a"),
        Written { version: Version(vec![]), sequence: 0, durable: true, dropped_bytes: 0 }
    );
    bench.put("cells/a", "{}");
    let deleted = bench.delete("cells/a");
    assert_eq!(bench.delete("cells/a"), deleted);
}

#[test]
fn a_tombstone_for_what_was_never_here_has_no_name_and_a_newer_one_keeps_it() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/a", "{}");
    b.take(&a, "cells/a");
    a.delete("cells/a");
    let mut c = Bench::of(3);
    c.take(&a, "cells/a");
    assert_eq!(c.snapshot().deleted_name(c.store.tip().visible).unwrap(), None);
    b.take(&a, "cells/a");
    a.put("cells/a", "{}");
    a.delete("cells/a");
    b.take(&a, "cells/a");
    let tip = b.store.tip().visible;
    assert_eq!(b.snapshot().deleted_name(tip).unwrap(), Some(key("cells/a")), "moved to the newer tombstone");
    assert_eq!(b.snapshot().deleted_name(tip - 1).unwrap(), None);
    assert_eq!(b.snapshot().counts().tombstones, 1);
}

#[test]
fn a_document_put_again_is_no_longer_among_the_deleted() {
    let mut bench = Bench::new();
    bench.put("cells/a", "{}");
    let deleted = bench.delete("cells/a");
    bench.put("cells/a", "{}");
    assert_eq!(bench.snapshot().deleted_name(deleted.sequence).unwrap(), None);
    assert_eq!((bench.snapshot().counts().live, bench.snapshot().counts().tombstones), (1, 0));
}

#[test]
fn the_oldest_names_of_the_deleted_are_dropped_and_the_floor_says_so() {
    let mut bench = Bench::new();
    let names: Vec<_> = (0..DELETED_NAMES + 2).map(|n| format!("tracks/{n}")).collect();
    bench.batch(names.iter().map(|name| write(name, whole("{}"))));
    assert_eq!(bench.snapshot().deleted_floor(), 0);
    let answers = bench.batch(names.iter().map(|name| write(name, Put::Delete)));
    let sequences: Vec<_> = answers.into_iter().map(|answer| written(answer).unwrap().sequence).collect();
    let snapshot = bench.snapshot();
    assert_eq!(snapshot.deleted_floor(), sequences[1]);
    assert_eq!(snapshot.deleted_name(sequences[1]).unwrap(), None);
    assert_eq!(snapshot.deleted_name(sequences[2]).unwrap(), Some(key("tracks/2")));
}

#[test]
fn tokens_of_this_history_are_known_and_others_are_stale() {
    let mut bench = Bench::new();
    let first = bench.store.run();
    written(bench.request(durable("platforms/a", whole("{}")))).unwrap();
    bench.put("platforms/lost", "{}");
    assert!(bench.snapshot().token_is_known(first, 2).unwrap());
    assert!(!bench.snapshot().token_is_known(first, 3).unwrap());
    let mut bench = bench.crash();
    let second = bench.store.run();
    assert_ne!(first, second);
    assert!(bench.snapshot().token_is_known(first, 1).unwrap());
    assert!(!bench.snapshot().token_is_known(first, 2).unwrap(), "lost in the crash");
    assert!(bench.snapshot().token_is_known(second, 1).unwrap());
    bench.put("platforms/b", "{}");
    assert!(bench.snapshot().token_is_known(second, 2).unwrap());
    assert!(!bench.snapshot().token_is_known(first, 2).unwrap(), "that number means another document now");
    assert!(!bench.snapshot().token_is_known(RunId([0; 16]), 0).unwrap());
    assert_eq!(bench.snapshot().runs().unwrap(), [(first, 1), (second, 2)]);
}

#[test]
fn a_reader_that_was_shown_what_a_crash_took_back_is_not_known() {
    let mut bench = Bench::new();
    let run = bench.store.run();
    written(bench.request(durable("platforms/a", whole("{}")))).unwrap();
    written(bench.request(durable("platforms/b", whole("{}")))).unwrap();
    bench.put("platforms/undone", "{}");
    let halfway = bench.snapshot().token(run, 1);
    assert!(bench.snapshot().knows(&halfway).unwrap());
    let bench = bench.crash();
    assert!(!bench.snapshot().knows(&halfway).unwrap(), "it would keep platforms/undone, which is not in the index");
    assert!(bench.snapshot().knows(&Token { horizon: 2, ..halfway }).unwrap());
}

#[test]
fn a_reader_that_was_behind_when_the_backup_was_made_is_not_known_once_that_is_restored() {
    let mut bench = Bench::new();
    let run = bench.store.run();
    for name in ["platforms/a", "platforms/b", "platforms/c"] {
        written(bench.request(durable(name, whole("{}")))).unwrap();
    }
    let backup = Ram::of(bench.disk.bytes());
    written(bench.request(durable("platforms/a", whole(r#"{"n":1}"#)))).unwrap();
    // The scan has passed platforms/a, which has moved behind platforms/c since the backup.
    let halfway = bench.snapshot().token(run, 2);
    let restored = Bench::over(1, backup, 3);
    assert!(restored.snapshot().token_is_known(run, 2).unwrap());
    assert!(!restored.snapshot().knows(&halfway).unwrap(), "it would never hear of platforms/a");
}

#[test]
fn what_is_settled_stops_before_records_that_a_crash_would_put_back() {
    let mut bench = Bench::new();
    for name in ["platforms/a", "platforms/b", "platforms/c"] {
        written(bench.request(durable(name, whole("{}")))).unwrap();
    }
    assert_eq!(bench.snapshot().settled(), 3);
    bench.put("platforms/new", "{}");
    assert_eq!(bench.snapshot().settled(), 4, "nothing was removed");
    bench.put("platforms/b", r#"{"n":1}"#);
    assert_eq!(bench.snapshot().settled(), 1);
    bench.put("platforms/c", r#"{"n":1}"#);
    assert_eq!((bench.snapshot().settled(), bench.snapshot().flushed()), (1, 3));
    bench.request(StoreRequest::Flush).unwrap();
    assert_eq!((bench.snapshot().settled(), bench.snapshot().flushed()), (6, 6));
    bench.put("platforms/a", r#"{"n":1}"#);
    assert_eq!(bench.crash().snapshot().settled(), 6);
}

#[test]
fn settings_are_on_disk_when_answered() {
    let mut bench = Bench::new();
    assert_eq!(bench.snapshot().sync_setting().unwrap(), None);
    let links = [
        SavedPeer { peer: node(7), wish: PeerSetting::Connect(vec!["a:1".into(), "relay:b:2".into()]) },
        SavedPeer { peer: node(8), wish: PeerSetting::Refuse(Vec::new()) },
        SavedPeer { peer: node(9), wish: PeerSetting::Refuse(vec!["a:1".into()]) },
        SavedPeer { peer: node(10), wish: PeerSetting::Seen("10.0.0.1:4242".into()) },
    ];
    let saves = links.iter().cloned().map(StoreRequest::SaveLink).chain([StoreRequest::SaveSync(false)]);
    assert!(bench.batch(saves).into_iter().all(|answer| matches!(answer, Ok(Outcome::Done))));
    let bench = bench.crash();
    assert_eq!(bench.snapshot().links().unwrap(), links);
    assert_eq!(bench.snapshot().sync_setting().unwrap(), Some(false));
}

#[test]
fn a_flush_makes_everything_before_it_durable() {
    let mut bench = Bench::new();
    bench.put("platforms/a", "{}");
    assert!(matches!(bench.request(StoreRequest::Flush), Ok(Outcome::Done)));
    assert_eq!(bench.store.tip().durable, 1);
    let syncs = bench.disk.syncs();
    bench.request(StoreRequest::Flush).unwrap();
    assert_eq!(bench.disk.syncs(), syncs, "nothing was owed");
}

#[test]
fn what_the_store_does_is_counted() {
    let mut bench = Bench::new();
    bench.put("platforms/a", "{}");
    bench.put("notes/b", r#"{"n":1}"#);
    assert!(matches!(bench.request(StoreRequest::Nothing), Ok(Outcome::Done)));
    let reader = bench.store.reader();
    let figures = reader.figures();
    let counted = |figure: &crate::metrics::Figure| figure.get();
    assert_eq!((counted(&figures.commits), counted(&figures.flushes), counted(&figures.documents)), (2, 1, 2));
    assert!(counted(&figures.bytes) > 0 && counted(&figures.failures) == 0);
    assert_eq!(counted(&figures.cached), 1, "a merged document is kept loaded");
    assert!(counted(&figures.cache_bytes) > 0 && counted(&figures.cache_bytes) < counted(&figures.cache_limit_bytes));
}

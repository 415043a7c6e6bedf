//! Registers: whole documents, of which the newest stamp wins.

use super::*;

#[test]
fn a_document_is_read_back_with_its_keys_sorted() {
    let mut bench = Bench::new();
    let written = bench.put("platforms/a", r#"{"b": 1, "a": {"z": null, "é": 18446744073709551615}}"#);
    let document = bench.document("platforms/a").unwrap();
    assert_eq!(document.json, r#"{"a":{"z":null,"é":18446744073709551615},"b":1}"#);
    assert_eq!((document.version, document.sequence, document.incarnation), (written.version, 1, 1));
    assert_eq!(document.origin, node(1));
    assert_eq!(bench.json("platforms/b"), None);
}

#[test]
fn ids_of_a_collection_are_listed_in_order_without_their_neighbours() {
    let mut bench = Bench::new();
    for name in ["tracks/b", "tracks/a", "tracksx/c", "track/d", "tracks/é"] {
        bench.put(name, "{}");
    }
    bench.delete("tracks/b");
    assert_eq!(bench.snapshot().list("tracks").unwrap(), ["a", "é"]);
    assert_eq!(bench.snapshot().list("none").unwrap(), Vec::<String>::new());
}

#[test]
fn a_relaxed_write_says_so_and_is_flushed_within_the_interval() {
    let mut bench = Bench::new();
    let syncs = bench.disk.syncs();
    let written = bench.put("platforms/a", "{}");
    assert!(!written.durable);
    assert_eq!(bench.disk.syncs(), syncs);
    assert_eq!((bench.store.tip().visible, bench.store.tip().durable), (1, 0));
    bench.pass(Duration::from_secs(1));
    assert!(bench.disk.syncs() > syncs);
    assert_eq!(bench.store.tip().durable, 1);
    assert_eq!(bench.store.poll_deadline(), None);
}

#[test]
fn a_durable_write_survives_a_crash_and_a_relaxed_one_may_not() {
    let mut bench = Bench::new();
    let kept = written(bench.request(durable("platforms/kept", whole("{}")))).unwrap();
    assert!(kept.durable);
    bench.put("platforms/lost", "{}");
    let bench = bench.crash();
    assert!(bench.json("platforms/kept").is_some());
    assert!(bench.json("platforms/lost").is_none());
}

#[test]
fn a_put_of_what_is_there_changes_nothing_but_still_waits_for_the_disk_when_asked() {
    let mut bench = Bench::new();
    let first = bench.put("platforms/a", "{}");
    let again = bench.put("platforms/a", " { } ");
    assert_eq!(again, first);
    let flushed = written(bench.request(durable("platforms/a", whole("{}")))).unwrap();
    assert_eq!(flushed, Written { durable: true, ..first });
}

#[test]
fn a_write_that_found_its_content_in_place_is_not_answered_for_a_later_write_of_the_same_batch() {
    let mut bench = Bench::new();
    let first = written(bench.request(durable("platforms/a", whole("{}")))).unwrap();
    let later = Put::Whole { json: r#"{"n":1}"#.to_owned(), base: None };
    let relaxed = StoreRequest::Write(DocumentWrite { key: key("platforms/a"), put: later, durable: false });
    let replies = bench.batch([durable("platforms/a", whole("{}")), relaxed]);
    let answers: Vec<Written> = replies.into_iter().map(|reply| written(reply).unwrap()).collect();
    assert_eq!(answers[0], first);
    assert!(answers[1].sequence > first.sequence);
}

#[test]
fn a_base_must_be_current() {
    let mut bench = Bench::new();
    let first = bench.put("platforms/a", r#"{"n":1}"#);
    let second = bench.write("platforms/a", based(r#"{"n":2}"#, &first.version)).unwrap();
    let stale = bench.write("platforms/a", based(r#"{"n":3}"#, &first.version)).unwrap_err();
    assert!(matches!(stale, Error::BaseNotCurrent(_)));
    let of_another = bench.write("platforms/b", based("{}", &second.version)).unwrap_err();
    assert!(matches!(of_another, Error::UnknownBase(_)), "a version of another document");
    let garbage = bench.write("platforms/a", based("{}", &Version(vec![1, 2, 3]))).unwrap_err();
    assert!(matches!(garbage, Error::MalformedBase(_)));
    assert_eq!(bench.json("platforms/a").unwrap(), r#"{"n":2}"#);
}

#[test]
fn patches_and_fields_touch_only_what_they_name() {
    let mut bench = Bench::new();
    bench.put("platforms/a", r#"{"keep":1,"drop":2,"deep":{"x":1,"y":2}}"#);
    let patch = Put::Patch { json: r#"{"drop":null,"deep":{"x":9}}"#.into(), base: None };
    bench.write("platforms/a", patch).unwrap();
    assert_eq!(bench.json("platforms/a").unwrap(), r#"{"deep":{"x":9,"y":2},"keep":1}"#);
    let mut fields = |fields: serde_json::Value| {
        bench.write("platforms/a", Put::Fields(fields.as_object().unwrap().clone())).unwrap();
        bench.json("platforms/a").unwrap()
    };
    assert_eq!(fields(serde_json::json!({"deep": 1, "new": [2]})), r#"{"deep":1,"keep":1,"new":[2]}"#);
    assert_eq!(fields(serde_json::json!({"deep": null, "never": null})), r#"{"keep":1,"new":[2]}"#);
    bench.write("platforms/new", Put::Patch { json: r#"{"a":null,"b":1}"#.into(), base: None }).unwrap();
    assert_eq!(bench.json("platforms/new").unwrap(), r#"{"b":1}"#);
}

#[test]
fn writes_to_one_document_in_a_batch_become_one_record_and_each_is_answered() {
    let mut bench = Bench::new();
    let writes = (0..5).map(|n| write("platforms/a", whole(&format!(r#"{{"n":{n}}}"#))));
    let mut answers: Vec<_> = bench.batch(writes).into_iter().map(|answer| written(answer).unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.sequence == 1));
    answers.dedup_by_key(|answer| answer.version.clone());
    assert_eq!(answers.len(), 5);
    assert_eq!(bench.json("platforms/a").unwrap(), r#"{"n":4}"#);
    assert_eq!(bench.document("platforms/a").unwrap().version, answers[4].version);
}

#[test]
fn a_refused_write_leaves_the_rest_of_its_batch_alone() {
    let mut bench = Bench::new();
    let answers = bench.batch([
        write("platforms/a", whole("{}")),
        write("platforms/a", whole("[1]")),
        write("platforms/b", whole(&format!(r#"{{"big":"{}"}}"#, "x".repeat(1 << 20)))),
    ]);
    assert!(answers[0].is_ok());
    assert!(matches!(answers[1], Err(Error::Json { .. })));
    assert!(matches!(answers[2], Err(Error::DocumentTooLarge { .. })));
    assert_eq!(bench.json("platforms/a").unwrap(), "{}");
    assert_eq!(bench.json("platforms/b"), None);
}

#[test]
fn sequence_numbers_follow_the_order_of_the_last_writes() {
    let mut bench = Bench::new();
    let names = ["platforms/z", "platforms/m", "platforms/a", "platforms/z"];
    bench.batch(names.into_iter().enumerate().map(|(n, name)| write(name, whole(&format!(r#"{{"n":{n}}}"#)))));
    let snapshot = bench.snapshot();
    let entries: Vec<_> = snapshot.entries(Kind::Latest, 0).unwrap().map(|entry| entry.unwrap().hash).collect();
    assert_eq!(entries, ["platforms/m", "platforms/a", "platforms/z"].map(|name| key(name).hash()));
}

#[test]
fn the_index_has_one_entry_and_the_file_one_record_a_document_however_often_it_changes() {
    let mut bench = Bench::new();
    for n in 0..10 {
        bench.put("platforms/a", &format!(r#"{{"n":{n}}}"#));
        bench.put("platforms/b", "{}");
    }
    bench.delete("platforms/a");
    let snapshot = bench.snapshot();
    let entries: Vec<_> = snapshot.entries(Kind::Latest, 0).unwrap().map(Result::unwrap).collect();
    assert_eq!(entries.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [2, 12]);
    assert_eq!(snapshot.entries(Kind::Latest, 2).unwrap().count(), 1);
    assert_eq!(snapshot.rows(), [2, 2, 0]);
    assert_eq!(snapshot.entries(Kind::Merged, 0).unwrap().count(), 0);
    for entry in entries {
        assert_eq!(snapshot.record(&entry.hash).unwrap().unwrap().version_hash(), entry.version);
    }
}

#[test]
fn a_durable_write_that_changes_nothing_makes_what_follows_in_its_batch_durable() {
    let mut bench = Bench::new();
    bench.put("platforms/a", "{}");
    bench.delete("platforms/a");
    bench.pass(Duration::from_secs(2));
    let requests = [durable("platforms/a", Put::Delete), write("platforms/a", whole("{}"))];
    let mut results = bench.batch(requests).into_iter().map(written);
    assert!(results.next().unwrap().unwrap().durable);
    assert!(bench.crash().json("platforms/a").is_some());
}

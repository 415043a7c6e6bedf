//! Merged documents through the store: bases, histories, incarnations.

use super::*;
use crate::store::Part;

fn chunks(bench: &Bench, name: &str) -> Vec<Part> {
    match bench.snapshot().record(&key(name).hash()).unwrap().unwrap().content {
        Content::Merged { history, .. } => history.parts().to_vec(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_write_is_on_disk_before_its_answer() {
    let mut bench = Bench::new();
    assert!(bench.put("cells/a", r#"{"n":1}"#).durable);
    let bench = bench.crash();
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":1}"#);
}

#[test]
fn a_superseded_base_is_merged() {
    let mut bench = Bench::new();
    let seen = bench.put("cells/a", r#"{"x":1,"y":1}"#);
    bench.put("cells/a", r#"{"x":2,"y":1}"#);
    bench.write("cells/a", based(r#"{"x":1,"y":2}"#, &seen.version)).unwrap();
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"x":2,"y":2}"#);
}

fn patch_at(json: &str, base: &Version) -> Put {
    Put::Patch { json: json.into(), base: Some(base.clone()) }
}

#[test]
fn a_patch_with_a_superseded_base_writes_only_what_it_names() {
    let mut bench = Bench::new();
    let seen = bench.put("cells/a", r#"{"in":{"l":[1,2],"x":1},"tags":["x"]}"#);
    bench.put("cells/a", r#"{"in":{"l":[2,3,{"k":[1]}],"y":1},"m":[1],"tags":["x","new"]}"#);
    for n in 0..3 {
        bench.write("cells/a", patch_at(r#"{"n":1}"#, &seen.version)).unwrap();
        bench.write("cells/a", patch_at(&format!(r#"{{"in":{{"z":{n}}}}}"#), &seen.version)).unwrap();
        bench.write("cells/a", patch_at(r#"{"in":{"x":null},"gone":null}"#, &seen.version)).unwrap();
        assert!(bench.json("cells/a").unwrap().ends_with(r#""m":[1],"n":1,"tags":["x","new"]}"#));
    }
    let shown = bench.json("cells/a").unwrap();
    assert!(shown.starts_with(r#"{"in":{"l":[2,3,{"k":[1]}],"y":1,"z":"#), "{shown}");
}

#[test]
fn a_patch_with_a_superseded_base_removes_what_it_names_and_what_came_since_stays() {
    let mut bench = Bench::new();
    let seen = bench.put("cells/a", r#"{"x":1,"y":{"a":1,"b":1}}"#);
    bench.put("cells/a", r#"{"x":1,"y":{"a":1,"b":1,"c":[1]},"z":[{}]}"#);
    bench.write("cells/a", patch_at(r#"{"x":null,"y":{"a":null}}"#, &seen.version)).unwrap();
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"y":{"b":1,"c":[1]},"z":[{}]}"#);
}

#[test]
fn a_put_or_patch_sent_again_with_its_base_is_written_once() {
    let mut bench = Bench::new();
    let seen = bench.put("cells/a", r#"{"tags":["x"]}"#);
    let first = bench.write("cells/a", based(r#"{"tags":["x","put"]}"#, &seen.version)).unwrap();
    bench.put("cells/a", r#"{"tags":["x","put"],"later":1}"#);
    let latest = bench.write("cells/a", patch_at(r#"{"tags":["x","patch"]}"#, &seen.version)).unwrap();
    assert_ne!(first.version, latest.version);
    for _ in 0..3 {
        for put in
            [based(r#"{"tags":["x","put"]}"#, &seen.version), patch_at(r#"{"tags":["x","patch"]}"#, &seen.version)]
        {
            assert_eq!(bench.write("cells/a", put).unwrap().version, latest.version);
        }
    }
    let shown = bench.json("cells/a").unwrap();
    assert_eq!((shown.matches("put").count(), shown.matches("patch").count()), (1, 1), "{shown}");
}

#[test]
fn without_a_base_a_put_replaces_what_is_held() {
    let mut bench = Bench::new();
    bench.put("cells/a", r#"{"x":1,"y":1}"#);
    bench.put("cells/a", r#"{"z":1}"#);
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"z":1}"#);
}

#[test]
fn an_unknown_base_or_one_of_an_earlier_incarnation_is_refused() {
    let mut bench = Bench::new();
    let first = bench.put("cells/a", r#"{"x":1}"#);
    let other = Bench::of(2).put("cells/a", r#"{"y":1}"#);
    let unknown = bench.write("cells/a", based("{}", &other.version)).unwrap_err();
    assert!(matches!(unknown, Error::UnknownBase(_)));
    let deleted = bench.delete("cells/a");
    assert!(matches!(bench.write("cells/a", based("{}", &first.version)), Err(Error::UnknownBase(_))));
    bench.write("cells/a", based(r#"{"x":2}"#, &deleted.version)).unwrap();
    assert!(matches!(bench.write("cells/a", based("{}", &first.version)), Err(Error::UnknownBase(_))));
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"x":2}"#);
    assert_eq!(bench.document("cells/a").unwrap().incarnation, 2);
}

#[test]
fn increments_are_labelled_with_their_commits_and_folded_when_they_outgrow_the_base() {
    let mut bench = Bench::new();
    bench.put("cells/a", r#"{"n":0}"#);
    bench.put("cells/a", r#"{"n":1}"#);
    let labels: Vec<_> = chunks(&bench, "cells/a").into_iter().map(|part| part.label).collect();
    assert_eq!(labels, [1, 2]);
    let largest = (2..60).map(|n| {
        bench.put("cells/a", &format!(r#"{{"n":{n}}}"#));
        chunks(&bench, "cells/a").len()
    });
    let lengths: Vec<_> = largest.collect();
    assert!(lengths.contains(&1), "folded at least once: {lengths:?}");
    let bench = bench.crash();
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"n":59}"#);
}

#[test]
fn a_put_writes_one_chunk_and_a_history_that_ends_takes_its_chunks_along() {
    let (mut bench, mut other) = (Bench::new(), Bench::of(2));
    let chunk_rows = |bench: &Bench| bench.snapshot().rows()[2];
    bench.put("cells/a", r#"{"n":0}"#);
    for n in 1..4 {
        bench.put("cells/a", &format!(r#"{{"n":{n}}}"#));
        assert_eq!(chunk_rows(&bench), n + 1);
    }
    other.take(&bench, "cells/a");
    assert_eq!(chunk_rows(&other), 1);
    bench.put("cells/a", r#"{"n":4}"#);
    other.put("cells/a", r#"{"m":1,"n":3}"#);
    other.take(&bench, "cells/a");
    assert_eq!(chunk_rows(&other), chunks(&other, "cells/a").len() as u64);
    for n in 5..60 {
        bench.put("cells/a", &format!(r#"{{"n":{n}}}"#));
        assert_eq!(chunk_rows(&bench), chunks(&bench, "cells/a").len() as u64);
    }
    bench.write("cells/a", Put::Compact).unwrap();
    assert_eq!(chunk_rows(&bench), 1);
    bench.batch([write("cells/a", whole(r#"{"n":1}"#)), write("cells/a", whole(r#"{"n":2}"#))]);
    assert_eq!(chunk_rows(&bench), 2);
    bench.batch([write("cells/a", whole(r#"{"n":3}"#)), write("cells/a", Put::Delete)]);
    assert_eq!(chunk_rows(&bench), 0);
    for bench in [bench, other] {
        let found = super::verify::found(&bench.crash().disk.crash().bytes()).unwrap().unwrap();
        assert_eq!(found.complaints, 0, "{:?}", found.damaged);
    }
}

#[test]
fn a_document_not_in_memory_is_changed_from_its_stored_history() {
    let mut bench = Bench::new();
    bench.put("cells/a", r#"{"x":1,"y":1}"#);
    let mut bench = bench.crash();
    bench.put("cells/a", r#"{"x":2,"y":1}"#);
    let history = bench.snapshot().changes_since(&key("cells/a").hash(), &[]).unwrap().unwrap();
    let doc = crate::store::merged::Doc::load(&history, [0; 16]).unwrap();
    assert_eq!(crate::store::json::to_text(doc.json()), r#"{"x":2,"y":1}"#);
}

#[test]
fn several_writes_in_a_batch_make_one_record_with_every_change() {
    let mut bench = Bench::new();
    let seen = bench.put("cells/a", r#"{"x":1,"y":1}"#);
    let answers = bench.batch([
        write("cells/a", based(r#"{"x":2,"y":1}"#, &seen.version)),
        write("cells/a", based(r#"{"x":1,"y":2}"#, &seen.version)),
    ]);
    let [one, two] = answers.try_into().unwrap();
    assert_eq!(written(one).unwrap().sequence, written(two).unwrap().sequence);
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"x":2,"y":2}"#);
    let bench = bench.crash();
    assert_eq!(bench.json("cells/a").unwrap(), r#"{"x":2,"y":2}"#);
}

#[test]
fn compacting_starts_an_incarnation_without_the_history() {
    let mut bench = Bench::new();
    for n in 0..100 {
        bench.put("cells/a", &format!(r#"{{"n":{n}}}"#));
    }
    let compacted = bench.write("cells/a", Put::Compact).unwrap();
    assert!(compacted.dropped_bytes > 100, "{compacted:?}");
    let document = bench.document("cells/a").unwrap();
    assert_eq!((document.json.as_str(), document.incarnation), (r#"{"n":99}"#, 2));
    assert!(matches!(bench.write("cells/b", Put::Compact), Err(Error::NotFound(_))));
    bench.put("platforms/a", "{}");
    assert!(matches!(bench.write("platforms/a", Put::Compact), Err(Error::NoHistory(_))));
}

#[test]
fn an_empty_object_is_a_document() {
    let mut bench = Bench::new();
    bench.put("cells/a", "{}");
    assert_eq!(bench.json("cells/a").unwrap(), "{}");
    let mut other = Bench::of(2);
    assert!(other.take(&bench, "cells/a").refused.is_empty());
    assert_eq!(other.json("cells/a").unwrap(), "{}");
    bench.put("cells/a", r#"{"x":1}"#);
    other.take(&bench, "cells/a");
    assert_eq!(other.json("cells/a").unwrap(), r#"{"x":1}"#);
}

#[test]
fn a_collection_that_changed_its_kind_starts_an_incarnation_of_the_new_one() {
    let bench = {
        let mut bench = Bench::new();
        bench.put("things/a", r#"{"x":1}"#);
        bench
    };
    let disk = bench.disk.crash();
    let mut config = StoreConfig::new(node(1));
    config.latest_collections.insert("things".into());
    let store = Store::open(disk.clone(), config, &mut Counter(99), bench.now).unwrap();
    let mut bench = Bench { store, disk, ..bench };
    assert_eq!(bench.json("things/a").unwrap(), r#"{"x":1}"#);
    let patch = Put::Patch { json: r#"{"y":1}"#.into(), base: None };
    bench.write("things/a", patch).unwrap();
    let record = bench.snapshot().record(&key("things/a").hash()).unwrap().unwrap();
    assert_eq!((record.kind, record.incarnation), (Kind::Latest, 2));
    assert_eq!(record.json().unwrap(), r#"{"x":1,"y":1}"#);
    assert_eq!(bench.snapshot().entries(Kind::Merged, 0).unwrap().count(), 0);
    assert_eq!(bench.snapshot().list("things").unwrap(), ["a"]);
}

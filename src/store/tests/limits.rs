//! Limits bind writers, not merges, and their errors name the remedy.

use super::*;
use crate::error::Blame;
use crate::limits::{CHUNK_ROWS, DOCUMENT_ELEMENTS, DOCUMENT_JSON_BYTES, HISTORY_BYTES, WRITTEN_ROWS};
use crate::store::chunk::{Bounds, Expansion};
use peat_ipc::Code;

fn of_size(field: &str, bytes: usize) -> String {
    format!(r#"{{"{field}":"{}"}}"#, "x".repeat(bytes - field.len() - 7))
}

#[test]
fn a_document_of_exactly_the_limit_is_taken_and_a_byte_more_is_not() {
    let mut bench = Bench::new();
    for collection in ["cells", "platforms"] {
        let name = format!("{collection}/a");
        bench.put(&name, &of_size("a", DOCUMENT_JSON_BYTES));
        let refused = bench.write(&name, whole(&of_size("a", DOCUMENT_JSON_BYTES + 1))).unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(refused.blame(), Blame::Client);
        assert!(refused.to_string().contains("the limit is 1.0 MiB"), "{refused}");
        assert_eq!(bench.json(&name).unwrap().len(), DOCUMENT_JSON_BYTES);
    }
}

#[test]
fn what_json_cannot_be_held_is_refused_by_name() {
    let mut bench = Bench::new();
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(64), "]".repeat(64));
    for json in [deep.as_str(), "[]", "1", "", "{", r#"{"a":1,"a":2}"#, r#"{"a":1e999}"#, r#"{"a":NaN}"#] {
        let refused = bench.write("cells/a", whole(json)).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{json}");
        assert!(refused.to_string().contains("cells/a"), "{refused}");
    }
    assert_eq!(bench.json("cells/a"), None);
}

#[test]
fn a_merge_that_exceeds_the_limit_is_kept_and_then_only_shrinking_puts_are_taken() {
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    a.put("cells/x", "{}");
    b.take(&a, "cells/x");
    let size = DOCUMENT_JSON_BYTES * 2 / 3;
    a.put("cells/x", &of_size("a", size));
    b.put("cells/x", &of_size("b", size));
    a.take(&b, "cells/x");
    let merged = a.json("cells/x").unwrap();
    assert!(merged.len() > DOCUMENT_JSON_BYTES);
    let patch = |json: &str| Put::Patch { json: json.into(), base: None };
    let refused = a.write("cells/x", patch(r#"{"c":1}"#)).unwrap_err();
    assert!(matches!(refused, Error::DocumentTooLarge { .. }));
    a.write("cells/x", patch(r#"{"a":"shorter, still too long with the other"}"#)).unwrap();
    a.write("cells/x", patch(r#"{"c":1}"#)).unwrap();
}

#[test]
fn a_history_over_the_limit_refuses_puts_and_names_the_remedy() {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz";
    let mut bench = Bench::new();
    let mut grown = 0;
    let refused = loop {
        // Every version has new text, so that nothing compresses.
        let text: String = (0..100_000).map(|at| char::from(LETTERS[(at * 7 + grown) % LETTERS.len()])).collect();
        match bench.write("cells/x", whole(&format!(r#"{{"n":{grown},"text":"{text}"}}"#))) {
            Ok(_) => grown += 1,
            Err(refused) => break refused,
        }
        assert!(grown < 100);
    };
    assert!(grown * 100_000 > HISTORY_BYTES);
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.to_string().contains("peat-node compact cells x"), "{refused}");
    let compacted = bench.write("cells/x", Put::Compact).unwrap();
    assert!(compacted.dropped_bytes > HISTORY_BYTES as u64 / 2);
    bench.put("cells/x", "{}");
}

/// Each edit of a field repeats its key in the history that a peer loads.
#[test]
fn a_writer_of_long_keys_is_refused_before_a_peer_would_refuse_it() {
    const KEYS: usize = 60;
    let (mut a, mut b) = (Bench::of(1), Bench::of(2));
    let mut written = 0;
    let refused = loop {
        let fields = (0..KEYS).map(|key| format!(r#""{key:08000}":{written}"#)).collect::<Vec<_>>().join(",");
        match a.write("cells/x", whole(&format!("{{{fields}}}"))) {
            Ok(_) => written += 1,
            Err(refused) => break refused,
        }
        assert!(written < 1_000);
    };
    assert!(written > 50, "{written} edits");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.to_string().contains("peat-node compact cells x"), "{refused}");
    b.take(&a, "cells/x");
    assert_eq!(b.json("cells/x"), a.json("cells/x"), "what was acknowledged, a peer takes");
    a.write("cells/x", Put::Compact).unwrap();
    a.put("cells/x", r#"{"short":1}"#);
    b.take(&a, "cells/x");
    assert_eq!(b.json("cells/x").as_deref(), Some(r#"{"short":1}"#));
}

#[test]
fn the_bounds_of_a_writer_are_below_those_of_a_peer() {
    let (writer, peer) = (Bounds::of_rows(WRITTEN_ROWS), Bounds::of_rows(CHUNK_ROWS));
    let at = |rows, string_bytes| Expansion { rows, string_bytes };
    let bounds = [
        (at(WRITTEN_ROWS + 1, 0), (1, 1), "operations"),
        (at(0, 64 * WRITTEN_ROWS + 1), (1, 1), "bytes of keys"),
        (at(0, 0), (5_000, 16 * WRITTEN_ROWS / 5_000 + 1), "concurrent writers"),
    ];
    for (expansion, authorship, what) in bounds {
        let bound = writer.exceeded(expansion, authorship).expect("exceeded");
        assert!(bound.what.contains(what), "{bound:?}");
        assert_eq!(peer.exceeded(expansion, authorship), None);
    }
    assert_eq!(writer.exceeded(at(WRITTEN_ROWS, 64 * WRITTEN_ROWS), (1, 16 * WRITTEN_ROWS)), None);
}

#[test]
fn a_merged_document_of_more_elements_than_the_limit_is_refused_with_the_remedy_and_a_latest_one_is_not() {
    let mut bench = Bench::new();
    let of = |elements: usize| format!(r#"{{"l":[{}]}}"#, vec!["0"; elements - 1].join(","));
    let refused = bench.write("cells/x", whole(&of(DOCUMENT_ELEMENTS + 1))).unwrap_err();
    assert_eq!((refused.code(), refused.blame()), (Code::ResourceExhausted, Blame::Client));
    let words = refused.to_string();
    assert!(words.contains("131073") && words.contains("131072") && words.contains("--latest-collection"), "{words}");
    bench.put("platforms/x", &of(DOCUMENT_ELEMENTS + 1));
    bench.put("cells/x", &of(DOCUMENT_ELEMENTS));
    let patch = Put::Patch { json: r#"{"more":{"a":1}}"#.into(), base: None };
    assert!(matches!(bench.write("cells/x", patch), Err(Error::TooManyElements { elements: 131_074, .. })));
    let nested = format!(r#"{{"l":[{}]}}"#, vec![r#"{"a":[1]}"#; DOCUMENT_ELEMENTS / 3].join(","));
    bench.put("cells/y", &nested);
}

#[test]
fn errors_say_who_has_to_act() {
    let io = Error::from(std::io::Error::other("boom"));
    assert_eq!((io.code(), io.blame()), (Code::Unavailable, Blame::Machine));
    assert_eq!(Error::from(std::io::Error::from(std::io::ErrorKind::StorageFull)).code(), Code::ResourceExhausted);
    let newer = Error::NewerFormat { found: 9, known: 1 };
    assert_eq!((newer.blame(), newer.code()), (Blame::Operator, Code::FailedPrecondition));
    assert_eq!(Error::Damaged("x".into()).code(), Code::DataLoss);
    assert_eq!(Error::NotFound(key("a/b")).code(), Code::NotFound);
}

#[test]
fn a_write_that_fills_a_commit_is_answered_before_the_next_one_is_begun() {
    let mut bench = Bench::new();
    let text = format!(r#"{{"text":"{}"}}"#, "x".repeat(100_000));
    let submitted = |call, name| Envelope { ticket: Ticket::Api(call), request: write(name, whole(&text)) };
    let mut requests = [submitted(0, "platforms/a"), submitted(1, "platforms/b")].into_iter().peekable();
    for call in 0..2 {
        let mut replies = Vec::new();
        bench.store.handle_commit(bench.now, &mut requests, &mut replies);
        assert_eq!(replies.iter().map(|reply| reply.ticket).collect::<Vec<_>>(), [Ticket::Api(call)]);
    }
    let mut replies = Vec::new();
    bench.store.handle_commit(bench.now, &mut requests, &mut replies);
    assert!(replies.is_empty());
    assert!(bench.json("platforms/b").is_some());
}

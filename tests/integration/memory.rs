//! Memory use of loaded documents.

use std::fs;

use peat_ipc::sidecar::{PatchDocumentRequest, PutDocumentRequest};
use peat_ipc::{Client, Pending, Target};

use crate::node::{Node, directory, eventually};

const DOCUMENTS: usize = 6;
const FIELDS: usize = 30;
/// Size of one field in bytes: 60 KB per document, and 600 KB of history.
const FIELD_BYTES: usize = 2_000;
const PATCHES: usize = 270;
/// Maximum number of calls in flight.
const FLYING: usize = 16;
const CACHE_BYTES: usize = 8 << 20;
/// Allowance in bytes for one load in progress, the allocator's overhead, and the rest of the process.
const BESIDE_BYTES: usize = 24 << 20;

/// Returns the resident memory that the kernel reports for the node, in bytes.
fn resident_bytes(node: &Node) -> usize {
    let pid = fs::read_to_string(node.data().join("lock")).expect("locked");
    let status = fs::read_to_string(format!("/proc/{}/status", pid.trim())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has memory");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") << 10
}

fn client(node: &Node) -> Client {
    let socket = Target::Unix(node.home().join("socket"));
    eventually("the node answers", || Client::connect(&socket).ok())
}

fn value(edition: usize) -> String {
    format!("{edition:0FIELD_BYTES$}")
}

/// Sets a field of each document, with a few calls in flight.
fn patch(client: &mut Client, editions: impl Iterator<Item = usize>) {
    let mut flying: Vec<Pending<PatchDocumentRequest>> = Vec::new();
    for (edition, document) in editions.flat_map(|edition| (0..DOCUMENTS).map(move |document| (edition, document))) {
        if flying.len() == FLYING {
            client.finish(flying.remove(0)).expect("patched");
        }
        let patch_json = format!(r#"{{"field{:02}":"{}"}}"#, edition % FIELDS, value(edition));
        let (collection, doc_id) = ("notes".into(), document.to_string());
        let patch = PatchDocumentRequest { collection, doc_id, patch_json, ..Default::default() };
        flying.push(client.start(&patch).expect("sent"));
    }
    flying.into_iter().for_each(|call| drop(client.finish(call).expect("patched")));
}

#[test]
fn documents_with_long_histories_take_no_more_memory_than_the_cache_has_once_they_are_loaded_again() {
    let home = directory();
    let mut node = Node::start(home.path(), &["--cache-bytes", &CACHE_BYTES.to_string()]);
    let mut calls = client(&node);
    for document in 0..DOCUMENTS {
        let fields: Vec<_> = (0..FIELDS).map(|field| format!(r#""field{field:02}":"{}""#, value(field))).collect();
        let json_data = format!("{{{}}}", fields.join(","));
        let (collection, doc_id) = ("notes".into(), document.to_string());
        let put = PutDocumentRequest { collection, doc_id, json_data, ..Default::default() };
        calls.put_document(&put).expect("put");
    }
    patch(&mut calls, 0..PATCHES);
    drop(calls);
    node.kill();
    node.start_again();
    let mut calls = client(&node);
    let before = resident_bytes(&node);
    patch(&mut calls, PATCHES..PATCHES + 1);
    let grown = resident_bytes(&node).saturating_sub(before);
    println!("grown by {} KiB", grown >> 10);
    assert!(grown <= CACHE_BYTES + BESIDE_BYTES, "grown by {grown} bytes");
}

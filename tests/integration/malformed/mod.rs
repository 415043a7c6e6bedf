//! Parsers of untrusted bytes survive any input: the fuzz targets, driven by seeded mutations of valid input.

mod corpus;
mod hostile;
mod mutate;
#[path = "../../fuzz/targets.rs"]
mod targets;

use mutate::Mutator;

/// Number of mutations per target; all targets together take a few seconds.
const ROUNDS: usize = 6_000;

fn drive(seed: u64, corpus: &[Vec<u8>], target: fn(&[u8])) {
    let mut mutator = Mutator::new(seed);
    corpus.iter().for_each(|bytes| target(bytes));
    for _ in 0..ROUNDS {
        target(&mutator.mutate(corpus));
    }
}

#[test]
fn ipc_frames() {
    drive(1, &corpus::ipc_frames(), targets::ipc_frames);
}

#[test]
fn mesh_frames() {
    drive(2, &corpus::mesh_frames(), targets::mesh_frames);
}

#[test]
fn reconciliation_messages() {
    drive(3, &corpus::reconciliations(), targets::reconcile);
}

#[test]
fn automerge_chunks() {
    drive(4, &corpus::chunks(), targets::chunks);
}

#[test]
fn automerge_chunks_with_right_checksums() {
    drive(5, &corpus::chunks(), |bytes| targets::chunks(&corpus::with_checksum(bytes)));
}

#[test]
fn json_text() {
    drive(6, &corpus::json_texts(), targets::json_text);
}

#[test]
fn relay_datagrams() {
    drive(8, &corpus::relay_datagrams(), targets::relay_datagrams);
}

#[test]
fn watched_answers() {
    drive(7, &corpus::watched_answers(), targets::watched_answers);
}

//! The documents that are stored and replicated: 300 bytes of JSON each, typical of a track or a platform.

use std::collections::VecDeque;

use bench_peers::Failure;
use peat_ipc::sidecar::{GetDocumentRequest, PutDocumentRequest};
use peat_ipc::{Client, Pending};

/// Size of every document in bytes.
pub(crate) const BYTES: usize = 300;
/// A collection of kind `latest`.
pub(crate) const LATEST: &str = "tracks";
/// A collection of kind `merged`.
pub(crate) const MERGED: &str = "notes";
/// Maximum number of pipelined puts.
const FLYING: usize = 128;

/// Returns the id of document `number`.
pub(crate) fn id(number: usize) -> String {
    format!("track-{number:06}")
}

/// Returns edition `edition` of document `number` in the node's canonical form: sorted keys and no number with a trailing zero.
/// Editions differ in three fields; the values of the others do not compress.
pub(crate) fn json(number: usize, edition: usize) -> String {
    let unit = |seed: usize| mix((number * 31 + edition * 7 + seed) as u64) % 1_000_000;
    let head = format!(
        r#"{{"callsign":"unit-{number:06}","edition":{edition},"heading_deg":{:.2}7,"labels":{{"site":"{:012x}","zone":"north"}},"latitude":{:.5}7,"name":"track number {number:06}","note":""#,
        unit(1) as f64 / 2_800.0,
        mix(number as u64) & 0xffff_ffff_ffff,
        unit(2) as f64 / 11_200.0,
    );
    let tail = r#"","source":"radar","status":"READY"}"#;
    let padding = BYTES - head.len() - tail.len();
    let noise = (0..).flat_map(|word| format!("{:016x}", mix((number * 97 + word) as u64)).into_bytes());
    let noise: String = noise.take(padding).map(char::from).collect();
    head + &noise + tail
}

/// The finaliser of splitmix64, which gives the same numbers on every run.
fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Creates a put of one document.
pub(crate) fn put(collection: &str, number: usize, edition: usize, durable: bool) -> PutDocumentRequest {
    PutDocumentRequest {
        collection: collection.into(),
        doc_id: id(number),
        json_data: json(number, edition),
        durable,
        ..Default::default()
    }
}

/// Creates a read of one document.
pub(crate) fn get(collection: &str, number: usize) -> GetDocumentRequest {
    GetDocumentRequest { collection: collection.into(), doc_id: id(number) }
}

/// Puts many documents, pipelined; the last one durably, which makes all of them durable.
pub(crate) fn load(
    client: &mut Client,
    collection: &str,
    numbers: impl ExactSizeIterator<Item = usize>,
    edition: usize,
) -> Result<(), Failure> {
    let last = numbers.len().saturating_sub(1);
    let puts = numbers.enumerate().map(|(at, number)| put(collection, number, edition, at == last));
    pipeline(client, puts)
}

/// Makes calls with many of them in flight.
pub(crate) fn pipeline(client: &mut Client, puts: impl IntoIterator<Item = PutDocumentRequest>) -> Result<(), Failure> {
    let mut flying: VecDeque<Pending<PutDocumentRequest>> = VecDeque::with_capacity(FLYING);
    for put in puts {
        if let Some(oldest) = (flying.len() == FLYING).then(|| flying.pop_front()).flatten() {
            client.finish(oldest)?;
        }
        flying.push_back(client.start(&put)?);
    }
    flying.into_iter().try_for_each(|call| client.finish(call).map(drop))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_have_the_length_they_are_said_to_have() {
        for (number, edition) in [(0, 0), (99_999, 1_000_000), (123, 45)] {
            assert_eq!(json(number, edition).len(), BYTES);
        }
    }
}

//! Chunks from peers.
//!
//! Owns the part of Automerge's storage format that a peer may send: whole documents and single changes, uncompressed, each
//! intact.

use automerge::{Automerge, Change};

use super::error::MergedError;

/// First bytes of each chunk.
const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// Length of magic, checksum and type, in bytes; the length of the chunk follows.
const FIXED_BYTES: usize = 9;

/// A decoded chunk.
pub(super) enum Chunk {
    Document(Box<Automerge>),
    Change(Box<Change>),
}

impl Chunk {
    /// Returns all changes of the chunk.
    pub(super) fn into_changes(self) -> Vec<Change> {
        match self {
            Chunk::Change(change) => vec![*change],
            Chunk::Document(document) => document.get_changes(&[]),
        }
    }
}

/// Splits concatenated chunks and decodes them. After an error there are no more.
pub(super) fn split(mut bytes: &[u8]) -> impl Iterator<Item = Result<Chunk, MergedError>> {
    std::iter::from_fn(move || {
        if bytes.is_empty() {
            return None;
        }
        let length = match whole_length(bytes) {
            Some(length) if length <= bytes.len() => length,
            _ => {
                bytes = &[];
                return Some(Err(malformed("a chunk's header is broken or its end is missing")));
            }
        };
        let (chunk, rest) = bytes.split_at(length);
        bytes = rest;
        Some(read(chunk))
    })
}

/// Returns the length of the chunk that begins here, including its header.
pub(super) fn whole_length(bytes: &[u8]) -> Option<usize> {
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let mut length = 0usize;
    for (position, byte) in bytes.get(FIXED_BYTES..)?.iter().take(5).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * position);
        if byte & 0x80 == 0 {
            return length.checked_add(FIXED_BYTES + position + 1);
        }
    }
    None
}

fn read(chunk: &[u8]) -> Result<Chunk, MergedError> {
    match chunk[FIXED_BYTES - 1] {
        0 => document(chunk).map(Chunk::Document),
        1 => change(chunk).map(|change| Chunk::Change(Box::new(change))),
        2 => Err(malformed("a compressed change; peers send them uncompressed")),
        kind => Err(malformed(&format!("a chunk of kind {kind}; peers send documents (0) and changes (1)"))),
    }
}

fn document(chunk: &[u8]) -> Result<Box<Automerge>, MergedError> {
    Automerge::load(chunk).map(Box::new).map_err(|cause| malformed(&cause.to_string()))
}

/// Decodes a single change. Automerge reads one without checking its checksum, so this does.
fn change(chunk: &[u8]) -> Result<Change, MergedError> {
    let change = Change::try_from(chunk).map_err(|cause| malformed(&cause.to_string()))?;
    if change.hash().0[..4] != chunk[MAGIC.len()..FIXED_BYTES - 1] {
        return Err(malformed("a change does not match its checksum"));
    }
    Ok(change)
}

fn malformed(why: &str) -> MergedError {
    MergedError::Malformed(why.to_owned())
}

//! The part of a requested document that a peer lacks, and whether the peer would accept it.

use crate::limits::{CHUNK_ROWS, RECORD_BYTES};
use crate::store::{Content, Error, KeyHash, Record, Snapshot, chunk};
use crate::sync::convert::{self, SendClock};
use crate::sync::mesh::Document;

/// Size of chunks, in bytes, up to which they are sent unchecked: a change of a few bytes for each edit, which no peer refuses
/// to load.
const UNCHECKED_BYTES: usize = 1 << 10;

/// Answer to a peer that has requested a document.
pub(super) enum Lacked {
    Document(Box<Document>),
    /// The document is not sent, for this reason.
    Withheld(String),
}

/// Returns the number of bytes of a merged record's chunks; 0 for other kinds.
pub(super) fn history_bytes(record: &Record) -> usize {
    match &record.content {
        Content::Merged { history, .. } => history.size(),
        _ => 0,
    }
}

/// Returns the reason for which a peer would reject these chunks.
pub(super) fn withholds(chunks: &[u8]) -> Option<String> {
    match chunks.len() {
        ..=UNCHECKED_BYTES => None,
        bytes @ ..=RECORD_BYTES => {
            chunk::check(chunks, CHUNK_ROWS).err().map(|cause| format!("of its {bytes} bytes of history {cause}"))
        }
        bytes => Some(format!("it takes {bytes} bytes to send; the limit is {RECORD_BYTES}")),
    }
}

/// Returns the changes a peer lacks that has the changes `have`; the whole document if a peer would reject the difference
/// alone.
fn lacking(snapshot: &Snapshot, hash: &KeyHash, have: &[[u8; 32]]) -> Result<Option<Vec<u8>>, Error> {
    let changes = snapshot.changes_since(hash, have)?;
    if have.is_empty() || changes.as_deref().and_then(withholds).is_none() {
        return Ok(changes);
    }
    let whole = snapshot.changes_since(hash, &[])?;
    Ok(if whole.as_deref().and_then(withholds).is_none() { whole } else { changes })
}

/// Returns the part of a document that a peer with the changes `have` lacks, or `None` if the document does not exist. It is a
/// document even without changes: the peer may lack the creations that the record covers.
pub(super) fn lacked(
    record: &Record,
    hash: KeyHash,
    have: &[[u8; 32]],
    snapshot: &Snapshot,
    clock: SendClock,
) -> Result<Option<Lacked>, Error> {
    let changes = match &record.content {
        Content::Merged { .. } => lacking(snapshot, &hash, have)?,
        _ => Some(Vec::new()),
    };
    Ok(changes.map(|changes| match withholds(&changes) {
        Some(reason) => Lacked::Withheld(reason),
        None => Lacked::Document(Box::new(convert::document(record, hash, changes, clock))),
    }))
}

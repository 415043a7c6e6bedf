//! What a peer lacks of a document that it asks for, and whether it would take that.

use crate::limits::{CHUNK_ROWS, RECORD_BYTES};
use crate::store::{Content, Error, KeyHash, Record, Snapshot, chunk};
use crate::sync::convert::{self, SendClock};
use crate::sync::mesh::Document;

/// Chunks this short expand to nothing that a peer would refuse to load: a change of a few bytes for each of its writers' edits.
const UNCHECKED_BYTES: usize = 1 << 10;

/// What is sent to a peer that has asked for a document.
pub(super) enum Lacked {
    Document(Box<Document>),
    /// It is not sent, for this reason.
    Withheld(String),
}

/// Bytes of a merged record's chunks.
pub(super) fn history_bytes(record: &Record) -> usize {
    match &record.content {
        Content::Merged { history, .. } => history.size(),
        _ => 0,
    }
}

/// Why a peer would not take these chunks.
pub(super) fn withholds(chunks: &[u8]) -> Option<String> {
    match chunks.len() {
        ..=UNCHECKED_BYTES => None,
        bytes @ ..=RECORD_BYTES => {
            chunk::check(chunks, CHUNK_ROWS).err().map(|cause| format!("of its {bytes} bytes of history {cause}"))
        }
        bytes => Some(format!("it takes {bytes} bytes to send; the limit is {RECORD_BYTES}")),
    }
}

/// What a peer that has these changes lacks: only that, or the whole document where that is more to take than the whole.
fn lacking(snapshot: &Snapshot, hash: &KeyHash, have: &[[u8; 32]]) -> Result<Option<Vec<u8>>, Error> {
    let changes = snapshot.changes_since(hash, have)?;
    if have.is_empty() || changes.as_deref().and_then(withholds).is_none() {
        return Ok(changes);
    }
    let whole = snapshot.changes_since(hash, &[])?;
    Ok(if whole.as_deref().and_then(withholds).is_none() { whole } else { changes })
}

/// What a peer lacks of a document that has these changes of it; `None` if there is no such document. Without changes, too: what the
/// record covers may be what the peer lacks.
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

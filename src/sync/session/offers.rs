//! Offers of merged documents: the parts this node requests, and the documents it cannot take.

use super::SessionError;
use crate::limits::RECORD_BYTES;
use crate::store::{self, Reader};
use crate::sync::convert;
use crate::sync::mesh::{self, Want, document};

/// Maximum number of characters kept of a peer's reason.
const WITHHELD_LETTERS: usize = 200;

/// Answer to an offer.
#[derive(Debug)]
pub(super) enum Answer {
    Want(Want),
    Decline(Declined),
}

/// Offer that cannot be taken.
#[derive(Debug)]
pub(crate) struct Declined {
    pub(crate) hash: store::KeyHash,
    pub(crate) incarnation: u64,
    /// True if the peer itself withholds the document.
    pub(super) is_withheld: bool,
    /// Notice that names the document and the limit.
    pub(crate) sentence: String,
}

/// Returns the request for what this node lacks of an offered document, or declines it.
pub(super) fn answer_offer(offer: &mesh::Document, reader: &Reader) -> Result<Answer, SessionError> {
    let hash = convert::key_hash(&offer.key)?;
    let Some(document::Body::Offer(offered)) = &offer.body else { return Err("an offer without a version".into()) };
    let snapshot = reader.snapshot().map_err(|error| SessionError::store(&error))?;
    let held = snapshot.record(&hash).map_err(|error| SessionError::store(&error))?;
    let lineage = convert::lineage(&mut offer.clone())?;
    if lineage.dots.is_empty() {
        return Err("an offer without creations".into());
    }
    let satisfied = held.as_ref().is_some_and(|record| {
        let covered = &record.lineage.covered;
        let deleted = covered.includes(&lineage.covered) && lineage.dots.outside(covered).is_empty();
        deleted || record.version_hash().0 == offered.version.as_ref()
    });
    let comparable = held.is_some_and(|record| record.is_live());
    // A node with an earlier version may lack little, regardless of the total size.
    let too_large = offered.size > RECORD_BYTES as u64 && !comparable;
    if !satisfied && (too_large || !offered.withheld.is_empty()) {
        let (is_withheld, sentence) = (!offered.withheld.is_empty(), decline(offer, offered));
        return Ok(Answer::Decline(Declined { hash, incarnation: offer.incarnation, is_withheld, sentence }));
    }
    let have =
        if satisfied { Vec::new() } else { snapshot.sample(&hash).map_err(|error| SessionError::store(&error))? };
    let have = have.iter().map(|hash| hash.to_vec().into()).collect();
    Ok(Answer::Want(Want { key: offer.key.clone(), have, satisfied }))
}

/// Returns the operator's notice of an offer that is declined.
fn decline(offer: &mesh::Document, offered: &mesh::Offer) -> String {
    let name = store::Key::new(offer.collection.as_str(), offer.doc_id.as_str());
    let name = name.map_or_else(|_| "a document".to_owned(), |name| format!("document {name}"));
    match offered.withheld.as_str() {
        "" => format!("{name} was not taken: it is {} bytes; the limit is {RECORD_BYTES}", offered.size),
        withheld => {
            let withheld: String =
                withheld.chars().filter(|letter| !letter.is_control()).take(WITHHELD_LETTERS).collect();
            format!("{name} is not sent: {withheld}")
        }
    }
}

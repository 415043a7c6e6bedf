//! Conversion between a stored record and the document message.

use prost::Message as _;

use crate::clock::BootId;
use crate::identity::EndpointId;
use crate::store::{self, Content, Covered, Dots, Incoming, Key, KeyHash, Kind, Lineage, Record, RunId, Signed, Stamp};
use crate::sync::mesh::{Command, CommandResult, Document, Latest, Merged, Offer, Sibling, Tombstone, document::Body};

/// Returns the encoded size of a document within a batch, in bytes.
pub(crate) fn size(document: &Document) -> usize {
    document.encoded_len()
}

/// Converts a record to its message, with only these chunks of a `merged` one.
pub(crate) fn document(record: &Record, hash: KeyHash, chunks: Vec<u8>, clock: SendClock) -> Document {
    let body = match &record.content {
        Content::Tombstone => Body::Tombstone(Tombstone {}),
        Content::Latest { stamp, json } => Body::Latest(latest(record.origin, stamp, json.as_bytes())),
        Content::Merged { .. } => {
            let heads = heads(record, chunks.is_empty());
            Body::Merged(Merged { chunks: chunks.into(), heads })
        }
        Content::Command(held) => Body::Command(command(held, clock)),
        Content::Result(held) => Body::CommandResult(CommandResult {
            status: held.rank as u32,
            result: held.result.clone().into_bytes().into(),
            error: held.error.clone(),
        }),
    };
    with_body(record, hash, body)
}

/// Returns the heads of a merged record that has several. A single head depends on all other changes and is recognised by that,
/// unless no changes are sent at all (`always`).
fn heads(record: &Record, always: bool) -> Vec<bytes::Bytes> {
    match &record.content {
        Content::Merged { heads, .. } if heads.len() > 1 || always => {
            heads.iter().map(|head| head.to_vec().into()).collect()
        }
        _ => Vec::new(),
    }
}

/// Returns the offer of a merged record; with a reason in `withheld` if it is not available.
pub(crate) fn offer(record: &Record, hash: KeyHash, size: usize, withheld: String) -> Document {
    let offer = Offer { version: record.version_hash().0.to_vec().into(), size: size as u64, withheld };
    with_body(record, hash, Body::Offer(offer))
}

/// Boot and time of sending, from which deadlines are converted to the time left.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SendClock {
    pub(crate) boot: BootId,
    pub(crate) boot_ms: u64,
}

fn command(held: &store::Command, clock: SendClock) -> Command {
    let until = held.deadline.until(clock.boot);
    let unknown = held.deadline.is_unknown(clock.boot);
    Command {
        body: held.signed.body.clone().into(),
        signature: held.signed.signature.to_vec().into(),
        statuses: held.ranks.iter().map(|rank| *rank as u8).collect::<Vec<_>>().into(),
        cancel_requested: held.cancel_requested,
        time_left_ms: until.map_or(0, |until| until.saturating_sub(clock.boot_ms)),
        time_left_unknown: unknown,
    }
}

fn latest(origin: EndpointId, stamp: &Stamp, json: &[u8]) -> Latest {
    let node = if stamp.node == origin { Vec::new() } else { stamp.node.0.to_vec() };
    Latest { counter: stamp.counter, node: node.into(), run: stamp.run.0.to_vec().into(), json: json.to_vec().into() }
}

fn with_body(record: &Record, hash: KeyHash, body: Body) -> Document {
    let is_tombstone = matches!(body, Body::Tombstone(_));
    let name = record.name.as_ref().filter(|_| !is_tombstone);
    Document {
        key: hash.0.to_vec().into(),
        kind: u32::from(record.kind as u8),
        incarnation: record.incarnation,
        collection: name.map(|key| key.collection().to_owned()).unwrap_or_default(),
        doc_id: name.map(|key| key.id().to_owned()).unwrap_or_default(),
        origin: if is_tombstone { Vec::new() } else { record.origin.0.to_vec() }.into(),
        body: Some(body),
        dots: dots(&record.lineage.dots),
        covered: record.lineage.covered.to_bytes().into(),
        siblings: record.lineage.siblings.iter().map(sibling).collect(),
    }
}

/// Encodes creations; empty for none.
fn dots(dots: &Dots) -> bytes::Bytes {
    if dots.is_empty() { Vec::new() } else { dots.to_bytes() }.into()
}

fn sibling(sibling: &store::Sibling) -> Sibling {
    let latest = latest(sibling.origin, &sibling.stamp, sibling.json.as_bytes());
    Sibling { dots: dots(&sibling.dots), origin: sibling.origin.0.to_vec().into(), latest: Some(latest) }
}

/// Parses the creations of a document that a peer sent or offers.
///
/// # Errors
/// The creations are malformed; says in which way.
pub(crate) fn lineage(document: &mut Document) -> Result<Lineage, &'static str> {
    let covered = Covered::from_bytes(&document.covered).ok_or("a malformed set of covered creations")?;
    let dots = received_dots(&document.dots)?;
    let siblings = std::mem::take(&mut document.siblings).into_iter();
    Ok(Lineage { dots, covered, siblings: siblings.map(received_sibling).collect::<Result<_, _>>()? })
}

fn received_dots(bytes: &[u8]) -> Result<Dots, &'static str> {
    match bytes {
        [] => Ok(Dots::default()),
        bytes => Dots::from_bytes(bytes).ok_or("a malformed set of creations"),
    }
}

fn received_sibling(sibling: Sibling) -> Result<store::Sibling, &'static str> {
    let (dots, origin) = (received_dots(&sibling.dots)?, node(&sibling.origin)?);
    let latest = sibling.latest.ok_or("a sibling without a version")?;
    let stamp = received_stamp(&latest, origin)?;
    let json = String::from_utf8(latest.json.to_vec()).map_err(|_| "a sibling that is not UTF-8")?;
    Ok(store::Sibling { dots, origin, stamp, json })
}

fn received_stamp(latest: &Latest, origin: EndpointId) -> Result<Stamp, &'static str> {
    let node = if latest.node.is_empty() { origin } else { node(&latest.node)? };
    let run = latest.run.as_ref().try_into().map(RunId).map_err(|_| "a run id that is not 16 bytes")?;
    Ok(Stamp { counter: latest.counter, node, run })
}

/// Parses the key hash of a document.
pub(crate) fn key_hash(bytes: &[u8]) -> Result<KeyHash, &'static str> {
    bytes.try_into().map(KeyHash).map_err(|_| "a key hash that is not 16 bytes")
}

/// Parses a list of change hashes.
pub(crate) fn change_hashes(hashes: &[bytes::Bytes]) -> Result<Vec<[u8; 32]>, &'static str> {
    let hash = |bytes: &bytes::Bytes| bytes.as_ref().try_into().map_err(|_| "a change hash that is not 32 bytes");
    hashes.iter().map(hash).collect()
}

/// Parses the wire number of a kind.
pub(crate) fn kind(number: u32) -> Result<Kind, &'static str> {
    u8::try_from(number).ok().and_then(Kind::from_number).ok_or("a kind of document this node does not know")
}

fn node(bytes: &[u8]) -> Result<EndpointId, &'static str> {
    bytes.try_into().map(EndpointId).map_err(|_| "an endpoint id that is not 32 bytes")
}

/// Converts a received document for the store. Its time left counts from `arrived`, this machine's boot time in milliseconds.
/// Offers never get here.
///
/// # Errors
/// The document is malformed; says in which way.
pub(crate) fn incoming(mut document: Document, arrived: u64) -> Result<Incoming, &'static str> {
    let (kind, lineage) = (kind(document.kind)?, lineage(&mut document)?);
    let body = document.body.ok_or("a document without a body")?;
    let is_tombstone = matches!(body, Body::Tombstone(_));
    let origin = if is_tombstone { EndpointId::default() } else { node(&document.origin)? };
    let name = (!is_tombstone)
        .then(|| Key::new(document.collection, document.doc_id).map_err(|_| "a document with an invalid name"))
        .transpose()?;
    if document.incarnation == 0 {
        return Err("a document of incarnation 0");
    }
    let hash = key_hash(&document.key)?;
    if name.as_ref().is_some_and(|name| name.hash() != hash) {
        return Err("a document under another's key");
    }
    Ok(Incoming {
        hash,
        name,
        kind,
        incarnation: document.incarnation,
        origin,
        lineage,
        body: incoming_body(kind, body, origin, arrived)?,
    })
}

fn incoming_body(kind: Kind, body: Body, origin: EndpointId, arrived: u64) -> Result<store::Body, &'static str> {
    match (kind, body) {
        (_, Body::Tombstone(_)) => Ok(store::Body::Tombstone),
        (Kind::Latest, Body::Latest(latest)) => {
            let stamp = received_stamp(&latest, origin)?;
            Ok(store::Body::Latest { stamp, json: latest.json.to_vec() })
        }
        (Kind::Merged, Body::Merged(merged)) => {
            let heads = change_hashes(&merged.heads)?;
            Ok(store::Body::Merged(store::Merged { chunks: merged.chunks.to_vec(), heads }))
        }
        (Kind::Command, Body::Command(command)) => Ok(store::Body::Command(store::IncomingCommand {
            signed: Signed {
                signature: command.signature.as_ref().try_into().unwrap_or([0; 64]),
                body: command.body.to_vec(),
            },
            ranks: command.statuses.to_vec(),
            cancel_requested: command.cancel_requested,
            until: (!command.time_left_unknown).then(|| arrived.saturating_add(command.time_left_ms)),
        })),
        (Kind::Command, Body::CommandResult(CommandResult { status, result, error })) => {
            let rank = u8::try_from(status).unwrap_or(0);
            Ok(store::Body::Result { rank, result: result.to_vec(), error })
        }
        _ => Err("a document whose body does not fit its kind"),
    }
}

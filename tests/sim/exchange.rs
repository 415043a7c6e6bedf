//! Copies documents from one store to another without a network: a session in its simplest form.

use peat_node::identity::EndpointId;
use peat_node::store::{
    Apply, Body, Content, Cursor, Error, Incoming, IndexEntry, Kind, Merged, PeerRun, Reader, Record, RunId, Snapshot,
    StoreRequest, Tip,
};

use crate::prng::Prng;

/// Maximum number of documents in a batch.
const BATCH: usize = 8;

/// A store that documents are copied from.
#[derive(Clone, Debug)]
pub struct Source {
    pub reader: Reader,
    pub tip: Tip,
}

fn usable(source: &Source, snapshot: &Snapshot, cursor: &Cursor, kind: Kind) -> Result<bool, Error> {
    let same = cursor.kind == kind && cursor.database == source.reader.database();
    Ok(same && snapshot.token_is_known(cursor.run, cursor.sequence.max(cursor.horizon))?)
}

fn position(source: &Source, snapshot: &Snapshot, target: &Snapshot, kind: Kind) -> Result<u64, Error> {
    for cursor in target.cursors(&source.reader.node())? {
        if usable(source, snapshot, &cursor, kind)? {
            return Ok(cursor.sequence);
        }
    }
    Ok(0)
}

/// Returns the next batch of one kind that `target` lacks, or `None` if it is up to date.
pub fn next(source: &Source, target: &Reader, kind: Kind, random: &mut Prng) -> Result<Option<Apply>, Error> {
    let (snapshot, there) = (source.reader.snapshot()?, target.snapshot()?);
    let after = position(source, &snapshot, &there, kind)?;
    let receiver = snapshot.source(PeerRun { node: target.node(), run: target.run() })?;
    let leaves = |entry: &IndexEntry| kind == Kind::Latest || entry.sequence <= source.tip.durable;
    let whole = after == 0 || random.chance(200);
    let (mut documents, mut reached, mut complete) = (Vec::new(), after, true);
    for (number, entry) in snapshot.entries(kind, after)?.enumerate() {
        let entry = entry?;
        if number == BATCH || !leaves(&entry) {
            complete = false;
            break;
        }
        reached = entry.sequence;
        if entry.from == 0 || Some(entry.from) != receiver {
            let record = snapshot.record(&entry.hash)?.ok_or_else(|| Error::Bug("an entry without a record".into()))?;
            documents.push(incoming(&record, entry, &snapshot, if whole { 0 } else { after })?);
        }
    }
    let run = source.reader.run();
    let sequence = if complete { reached } else { reached.min(snapshot.settled()) };
    let cursor =
        Cursor { kind, database: source.reader.database(), run, sequence, horizon: snapshot.flushed(), excluded: 0 };
    let from = PeerRun { node: source.reader.node(), run };
    let apply = Apply {
        from,
        into: target.run(),
        documents,
        cursors: vec![cursor],
        flush: random.chance(300),
        excluded: Default::default(),
    };
    Ok((reached > after).then_some(apply))
}

/// Encodes a document for a node that has everything up to `held`.
fn incoming(record: &Record, entry: IndexEntry, snapshot: &Snapshot, held: u64) -> Result<Incoming, Error> {
    let body = match &record.content {
        Content::Tombstone => Body::Tombstone,
        Content::Latest { stamp, json } => Body::Latest { stamp: *stamp, json: json.clone().into_bytes() },
        Content::Merged { history, heads, .. } => {
            Body::Merged(Merged { chunks: snapshot.chunks(history.after(held))?, heads: heads.clone() })
        }
        Content::Command(_) | Content::Result(_) => unreachable!("the store-only simulation issues no commands"),
    };
    let (kind, incarnation, origin) = (record.kind, record.incarnation, record.origin);
    let (name, lineage) = (record.name.clone(), record.lineage.clone());
    Ok(Incoming { hash: entry.hash, name, kind, incarnation, origin, lineage, body })
}

/// Returns the reply to a batch in which some bases were missing.
pub fn lacking(source: &Source, missing: &[(peat_node::store::KeyHash, Vec<[u8; 32]>)]) -> Result<StoreRequest, Error> {
    let snapshot = source.reader.snapshot()?;
    let mut documents = Vec::new();
    for (hash, have) in missing {
        let (Some(record), Some(chunks)) = (snapshot.record(hash)?, snapshot.changes_since(hash, have)?) else {
            continue;
        };
        let Content::Merged { heads, .. } = record.content else { continue };
        let body = Body::Merged(Merged { chunks, heads });
        let (kind, incarnation, origin) = (record.kind, record.incarnation, record.origin);
        let (hash, name, lineage) = (*hash, record.name, record.lineage);
        documents.push(Incoming { hash, name, kind, incarnation, origin, lineage, body });
    }
    let from = PeerRun { node: source.reader.node(), run: source.reader.run() };
    Ok(StoreRequest::Apply(Apply {
        from,
        into: RunId::default(),
        documents,
        cursors: Vec::new(),
        flush: true,
        excluded: Default::default(),
    }))
}

/// Summarises a batch on one line.
pub fn summary(apply: &Apply) -> String {
    let short = |bytes: &[u8]| bytes.iter().take(4).map(|byte| format!("{byte:02x}")).collect::<String>();
    let one = |document: &Incoming| {
        let name = document.name.as_ref().map_or_else(|| short(&document.hash.0), ToString::to_string);
        format!("{name}@{}", document.incarnation)
    };
    let documents: Vec<String> = apply.documents.iter().map(one).collect();
    let cursors: Vec<_> =
        apply.cursors.iter().map(|cursor| (cursor.kind, short(&cursor.run.0), cursor.sequence)).collect();
    format!("{documents:?} up to {cursors:?}, flush {}", apply.flush)
}

/// Returns the identity of machine `number`.
pub fn endpoint(number: usize) -> EndpointId {
    EndpointId([u8::try_from(number).expect("few machines") + 1; 32])
}

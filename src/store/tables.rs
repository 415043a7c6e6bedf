//! The tables of the database, and the encoding of their keys and values (docs/storage.md, "Tables").
//!
//! All tables have one type: redb's code is instantiated for each type, at a quarter of a megabyte each.

use redb::{ReadableTable, TableDefinition};

use crate::identity::EndpointId;
use crate::store::codec::{Bytes, put_bytes, put_varint};
use crate::store::{Cursor, Error, IndexEntry, Key, KeyHash, Kind, Origin, PeerSetting, RunId, SavedPeer, VersionHash};

pub(super) type Table = TableDefinition<'static, &'static [u8], &'static [u8]>;

/// Sequence → record. In the order of writing, because records that often change are then close together and are written
/// together. The last row is [`STATE`].
pub(super) const RECORDS: Table = TableDefinition::new("records");
/// Key hash → sequence of the record.
pub(super) const KEYS: Table = TableDefinition::new("keys");
/// Collection, a zero byte, id → key hash. Live documents only.
pub(super) const NAMES: Table = TableDefinition::new("names");
/// Kind, sequence → key hash, version hash, source. One entry for each record.
pub(super) const INDEX: Table = TableDefinition::new("index");
/// Sequence of a deletion → origin and name of the deleted document.
pub(super) const DELETED: Table = TableDefinition::new("deleted");
/// Peer, kind → cursor.
pub(super) const CURSORS: Table = TableDefinition::new("cursors");
/// Peer → the operator's setting for it.
pub(super) const LINKS: Table = TableDefinition::new("links");
/// Number → run id, first sequence.
pub(super) const RUNS: Table = TableDefinition::new("runs");
/// Peer → source number, run id.
pub(super) const SOURCES: Table = TableDefinition::new("sources");
/// Single values, under [`META_DATABASE`], `META_AGE` and `META_SYNC`.
pub(super) const META: Table = TableDefinition::new("meta");

/// Sequence of a commit → the Automerge chunks it added to the `merged` record that it wrote.
pub(super) const CHUNKS: Table = TableDefinition::new("chunks");

/// All tables. The journal identifies a table by its position, so that the order is part of the file format.
pub(super) const ALL: [Table; 11] = [RECORDS, KEYS, NAMES, INDEX, DELETED, CURSORS, LINKS, RUNS, SOURCES, META, CHUNKS];

/// Key of the counters ([`State`]) in [`RECORDS`]: above every sequence number, so that a commit writes them on the page of
/// its newest record.
pub(super) const STATE: [u8; 8] = [0xff; 8];

/// Id of the database: 16 random bytes, drawn when it is created.
pub(super) const META_DATABASE: &[u8] = b"database";
/// Age of the database: boot id, age at the start of that boot, age at the time of writing.
pub(super) const META_AGE: &[u8] = b"age";
/// Setting of sync, one byte: 1 if it is on. Absent until saved.
pub(super) const META_SYNC: &[u8] = b"sync";

fn damaged(table: &str) -> Error {
    Error::Damaged(format!("a row of table {table} is malformed"))
}

/// Converts a key or value of a fixed length.
fn fixed<'a, const N: usize>(table: &str, bytes: &'a [u8]) -> Result<&'a [u8; N], Error> {
    bytes.try_into().map_err(|_| damaged(table))
}

/// Encodes a number as a key; keys sort as the numbers do.
pub(super) fn number_key(number: u64) -> [u8; 8] {
    number.to_be_bytes()
}

/// Decodes the key of [`number_key`].
pub(super) fn number(key: &[u8]) -> Result<u64, Error> {
    fixed("records, keys, runs or deleted", key).map(|bytes| u64::from_be_bytes(*bytes))
}

/// Length of the encoded counters, in bytes.
pub(super) const STATE_BYTES: usize = 76;

/// The counters, which every commit rewrites.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct State {
    /// Newest sequence number.
    pub(super) sequence: u64,
    /// Number of live documents.
    pub(super) live: u64,
    /// Number of tombstones.
    pub(super) tombstones: u64,
    /// Highest sequence of a deletion with a name that was dropped.
    pub(super) deleted_floor: u64,
    /// Lowest sequence number at which an unflushed commit removed an index entry, for a newer version of its record; 0 if
    /// there is none. A crash restores those entries.
    pub(super) unsettled: u64,
    /// Newest sequence number at the last flush.
    pub(super) flushed: u64,
    /// Number of commits since the database was created.
    pub(super) commits: u64,
    /// Newest assigned source number.
    pub(super) sources: u32,
    /// Sum of the summands of all records, modulo 2^128 ([`crate::store::fingerprint`]).
    pub(super) sum: u128,
}

impl State {
    pub(super) fn encode(&self) -> [u8; STATE_BYTES] {
        let mut out = [0; STATE_BYTES];
        let State { sequence, live, tombstones, deleted_floor, unsettled, flushed, commits, .. } = *self;
        let numbers = [sequence, live, tombstones, deleted_floor, unsettled, flushed, commits];
        for (field, number) in out.chunks_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        out[56..60].copy_from_slice(&self.sources.to_le_bytes());
        out[60..].copy_from_slice(&self.sum.to_le_bytes());
        out
    }

    /// Reads the counters from the table of records.
    pub(super) fn of(records: &impl ReadableTable<&'static [u8], &'static [u8]>) -> Result<State, Error> {
        let row = records.get(STATE.as_slice())?.ok_or_else(|| Error::Damaged("the counters are missing".into()))?;
        State::decode(row.value())
    }

    /// Records that the entry at `sequence` was removed.
    pub(super) fn unsettle(&mut self, sequence: u64) {
        self.unsettled = if self.unsettled == 0 { sequence } else { self.unsettled.min(sequence) };
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<State, Error> {
        State::parse(Bytes(bytes)).ok_or_else(|| Error::Damaged("the counters are malformed".into()))
    }

    fn parse(mut bytes: Bytes) -> Option<State> {
        let mut number = || bytes.array().map(u64::from_le_bytes);
        let (sequence, live, tombstones) = (number()?, number()?, number()?);
        let (deleted_floor, unsettled, flushed, commits) = (number()?, number()?, number()?, number()?);
        let sources = u32::from_le_bytes(bytes.array()?);
        let sum = u128::from_le_bytes(bytes.array()?);
        let state = State { sequence, live, tombstones, deleted_floor, unsettled, flushed, commits, sources, sum };
        bytes.is_empty().then_some(state)
    }
}

pub(super) fn name_key(name: &Key) -> Vec<u8> {
    [name.collection().as_bytes(), &[0], name.id().as_bytes()].concat()
}

/// Returns the range of [`NAMES`] for one collection: a name follows its collection and a zero byte, so it sorts before the
/// collection and a byte of one.
pub(super) fn name_range(collection: &str) -> (Vec<u8>, Vec<u8>) {
    let end = |byte| [collection.as_bytes(), &[byte]].concat();
    (end(0), end(1))
}

pub(super) fn index_key(kind: Kind, sequence: u64) -> [u8; 9] {
    let mut key = [kind as u8; 9];
    key[1..].copy_from_slice(&sequence.to_be_bytes());
    key
}

pub(super) fn index_value(hash: KeyHash, version: VersionHash, from: u32) -> [u8; 36] {
    let mut value = [0; 36];
    value[..16].copy_from_slice(&hash.0);
    value[16..32].copy_from_slice(&version.0);
    value[32..].copy_from_slice(&from.to_le_bytes());
    value
}

pub(super) fn index_entry(key: &[u8], value: &[u8]) -> Result<IndexEntry, Error> {
    let [_, sequence @ ..] = *fixed::<9>("index", key)?;
    let value = fixed::<36>("index", value)?;
    let (hash, rest) = value.split_first_chunk().expect("36 bytes begin with 16");
    let (version, from) = rest.split_first_chunk().expect("20 bytes begin with 16");
    let from = from.first_chunk().expect("four bytes are left");
    Ok(IndexEntry {
        sequence: u64::from_be_bytes(sequence),
        hash: KeyHash(*hash),
        version: VersionHash(*version),
        from: u32::from_le_bytes(*from),
    })
}

pub(super) fn deleted_value(origin: Origin, name: &Key) -> Vec<u8> {
    [&origin.0[..], &name_key(name)].concat()
}

pub(super) fn deleted_entry(bytes: &[u8]) -> Result<(Origin, Key), Error> {
    parse_deleted(Bytes(bytes)).ok_or_else(|| damaged("deleted"))
}

fn parse_deleted(mut bytes: Bytes) -> Option<(Origin, Key)> {
    let origin = EndpointId(bytes.array()?);
    let (collection, id) = std::str::from_utf8(bytes.0).ok()?.split_once('\0')?;
    Some((origin, Key::new(collection, id).ok()?))
}

pub(super) fn cursor_key(peer: &EndpointId, kind: Kind) -> [u8; 33] {
    let mut key = [kind as u8; 33];
    key[..32].copy_from_slice(&peer.0);
    key
}

pub(super) fn cursor_value(cursor: &Cursor) -> [u8; 56] {
    let mut value = [0; 56];
    value[..16].copy_from_slice(&cursor.database);
    value[16..32].copy_from_slice(&cursor.run.0);
    value[32..40].copy_from_slice(&cursor.sequence.to_le_bytes());
    value[40..48].copy_from_slice(&cursor.horizon.to_le_bytes());
    value[48..].copy_from_slice(&cursor.excluded.to_le_bytes());
    value
}

pub(super) fn cursor(kind: Kind, value: &[u8]) -> Result<Cursor, Error> {
    let mut bytes = Bytes(fixed::<56>("cursors", value)?);
    let mut parse = || {
        Some(Cursor {
            kind,
            database: bytes.array()?,
            run: RunId(bytes.array()?),
            sequence: u64::from_le_bytes(bytes.array()?),
            horizon: u64::from_le_bytes(bytes.array()?),
            excluded: u64::from_le_bytes(bytes.array()?),
        })
    };
    parse().ok_or_else(|| damaged("cursors"))
}

pub(super) fn run_value(run: RunId, start: u64) -> [u8; 24] {
    let mut value = [0; 24];
    value[..16].copy_from_slice(&run.0);
    value[16..].copy_from_slice(&start.to_le_bytes());
    value
}

pub(super) fn run_entry(value: &[u8]) -> Result<(RunId, u64), Error> {
    let value = fixed::<24>("runs", value)?;
    let (run, start) = value.split_first_chunk().expect("24 bytes begin with 16");
    let start = start.first_chunk().expect("eight bytes are left");
    Ok((RunId(*run), u64::from_le_bytes(*start)))
}

pub(super) fn source_value(number: u32, run: RunId) -> [u8; 20] {
    let mut value = [0; 20];
    value[..4].copy_from_slice(&number.to_le_bytes());
    value[4..].copy_from_slice(&run.0);
    value
}

pub(super) fn source_entry(value: &[u8]) -> Result<(u32, RunId), Error> {
    let value = fixed::<20>("sources", value)?;
    let (number, run) = value.split_first_chunk().expect("20 bytes begin with four");
    let run = run.first_chunk().expect("16 bytes are left");
    Ok((u32::from_le_bytes(*number), RunId(*run)))
}

const REFUSE: u8 = 0;
const CONNECT: u8 = 1;
const SEEN: u8 = 2;

pub(super) fn wish_value(wish: &PeerSetting) -> Vec<u8> {
    match wish {
        PeerSetting::Refuse(addresses) => addressed(REFUSE, addresses),
        PeerSetting::Connect(addresses) => addressed(CONNECT, addresses),
        PeerSetting::Seen(address) => {
            let mut out = vec![SEEN];
            put_bytes(&mut out, address.as_bytes());
            out
        }
    }
}

fn addressed(kind: u8, addresses: &[String]) -> Vec<u8> {
    let mut out = vec![kind];
    put_varint(&mut out, addresses.len() as u64);
    addresses.iter().for_each(|address| put_bytes(&mut out, address.as_bytes()));
    out
}

pub(super) fn link(peer: &[u8], wish: &[u8]) -> Result<SavedPeer, Error> {
    Ok(SavedPeer { peer: EndpointId(*fixed("links", peer)?), wish: self::wish(wish)? })
}

fn wish(bytes: &[u8]) -> Result<PeerSetting, Error> {
    parse_wish(Bytes(bytes)).ok_or_else(|| damaged("links"))
}

fn parse_wish(mut bytes: Bytes) -> Option<PeerSetting> {
    let wish = match bytes.byte()? {
        REFUSE if bytes.is_empty() => PeerSetting::Refuse(Vec::new()),
        REFUSE => PeerSetting::Refuse(addresses(&mut bytes)?),
        CONNECT => PeerSetting::Connect(addresses(&mut bytes)?),
        SEEN => PeerSetting::Seen(bytes.text()?.to_owned()),
        _ => return None,
    };
    bytes.is_empty().then_some(wish)
}

fn addresses(bytes: &mut Bytes) -> Option<Vec<String>> {
    let count = bytes.varint()?;
    (0..count).map(|_| bytes.text().map(str::to_owned)).collect()
}

//! A record on disk: its content and its encoding (docs/storage.md, "Records").

use ring::digest::{Context, SHA256, digest};

use crate::identity::EndpointId;
use crate::store::codec::{Bytes, checksum, put_bytes, put_varint};
use crate::store::command::{self, Command, CommandRef, CommandResult, ResultRef};
use crate::store::history::History;
use crate::store::{Covered, Error, Key, KeyHash, Kind, Lineage, Origin, RunId, Stamp, Version, VersionHash};

/// Flag of a deleted record, in its first byte.
const TOMBSTONE: u8 = 0x80;
/// Flag of a `latest` record with a stamp of another node than its origin, in its first byte.
const OTHER_NODE: u8 = 0x40;
/// Mask of the kind, in a record's first byte.
const KIND: u8 = 0x0f;
/// Length of the part of the key hash in a version, in bytes. With it a version of one document is none of another.
const VERSION_KEY_BYTES: usize = 8;

/// A decoded record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    /// Kind, which decides how its versions combine.
    pub kind: Kind,
    /// Incarnation, from 1; orders before everything else.
    pub incarnation: u64,
    /// Sequence number of the commit that wrote it.
    pub sequence: u64,
    /// Node that wrote this version; all zero if unknown (a tombstone with a forgotten name).
    pub origin: Origin,
    /// Name of the document; absent for a tombstone.
    pub name: Option<Key>,
    /// Creations that it descends from, and those it covers.
    pub lineage: Lineage,
    /// Content of the record.
    pub content: Content,
}

/// Content of a record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Content {
    /// None: the document was deleted.
    Tombstone,
    /// A register with its stamp.
    Latest { stamp: Stamp, json: String },
    /// An Automerge document with its materialised JSON. The heads are sorted.
    Merged { heads: Vec<[u8; 32]>, json: String, history: History },
    /// A command.
    Command(Box<Command>),
    /// The progress or result of one target of a command.
    Result(Box<CommandResult>),
}

impl Record {
    /// Returns the tombstone of a document that was deleted, here or before it ever arrived.
    pub(super) fn tombstone(kind: Kind, origin: Origin, lineage: Lineage) -> Record {
        let incarnation = lineage.incarnation();
        Record { kind, incarnation, sequence: 0, origin, name: None, lineage, content: Content::Tombstone }
    }

    /// Returns true if the document exists.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.content != Content::Tombstone
    }

    /// Returns the JSON text of the document, or `None` for a tombstone.
    #[must_use]
    pub fn json(&self) -> Option<&str> {
        match &self.content {
            Content::Tombstone => None,
            Content::Latest { json, .. } | Content::Merged { json, .. } => Some(json),
            Content::Command(command) => Some(&command.json),
            Content::Result(result) => Some(&result.json),
        }
    }

    /// Returns the order of the version, without hashing its content.
    pub(super) fn order(&self) -> u64 {
        VersionHash::order_of(self.kind_byte(), self.incarnation, self.counter())
    }

    fn counter(&self) -> u64 {
        match &self.content {
            Content::Latest { stamp, .. } => stamp.counter,
            _ => 0,
        }
    }

    /// Returns the chunks of a `merged` record.
    pub(super) fn history(&self) -> Option<&History> {
        match &self.content {
            Content::Merged { history, .. } => Some(history),
            _ => None,
        }
    }

    /// Returns the bytes that a `merged` record keeps in addition to its content.
    pub(super) fn history_bytes(&self) -> usize {
        let history = self.history().map_or(0, History::size);
        history.saturating_sub(self.json().map_or(0, str::len))
    }

    /// Returns the approximate length of the encoded record, in bytes.
    pub(super) fn size(&self) -> usize {
        let more = match &self.content {
            Content::Merged { history, .. } => history.added().len() + 8 * history.parts().len(),
            Content::Command(command) => command.signed.body.len() + command.ranks.len(),
            Content::Result(result) => result.result.len() + result.error.len(),
            _ => self.lineage.siblings.iter().map(|sibling| 96 + sibling.json.len()).sum(),
        };
        128 + self.json().map_or(0, str::len) + more
    }

    fn kind_byte(&self) -> u8 {
        self.kind as u8 | if self.is_live() { 0 } else { TOMBSTONE }
    }

    /// Returns the hash of this version; equal on two nodes exactly if the records are.
    #[must_use]
    pub fn version_hash(&self) -> VersionHash {
        let mut context = Context::new(&SHA256);
        context.update(&[self.kind_byte()]);
        context.update(&self.incarnation.to_be_bytes());
        match &self.content {
            Content::Tombstone => {}
            Content::Latest { stamp, json } => {
                context.update(&stamp.counter.to_be_bytes());
                context.update(&stamp.node.0);
                context.update(&stamp.run.0);
                context.update(digest(&SHA256, json.as_bytes()).as_ref());
            }
            Content::Merged { heads, .. } => heads.iter().for_each(|head| context.update(head)),
            Content::Command(command) => context.update(&command.state()),
            Content::Result(result) => context.update(&result.state()),
        }
        context.update(&self.lineage.digest());
        VersionHash::new(self.kind_byte(), self.incarnation, self.counter(), context.finish().as_ref())
    }

    /// Returns the version as clients see it, for the document with key hash `hash`.
    #[must_use]
    pub fn version(&self, hash: &KeyHash) -> Version {
        let mut out = version_head(hash, self.kind_byte(), self.incarnation);
        match &self.content {
            Content::Tombstone => out.extend_from_slice(&tombstone_tag(&self.lineage.covered)),
            Content::Latest { stamp, .. } => put_stamp(&mut out, stamp),
            Content::Merged { heads, .. } => heads.iter().for_each(|head| out.extend_from_slice(head)),
            Content::Command(command) => out.extend_from_slice(&shortened(&command.state())),
            Content::Result(result) => out.extend_from_slice(&shortened(&result.state())),
        }
        Version(out)
    }

    /// Encodes the record.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.size());
        out.extend_from_slice(&[0; 4]);
        self.encode_head(&mut out);
        let sum = checksum(&out[4..]);
        out[..4].copy_from_slice(&sum.to_le_bytes());
        out
    }

    fn encode_head(&self, out: &mut Vec<u8>) {
        let other = matches!(&self.content, Content::Latest { stamp, .. } if stamp.node != self.origin);
        out.push(self.kind_byte() | if other { OTHER_NODE } else { 0 });
        put_varint(out, self.incarnation);
        put_varint(out, self.sequence);
        self.lineage.covered.put(out);
        let Some(name) = &self.name else { return };
        out.extend_from_slice(&self.origin.0);
        put_bytes(out, name.collection().as_bytes());
        put_bytes(out, name.id().as_bytes());
        self.lineage.put_live(out);
        match &self.content {
            Content::Tombstone => {}
            Content::Latest { stamp, json } => encode_latest(out, stamp, json, other),
            Content::Merged { heads, json, history } => encode_merged(out, heads, json, history),
            Content::Command(command) => command::encode(out, command),
            Content::Result(result) => command::encode_result(out, result),
        }
    }
}

/// Shortens the state of a command for a client's version.
fn shortened(state: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&digest(&SHA256, state).as_ref()[..16]);
    short
}

/// Returns the beginning of every version of a document: kind, part of the key hash, and incarnation.
fn version_head(hash: &KeyHash, kind_byte: u8, incarnation: u64) -> Vec<u8> {
    let mut out = vec![kind_byte];
    out.extend_from_slice(&hash.0[..VERSION_KEY_BYTES]);
    put_varint(&mut out, incarnation);
    out
}

/// Returns the bytes that distinguish tombstones of one incarnation.
fn tombstone_tag(covered: &Covered) -> [u8; 8] {
    let mut bytes = Vec::new();
    covered.put(&mut bytes);
    let mut tag = [0; 8];
    tag.copy_from_slice(&digest(&SHA256, &bytes).as_ref()[..8]);
    tag
}

fn put_stamp(out: &mut Vec<u8>, stamp: &Stamp) {
    put_varint(out, stamp.counter);
    out.extend_from_slice(&stamp.node.0);
    out.extend_from_slice(&stamp.run.0);
}

fn encode_latest(out: &mut Vec<u8>, stamp: &Stamp, json: &str, other: bool) {
    put_varint(out, stamp.counter);
    out.extend_from_slice(&stamp.run.0);
    if other {
        out.extend_from_slice(&stamp.node.0);
    }
    put_bytes(out, json.as_bytes());
}

fn encode_merged(out: &mut Vec<u8>, heads: &[[u8; 32]], json: &str, history: &History) {
    put_varint(out, heads.len() as u64);
    heads.iter().for_each(|head| out.extend_from_slice(head));
    put_bytes(out, json.as_bytes());
    history.encode(out);
}

/// A record over borrowed bytes, for access without copying its content.
#[derive(Clone, Debug)]
pub(super) struct RecordRef<'a> {
    pub(super) kind: Kind,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    covered: Covered,
    pub(super) body: Option<BodyRef<'a>>,
}

/// Part of a record that only a live one has.
#[derive(Clone, Debug)]
pub(super) struct BodyRef<'a> {
    pub(super) origin: Origin,
    collection: &'a str,
    id: &'a str,
    /// Lineage without the covered creations, which deleted records have too.
    lineage: Lineage,
    pub(super) json: &'a str,
    form: Form<'a>,
}

#[derive(Clone, Debug)]
enum Form<'a> {
    Latest(Stamp),
    /// Concatenated heads, and the chunks.
    Merged(&'a [u8], History),
    Command(CommandRef<'a>),
    Result(ResultRef<'a>),
}

fn damaged() -> Error {
    Error::Damaged("a record does not match its checksum".into())
}

impl<'a> RecordRef<'a> {
    /// Checks and parses the bytes of a record.
    pub(super) fn decode(bytes: &'a [u8]) -> Result<RecordRef<'a>, Error> {
        RecordRef::parse(bytes).ok_or_else(damaged)
    }

    fn parse(bytes: &'a [u8]) -> Option<RecordRef<'a>> {
        let mut rest = Bytes(bytes);
        let sum = u32::from_le_bytes(rest.array()?);
        let summed = rest.0;
        let flags = rest.byte()?;
        let kind = Kind::from_number(flags & KIND)?;
        let incarnation = rest.varint()?;
        let sequence = rest.varint()?;
        let covered = Covered::parse(&mut rest)?;
        let body = if flags & TOMBSTONE == 0 { Some(BodyRef::parse(&mut rest, kind, flags)?) } else { None };
        if checksum(&summed[..summed.len() - rest.0.len()]) != sum {
            return None;
        }
        rest.is_empty().then_some(RecordRef { kind, incarnation, sequence, covered, body })
    }

    /// Same as [`Record::version`].
    pub(super) fn version(&self, hash: &KeyHash) -> Version {
        let kind_byte = self.kind as u8 | if self.body.is_some() { 0 } else { TOMBSTONE };
        let mut out = version_head(hash, kind_byte, self.incarnation);
        match self.body.as_ref().map(|body| &body.form) {
            None => out.extend_from_slice(&tombstone_tag(&self.covered)),
            Some(Form::Latest(stamp)) => put_stamp(&mut out, stamp),
            Some(Form::Merged(heads, ..)) => out.extend_from_slice(heads),
            Some(Form::Command(command)) => out.extend_from_slice(&shortened(&command.state())),
            Some(Form::Result(result)) => out.extend_from_slice(&shortened(&result.state())),
        }
        Version(out)
    }

    /// Copies the record.
    pub(super) fn to_record(&self) -> Result<Record, Error> {
        let (kind, incarnation, sequence) = (self.kind, self.incarnation, self.sequence);
        let covered = self.covered.clone();
        let Some(body) = &self.body else {
            let (origin, content) = (EndpointId::default(), Content::Tombstone);
            let lineage = Lineage { covered, ..Lineage::default() };
            return Ok(Record { kind, incarnation, sequence, origin, name: None, lineage, content });
        };
        let lineage = Lineage { covered, ..body.lineage.clone() };
        let (name, content) = (Some(body.name()?), body.content());
        Ok(Record { kind, incarnation, sequence, origin: body.origin, name, lineage, content })
    }
}

impl<'a> BodyRef<'a> {
    fn parse(rest: &mut Bytes<'a>, kind: Kind, flags: u8) -> Option<BodyRef<'a>> {
        let origin = EndpointId(rest.array()?);
        let (collection, id) = (rest.text()?, rest.text()?);
        let lineage = Lineage::parse_live(rest)?;
        let (form, json) = match kind {
            Kind::Latest => (Form::Latest(parse_stamp(rest, origin, flags)?), rest.text()?),
            Kind::Merged => parse_merged(rest)?,
            Kind::Command => match command::parse(rest)? {
                command::Parsed::Command(command, json) => (Form::Command(command), json),
                command::Parsed::Result(result, json) => (Form::Result(result), json),
            },
        };
        Some(BodyRef { origin, collection, id, lineage, json, form })
    }

    pub(super) fn name(&self) -> Result<Key, Error> {
        Key::new(self.collection, self.id).map_err(|cause| Error::Damaged(format!("a record's name: {cause}")))
    }

    fn content(&self) -> Content {
        let json = self.json.to_owned();
        match &self.form {
            Form::Latest(stamp) => Content::Latest { stamp: *stamp, json },
            Form::Merged(heads, history) => {
                Content::Merged { heads: heads.as_chunks::<32>().0.to_vec(), json, history: history.clone() }
            }
            Form::Command(command) => Content::Command(Box::new(command.to_command(json))),
            Form::Result(result) => Content::Result(Box::new(result.to_result(json))),
        }
    }

    /// Returns the chunks of a `merged` record.
    pub(super) fn history(&self) -> Option<&History> {
        match &self.form {
            Form::Merged(_, history) => Some(history),
            _ => None,
        }
    }
}

fn parse_stamp(rest: &mut Bytes, origin: Origin, flags: u8) -> Option<Stamp> {
    let counter = rest.varint()?;
    let run = RunId(rest.array()?);
    let node = if flags & OTHER_NODE == 0 { origin } else { EndpointId(rest.array()?) };
    Some(Stamp { counter, node, run })
}

fn parse_merged<'a>(rest: &mut Bytes<'a>) -> Option<(Form<'a>, &'a str)> {
    let heads = usize::try_from(rest.varint()?).ok()?;
    let heads = rest.take(heads.checked_mul(32)?)?;
    let json = rest.text()?;
    Some((Form::Merged(heads, History::parse(rest)?), json))
}

/// A parsed `base` of a client.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Base {
    /// First bytes of the key hash of the document.
    key: [u8; VERSION_KEY_BYTES],
    pub(super) incarnation: u64,
    pub(super) content: BaseContent,
}

/// Part of a [`Base`] that depends on the kind.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum BaseContent {
    /// Digest of the covered creations.
    Tombstone([u8; 8]),
    Latest(Stamp),
    Merged(Vec<[u8; 32]>),
    Command([u8; 16]),
}

impl Base {
    /// Parses a version, the inverse of [`Record::version`]; `None` for bytes that it never made.
    pub(super) fn parse(version: &Version) -> Option<Base> {
        let mut rest = Bytes(&version.0);
        let flags = rest.byte()?;
        let kind = Kind::from_number(flags & !TOMBSTONE)?;
        let (key, incarnation) = (rest.array()?, rest.varint()?);
        let content = match kind {
            _ if flags & TOMBSTONE != 0 => BaseContent::Tombstone(rest.array()?),
            Kind::Merged => {
                let (heads, []) = rest.take(rest.0.len())?.as_chunks::<32>() else { return None };
                BaseContent::Merged(heads.to_vec())
            }
            Kind::Latest => {
                let (counter, node, run) = (rest.varint()?, EndpointId(rest.array()?), RunId(rest.array()?));
                BaseContent::Latest(Stamp { counter, node, run })
            }
            Kind::Command => BaseContent::Command(rest.array()?),
        };
        rest.is_empty().then_some(Base { key, incarnation, content })
    }

    /// Returns true if it is a version of this document.
    pub(super) fn is_of(&self, hash: &KeyHash) -> bool {
        hash.0.starts_with(&self.key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Dot, Dots, Sibling};

    fn stamp(counter: u64) -> Stamp {
        Stamp { counter, node: EndpointId([7; 32]), run: RunId([9; 16]) }
    }

    const HASH: KeyHash = KeyHash([4; 16]);

    fn dot(writer: u8, incarnation: u64) -> Dot {
        Dot { writer: [writer; 8], incarnation }
    }

    /// Returns a lineage that covers one creation and has a sibling.
    fn lineage() -> Lineage {
        let sibling = Sibling {
            dots: Dots::one(dot(3, 1)),
            origin: EndpointId([8; 32]),
            stamp: Stamp { node: EndpointId([6; 32]), ..stamp(2) },
            json: r#"{"y":1}"#.into(),
        };
        let covered = Covered::default().with(&[dot(1, 2)]);
        Lineage { dots: Dots::one(dot(2, 3)), covered, siblings: vec![sibling] }
    }

    fn latest(origin: u8) -> Record {
        Record {
            kind: Kind::Latest,
            incarnation: 3,
            sequence: 300,
            origin: EndpointId([origin; 32]),
            name: Some(Key::new("platforms", "a1").unwrap()),
            lineage: lineage(),
            content: Content::Latest { stamp: stamp(5), json: r#"{"x":1}"#.into() },
        }
    }

    fn merged() -> Record {
        let mut history = History::whole(vec![1; 40]);
        history.number(8);
        history.add(&[2; 5]);
        history.number(300);
        let mut parts = Vec::new();
        history.encode(&mut parts);
        let history = History::parse(&mut Bytes(&parts)).unwrap();
        Record {
            kind: Kind::Merged,
            lineage: Lineage { siblings: Vec::new(), ..lineage() },
            content: Content::Merged { heads: vec![[1; 32], [2; 32]], json: "{}".into(), history },
            ..latest(7)
        }
    }

    fn tombstone() -> Record {
        let (name, content) = (None, Content::Tombstone);
        let lineage = Lineage { covered: lineage().covered, ..Lineage::default() };
        Record { name, content, lineage, origin: EndpointId::default(), ..latest(7) }
    }

    #[test]
    fn every_kind_of_record_comes_back() {
        for record in [latest(7), latest(8), merged(), tombstone()] {
            let bytes = record.encode();
            let decoded = RecordRef::decode(&bytes).unwrap();
            assert_eq!(decoded.to_record().unwrap(), record);
            assert_eq!(decoded.version(&HASH), record.version(&HASH));
        }
    }

    #[test]
    fn a_tombstone_with_its_key_takes_about_fifty_bytes() {
        let covered = Covered::default().with(&[dot(1, 1 << 20)]);
        let lineage = Lineage { covered, ..Lineage::default() };
        let record = Record { incarnation: 1 << 20, sequence: 1 << 48, lineage, ..tombstone() };
        assert!(record.encode().len() + 16 <= 53);
    }

    #[test]
    fn a_flipped_bit_or_a_missing_byte_is_noticed() {
        for record in [latest(7), merged(), tombstone()] {
            let bytes = record.encode();
            for at in 0..bytes.len() {
                let mut flipped = bytes.clone();
                flipped[at] ^= 1 << (at % 8);
                assert!(RecordRef::decode(&flipped).is_err(), "byte {at}");
                assert!(RecordRef::decode(&bytes[..at]).is_err(), "{at} bytes");
            }
        }
    }

    #[test]
    fn versions_parse_back_as_bases_and_garbage_does_not() {
        let parse = |record: &Record| Base::parse(&record.version(&HASH)).unwrap();
        assert_eq!(parse(&latest(7)), Base { key: [4; 8], incarnation: 3, content: BaseContent::Latest(stamp(5)) });
        assert_eq!(parse(&merged()).content, BaseContent::Merged(vec![[1; 32], [2; 32]]));
        assert!(matches!(parse(&tombstone()).content, BaseContent::Tombstone(_)));
        assert!(parse(&latest(7)).is_of(&HASH) && !parse(&latest(7)).is_of(&KeyHash([5; 16])));
        for garbage in [&[][..], &[9; 20], &[1, 1, 5], &[1; 12], &[2; 12], &[0x81; 17], &[0x81; 20]] {
            assert_eq!(Base::parse(&Version(garbage.to_vec())), None);
        }
    }

    #[test]
    fn a_version_hash_covers_what_orders_records_and_nothing_local() {
        let same = Record { sequence: 1, ..latest(7) };
        assert_eq!(same.version_hash(), latest(7).version_hash());
        let differing = [
            Record { incarnation: 4, ..latest(7) },
            Record { content: Content::Latest { stamp: stamp(6), json: r#"{"x":1}"#.into() }, ..latest(7) },
            Record { content: Content::Latest { stamp: stamp(5), json: r#"{"x":2}"#.into() }, ..latest(7) },
            Record { lineage: Lineage { dots: Dots::one(dot(2, 4)), ..lineage() }, ..latest(7) },
            Record { lineage: Lineage { siblings: Vec::new(), ..lineage() }, ..latest(7) },
            Record { lineage: Lineage { covered: Covered::default(), ..lineage() }, ..latest(7) },
            tombstone(),
            merged(),
        ];
        differing.iter().for_each(|other| assert_ne!(other.version_hash(), latest(7).version_hash()));
    }
}

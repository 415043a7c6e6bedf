//! Lineage of a record: the creations it descends from, and those that earlier deletions have seen.
//!
//! Owns the rule by which a deletion removes what it has seen and nothing else (docs/storage.md, "Creations"). Never looks at
//! content. Its sets join in any order to the same result.

mod covered;

use ring::digest::{SHA256, digest};

use crate::identity::EndpointId;
use crate::store::Stamp;
use crate::store::codec::{Bytes, put_bytes, put_varint};
pub use covered::{COVERED_DOTS, Covered};

/// Maximum number of creations that a live record descends from without having been put since they met.
pub const LIVE_DOTS: usize = 256;
/// Maximum number of versions of a `latest` document besides the newest, each of a different creation.
pub const SIBLINGS: usize = 8;

/// One creation: a put that made a document where none was stored.
///
/// A later creation of the same document by the same writer has a higher incarnation, and was made over a record that covers
/// the earlier one. The highest covered incarnation of a writer therefore covers all before it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Dot {
    /// First 8 bytes of SHA-256 over node and run.
    pub writer: [u8; 8],
    /// One more than any incarnation of the document that the writer had seen.
    pub incarnation: u64,
}

impl Dot {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.writer);
        put_varint(out, self.incarnation);
    }

    fn parse(rest: &mut Bytes) -> Option<Dot> {
        Some(Dot { writer: rest.array()?, incarnation: rest.varint().filter(|incarnation| *incarnation > 0)? })
    }
}

/// A sorted set of dots.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Dots(pub(super) Vec<Dot>);

impl Dots {
    /// Returns the set of one creation.
    #[must_use]
    pub fn one(dot: Dot) -> Dots {
        Dots(vec![dot])
    }

    /// Returns the union of two sets.
    #[must_use]
    pub fn union(&self, other: &Dots) -> Dots {
        self.iter().chain(other.iter()).copied().collect()
    }

    /// Returns the dots that `covered` does not cover.
    #[must_use]
    pub fn outside(&self, covered: &Covered) -> Dots {
        Dots(self.iter().filter(|dot| !covered.covers(dot)).copied().collect())
    }

    /// Iterates over the dots in order.
    pub fn iter(&self) -> std::slice::Iter<'_, Dot> {
        self.0.iter()
    }

    /// Returns the number of dots.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns true if the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the highest incarnation, or 0 if the set is empty.
    fn highest(&self) -> u64 {
        self.iter().map(|dot| dot.incarnation).max().unwrap_or(0)
    }

    /// Encodes the number of dots and the dots.
    pub(in crate::store) fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.0.len() as u64);
        self.iter().for_each(|dot| dot.put(out));
    }

    /// Parses the set, the inverse of [`Dots::put`]; `None` for more than `most` dots, or dots out of order.
    pub(in crate::store) fn parse(rest: &mut Bytes, most: usize) -> Option<Dots> {
        let count = usize::try_from(rest.varint()?).ok().filter(|count| *count <= most)?;
        let dots = (0..count).map(|_| Dot::parse(rest)).collect::<Option<Vec<_>>>()?;
        dots.is_sorted_by(|one, next| one < next).then_some(Dots(dots))
    }

    /// Encodes the set for messages, as [`Dots::put`] does.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        bytes
    }

    /// Parses the set, the inverse of [`Dots::to_bytes`].
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Dots> {
        let mut rest = Bytes(bytes);
        Dots::parse(&mut rest, LIVE_DOTS).filter(|_| rest.is_empty())
    }
}

impl FromIterator<Dot> for Dots {
    fn from_iter<I: IntoIterator<Item = Dot>>(dots: I) -> Dots {
        let mut dots: Vec<_> = dots.into_iter().collect();
        dots.sort_unstable();
        dots.dedup();
        Dots(dots)
    }
}

/// A version of a `latest` document that is not the newest, of a creation that the newest does not descend from.
///
/// It is kept until the next put, so that a deletion which has seen only the newest version leaves this one.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Sibling {
    /// Creations that it descends from.
    pub dots: Dots,
    /// Node that wrote it.
    pub origin: EndpointId,
    /// Stamp that orders it.
    pub stamp: Stamp,
    /// Content of the version.
    pub json: String,
}

impl Sibling {
    fn put(&self, out: &mut Vec<u8>) {
        self.dots.put(out);
        out.extend_from_slice(&self.origin.0);
        put_varint(out, self.stamp.counter);
        out.extend_from_slice(&self.stamp.node.0);
        out.extend_from_slice(&self.stamp.run.0);
        put_bytes(out, self.json.as_bytes());
    }

    fn parse(rest: &mut Bytes) -> Option<Sibling> {
        let (dots, origin) = (Dots::parse(rest, LIVE_DOTS)?, EndpointId(rest.array()?));
        let (counter, node, run) = (rest.varint()?, EndpointId(rest.array()?), crate::store::RunId(rest.array()?));
        Some(Sibling { dots, origin, stamp: Stamp { counter, node, run }, json: rest.text()?.to_owned() })
    }
}

/// The creations behind a record; see the module documentation. Empty for commands, which are never put again after removal.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Lineage {
    /// Creations that a live record descends from, usually one. None of them is covered.
    pub dots: Dots,
    /// Creations that the deletions and compactions before this record have seen.
    pub covered: Covered,
    /// Siblings of a `latest` record, the newest first. No dot is in two of them, nor in one of them and in `dots`.
    pub siblings: Vec<Sibling>,
}

impl Lineage {
    /// Returns the lineage of a first or next creation over `before`, which it covers.
    pub(crate) fn create(before: Option<&Lineage>, writer: [u8; 8]) -> Lineage {
        let covered = before.map(Lineage::buried).unwrap_or_default().covered;
        let dot = Dot { writer, incarnation: covered.highest() + 1 };
        Lineage { dots: Dots::one(dot), covered, siblings: Vec::new() }
    }

    /// Returns the lineage of a put, which descends from all stored creations.
    pub(crate) fn edited(&self) -> Lineage {
        Lineage { dots: self.all_dots(), covered: self.covered.clone(), siblings: Vec::new() }
    }

    /// Returns the lineage of a deletion, which has seen all stored creations.
    pub(crate) fn buried(&self) -> Lineage {
        Lineage { dots: Dots::default(), covered: self.covered.with(self.all_dots().iter()), siblings: Vec::new() }
    }

    /// Returns the incarnation of the record, which follows from its creations.
    #[must_use]
    pub fn incarnation(&self) -> u64 {
        let covered = self.covered.highest();
        if self.dots.is_empty() { covered } else { self.all_dots().highest().max(covered + 1) }
    }

    /// Returns the creations of the record and of its siblings.
    #[must_use]
    pub fn all_dots(&self) -> Dots {
        let siblings = self.siblings.iter().flat_map(|sibling| sibling.dots.iter());
        self.dots.iter().chain(siblings).copied().collect()
    }

    /// Returns true if a part of the record survives deletions that have seen `covered`.
    pub(crate) fn survives(&self, covered: &Covered) -> bool {
        let mut siblings = self.siblings.iter().flat_map(|sibling| sibling.dots.iter());
        self.dots.iter().any(|dot| !covered.covers(dot)) || siblings.any(|dot| !covered.covers(dot))
    }

    /// Checks a lineage from a peer, and returns the first fault as the error.
    pub(crate) fn check(&self, live: bool, incarnation: u64) -> Result<(), &'static str> {
        let all = self.all_dots();
        let count = self.dots.len() + self.siblings.iter().map(|sibling| sibling.dots.len()).sum::<usize>();
        match () {
            () if live == self.dots.is_empty() => Err("a live document has creations, a deleted one has none"),
            () if self.siblings.iter().any(|sibling| sibling.dots.is_empty()) => Err("a sibling without a creation"),
            () if count != all.len() || count > LIVE_DOTS => Err("creations that are named twice, or too many"),
            () if self.siblings.len() > SIBLINGS => Err("too many siblings"),
            () if all.iter().any(|dot| self.covered.covers(dot)) => Err("it covers its own creation"),
            () if self.incarnation() != incarnation => Err("its incarnation does not follow from its creations"),
            () => Ok(()),
        }
    }

    /// Encodes the lineage of a record without the covered creations.
    pub(in crate::store) fn put_live(&self, out: &mut Vec<u8>) {
        self.dots.put(out);
        put_varint(out, self.siblings.len() as u64);
        self.siblings.iter().for_each(|sibling| sibling.put(out));
    }

    /// Parses the encoding of [`Lineage::put_live`].
    pub(in crate::store) fn parse_live(rest: &mut Bytes) -> Option<Lineage> {
        let dots = Dots::parse(rest, LIVE_DOTS)?;
        let count = usize::try_from(rest.varint()?).ok().filter(|count| *count <= SIBLINGS)?;
        let siblings = (0..count).map(|_| Sibling::parse(rest)).collect::<Option<Vec<_>>>()?;
        Some(Lineage { dots, covered: Covered::default(), siblings })
    }

    /// Returns the hash of everything that distinguishes versions: all but the origins of siblings.
    pub(in crate::store) fn digest(&self) -> [u8; 32] {
        let mut bytes = Vec::new();
        self.covered.put(&mut bytes);
        self.dots.put(&mut bytes);
        for Sibling { dots, stamp, json, .. } in &self.siblings {
            dots.put(&mut bytes);
            bytes.extend_from_slice(&stamp.counter.to_be_bytes());
            bytes.extend_from_slice(&stamp.node.0);
            bytes.extend_from_slice(&stamp.run.0);
            bytes.extend_from_slice(digest(&SHA256, json.as_bytes()).as_ref());
        }
        digest(&SHA256, &bytes).as_ref().try_into().expect("SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests;

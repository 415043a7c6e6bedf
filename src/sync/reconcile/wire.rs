//! Format of a reconciliation message: `docs/wire.md`, "Reconciliation messages".
//!
//! A message is a sequence of entries in key order, each about the keys from the end of the entry before it up to a bound. The
//! reader accepts any bytes and allocates no more than they hold.

use prost::encoding::{decode_varint, encode_varint};

use super::{Item, ReconcileError, RemoteHas};
use crate::store::fingerprint::Fingerprint;
use crate::store::{KeyHash, VersionHash};

const KEY_BYTES: usize = 16;
const VERSION_BYTES: usize = 16;

// Bits 7 and 6 of an entry's head.
const SKIP: u8 = 0;
const FINGERPRINT: u8 = 1;
const ITEMS: u8 = 2;
const ANSWER: u8 = 3;

/// Low bits of a head without a bound: the entry reaches to the last key of all.
const TO_THE_END: u8 = 0b11_1100;
/// Final byte of a message that has a continuation: "skip to the end", which is otherwise never needed.
const MORE: u8 = TO_THE_END;

/// Range of keys as big-endian numbers, both ends included.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Span {
    pub(super) first: u128,
    pub(super) last: u128,
}

impl Span {
    pub(super) const ALL: Span = Span { first: 0, last: u128::MAX };

    /// Returns the number of leading bytes that all keys of the span share.
    fn shared_bytes(self) -> usize {
        shared_bytes(self.first, self.last)
    }
}

fn shared_bytes(a: u128, b: u128) -> usize {
    (a ^ b).leading_zeros() as usize / 8
}

/// Status of one item that the other side listed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Status {
    /// Index of the item in the list.
    pub(super) position: usize,
    /// State of the reporting side under that key.
    pub(super) theirs: RemoteHas,
}

/// Statement of a message about one span.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum SpanContent {
    /// "My items here have this fingerprint."
    Fingerprint(Fingerprint),
    /// "These are all my items here."
    Items(Vec<Item>),
    /// "Of the items you listed, I lack these, or hold these in another version."
    Answer(Vec<Status>),
}

/// Writer of entries in ascending order of their spans; the gaps are skipped.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
    /// First key not covered yet.
    next: u128,
}

impl Writer {
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    pub(super) fn fingerprint(&mut self, span: Span, fingerprint: &Fingerprint) {
        self.begin(FINGERPRINT, span);
        self.out.extend_from_slice(fingerprint);
    }

    /// Writes a list; `items` are all within `span`.
    pub(super) fn items(&mut self, span: Span, items: &[Item]) {
        self.begin(ITEMS, span);
        encode_varint(items.len() as u64, &mut self.out);
        let shared = span.shared_bytes();
        for item in items {
            self.out.extend_from_slice(&item.hash.0[shared..]);
            self.out.extend_from_slice(&item.version.0);
        }
    }

    /// Writes an answer; `statuses` are in ascending order of their positions.
    pub(super) fn answer(&mut self, span: Span, statuses: &[Status]) {
        self.begin(ANSWER, span);
        encode_varint(statuses.len() as u64, &mut self.out);
        let mut next = 0;
        for status in statuses {
            let gap = (status.position - next) as u64;
            encode_varint(gap << 1 | u64::from(status.theirs == RemoteHas::Differs), &mut self.out);
            next = status.position + 1;
        }
    }

    /// Ends the message with the mark of a continuation.
    pub(super) fn more(&mut self) {
        self.out.push(MORE);
    }

    fn begin(&mut self, mode: u8, span: Span) {
        debug_assert!(span.first >= self.next && span.first <= span.last, "spans ascend");
        if span.first != self.next {
            self.head(SKIP, span.first);
        }
        match span.last.checked_add(1) {
            Some(end) => self.head(mode, end),
            None => self.out.push(mode << 6 | TO_THE_END),
        }
    }

    /// Writes a head and its bound. `end` is the first key after the entry: the number of bytes it shares with the previous
    /// bound, then the others up to the last that is not zero.
    #[expect(clippy::cast_possible_truncation, reason = "both lengths are at most 16")]
    fn head(&mut self, mode: u8, end: u128) {
        let shared = shared_bytes(self.next, end);
        let length = KEY_BYTES - end.trailing_zeros() as usize / 8 - shared;
        let code = if length <= 3 { length as u8 } else { 0 };
        self.out.push(mode << 6 | (shared as u8) << 2 | code);
        if code == 0 {
            self.out.push(length as u8);
        }
        self.out.extend_from_slice(&end.to_be_bytes()[shared..shared + length]);
        self.next = end;
    }
}

/// Reader of the entries of a message; skipped ones are not returned.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// First key not covered yet; `None` once the last key of all is covered.
    next: Option<u128>,
    more: bool,
}

const TRUNCATED: ReconcileError = ReconcileError::Malformed("it ends within an entry");

impl<'a> Reader<'a> {
    pub(super) fn new(message: &'a [u8]) -> Reader<'a> {
        Reader { rest: message, next: Some(0), more: false }
    }

    /// Returns true if the message has a continuation; known once the entries are read.
    pub(super) fn more(&self) -> bool {
        self.more
    }

    /// Returns the next entry that is not skipped, or `None` at the end of the message.
    pub(super) fn next_entry(&mut self) -> Result<Option<(Span, SpanContent)>, ReconcileError> {
        while let Some((&head, rest)) = self.rest.split_first() {
            if head == MORE {
                self.more = true;
                return if rest.is_empty() { Ok(None) } else { Err(ReconcileError::Malformed("bytes after its end")) };
            }
            self.rest = rest;
            let span = self.span(head)?;
            match head >> 6 {
                SKIP => {}
                FINGERPRINT => return Ok(Some((span, SpanContent::Fingerprint(self.array()?)))),
                ITEMS => return Ok(Some((span, SpanContent::Items(self.items(span)?)))),
                _ => return Ok(Some((span, SpanContent::Answer(self.statuses()?)))),
            }
        }
        Ok(None)
    }

    fn span(&mut self, head: u8) -> Result<Span, ReconcileError> {
        let first = self.next.ok_or(ReconcileError::Malformed("an entry after the last key"))?;
        if head & 0b11_1111 == TO_THE_END {
            self.next = None;
            return Ok(Span { first, last: u128::MAX });
        }
        let end = self.bound(head, first)?;
        if end <= first {
            return Err(ReconcileError::Malformed("bounds that do not ascend"));
        }
        self.next = Some(end);
        Ok(Span { first, last: end - 1 })
    }

    fn bound(&mut self, head: u8, previous: u128) -> Result<u128, ReconcileError> {
        let shared = usize::from(head >> 2 & 0b1111);
        let length = match head & 0b11 {
            0 => usize::from(self.take(1)?[0]),
            short => usize::from(short),
        };
        if shared + length > KEY_BYTES {
            return Err(ReconcileError::Malformed("a bound longer than a key"));
        }
        let mut end = [0; KEY_BYTES];
        end[..shared].copy_from_slice(&previous.to_be_bytes()[..shared]);
        end[shared..shared + length].copy_from_slice(self.take(length)?);
        Ok(u128::from_be_bytes(end))
    }

    fn items(&mut self, span: Span) -> Result<Vec<Item>, ReconcileError> {
        let shared = span.shared_bytes();
        let bytes_each = KEY_BYTES - shared + VERSION_BYTES;
        let count = self.count(bytes_each)?;
        let mut items: Vec<Item> = Vec::with_capacity(count);
        for _ in 0..count {
            let mut hash = span.first.to_be_bytes();
            hash[shared..].copy_from_slice(self.take(KEY_BYTES - shared)?);
            let item = Item { hash: KeyHash(hash), version: VersionHash(self.array()?) };
            if items.last().is_some_and(|previous| previous.hash >= item.hash) {
                return Err(ReconcileError::Malformed("items that do not ascend"));
            }
            if item.key() < span.first || item.key() > span.last {
                return Err(ReconcileError::Malformed("an item outside its range"));
            }
            items.push(item);
        }
        Ok(items)
    }

    fn statuses(&mut self) -> Result<Vec<Status>, ReconcileError> {
        let count = self.count(1)?;
        let mut statuses = Vec::with_capacity(count);
        let mut next = 0usize;
        for _ in 0..count {
            let code = self.varint()?;
            let gap = usize::try_from(code >> 1).map_err(|_| TRUNCATED)?;
            let position = next.checked_add(gap).ok_or(ReconcileError::Malformed("a position out of range"))?;
            let theirs = if code & 1 == 0 { RemoteHas::Lacks } else { RemoteHas::Differs };
            statuses.push(Status { position, theirs });
            next = position.checked_add(1).ok_or(ReconcileError::Malformed("a position out of range"))?;
        }
        Ok(statuses)
    }

    /// Returns a count of elements of at least `bytes_each` bytes; fails if the message is too short for them.
    fn count(&mut self, bytes_each: usize) -> Result<usize, ReconcileError> {
        let count = self.varint()?;
        match usize::try_from(count) {
            Ok(count) if count <= self.rest.len() / bytes_each => Ok(count),
            _ => Err(TRUNCATED),
        }
    }

    fn varint(&mut self) -> Result<u64, ReconcileError> {
        decode_varint(&mut self.rest).map_err(|_| ReconcileError::Malformed("a number that is none"))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ReconcileError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ReconcileError> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(TRUNCATED)?;
        self.rest = rest;
        Ok(taken)
    }
}

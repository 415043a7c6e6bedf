//! A subscription: a cursor into the store's indexes of newest versions, and the client's credit.
//!
//! A subscriber's backlog is never queued: it is the part of the index after its cursor. A slow subscriber therefore costs no
//! memory, and gets only the newest version of each changed document.

use std::collections::BTreeSet;
use std::iter::Peekable;

use peat_ipc::prost::Message as _;
use peat_ipc::sidecar::{ChangeType, DocumentChange, SubscribeRequest};
use peat_ipc::{CallError, Code};

use crate::identity::EndpointId;
use crate::store::{self, Content, IndexEntry, Key, Kind, Record, RunId, Snapshot, Token};

/// Index entries examined per turn, so that a subscription that skips many does not delay other calls.
const EXAMINED_A_TURN: usize = 256;

/// One subscription.
#[derive(Debug)]
pub(super) struct Feed {
    /// Collections to include; empty for all.
    collections: BTreeSet<String>,
    /// Collections to leave out.
    excluded: BTreeSet<String>,
    /// Position up to which everything was sent or skipped, and from which the client may resume.
    token: Token,
    /// Last sequence number of the initial snapshot; `None` once it is complete.
    snapshot_end: Option<u64>,
    credit: u32,
    /// Maximum size of a change in bytes, as the client requested; 0 if it did not.
    max_change_bytes: usize,
}

/// The reason why a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// This snapshot of the store has no more entries.
    UpToDate,
    /// The turn's budget is used up; there may be more to send at once.
    More,
    /// The client has no credit, or its output buffer is full.
    Blocked,
}

impl Feed {
    /// Creates a subscription that begins now, at the start of a snapshot, or after the client's token.
    ///
    /// # Errors
    /// OUT_OF_RANGE for a token that is no longer known; INVALID_ARGUMENT for a request that contradicts itself.
    pub(super) fn new(request: SubscribeRequest, run: RunId, snapshot: &Snapshot) -> Result<Feed, CallError> {
        let resume = resume_point(&request)?;
        let mut feed = Feed {
            max_change_bytes: request.max_change_bytes as usize,
            collections: request.collections.into_iter().collect(),
            excluded: request.exclude.into_iter().collect(),
            token: snapshot.token(run, snapshot.visible()),
            snapshot_end: None,
            credit: 0,
        };
        if request.snapshot {
            feed.snapshot_end = Some(snapshot.visible());
            feed.token.sequence = 0;
        }
        if let Some(token) = resume {
            feed.token = token;
            feed.continue_in(run, snapshot)?;
        }
        Ok(feed)
    }

    /// Returns the maximum size of a change in bytes, as the client requested; 0 if it did not.
    pub(super) fn max_change_bytes(&self) -> usize {
        self.max_change_bytes
    }

    pub(super) fn grant(&mut self, items: u32) {
        self.credit = self.credit.saturating_add(items);
    }

    /// Continues in run `run`, after the store reopened its database.
    ///
    /// # Errors
    /// OUT_OF_RANGE: a change that was sent to this subscriber is not part of this database's history.
    pub(super) fn continue_in(&mut self, run: RunId, snapshot: &Snapshot) -> Result<(), CallError> {
        if !snapshot.knows(&self.token)? {
            return Err(stale());
        }
        self.token.run = run;
        Ok(())
    }

    /// Sends changes after the cursor, each of at most `most` bytes, within the credit and while `sink` returns true (room for
    /// more).
    ///
    /// # Errors
    /// OUT_OF_RANGE: names of deletions that this subscriber has not received were dropped.
    pub(super) fn advance(
        &mut self,
        snapshot: &Snapshot,
        most: usize,
        mut sink: impl FnMut(&DocumentChange) -> bool,
    ) -> Result<Progress, CallError> {
        // Names of deletions below the floor were dropped, so a cursor before it may have missed some.
        if self.complete_from() < snapshot.deleted_floor() {
            return Err(stale());
        }
        let mut entries = Merge::new(snapshot, self.token.sequence)?;
        for _ in 0..EXAMINED_A_TURN {
            if self.credit == 0 {
                return Ok(Progress::Blocked);
            }
            // The snapshot ends at the first entry beyond its last number, or when no entry is left.
            let change = match entries.peek()? {
                Some(sequence) if !self.ends_snapshot(sequence) => self.change(snapshot, entries.next()?)?,
                None if self.snapshot_end.is_none() => {
                    self.pass(snapshot, snapshot.visible());
                    return Ok(Progress::UpToDate);
                }
                _ => self.end_snapshot(snapshot),
            };
            if let Some(change) = change
                && !self.send(&within(change, most), &mut sink)
            {
                return Ok(Progress::Blocked);
            }
        }
        Ok(Progress::More)
    }

    fn send(&mut self, change: &DocumentChange, sink: &mut impl FnMut(&DocumentChange) -> bool) -> bool {
        self.credit -= 1;
        sink(change)
    }

    /// Returns the sequence number after which the subscriber misses nothing. During the snapshot that is its end: deletions
    /// before it need not be sent.
    fn complete_from(&self) -> u64 {
        self.token.sequence.max(self.snapshot_end.unwrap_or(0))
    }

    fn ends_snapshot(&self, next: u64) -> bool {
        self.snapshot_end.is_some_and(|end| next > end)
    }

    /// Moves the cursor to `sequence` of `snapshot`.
    fn pass(&mut self, snapshot: &Snapshot, sequence: u64) {
        self.token = snapshot.token(self.token.run, sequence);
    }

    fn end_snapshot(&mut self, snapshot: &Snapshot) -> Option<DocumentChange> {
        let end = self.snapshot_end.take()?;
        self.pass(snapshot, end.min(snapshot.visible()));
        Some(DocumentChange {
            change_type: ChangeType::SnapshotEnd.into(),
            sequence: self.token.sequence,
            run: self.token.run_bytes(),
            ..DocumentChange::default()
        })
    }

    /// Moves the cursor past `entry`; returns the change to send, if the subscriber wants it.
    fn change(&mut self, snapshot: &Snapshot, entry: Option<IndexEntry>) -> Result<Option<DocumentChange>, CallError> {
        let Some(entry) = entry else { return Ok(None) };
        self.pass(snapshot, entry.sequence);
        let Some(record) = snapshot.record_at(&entry)? else { return Ok(None) };
        let name = match (&record.name, self.snapshot_end) {
            (Some(name), _) => Some(name.clone()),
            // A document that was deleted before the snapshot is simply not in it.
            (None, Some(_)) => None,
            (None, None) => snapshot.deleted_name(entry.sequence)?,
        };
        let name = name.filter(|name| self.wants(name));
        Ok(name.map(|name| self.describe(&name, record)))
    }

    fn wants(&self, name: &Key) -> bool {
        let collection = name.collection();
        !self.excluded.contains(collection) && (self.collections.is_empty() || self.collections.contains(collection))
    }

    fn describe(&self, name: &Key, record: Record) -> DocumentChange {
        let json_data = match record.content {
            Content::Tombstone => None,
            Content::Latest { json, .. } | Content::Merged { json, .. } => Some(json),
            Content::Command(command) => Some(command.json),
            Content::Result(result) => Some(result.json),
        };
        let change_type = if json_data.is_some() { ChangeType::Upsert } else { ChangeType::Delete };
        let origin = if record.origin == EndpointId::default() { String::new() } else { record.origin.to_string() };
        DocumentChange {
            collection: name.collection().into(),
            doc_id: name.id().into(),
            change_type: change_type.into(),
            json_data,
            sequence: self.token.sequence,
            origin,
            run: self.token.run_bytes(),
            ..DocumentChange::default()
        }
    }
}

/// Returns the change, or an OVERSIZED notice in its place if it exceeds `most` bytes.
fn within(mut change: DocumentChange, most: usize) -> DocumentChange {
    let bytes = change.encoded_len();
    if bytes > most
        && let Some(json) = change.json_data.take()
    {
        let name = format!("document {}/{}", change.collection, change.doc_id);
        change.set_change_type(ChangeType::Oversized);
        change.error = format!(
            "{name} is {} bytes of JSON, a change of {bytes}; this subscription takes {most}: read it with GetDocument, or \
             subscribe with a larger max_change_bytes",
            json.len()
        );
    }
    change
}

/// Returns the token from which a request resumes.
fn resume_point(request: &SubscribeRequest) -> Result<Option<Token>, CallError> {
    let refused = |why: &str| Err(CallError::new(Code::InvalidArgument, why));
    match Token::parse(&request.resume_run, request.resume_after) {
        Some(_) if request.snapshot => refused("snapshot and resume_run exclude each other"),
        Some(token) => Ok(Some(token)),
        None if !request.resume_run.is_empty() => {
            refused("resume_run is not a run; give back the one a change came with")
        }
        None if request.resume_after != 0 => refused("resume_after needs the resume_run it came with"),
        None => Ok(None),
    }
}

fn stale() -> CallError {
    CallError::new(
        Code::OutOfRange,
        "the node no longer knows what changed since this point; subscribe again with snapshot set",
    )
}

/// The three indexes merged by sequence number.
struct Merge<I: Iterator<Item = Result<IndexEntry, store::Error>>>([Peekable<I>; 3]);

impl Merge<std::iter::Empty<Result<IndexEntry, store::Error>>> {
    fn new(
        snapshot: &Snapshot,
        after: u64,
    ) -> Result<Merge<impl Iterator<Item = Result<IndexEntry, store::Error>>>, store::Error> {
        let entries = |kind| snapshot.entries(kind, after).map(Iterator::peekable);
        Ok(Merge([entries(Kind::Command)?, entries(Kind::Merged)?, entries(Kind::Latest)?]))
    }
}

impl<I: Iterator<Item = Result<IndexEntry, store::Error>>> Merge<I> {
    /// Returns the sequence number of the next entry.
    fn peek(&mut self) -> Result<Option<u64>, store::Error> {
        Ok(self.first()?.map(|(_, sequence)| sequence))
    }

    fn next(&mut self) -> Result<Option<IndexEntry>, store::Error> {
        match self.first()? {
            Some((index, _)) => self.0[index].next().transpose(),
            None => Ok(None),
        }
    }

    /// Returns the index with the lowest next sequence number, and that number.
    fn first(&mut self) -> Result<Option<(usize, u64)>, store::Error> {
        let mut first: Option<(usize, u64)> = None;
        for (index, entries) in self.0.iter_mut().enumerate() {
            let sequence = match entries.peek() {
                None => continue,
                Some(Ok(entry)) => entry.sequence,
                Some(Err(error)) => return Err(error.clone()),
            };
            if first.is_none_or(|(_, lowest)| sequence < lowest) {
                first = Some((index, sequence));
            }
        }
        Ok(first)
    }
}

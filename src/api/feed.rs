//! A subscription: a position in the store's index of newest versions, and how much the client will take.
//!
//! What a subscriber is owed is never queued: it is what the index holds after its position, so a slow one costs no memory
//! and gets the newest version of each changed document.

use std::collections::BTreeSet;
use std::iter::Peekable;

use peat_ipc::prost::Message as _;
use peat_ipc::sidecar::{ChangeType, DocumentChange, SubscribeRequest};
use peat_ipc::{CallError, Code};

use crate::identity::EndpointId;
use crate::store::{self, Content, Entry, Key, Kind, Record, RunId, Snapshot, Token};

/// Index entries looked at in one go, so that a subscription that skips much does not hold up other calls.
const EXAMINED_A_TURN: usize = 256;

#[derive(Debug)]
pub(super) struct Feed {
    /// Empty: all.
    collections: BTreeSet<String>,
    excluded: BTreeSet<String>,
    /// Up to here everything was sent, or need not be, and where the client may resume.
    token: Token,
    /// While the snapshot lasts: its last sequence number.
    snapshot_end: Option<u64>,
    credit: u32,
    /// The longest change it has said it takes; 0: nothing was said.
    max_change_bytes: usize,
}

/// Why a turn ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Progress {
    /// There is nothing more in this snapshot of the store.
    UpToDate,
    /// There may be more at once.
    More,
    /// The client must grant credit, or take what waits for it.
    Blocked,
}

impl Feed {
    /// Where to begin: now, at the start of a snapshot, or where the client left off.
    ///
    /// # Errors
    /// OUT_OF_RANGE for a point no longer known; INVALID_ARGUMENT for a request that contradicts itself.
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

    /// The longest change the subscriber has said it takes; 0: it has not.
    pub(super) fn max_change_bytes(&self) -> usize {
        self.max_change_bytes
    }

    pub(super) fn grant(&mut self, items: u32) {
        self.credit = self.credit.saturating_add(items);
    }

    /// Continues in run `run`, after a restart of the store.
    ///
    /// # Errors
    /// OUT_OF_RANGE: something of what was read for this subscriber is not part of this database's history.
    pub(super) fn continue_in(&mut self, run: RunId, snapshot: &Snapshot) -> Result<(), CallError> {
        if !snapshot.knows(&self.token)? {
            return Err(stale());
        }
        self.token.run = run;
        Ok(())
    }

    /// Sends what there is, each change up to `most` bytes long, within the credit and while `sink`, which says how many more bytes there is room for, has any.
    ///
    /// # Errors
    /// OUT_OF_RANGE: deletions were forgotten that this subscriber has not heard of.
    pub(super) fn advance(
        &mut self,
        snapshot: &Snapshot,
        most: usize,
        mut sink: impl FnMut(&DocumentChange) -> bool,
    ) -> Result<Progress, CallError> {
        if self.complete_from() < snapshot.deleted_floor() {
            return Err(stale());
        }
        let mut entries = Merge::new(snapshot, self.token.sequence)?;
        for _ in 0..EXAMINED_A_TURN {
            if self.credit == 0 {
                return Ok(Progress::Blocked);
            }
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

    /// The subscriber misses nothing that happened after this.
    fn complete_from(&self) -> u64 {
        self.token.sequence.max(self.snapshot_end.unwrap_or(0))
    }

    fn ends_snapshot(&self, next: u64) -> bool {
        self.snapshot_end.is_some_and(|end| next > end)
    }

    /// Moves to `sequence` of `snapshot`.
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

    /// Moves past `entry`; what the subscriber has to hear of it, if anything.
    fn change(&mut self, snapshot: &Snapshot, entry: Option<Entry>) -> Result<Option<DocumentChange>, CallError> {
        let Some(entry) = entry else { return Ok(None) };
        self.pass(snapshot, entry.sequence);
        let Some(record) = snapshot.record_at(&entry)? else { return Ok(None) };
        let name = match (&record.name, self.snapshot_end) {
            (Some(name), _) => Some(name.clone()),
            // What was deleted before a snapshot began is simply not in it.
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

/// The change, or that it is longer than the subscriber takes.
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

/// The token of a request that resumes.
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

/// The three indexes as one, by sequence number.
struct Merge<I: Iterator<Item = Result<Entry, store::Error>>>([Peekable<I>; 3]);

impl Merge<std::iter::Empty<Result<Entry, store::Error>>> {
    fn new(
        snapshot: &Snapshot,
        after: u64,
    ) -> Result<Merge<impl Iterator<Item = Result<Entry, store::Error>>>, store::Error> {
        let entries = |kind| snapshot.entries(kind, after).map(Iterator::peekable);
        Ok(Merge([entries(Kind::Command)?, entries(Kind::Merged)?, entries(Kind::Latest)?]))
    }
}

impl<I: Iterator<Item = Result<Entry, store::Error>>> Merge<I> {
    /// The sequence number of the next entry.
    fn peek(&mut self) -> Result<Option<u64>, store::Error> {
        Ok(self.first()?.map(|(_, sequence)| sequence))
    }

    fn next(&mut self) -> Result<Option<Entry>, store::Error> {
        match self.first()? {
            Some((index, _)) => self.0[index].next().transpose(),
            None => Ok(None),
        }
    }

    /// Which index goes on with the lowest sequence number, and that number.
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

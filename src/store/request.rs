//! What the store is asked and what it answers.

use std::collections::BTreeSet;

use crate::identity::EndpointId;
use crate::store::{CommandChange, Key, KeyHash, Kind, Lineage, RunId, Signed, Stamp, Version};

/// Who asked, and the asker's own number for it. The store gives it back with the reply and looks at nothing else.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ticket {
    /// The api engine's call.
    Api(u64),
    /// The sync engine's request.
    Sync(u64),
}

/// A request on its way.
#[derive(Debug)]
pub struct Submitted {
    /// Where the reply goes.
    pub ticket: Ticket,
    /// What is asked.
    pub request: Request,
}

/// The answer to one [`Submitted`].
#[derive(Debug)]
pub struct Reply {
    /// The request's ticket.
    pub ticket: Ticket,
    /// What came of it.
    pub result: Result<Outcome, crate::store::Error>,
}

/// What the store can be asked. Reads are not among them: they go through [`crate::store::Reader`].
#[derive(Debug)]
pub enum Request {
    /// A client's write.
    Write(Write),
    /// Documents from a peer.
    Apply(Apply),
    /// Remember what the operator said of a peer, across restarts.
    SaveLink(Link),
    /// Remember whether sync is on, across restarts.
    SaveSync(bool),
    /// Make everything committed so far durable before answering.
    Flush,
    /// Do nothing. The answer shows that the thread goes round.
    Nothing,
}

/// A client's write to one document.
#[derive(Debug)]
pub struct Write {
    /// Which document.
    pub key: Key,
    /// What to do with it.
    pub put: Put,
    /// Answer only once it is on disk, whatever the kind.
    pub durable: bool,
}

/// The kinds of client write.
#[derive(Debug)]
pub enum Put {
    /// Make the content this JSON object, as a difference against `base` (or against what is held).
    Whole { json: String, base: Option<Version> },
    /// RFC 7396.
    Patch { json: String, base: Option<Version> },
    /// Set these top-level fields, remove those that are null, and leave the others alone; creates the document when there is none.
    Fields(serde_json::Map<String, serde_json::Value>),
    /// Leave a tombstone. Deleting what does not exist is done already.
    Delete,
    /// Start the next incarnation from the current content.
    Compact,
    /// See [`CommandChange`].
    Command(CommandChange),
}

/// What came of a request.
#[derive(Debug)]
pub enum Outcome {
    /// A write: the version now held, its sequence number, whether it is on disk yet, bytes of history dropped by a
    /// compaction (0 otherwise).
    Written { version: Version, sequence: u64, durable: bool, dropped_bytes: u64 },
    /// An [`Apply`].
    Applied(Applied),
    /// A saved setting or a flush: on disk.
    Done,
}

/// A peer in one of its runs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerRun {
    /// The peer.
    pub node: EndpointId,
    /// Its run, as its hello said.
    pub run: RunId,
}

/// One batch from a peer, applied in one transaction together with the cursors it earns.
#[derive(Debug)]
pub struct Apply {
    /// Who sent it.
    pub from: PeerRun,
    /// This store's run when the session with the peer began. The cursors count on everything applied in the session, so a
    /// store that was reopened since, and may have lost some of it, takes the documents only.
    pub into: RunId,
    /// Its documents, in the order they were sent.
    pub documents: Vec<Incoming>,
    /// What this node has from that peer once the documents are in; that of merged documents is not written
    /// when the base of one is missing.
    pub cursors: Vec<Cursor>,
    /// Flush now; somebody waits.
    pub flush: bool,
    /// Collections that do not sync with the peer.
    pub excluded: BTreeSet<String>,
}

/// What came of an [`Apply`].
#[derive(Debug)]
pub struct Applied {
    /// Everything the batch brought is on disk once [`Tip::durable`] reaches this.
    pub sequence: u64,
    /// Deltas whose base is missing here: the key, and change hashes this node has (heads first, then a sample of
    /// ancestors), for the answer. When not empty, no cursor of merged documents was written. Versions of
    /// one document may overtake each other: one is missing only if what it builds on is nowhere in the batch.
    pub missing: Vec<(KeyHash, Vec<[u8; 32]>)>,
    /// Documents refused for what is wrong with them, a sentence each. They count against the peer, not the batch.
    pub refused: Vec<(KeyHash, String)>,
    /// Nodes whose versions in the batch show that two machines write under their identity.
    pub copied: Vec<EndpointId>,
}

/// A document version from a peer.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// The key's hash. Checked against `name` when there is one.
    pub hash: KeyHash,
    /// Absent for a tombstone.
    pub name: Option<Key>,
    /// The record's kind there.
    pub kind: Kind,
    /// Its incarnation.
    pub incarnation: u64,
    /// Who wrote it.
    pub origin: EndpointId,
    /// The creations it descends from and those it covers.
    pub lineage: Lineage,
    /// Its content.
    pub body: Body,
}

/// Content of an [`Incoming`].
#[derive(Clone, Debug)]
pub enum Body {
    /// Deleted.
    Tombstone,
    /// A register.
    Latest { stamp: Stamp, json: Vec<u8> },
    /// Automerge chunks, not yet checked.
    Merged(Merged),
    /// A command, not yet checked.
    Command(IncomingCommand),
    /// What one of a command's targets made of it, not yet checked.
    Result { rank: u8, result: Vec<u8>, error: String },
}

/// A command of an [`Incoming`].
#[derive(Clone, Debug)]
pub struct IncomingCommand {
    /// What the issuer signed.
    pub signed: Signed,
    /// A status for each target, by number.
    pub ranks: Vec<u8>,
    /// Somebody asked for its end.
    pub cancel_requested: bool,
    /// The boot time here at which it can no longer be accepted; `None`: the sender does not know. Of no meaning for a command
    /// that never expires.
    pub until: Option<u64>,
}

/// Automerge chunks of an [`Incoming`].
#[derive(Clone, Debug)]
pub struct Merged {
    /// Concatenated, uncompressed chunks.
    pub chunks: Vec<u8>,
    /// Changes that must be here too once the chunks are in: the sender's heads when there are several, else none.
    pub heads: Vec<[u8; 32]>,
}

/// A position in a peer's index, kept by the receiver in the transaction that earned it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// Which of the peer's indexes.
    pub kind: Kind,
    /// The peer's database id.
    pub database: [u8; 16],
    /// The peer's run the sequence belongs to.
    pub run: RunId,
    /// Everything up to and including this is here.
    pub sequence: u64,
    /// As long as everything up to here is part of the peer's history ([`crate::store::Token::horizon`]); no bound when it is not above
    /// the sequence number.
    pub horizon: u64,
    /// Digest of the collections excluded from this link when the cursor was earned ([`crate::sync`] computes it); a
    /// cursor earned under another set is stale.
    pub excluded: u64,
}

/// What the operator said of a peer over the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Which peer.
    pub peer: EndpointId,
    /// What is wanted of it.
    pub wish: LinkWish,
}

/// See [`Link`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LinkWish {
    /// Dial these (`HOST:PORT`, `relay:HOST:PORT`) and admit it.
    Connect(Vec<String>),
    /// Neither dial nor admit. Where it was dialled before, for the day it is connected again.
    Refuse(Vec<String>),
    /// Nothing is wanted: it dials this node, and was last seen to do so from there. Contacted once after a start.
    Seen(String),
}

/// How far the store is: published after every commit, read by the other threads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tip {
    /// The newest sequence number a new snapshot shows.
    pub visible: u64,
    /// The newest one that a crash cannot take back.
    pub durable: u64,
}

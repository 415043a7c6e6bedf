//! Requests to the store, and its replies.

use std::collections::BTreeSet;

use crate::identity::EndpointId;
use crate::store::{CommandChange, Key, KeyHash, Kind, Lineage, RunId, Signed, Stamp, Version};

/// The requesting engine and its own number for the request. The store returns it with the reply and does not read it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Ticket {
    /// A call of the api engine.
    Api(u64),
    /// A request of the sync engine.
    Sync(u64),
}

/// A request in the store's queue.
#[derive(Debug)]
pub struct Envelope {
    /// Destination of the reply.
    pub ticket: Ticket,
    /// The request itself.
    pub request: StoreRequest,
}

/// The reply to one [`Envelope`].
#[derive(Debug)]
pub struct Reply {
    /// Ticket of the request.
    pub ticket: Ticket,
    /// Outcome of the request.
    pub result: Result<Outcome, crate::store::Error>,
}

/// A request to the store. Reads are not requests: they go through [`crate::store::Reader`].
#[derive(Debug)]
pub enum StoreRequest {
    /// A client's write.
    Write(DocumentWrite),
    /// Documents from a peer.
    Apply(Apply),
    /// Stores the operator's setting for a peer, across restarts.
    SaveLink(SavedPeer),
    /// Stores whether sync is on, across restarts.
    SaveSync(bool),
    /// Flushes everything committed so far before it is answered.
    Flush,
    /// Changes nothing. Its reply shows that the store thread is alive.
    Nothing,
}

/// A client's write to one document.
#[derive(Debug)]
pub struct DocumentWrite {
    /// Key of the document.
    pub key: Key,
    /// Change to make.
    pub put: Put,
    /// True if the reply must wait until the write is on disk, for every kind.
    pub durable: bool,
}

/// Kinds of client writes.
#[derive(Debug)]
pub enum Put {
    /// Replaces the content by this JSON object, as a difference against `base` (or against the current version).
    Whole { json: String, base: Option<Version> },
    /// Applies a JSON merge patch (RFC 7396).
    Patch { json: String, base: Option<Version> },
    /// Sets these top-level fields, removes those that are null, and keeps the others. Creates the document if it does not
    /// exist.
    Fields(serde_json::Map<String, serde_json::Value>),
    /// Replaces the document with a tombstone. A no-op for a document that does not exist.
    Delete,
    /// Starts the next incarnation from the current content.
    Compact,
    /// Changes a command; see [`CommandChange`].
    Command(CommandChange),
}

/// Result of a successful request.
#[derive(Debug)]
pub enum Outcome {
    /// A write: the resulting version, its sequence number, whether it is on disk yet, and the bytes of history dropped by a
    /// compaction (0 for other writes).
    Written { version: Version, sequence: u64, durable: bool, dropped_bytes: u64 },
    /// Documents from a peer; see [`Apply`].
    Applied(Applied),
    /// A saved setting or a flush, now on disk.
    Done,
}

/// A peer in one of its runs.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerRun {
    /// Endpoint id of the peer.
    pub node: EndpointId,
    /// Run named in the peer's hello.
    pub run: RunId,
}

/// A batch from a peer, applied in one transaction together with the cursors it completes.
#[derive(Debug)]
pub struct Apply {
    /// Sender of the batch.
    pub from: PeerRun,
    /// This store's run when the session with the peer began. The cursors count on everything applied in the session, so a
    /// store that was opened again since, and may have lost some of it, stores the documents only.
    pub into: RunId,
    /// Documents in the order in which they were sent.
    pub documents: Vec<Incoming>,
    /// Cursors that this node has reached once the documents are stored. The one for merged documents is not written if the
    /// base of a document is missing.
    pub cursors: Vec<Cursor>,
    /// True if the batch must be flushed with this commit because a writer waits for it.
    pub flush: bool,
    /// Collections that are not synced with the peer.
    pub excluded: BTreeSet<String>,
}

/// Result of an [`Apply`].
#[derive(Debug)]
pub struct Applied {
    /// Sequence number at which [`Tip::durable`] covers everything in the batch.
    pub sequence: u64,
    /// Deltas with a missing base: the key, and the hashes of changes that are here (heads first, then a sample of ancestors),
    /// for the answer to the peer. If not empty, the cursor of merged documents was not written. Versions of one document may
    /// overtake each other: a base is missing only if it is nowhere in the batch.
    pub missing: Vec<(KeyHash, Vec<[u8; 32]>)>,
    /// Invalid documents, each with the reason in one sentence. They count against the peer; the rest of the batch is stored.
    pub refused: Vec<(KeyHash, String)>,
    /// Nodes that two machines write as at the same time, as their versions in the batch show.
    pub copied: Vec<EndpointId>,
}

/// A version of a document from a peer.
#[derive(Clone, Debug)]
pub struct Incoming {
    /// Hash of the key, checked against `name` if there is one.
    pub hash: KeyHash,
    /// Name of the document; absent for a tombstone.
    pub name: Option<Key>,
    /// Kind of the record at the peer.
    pub kind: Kind,
    /// Incarnation of the document.
    pub incarnation: u64,
    /// Node that wrote the version.
    pub origin: EndpointId,
    /// Creations that it descends from, and those it covers.
    pub lineage: Lineage,
    /// Content of the version.
    pub body: Body,
}

/// Content of an [`Incoming`].
#[derive(Clone, Debug)]
pub enum Body {
    /// No content: the document was deleted.
    Tombstone,
    /// A register with its stamp.
    Latest { stamp: Stamp, json: Vec<u8> },
    /// Automerge chunks, not yet checked.
    Merged(Merged),
    /// A command, not yet checked.
    Command(IncomingCommand),
    /// The result of one target of a command, not yet checked.
    Result { rank: u8, result: Vec<u8>, error: String },
}

/// A command of an [`Incoming`].
#[derive(Clone, Debug)]
pub struct IncomingCommand {
    /// Body and signature by the issuer.
    pub signed: Signed,
    /// Status of each target, by number.
    pub ranks: Vec<u8>,
    /// True if the end of the command was requested.
    pub cancel_requested: bool,
    /// Local boot time in milliseconds at which it can no longer be accepted; `None` if the sender does not know. Ignored for
    /// a command that never expires.
    pub until: Option<u64>,
}

/// Automerge chunks of an [`Incoming`].
#[derive(Clone, Debug)]
pub struct Merged {
    /// Concatenated, uncompressed chunks.
    pub chunks: Vec<u8>,
    /// Changes that must be present once the chunks are loaded: the sender's heads if there are several, else none.
    pub heads: Vec<[u8; 32]>,
}

/// A position in a peer's index, stored by the receiver in the transaction that reached it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Cursor {
    /// Kind of the records in the index.
    pub kind: Kind,
    /// Database id of the peer.
    pub database: [u8; 16],
    /// Run of the peer that the sequence number belongs to.
    pub run: RunId,
    /// Sequence number up to which, inclusively, this node has received the index.
    pub sequence: u64,
    /// The cursor is valid as long as the peer's history includes everything up to this sequence number
    /// ([`crate::store::Token::horizon`]). No bound if it is not above `sequence`.
    pub horizon: u64,
    /// Digest of the collections excluded from the link when the cursor was reached ([`crate::sync`] computes it). A cursor
    /// with another digest is stale.
    pub excluded: u64,
}

/// The operator's setting for a peer, made over the API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SavedPeer {
    /// Peer that the setting applies to.
    pub peer: EndpointId,
    /// Desired state of the link.
    pub wish: PeerSetting,
}

/// Desired state of the link to a peer; see [`SavedPeer`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum PeerSetting {
    /// Dial these addresses (`HOST:PORT`, `relay:HOST:PORT`), and admit the peer.
    Connect(Vec<String>),
    /// Neither dial nor admit the peer. The addresses are those it had, kept for a later `Connect`.
    Refuse(Vec<String>),
    /// No setting: the peer dials this node, and this is the last address it was seen at. It is dialled once after a start.
    Seen(String),
}

/// Newest visible and durable sequence numbers, published after every commit for the other threads.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tip {
    /// Newest sequence number in a new snapshot.
    pub visible: u64,
    /// Newest sequence number that a crash cannot take back.
    pub durable: u64,
}

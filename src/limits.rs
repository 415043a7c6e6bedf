//! Every limit of the node in one place, units in the names. Over a limit: a clear error naming it, and nothing lost.

use std::time::Duration;

/// A frame of the native IPC and a frame between nodes.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// A document's JSON text as stored (keys sorted, no white space).
pub const DOCUMENT_JSON_BYTES: usize = 1 << 20;
/// Objects and arrays within each other; the document itself is level 1.
pub const JSON_NESTING_LEVELS: usize = 64;
/// A collection name or a document id: UTF-8 without control characters, not empty.
pub const ID_BYTES: usize = 512;
/// Automerge history of one `merged` document; past it only `compact` helps.
pub const HISTORY_BYTES: usize = 1 << 20;
/// A record as it travels, in parts if need be. Limits bind writers, not merges, so this leaves room for merges.
pub const RECORD_BYTES: usize = 16 << 20;
/// A record to which puts may add. Less than travels, so that what writers make apart still does; past it a put that shortens
/// the document starts it over.
pub const WRITTEN_RECORD_BYTES: usize = RECORD_BYTES / 4 * 3;
/// Rows (operations, and two for each change) of the Automerge chunks of one received document, counted before they are
/// loaded. A MiB of history in three-field updates has 1.2 million; Automerge takes up to 0.5 KB for each.
pub const CHUNK_ROWS: u64 = 3 << 19;
/// Rows, counted in the same way, of a `merged` document to which puts still add; past it only `compact` helps. Less than peers
/// take, so that what writers make apart still travels.
pub const HISTORY_ROWS: u64 = CHUNK_ROWS / 4 * 3;
/// A put that takes a document beyond so many rows is refused.
pub const WRITTEN_ROWS: u64 = CHUNK_ROWS / 8 * 7;
/// Rows of a document that merges have made: twice what one peer may send. What would take it further is not taken.
pub const MERGED_ROWS: u64 = 2 * CHUNK_ROWS;
/// Bytes of such a document's history, likewise.
pub const MERGED_BYTES: usize = 4 * RECORD_BYTES;

/// Fields and elements of one `merged` document as it is put, those of nested objects and arrays included. Automerge takes up to
/// 0.85 KB for each while it writes them.
pub const DOCUMENT_ELEMENTS: usize = 1 << 17;
/// Operations of one change: enough to replace every element of a full document. Automerge takes up to 0.5 KB for each while it
/// takes a change in.
pub const CHANGE_OPERATIONS: u64 = 5 << 16;
/// Fields and elements that the chunks of one received document may show: what four nodes put apart into full documents.
pub const CHUNK_ELEMENTS: u64 = 1 << 19;

/// A file of settings.
pub const SETTINGS_FILE_BYTES: u64 = 64 << 10;

/// Commands a node keeps: those that are not over, and as many of the others as they leave room for.
pub const COMMANDS: usize = 16_384;
/// Targets of all commands that a node keeps.
pub const COMMAND_DELIVERIES: usize = 128 * COMMAND_TARGETS;
/// Health warns when a limit on commands is used up to this: three quarters.
pub const COMMANDS_WARNING: usize = COMMANDS / 4 * 3;
/// Commands whose order in time a node keeps in memory; with more of them a list reads all.
pub const COMMANDS_LISTED: usize = 4 * COMMANDS;
/// Commands of one page of a list.
pub const COMMANDS_PAGE: usize = 1_000;
/// Agents of one page of a list.
pub const AGENTS_PAGE: usize = 1_000;
/// Commands of one issuer that this node does not trust; it removes further ones.
pub const COMMAND_UNTRUSTED_SHARE: usize = 1_024;
/// Commands of all issuers that this node does not trust.
pub const COMMAND_UNTRUSTED: usize = 4_096;
/// Agents one command is for, whoever it was addressed to.
pub const COMMAND_TARGETS: usize = 1_024;
/// Commands one agent has neither ended nor missed; beyond it none is issued to it.
pub const COMMAND_PENDING: usize = 1_024;
/// A command's payload.
pub const COMMAND_PAYLOAD_BYTES: usize = 256 << 10;
/// What is signed of a command: its payload and the names in it.
pub const COMMAND_BODY_BYTES: usize = 1 << 20;
/// A result, JSON.
pub const COMMAND_RESULT_BYTES: usize = 256 << 10;
/// Why a command failed, in words.
pub const COMMAND_ERROR_BYTES: usize = 4 << 10;
/// What an agent says of a command in progress.
pub const COMMAND_PROGRESS_BYTES: usize = 1 << 10;
/// Words of progress that wait to be written; further ones are lost.
pub const COMMAND_PROGRESS_NOTES: usize = 4_096;
/// Between two writes of the progress of one agent with one command.
pub const COMMAND_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Between two writes of progress of one node, whoever makes it: ten a second.
pub const COMMAND_PROGRESS_GAP: Duration = Duration::from_millis(100);
/// The longest time to live: ten years.
pub const COMMAND_TTL: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Client connections at once, all listeners together. Of these, as of subscriptions, streams of agents and of events, one
/// user may have a quarter, all callers over TCP together five eighths, and an eighth is left to administrators.
pub const CLIENT_CONNECTIONS: usize = 1_024;
/// Connections beyond those, on which the node's health can be asked for and nothing else. The oldest makes way for another.
pub const HEALTH_CONNECTIONS: usize = 64;
/// How long such a connection is kept.
pub const HEALTH_CONNECTION: Duration = Duration::from_secs(5);
/// A connection on which nothing is under way is closed after this.
pub const CLIENT_IDLE: Duration = Duration::from_secs(300);
/// Unfinished calls of one connection, streams included.
pub const CONNECTION_CALLS: usize = 256;
/// Bytes waiting to be written to one client before its calls are no longer read.
pub const CONNECTION_OUT_BYTES: usize = 8 << 20;
/// Bytes of unfinished frames and unanswered requests, all clients together.
pub const CLIENTS_BUFFERED_BYTES: usize = 64 << 20;
/// Subscriptions at once, all connections together.
pub const SUBSCRIPTIONS: usize = 1_024;
/// A new client connection must complete its preface and first frame within this.
pub const FIRST_FRAME: Duration = Duration::from_secs(10);
/// A frame once begun must be complete within this, and a written reply taken within it.
pub const FRAME_STALL: Duration = Duration::from_secs(30);

/// The head of an HTTP request: its first line and headers.
pub const HTTP_HEAD_BYTES: usize = 16 << 10;
/// Headers of an HTTP request.
pub const HTTP_HEADERS: usize = 64;
/// The body of an HTTP request, which holds a message or its JSON.
pub const HTTP_BODY_BYTES: usize = MESSAGE_BYTES;
/// Of a larger body so much is passed over before the request is refused: clients that send all of it before they look for an
/// answer would find the connection reset.
pub const HTTP_PASSED_OVER_BYTES: usize = 64 << 20;
/// Requests under way on one connection of HTTP/2.
pub const HTTP_STREAMS: u32 = 128;
/// A connection of HTTP/2 with unanswered requests sends a PING so often: proxies end what is silent for 60 s by default.
pub const HTTP_PING: Duration = Duration::from_secs(25);
/// The longest time between two heartbeats that a client may ask for on a stream.
pub const HTTP_HEARTBEAT: Duration = Duration::from_secs(3_600);
/// A stream of HTTP/2 is given nothing more while this much of it waits for the client's window.
pub const HTTP_STREAM_AHEAD_BYTES: usize = 16 << 10;
/// Requests read in advance while an earlier one of the connection is unanswered.
pub const HTTP_PIPELINED_BYTES: usize = 16 << 10;
/// The head of an HTTP request, once begun, must be complete within this.
pub const HTTP_HEAD_TIME: Duration = Duration::from_secs(10);

/// Agents this node knows of, the dead ones included; further ones are neither listed nor let in.
pub const AGENTS: usize = 65_536;
/// Agents of one user at one node.
pub const AGENTS_OF_USER: usize = AGENTS / 4;
/// Agents the overview shows one by one; of more there is just the number.
pub const SHOWN_AGENTS: usize = 200;
/// Commands under way the overview shows one by one.
pub const SHOWN_COMMANDS: usize = 50;
/// Agents that listen to server-sent events at once.
pub const EVENT_STREAMS: usize = 1_024;
/// Streams of agents at once.
pub const AGENT_STREAMS: usize = 4_096;
/// One message of an agent: a Register with everything it may carry, or a result.
pub const AGENT_MESSAGE_BYTES: usize = 1 << 20;
/// An agent's id, so that it fits a document's id beside the name of a workload or a command.
pub const AGENT_ID_BYTES: usize = 255;
/// An agent's name, group and version, each capability and route, a workload's version and status.
pub const AGENT_TEXT_BYTES: usize = 1_024;
/// Capabilities of one agent.
pub const AGENT_CAPABILITIES: usize = 256;
/// Routes of one agent.
pub const AGENT_ROUTES: usize = 64;
/// Labels of one agent or workload.
pub const AGENT_LABELS: usize = 256;
/// Key and value of one label.
pub const AGENT_LABEL_BYTES: usize = 4 << 10;
/// All labels of one agent or workload.
pub const AGENT_LABELS_BYTES: usize = 64 << 10;
/// Workloads in one message.
pub const AGENT_WORKLOADS: usize = 1_024;
/// Messages waiting for an agent that does not read its stream.
pub const AGENT_QUEUE_MESSAGES: usize = 4_096;
/// Bytes of those.
pub const AGENT_QUEUE_BYTES: usize = 4 << 20;
/// State of agents waiting for the store, all agents together.
pub const AGENT_PENDING_BYTES: usize = 32 << 20;
/// Removed agents remembered for watchers that have not heard of it yet.
pub const REMOVED_AGENTS: usize = 1_024;
/// Other nodes whose presence is remembered.
pub const PRESENCE_NODES: usize = 4_096;

/// Requests on their way to the store thread, from each of the api and sync threads.
pub const STORE_QUEUE: usize = 1_024;
/// Distinct documents one commit covers at most, and documents in one batch between nodes.
pub const BATCH_DOCUMENTS: usize = 1_024;
/// Names of deleted documents kept so that a subscriber who resumes hears of the deletion by name.
pub const DELETED_NAMES: usize = 16_384;
/// Runs remembered; an older token is stale.
pub const RUNS: usize = 1_024;

/// Peers known at once, pinned and admitted by formation key together.
pub const PEERS: usize = 2_048;
/// Peers named one by one in metrics and on the page; of more there is just the number.
pub const LISTED_PEERS: usize = 100;
/// Connections that have not proved who they are.
pub const UNPROVEN_CONNECTIONS: usize = 64;
/// Those of one network (IPv4 /24, IPv6 /48).
pub const UNPROVEN_SHARE: usize = UNPROVEN_CONNECTIONS / 4;
/// From the first datagram of a connection to its admission: five round trips, which by satellite take 8 s, and time to send
/// again what was lost.
pub const ADMISSION: Duration = Duration::from_secs(20);
/// A dial that nobody has answered by then is given up.
pub const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// The slowest rate a link can be given, bytes a second: a datagram then takes more than a second.
pub const LINK_RATE_MIN_BYTES: u64 = 1_000;
/// The fastest.
pub const LINK_RATE_MAX_BYTES: u64 = 12_500_000_000;
/// Links at once, those that are dialled, unproven or closing included.
pub const LINKS: usize = 2 * PEERS + UNPROVEN_CONNECTIONS;
/// Addresses one dial tries at the same time.
pub const CANDIDATES: usize = 8;
/// Documents owed to one peer out of order (offered, wanted or found by reconciliation).
pub const EXCEPTIONS: usize = 1_024;
/// Documents that do not cross a link, of all peers together, which are listed with the reason.
pub const HELD_BACK: usize = 1_024;
/// Of those, how many `health` names.
pub const NAMED_HELD_BACK: usize = 32;
/// Unacknowledged batches of one lane.
pub const LANE_BATCHES: usize = 64;
/// A batch as it travels: what [`BATCH_BYTES`] leaves room for, and one document more.
pub const BATCH_BYTES_MAX: usize = RECORD_BYTES + MESSAGE_BYTES;
/// Memory for the lists in one received batch: its documents, their siblings, heads and names.
pub const BATCH_LIST_BYTES: usize = 8 << 20;
/// Keys in one acknowledgement of documents that are not kept: a full window of full batches.
pub const LACKING_KEYS: usize = LANE_BATCHES * BATCH_DOCUMENTS;
/// Memory for the lists in one message of a client.
pub const CLIENT_LIST_BYTES: usize = 8 << 20;
/// Collections that are `latest`; a node tells its peers their names.
pub const LATEST_COLLECTIONS: usize = 1_024;
/// Document bytes after which a batch is closed.
pub const BATCH_BYTES: usize = 64 << 10;
/// A merged document whose changes are larger than this is offered before it is sent.
pub const OFFER_BYTES: usize = 4 << 10;
/// One answer of the watched agent.
pub const WATCHED_ANSWER_BYTES: usize = 4 << 20;
/// The head of one answer of the watched agent.
pub const WATCHED_HEAD_BYTES: usize = 32 << 10;
/// From asking the watched agent to its complete answer.
pub const WATCHED_ANSWER_TIME: Duration = Duration::from_secs(10);
/// Packages of one list of the watched agent.
pub const WATCHED_DOCUMENTS: usize = 4_096;
/// Allocations of one relay.
pub const RELAY_ALLOCATIONS: usize = 4_096;
/// Allocations of one address at one relay: the nodes behind one address translator.
pub const RELAY_ADDRESS_SHARE: usize = 512;
/// Allocations of one network (IPv4 /16, IPv6 /48) at one relay.
pub const RELAY_NETWORK_SHARE: usize = RELAY_ALLOCATIONS / 4;
/// Bytes a second a relay forwards for one node, headers included.
pub const RELAY_BYTES_PER_SECOND: u64 = 128 << 20;
/// Bytes it forwards at once on top of that; what comes on top is lost.
pub const RELAY_BURST_BYTES: u64 = 4 << 20;
/// An allocation that is not renewed for this long ends.
pub const RELAY_IDLE: Duration = Duration::from_secs(40);
/// A forwarded datagram without the relay's header.
pub const RELAYED_BYTES: usize = 1_472;
/// Datagrams that wait for a relay's socket; more are dropped.
pub const RELAY_QUEUE: usize = 256;
/// Relays one node has a place at.
pub const RELAYS: usize = 16;
/// Formation keys shorter than this are refused.
pub const FORMATION_KEY_BYTES: usize = 16;

const _: () = assert!(DOCUMENT_JSON_BYTES * 2 <= MESSAGE_BYTES, "a document and its envelope fit a message");
const _: () = assert!(DOCUMENT_JSON_BYTES + HISTORY_BYTES <= RECORD_BYTES);
const _: () = assert!(2 * (DOCUMENT_ELEMENTS as u64) < CHANGE_OPERATIONS, "a put may replace all there is");
const _: () = assert!(4 * (DOCUMENT_ELEMENTS as u64) <= CHUNK_ELEMENTS && CHUNK_ELEMENTS < CHUNK_ROWS);
const _: () =
    assert!(DOCUMENT_JSON_BYTES as u64 / 2 < HISTORY_ROWS, "a document of the shortest elements is no history");
const _: () = assert!(HISTORY_ROWS < WRITTEN_ROWS && WRITTEN_ROWS < CHUNK_ROWS && CHUNK_ROWS <= MERGED_ROWS);
const _: () = assert!(WRITTEN_RECORD_BYTES < RECORD_BYTES && RECORD_BYTES <= MERGED_BYTES);
const _: () = assert!(BATCH_BYTES < MESSAGE_BYTES);
const _: () = assert!(COMMAND_TARGETS * ID_BYTES + COMMAND_PAYLOAD_BYTES + 4 * ID_BYTES < COMMAND_BODY_BYTES);
const _: () = assert!(2 * COMMAND_BODY_BYTES <= MESSAGE_BYTES);
const _: () = assert!(OFFER_BYTES < BATCH_BYTES);
const _: () = assert!(AGENT_MESSAGE_BYTES < MESSAGE_BYTES);
const _: () = assert!(AGENT_QUEUE_BYTES < CONNECTION_OUT_BYTES);
const _: () = assert!(PRESENCE_NODES >= PEERS);
const _: () = assert!(CONNECTION_OUT_BYTES >= 2 * MESSAGE_BYTES);

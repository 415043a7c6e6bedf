//! Every limit of the node in one place, with units in the names. Exceeding a limit gives an error that names it, and loses
//! nothing.

use std::time::Duration;

/// Maximum size of a frame, of the native IPC and between nodes.
pub const MESSAGE_BYTES: usize = 4 << 20;
/// Maximum size of a document's JSON text as stored (keys sorted, no white space).
pub const DOCUMENT_JSON_BYTES: usize = 1 << 20;
/// Maximum nesting of objects and arrays; the document itself is level 1.
pub const JSON_NESTING_LEVELS: usize = 64;
/// Maximum size of a collection name or document id: UTF-8 without control characters, not empty.
pub const ID_BYTES: usize = 512;
/// Maximum Automerge history of one `merged` document; beyond it only `compact` helps.
pub const HISTORY_BYTES: usize = 1 << 20;
/// Maximum size of a record between nodes, in parts if need be. Limits bind writers, not merges, so this leaves room for merges.
pub const RECORD_BYTES: usize = 16 << 20;
/// Maximum size of a record that puts may add to. It is less than `RECORD_BYTES`, so that the merge of concurrent puts can still
/// be sent. Beyond it, a put that shortens the document starts a new history.
pub const WRITTEN_RECORD_BYTES: usize = RECORD_BYTES / 4 * 3;
/// Maximum number of rows (operations, and two for each change) in the Automerge chunks of one received document, counted before
/// they are loaded. A MiB of history in three-field updates has 1.2 million; Automerge takes up to 0.5 KB for each.
pub const CHUNK_ROWS: u64 = 3 << 19;
/// Maximum number of rows of a `merged` document that puts still add to; beyond it only `compact` helps. It is less than peers
/// accept, so that the merge of concurrent puts can still be sent.
pub const HISTORY_ROWS: u64 = CHUNK_ROWS / 4 * 3;
/// Number of rows beyond which a put is rejected.
pub const WRITTEN_ROWS: u64 = CHUNK_ROWS / 8 * 7;
/// Maximum number of rows of a document after merges: twice what one peer may send. A merge that exceeds it is rejected.
pub const MERGED_ROWS: u64 = 2 * CHUNK_ROWS;
/// Maximum history of such a document, in bytes.
pub const MERGED_BYTES: usize = 4 * RECORD_BYTES;

/// Maximum number of fields and elements of one `merged` document in a put, those of nested objects and arrays included.
/// Automerge takes up to 0.85 KB for each while it writes them.
pub const DOCUMENT_ELEMENTS: usize = 1 << 17;
/// Maximum number of operations of one change: enough to replace every element of a full document. Automerge takes up to 0.5 KB
/// for each while it applies a change.
pub const CHANGE_OPERATIONS: u64 = 5 << 16;
/// Maximum number of fields and elements in the chunks of one received document: four concurrent puts of full documents.
pub const CHUNK_ELEMENTS: u64 = 1 << 19;

/// Maximum size of a settings file.
pub const SETTINGS_FILE_BYTES: u64 = 64 << 10;

/// Maximum number of commands that a node keeps: those that are not over, and as many of the others as they leave room for.
pub const COMMANDS: usize = 16_384;
/// Maximum number of targets of all commands that a node keeps.
pub const COMMAND_DELIVERIES: usize = 128 * COMMAND_TARGETS;
/// Number of commands from which `health` warns: three quarters of the limit.
pub const COMMANDS_WARNING: usize = COMMANDS / 4 * 3;
/// Number of commands up to which a node keeps the order of creation in memory; beyond it a list reads all of them.
pub const COMMANDS_LISTED: usize = 4 * COMMANDS;
/// Maximum number of commands in one page of a list.
pub const COMMANDS_PAGE: usize = 1_000;
/// Maximum number of agents in one page of a list.
pub const AGENTS_PAGE: usize = 1_000;
/// Commands tracked of one issuer that this node does not trust. Beyond it, those that are over are removed; the others wait
/// untracked.
pub const COMMAND_UNTRUSTED_SHARE: usize = 1_024;
/// Commands tracked of all issuers that this node does not trust.
pub const COMMAND_UNTRUSTED: usize = 4_096;
/// Maximum number of targets of one command, also of one for a group or for all agents.
pub const COMMAND_TARGETS: usize = 1_024;
/// Commands that one agent has neither ended nor missed; at this number no more are issued to it.
pub const COMMAND_PENDING: usize = 1_024;
/// Maximum size of a command's payload.
pub const COMMAND_PAYLOAD_BYTES: usize = 256 << 10;
/// Maximum size of the signed part of a command: its payload and the names in it.
pub const COMMAND_BODY_BYTES: usize = 1 << 20;
/// Maximum size of a result, in JSON.
pub const COMMAND_RESULT_BYTES: usize = 256 << 10;
/// Maximum size of the message of a failed command.
pub const COMMAND_ERROR_BYTES: usize = 4 << 10;
/// Maximum size of a progress message.
pub const COMMAND_PROGRESS_BYTES: usize = 1 << 10;
/// Maximum number of progress reports that wait to be written; further ones are lost.
pub const COMMAND_PROGRESS_NOTES: usize = 4_096;
/// Minimum interval between progress writes of one command and agent.
pub const COMMAND_PROGRESS_INTERVAL: Duration = Duration::from_secs(5);
/// Minimum interval between progress writes, all agents of a node together (10/s).
pub const COMMAND_PROGRESS_GAP: Duration = Duration::from_millis(100);
/// Maximum time to live: ten years.
pub const COMMAND_TTL: Duration = Duration::from_secs(3_650 * 24 * 3_600);

/// Maximum number of client connections, all listeners together. Of these, as of subscriptions, agent streams and event streams,
/// one user may have a quarter, all callers over TCP together five eighths, and an eighth is reserved for administrators.
pub const CLIENT_CONNECTIONS: usize = 1_024;
/// Connections beyond `CLIENT_CONNECTIONS` that serve the node's health and nothing else. A new one replaces the oldest.
pub const HEALTH_CONNECTIONS: usize = 64;
/// Maximum lifetime of such a connection.
pub const HEALTH_CONNECTION: Duration = Duration::from_secs(5);
/// Idle timeout of a connection without unfinished calls.
pub const CLIENT_IDLE: Duration = Duration::from_secs(300);
/// Maximum number of unfinished calls of one connection, streams included.
pub const CONNECTION_CALLS: usize = 256;
/// Bytes waiting to be written to one client beyond which its calls are no longer read (back-pressure).
pub const CONNECTION_OUT_BYTES: usize = 8 << 20;
/// Maximum size of unfinished frames and unanswered requests, all clients together.
pub const CLIENTS_BUFFERED_BYTES: usize = 64 << 20;
/// Maximum number of subscriptions, all connections together.
pub const SUBSCRIPTIONS: usize = 1_024;
/// Time in which a new client connection must complete its preface and first frame.
pub const FIRST_FRAME: Duration = Duration::from_secs(10);
/// Time in which a frame must be complete once begun, and in which a client must accept a written reply.
pub const FRAME_STALL: Duration = Duration::from_secs(30);

/// Maximum size of the head of an HTTP request: its first line and headers.
pub const HTTP_HEAD_BYTES: usize = 16 << 10;
/// Maximum number of headers of an HTTP request.
pub const HTTP_HEADERS: usize = 64;
/// Maximum size of the body of an HTTP request, which holds a message or its JSON.
pub const HTTP_BODY_BYTES: usize = MESSAGE_BYTES;
/// Bytes of a larger body that are read and discarded before the request is rejected: a client that sends all of it before it
/// reads the answer would otherwise find the connection reset.
pub const HTTP_PASSED_OVER_BYTES: usize = 64 << 20;
/// Maximum number of concurrent requests on one HTTP/2 connection.
pub const HTTP_STREAMS: u32 = 128;
/// Interval of PINGs on an HTTP/2 connection with unanswered requests. By default proxies close one that is silent for 60 s.
pub const HTTP_PING: Duration = Duration::from_secs(25);
/// Maximum heartbeat interval that a client may request for a stream.
pub const HTTP_HEARTBEAT: Duration = Duration::from_secs(3_600);
/// Bytes of an HTTP/2 stream that may wait for the client's window before the stream gets no more data.
pub const HTTP_STREAM_AHEAD_BYTES: usize = 16 << 10;
/// Bytes of requests read in advance while an earlier request of the connection is unanswered.
pub const HTTP_PIPELINED_BYTES: usize = 16 << 10;
/// Time in which the head of an HTTP request must be complete once begun.
pub const HTTP_HEAD_TIME: Duration = Duration::from_secs(10);

/// Maximum number of known agents, DEAD ones included. Beyond it, new agents evict those of other nodes or are rejected.
pub const AGENTS: usize = 65_536;
/// Maximum number of agents of one user at one node.
pub const AGENTS_OF_USER: usize = AGENTS / 4;
/// Agents that the overview lists individually; of the rest it shows the number.
pub const SHOWN_AGENTS: usize = 200;
/// Commands in flight that the overview lists individually.
pub const SHOWN_COMMANDS: usize = 50;
/// Maximum number of agents that listen to server-sent events.
pub const EVENT_STREAMS: usize = 1_024;
/// Maximum number of agent streams.
pub const AGENT_STREAMS: usize = 4_096;
/// Maximum size of a message of an agent: a Register with everything it may carry, or a result.
pub const AGENT_MESSAGE_BYTES: usize = 1 << 20;
/// Maximum size of an agent's id, which must fit into a document's id together with the name of a workload or a command.
pub const AGENT_ID_BYTES: usize = 255;
/// Maximum size of an agent's name, group and version, of each capability and route, and of a workload's version and status.
pub const AGENT_TEXT_BYTES: usize = 1_024;
/// Maximum number of capabilities of one agent.
pub const AGENT_CAPABILITIES: usize = 256;
/// Maximum number of routes of one agent.
pub const AGENT_ROUTES: usize = 64;
/// Maximum number of labels of one agent or workload.
pub const AGENT_LABELS: usize = 256;
/// Maximum size of one label, key and value together.
pub const AGENT_LABEL_BYTES: usize = 4 << 10;
/// Maximum size of all labels of one agent or workload.
pub const AGENT_LABELS_BYTES: usize = 64 << 10;
/// Maximum number of workloads in one message.
pub const AGENT_WORKLOADS: usize = 1_024;
/// Maximum number of messages that wait for an agent that does not read its stream.
pub const AGENT_QUEUE_MESSAGES: usize = 4_096;
/// Maximum size of those messages.
pub const AGENT_QUEUE_BYTES: usize = 4 << 20;
/// Maximum size of the agents' state that waits for the store, all agents together.
pub const AGENT_PENDING_BYTES: usize = 32 << 20;
/// Removed agents that are remembered for watchers behind their removal.
pub const REMOVED_AGENTS: usize = 1_024;
/// Other nodes for which presence is remembered.
pub const PRESENCE_NODES: usize = 4_096;

/// Maximum number of requests in the queue of the store thread, from each of the api and sync threads.
pub const STORE_QUEUE: usize = 1_024;
/// Maximum number of distinct documents in one commit, and of documents in one batch between nodes.
pub const BATCH_DOCUMENTS: usize = 1_024;
/// Names of deleted documents that are kept, so that a subscriber that resumes receives the deletion by name.
pub const DELETED_NAMES: usize = 16_384;
/// Number of runs that are remembered; a token of an older one is stale.
pub const RUNS: usize = 1_024;

/// Maximum number of known peers, pinned ones and those admitted by the formation key together.
pub const PEERS: usize = 2_048;
/// Peers that metrics and the overview list individually; of the rest they show the number.
pub const LISTED_PEERS: usize = 100;
/// Maximum number of connections that have not proved their identity.
pub const UNPROVEN_CONNECTIONS: usize = 64;
/// Maximum number of those from one network (IPv4 /24, IPv6 /48).
pub const UNPROVEN_SHARE: usize = UNPROVEN_CONNECTIONS / 4;
/// Time from the first datagram of a connection to its admission: five round trips, which take 8 s over a satellite, and time for
/// retransmissions.
pub const ADMISSION: Duration = Duration::from_secs(20);
/// Time after which a dial without an answer is abandoned.
pub const FIRST_ANSWER: Duration = Duration::from_secs(10);
/// Minimum rate of a link, in bytes per second, at which a datagram takes more than a second.
pub const LINK_RATE_MIN_BYTES: u64 = 1_000;
/// Maximum rate of a link, in bytes per second.
pub const LINK_RATE_MAX_BYTES: u64 = 12_500_000_000;
/// Maximum number of links, those being dialled, unproven or closing included.
pub const LINKS: usize = 2 * PEERS + UNPROVEN_CONNECTIONS;
/// Maximum number of addresses that one dial tries concurrently.
pub const CANDIDATES: usize = 8;
/// Maximum number of documents owed to one peer out of order (offered, wanted or found by reconciliation).
pub const EXCEPTIONS: usize = 1_024;
/// Documents that cannot cross a link, of all peers together, that are listed with the reason.
pub const HELD_BACK: usize = 1_024;
/// Number of those that `health` names.
pub const NAMED_HELD_BACK: usize = 32;
/// Maximum number of unacknowledged batches of one lane.
pub const LANE_BATCHES: usize = 64;
/// Maximum size of a batch between nodes: what [`BATCH_BYTES`] leaves room for, and one more document.
pub const BATCH_BYTES_MAX: usize = RECORD_BYTES + MESSAGE_BYTES;
/// Maximum memory of the lists in one received batch: its documents, their siblings, heads and names.
pub const BATCH_LIST_BYTES: usize = 8 << 20;
/// Maximum number of keys in one acknowledgement of documents that are not kept: a full window of full batches.
pub const LACKING_KEYS: usize = LANE_BATCHES * BATCH_DOCUMENTS;
/// Maximum memory of the lists in one message of a client.
pub const CLIENT_LIST_BYTES: usize = 8 << 20;
/// Maximum number of `latest` collections. A node sends their names to its peers.
pub const LATEST_COLLECTIONS: usize = 1_024;
/// Document bytes after which a batch is closed.
pub const BATCH_BYTES: usize = 64 << 10;
/// Size of the changes of a merged document beyond which it is offered before it is sent.
pub const OFFER_BYTES: usize = 4 << 10;
/// Maximum size of an answer of the watched agent.
pub const WATCHED_ANSWER_BYTES: usize = 4 << 20;
/// Maximum size of the head of an answer of the watched agent.
pub const WATCHED_HEAD_BYTES: usize = 32 << 10;
/// Time from a request to the watched agent to its complete answer.
pub const WATCHED_ANSWER_TIME: Duration = Duration::from_secs(10);
/// Maximum number of packages in one list of the watched agent.
pub const WATCHED_DOCUMENTS: usize = 4_096;
/// Maximum number of allocations of one relay.
pub const RELAY_ALLOCATIONS: usize = 4_096;
/// Maximum number of allocations of one address at one relay: the nodes behind one NAT.
pub const RELAY_ADDRESS_SHARE: usize = 512;
/// Maximum number of allocations of one network (IPv4 /16, IPv6 /48) at one relay.
pub const RELAY_NETWORK_SHARE: usize = RELAY_ALLOCATIONS / 4;
/// Rate at which a relay forwards for one node, in bytes per second, headers included.
pub const RELAY_BYTES_PER_SECOND: u64 = 128 << 20;
/// Burst that it forwards beyond that rate; the rest is dropped.
pub const RELAY_BURST_BYTES: u64 = 4 << 20;
/// Time after which an allocation that is not refreshed expires.
pub const RELAY_IDLE: Duration = Duration::from_secs(40);
/// Maximum size of a forwarded datagram, without the relay's header.
pub const RELAYED_BYTES: usize = 1_472;
/// Datagrams that wait for a relay's socket; further ones are dropped.
pub const RELAY_QUEUE: usize = 256;
/// Maximum number of relays at which one node has an allocation.
pub const RELAYS: usize = 16;
/// Minimum size of a formation key.
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

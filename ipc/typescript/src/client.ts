// Calls of a node, over Connect.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { type Client as ConnectClient, type CallOptions as ConnectOptions, createClient } from "@connectrpc/connect";
import { sleep } from "./backoff.js";
import type { Endpoint } from "./endpoint.js";
import { Code, ConnectError, invalid, passing } from "./errors.js";
import { deploymentsOf, type Held, platformsOf } from "./fleet.js";
import { followAgents, followDocuments, MAX_CHANGE_BYTES, type SubscribeOptions } from "./follow.js";
import {
  type CellSchema,
  ChangeType,
  CommandSchema,
  CommandStatus,
  Liveness,
  PeatSidecar,
  type PlatformSchema,
  type TrackSchema,
} from "./gen/peat/sidecar/v1/sidecar_pb.js";
import {
  type AgentChange,
  type AgentInfo,
  type CallOptions,
  type Cell,
  type Change,
  type CommandFilter,
  type CommandRecord,
  type Compacted,
  type ConnectPeerOptions,
  type Document,
  type FleetDeployment,
  type FleetPlatform,
  type Health,
  isOver,
  type NewCommand,
  type Peer,
  type PeerFilter,
  type Platform,
  type PutOptions,
  type Status,
  type SyncStats,
  type TargetStatus,
  type Track,
  toJson,
  type Written,
} from "./types.js";

// Elements of a list that the client requests at a time.
const PAGE = 1_000;

/** The `ttlS` of a command without one. */
export const DEFAULT_TTL_S = 60;

/**
 * Calls a node. When a connection is lost, unfinished calls fail and are not repeated: the client does not know whether the node carried
 * them out. Subscriptions reconnect without further calls.
 */
export class Client {
  readonly #rpc: ConnectClient<typeof PeatSidecar>;

  /** `connect` of peat-ipc/node and peat-ipc/web makes a client. */
  constructor(readonly endpoint: Endpoint) {
    this.#rpc = createClient(PeatSidecar, endpoint.transport);
  }

  /** Closes all connections, and ends the calls and subscriptions on them. */
  close(): void {
    this.endpoint.close();
  }

  // The node and its links.

  /** Returns the node's id, its phase and its connections. */
  status(options?: CallOptions): Promise<Status> {
    return this.#rpc.getStatus({}, of(options));
  }

  /** Returns whether the node works, and the faults if not. */
  health(options?: CallOptions): Promise<Health> {
    return this.#rpc.getHealth({}, of(options));
  }

  /** Returns the nodes that this node connects to or accepts. */
  async peers(filter: PeerFilter = {}): Promise<Peer[]> {
    return (await this.#rpc.listPeers({ all: filter.all ?? false }, of(filter))).peers;
  }

  /** Connects the node to a peer, now and after restarts. Addresses are HOST:PORT; a relay is relay:HOST:PORT. */
  async connectPeer(
    endpointId: string,
    addresses: readonly string[],
    relay = "",
    options: ConnectPeerOptions = {},
  ): Promise<void> {
    const request = { endpointId, addresses: [...addresses], relayUrl: relay, wait: options.wait ?? false };
    await this.#rpc.connectPeer(request, of(options));
  }

  /** Disconnects the node from a peer and rejects that peer until `connectPeer`. */
  async disconnectPeer(endpointId: string, options?: CallOptions): Promise<void> {
    await this.#rpc.disconnectPeer({ endpointId }, of(options));
  }

  /** Ends radio silence. */
  async startSync(options?: CallOptions): Promise<void> {
    await this.#rpc.startSync({}, of(options));
  }

  /** Begins radio silence: after it resolves, the node sends no datagram. */
  async stopSync(options?: CallOptions): Promise<void> {
    await this.#rpc.stopSync({}, of(options));
  }

  /** Returns the counters of the node's links to its peers. */
  syncStats(options?: CallOptions): Promise<SyncStats> {
    return this.#rpc.getSyncStats({}, of(options));
  }

  // Documents.

  /** Writes a document: text that is a JSON object, or a value that encodes to one. */
  async put(collection: string, id: string, document: unknown, options?: PutOptions): Promise<Written> {
    const request = { collection, docId: id, jsonData: toJson(document), ...written(options) };
    return pick(await this.#rpc.putDocument(request, of(options)));
  }

  /** Changes fields of a document by a JSON merge patch (RFC 7396): null removes a field. */
  async patch(collection: string, id: string, patch: unknown, options?: PutOptions): Promise<Written> {
    const request = { collection, docId: id, patchJson: toJson(patch), ...written(options) };
    return pick(await this.#rpc.patchDocument(request, of(options)));
  }

  /** Returns a document, or rejects with Code.NotFound. */
  async get(collection: string, id: string, options?: CallOptions): Promise<Document> {
    const { jsonData, version, durable } = await this.#rpc.getDocument({ collection, docId: id }, of(options));
    if (jsonData === undefined) {
      throw new ConnectError(`there is no ${collection}/${id}`, Code.NotFound);
    }
    return {
      json: jsonData,
      version,
      durable,
      get value(): unknown {
        return JSON.parse(jsonData);
      },
    };
  }

  /** Deletes a document, if it exists. */
  async delete(collection: string, id: string, options?: CallOptions): Promise<void> {
    await this.#rpc.deleteDocument({ collection, docId: id }, of(options));
  }

  /** Returns the ids of a collection's documents. */
  async list(collection: string, options?: CallOptions): Promise<string[]> {
    return (await this.#rpc.listDocuments({ collection }, of(options))).docIds;
  }

  /** Drops the history of a merged document. Edits that the compaction had not seen are applied to the new version. */
  async compact(collection: string, id: string, options?: CallOptions): Promise<Compacted> {
    const { version, droppedBytes } = await this.#rpc.compactDocument({ collection, docId: id }, of(options));
    return { version, droppedBytes };
  }

  /**
   * Delivers changes until the consumer leaves the loop or the signal ends. After a lost connection the subscription resumes; where it
   * cannot, it delivers a reset and a snapshot. A slow consumer gets the newest version of each document, not every version in between.
   */
  subscribe(options: SubscribeOptions = {}): AsyncGenerator<Change, void, undefined> {
    return followDocuments((request, signal) => this.#rpc.subscribe(request, { signal }), options);
  }

  // Typed objects and the fleet.

  /** Writes the set fields of the message to platforms/{id}. It is a sign of life of agent {id} as well. */
  async putPlatform(platform: MessageInitShape<typeof PlatformSchema>, options?: CallOptions): Promise<void> {
    await this.#rpc.putPlatform({ platform }, of(options));
  }

  /** Returns all objects in the collection platforms. */
  async platforms(options?: CallOptions): Promise<Platform[]> {
    return (await this.#rpc.getPlatforms({}, of(options))).platforms;
  }

  /** Writes the set fields of the message to cells/{id}. */
  async putCell(cell: MessageInitShape<typeof CellSchema>, options?: CallOptions): Promise<void> {
    await this.#rpc.putCell({ cell }, of(options));
  }

  /** Returns all objects in the collection cells. */
  async cells(options?: CallOptions): Promise<Cell[]> {
    return (await this.#rpc.getCells({}, of(options))).cells;
  }

  /** Writes the set fields of the message to tracks/{id}. */
  async putTrack(track: MessageInitShape<typeof TrackSchema>, options?: CallOptions): Promise<void> {
    await this.#rpc.putTrack({ track }, of(options));
  }

  /** Returns all objects in the collection tracks. */
  async tracks(options?: CallOptions): Promise<Track[]> {
    return (await this.#rpc.getTracks({}, of(options))).tracks;
  }

  /** Returns the machines of the fleet that this node knows, sorted by id, from documents of any writer. */
  async fleetPlatforms(options?: CallOptions): Promise<FleetPlatform[]> {
    const documents = await this.#snapshot("platforms", options);
    return platformsOf(documents, await this.platforms(options));
  }

  /** Returns the deployments of the fleet that this node knows, sorted by id. */
  async fleetDeployments(options?: CallOptions): Promise<FleetDeployment[]> {
    return deploymentsOf(await this.#snapshot("deployments", options));
  }

  /** Returns all documents of a collection. */
  async #snapshot(collection: string, options?: CallOptions): Promise<Iterable<Held>> {
    const held = new Map<string, Held>();
    const request = { collections: [collection], snapshot: true, maxChangeBytes: MAX_CHANGE_BYTES };
    for await (const item of this.#rpc.subscribe(request, of(options))) {
      if (item.changeType === ChangeType.SNAPSHOT_END) {
        return held.values();
      }
      if (item.changeType === ChangeType.UPSERT) {
        held.set(item.docId, { id: item.docId, json: item.jsonData ?? "" });
      }
    }
    throw new ConnectError("the node ended the snapshot", Code.Unavailable);
  }

  // Commands and agents.

  /** Issues a command and returns its id. The command is on disk by then; `waitCommand` returns its outcome. */
  async sendCommand(command: NewCommand): Promise<string> {
    const ttl = command.ttlS === undefined ? DEFAULT_TTL_S : command.ttlS;
    if (ttl !== null && !(ttl > 0 && ttl < 1e9)) {
      throw invalid(`a command's ttlS of ${ttl}; expected more than 0, or null for a command that never expires`);
    }
    const createdAt = BigInt(Math.floor(Date.now() / 1000));
    const record = create(CommandSchema, {
      id: command.id || randomId(),
      targetId: command.agent ?? "",
      group: command.group ?? "",
      all: command.all ?? false,
      commandType: command.type,
      payloadJson: command.payload === undefined ? "{}" : toJson(command.payload),
      createdAt,
      expiresAt: ttl === null ? 0n : createdAt + BigInt(Math.ceil(ttl)),
      status: CommandStatus.PENDING,
    });
    await this.putCommand(record, command);
    return record.id;
  }

  /** Issues a command as it is, or reports the status of an existing one. */
  async putCommand(command: MessageInitShape<typeof CommandSchema>, options?: CallOptions): Promise<void> {
    await this.#rpc.putCommand({ command }, of(options));
  }

  /** Returns the command with this id, as far as its updates have reached the node. */
  async command(id: string, options?: CallOptions): Promise<CommandRecord> {
    if (id === "") {
      throw invalid("a command's id is empty");
    }
    const { commands } = await this.#rpc.getCommands({ id }, of(options));
    const found = commands.find((command) => command.id === id);
    if (found === undefined) {
      throw new ConnectError(`there is no command ${id}`, Code.NotFound);
    }
    return found;
  }

  /** Returns the commands that the node knows, the oldest first. */
  async commands(filter: CommandFilter = {}): Promise<CommandRecord[]> {
    const { agent = "", pendingOnly = false, status = [] } = filter;
    return allPages(async (pageToken) => {
      const request = { targetId: agent, pendingOnly, status: [...status], pageSize: PAGE, pageToken };
      const { commands, nextPageToken } = await this.#rpc.getCommands(request, of(filter));
      return { elements: commands, next: nextPageToken };
    });
  }

  /** Waits until a command has ended at all of its targets: COMPLETED, FAILED, CANCELLED or EXPIRED. */
  async waitCommand(id: string, options: CallOptions = {}): Promise<CommandRecord> {
    const ended = new AbortController();
    const late = options.timeoutMs === undefined ? undefined : AbortSignal.timeout(options.timeoutMs);
    const signals = [ended.signal, late, options.signal].filter((signal) => signal !== undefined);
    const signal = AbortSignal.any(signals);
    let changed = new AbortController();
    const changes = (async () => {
      for await (const _ of this.subscribe({ collections: ["commands"], signal })) {
        changed.abort();
      }
    })();
    // The end of the subscription ends the calls below as well.
    changes.catch(() => undefined);
    try {
      while (!signal.aborted) {
        changed = new AbortController();
        try {
          const command = await this.command(id, { signal });
          if (isOver(command)) {
            return command;
          }
        } catch (error) {
          if (!passing(error)) {
            if (late?.aborted) {
              break;
            }
            throw error;
          }
        }
        // An expiry can happen without a change.
        await sleep(1000, AbortSignal.any([signal, changed.signal]));
      }
      const code = late?.aborted ? Code.DeadlineExceeded : Code.Canceled;
      throw new ConnectError(`command ${id} is not over`, code);
    } finally {
      ended.abort();
    }
  }

  /** Requests the end of a command and returns the status of each target. A target that is not CANCELLED yet ends when its agent confirms
   * the request. */
  async cancelCommand(id: string, options?: CallOptions): Promise<TargetStatus[]> {
    return (await this.#rpc.cancelCommand({ id }, of(options))).targets;
  }

  /** Returns the agents of the fleet that this node knows, dead ones included. */
  async agents(filter: { liveness?: Liveness; group?: string } & CallOptions = {}): Promise<AgentInfo[]> {
    const { liveness = Liveness.UNSPECIFIED, group = "" } = filter;
    return allPages(async (pageToken) => {
      const request = { liveness, group, pageSize: PAGE, pageToken };
      const { agents, nextPageToken } = await this.#rpc.listAgents(request, of(filter));
      return { elements: agents, next: nextPageToken };
    });
  }

  /** Delivers all agents, snapshotEnd and then every change. After a lost connection it delivers a reset and all agents again. */
  watchAgents(options: { signal?: AbortSignal } = {}): AsyncGenerator<AgentChange, void, undefined> {
    return followAgents((_, signal) => this.#rpc.watchAgents({}, { signal }), options.signal);
  }
}

/** Reads a list page by page. A page may be empty and have others after it; the last one names no next. */
export async function allPages<T>(
  page: (token: Uint8Array) => Promise<{ elements: readonly T[]; next: Uint8Array }>,
): Promise<T[]> {
  const found: T[] = [];
  let token: Uint8Array = new Uint8Array();
  do {
    const { elements, next } = await page(token);
    found.push(...elements);
    token = next;
  } while (token.length > 0);
  return found;
}

function of(options: CallOptions | undefined): ConnectOptions {
  const made: { timeoutMs?: number; signal?: AbortSignal } = {};
  if (options?.timeoutMs !== undefined) {
    if (!(options.timeoutMs > 0)) {
      throw invalid(`a timeout of ${options.timeoutMs} ms; expected more than 0`);
    }
    made.timeoutMs = options.timeoutMs;
  }
  if (options?.signal) {
    made.signal = options.signal;
  }
  return made;
}

function written(options: PutOptions | undefined) {
  return {
    base: options?.base ?? new Uint8Array(),
    waitPeers: options?.waitPeers ?? 0,
    durable: options?.durable ?? false,
  };
}

function pick({ version, durable }: Written): Written {
  return { version, durable };
}

function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

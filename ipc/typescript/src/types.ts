// Values that calls take and give.

import { invalid } from "./errors.js";
import { type Agent, type Command, CommandStatus, type Liveness } from "./gen/peat/sidecar/v1/sidecar_pb.js";

export type {
  Agent as AgentInfo,
  CancelCommandResponse,
  Cell,
  Command as CommandRecord,
  GetHealthResponse as Health,
  GetStatusResponse as Status,
  GetSyncStatsResponse as SyncStats,
  PeerInfo as Peer,
  Platform,
  TargetStatus,
  Track,
} from "./gen/peat/sidecar/v1/sidecar_pb.js";
export {
  CellStatus,
  CommandStatus,
  Liveness,
  NodePhase,
  PlatformStatus,
  TrackCategory,
} from "./gen/peat/sidecar/v1/sidecar_pb.js";

/** Options of every call. */
export interface CallOptions {
  /** Travels with the call: the node gives up as well. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of a put or patch. */
export interface PutOptions extends CallOptions {
  /** The version that the writer has read. A merged document takes only the fields that differ from it; for a latest document that has
   * another version by now, the put fails with Code.Aborted. Without a base, a put replaces the stored document. */
  readonly base?: Uint8Array;
  /** Delays the answer until this number of peers hold this or a later version on disk. When the deadline passes first, the call fails and
   * the write stands. */
  readonly waitPeers?: number;
  /** Delays the answer until the write is on disk, for every kind of collection. */
  readonly durable?: boolean;
}

/** A document as the node stores it. */
export interface Document {
  readonly json: string;
  /** The parsed JSON. */
  readonly value: unknown;
  /** An opaque name of this version, for `base`. */
  readonly version: Uint8Array;
  /** Reports whether this version is on disk. */
  readonly durable: boolean;
}

/** The version that a put or patch made. */
export interface Written {
  readonly version: Uint8Array;
  readonly durable: boolean;
}

/** The version that a compaction made, and the bytes of history it dropped. */
export interface Compacted {
  readonly version: Uint8Array;
  readonly droppedBytes: bigint;
}

/** A point of a subscription at which it can be resumed, by another process too. `tokenText` and `parseToken` store it. */
export interface Token {
  readonly run: Uint8Array;
  readonly sequence: bigint;
}

/**
 * - `upsert`: the document or agent is like this now.
 * - `delete`: the document or agent no longer exists.
 * - `snapshotEnd`: everything that existed when the stream began has been delivered; live changes follow. It has no other fields.
 * - `reset`: the node cannot continue where the stream ended. Discard what the stream delivered: a snapshot follows.
 * - `oversized`: the document exists, but is longer than a change of this subscription may be; `error` has the length and the remedy.
 */
export type ChangeType = "upsert" | "delete" | "snapshotEnd" | "reset" | "oversized";

/** The newest version of one document, or its end. */
export interface Change {
  readonly type: ChangeType;
  readonly collection: string;
  readonly id: string;
  /** Of an upsert. */
  readonly json: string;
  /** Endpoint id of the node that wrote this version. */
  readonly origin: string;
  /** Resuming here repeats nothing up to this change. */
  readonly token: Token;
  /** Of an oversized change. */
  readonly error: string;
}

/** Limits `peers`. */
export interface PeerFilter extends CallOptions {
  /** Adds the peers that `disconnectPeer` disconnected. */
  readonly all?: boolean;
}

/** Options of `connectPeer`. */
export interface ConnectPeerOptions extends CallOptions {
  /** Delays the answer until the peer is admitted. When the timeout passes first, the call fails with the reason and the node goes on
   * dialling. */
  readonly wait?: boolean;
}

/** Limits `commands`. */
export interface CommandFilter extends CallOptions {
  /** Selects the commands for one agent, including those for its group and for all agents. */
  readonly agent?: string;
  /** Selects what that agent may still run. */
  readonly pendingOnly?: boolean;
  /** Selects commands in one of these statuses: of the agent, or of all their targets. */
  readonly status?: readonly CommandStatus[];
}

/** The present state of one agent. */
export interface AgentChange {
  readonly type: ChangeType;
  readonly agent: Agent | undefined;
}

/** The machine of one agent, read from its document in platforms of any writer. Absent fields are empty. */
export interface FleetPlatform {
  readonly id: string;
  readonly agentId: string;
  readonly platformType: string;
  readonly name: string;
  readonly group: string;
  readonly version: string;
  readonly architecture: string;
  readonly classification: string;
  readonly runMode: string;
  readonly labels: Readonly<Record<string, string>>;
  readonly capabilities: readonly string[];
  /** This node's view of the agent's liveness, the node that reported it, and the report's age. */
  readonly liveness: Liveness;
  readonly via: string;
  readonly ageMs: number;
  /** The whole document. */
  readonly json: string;
}

/** A workload of an agent, read from its document in deployments. */
export interface FleetDeployment {
  readonly id: string;
  readonly agentId: string;
  readonly package: string;
  readonly version: string;
  readonly status: string;
  readonly flavor: string;
  readonly namespaceOverride: string;
  readonly annotations: Readonly<Record<string, string>>;
  readonly labels: Readonly<Record<string, string>>;
  readonly json: string;
}

/** A command to send. Exactly one of agent, group and all names its targets. */
export interface NewCommand extends CallOptions {
  readonly agent?: string;
  readonly group?: string;
  readonly all?: boolean;
  readonly type: string;
  /** JSON text, or a value that encodes to JSON; {} without one. */
  readonly payload?: unknown;
  /** Seconds that it waits for acceptance: 60 without one; null never expires. */
  readonly ttlS?: number | null;
  /** The idempotency key; a random one without it. Sending the same command under the same id again has no effect. */
  readonly id?: string;
}

/** Returns JSON text unchanged and encodes everything else. */
export function toJson(value: unknown): string {
  if (typeof value === "string") {
    return value;
  }
  let text: string | undefined;
  try {
    text = JSON.stringify(value);
  } catch (cause) {
    throw invalid(`not JSON: ${cause}`);
  }
  if (text === undefined) {
    throw invalid(`not JSON: ${typeof value}`);
  }
  return text;
}

/** Returns a token as text. */
export function tokenText(token: Token): string {
  return `${Array.from(token.run, (byte) => byte.toString(16).padStart(2, "0")).join("")}-${token.sequence}`;
}

/** Parses the result of `tokenText`. */
export function parseToken(text: string): Token {
  const [, run, sequence] = /^((?:[0-9a-f]{2})*)-(\d{1,20})$/.exec(text) ?? [];
  if (run === undefined || sequence === undefined) {
    throw invalid(`${JSON.stringify(text)} is no token of a subscription; expected HEX-NUMBER`);
  }
  const bytes = (run.match(/../g) ?? []).map((byte) => Number.parseInt(byte, 16));
  return { run: Uint8Array.from(bytes), sequence: BigInt(sequence) };
}

const ENDS: ReadonlySet<CommandStatus> = new Set([
  CommandStatus.COMPLETED,
  CommandStatus.FAILED,
  CommandStatus.CANCELLED,
  CommandStatus.EXPIRED,
]);

/** Reports whether a command has ended at all of its targets. */
export function isOver(command: Command): boolean {
  const { targets } = command;
  return targets.length > 0 ? targets.every((target) => ENDS.has(target.status)) : ENDS.has(command.status);
}

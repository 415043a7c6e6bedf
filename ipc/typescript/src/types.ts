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
  /** Travels with the call: the node gives up too. */
  readonly timeoutMs?: number | undefined;
  readonly signal?: AbortSignal | undefined;
}

/** Options of a put or patch. */
export interface PutOptions extends CallOptions {
  /** The version the writer saw. A merged document then takes only what differs from it; for a latest one that is not current any
   * more the put fails with Code.Aborted. Without a base a put replaces what the node holds. */
  readonly base?: Uint8Array;
  /** Answers once this number of peers hold this or a later version on disk; when the deadline passes first the write stands. */
  readonly waitPeers?: number;
  /** Answers once the write is on disk, for any kind of collection. */
  readonly durable?: boolean;
}

/** A document as the node holds it. */
export interface Document {
  readonly json: string;
  /** The parsed JSON. */
  readonly value: unknown;
  /** An opaque name of this version, for `base`. */
  readonly version: Uint8Array;
  /** False for a version that is not on disk yet. */
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
 * - `delete`: it is gone.
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

/** The machine of one agent as its document in platforms says, by any writer. Absent fields are empty. */
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
  /** All of the document. */
  readonly json: string;
}

/** A workload of an agent as its document in deployments says. */
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

/** A command to be sent. Exactly one of agent, group and all names its targets. */
export interface NewCommand extends CallOptions {
  readonly agent?: string;
  readonly group?: string;
  readonly all?: boolean;
  readonly type: string;
  /** JSON text, or anything that encodes to JSON; {} without one. */
  readonly payload?: unknown;
  /** Seconds that it may wait to be accepted: 60 without one; null never expires. */
  readonly ttlS?: number | null;
  /** The idempotency key; a random one without it. Sending the same command under the same id again changes nothing. */
  readonly id?: string;
}

/** JSON text as it is, and everything else encoded. */
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

/** A token as text. */
export function tokenText(token: Token): string {
  return `${Array.from(token.run, (byte) => byte.toString(16).padStart(2, "0")).join("")}-${token.sequence}`;
}

/** Reads what `tokenText` made. */
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

/** Whether a command is over at all of its targets. */
export function isOver(command: Command): boolean {
  const { targets } = command;
  return targets.length > 0 ? targets.every((target) => ENDS.has(target.status)) : ENDS.has(command.status);
}

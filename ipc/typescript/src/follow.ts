// Streams that outlast connections.

import { create } from "@bufbuild/protobuf";
import { Backoff, sleep } from "./backoff.js";
import { Code, codeOf, invalid, passing } from "./errors.js";
import {
  type AgentChange as AgentItem,
  type DocumentChange,
  type SubscribeRequest,
  SubscribeRequestSchema,
  ChangeType as Type,
} from "./gen/peat/sidecar/v1/sidecar_pb.js";
import type { AgentChange, Change, ChangeType, Token } from "./types.js";

const TYPES: ReadonlyMap<Type, ChangeType> = new Map([
  [Type.UPSERT, "upsert"],
  [Type.DELETE, "delete"],
  [Type.SNAPSHOT_END, "snapshotEnd"],
  [Type.OVERSIZED, "oversized"],
]);
const NOWHERE: Token = { run: new Uint8Array(), sequence: 0n };

/** The longest change that a node delivers. */
export const MAX_CHANGE_BYTES = 64 << 20;

/** Options of a subscription. */
export interface SubscribeOptions {
  /** Limits it to these collections; without a name it has all of them. */
  readonly collections?: readonly string[];
  /** Omits these collections, also when `collections` names them. */
  readonly exclude?: readonly string[];
  /** Begins with all existing documents, followed by snapshotEnd. */
  readonly snapshot?: boolean;
  /** Continues after a change's token. When the node no longer knows that point, a reset and a snapshot follow. */
  readonly resumeAfter?: Token;
  /** Limits the length of a change; a longer one is `oversized`. Without it the limit is 64 MiB. */
  readonly maxChangeBytes?: number;
  /** Ends the subscription, without an error. */
  readonly signal?: AbortSignal;
}

/** Opens one stream of the node. */
export type Open<Request, Item> = (request: Request, signal: AbortSignal) => AsyncIterable<Item>;

/** One subscription over any number of connections. */
export async function* followDocuments(
  open: Open<SubscribeRequest, DocumentChange>,
  options: SubscribeOptions,
): AsyncGenerator<Change, void, undefined> {
  // True from the beginning of a snapshot to its end. A snapshot cannot resume in its middle.
  let snapshot = options.snapshot ?? false;
  let token = options.resumeAfter;
  const maxChangeBytes = options.maxChangeBytes ?? MAX_CHANGE_BYTES;
  if (!(Number.isInteger(maxChangeBytes) && maxChangeBytes > 0 && maxChangeBytes < 2 ** 32)) {
    throw invalid(`maxChangeBytes of ${maxChangeBytes}; expected a whole number from 1 to 2^32 - 1`);
  }
  const request = (): SubscribeRequest => {
    const resumed = snapshot ? undefined : token;
    return create(SubscribeRequestSchema, {
      collections: [...(options.collections ?? [])],
      exclude: [...(options.exclude ?? [])],
      maxChangeBytes,
      snapshot,
      ...(resumed && { resumeAfter: resumed.sequence, resumeRun: resumed.run }),
    });
  };
  yield* follow(open, request, options.signal, {
    note(item) {
      const type = TYPES.get(item.changeType);
      if (type === undefined) {
        return undefined;
      }
      if (type === "snapshotEnd") {
        snapshot = false;
      }
      const here = { run: item.run, sequence: item.sequence };
      if (!snapshot) {
        token = here;
      }
      const { collection, docId: id, jsonData, origin, error } = item;
      return { type, collection, id, json: jsonData ?? "", origin, token: here, error };
    },
    broke(error) {
      if (codeOf(error) === Code.OutOfRange) {
        token = undefined;
      } else if (!passing(error)) {
        throw error;
      }
      if (token !== undefined && !snapshot) {
        return undefined;
      }
      token = undefined;
      snapshot = true;
      return { type: "reset", collection: "", id: "", json: "", origin: "", token: NOWHERE, error: "" };
    },
  });
}

/** The agents of the fleet and their changes. */
export function followAgents(
  open: Open<undefined, AgentItem>,
  signal?: AbortSignal,
): AsyncGenerator<AgentChange, void, undefined> {
  return follow(open, () => undefined, signal, {
    note(item) {
      const type = TYPES.get(item.changeType);
      return type && { type, agent: item.agent };
    },
    broke(error) {
      if (!passing(error)) {
        throw error;
      }
      return { type: "reset", agent: undefined };
    },
  });
}

interface Rules<Item, Out> {
  /** Moves past an item. Undefined: an item of an unknown type. */
  note(item: Item): Out | undefined;
  /** Handles a broken stream: returns an event for the consumer, and throws an error that no further attempt can mend. */
  broke(error: unknown): Out | undefined;
}

async function* follow<Request, Item, Out>(
  open: Open<Request, Item>,
  request: () => Request,
  signal: AbortSignal | undefined,
  rules: Rules<Item, Out>,
): AsyncGenerator<Out, void, undefined> {
  const backoff = new Backoff();
  // The consumer's `break` ends the stream at the node as well.
  const ended = new AbortController();
  const either = signal ? AbortSignal.any([signal, ended.signal]) : ended.signal;
  try {
    while (!either.aborted) {
      let error: unknown = new Error("the node ended the stream");
      try {
        for await (const item of open(request(), either)) {
          backoff.reset();
          const change = rules.note(item);
          if (change !== undefined) {
            yield change;
          }
        }
      } catch (cause) {
        error = cause;
      }
      if (either.aborted) {
        return;
      }
      const change = rules.broke(error);
      if (codeOf(error) !== Code.OutOfRange) {
        await sleep(backoff.pause(), either);
      }
      if (change !== undefined && !either.aborted) {
        yield change;
      }
    }
  } finally {
    ended.abort();
  }
}

// The connection to a node, as the client sees it.

import type { Transport } from "@connectrpc/connect";

/** A request to the node's REST interface. */
export interface RestRequest {
  readonly method: "GET" | "POST";
  /** With its leading slash. */
  readonly path: string;
  /** JSON. */
  readonly body?: string;
  readonly signal?: AbortSignal | undefined;
}

/** The answer to it. */
export interface RestResponse {
  readonly status: number;
  readonly body: AsyncIterable<Uint8Array>;
}

/** A node, seen from Node or from a browser: `connect` of peat-ipc/node and peat-ipc/web makes one. */
export interface Endpoint {
  /** Calls by Connect. */
  readonly transport: Transport;
  /** Calls by REST; rejects when the node cannot be reached. */
  rest(request: RestRequest): Promise<RestResponse>;
  /** Ends all connections, and what is unfinished on them. */
  close(): void;
}

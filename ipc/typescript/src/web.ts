// Connections from a browser, for pages of the node's origin: a node rejects pages of other origins.

import type { Interceptor } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-web";
import { Client } from "./client.js";
import type { Endpoint } from "./endpoint.js";
import { lost } from "./errors.js";

/** Options of a connection. */
export interface ConnectOptions {
  /** The bearer token of a TCP listener with --api-token-file. */
  readonly token?: string;
}

/** Makes a client of the node that serves this page, or of the one at `baseUrl`. */
export function connect(baseUrl: string = globalThis.location.origin, options: ConnectOptions = {}): Client {
  const { token } = options;
  const authorize: Interceptor = (next) => (request) => {
    if (token) {
      request.header.set("Authorization", `Bearer ${token}`);
    }
    return next(request);
  };
  const endpoint: Endpoint = {
    transport: createConnectTransport({ baseUrl, useBinaryFormat: true, interceptors: [lost, authorize] }),
    async rest({ method, path, body, signal }) {
      const headers: Record<string, string> = {};
      if (body !== undefined) {
        headers["Content-Type"] = "application/json";
      }
      if (token) {
        headers.Authorization = `Bearer ${token}`;
      }
      const init = { method, headers, ...(body !== undefined && { body }), ...(signal && { signal }) };
      const response = await fetch(new URL(path, baseUrl), init);
      return { status: response.status, body: chunks(response.body) };
    },
    // The browser closes its connections.
    close: () => undefined,
  };
  return new Client(endpoint);
}

/** Iterates over a stream in browsers without asynchronous iteration of streams. */
async function* chunks(body: ReadableStream<Uint8Array> | null): AsyncGenerator<Uint8Array, void, undefined> {
  const reader = body?.getReader();
  if (reader === undefined) {
    return;
  }
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) {
        return;
      }
      yield value;
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

export * from "./index.js";

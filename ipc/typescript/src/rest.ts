// An agent's requests to the node's REST interface.

import type { Endpoint, RestResponse } from "./endpoint.js";
import { Code, ConnectError, fromBody } from "./errors.js";

// The limit of the time to an answer, or to the head of a stream.
const PATIENCE_MS = 10_000;

export class Rest {
  readonly #endpoint: Endpoint;
  readonly #agent: string;

  constructor(endpoint: Endpoint, agent: string) {
    this.#endpoint = endpoint;
    this.#agent = encodeURIComponent(agent);
  }

  /** Registers, and returns the terms as JSON. */
  register(body: string, signal: AbortSignal): Promise<string> {
    return this.#post("/api/v1/agents", body, signal);
  }

  /** Sends a heartbeat, and returns the terms as JSON. */
  heartbeat(body: string, signal: AbortSignal): Promise<string> {
    return this.#post(`/api/v1/agents/${this.#agent}/heartbeat`, body, signal);
  }

  /** Reports the status of a command. */
  async acknowledge(command: string, body: string, signal: AbortSignal): Promise<void> {
    await this.#post(`/api/v1/agents/${this.#agent}/commands/${encodeURIComponent(command)}/ack`, body, signal);
  }

  /** Opens the stream of events, which ends with the signal. */
  async events(signal: AbortSignal): Promise<AsyncIterable<Uint8Array>> {
    const late = new AbortController();
    const timer = setTimeout(() => late.abort(), PATIENCE_MS);
    try {
      const path = `/api/v1/agents/${this.#agent}/events`;
      const answer = await this.#ask("GET", path, undefined, AbortSignal.any([signal, late.signal]));
      if (answer.status !== 200) {
        throw fromBody(answer.status, await text(answer));
      }
      return answer.body;
    } finally {
      clearTimeout(timer);
    }
  }

  async #post(path: string, body: string, signal: AbortSignal): Promise<string> {
    const late = AbortSignal.timeout(PATIENCE_MS);
    const answer = await this.#ask("POST", path, body, AbortSignal.any([signal, late]));
    const said = await text(answer);
    if (answer.status >= 300) {
      throw fromBody(answer.status, said);
    }
    return said;
  }

  async #ask(
    method: "GET" | "POST",
    path: string,
    body: string | undefined,
    signal: AbortSignal,
  ): Promise<RestResponse> {
    try {
      return await this.#endpoint.rest({ method, path, signal, ...(body !== undefined && { body }) });
    } catch (cause) {
      throw new ConnectError(`the node cannot be reached: ${cause}`, Code.Unavailable, undefined, undefined, cause);
    }
  }
}

async function text(answer: RestResponse): Promise<string> {
  const decoder = new TextDecoder();
  let said = "";
  try {
    for await (const bytes of answer.body) {
      said += decoder.decode(bytes, { stream: true });
    }
  } catch (cause) {
    throw new ConnectError(`the node's answer broke off: ${cause}`, Code.Unavailable, undefined, undefined, cause);
  }
  return said + decoder.decode();
}

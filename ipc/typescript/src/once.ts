// Work done once under a content key.

import { invalid } from "./errors.js";
import type { Job } from "./jobs.js";
import type { Ledger } from "./ledger.js";
import { toJson } from "./types.js";

const RESULT_BYTES = 256 << 10;
// Seconds after its end that the result of interrupted work is used again.
const REUSE_FOR_S = 3_600;

interface Shared {
  readonly result: Promise<string>;
  readonly controller: AbortController;
  waiting: number;
}

/** The shared work of one agent. */
export class Once {
  readonly #shared = new Map<string, Shared>();
  readonly #ledger: Ledger;

  constructor(ledger: Ledger) {
    this.#ledger = ledger;
  }

  /** Joins the work under a key, or begins it, and returns its result as JSON text. */
  async run(job: Job, key: string, work: (signal: AbortSignal) => unknown): Promise<string> {
    job.keys.push(key);
    const before = this.#ledger.work.get(key);
    // A clock that was set back extends the life of a result and never shortens it.
    if (before !== undefined && Date.now() / 1000 - (before.at ?? 0) <= REUSE_FOR_S) {
      return before.result ?? "";
    }
    const shared = this.#shared.get(key) ?? this.#begin(key, work);
    shared.waiting += 1;
    return await this.#join(job.controller.signal, shared);
  }

  #begin(key: string, work: (signal: AbortSignal) => unknown): Shared {
    const controller = new AbortController();
    const result = this.#work(key, work, controller.signal);
    // Each command that waits sees a failure; one that gave up does not look.
    result.catch(() => undefined);
    const shared = { result, controller, waiting: 0 };
    this.#shared.set(key, shared);
    return shared;
  }

  async #work(key: string, work: (signal: AbortSignal) => unknown, signal: AbortSignal): Promise<string> {
    // So that the caller's map has it first.
    await Promise.resolve();
    try {
      const made = await work(signal);
      const result = made === undefined ? "" : toJson(made);
      if (new TextEncoder().encode(result).length > RESULT_BYTES) {
        throw invalid(`the result of ${JSON.stringify(key)} has over ${RESULT_BYTES} bytes`);
      }
      // A result that cannot be recorded is a failure: after a restart the work would run again.
      await this.#ledger.append({ kind: "work", id: key, result, at: Math.floor(Date.now() / 1000) });
      return result;
    } finally {
      this.#shared.delete(key);
    }
  }

  /** Waits for shared work. The last command to give up ends the work and waits for its end. */
  #join(signal: AbortSignal, shared: Shared): Promise<string> {
    return new Promise((resolve, reject) => {
      const leave = (): void => {
        shared.waiting -= 1;
        if (shared.waiting === 0) {
          shared.controller.abort(signal.reason);
        } else {
          reject(signal.reason);
        }
      };
      if (signal.aborted) {
        leave();
      }
      signal.addEventListener("abort", leave, { once: true });
      shared.result.then(resolve, reject).finally(() => signal.removeEventListener("abort", leave));
    });
  }
}

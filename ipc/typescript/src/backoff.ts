// Pauses before attempts to reach a node again.

const FIRST_MS = 500;
const MOST_MS = 30_000;

/** Doubling pauses, each random between half and the whole, so that clients which lost their node together do not return together. */
export class Backoff {
  #next = FIRST_MS;

  pause(): number {
    const pause = this.#next;
    this.#next = Math.min(2 * pause, MOST_MS);
    return pause / 2 + Math.random() * (pause / 2);
  }

  reset(): void {
    this.#next = FIRST_MS;
  }
}

/** Waits, and resolves early when the signal ends. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted) {
      resolve();
      return;
    }
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
  });
}

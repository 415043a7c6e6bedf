// A record of accepted, begun and ended commands across restarts, so that none runs twice.
//
// Lines, each the CRC-32 of a JSON object in hex, a space, and that object: the format of the Go and Python clients. A line is
// on disk before its append resolves. A `LedgerStore` keeps the text.

import { fromBinary, toBinary } from "@bufbuild/protobuf";
import { Code, ConnectError } from "./errors.js";
import { type Command, CommandSchema } from "./gen/peat/sidecar/v1/sidecar_pb.js";

/** Keeps a ledger's text. */
export interface LedgerStore {
  /** Returns the whole text; empty at first. */
  load(): Promise<string>;
  /** Appends all of a text or nothing; the text is on disk when it resolves. */
  append(text: string): Promise<void>;
  /** Replaces the whole text atomically. */
  replace(text: string): Promise<void>;
  /** Lets another process use it. */
  close(): Promise<void>;
}

/** Numbers of CommandUpdate.Stage. */
export const Stage = { accepted: 1, progress: 2, completed: 3, failed: 4, cancelled: 5 } as const;
export type StageName = keyof typeof Stage;

/** One line. */
export type Line =
  | { readonly kind: "owner"; readonly id: string }
  /** Accepted; the handler has not begun. */
  | { readonly kind: "accepted"; readonly id: string; readonly command: string }
  /** The handler may have had effects from here on. */
  | { readonly kind: "started"; readonly id: string; readonly command?: string }
  /** Ended; the node may lack the end. */
  | {
      readonly kind: "done";
      readonly id: string;
      readonly stage: number;
      readonly result?: string;
      readonly error?: string;
    }
  /** The node has the end. Without a stage: rejected before it began, so it may come again. */
  | { readonly kind: "settled"; readonly id: string; readonly stage?: number }
  /** The result of `once` under a key; `at` is in Unix seconds. */
  | { readonly kind: "work"; readonly id: string; readonly result?: string; readonly at?: number }
  /** That result is dropped. */
  | { readonly kind: "forget"; readonly id: string };

// What may be appended beyond twice the size after the last compaction before the next.
const SLACK_CHARS = 1 << 20;
// Ids of commands that are over, and results of interrupted work: the newest ones.
const REMEMBERED_IDS = 10_000;
const REMEMBERED_WORK = 256;

/** The record of one agent. */
export class Ledger {
  readonly open = new Map<string, Line & { kind: "accepted" | "started" | "done" }>();
  readonly settled = new Map<string, number>();
  readonly work = new Map<string, Line & { kind: "work" }>();
  #size = 0;
  #compactAt = 0;
  #last: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(
    readonly owner: string,
    readonly store: LedgerStore | undefined,
  ) {}

  /** Reads the text. It ignores an incomplete last line, which `append` never confirmed. Any other unreadable line is an error, since a
   * forgotten command would run again. */
  static async load(owner: string, store?: LedgerStore): Promise<Ledger> {
    const ledger = new Ledger(owner, store);
    if (store === undefined) {
      return ledger;
    }
    const lines = (await store.load()).split("\n").slice(0, -1);
    for (const [index, text] of lines.entries()) {
      const line = parse(text);
      if (line === undefined) {
        throw refused(`line ${index + 1} is damaged`);
      }
      if (index === 0 && (line.kind !== "owner" || line.id !== owner)) {
        throw refused(`it belongs to agent ${JSON.stringify(line.id)}, not ${JSON.stringify(owner)}`);
      }
      ledger.#note(line);
    }
    await ledger.#compact(store);
    return ledger;
  }

  /** Appends lines and applies them; they are on disk when it resolves. Appends keep the order of the calls. */
  append(...lines: Line[]): Promise<void> {
    const done = this.#last.then(() => this.#append(lines));
    this.#last = done.catch(() => undefined);
    return done;
  }

  async #append(lines: Line[]): Promise<void> {
    if (this.#closed) {
      throw refused("the agent was closed");
    }
    if (this.store !== undefined) {
      const text = lines.map(encode).join("");
      try {
        await this.store.append(text);
      } catch (cause) {
        throw refused(`${cause}`);
      }
      this.#size += text.length;
    }
    for (const line of lines) {
      this.#note(line);
    }
    if (this.store !== undefined && this.#size > this.#compactAt) {
      // The lines are on disk already; the text is complete, only longer than necessary.
      await this.#compact(this.store).catch(() => {
        this.#compactAt = this.#size + SLACK_CHARS;
      });
    }
  }

  async #compact(store: LedgerStore): Promise<void> {
    const lines: Line[] = [{ kind: "owner", id: this.owner }];
    for (const [id, stage] of this.settled) {
      lines.push({ kind: "settled", id, stage });
    }
    lines.push(...this.open.values(), ...this.work.values());
    const text = lines.map(encode).join("");
    await store.replace(text);
    this.#size = text.length;
    this.#compactAt = 2 * text.length + SLACK_CHARS;
  }

  #note(line: Line): void {
    switch (line.kind) {
      case "accepted":
      case "done":
        this.open.set(line.id, line);
        break;
      case "started": {
        const before = this.open.get(line.id);
        const command = before !== undefined && "command" in before ? before.command : line.command;
        this.open.set(line.id, { kind: "started", id: line.id, ...(command !== undefined && { command }) });
        break;
      }
      case "settled":
        this.open.delete(line.id);
        if (line.stage && !this.settled.has(line.id)) {
          this.settled.set(line.id, line.stage);
          trim(this.settled, REMEMBERED_IDS);
        }
        break;
      case "work":
        this.work.delete(line.id);
        this.work.set(line.id, line);
        trim(this.work, REMEMBERED_WORK);
        break;
      case "forget":
        this.work.delete(line.id);
        break;
    }
  }

  async close(): Promise<void> {
    await this.#last;
    this.#closed = true;
    await this.store?.close();
  }
}

function refused(why: string): ConnectError {
  return new ConnectError(`the record of commands: ${why}`, Code.FailedPrecondition);
}

function trim(map: Map<string, unknown>, most: number): void {
  for (const key of map.keys()) {
    if (map.size <= most) {
      return;
    }
    map.delete(key);
  }
}

/** Encodes a command for a line: protobuf in base64. */
export function keep(command: Command): string {
  return btoa(Array.from(toBinary(CommandSchema, command), (byte) => String.fromCharCode(byte)).join(""));
}

/** Decodes a command of a line; undefined when it is unreadable. */
export function kept(text: string): Command | undefined {
  try {
    return fromBinary(
      CommandSchema,
      Uint8Array.from(atob(text), (char) => char.charCodeAt(0)),
    );
  } catch {
    return undefined;
  }
}

export function encode(line: Line): string {
  const body = JSON.stringify(line);
  return `${checksum(body)} ${body}\n`;
}

function parse(text: string): Line | undefined {
  const body = text.slice(9);
  if (text[8] !== " " || text.slice(0, 8) !== checksum(body)) {
    return undefined;
  }
  return JSON.parse(body) as Line;
}

const TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let value = byte;
  for (let bit = 0; bit < 8; bit++) {
    value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
  }
  return value;
});

/** CRC-32 (IEEE) of a text's UTF-8, as eight hex digits. */
function checksum(text: string): string {
  let sum = 0xffffffff;
  for (const byte of new TextEncoder().encode(text)) {
    sum = (sum >>> 8) ^ (TABLE[(sum ^ byte) & 0xff] ?? 0);
  }
  return ((sum ^ 0xffffffff) >>> 0).toString(16).padStart(8, "0");
}

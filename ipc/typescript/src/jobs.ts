// Commands of an agent from push to confirmed end.
//
// Must never let a command begin twice, nor begin before the node has confirmed its acceptance.

import { create } from "@bufbuild/protobuf";
import { sleep } from "./backoff.js";
import { Code, ConnectError, codeOf, invalid, passing } from "./errors.js";
import { CommandSchema, CommandStatus, type Command as Record } from "./gen/peat/sidecar/v1/sidecar_pb.js";
import { keep, kept, type Ledger, Stage, type StageName } from "./ledger.js";
import type { Rest } from "./rest.js";
import { toJson } from "./types.js";

// Commands that may be unfinished at an agent; further ones stay PENDING at the node.
const OPEN_COMMANDS = 1_000;
// The node's limits of a result and of texts.
const RESULT_BYTES = 256 << 10;
const ERROR_BYTES = 4 << 10;
const PROGRESS_BYTES = 1 << 10;
// The pause before an update is sent again to a node that does not have the command. It doubles each time, up to the most.
const AGAIN_LEAST_MS = 5_000;
const AGAIN_MOST_MS = 600_000;
// How long every node may lack a command before the agent drops its update.
const ABSENT_FOR_MS = 86_400_000;
const RESTARTED = "the agent was restarted while the command ran";
const CLOSED = "the agent was closed while the command ran";
const CANCELLED = "the command was cancelled";

/** An update of a command for the node. */
export interface Update {
  readonly stage: StageName;
  /** JSON, of a completed command. */
  readonly result?: string;
  readonly error?: string;
}

/** An unfinished command. */
export class Job {
  stage: "waiting" | "accepting" | "running" | "done" = "waiting";
  /** The time after which the node rejects its acceptance, by `performance.now()`. */
  deadline: number | undefined;
  /** The ledger has the acceptance. */
  accepted = false;
  /** The reason that it must not begin. */
  refused: string | undefined;
  cancelRequested = false;
  /** The link was lost between the acceptance and the confirmation of the end. */
  interrupted = false;
  update: Update | undefined;
  progress: string | undefined;
  /** Keys of `once`. */
  readonly keys: string[] = [];
  /** Aborts when the handler should end. */
  readonly controller = new AbortController();

  constructor(readonly command: Record) {}

  get id(): string {
    return this.command.id;
  }
}

/** The agent as its jobs see it. */
export interface Host {
  readonly rest: Rest;
  readonly ledger: Ledger;
  /** Ends when nothing more is sent. */
  readonly life: AbortSignal;
  readonly closed: boolean;
  readonly connected: boolean;
  /** Resolves while the node has the registration; rejects at the end of `life`. */
  whenConnected(): Promise<void>;
  /** A request failed: checks that the node answers and knows the agent. */
  suspect(): void;
  /** A waiter may go on. */
  changed(): void;
  log(message: string): void;
}

/** The unfinished commands of one agent. */
export class Jobs {
  readonly #host: Host;
  readonly #jobs = new Map<string, Job>();
  readonly #inbox: Job[] = [];

  constructor(host: Host) {
    this.#host = host;
  }

  /** Restores the commands in the ledger. */
  resume(): void {
    for (const [id, line] of [...this.#host.ledger.open]) {
      const command = "command" in line && line.command !== undefined ? kept(line.command) : undefined;
      const job = new Job(command ?? create(CommandSchema, { id }));
      job.accepted = true;
      job.interrupted = true;
      this.#jobs.set(id, job);
      if (line.kind === "accepted" && command !== undefined) {
        this.#inbox.push(job);
      } else if (line.kind === "done") {
        const stage = (Object.keys(Stage) as StageName[]).find((name) => Stage[name] === line.stage) ?? "failed";
        this.#deliver(job, { stage, ...only({ result: line.result, error: line.error }) });
      } else {
        this.#finish(job, { stage: "failed", error: RESTARTED }).catch((error) => this.#host.log(`${error}`));
      }
    }
  }

  knows(id: string): boolean {
    return this.#jobs.has(id);
  }

  /** Returns the ids of running commands. */
  running(): string[] {
    return [...this.#jobs.values()].filter((job) => job.stage === "running").map((job) => job.id);
  }

  /** Handles the node's request to run a command, which may arrive any number of times. */
  pushed(command: Record, timeLeftMs: number): void {
    const { id } = command;
    const over = this.#host.ledger.settled.get(id);
    if (over !== undefined) {
      const stage = (Object.keys(Stage) as StageName[]).find((name) => Stage[name] === over) ?? "failed";
      this.#say(id, { stage });
      return;
    }
    const known = this.#jobs.get(id);
    if (known !== undefined) {
      // The node repeats its request because it lacks the update.
      if (known.stage === "running") {
        this.#say(id, { stage: "accepted" });
      }
      return;
    }
    if (id === "" || this.#jobs.size >= OPEN_COMMANDS || this.#host.closed) {
      return;
    }
    const job = new Job(command);
    job.deadline = timeLeftMs > 0 ? performance.now() + timeLeftMs : undefined;
    this.#jobs.set(id, job);
    this.#inbox.push(job);
    this.#host.changed();
  }

  /** Handles the node's request to cancel a command. */
  async cancelled(id: string): Promise<void> {
    const job = this.#jobs.get(id);
    if (job === undefined) {
      if (!this.#host.ledger.settled.has(id)) {
        await this.#host.ledger.append({ kind: "settled", id, stage: Stage.cancelled });
      }
      const over = this.#host.ledger.settled.get(id);
      const stage = (Object.keys(Stage) as StageName[]).find((name) => Stage[name] === over) ?? "cancelled";
      this.#say(id, { stage });
      return;
    }
    job.cancelRequested = true;
    job.controller.abort(new ConnectError(CANCELLED, Code.Canceled));
    if (job.stage === "waiting") {
      // The command has not begun, so it ends here.
      job.refused = CANCELLED;
      this.#unqueue(job);
      await this.#finish(job, { stage: "cancelled" });
    }
  }

  /** Returns the next command that may still begin. */
  take(): Job | undefined {
    for (;;) {
      const job = this.#inbox.shift();
      if (job === undefined || job.accepted || job.deadline === undefined || performance.now() < job.deadline) {
        return job;
      }
      this.#drop(job);
    }
  }

  /** Begins a command: true when the node and the ledger have the acceptance on disk. */
  async begin(job: Job): Promise<boolean> {
    const { ledger } = this.#host;
    job.stage = "accepting";
    if (!job.accepted) {
      await ledger.append({ kind: "accepted", id: job.id, command: keep(job.command) });
      job.accepted = true;
    }
    const refused = await this.#told(job.id, { stage: "accepted" }, job.controller.signal);
    if (job.cancelRequested) {
      job.refused = CANCELLED;
      await this.#finish(job, { stage: "cancelled" });
      return false;
    }
    if (this.#host.closed) {
      // Accepted, and not begun: it runs after the next start.
      throw new ConnectError("the agent was closed", Code.Canceled);
    }
    if (refused !== undefined) {
      // The command expired, was cancelled or is not for this agent: it must not begin.
      this.#host.log(`command ${job.id} must not begin: ${refused}`);
      job.refused = refused;
      await this.#settle(job, undefined);
      return false;
    }
    await ledger.append({ kind: "started", id: job.id });
    job.stage = "running";
    return true;
  }

  /** Queues a command again that was not begun. */
  putBack(job: Job): void {
    if (this.#jobs.get(job.id) === job && (job.stage === "waiting" || job.stage === "accepting")) {
      job.stage = "waiting";
      this.#inbox.push(job);
    }
  }

  /** Ends a running command: the end is on disk when it resolves, and is delivered now or when the node is back. */
  async end(job: Job, update: Update): Promise<void> {
    if (job.stage !== "running") {
      throw new ConnectError(`command ${job.id} is not running`, Code.FailedPrecondition);
    }
    await this.#finish(job, update);
  }

  async #finish(job: Job, update: Update): Promise<void> {
    const { stage, result, error } = update;
    const line = { kind: "done", id: job.id, stage: Stage[stage], ...only({ result, error }) } as const;
    await this.#host.ledger.append(line);
    this.#deliver(job, update);
  }

  #deliver(job: Job, update: Update): void {
    job.stage = "done";
    job.update = update;
    job.progress = undefined;
    this.#host.changed();
    const delivered = this.#told(job.id, update, undefined).then(async (refused) => {
      if (refused !== undefined) {
        this.#host.log(`the node rejected ${update.stage} of command ${job.id}: ${refused}`);
      }
      await this.#settle(job, Stage[update.stage]);
    });
    // Not delivered before the agent was closed: the ledger has it.
    delivered.catch(() => undefined);
  }

  /** Removes a job and keeps its id; after a rejected acceptance the id is forgotten too. */
  async #settle(job: Job, stage: number | undefined): Promise<void> {
    const { ledger } = this.#host;
    const others = [...this.#jobs.values()].filter((other) => other !== job);
    const forgotten = job.keys.filter(
      (key) => !job.interrupted && ledger.work.has(key) && !others.some((other) => other.keys.includes(key)),
    );
    try {
      await ledger.append(
        { kind: "settled", id: job.id, ...only({ stage }) },
        ...forgotten.map((id) => ({ kind: "forget", id }) as const),
      );
    } catch (error) {
      // The next start sends the update again.
      this.#host.log(`${error}`);
    }
    this.#drop(job);
  }

  #drop(job: Job): void {
    this.#jobs.delete(job.id);
    this.#unqueue(job);
    job.controller.abort(new ConnectError("the command is over", Code.Canceled));
    this.#host.changed();
  }

  #unqueue(job: Job): void {
    const at = this.#inbox.indexOf(job);
    if (at >= 0) {
      this.#inbox.splice(at, 1);
    }
  }

  /** Shows the progress of a command, if the node can be reached: the newest text when the node is slow. */
  progress(job: Job, percent: number, text: string): void {
    if (job.stage !== "running" || !this.#host.connected) {
      return;
    }
    const body = {
      status: "progress",
      progress: clip(text, PROGRESS_BYTES),
      percent: Math.min(Math.max(percent, 0), 100),
    };
    const sending = job.progress !== undefined;
    job.progress = JSON.stringify({ ...body, percent: Math.round(body.percent) });
    if (!sending) {
      this.#sendProgress(job).catch(() => undefined);
    }
  }

  async #sendProgress(job: Job): Promise<void> {
    const sent = job.progress;
    if (sent !== undefined) {
      try {
        await this.#host.rest.acknowledge(job.id, sent, this.#host.life);
      } finally {
        const newer = job.progress;
        job.progress = undefined;
        if (newer !== undefined && newer !== sent && job.stage === "running") {
          job.progress = newer;
          await this.#sendProgress(job);
        }
      }
    }
  }

  #say(id: string, update: Update): void {
    this.#host.rest.acknowledge(id, bodyOf(update), this.#host.life).catch(() => undefined);
  }

  /** Sends an update until the node has stored it (undefined) or rejected it (the reason). Throws when the signal or the agent ends first. */
  async #told(id: string, update: Update, signal: AbortSignal | undefined): Promise<string | undefined> {
    const { life, rest } = this.#host;
    const ended = signal ? AbortSignal.any([life, signal]) : life;
    let again = 500;
    let absent: number | undefined;
    for (;;) {
      await this.#host.whenConnected();
      if (signal?.aborted) {
        return CANCELLED;
      }
      try {
        await rest.acknowledge(id, bodyOf(update), life);
        return undefined;
      } catch (error) {
        life.throwIfAborted();
        if (codeOf(error) === Code.NotFound) {
          // The command may still be on its way to this node; or the node restarted and does not know the agent.
          absent ??= performance.now();
          if (performance.now() - absent > ABSENT_FOR_MS) {
            return "no node knows it";
          }
          again = Math.max(again, AGAIN_LEAST_MS);
          this.#host.suspect();
        } else if (passing(error)) {
          absent = undefined;
          again = Math.min(again, AGAIN_LEAST_MS);
          this.#host.suspect();
        } else {
          return ConnectError.from(error).rawMessage;
        }
      }
      await sleep(again, ended);
      again = Math.min(2 * again, AGAIN_MOST_MS);
    }
  }

  /** Reports whether there is a job at this stage. */
  any(stage: Job["stage"]): boolean {
    return [...this.#jobs.values()].some((job) => job.stage === stage);
  }

  /** Asks all running commands to end. */
  stopAll(): void {
    for (const job of this.#jobs.values()) {
      job.controller.abort(new ConnectError(CLOSED, Code.Canceled));
    }
  }

  /** Notes that updates may not have arrived. */
  lostLink(): void {
    for (const job of this.#jobs.values()) {
      job.interrupted ||= job.accepted;
    }
  }
}

/** Returns what the record of a command asks of an agent. */
export function wanted(command: Record, agent: string): "run" | "end" | "nothing" {
  const target = command.targets.find((target) => target.agentId === agent);
  const status = target?.status ?? command.status;
  const over = status !== CommandStatus.PENDING && status !== CommandStatus.EXECUTING;
  return over ? "nothing" : command.cancelRequested ? "end" : status === CommandStatus.PENDING ? "run" : "nothing";
}

/** Returns the update of a completed command; throws when the node would reject the result. */
export function completed(id: string, result: unknown): Update {
  if (result === undefined) {
    return { stage: "completed" };
  }
  const text = toJson(result);
  try {
    JSON.parse(text);
  } catch (cause) {
    throw invalid(`the result of command ${id} is not JSON: ${cause}`);
  }
  const size = new TextEncoder().encode(text).length;
  if (size > RESULT_BYTES) {
    throw new ConnectError(
      `the result of command ${id} has ${size} bytes; the limit is ${RESULT_BYTES}`,
      Code.ResourceExhausted,
    );
  }
  return { stage: "completed", result: text };
}

/** Returns the update of a command after its handler threw: cancelled after a request for that, else failed. */
export function broken(job: Job, error: unknown, closed: boolean): Update {
  if (job.cancelRequested) {
    return { stage: "cancelled" };
  }
  if (closed && job.controller.signal.aborted) {
    return { stage: "failed", error: CLOSED };
  }
  const text =
    error instanceof ConnectError ? error.rawMessage : error instanceof Error ? error.message : String(error);
  return { stage: "failed", error: clip(text || "it failed without a message", ERROR_BYTES) };
}

function bodyOf({ stage, result, error }: Update): string {
  // The result travels as text: parsing would change large numbers.
  return stage === "completed" && result
    ? `{"status":"completed","result":${result}}`
    : JSON.stringify({ status: stage, error });
}

/** Shortens text to a number of bytes. */
function clip(text: string, most: number): string {
  const bytes = new TextEncoder().encode(text);
  if (bytes.length <= most) {
    return new TextDecoder().decode(bytes);
  }
  const cut = new TextDecoder().decode(bytes.subarray(0, most - 6));
  return `${cut.replace(/\ufffd+$/, "")}…`;
}

/** Returns the fields that are set. */
function only<T extends object>(fields: T): { [Key in keyof T]?: Exclude<T[Key], undefined> } {
  const there = Object.entries(fields).filter(([, value]) => value !== undefined && value !== "");
  return Object.fromEntries(there) as { [Key in keyof T]?: Exclude<T[Key], undefined> };
}

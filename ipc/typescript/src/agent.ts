// An application's end of a node's REST interface: registered, beating, listening to server-sent events.

import { Backoff, sleep } from "./backoff.js";
import type { Client } from "./client.js";
import { Code, ConnectError, codeOf, invalid, passing } from "./errors.js";
import type { Command as CommandRecord } from "./gen/peat/sidecar/v1/sidecar_pb.js";
import { broken, completed, type Host, type Job, Jobs, wanted } from "./jobs.js";
import { Ledger, type LedgerStore } from "./ledger.js";
import { Once } from "./once.js";
import {
  type Registration,
  registerBody,
  type State,
  stateBody,
  type Terms,
  termsOf,
  type Workload,
} from "./registration.js";
import { Rest } from "./rest.js";
import { events, type ServerEvent } from "./sse.js";

// Slightly more than two pings of the node: a stream that is silent for longer is dead.
const SILENCE_MS = 35_000;
// The shortest heartbeat interval that a node can set.
const LEAST_BEAT_MS = 100;
// How long `close` waits for the node to get the last results.
const CLOSE_PATIENCE_MS = 5_000;
// Commands that `handle` works on at the same time; others wait to be accepted.
const WORKERS = 16;

/** Options of an agent. */
export interface AgentOptions {
  /** Keeps the record of commands, so that none runs twice, even when the agent restarts during one: `recordIn` of peat-ipc/node.
   * Without it the record ends with the process. */
  readonly record?: LedgerStore;
  /** Asks the node for commands at this interval instead of holding a stream of events. */
  readonly pollingMs?: number;
  /** Gets a line when the node is lost or found again, and for each rejection. */
  readonly log?: (message: string) => void;
}

/** Carries out a command. It returns the command's result, or throws the reason that the command failed for; after a cancellation
 * was requested (`command.signal`) any error confirms that. */
export type Handler = (command: Command) => unknown;

/**
 * Stays registered and alive at the node through lost connections and restarts of either side, and runs each command once. A lost
 * connection does not cancel accepted commands: their results are delivered when the node is back.
 */
export class Agent {
  readonly id: string;
  readonly #client: Client;
  readonly #rest: Rest;
  readonly #ledger: Ledger;
  readonly #jobs: Jobs;
  readonly #once: Once;
  readonly #log: (message: string) => void;
  readonly #pollingMs: number | undefined;
  readonly #life = new AbortController();
  readonly #done: Promise<void>;
  #registration: Registration;
  #terms: Terms | undefined;
  #connected = false;
  #closed = false;
  /** Each change increments the count; the node has confirmed everything up to `reached`. */
  #wanted = 1;
  #reached = 0;
  /** The node's reason to reject the registration. */
  #refused: unknown;
  /** Ends one stream of events, so that the next one begins. */
  #link = new AbortController();
  #telling: Promise<void> = Promise.resolve();
  #changed: { promise: Promise<void>; resolve: () => void } = signalled();

  private constructor(client: Client, registration: Registration, options: AgentOptions, ledger: Ledger) {
    this.id = registration.id;
    this.#client = client;
    this.#registration = structuredClone(registration);
    this.#rest = new Rest(client.endpoint, this.id);
    this.#ledger = ledger;
    this.#log = options.log ?? (() => undefined);
    this.#pollingMs = options.pollingMs;
    this.#jobs = new Jobs(this.#host());
    this.#once = new Once(ledger);
    this.#jobs.resume();
    this.#done = this.#run();
  }

  /** Starts an agent that registers as soon as it reaches the node. Rejects when the record of commands cannot be used. */
  static async start(client: Client, registration: Registration, options: AgentOptions = {}): Promise<Agent> {
    if (registration.id === "") {
      throw invalid("the registration has no id");
    }
    if (options.pollingMs !== undefined && !(options.pollingMs > 0)) {
      throw invalid(`a polling interval of ${options.pollingMs} ms; expected more than 0`);
    }
    try {
      return new Agent(client, registration, options, await Ledger.load(registration.id, options.record));
    } catch (error) {
      await options.record?.close();
      throw error;
    }
  }

  /** Reports whether the node has accepted the registration and the stream of events is open. */
  get connected(): boolean {
    return this.#connected;
  }

  /** The node's answer to the registration; undefined before it. */
  get terms(): Terms | undefined {
    return this.#terms;
  }

  get registration(): Registration {
    return this.#registration;
  }

  /** Waits until the node has accepted the newest registration. A rejection is the error. */
  async waitRegistered(options: { signal?: AbortSignal } = {}): Promise<Terms> {
    const wanted = this.#wanted;
    await this.#until(
      () => this.#refused !== undefined || (this.#connected && this.#reached >= wanted),
      options.signal,
    );
    if (this.#refused !== undefined) {
      throw this.#refused;
    }
    return this.#terms as Terms;
  }

  /** Replaces the registration, except its id, and waits until the node has accepted it. A rejected registration is reverted. */
  update(registration: Registration): Promise<void> {
    return this.#apply(() => registration);
  }

  /** Reports a new state and waits until the node has accepted it. A rejected state is reverted. Plain signs of life need no call. */
  heartbeat(state: State): Promise<void> {
    return this.#apply(({ status: _s, labels: _l, workloads: _w, capacity: _c, ...rest }) => ({ ...rest, ...state }));
  }

  /** Adds a workload to the state, or replaces the one of the same name, and waits until the node has accepted it. */
  reportDeployment(workload: Workload): Promise<void> {
    return this.#apply((before) => ({ ...before, workloads: [...without(before, workload.name), workload] }));
  }

  /** Removes a workload from the state and waits until the node has accepted that. */
  removeDeployment(name: string): Promise<void> {
    return this.#apply((before) => ({ ...before, workloads: without(before, name) }));
  }

  async #apply(change: (before: Registration) => Registration): Promise<void> {
    if (this.#closed) {
      throw closed();
    }
    const before = this.#registration;
    const next = structuredClone(change(before));
    if (next.id !== this.id) {
      throw invalid(`an agent keeps its id: ${JSON.stringify(this.id)} cannot become ${JSON.stringify(next.id)}`);
    }
    this.#registration = next;
    // The node may accept this one.
    this.#refused = undefined;
    const wanted = ++this.#wanted;
    if (this.#connected) {
      this.#tellNow();
    }
    await this.#until(() => this.#refused !== undefined || this.#reached >= wanted);
    const refused = this.#refused;
    if (refused !== undefined) {
      if (this.#wanted === wanted) {
        this.#registration = before;
        this.#wanted += 1;
        this.#refused = undefined;
        this.#link.abort();
      }
      throw refused;
    }
  }

  /**
   * Accepts commands and runs a handler for each, several at a time, until the agent is closed. Resolves after the last handler.
   */
  async handle(handler: Handler, options: { workers?: number } = {}): Promise<void> {
    const running = new Set<Promise<void>>();
    const most = options.workers ?? WORKERS;
    for (;;) {
      let job: Job | undefined;
      const taken = (): boolean => {
        if (job === undefined && !this.#closed && running.size < most) {
          job = this.#jobs.take();
        }
        return job !== undefined || this.#closed;
      };
      await this.#until(taken).catch(() => undefined);
      if (job === undefined) {
        await Promise.all(running);
        return;
      }
      const work: Promise<void> = this.#carryOut(job, handler).finally(() => {
        running.delete(work);
        this.#notify();
      });
      running.add(work);
    }
  }

  /** Carries one command out from acceptance to its end. */
  async #carryOut(job: Job, handler: Handler): Promise<void> {
    try {
      if (!(await this.#jobs.begin(job))) {
        return;
      }
    } catch (error) {
      this.#jobs.putBack(job);
      this.#log(`command ${job.id} was not begun: ${error}`);
      return;
    }
    const command = new Command(job, this.#jobs, this.#once);
    let update: Parameters<Jobs["end"]>[1];
    try {
      update = completed(job.id, await handler(command));
    } catch (error) {
      update = broken(job, error, this.#closed);
    }
    await this.#jobs.end(job, update).catch((error) => this.#log(`the end of command ${job.id}: ${error}`));
  }

  /** Asks running commands to end and waits at most `patienceMs` until the node has all results. False: a result was not delivered; with
   * a record it is delivered after the next start. */
  async close(patienceMs = CLOSE_PATIENCE_MS): Promise<boolean> {
    if (!this.#closed) {
      this.#closed = true;
      this.#jobs.stopAll();
      this.#notify();
      const settled = (): boolean =>
        !this.#jobs.any("running") && (!this.#connected || !(this.#jobs.any("done") || this.#jobs.any("accepting")));
      const patience = AbortSignal.timeout(Math.max(1, patienceMs));
      await this.#until(settled, patience).catch(() => undefined);
      this.#life.abort(closed());
      this.#link.abort();
      this.#notify();
    }
    await this.#done;
    return !this.#jobs.any("running") && !this.#jobs.any("done");
  }

  /** Keeps the agent linked until it is closed. */
  async #run(): Promise<void> {
    const { signal } = this.#life;
    const backoff = new Backoff();
    while (!signal.aborted) {
      this.#link = new AbortController();
      try {
        const either = AbortSignal.any([signal, this.#link.signal]);
        await (this.#pollingMs === undefined
          ? this.#attend(either, backoff)
          : this.#poll(either, this.#pollingMs, backoff));
      } catch (error) {
        if (!signal.aborted) {
          this.#log(`agent ${this.id} lost its node: ${error}`);
          if (!passing(error) && codeOf(error) !== Code.Canceled && codeOf(error) !== Code.NotFound) {
            this.#refused = error;
          }
        }
      }
      this.#connected = false;
      this.#jobs.lostLink();
      this.#notify();
      await sleep(backoff.pause(), signal);
    }
    await this.#ledger.close();
    this.#notify();
  }

  /** Keeps one stream of events until it ends. */
  async #attend(signal: AbortSignal, backoff: Backoff): Promise<void> {
    await this.#tell(signal, true);
    const ended = new AbortController();
    const either = AbortSignal.any([signal, ended.signal]);
    let failed: unknown = new ConnectError("the node ended the link", Code.Unavailable);
    let heard = performance.now();
    try {
      const stream = await this.#rest.events(either);
      this.#beat(either, () => heard).catch((error) => {
        failed = error;
        ended.abort();
      });
      for await (const event of events(stream)) {
        heard = performance.now();
        if (await this.#heard(event, either)) {
          backoff.reset();
        }
      }
    } catch (error) {
      if (!ended.signal.aborted) {
        throw error;
      }
    } finally {
      ended.abort();
    }
    throw failed;
  }

  /** Polls until a call fails; rejects with the reason. */
  async #poll(signal: AbortSignal, intervalMs: number, backoff: Backoff): Promise<void> {
    await this.#tell(signal, true);
    this.#connected = true;
    this.#log(`agent ${this.id} polls node ${this.#terms?.nodeId}`);
    this.#notify();
    // The registration may have changed meanwhile.
    this.#tellNow();
    let beat = performance.now();
    let poll = beat;
    while (!signal.aborted) {
      const now = performance.now();
      const beatMs = Math.max(this.#terms?.heartbeatIntervalMs ?? 0, LEAST_BEAT_MS);
      if (now - beat >= beatMs) {
        this.#terms = termsOf(await this.#rest.heartbeat("", signal), this.#terms);
        beat = now;
      }
      if (now >= poll) {
        await this.#catchUp(signal);
        poll = now + intervalMs;
      }
      backoff.reset();
      await sleep(Math.max(1, Math.min(poll, beat + beatMs) - performance.now()), signal);
    }
    throw new ConnectError("the link was closed", Code.Canceled);
  }

  /** Sends signs of life, and rejects when the node does not answer or its stream is silent. */
  async #beat(signal: AbortSignal, heard: () => number): Promise<void> {
    for (;;) {
      await sleep(Math.max(this.#terms?.heartbeatIntervalMs ?? 0, LEAST_BEAT_MS), signal);
      if (signal.aborted) {
        return;
      }
      if (performance.now() - heard() > SILENCE_MS) {
        throw new ConnectError("the node's events are silent", Code.Unavailable);
      }
      await this.#rest.heartbeat("", signal);
    }
  }

  /** Handles an event; true for the first one, after which the stream is open. */
  async #heard({ event, data }: ServerEvent, signal: AbortSignal): Promise<boolean> {
    const said = JSON.parse(data) as { id?: unknown; time_left_ms?: unknown };
    const id = typeof said.id === "string" ? said.id : "";
    if (event === "config") {
      this.#terms = termsOf(data, this.#terms);
      if (!this.#connected) {
        this.#connected = true;
        this.#log(`agent ${this.id} is linked with node ${this.#terms.nodeId}`);
        this.#notify();
        // The registration may have changed before the stream was open.
        this.#tellNow();
        // The stream does not repeat earlier commands.
        await this.#catchUp(signal);
        return true;
      }
      this.#notify();
    } else if (event === "command" && id !== "") {
      const timeLeft = typeof said.time_left_ms === "number" ? said.time_left_ms : 0;
      this.#jobs.pushed(await this.#client.command(id, { signal }), timeLeft);
    } else if (event === "cancel" && id !== "") {
      await this.#jobs.cancelled(id);
    }
    return false;
  }

  /** Reads the commands that this agent is to run or to end. */
  async #catchUp(signal: AbortSignal): Promise<void> {
    for (const command of await this.#client.commands({ agent: this.id, pendingOnly: true, signal })) {
      await this.#look(command);
    }
    for (const id of this.#jobs.running()) {
      try {
        await this.#look(await this.#client.command(id, { signal }));
      } catch (error) {
        if (codeOf(error) !== Code.NotFound) {
          throw error;
        }
      }
    }
  }

  async #look(command: CommandRecord): Promise<void> {
    const what = wanted(command, this.id);
    if (what === "run") {
      this.#jobs.pushed(command, 0);
    } else if (what === "end") {
      await this.#jobs.cancelled(command.id);
    }
  }

  /** Sends the registration that the node lacks, one request after the other. */
  #tell(signal: AbortSignal = this.#link.signal, always = false): Promise<void> {
    const told = this.#telling.then(async () => {
      if (!always && this.#reached >= this.#wanted) {
        return;
      }
      const { body, state, wanted } = {
        body: registerBody(this.#registration),
        state: stateBody(this.#registration),
        wanted: this.#wanted,
      };
      try {
        this.#terms = termsOf(await this.#rest.register(body, signal));
        await this.#rest.heartbeat(state, signal);
      } catch (error) {
        // The agent repeats a rejected registration, since an operator may change what the node accepts.
        if (!passing(error) && codeOf(error) !== Code.Canceled && codeOf(error) !== Code.NotFound) {
          this.#refused = error;
          this.#notify();
        }
        throw error;
      }
      this.#reached = Math.max(this.#reached, wanted);
      this.#refused = undefined;
      this.#notify();
    });
    this.#telling = told.catch(() => undefined);
    return told;
  }

  /** Sends a changed registration; a failure begins the link again. */
  #tellNow(): void {
    const link = this.#link;
    this.#tell(link.signal).catch(() => link.abort());
  }

  /** Returns the agent as its jobs see it. */
  #host(): Host {
    const agent = this;
    return {
      rest: this.#rest,
      ledger: this.#ledger,
      life: this.#life.signal,
      get closed() {
        return agent.#closed;
      },
      get connected() {
        return agent.#connected;
      },
      whenConnected: () => agent.#until(() => agent.#connected),
      suspect: () => agent.#suspect(),
      changed: () => agent.#notify(),
      log: (message) => agent.#log(message),
    };
  }

  /** Checks that the node answers and knows the agent; if not, the link begins again. */
  #suspect(): void {
    const link = this.#link;
    if (this.#connected) {
      this.#rest.heartbeat("", link.signal).catch(() => link.abort());
    }
  }

  #notify(): void {
    const before = this.#changed;
    this.#changed = signalled();
    before.resolve();
  }

  /** Waits until a condition on the agent's state holds; rejects when the signal or the agent ends first. */
  async #until(condition: () => boolean, signal?: AbortSignal): Promise<void> {
    const wake = (): void => this.#notify();
    signal?.addEventListener("abort", wake);
    try {
      while (!condition()) {
        this.#life.signal.throwIfAborted();
        signal?.throwIfAborted();
        await this.#changed.promise;
      }
    } finally {
      signal?.removeEventListener("abort", wake);
    }
  }
}

/** An accepted command, as a handler gets it. */
export class Command {
  readonly #job: Job;
  readonly #jobs: Jobs;
  readonly #once: Once;

  constructor(job: Job, jobs: Jobs, once: Once) {
    this.#job = job;
    this.#jobs = jobs;
    this.#once = once;
  }

  /** The command's id, which runs once. */
  get id(): string {
    return this.#job.id;
  }

  get type(): string {
    return this.#job.command.commandType;
  }

  /** JSON. */
  get payload(): string {
    return this.#job.command.payloadJson;
  }

  /** The parsed payload. */
  get value(): unknown {
    return JSON.parse(this.payload || "null");
  }

  /** Endpoint id of the node that issued and signed it. */
  get issuer(): string {
    return this.#job.command.issuer;
  }

  /** All of it. */
  get record(): CommandRecord {
    return this.#job.command;
  }

  /** Reports whether its sender has cancelled it. */
  get cancelRequested(): boolean {
    return this.#job.cancelRequested;
  }

  /** Ends when the work should: the command was cancelled, or the agent is closing. A lost connection is no reason. */
  get signal(): AbortSignal {
    return this.#job.controller.signal;
  }

  /** Shows how far the command is to its watchers: the newest text, every five seconds at most, up to 1 KiB. */
  progress(percent: number, text = ""): void {
    this.#jobs.progress(this.#job, percent, text);
  }

  /**
   * Runs work under a key that names its effect, so that a command sent again under a new id does not repeat it, and returns its result
   * as JSON text. While the work of another command runs under the key, this command waits for it and shares its result. When the agent
   * lost its node, or restarted, before it delivered the other command's result, that result is used again for an hour. After a delivered
   * result, the same key starts new work. A failure is not shared with later commands. The work's signal ends when no command waits for
   * it any more.
   */
  once(contentKey: string, work: (signal: AbortSignal) => unknown): Promise<string> {
    return this.#once.run(this.#job, contentKey, work);
  }
}

function without(registration: Registration, name: string): Workload[] {
  return (registration.workloads ?? []).filter((workload) => workload.name !== name);
}

function closed(): ConnectError {
  return new ConnectError("the agent was closed", Code.Canceled);
}

function signalled(): { promise: Promise<void>; resolve: () => void } {
  let resolve: () => void = () => undefined;
  const promise = new Promise<void>((done) => {
    resolve = done;
  });
  return { promise, resolve };
}

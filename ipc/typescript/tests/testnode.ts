// Real nodes for tests: each with its directory, on loopback ports that the system chooses, and nothing of the caller's configuration.

import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from "node:fs";
import { createServer, connect as dial, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { TestContext } from "node:test";
import { type Client, connect } from "../src/node.js";

// How long a node may take to become ready, and a test waits for what must happen; only a failing one waits it out.
export const PATIENCE_MS = 60_000;
const QUICK = ["--heartbeat", "1", "--stale-after", "3", "--dead-after", "60"];
const READY = /ready: clients at (.*), nodes at ([^,\s]+),.*endpoint id ([0-9a-f]{64})/;

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until a condition holds. */
export async function eventually(what: string, condition: () => boolean | Promise<boolean>): Promise<void> {
  const end = performance.now() + PATIENCE_MS;
  while (!(await condition())) {
    if (performance.now() > end) {
      throw new Error(`it did not happen: ${what}`);
    }
    await sleep(20);
  }
}

/** A node in its own process. */
export class Node {
  bind = "127.0.0.1:0";
  id = "";
  /** Where TCP clients connect, when it listens there. */
  tcp = "";
  #process: ChildProcess | undefined;

  private constructor(
    readonly binary: string,
    readonly home: string,
    readonly flags: readonly string[],
  ) {}

  /** Starts a node that ends with its test. */
  static async start(t: TestContext, ...flags: string[]): Promise<Node> {
    const binary = process.env.PEAT_NODE_BINARY;
    if (binary === undefined) {
      throw new Error("PEAT_NODE_BINARY is not set: it names the node to test against");
    }
    const home = mkdtempSync(join(tmpdir(), "peat-"));
    const node = new Node(binary, home, [...QUICK, ...flags]);
    t.after(async () => {
      await node.kill();
      t.diagnostic(node.log);
      rmSync(home, { recursive: true });
    });
    await node.resume();
    return node;
  }

  get address(): string {
    return `unix://${this.home}/socket`;
  }

  get log(): string {
    return readFileSync(join(this.home, "log"), "utf8");
  }

  /** A client of this node that ends with its test. */
  client(t: TestContext): Client {
    const client = connect(this.address);
    t.after(() => client.close());
    return client;
  }

  /** Starts the node again, on the data and the port it had. */
  async resume(): Promise<void> {
    const log = openSync(join(this.home, "log"), "w");
    const kept = ([name]: [string, string | undefined]): boolean => !/^(PEAT_NODE_|XDG_)|_DIRECTORY$/.test(name);
    const child = spawn(
      this.binary,
      ["run", "--data-dir", `${this.home}/data`, "--listen", this.address, "--bind", this.bind, ...this.flags],
      { stdio: ["ignore", log, log], env: Object.fromEntries(Object.entries(process.env).filter(kept)) },
    );
    closeSync(log);
    this.#process = child;
    await eventually("the node is ready", () => {
      const found = READY.exec(this.log);
      if (found === null && child.exitCode !== null) {
        throw new Error(`the node ended: ${this.log}`);
      }
      this.tcp = /tcp:\/\/[^,\s]+/.exec(found?.[1] ?? "")?.[0] ?? "";
      this.bind = found?.[2] ?? this.bind;
      this.id = found?.[3] ?? this.id;
      return found !== null;
    });
  }

  /** Ends the node as a crash would. */
  async kill(): Promise<void> {
    await this.#end("SIGKILL");
  }

  async #end(signal: NodeJS.Signals): Promise<void> {
    const child = this.#process;
    this.#process = undefined;
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = once(child, "exit");
      child.kill(signal);
      await ended;
    }
  }
}

/** Stands between an agent and its node, and cuts them apart. */
export class LinkProxy {
  readonly #path: string;
  readonly #to: string;
  readonly #open = new Set<Socket>();
  #server: Server | undefined;

  constructor(node: Node) {
    this.#path = join(node.home, "proxy");
    this.#to = join(node.home, "socket");
  }

  get address(): string {
    return `unix://${this.#path}`;
  }

  async mend(): Promise<void> {
    const server = createServer((near) => {
      const far = dial(this.#to);
      for (const end of [near, far]) {
        this.#open.add(end);
        end.on("error", () => undefined);
        end.on("close", () => {
          near.destroy();
          far.destroy();
          this.#open.delete(end);
        });
      }
      near.pipe(far);
      far.pipe(near);
    });
    this.#server = server;
    server.listen(this.#path);
    await once(server, "listening");
  }

  async cut(): Promise<void> {
    const server = this.#server;
    this.#server = undefined;
    const closed = new Promise((resolve) => server?.close(resolve) ?? resolve(undefined));
    for (const end of this.#open) {
      end.destroy();
    }
    await closed;
  }
}

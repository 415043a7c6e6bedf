// Connections from Node: over the unix socket or TCP.

import { constants } from "node:fs";
import { type FileHandle, link, mkdir, open, readFile, rename, rm, unlink, writeFile } from "node:fs/promises";
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { connect as dial } from "node:net";
import { join } from "node:path";
import type { Interceptor } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { Client } from "./client.js";
import type { Endpoint, RestRequest, RestResponse } from "./endpoint.js";
import { Code, ConnectError, invalid, lost } from "./errors.js";
import type { LedgerStore } from "./ledger.js";

const FORMS = "expected unix:///path, tcp://HOST:PORT or http://HOST:PORT";

/** Options of a connection. */
export interface ConnectOptions {
  /** The bearer token of a TCP listener with --api-token-file. */
  readonly token?: string;
}

/** Makes a client of the node at unix:///PATH, tcp://HOST:PORT or http://HOST:PORT. The first call dials. */
export function connect(address: string, options: ConnectOptions = {}): Client {
  return new Client(endpointOf(address, options.token));
}

function endpointOf(address: string, token: string | undefined): Endpoint {
  const { path, host, port } = parse(address);
  const baseUrl = path === undefined ? `http://${host}:${port}` : "http://node";
  const authorize: Interceptor = (next) => (request) => {
    if (token) {
      request.header.set("Authorization", `Bearer ${token}`);
    }
    return next(request);
  };
  const keepAlive = { pingIntervalMs: 30_000 };
  const sessions = new Http2SessionManager(
    baseUrl,
    keepAlive,
    path === undefined ? {} : { createConnection: () => dial(path) },
  );
  const transport = createConnectTransport({
    baseUrl,
    httpVersion: "2",
    interceptors: [lost, authorize],
    sessionManager: sessions,
  });
  const agent = new HttpAgent({ keepAlive: true });
  const where = path === undefined ? { host: host.replace(/^\[|\]$/g, ""), port } : { socketPath: path };
  return {
    transport,
    rest: ({ method, path, body, signal }: RestRequest) =>
      new Promise<RestResponse>((resolve, reject) => {
        const headers: Record<string, string> = { host: new URL(baseUrl).host };
        if (body !== undefined) {
          headers["content-type"] = "application/json";
        }
        if (token) {
          headers.authorization = `Bearer ${token}`;
        }
        const request = httpRequest({ ...where, agent, method, path, headers, ...(signal && { signal }) });
        request.on("error", reject);
        request.on("response", (response: IncomingMessage) => {
          resolve({ status: response.statusCode ?? 0, body: response });
        });
        request.end(body);
      }),
    close() {
      sessions.abort(new ConnectError("the client was closed", Code.Canceled));
      agent.destroy();
    },
  };
}

type Target = { path: string; host: ""; port: "" } | { path: undefined; host: string; port: string };

function parse(address: string): Target {
  const unix = /^unix:\/\/(\/.+)$/.exec(address)?.[1];
  if (unix !== undefined) {
    return { path: unix, host: "", port: "" };
  }
  const [, host, port] = /^(?:tcp:\/\/|http:\/\/)([^\s/@?#:]+|\[[0-9a-fA-F:.]+\]):(\d{1,5})\/?$/.exec(address) ?? [];
  if (host === undefined || port === undefined || Number(port) > 65_535) {
    throw invalid(`${JSON.stringify(address)} is not an address of a node; ${FORMS}`);
  }
  return { path: undefined, host, port };
}

const NAME = "commands.ledger";

/** Keeps an agent's record of commands in a directory that no other agent uses. */
export function recordIn(directory: string): LedgerStore {
  const path = join(directory, NAME);
  const lock = `${path}.pid`;
  let file: FileHandle | undefined;
  let size = 0;
  let broken: unknown;
  let locked = false;
  return {
    async load() {
      await mkdir(directory, { recursive: true, mode: 0o700 });
      await take(lock);
      locked = true;
      return await readFile(path, "utf8").catch((error: NodeJS.ErrnoException) => {
        if (error.code === "ENOENT") {
          return "";
        }
        throw error;
      });
    },
    async append(text) {
      if (broken !== undefined || file === undefined) {
        throw broken ?? new Error("it is not open");
      }
      const bytes = Buffer.from(text);
      try {
        await file.appendFile(bytes);
        await file.sync();
      } catch (error) {
        // Append everything or nothing. A file that cannot be truncated after a failure is never written again.
        await file.truncate(size).catch((undone) => {
          broken = undone;
        });
        throw error;
      }
      size += bytes.length;
    },
    async replace(text) {
      const bytes = Buffer.from(text);
      const flags = constants.O_WRONLY | constants.O_CREAT | constants.O_TRUNC | constants.O_APPEND;
      const made = await open(`${path}.new`, flags, 0o600);
      try {
        await made.appendFile(bytes);
        await made.sync();
        await rename(`${path}.new`, path);
        await syncDirectory(directory);
      } catch (error) {
        await made.close();
        throw error;
      }
      await file?.close();
      file = made;
      size = bytes.length;
    },
    async close() {
      await file?.close();
      file = undefined;
      if (locked) {
        locked = false;
        await rm(lock, { force: true });
      }
    },
  };
}

async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path, "r");
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}

/** Excludes a second process. The lock names its process, so that a lock left by a crash is recognized. */
async function take(lock: string): Promise<void> {
  const mine = `${lock}.${process.pid}.${crypto.randomUUID()}`;
  await writeFile(mine, `${process.pid} ${await startOf(process.pid)}\n`, { mode: 0o600 });
  try {
    for (;;) {
      try {
        await link(mine, lock);
        return;
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code !== "EEXIST") {
          throw error;
        }
      }
      const holder = await readFile(lock, "utf8").catch(() => "");
      const [pid, start] = holder.trim().split(" ");
      if (pid && start && (await startOf(Number(pid))) === start) {
        throw new ConnectError("the record of commands: another agent uses it", Code.FailedPrecondition);
      }
      await unlink(lock).catch(() => undefined);
    }
  } finally {
    await rm(mine, { force: true });
  }
}

/** The start of a process, in a form that no other process with its number has; empty when there is none. */
async function startOf(pid: number): Promise<string> {
  try {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8");
    const boot = (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
    return `${boot}-${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
  } catch {
    // Not Linux, or no such process.
  }
  try {
    process.kill(pid, 0);
    return "alive";
  } catch {
    return "";
  }
}

export * from "./index.js";

// The client against real nodes.

import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { allPages } from "../src/client.js";
import {
  type Change,
  Code,
  type CommandFilter,
  CommandStatus,
  ConnectError,
  connect,
  Liveness,
  PlatformStatus,
  parseToken,
  tokenText,
} from "../src/node.js";
import { eventually, Node, PATIENCE_MS } from "./testnode.js";

const timeoutMs = PATIENCE_MS;

function refused(code: Code, message = /./): (error: unknown) => boolean {
  return (error) => error instanceof ConnectError && error.code === code && message.test(error.rawMessage);
}

async function next(changes: AsyncGenerator<Change>): Promise<Change> {
  const { value, done } = await changes.next();
  assert.equal(done, false);
  return value as Change;
}

test("addresses are unix paths and TCP ports", () => {
  for (const address of ["unix:///run/socket", "tcp://10.0.0.7:80", "http://[::1]:80/", "tcp://node.example:4000"]) {
    connect(address).close();
  }
  for (const wrong of [
    "",
    "/run/socket",
    "unix://run/socket",
    "tcp://host",
    "tcp://:80",
    "tcp://h:99999",
    "https://h:1",
  ]) {
    assert.throws(() => connect(wrong), refused(Code.InvalidArgument, /expected/), wrong);
  }
});

test("a node that does not listen is unavailable", async () => {
  const client = connect("unix:///nowhere/socket");
  await assert.rejects(client.status({ timeoutMs: 5_000 }), refused(Code.Unavailable));
  client.close();
});

test("every call works against a node", async (t) => {
  const node = await Node.start(t, "--node-id", "edge");
  const client = node.client(t);
  assert.equal((await client.status({ timeoutMs })).nodeId, "edge");
  assert.equal((await client.health()).healthy, true);
  const written = await client.put("notes", "n1", { text: "☂", n: 1 }, { durable: true, timeoutMs });
  assert.equal(written.durable, true);
  await client.patch("notes", "n1", { n: null, m: 2 }, { base: written.version });
  const document = await client.get("notes", "n1");
  assert.deepEqual(document.value, { text: "☂", m: 2 });
  assert.notDeepEqual((await client.compact("notes", "n1")).version, document.version);
  assert.deepEqual(await client.list("notes"), ["n1"]);
  await client.delete("notes", "n1");
  await assert.rejects(client.get("notes", "n1"), refused(Code.NotFound, /there is no notes\/n1/));
  const first = await client.put("tracks", "t2", '{"n": 1}');
  await client.put("tracks", "t2", { n: 2 }, { base: first.version });
  await assert.rejects(client.put("tracks", "t2", { n: 3 }, { base: first.version }), refused(Code.Aborted));
  await assert.rejects(client.put("", "n1", {}), refused(Code.InvalidArgument));
  await assert.rejects(client.put("notes", "n2", undefined), refused(Code.InvalidArgument, /not JSON/));
  await assert.rejects(client.put("notes", "n2", { n: 1n }), refused(Code.InvalidArgument, /not JSON/));
  await assert.rejects(client.put("notes", "n2", {}, { waitPeers: 1, timeoutMs: 500 }), refused(Code.DeadlineExceeded));
  assert.equal((await client.get("notes", "n2")).json, "{}");

  await client.putPlatform({ id: "p1", name: "first", status: PlatformStatus.READY });
  await client.putCell({ id: "c1", name: "cell" });
  await client.putTrack({ id: "t1", classification: "car", altitudeM: 0 });
  assert.deepEqual(
    (await client.platforms()).map((p) => [p.name, p.liveness]),
    [["first", Liveness.LIVE]],
  );
  assert.equal((await client.cells())[0]?.name, "cell");
  assert.ok((await client.tracks()).some((track) => track.classification === "car" && track.altitudeM === 0));
  assert.deepEqual(
    (await client.fleetPlatforms()).map((p) => [p.id, p.name, p.liveness]),
    [["p1", "first", Liveness.LIVE]],
  );
  assert.deepEqual(await client.fleetDeployments(), []);

  const other = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
  await client.connectPeer(other, ["127.0.0.1:9"]);
  assert.deepEqual(
    (await client.peers()).map((p) => [p.endpointId, p.connected]),
    [[other, false]],
  );
  await client.disconnectPeer(other);
  await client.stopSync();
  assert.equal((await client.syncStats()).syncActive, false);
  await client.startSync();

  const id = await client.sendCommand({ agent: "absent", type: "work", payload: { n: 1 }, ttlS: 1 });
  assert.deepEqual(
    (await client.commands({ agent: "absent", pendingOnly: true })).map((command) => command.id),
    [id],
  );
  assert.equal((await client.waitCommand(id, { timeoutMs })).status, CommandStatus.EXPIRED);
  const endless = await client.sendCommand({ agent: "absent", type: "work", ttlS: null, id: "endless" });
  assert.equal((await client.command(endless)).expiresAt, 0n);
  await assert.rejects(client.waitCommand(endless, { timeoutMs: 200 }), refused(Code.DeadlineExceeded, /is not over/));
  assert.deepEqual(
    (await client.cancelCommand(endless)).map((target) => target.agentId),
    ["absent"],
  );
  await assert.rejects(client.command("no such"), refused(Code.NotFound));
  await assert.rejects(client.sendCommand({ group: "no such", type: "work" }), refused(Code.FailedPrecondition));
  assert.deepEqual(
    (await client.agents({ liveness: Liveness.LIVE })).map((agent) => agent.agentId),
    ["p1"],
  );
  for await (const change of client.watchAgents()) {
    if (change.type === "snapshotEnd") {
      break;
    }
    assert.equal(change.agent?.agentId, "p1");
  }
});

test("a TCP listener takes calls with its token", async (t) => {
  const token = "a-token-of-more-than-sixteen-characters";
  const file = join(process.cwd(), `.token-${process.pid}`);
  writeFileSync(file, token, { mode: 0o600 });
  t.after(() => import("node:fs").then((fs) => fs.rmSync(file)));
  const node = await Node.start(t, "--listen", "tcp://127.0.0.1:0", "--api-token-file", file);
  const stranger = connect(node.tcp);
  const known = connect(node.tcp.replace("tcp:", "http:"), { token });
  t.after(() => {
    stranger.close();
    known.close();
  });
  await assert.rejects(stranger.status(), refused(Code.Unauthenticated));
  await assert.rejects(stranger.subscribe().next(), refused(Code.Unauthenticated));
  await known.put("notes", "n1", {});
  assert.deepEqual(await known.list("notes"), ["n1"]);
});

test("a call ends with its signal", async (t) => {
  const client = (await Node.start(t)).client(t);
  const ended = new AbortController();
  const call = client.put("notes", "n1", {}, { waitPeers: 1, signal: ended.signal });
  ended.abort();
  await assert.rejects(call, refused(Code.Canceled));
});

test("a subscription misses nothing while the node crashes, and another process goes on with its token", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const changes = client.subscribe({ collections: ["notes"], snapshot: true });
  assert.equal((await next(changes)).type, "snapshotEnd");
  await client.put("notes", "n1", {}, { durable: true });
  const change = await next(changes);
  assert.equal(change.id, "n1");
  const following = next(changes);
  await node.kill();
  await node.resume();
  const other = node.client(t);
  await other.put("notes", "n2", {}, { durable: true });
  assert.equal((await following).id, "n2");
  await changes.return();
  const resumed = other.subscribe({ collections: ["notes"], resumeAfter: parseToken(tokenText(change.token)) });
  assert.equal((await next(resumed)).id, "n2");
  await resumed.return();
});

test("a call that loses its connection is unavailable", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const call = client.put("notes", "n1", {}, { waitPeers: 1 });
  await eventually("it is on its way", async () => (await client.list("notes")).length === 1);
  const lost = assert.rejects(call, refused(Code.Unavailable));
  await node.kill();
  await lost;
  await node.resume();
  await client.put("notes", "n1", {});
});

test("a stale token is followed by a reset and a snapshot", async (t) => {
  const client = (await Node.start(t)).client(t);
  await client.put("notes", "n1", {});
  const stale = { run: new Uint8Array(16).fill(7), sequence: 5n };
  const changes = client.subscribe({ collections: ["notes"], resumeAfter: stale });
  const seen: string[] = [];
  for await (const change of changes) {
    seen.push(`${change.type} ${change.id}`);
    if (change.type === "snapshotEnd") {
      break;
    }
  }
  assert.deepEqual(seen, ["reset ", "upsert n1", "snapshotEnd "]);
});

test("a subscription ends with its signal", async (t) => {
  const client = (await Node.start(t)).client(t);
  const ended = new AbortController();
  const changes = client.subscribe({ signal: ended.signal });
  const waits = changes.next();
  ended.abort();
  assert.equal((await waits).done, true);
});

test("a list is whole, page by page", async () => {
  const pages = [[1, 2], [], [3]];
  const asked: number[][] = [];
  const list = await allPages(async (token) => {
    asked.push([...token]);
    const at = token[0] ?? 0;
    return { elements: pages[at] ?? [], next: Uint8Array.from(at < 2 ? [at + 1] : []) };
  });
  assert.deepEqual(
    [list, asked],
    [
      [1, 2, 3],
      [[], [1], [2]],
    ],
  );
});

test("a token is read as it was written", () => {
  const token = { run: Uint8Array.of(0, 255, 16), sequence: 18446744073709551615n };
  assert.deepEqual(parseToken(tokenText(token)), token);
  for (const wrong of ["", "7", "zz-1", "0-1", "00-", "00-x"]) {
    assert.throws(() => parseToken(wrong), refused(Code.InvalidArgument));
  }
});

test("a subscription omits what it excludes and names what is too long", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  for (const [collection, text] of Object.entries({ notes: "short", long: "x".repeat(2000), secret: "s" })) {
    await client.put(collection, "d", { text });
  }
  const got = new Map<string, string>();
  for await (const change of client.subscribe({ snapshot: true, exclude: ["secret"], maxChangeBytes: 1000 })) {
    if (change.type === "snapshotEnd") {
      break;
    }
    got.set(change.collection, change.type);
    assert.equal(/max_change_bytes/.test(change.error), change.type === "oversized");
  }
  assert.deepEqual(Object.fromEntries(got), { notes: "upsert", long: "oversized" });
  await assert.rejects(client.subscribe({ maxChangeBytes: 0 }).next(), refused(Code.InvalidArgument, /maxChangeBytes/));
});

test("a document longer than a frame is read and followed", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const { version: base } = await client.put("notes", "big", {});
  // Each writer has seen the empty document, so the node merges their fields.
  for (const field of "abcde") {
    await client.put("notes", "big", { [field]: field.repeat(1_000_000) }, { base, timeoutMs });
  }
  assert.ok((await client.get("notes", "big", { timeoutMs })).json.length > 5_000_000);
  for await (const change of client.subscribe({ collections: ["notes"], snapshot: true })) {
    assert.ok(change.json.length > 5_000_000);
    break;
  }
});

test("peers are waited for, and disconnected ones listed on request", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const peer = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";
  await assert.rejects(
    client.connectPeer(peer, ["127.0.0.1:9"], "", { wait: true, timeoutMs: 1000 }),
    refused(Code.DeadlineExceeded),
  );
  const known = async (all: boolean): Promise<string[]> => (await client.peers({ all })).map((p) => p.endpointId);
  assert.deepEqual(await known(false), [peer]);
  await client.disconnectPeer(peer);
  assert.deepEqual([await known(false), await known(true)], [[], [peer]]);
});

test("commands are selected by status", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const over = await client.sendCommand({ agent: "a1", type: "work", ttlS: 1 });
  await client.waitCommand(over, { timeoutMs });
  const open = await client.sendCommand({ agent: "a1", type: "work", ttlS: null });
  const ids = async (filter: CommandFilter): Promise<string[]> =>
    (await client.commands(filter)).map((command) => command.id);
  assert.deepEqual(await ids({ status: [CommandStatus.EXPIRED, CommandStatus.FAILED] }), [over]);
  assert.deepEqual(await ids({ agent: "a1", pendingOnly: true }), [open]);
  assert.deepEqual((await ids({})).sort(), [over, open].sort());
});

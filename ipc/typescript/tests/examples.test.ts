// The programs in examples and the README.

import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { type TestContext, test } from "node:test";
import { Liveness } from "../src/node.js";
import { eventually, Node, PATIENCE_MS } from "./testnode.js";

function run(t: TestContext, name: string, ...args: string[]): { lines: AsyncIterator<string>; child: ChildProcess } {
  const child = spawn(process.execPath, [`build/examples/${name}.js`, ...args], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  t.after(() => child.kill("SIGKILL"));
  assert.ok(child.stdout);
  return { lines: createInterface(child.stdout)[Symbol.asyncIterator](), child };
}

test("the README's agent is the one that runs", () => {
  assert.ok(readFileSync("README.md", "utf8").includes(readFileSync("examples/agent.ts", "utf8")));
});

test("the agent carries out a rollout, and ends when it is asked to", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const state = join(node.home, "state");
  const { child } = run(t, "agent", node.address, state);
  const live = async (): Promise<boolean> =>
    (await client.agents({ liveness: Liveness.LIVE })).some((agent) => agent.agentId === "radar-3");
  await eventually("it is LIVE", live);
  const { lines } = run(t, "rollout", node.address, "sensors", '{"version": "6.5"}');
  assert.equal((await lines.next()).value, "1 agents of sensors are LIVE");
  assert.equal((await lines.next()).value, 'radar-3 COMPLETED {"rolled_out":true}');
  assert.equal((await lines.next()).done, true);
  assert.equal(readFileSync(join(state, "rollout.json"), "utf8"), '{"version": "6.5"}');
  const id = await client.sendCommand({ agent: "radar-3", type: "dance" });
  assert.equal((await client.waitCommand(id, { timeoutMs: PATIENCE_MS })).error, 'this agent does not know "dance"');
  child.kill("SIGINT");
  await eventually("it ends", () => child.exitCode === 0);
});

test("a collection is followed", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  await client.put("notes", "n1", {});
  const { lines } = run(t, "follow", node.address, "notes");
  assert.equal((await lines.next()).value, "upsert n1 1");
  assert.equal((await lines.next()).value, "snapshotEnd  1");
  await client.delete("notes", "n1");
  assert.equal((await lines.next()).value, "delete n1 0");
});

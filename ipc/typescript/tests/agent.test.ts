// Agents against real nodes.

import assert from "node:assert/strict";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import {
  Agent,
  type AgentOptions,
  Code,
  type Command,
  CommandStatus,
  ConnectError,
  connect,
  type Handler,
  Liveness,
  type Registration,
  recordIn,
} from "../src/node.js";
import { eventually, LinkProxy, Node, PATIENCE_MS, sleep } from "./testnode.js";

const timeoutMs = PATIENCE_MS;

async function start(
  t: TestContext,
  address: string,
  registration: Registration,
  handler?: Handler,
  options: AgentOptions = {},
): Promise<Agent> {
  const client = connect(address);
  const agent = await Agent.start(client, registration, { log: (message) => t.diagnostic(message), ...options });
  t.after(async () => {
    await agent.close(10);
    client.close();
  });
  if (handler) {
    agent.handle(handler).catch((error) => t.diagnostic(`${error}`));
  }
  return agent;
}

function latch(): { readonly set: () => void; readonly wait: Promise<void> } {
  let set: () => void = () => undefined;
  const wait = new Promise<void>((resolve) => {
    set = resolve;
  });
  return { set, wait };
}

test("the fleet shows what an agent reports, and what is refused is taken back", async (t) => {
  const node = await Node.start(t, "--node-id", "edge");
  const client = node.client(t);
  const registration = { id: "a 1/☂", name: "first", group: "g", labels: { site: "north" }, status: "READY" } as const;
  const agent = await start(t, node.address, registration);
  const terms = await agent.waitRegistered();
  assert.deepEqual([terms.nodeId, terms.heartbeatIntervalMs], ["edge", 1000]);
  await agent.reportDeployment({ name: "web", version: "2", status: "running" });
  await eventually("the workload is there", async () => (await client.fleetDeployments()).length === 1);
  const [platform] = await client.fleetPlatforms();
  assert.deepEqual([platform?.id, platform?.name, platform?.group], ["a 1/☂", "first", "g"]);
  assert.equal(platform?.liveness, Liveness.LIVE);
  const shown = (await client.fleetDeployments()).map((d) => [d.agentId, d.package, d.version]);
  assert.deepEqual(shown, [["a 1/☂", "web", "2"]]);
  await agent.heartbeat({ status: "BUSY", labels: { site: "south" } });
  await eventually("the workload is gone", async () => (await client.fleetDeployments()).length === 0);
  await assert.rejects(
    agent.reportDeployment({ name: "" }),
    (error) => error instanceof ConnectError && error.code === Code.InvalidArgument,
  );
  await agent.waitRegistered();
  await agent.update({ ...agent.registration, version: "7" });
  await eventually("the version", async () => (await client.agents())[0]?.version === "7");
  await assert.rejects(agent.update({ id: "other" }), /keeps its id/);
});

test("what changes before the node is reached is told", async (t) => {
  const node = await Node.start(t);
  const agent = await start(t, node.address, { id: "a1" });
  await Promise.all([agent.reportDeployment({ name: "one" }), agent.reportDeployment({ name: "two" })]);
  const client = node.client(t);
  const shown = async (): Promise<string> => (await client.fleetDeployments()).map((found) => found.package).join();
  await eventually("both are there", async () => (await shown()) === "one,two");
});

test("an agent stays LIVE by its heartbeats, through a restart of the node, and is STALE when it has left", async (t) => {
  const node = await Node.start(t);
  const agent = await start(t, node.address, { id: "a1" });
  await agent.waitRegistered();
  await node.kill();
  await node.resume();
  const client = node.client(t);
  const shows = async (liveness: Liveness): Promise<boolean> => (await client.agents())[0]?.liveness === liveness;
  await eventually("it is back", () => agent.connected);
  // Longer than it may be silent.
  await sleep(4_000);
  assert.ok(await shows(Liveness.LIVE));
  await agent.close();
  await eventually("it is STALE", () => shows(Liveness.STALE));
});

test("a command has its effect and its result is told", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const running = new Map<string, string>();
  const agent = await start(t, node.address, { id: "a1", group: "g" }, (command) => {
    const wanted = command.value as { name: string; version?: string };
    if (wanted.version === undefined) {
      throw new Error("which version?");
    }
    command.progress(50, "half way");
    running.set(wanted.name, wanted.version);
    return { deployed: wanted.name };
  });
  await agent.waitRegistered();
  const id = await client.sendCommand({ agent: "a1", type: "deploy", payload: { name: "radar", version: "2" } });
  const record = await client.waitCommand(id, { timeoutMs });
  assert.deepEqual([record.status, record.resultJson], [CommandStatus.COMPLETED, '{"deployed":"radar"}']);
  assert.equal(running.get("radar"), "2");
  const failed = await client.sendCommand({ group: "g", type: "deploy", payload: '{"name": "radar"}' });
  const [target] = (await client.waitCommand(failed, { timeoutMs })).targets;
  assert.deepEqual([target?.status, target?.error], [CommandStatus.FAILED, "which version?"]);
});

test("payloads and results keep numbers that JavaScript has not", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const agent = await start(t, node.address, { id: "a1" }, (command) => command.payload);
  await agent.waitRegistered();
  const id = await client.sendCommand({ agent: "a1", type: "echo", payload: '{"n":9007199254740993}' });
  assert.equal((await client.waitCommand(id, { timeoutMs })).resultJson, '{"n":9007199254740993}');
});

test("what was sent while no agent was there runs when it comes", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const id = await client.sendCommand({ agent: "a1", type: "work", ttlS: null });
  const agent = await start(t, node.address, { id: "a1" }, () => 1);
  await agent.waitRegistered();
  assert.equal((await client.waitCommand(id, { timeoutMs })).status, CommandStatus.COMPLETED);
});

test("a cut in the middle of the work is one execution, also under a second id", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const proxy = new LinkProxy(node);
  await proxy.mend();
  t.after(() => proxy.cut());
  const begun = latch();
  const finish = latch();
  const runs: string[] = [];
  const record = recordIn(join(node.home, "record"));
  const work = (command: Command): Promise<string> =>
    command.once("deploy radar 2", async () => {
      runs.push(command.id);
      begun.set();
      await finish.wait;
      return { took: "a while" };
    });
  const agent = await start(t, proxy.address, { id: "a1" }, work, { record });
  await agent.waitRegistered();
  const first = await client.sendCommand({ agent: "a1", type: "deploy" });
  await begun.wait;
  await proxy.cut();
  await eventually("it is STALE", async () => (await client.agents())[0]?.liveness === Liveness.STALE);
  // Its sender sees nothing come back, and sends it again.
  const retry = await client.sendCommand({ agent: "a1", type: "deploy", ttlS: null });
  assert.equal((await client.command(first)).status, CommandStatus.EXECUTING);
  finish.set();
  await proxy.mend();
  for (const id of [first, retry]) {
    const { status, resultJson } = await client.waitCommand(id, { timeoutMs });
    assert.deepEqual([status, resultJson], [CommandStatus.COMPLETED, '{"took":"a while"}']);
  }
  assert.deepEqual(runs, [first]);
});

test("a node that crashes in the middle of the work loses nothing", async (t) => {
  const node = await Node.start(t);
  const begun = latch();
  const finish = latch();
  const runs: string[] = [];
  const agent = await start(t, node.address, { id: "a1" }, async (command) => {
    runs.push(command.id);
    begun.set();
    await finish.wait;
    return 1;
  });
  await agent.waitRegistered();
  const id = await node.client(t).sendCommand({ agent: "a1", type: "work", ttlS: null });
  await begun.wait;
  await node.kill();
  finish.set();
  await node.resume();
  const { status, resultJson } = await node.client(t).waitCommand(id, { timeoutMs });
  assert.deepEqual([status, resultJson, runs], [CommandStatus.COMPLETED, "1", [id]]);
});

test("an agent that is restarted does not run the same command again", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const begun = latch();
  const record = (): AgentOptions => ({ record: recordIn(join(node.home, "record")) });
  const before = await start(
    t,
    node.address,
    { id: "a1" },
    async () => {
      begun.set();
      await latch().wait;
    },
    record(),
  );
  await before.waitRegistered();
  const id = await client.sendCommand({ agent: "a1", type: "work", ttlS: null });
  await begun.wait;
  await assert.rejects(Agent.start(client, { id: "a1" }, record()), /another agent uses it/);
  assert.equal(await before.close(10), false);
  await assert.rejects(Agent.start(client, { id: "a2" }, record()), /belongs to agent "a1"/);
  const runs: string[] = [];
  await start(t, node.address, { id: "a1" }, (command) => runs.push(command.id), record());
  const { status, error } = await client.waitCommand(id, { timeoutMs });
  assert.deepEqual([status, error, runs], [CommandStatus.FAILED, "the agent was restarted while the command ran", []]);
});

test("a cancellation is requested until the agent confirms it", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const begun = latch();
  const agent = await start(t, node.address, { id: "a1" }, async (command) => {
    begun.set();
    await new Promise((_, reject) => command.signal.addEventListener("abort", () => reject(command.signal.reason)));
  });
  await agent.waitRegistered();
  const id = await client.sendCommand({ agent: "a1", type: "work" });
  await begun.wait;
  await client.cancelCommand(id);
  assert.equal((await client.waitCommand(id, { timeoutMs })).status, CommandStatus.CANCELLED);
});

test("failures are the command's own", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const agent = await start(t, node.address, { id: "a1" }, (command) => {
    switch (command.type) {
      case "long":
        throw new Error("☂".repeat(4096));
      case "large":
        return JSON.stringify("x".repeat(300 << 10));
      case "no json":
        return "{";
      default:
        throw null;
    }
  });
  await agent.waitRegistered();
  for (const [type, why] of [
    ["long", /☂…$/],
    ["large", /the limit is 262144/],
    ["no json", /is not JSON/],
    ["null", /null/],
  ] as const) {
    const id = await client.sendCommand({ agent: "a1", type });
    const { status, error } = await client.waitCommand(id, { timeoutMs });
    assert.equal(status, CommandStatus.FAILED);
    assert.match(error, why);
    assert.ok(Buffer.byteLength(error) <= 4096);
  }
});

test("commands run once and all end, through cuts and crashes", async (t) => {
  const node = await Node.start(t);
  const proxy = new LinkProxy(node);
  await proxy.mend();
  t.after(() => proxy.cut());
  const runs = new Map<string, number>();
  const begin = (): Promise<Agent> =>
    start(
      t,
      proxy.address,
      { id: "a1" },
      async (command) => {
        runs.set(command.id, (runs.get(command.id) ?? 0) + 1);
        await sleep(2);
        command.signal.throwIfAborted();
        return { ran: true };
      },
      { record: recordIn(join(node.home, "record")) },
    );
  let agent = await begin();
  const ids = Array.from({ length: 30 }, (_, n) => `c${n}`);
  for (const [n, id] of ids.entries()) {
    const sender = connect(node.address);
    await sender.sendCommand({ agent: "a1", type: "work", ttlS: null, id });
    sender.close();
    if (n % 5 === 1) {
      await proxy.cut();
      await proxy.mend();
    } else if (n % 13 === 3) {
      await node.kill();
      await node.resume();
    } else if (n % 7 === 4) {
      await agent.close(n % 2 ? 10 : 5_000);
      agent = await begin();
    }
  }
  const client = node.client(t);
  for (const id of ids) {
    const { status } = await client.waitCommand(id, { timeoutMs });
    assert.ok(status === CommandStatus.COMPLETED || status === CommandStatus.FAILED, `${id}: ${status}`);
  }
  assert.deepEqual(
    [...runs].filter(([, count]) => count !== 1),
    [],
  );
});

test("a polling agent is listed with what it runs, and runs each command once", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const runs: string[] = [];
  const begun = latch();
  const handler: Handler = async (command) => {
    runs.push(command.id);
    if (command.type === "wait") {
      begun.set();
      await new Promise((_, reject) => command.signal.addEventListener("abort", () => reject(command.signal.reason)));
    }
    return { n: runs.length };
  };
  await assert.rejects(Agent.start(client, { id: "a1" }, { pollingMs: 0 }), /polling interval/);
  const record = recordIn(join(node.home, "record"));
  const agent = await start(t, node.address, { id: "a1", group: "g" }, handler, { pollingMs: 20, record });
  assert.equal((await agent.waitRegistered()).heartbeatIntervalMs, 1000);
  await agent.reportDeployment({ name: "web", version: "2", status: "running" });
  await eventually("the workload is there", async () => (await client.fleetDeployments())[0]?.package === "web");
  const done = await client.sendCommand({ group: "g", type: "work" });
  const [target] = (await client.waitCommand(done, { timeoutMs })).targets;
  assert.deepEqual([target?.status, target?.resultJson], [CommandStatus.COMPLETED, '{"n":1}']);
  const cancelled = await client.sendCommand({ agent: "a1", type: "wait" });
  await begun.wait;
  await client.cancelCommand(cancelled);
  assert.equal((await client.waitCommand(cancelled, { timeoutMs })).status, CommandStatus.CANCELLED);
  await node.kill();
  await node.resume();
  const again = await node.client(t).sendCommand({ agent: "a1", type: "work", ttlS: null });
  assert.equal((await node.client(t).waitCommand(again, { timeoutMs })).status, CommandStatus.COMPLETED);
  assert.deepEqual(runs, [done, cancelled, again]);
});

test("an agent gives signs of life more often than it polls", async (t) => {
  const node = await Node.start(t);
  const client = node.client(t);
  const agent = await start(t, node.address, { id: "a1" }, undefined, { pollingMs: 3_600_000 });
  await agent.waitRegistered();
  const age = async (): Promise<bigint> => (await client.agents())[0]?.ageMs ?? 0n;
  let last = await age();
  await eventually("a sign of life", async () => {
    const before = last;
    last = await age();
    return last < before;
  });
});

// The record of commands.

import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type TestContext, test } from "node:test";
import { encode, kept, Ledger, type Line, Stage } from "../src/ledger.js";
import { recordIn } from "../src/node.js";

function home(t: TestContext): string {
  const directory = mkdtempSync(join(tmpdir(), "peat-"));
  t.after(() => rmSync(directory, { recursive: true }));
  return directory;
}

const NAME = "commands.ledger";

test("what was appended is there after a restart", async (t) => {
  const directory = home(t);
  let ledger = await Ledger.load("a1", recordIn(directory));
  await ledger.append(
    { kind: "accepted", id: "c1", command: "CgJjMQ==" },
    { kind: "accepted", id: "c2", command: "CgJjMg==" },
  );
  await ledger.append({ kind: "started", id: "c2" });
  await ledger.append({ kind: "done", id: "c3", stage: Stage.completed, result: '"☂"' });
  await ledger.append({ kind: "settled", id: "c4", stage: Stage.failed }, { kind: "settled", id: "c5" });
  await ledger.append({ kind: "work", id: "key", result: "1", at: 7 });
  for (let times = 0; times < 2; times++) {
    await ledger.close();
    ledger = await Ledger.load("a1", recordIn(directory));
    assert.deepEqual(ledger.open.get("c1"), { kind: "accepted", id: "c1", command: "CgJjMQ==" });
    assert.deepEqual(ledger.open.get("c2"), { kind: "started", id: "c2", command: "CgJjMg==" });
    assert.deepEqual(ledger.open.get("c3"), { kind: "done", id: "c3", stage: Stage.completed, result: '"☂"' });
    assert.deepEqual([...ledger.settled], [["c4", Stage.failed]]);
    assert.equal(ledger.work.get("key")?.at, 7);
  }
  await ledger.close();
});

test("a torn end is dropped, and damage is refused", async (t) => {
  const directory = home(t);
  const lines: Line[] = [
    { kind: "owner", id: "a1" },
    { kind: "accepted", id: "c1", command: "" },
    { kind: "accepted", id: "c2", command: "" },
  ];
  const whole = lines.map(encode).join("");
  for (let cut = 1; cut < encode(lines[2] as Line).length; cut++) {
    writeFileSync(join(directory, NAME), whole.slice(0, -cut));
    const ledger = await Ledger.load("a1", recordIn(directory));
    assert.deepEqual([...ledger.open.keys()], ["c1"]);
    await ledger.close();
  }
  for (let at = 0; at < whole.length - 1; at += 3) {
    const damaged = Buffer.from(whole);
    damaged[at] = (damaged[at] ?? 0) ^ 1;
    if (whole[at] === "\n" || damaged[at] === 10) {
      continue;
    }
    writeFileSync(join(directory, NAME), damaged);
    const store = recordIn(directory);
    await assert.rejects(Ledger.load("a1", store), /damaged/, `byte ${at}`);
    await store.close();
  }
});

test("a record is one agent's, in one process, and a lock left by a crash is none", async (t) => {
  const directory = home(t);
  const ledger = await Ledger.load("a1", recordIn(directory));
  await assert.rejects(Ledger.load("a1", recordIn(directory)), /another agent uses it/);
  await ledger.close();
  const other = recordIn(directory);
  await assert.rejects(Ledger.load("a2", other), /belongs to agent "a1"/);
  await other.close();
  writeFileSync(join(directory, `${NAME}.pid`), "1 began-otherwise\n");
  await (await Ledger.load("a1", recordIn(directory))).close();
});

test("a record is bounded", async () => {
  const ledger = await Ledger.load("a1");
  const settled = Array.from(
    { length: 20_000 },
    (_, n) => ({ kind: "settled", id: `c${n}`, stage: Stage.completed }) as const,
  );
  await ledger.append(...settled);
  await ledger.append(...Array.from({ length: 600 }, (_, n) => ({ kind: "work", id: `k${n}` }) as const));
  assert.deepEqual([ledger.settled.size, ledger.work.size], [10_000, 256]);
  assert.ok(ledger.settled.has("c19999"));
});

test("a record on disk is compacted", async (t) => {
  const directory = home(t);
  const ledger = await Ledger.load("a1", recordIn(directory));
  const result = JSON.stringify("x".repeat(200 << 10));
  for (let n = 0; n < 12; n++) {
    await ledger.append({ kind: "work", id: "key", result, at: n });
  }
  assert.ok(statSync(join(directory, NAME)).size < 2 << 20);
  await ledger.close();
  const again = await Ledger.load("a1", recordIn(directory));
  assert.equal(again.work.get("key")?.at, 11);
  await again.close();
});

test("appends that run together keep their order", async (t) => {
  const directory = home(t);
  const ledger = await Ledger.load("a1", recordIn(directory));
  await Promise.all(
    Array.from({ length: 50 }, (_, n) => ledger.append({ kind: "settled", id: `c${n}`, stage: Stage.completed })),
  );
  await ledger.close();
  const ids = [...readFileSync(join(directory, NAME), "utf8").matchAll(/"id":"(c\d+)"/g)].map((found) => found[1]);
  assert.deepEqual(
    ids,
    Array.from({ length: 50 }, (_, n) => `c${n}`),
  );
});

test("the record of the Go and Python clients is read", async (t) => {
  const directory = home(t);
  // As ipc/go writes it; the command is "c1", of type "a<b".
  const owner = '2b6ad9a2 {"kind":"owner","id":"a1"}';
  const accepted = '5504c2c8 {"kind":"accepted","id":"c1","command":"CgJjMRoDYTxi"}';
  writeFileSync(join(directory, NAME), `${owner}\n${accepted}\n`);
  const ledger = await Ledger.load("a1", recordIn(directory));
  const open = ledger.open.get("c1");
  assert.equal(open && "command" in open && open.command ? kept(open.command)?.commandType : "", "a<b");
  await ledger.close();
});
